"""Who uses the versions of a model, and the end of those that nobody does."""

from __future__ import annotations

import json
from collections.abc import Iterator

from airflow_provider_snowml.core.model_retention import CORTEX_FINETUNED, VersionInUse
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, literal
from airflow_provider_snowml.core.promotion import CatalogVersion
from airflow_provider_snowml.exceptions import ObjectNotFoundError
from airflow_provider_snowml.hooks.monitors import list_monitors
from airflow_provider_snowml.hooks.snowml import Row, SnowMLHook


def versions_in_use(
    hook: SnowMLHook, model: QualifiedName, version: str | None = None
) -> list[VersionInUse] | None:
    """A model's versions, and who uses them; ``None`` if there is no such model.

    Monitors are looked for in the model's schema, which is where Snowflake wants them.

    :param hook: the hook.
    :param model: the model.
    :param version: the resolved name of the only one that is asked for.
    """
    like = f" LIKE {literal(version)}" if version is not None else ""
    try:
        rows = hook.rows(f"SHOW VERSIONS{like} IN MODEL {model.sql}")
    except ObjectNotFoundError:
        return None
    monitors = list_monitors(hook, model.parent)
    watched = [(json.loads(monitor["model"] or "{}"), str(monitor["name"])) for monitor in monitors]
    return [_version(row, model, watched) for row in rows if version in (None, row["name"])]


def _version(row: Row, model: QualifiedName, watched: list[tuple[dict[str, str], str]]) -> VersionInUse:
    seen = CatalogVersion(row["name"], metadata=json.loads(row["metadata"] or "{}"))
    return VersionInUse(
        name=str(row["name"]),
        created_at=row["created_on"].timestamp(),
        aliases=tuple(json.loads(row["aliases"] or "[]")),
        services=tuple(json.loads(row["inference_services"] or "[]")),
        monitors=tuple(
            name
            for what, name in watched
            if (what.get("model_name"), what.get("version_name")) == (model.name.name, row["name"])
        ),
        previous_champion=seen.promotion.previous_version if seen.promotion else None,
    )


def models_of(hook: SnowMLHook, schema: SchemaName) -> Iterator[tuple[QualifiedName, bool]]:
    """The models of a schema, and whether Cortex fine-tuning made them."""
    for row in hook.rows(f"SHOW MODELS IN SCHEMA {schema.sql}"):
        name = QualifiedName(schema.database, schema.schema, Identifier.of(str(row["name"])))
        yield name, row["model_type"] == CORTEX_FINETUNED


def drop_version(hook: SnowMLHook, model: QualifiedName, version: str) -> bool:
    """Drop a version; whether it was there.

    :param hook: the hook.
    :param model: the model. Needs OWNERSHIP of it.
    :param version: the version's resolved name.
    """
    try:
        hook.rows(f"ALTER MODEL {model.sql} DROP VERSION {Identifier.of(version).sql}")
    except ObjectNotFoundError:
        return False
    return True
