"""DuckDB's column types as Snowflake reports them."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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


def whole_numbers(table: pa.Table, rowtypes: list[dict[str, Any]]) -> pa.Table:
    """DuckDB hands a HUGEINT (every SUM of whole numbers) out as a float: make it whole again."""
    for i, type_ in enumerate(rowtypes):
        array = table.column(i)
        if type_["type"] == "fixed" and pa.types.is_floating(array.type):
            try:
                whole = array.cast(pa.int64())
            except pa.ArrowInvalid:
                whole = array.cast(pa.decimal128(38, 0))
            table = table.set_column(i, table.field(i).name, whole)
    return table


def variants(table: pa.Table, duckdb_types: list[str]) -> pa.Table:
    """DuckDB hands the VARIANTs in an array out as texts: mark them as what they are."""
    for i, type_ in enumerate(duckdb_types):
        if type_ == "JSON[]":
            array = table.column(i).cast(pa.list_(pa.json_()))
            table = table.set_column(i, table.field(i).name, array)
    return table


def to_wire(table: pa.Table, rowtypes: list[dict[str, Any]]) -> bytes:
    """The rows as the Arrow stream that the connector reads.

    Its fields carry Snowflake's logical type as metadata; times are whole numbers, timestamps
    pairs of seconds and nanoseconds (and the zone's offset for TIMESTAMP_TZ).
    """
    fields, arrays = [], []
    for column, type_ in zip(table.columns, rowtypes, strict=True):
        array = _wire_array(column.combine_chunks(), type_["type"])
        metadata = {
            "logicalType": type_["type"].upper(),
            "precision": str(type_["precision"] or 38),
            "scale": str(type_["scale"] or 0),
            "charLength": str(type_["length"] or 0),
        }
        arrays.append(array)
        fields.append(pa.field(type_["name"], array.type, metadata=metadata))
    schema = pa.schema(fields)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return bytes(sink.getvalue())


def _wire_array(array: pa.Array, type_: str) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _timestamps(array, with_zone=type_ == "timestamp_tz")
    if pa.types.is_time(kind):
        return array.cast(pa.time64("ns")).cast(pa.int64())
    if pa.types.is_nested(kind):
        return json_texts(array)
    if pa.types.is_null(kind):
        return array.cast(pa.string())
    if pa.types.is_unsigned_integer(kind):
        return array.cast(pa.int64())
    if pa.types.is_floating(kind):
        return array.cast(pa.float64())
    if pa.types.is_large_string(kind):
        return array.cast(pa.string())
    if type_ == "text" and not pa.types.is_string(kind):
        return array.cast(pa.string())
    return array


def json_texts(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Arrays and objects as the JSON texts that Snowflake shows, and unloads into files."""
    values = (None if v is None else _variant(v, array.type) for v in array.to_pylist())
    return pa.array([None if v is None else json.dumps(v, default=str) for v in values], type=pa.string())


def _variant(value: Any, type_: pa.DataType) -> Any:
    """A value in which VARIANTs, which are texts here, are what they say."""
    if value is None:
        return None
    if isinstance(type_, pa.BaseExtensionType):
        return json.loads(value)
    if pa.types.is_list(type_):
        return [_variant(v, type_.value_type) for v in value]
    if pa.types.is_struct(type_):
        return {f.name: _variant(value[f.name], f.type) for f in type_}
    return value


def _timestamps(array: pa.Array, with_zone: bool) -> pa.Array:
    nanoseconds = array.cast(pa.timestamp("ns", tz=array.type.tz)).cast(pa.int64())
    billion = pa.scalar(1_000_000_000, pa.int64())
    filled = pc.fill_null(nanoseconds, 0)
    seconds = pc.divide(pc.subtract(filled, _modulo(filled, billion)), billion)
    fraction = _modulo(filled, billion).cast(pa.int32())
    parts = [seconds, fraction]
    fields = [pa.field("epoch", pa.int64(), False), pa.field("fraction", pa.int32(), False)]
    if with_zone:
        parts.append(pa.array([1440] * len(array), type=pa.int32()))
        fields.append(pa.field("timezone", pa.int32(), False))
    return pa.StructArray.from_arrays(parts, fields=fields, mask=pc.is_null(nanoseconds))


def _modulo(values: pa.Array, divisor: pa.Scalar) -> pa.Array:
    """The remainder that is never negative; times before 1970 count from the second below."""
    remainder = pc.subtract(values, pc.multiply(pc.divide(values, divisor), divisor))
    return pc.if_else(pc.less(remainder, 0), pc.add(remainder, divisor), remainder)
