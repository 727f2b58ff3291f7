"""What a service's endpoint is asked, in the four formats that Snowflake documents.

``{"data": [[row, f1, f2, ...]]}`` with the arguments by position, ``{"data": [[row, {name:
value}]]}``, ``{"dataframe_split": {...}}`` and ``{"dataframe_records": [...]}``; the last two take
the method's parameters in ``params``.
"""

from __future__ import annotations

from typing import Any

Rows = list[list[Any]]


class BadRequest(Exception):
    """What is answered with status 400; the message says why."""


def read(body: Any, inputs: list[str], params: list[str]) -> tuple[list[Any], Rows]:
    """:return: the ids of the rows, and each row's arguments: inputs, then parameters."""
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    formats = [key for key in ("data", "dataframe_split", "dataframe_records") if key in body]
    if len(formats) != 1:
        raise BadRequest("the body needs one of 'data', 'dataframe_split' and 'dataframe_records'")
    unknown = set(body) - {formats[0], "params", "extra_columns"}
    if unknown or (formats == ["data"] and len(body) > 1):
        raise BadRequest(f"unexpected key(s) {sorted(set(body) - set(formats))} beside '{formats[0]}'")
    if formats == ["data"]:
        return _data(body["data"], inputs, params)
    given = body.get("params") or {}
    extra = body.get("extra_columns") or []
    if not isinstance(given, dict) or not isinstance(extra, list):
        raise BadRequest("'params' is not a JSON object, or 'extra_columns' not an array")
    _only(given, params, "parameter")
    values = _by_name(given)
    constants = [values.get(name.upper()) for name in params]
    ids, records = _split(body[formats[0]]) if formats == ["dataframe_split"] else _records(body[formats[0]])
    return ids, [_arguments(record, inputs, extra) + constants for record in records]


def _data(rows: Any, inputs: list[str], params: list[str]) -> tuple[list[Any], Rows]:
    if not isinstance(rows, list) or not all(isinstance(row, list) and row for row in rows):
        raise BadRequest("'data' is not an array of rows, each an array that starts with its number")
    names = [*inputs, *params]
    arguments = []
    for row in rows:
        if len(row) == 2 and isinstance(row[1], dict) and (len(names) > 1 or _has(row[1], names)):
            record = _by_name(row[1])
            _only(row[1], names, "column")
            _missing(record, inputs)
            arguments.append([record.get(name.upper()) for name in names])
        elif len(row) == len(names) + 1:
            arguments.append(row[1:])
        else:
            raise BadRequest(
                f"row {row[0]} has {len(row) - 1} value(s), the function takes {len(names)}:"
                f" {', '.join(names)}"
            )
    return [row[0] for row in rows], arguments


def _split(frame: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    if not isinstance(frame, dict) or set(frame) - {"index", "columns", "data"}:
        raise BadRequest("'dataframe_split' is not an object of 'index', 'columns' and 'data'")
    columns, rows = frame.get("columns"), frame.get("data")
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise BadRequest("'dataframe_split' needs the arrays 'columns' and 'data'")
    ids = frame.get("index") or list(range(len(rows)))
    if len(ids) != len(rows):
        raise BadRequest(f"'index' has {len(ids)} value(s) for {len(rows)} row(s) of 'data'")
    for id_, row in zip(ids, rows, strict=True):
        if not isinstance(row, list) or len(row) != len(columns):
            raise BadRequest(f"row {id_} does not have the {len(columns)} value(s) that 'columns' names")
    return ids, [dict(zip(columns, row, strict=True)) for row in rows]


def _records(records: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise BadRequest("'dataframe_records' is not an array of objects")
    return list(range(len(records))), records


def _arguments(record: dict[str, Any], inputs: list[str], extra: list[Any]) -> list[Any]:
    _only({k: v for k, v in record.items() if k not in extra}, inputs, "column")
    values = _by_name(record)
    _missing(values, inputs)
    return [values.get(name.upper()) for name in inputs]


def _by_name(record: dict[str, Any]) -> dict[str, Any]:
    return {str(name).strip('"').upper(): value for name, value in record.items()}


def _has(record: dict[str, Any], names: list[str]) -> bool:
    return any(name.upper() in _by_name(record) for name in names)


def _only(record: dict[str, Any], known: list[str], what: str) -> None:
    names = {name.upper() for name in known}
    unknown = [k for k in record if str(k).strip('"').upper() not in names]
    if unknown:
        raise BadRequest(f"unknown {what}(s) {unknown}; the function has {', '.join(known) or 'none'}")


def _missing(record: dict[str, Any], inputs: list[str]) -> None:
    missing = [name for name in inputs if name.upper() not in record]
    if missing:
        raise BadRequest(f"missing column(s) {missing}; the function takes {', '.join(inputs)}")
