"""What a statement answers: an Arrow table and the column types that Snowflake reports."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

# statementTypeId, as the connector reads it
SELECT, INSERT, UPDATE, DELETE, MERGE, COPY = 0x1000, 0x3100, 0x3200, 0x3300, 0x3400, 0x3600
SHOW, DESCRIBE, TCL, DDL, UNKNOWN = 0x4400, 0x4500, 0x5000, 0x6000, 0

_ARROW = {
    "text": pa.string(),
    "fixed": pa.int64(),
    "real": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp_ltz": pa.timestamp("us", tz="UTC"),
    "timestamp_ntz": pa.timestamp("us"),
    "variant": pa.string(),
}


@dataclass(frozen=True)
class Result:
    """:param table: the rows; :param rowtype: one dict per column as in the wire's ``rowtype``;
    :param type_id: Snowflake's statement type id; :param transfer: the ``data`` of a PUT or GET
    answer, which the client carries out itself."""

    table: pa.Table
    rowtype: list[dict[str, Any]]
    type_id: int = UNKNOWN
    transfer: Mapping[str, Any] | None = None


def column(name: str, type_: str, nullable: bool = True) -> dict[str, Any]:
    """One ``rowtype`` entry."""
    return {
        "name": name,
        "database": "",
        "schema": "",
        "table": "",
        "nullable": nullable,
        "type": type_,
        "byteLength": 16777216 if type_ == "text" else None,
        "length": 16777216 if type_ == "text" else None,
        "scale": {"fixed": 0, "timestamp_ltz": 3, "timestamp_ntz": 9}.get(type_),
        "precision": 38 if type_ == "fixed" else None,
        "collation": None,
    }


def rows(
    columns: Sequence[str | tuple[str, str]],
    values: Iterable[Sequence[Any] | Mapping[str, Any]],
    type_id: int = SHOW,
) -> Result:
    """A table of rows.

    :param columns: names, or (name, type) with a type of the wire: text, fixed, real, boolean,
        timestamp_ltz, timestamp_ntz, variant; a bare name is text.
    :param values: rows, as sequences in the columns' order or as dicts by column name (a missing
        key is NULL).
    """
    typed = [(c, "text") if isinstance(c, str) else c for c in columns]
    records = [[v.get(n) for n, _ in typed] if isinstance(v, Mapping) else list(v) for v in values]
    arrays = [pa.array([_plain(r[i], t) for r in records], type=_ARROW[t]) for i, (_, t) in enumerate(typed)]
    schema = pa.schema([pa.field(n, _ARROW[t]) for n, t in typed])
    return Result(pa.Table.from_arrays(arrays, schema=schema), [column(n, t) for n, t in typed], type_id)


def status(message: str, type_id: int = DDL) -> Result:
    """The one-row answer of a DDL statement."""
    return rows(["status"], [[message]], type_id)


def _plain(value: Any, type_: str) -> Any:
    if value is None or type_ not in ("text", "variant"):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
