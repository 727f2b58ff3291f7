"""What of a registration is found in Snowflake, and what is looked at before and after it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_snowml.core.model_ref import ModelVersionRef
from airflow_provider_snowml.core.names import Identifier, QualifiedName, literal
from airflow_provider_snowml.core.registration import REGISTRATION_PATH, Registration
from airflow_provider_snowml.exceptions import ModelVerificationError
from airflow_provider_snowml.hooks.snowml import SnowMLHook


def read_registration(hook: SnowMLHook, model: QualifiedName, version: str) -> Registration | None:
    """The registration among a version's files; ``None`` if it has none. Needs READ on the model."""
    found = hook.download(f"snow://model/{model.sql}/versions/{version}/{REGISTRATION_PATH}")
    return Registration.from_json(found) if found is not None else None


def version_metrics(hook: SnowMLHook, model: QualifiedName, version: str) -> dict[str, Any]:
    """A version's metrics, as snowflake-ml keeps them in its metadata."""
    return comment_and_metrics(hook, model, version)[1]


def comment_and_metrics(hook: SnowMLHook, model: QualifiedName, version: str) -> tuple[str, dict[str, Any]]:
    """A version's comment and its metrics."""
    rows = hook.rows(f"SHOW VERSIONS LIKE {literal(version)} IN MODEL {model.sql}")
    row = next((row for row in rows if row["name"] == version), {})
    metadata = json.loads(row.get("metadata") or "{}") or {}
    return row.get("comment") or "", dict(metadata.get("metrics") or {})


def copy_version(
    hook: SnowMLHook, source: ModelVersionRef, model: QualifiedName, version: str, *, is_new: bool
) -> None:
    """Copy a version on the server, with its files, comment and metrics. Needs READ on its model.

    :param hook: the hook.
    :param source: what is copied.
    :param model: where to.
    :param version: the new version's resolved name.
    :param is_new: whether the model is not there yet.
    """
    name = Identifier.of(version).sql
    what = f"CREATE MODEL {model.sql} WITH VERSION" if is_new else f"ALTER MODEL {model.sql} ADD VERSION"
    hook.rows(f"{what} {name} FROM MODEL {source.model.sql} VERSION {source.version_sql}")


def drop_statement(model: QualifiedName, version: str, *, only: bool) -> str:
    """The statement that drops a version.

    :param model: its model.
    :param version: its resolved name.
    :param only: whether the model has no other: then the whole model is dropped, as Snowflake wants it.
    """
    if only:
        return f"DROP MODEL {model.sql}"
    return f"ALTER MODEL {model.sql} DROP VERSION {Identifier.of(version).sql}"


def check_functions(ref: ModelVersionRef, expected: Iterable[str] | None) -> None:
    """Check that a version has the functions that were asked for.

    :param ref: the version.
    :param expected: the methods; ``None`` if the choice was snowflake-ml's.
    :raises ModelVerificationError: if one lacks, or there are none.
    """
    have = {function.target_method for function in ref.functions}
    missing = sorted(set(expected or ()) - have)
    if missing or not have:
        raise ModelVerificationError(
            f"{ref.model} version {ref.version} has no function {', '.join(missing) or 'at all'}. There are: "
            f"{', '.join(sorted(have)) or 'none'}."
        )


def set_tags(hook: SnowMLHook, model: QualifiedName, tags: Mapping[QualifiedName, str]) -> None:
    """Give a model tags; one that is there already gets the value. Needs APPLY on each tag."""
    for tag, value in tags.items():
        hook.rows(f"ALTER MODEL {model.sql} SET TAG {tag.sql} = {literal(value)}")
