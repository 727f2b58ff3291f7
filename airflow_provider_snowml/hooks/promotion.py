"""What promotions read and change of a model."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, literal
from airflow_provider_snowml.core.promotion import CatalogModel, CatalogVersion, Step
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    ModelVersionExistsError,
    ObjectNotFoundError,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook

log = logging.getLogger(__name__)


def find_model(hook: SnowMLHook, model: QualifiedName) -> CatalogModel | None:
    """A model and its versions as they are now; ``None`` if there is none."""
    try:
        rows = hook.rows(f"SHOW VERSIONS IN MODEL {model.sql}")
    except ObjectNotFoundError:
        return None
    return CatalogModel(model, tuple(_version(row) for row in rows))


def get_model(hook: SnowMLHook, model: QualifiedName) -> CatalogModel:
    """The same of a model that must be there.

    :raises ModelNotFoundError: if it isn't; the message lists the schema's models.
    """
    found = find_model(hook, model)
    if found is None:
        raise hook.no_such_model(model)
    return found


def with_marks(
    hook: SnowMLHook, model: CatalogModel, *, tag: QualifiedName | None, comment: bool
) -> CatalogModel:
    """The model with the tag's value and its comment, where they are wanted.

    :param hook: the hook.
    :param model: the model.
    :param tag: the tag; it must be there.
    :param comment: whether the comment is wanted.
    """
    name = model.name
    if tag is not None:
        model = replace(model, tag_value=tag_value(hook, tag, name))
    if comment:
        rows = hook.rows(f"SHOW MODELS LIKE {literal(name.name.name)} IN SCHEMA {name.parent.sql}")
        shown = [str(row["comment"] or "") for row in rows if row["name"] == name.name.name]
        model = replace(model, comment=next(iter(shown), ""))
    return model


def tag_value(hook: SnowMLHook, tag: QualifiedName, model: QualifiedName) -> str | None:
    """The value that a model's tag has; ``None`` if it has none. The tag must be there."""
    value = hook.value(f"SELECT SYSTEM$GET_TAG({literal(tag.sql)}, {literal(model.sql)}, 'MODULE')")
    return None if value is None else str(value)


def check_tag(hook: SnowMLHook, tag: QualifiedName, *, create: bool) -> None:
    """Have a tag be there before anything is changed.

    :param hook: the hook.
    :param tag: the tag.
    :param create: whether to create it if it is missing. Needs CREATE TAG on its schema.
    :raises InvalidArgumentError: if it is missing and not to be created.
    """
    shown = hook.rows(f"SHOW TAGS LIKE {literal(tag.name.name)} IN SCHEMA {tag.parent.sql}")
    if any(row["name"] == tag.name.name for row in shown):
        return
    if not create:
        raise InvalidArgumentError(
            f"There is no tag {tag}, or the role may not see it: CREATE TAG {tag.sql}, or have it created "
            "with create_tag=True."
        )
    hook.rows(f"CREATE TAG IF NOT EXISTS {tag.sql}")


def run_steps(hook: SnowMLHook, model: QualifiedName, steps: Iterable[Step]) -> None:
    """Send the statements, one after the other."""
    for step in steps:
        log.info("%s: %s.", model, step.what)
        hook.rows(step.sql)


def copy_version(
    hook: SnowMLHook, source: QualifiedName, version: str, model: QualifiedName, there: CatalogModel | None
) -> None:
    """Have a version in another model too, on the server, without its files passing through here.

    A version of that name that is a copy of it already is left alone: a copy has the same description, which
    holds the time at which it was logged.

    :param hook: the hook.
    :param source: the model that has it. Needs OWNERSHIP or READ of it.
    :param version: the version's resolved name.
    :param model: the model that is to have it. Needs OWNERSHIP, or CREATE MODEL on its schema.
    :param there: that model as it is now, if it is there.
    :raises ModelVersionExistsError: if it has another version of that name.
    """
    if there is not None and there.find(version):
        spec = hook.model_spec(source, version)
        if not spec or spec != hook.model_spec(model, version):
            raise ModelVersionExistsError(
                f"{model} has a version {version} already that is no copy of {source}'s, or their "
                "descriptions may not be seen."
            )
        return
    name = Identifier.of(version).sql
    log.info("Copying version %s of %s to %s.", version, source, model)
    from_model = f"VERSION {name} FROM MODEL {source.sql} VERSION {name}"
    if there is None:
        hook.rows(f"CREATE MODEL {model.sql} WITH {from_model}")
    else:
        hook.rows(f"ALTER MODEL {model.sql} ADD {from_model}")


def _version(row: dict[str, Any]) -> CatalogVersion:
    created_on = row["created_on"]
    return CatalogVersion(
        row["name"],
        # It comes in the session's time zone, and is compared with what another session has seen.
        created_on.astimezone(UTC).isoformat() if isinstance(created_on, datetime) else str(created_on),
        tuple(json.loads(row["aliases"] or "[]")),
        json.loads(row["metadata"] or "{}"),
        str(row["comment"] or ""),
    )
