"""DuckDB's column types as Snowflake reports them."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa
from fakesnow.arrow import to_ipc, to_sf

_TYPES = {
    '"NULL"': "text",
    "NULL": "text",
    "TINYINT": "fixed",
    "SMALLINT": "fixed",
    "INTEGER": "fixed",
    "BIGINT": "fixed",
    "HUGEINT": "fixed",
    "UTINYINT": "fixed",
    "USMALLINT": "fixed",
    "UINTEGER": "fixed",
    "UBIGINT": "fixed",
    "UHUGEINT": "fixed",
    "BLOB": "binary",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "FLOAT": "real",
    "DOUBLE": "real",
    "JSON": "variant",
    "TIME": "time",
    "TIMESTAMP WITH TIME ZONE": "timestamp_tz",
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP_S": "timestamp_ntz",
    "TIMESTAMP_MS": "timestamp_ntz",
    "TIMESTAMP_NS": "timestamp_ntz",
    "UUID": "text",
    "VARCHAR": "text",
}


def rowtype(name: str, duckdb_type: str) -> dict[str, Any]:
    """One ``rowtype`` entry of the wire for a DuckDB column."""
    decimal = re.match(r"DECIMAL\((\d+),\s*(\d+)\)", duckdb_type)
    if decimal:
        type_ = "fixed"
    elif duckdb_type.endswith("]"):
        type_ = "array"
    elif duckdb_type.startswith(("STRUCT", "MAP")):
        type_ = "object"
    else:
        type_ = _TYPES.get(duckdb_type, "text")
    fixed = type_ == "fixed"
    length = {"text": 16777216, "binary": 8388608}.get(type_)
    return {
        "name": name,
        "database": "",
        "schema": "",
        "table": "",
        "nullable": True,
        "type": type_,
        "byteLength": length,
        "length": length,
        "scale": int(decimal[2]) if decimal else 0 if fixed else 9 if type_.startswith("time") else None,
        "precision": int(decimal[1]) if decimal else 38 if fixed else 0 if type_.startswith("time") else None,
        "collation": None,
    }


def to_wire(table: pa.Table, rowtypes: list[dict[str, Any]]) -> bytes:
    """The rows as the Arrow stream that the connector reads."""
    arrays = []
    for array, column in zip(table.columns, rowtypes, strict=True):
        if column["type"] == "timestamp_ltz" and array.type.tz:
            # The wire has no zone for it; with one, Arrow's conversion would add a third field.
            array = array.cast(pa.timestamp(array.type.unit))
        if pa.types.is_nested(array.type):
            text = [None if v is None else json.dumps(v, default=str) for v in array.to_pylist()]
            array = pa.chunked_array([pa.array(text, type=pa.string())])
        elif pa.types.is_unsigned_integer(array.type):
            array = array.cast(pa.int64())
        elif pa.types.is_float32(array.type):
            array = array.cast(pa.float64())
        elif pa.types.is_large_string(array.type):
            array = array.cast(pa.string())
        elif pa.types.is_timestamp(array.type) and array.type.unit in ("s", "ms"):
            array = array.cast(pa.timestamp("us", tz=array.type.tz))
        elif pa.types.is_null(array.type):
            array = array.cast(pa.string())
        arrays.append(array)
    names = [f"c{i}" for i in range(len(arrays))]  # names may repeat; Arrow does not mind less
    plain = pa.Table.from_arrays(arrays, names=names)
    converted = to_sf(plain, rowtypes)  # type: ignore[arg-type]
    return bytes(to_ipc(converted.rename_columns([r["name"] for r in rowtypes])))
