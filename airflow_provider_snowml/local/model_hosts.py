"""The processes that run models for SQL, one per model version, the least used one ended first."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import pyarrow as pa

from .errors import SnowflakeError
from .model_host import HANDLER, RETURNS, from_stream, read_frame, to_stream, write_frame
from .models import Method

MAX_PROCESSES = 4


def interpreter_error(text: str, method: Method) -> SnowflakeError:
    return SnowflakeError(
        100357,
        "P0000",
        f"Python Interpreter Error:\n{text.strip()} in function {method.name} with handler {method.handler}",
    )


class _Host:
    def __init__(self, log: Path) -> None:
        self._lock = threading.Lock()
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow_provider_snowml.local.model_host"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # a terminal's Ctrl-C is for the server
            )

    def open(self, package: Path) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the first call says that the process is gone
            write_frame(self._process.stdin, str(package).encode())  # type: ignore[arg-type]

    def call(self, method: Method, table: pa.Table) -> pa.Array:
        assert self._process.stdin is not None and self._process.stdout is not None
        returns = "OBJECT" if method.return_type == "OBJECT" else "VALUE"
        metadata = {HANDLER: method.handler.encode(), RETURNS: returns.encode()}
        with self._lock:
            try:
                request = to_stream(table.replace_schema_metadata(metadata))
                write_frame(self._process.stdin, request)  # type: ignore[arg-type]
                status = self._process.stdout.read(1)
                answer = read_frame(self._process.stdout)  # type: ignore[arg-type]
            except OSError:
                status, answer = b"", None
        if answer is None:
            self.close()
            raise interpreter_error(
                f"the process of the model ended (exit code {self._process.returncode})", method
            )
        if status != b"0":
            raise interpreter_error(answer.decode(errors="replace"), method)
        return from_stream(answer).column(0).combine_chunks()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class ModelHosts:
    """:param log: what the models print."""

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._spare: _Host | None = None

    def prepare(self) -> None:
        """Start a process ahead of its use: a model that was just registered is soon called."""
        with self._lock:
            if self._spare is None or not self._spare.alive:
                self._spare = _Host(self._log)

    def call(self, version_id: str, package: Path, method: Method, table: pa.Table) -> pa.Array:
        """Run a method on rows; the columns of ``table`` are its arguments, by position.

        :raises SnowflakeError: 100357 with what the model's code raised.
        """
        return self._host(version_id, package).call(method, table)

    def _host(self, version_id: str, package: Path) -> _Host:
        with self._lock:
            host = self._hosts.get(version_id)
            if host is not None and host.alive:
                self._hosts.move_to_end(version_id)
                return host
            host, self._spare = self._spare, None
            if host is None or not host.alive:
                host = _Host(self._log)
            host.open(package)
            self._hosts[version_id] = host
            while len(self._hosts) > MAX_PROCESSES:
                self._hosts.popitem(last=False)[1].close()
            return host

    def forget(self, version_id: str) -> None:
        with self._lock:
            host = self._hosts.pop(version_id, None)
        if host is not None:
            host.close()

    def close(self) -> None:
        with self._lock:
            hosts = [*self._hosts.values(), *([self._spare] if self._spare else [])]
            self._hosts.clear()
            self._spare = None
        for host in hosts:
            host.close()
