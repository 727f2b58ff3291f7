"""Run schemas, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from airflow_provider_snowml.core.names import Identifier, SchemaName, literal
from airflow_provider_snowml.core.run_schema import RunSchemaMark
from airflow_provider_snowml.hooks.snowml import SnowMLHook

NOT_OURS = "not ours"


def find_run_schema(hook: SnowMLHook, schema: SchemaName) -> RunSchemaMark | str | None:
    """Whose a schema is: a mark, or :data:`NOT_OURS` for one without; ``None`` if there is no such schema.

    :param hook: the hook, with a connection open.
    :param schema: the schema.
    """
    # A pattern, in which _ stands for any letter: hence the look at the names.
    for row in hook.rows(
        f"SHOW SCHEMAS LIKE {literal(schema.schema.name)} IN DATABASE {schema.database.sql}"
    ):
        if row["name"] == schema.schema.name:
            return RunSchemaMark.from_comment(row["comment"]) or NOT_OURS
    return None


def marked_schemas(hook: SnowMLHook, database: Identifier) -> Iterator[tuple[str, RunSchemaMark, datetime]]:
    """The run schemas of a database: name, mark, and when it was made.

    :param hook: the hook, with a connection open.
    :param database: the database.
    """
    for row in hook.rows(f"SHOW SCHEMAS IN DATABASE {database.sql}"):
        mark = RunSchemaMark.from_comment(row["comment"])
        if mark is not None:
            yield str(row["name"]), mark, row["created_on"]
