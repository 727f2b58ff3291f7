"""The process that runs one model version's methods for SQL: ``python -m ...model_host``.

It reads frames from standard input and answers on what was standard output. A frame is eight
bytes of length and as many bytes. The first one names the package's directory; each other one is
an Arrow stream whose metadata names the handler. An answer is one byte, ``0`` or ``1``, and a
frame: an Arrow stream with one column, or the text of the error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

HANDLER, RETURNS = b"handler", b"returns"


def write_frame(stream: BinaryIO, payload: bytes) -> None:
    stream.write(len(payload).to_bytes(8, "big"))
    stream.write(payload)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """None when the other side is gone."""
    header = stream.read(8)
    if len(header) < 8:
        return None
    length = int.from_bytes(header, "big")
    payload = stream.read(length)
    return payload if len(payload) == length else None


def to_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_stream(payload: bytes) -> pa.Table:
    return pa.ipc.open_stream(payload).read_all()


def _answer(methods: dict[str, Any], package: Any, request: pa.Table) -> pa.Table:
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


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the model prints must not get between the answers
    from snowflake.ml.model._packager import model_packager  # noqa: F401  (slow; while waiting)

    from .handlers import Package

    directory = read_frame(requests)
    if directory is None:
        return
    package, methods = Package(Path(directory.decode())), {}  # type: ignore[var-annotated]
    while (payload := read_frame(requests)) is not None:
        try:
            answer, status = to_stream(_answer(methods, package, from_stream(payload))), b"0"
        except BaseException:
            answer, status = traceback.format_exc().encode(), b"1"
        answers.write(status)
        write_frame(answers, answer)


if __name__ == "__main__":
    main()
