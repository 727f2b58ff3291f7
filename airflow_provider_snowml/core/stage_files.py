"""The files of a stage as rows: the input of a model that reads images, sound or documents."""

from __future__ import annotations

import re

from airflow_provider_snowml.core.names import Identifier, QualifiedName, literal
from airflow_provider_snowml.exceptions import InvalidNameError

_TEMPLATE = re.compile(r"(\{\{.*?\}\})", re.DOTALL)


def stage_files_query(location: str, *, pattern: str | None = None, column_name: str = "FILE_PATH") -> str:
    """A query with one row per file of a directory, for ``input_query``.

    Its column holds full stage paths, which ``column_handling`` turns into the files' content. It reads the
    stage's directory table, which lists the files that were there when it was last refreshed: create the
    stage with ``DIRECTORY = (ENABLE = TRUE)`` and run ``ALTER STAGE ... REFRESH`` first. See
    https://docs.snowflake.com/en/user-guide/data-load-dirtables-query.

    :param location: ``@database.schema.stage[/directory/]``; the directory may hold templates, such as
        ``{{ ds }}``. What they render to must hold no quotes.
    :param pattern: a regular expression for the whole path below the stage, such as ``r".*[.]jpg"``.
    :param column_name: the column.
    :raises InvalidNameError: if the stage is none, or not written in full.
    """
    stage, _, directory = location.removeprefix("@").partition("/")
    try:
        name = QualifiedName.parse(stage, what="stage").sql if location.startswith("@") else None
    except InvalidNameError:
        name = None
    if name is None:
        raise InvalidNameError(
            f"{location!r} is no full stage location: write @database.schema.stage/directory/, since the "
            "rows hold full paths."
        )
    conditions = []
    if directory:
        conditions.append(f"STARTSWITH(RELATIVE_PATH, {_literal(directory.rstrip('/') + '/')})")
    if pattern is not None:
        conditions.append(f"RLIKE(RELATIVE_PATH, {_literal(pattern)})")
    column = Identifier.parse(column_name, what="column name").sql
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {literal(f'@{name}/')} || RELATIVE_PATH AS {column} FROM DIRECTORY(@{name}){where}"


def _literal(text: str) -> str:
    """A literal, in which templates stay as they are."""
    parts = (part if _TEMPLATE.fullmatch(part) else literal(part)[1:-1] for part in _TEMPLATE.split(text))
    return f"'{''.join(parts)}'"
