"""The arguments of a model's method in SQL, and their types inside the engine."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa

from .errors import SnowflakeError, unsupported
from .grammar import Reader
from .models import Method

_PACKED = ("OBJECT", "ARRAY", "VARIANT", "VECTOR")
_DUCKDB_TYPES = {
    "BOOLEAN": "BOOLEAN",
    "STRING": "VARCHAR",
    "VARCHAR": "VARCHAR",
    "TEXT": "VARCHAR",
    "BINARY": "BLOB",
    "DOUBLE": "DOUBLE",
    "FLOAT": "DOUBLE",
    "REAL": "DOUBLE",
    "NUMBER": "DECIMAL(38,0)",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP_NTZ": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP_LTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_TZ": "TIMESTAMP WITH TIME ZONE",
    **dict.fromkeys(("INT", "INTEGER", "BIGINT", "SMALLINT", "TINYINT", "BYTEINT"), "BIGINT"),
    **dict.fromkeys(_PACKED, "JSON"),
}


def method_of(methods: Iterable[Method], name: str, where: str) -> Method:
    """:param where: what has the methods, for the message."""
    known = list(methods)
    for method in known:
        if method.name == name:
            return method
    raise SnowflakeError(
        2143,
        "42601",
        f"SQL compilation error:\nUnknown function {name} in {where}; it has"
        f" {', '.join(m.name for m in known)}.",
    )


def typed_arguments(method: Method, arguments: str) -> list[str]:
    """The arguments of a call as written, each cast to the type that the method declares."""
    values = split_arguments(arguments)
    # Parameters have defaults: those left out are NULL to the handler, which then takes the default. Where
    # more columns than SQL takes are packed into one object, the parameters are in it.
    if len(method.plain_inputs) <= len(values) < len(method.inputs):
        values += ["NULL"] * (len(method.inputs) - len(values))
    if len(values) != len(method.inputs):
        expected = ", ".join(f"{n} {t}" for n, t in method.inputs)
        raise SnowflakeError(
            1044,
            "42P13",
            f"SQL compilation error:\nInvalid argument types for function '{method.name}': got"
            f" {len(values)} arguments, expected {len(method.inputs)} ({expected}).",
        )
    return [
        value if is_packed(type_) else f"CAST({value} AS {type_})"
        for value, (_, type_) in zip(values, method.inputs, strict=True)
    ]


def split_arguments(text: str) -> list[str]:
    """The arguments of a call, as written."""
    reader = Reader(text)
    parts, depth, start = [], 0, 0
    for token in reader.tokens:
        if token.kind != "symbol":
            continue
        if token.text in "([{":
            depth += 1
        elif token.text in ")]}":
            depth -= 1
        elif token.text == "," and depth == 0:
            parts.append(text[start : token.start].strip())
            start = token.end
    last = text[start:].strip()
    return [*parts, last] if last or parts else []


def is_packed(sql_type: str) -> bool:
    """Whether values of a type travel as JSON."""
    return _base(sql_type) in _PACKED


def _base(sql_type: str) -> str:
    return sql_type.upper().partition("(")[0].strip()


def duckdb_type(sql_type: str) -> str:
    found = _DUCKDB_TYPES.get(_base(sql_type))
    if found is None:
        raise unsupported(f"type {sql_type} of a model's argument")
    return found


def from_json(array: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if v is None else json.loads(v) for v in array.to_pylist()])
