"""Bind variables, written into the statement as constants.

Values come over the wire as text with a type. As constants they reach every kind of statement
(PUT, DESCRIBE, IDENTIFIER(?)) the same way.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from .errors import compilation_error
from .grammar import string_literal, tokens

Binding = Mapping[str, Any]


def inline(sql: str, bindings: Mapping[str, Binding] | None, describe_only: bool = False) -> str:
    """Replace ``?`` and ``:1`` by constants.

    :param bindings: ``{"1": {"type": "TEXT", "value": "x"}, ...}`` as the client sends them.
    :param describe_only: a client that only asks for columns sends no values; NULL stands in.
    """
    out: list[str] = []
    last = position = 0
    for token in tokens(sql):
        if token.kind != "bind":
            continue
        position += 1
        key = str(position) if token.text == "?" else token.text[1:]
        binding = (bindings or {}).get(key)
        if binding is not None and isinstance(binding.get("value"), list):
            binding = None
        if binding is None:
            if not describe_only and token.text == "?":
                raise compilation_error(f"Bind variable {token.text} not set.")
            if not describe_only:
                continue  # ':1' can be a path into a VARIANT
        out += [sql[last : token.start], constant(binding) if binding else "NULL"]
        last = token.end
    return "".join(out) + sql[last:] if out else sql


def is_batch(bindings: Mapping[str, Binding] | None) -> bool:
    return any(isinstance(b.get("value"), list) for b in (bindings or {}).values())


def batch_table(bindings: Mapping[str, Binding]) -> pa.Table:
    """An array binding (``executemany``) as a table with the columns ``$1``, ``$2``, ..."""
    columns = {}
    for position in range(1, len(bindings) + 1):
        binding = bindings[str(position)]
        columns[f"${position}"] = pa.array([python_value(binding["type"], v) for v in binding["value"]])
    return pa.table(columns)


def constant(binding: Binding) -> str:
    value = python_value(str(binding["type"]), binding.get("value"))
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, float)):
        return f"'{value!r}'::DOUBLE" if isinstance(value, float) else str(value)
    if isinstance(value, bytes):
        return f"TO_BINARY('{value.hex()}', 'HEX')"
    if isinstance(value, datetime.datetime):
        kind = "TIMESTAMP_TZ" if value.tzinfo else "TIMESTAMP_NTZ"
        return f"'{value.isoformat(sep=' ')}'::{kind}"
    if isinstance(value, datetime.date):
        return f"'{value.isoformat()}'::DATE"
    if isinstance(value, datetime.time):
        return f"'{value.isoformat()}'::TIME"
    return string_literal(str(value))


def python_value(type_: str, value: Any) -> Any:
    """The Python value of one binding; times come as (nano)seconds since 1970 or midnight."""
    if value is None:
        return None
    text = str(value)
    if type_ == "FIXED":
        return int(text)
    if type_ == "REAL":
        return float(text)
    if type_ == "BOOLEAN":
        return text.lower() in ("true", "1")
    if type_ == "BINARY":
        return bytes.fromhex(text)
    if type_ == "DATE":
        return (_epoch(int(text) * 1_000_000)).date()
    if type_ == "TIME":
        return (_epoch(int(text))).time()
    if type_.startswith("TIMESTAMP"):
        nanoseconds, _, offset = text.partition(" ")
        moment = _epoch(int(nanoseconds))
        if not offset:
            return moment
        zone = datetime.timezone(datetime.timedelta(minutes=int(offset) - 1440))
        return moment.replace(tzinfo=datetime.UTC).astimezone(zone)
    return text


def _epoch(nanoseconds: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=nanoseconds // 1000)
