"""The process that runs one model version's methods for SQL.

A request is an Arrow stream whose metadata names the handler. An answer is one byte, ``0`` or
``1``, followed by an Arrow stream with one column, or by the text of the error.
"""

from __future__ import annotations

import json
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from .batch_sizes import rows_at_once

if TYPE_CHECKING:
    from .handlers import Package

# In the request's metadata: the handler; OBJECT, VALUE or TABLE; how many of the last columns are keys.
HANDLER, RETURNS, KEYS = b"handler", b"returns", b"keys"
PARTITIONED = b"partitioned"  # in that of the answer
_PLAIN = (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())


def to_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_stream(payload: bytes) -> pa.Table:
    return pa.ipc.open_stream(payload).read_all()


def serve(connection: Connection, directory: str) -> None:
    """Answer until the server closes the connection, or is gone.

    :param directory: the package of the version.
    """
    from .handlers import Package

    package = Package(Path(directory))
    methods: dict[str, Any] = {}
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        try:
            answer = b"0" + to_stream(_answer(methods, package, from_stream(request)))
        except BaseException:
            answer = b"1" + traceback.format_exc().encode()
        connection.send_bytes(answer)


def _answer(methods: dict[str, Any], package: Package, request: pa.Table) -> pa.Table:
    from .handlers import batches, call_function, flatten

    metadata = request.schema.metadata
    name = metadata[HANDLER].decode()
    if name not in methods:
        methods[name] = package.load(name)
    if metadata[RETURNS] == b"TABLE":
        return _table_answer(methods[name], request, int(metadata[KEYS]))
    frame = flatten(methods[name], request.to_pandas())
    values: list[Any] = []
    for batch in batches(methods[name], frame):
        answer = call_function(methods[name], batch)
        if len(answer) != len(batch):
            raise ValueError(f"returned {len(answer)} rows for {len(batch)}")
        values += answer
    column = _objects(values) if metadata[RETURNS] == b"OBJECT" else pa.array(values, from_pandas=True)
    return pa.table({"result": column})


def _objects(values: list[Any]) -> pa.Array:
    """As JSON, which is how SQL has them."""
    from .handlers import json_default

    if (rows := _plain_rows(values)) is not None:
        # In a fifth of the time.
        return duckdb.from_arrow(pa.table({"v": rows})).project("to_json(v)").to_arrow_table().column(0)
    encode = json.JSONEncoder(default=json_default).encode
    return pa.array([encode(v) for v in values], pa.string())


def _plain_rows(values: list[Any]) -> pa.Array | None:
    """Objects that have the same keys and whose values are texts, numbers or truth values; else ``None``."""
    try:
        rows = pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    kind = rows.type
    if (
        not pa.types.is_struct(kind)
        or rows.null_count
        or any(len(value) != kind.num_fields for value in values)
    ):
        return None
    return rows if all(field.type in _PLAIN for field in kind) else None


def _table_answer(handler: type[Any], request: pa.Table, keys: int) -> pa.Table:
    """``row``, the row that each answer belongs to, or the first one of its partition, and the outputs."""
    from .handlers import call_table_function, flatten, partitions

    arguments = request.num_columns - keys
    frame = flatten(handler, request.select(range(arguments)).to_pandas())
    partitioned = hasattr(handler, "end_partition")
    if partitioned:
        key_values = request.select(range(arguments, request.num_columns)).to_pandas()
        parts = list(partitions(frame, key_values))
    else:
        size = rows_at_once(arguments)
        parts = [frame.index[i : i + size] for i in range(0, len(frame), size)]
    tables = []
    for part in parts:
        answer = call_table_function(handler, frame.loc[part].reset_index(drop=True))
        rows = [part[0]] * len(answer) if partitioned else part
        columns = [pa.array(rows, pa.int64()), *(_plain(answer.iloc[:, i]) for i in range(answer.shape[1]))]
        tables.append(pa.table(columns, names=["row", *(f"c{i}" for i in range(answer.shape[1]))]))
    found = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({"row": []})
    return found.replace_schema_metadata({PARTITIONED: str(int(partitioned)).encode()})


def _plain(values: Any) -> pa.Array:
    """Values that are no scalars as JSON, which is how SQL has them."""
    from .handlers import json_default

    array = pa.array(values, from_pandas=True)
    if pa.types.is_nested(array.type):
        texts = (None if v is None else json.dumps(v, default=json_default) for v in array.to_pylist())
        return pa.array(texts, pa.string())
    return array
