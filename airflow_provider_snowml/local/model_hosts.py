"""The processes that run models for SQL, one per model version, the least used one ended first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa

from . import processes
from .errors import SnowflakeError
from .model_host import HANDLER, KEYS, PARTITIONED, RETURNS, from_stream, serve, to_stream
from .models import Method
from .queries import Query

MAX_PROCESSES = 4
_LOOK = 0.2  # seconds between looks at whether a statement was cancelled


def interpreter_error(text: str, method: Method) -> SnowflakeError:
    return SnowflakeError(
        100357,
        "P0000",
        f"Python Interpreter Error:\n{text.strip()} in function {method.name} with handler {method.handler}",
    )


def _check(query: Query | None) -> None:
    if query is not None and query.cancelled.is_set():
        raise SnowflakeError(604, "57014", "SQL execution canceled")


class _Host:
    def __init__(self, log: Path, package: Path) -> None:
        self._lock = threading.Lock()
        self._connection, theirs = processes.CONTEXT.Pipe()
        self._process = processes.start(log, None, serve, theirs, str(package))
        theirs.close()

    @contextmanager
    def held(self, query: Query | None) -> Iterator[None]:
        """One call at a time; none for a statement that was cancelled."""
        _check(query)
        while not self._lock.acquire(timeout=_LOOK):
            _check(query)
        try:
            yield
        finally:
            self._lock.release()

    def call(self, method: Method, returns: str, table: pa.Table, keys: int, query: Query | None) -> pa.Table:
        """To be held meanwhile. A model cannot be asked to stop: its process ends with a cancelled query."""
        metadata = {HANDLER: method.handler.encode(), RETURNS: returns.encode(), KEYS: str(keys).encode()}
        try:
            self._connection.send_bytes(to_stream(table.replace_schema_metadata(metadata)))
            while not self._connection.poll(_LOOK):
                _check(query)
            answer = self._connection.recv_bytes()
        except SnowflakeError:
            self.close()
            raise
        except (OSError, EOFError):
            self.close()
            raise interpreter_error(
                f"the process of the model ended (exit code {self._process.exitcode})", method
            ) from None
        if answer[:1] != b"0":
            raise interpreter_error(answer[1:].decode(errors="replace"), method)
        return from_stream(answer[1:])

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def is_held(self) -> bool:
        return self._lock.locked()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


class _Asked:
    """Rows that a function is asked for, and what came of it.

    :param rows: a column per argument.
    """

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self.answer: pa.Array | None = None
        self.error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        return self.answer is not None or self.error is not None

    def result(self) -> pa.Array:
        if self.error is not None:
            raise self.error
        return self.answer


def _answer(together: list[_Asked], call: Callable[[pa.Table], pa.Table]) -> None:
    """Ask for all at once; what fails, fails for all of the statement."""
    try:
        found = call(pa.concat_tables([asked.rows for asked in together])).column(0).combine_chunks()
    except BaseException as error:
        for asked in together:
            asked.error = error
        return
    start = 0
    for asked in together:
        asked.answer = found.slice(start, asked.rows.num_rows)
        start += asked.rows.num_rows


class ModelHosts:
    """A function is asked in the engine's vectors, by several threads at once. What a statement's others have
    asked while the model's process was busy goes there together: a call costs as much as its rows.

    :param log: what the models print.
    """

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._asked: dict[tuple[object, ...], list[_Asked]] = {}
        self._log = log
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def call(
        self, version_id: str, package: Path, method: Method, table: pa.Table, query: Query | None = None
    ) -> pa.Array:
        """Run a method on rows; the columns of ``table`` are its arguments, by position.

        :param query: the statement that it is for: the model's process ends when that is cancelled.
        :raises SnowflakeError: 100357 with what the model's code raised; 604 if it was cancelled.
        """
        returns = "OBJECT" if method.return_type == "OBJECT" else "VALUE"
        asked, key = _Asked(table), (version_id, method.handler, query.id if query is not None else object())
        with self._lock:
            self._asked.setdefault(key, []).append(asked)
        try:
            while True:
                host = self._host(version_id, package)
                with host.held(query):
                    if asked.is_over:
                        return asked.result()
                    if host.alive:  # another statement's end may have been the end of it
                        with self._lock:
                            together = self._asked.pop(key, [])
                        if not together:  # in the hands of another, whose process has ended
                            time.sleep(_LOOK)
                            continue
                        _answer(together, partial(host.call, method, returns, keys=0, query=query))
        finally:
            with self._lock:
                if asked in (left := self._asked.get(key, [])):
                    left.remove(asked)
                if not left:
                    self._asked.pop(key, None)

    def call_table_function(
        self,
        version_id: str,
        package: Path,
        method: Method,
        arguments: list[pa.ChunkedArray],
        keys: list[pa.ChunkedArray],
        query: Query | None,
    ) -> tuple[pa.Table, bool]:
        """Run a table function on rows.

        :param keys: what the rows are partitioned by; only a handler with ``end_partition`` cares.
        :return: a table with the column ``row``, the number of the row that each row belongs to, and the
            outputs in their order; and whether a row only belongs to that row's partition.
        :raises SnowflakeError: as above.
        """
        columns = [*arguments, *keys]
        table = pa.table(columns, names=[f"c{i}" for i in range(len(columns))])
        answer = self._call(version_id, package, method, "TABLE", table, len(keys), query)
        found = answer.num_columns - 1
        if answer.num_rows and found != len(method.outputs):
            expected = ", ".join(name for name, _ in method.outputs)
            raise interpreter_error(f"returned {found} columns, the signature has {expected}", method)
        missing = [pa.nulls(answer.num_rows)] * (len(method.outputs) - found)
        for i, array in enumerate(missing):
            answer = answer.append_column(f"c{found + i}", array)
        return answer, answer.schema.metadata[PARTITIONED] == b"1"

    def _call(
        self,
        version_id: str,
        package: Path,
        method: Method,
        returns: str,
        table: pa.Table,
        keys: int,
        query: Query | None,
    ) -> pa.Table:
        while True:
            host = self._host(version_id, package)
            with host.held(query):
                if host.alive:  # another statement's end may have been the end of it
                    return host.call(method, returns, table, keys, query)

    def _host(self, version_id: str, package: Path) -> _Host:
        with self._lock:
            host = self._hosts.get(version_id)
            if host is not None and host.alive:
                self._hosts.move_to_end(version_id)
                return host
            host = self._hosts[version_id] = _Host(self._log, package)
            self._hosts.move_to_end(version_id)
            idle = [id_ for id_, other in self._hosts.items() if not other.is_held and other is not host]
            for id_ in idle[: max(0, len(self._hosts) - MAX_PROCESSES)]:
                self._hosts.pop(id_).close()
            return host

    def forget(self, version_id: str) -> None:
        with self._lock:
            host = self._hosts.pop(version_id, None)
        if host is not None:
            host.close()

    def close(self) -> None:
        with self._lock:
            hosts = list(self._hosts.values())
            self._hosts.clear()
        for host in hosts:
            host.close()
