"""Where fakesnow does otherwise than Snowflake, and has no setting for it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from string import Template

from fakesnow import cursor, info_schema, transforms, variables
from fakesnow.transforms import stage
from fakesnow.transforms import transforms as statements
from snowflake.connector.errors import ProgrammingError


class _Quoted(Template):
    """A statement with names between quotes."""

    def substitute(self, **names: str) -> str:  # type: ignore[override]
        return super().substitute({key: _doubled(name) for key, name in names.items()})


def apply() -> None:
    """Put it right, once."""
    # It casts what is summed to DOUBLE, in case it is text. Sums of whole numbers must stay whole; text has
    # to be cast by whoever writes the statement.
    transforms.numeric_agg_implicit_cast = lambda expression: expression

    # It writes names and comments between quotes as they are.
    for module, templates in (
        (cursor, ("SQL_CREATED_TABLE", "SQL_CREATED_VIEW", "SQL_DROPPED")),
        (statements, ("SQL_DESCRIBE_TABLE",)),
    ):
        for name in templates:
            setattr(module, name, _Quoted(getattr(module, name).template))
    note_comment, note_lengths = info_schema.insert_table_comment_sql, info_schema.insert_text_lengths_sql
    info_schema.insert_table_comment_sql = lambda *texts: note_comment(*map(_doubled, texts))
    info_schema.insert_text_lengths_sql = lambda catalog, schema, table, lengths: note_lengths(
        *map(_doubled, (catalog, schema, table)), [(_doubled(column), length) for column, length in lengths]
    )

    # It looks for variables in texts, names and comments, too.
    variables.Variables.inline_variables = _inline_variables

    # On import it makes a directory for stages of its own; ours lie in the data directory.
    with contextlib.suppress(OSError):
        Path(stage.LOCAL_BUCKET_PATH).rmdir()


_VARIABLE = re.compile(
    r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"]|"")*"|\$\$.*?\$\$|--[^\n]*|//[^\n]*|/\*.*?\*/"""  # not in these
    r"""|(?<![\w$])\$(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)


def _inline_variables(self: variables.Variables, sql: str) -> str:
    """There are none: SET is not supported."""
    for found in _VARIABLE.finditer(sql):
        if name := found["name"]:
            raise ProgrammingError(msg=f"Session variable '${name.upper()}' does not exist")
    return sql


def _doubled(text: object) -> str:
    return str(text).replace("'", "''")
