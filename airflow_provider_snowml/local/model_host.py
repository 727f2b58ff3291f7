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

import pyarrow as pa

if TYPE_CHECKING:
    from .handlers import Package

HANDLER, RETURNS = b"handler", b"returns"


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
    from .handlers import call_function, flatten, json_default

    metadata = request.schema.metadata
    name = metadata[HANDLER].decode()
    if name not in methods:
        methods[name] = package.load(name)
    frame = flatten(methods[name], request.to_pandas())
    values = call_function(methods[name], frame)
    if len(values) != len(frame):
        raise ValueError(f"returned {len(values)} rows for {len(frame)}")
    if metadata[RETURNS] == b"OBJECT":
        column = pa.array([json.dumps(v, default=json_default) for v in values], pa.string())
    else:
        column = pa.array(values, from_pandas=True)
    return pa.table({"result": column})
