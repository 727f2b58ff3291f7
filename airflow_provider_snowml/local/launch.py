"""A local Snowflake for the length of a ``with`` block."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .address import Address

_START_TIMEOUT = 120.0  # seconds
_NEEDED = ("fakesnow", "duckdb", "starlette", "uvicorn", "pyarrow")


def missing_packages() -> list[str]:
    """Of the extra ``local``, what the server could not start without and is not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


class LocalSnowflake:
    """Starts a server of its own (own process, own port) and stops it at the end of the block.

    ::

        with LocalSnowflake() as snowflake:
            connection = snowflake.connector.connect(**snowflake.connection_parameters)

    Inside the block ``REQUESTS_CA_BUNDLE`` names a bundle that trusts the server, and
    ``SNOWFLAKE_DISABLE_PLATFORM_DETECTION`` spares its clients to find out which cloud they run in.

    :param data_dir: where it keeps its state; a temporary directory when None.
    :param image_build_seconds: how long the image of a model version is in the making.
    :param faults: whether clients may ask for faults, see :meth:`fault`.
    :raises RuntimeError: if the server does not come up; the message carries its log.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        image_build_seconds: float = 1.0,
        faults: bool = False,
    ) -> None:
        self._given = None if data_dir is None else Path(data_dir)
        self._image_build_seconds = image_build_seconds
        self._faults = faults
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()
        self._address: Address | None = None

    def __enter__(self) -> LocalSnowflake:
        with contextlib.ExitStack() as stack:
            if self._given is None:
                made = stack.enter_context(tempfile.TemporaryDirectory(prefix="snowml-local-"))
                self.data_dir = Path(made)
            else:
                self.data_dir = self._given
                self.data_dir.mkdir(parents=True, exist_ok=True)
            self._address = self._start(stack)
            for name, value in self._address.client_settings.items():
                stack.callback(_restore, name, os.environ.get(name))
                os.environ[name] = value
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._address = None
        self._cleanup.close()

    @property
    def address(self) -> Address:
        if self._address is None:
            raise RuntimeError("The local Snowflake runs only inside its with block.")
        return self._address

    @property
    def connection_parameters(self) -> dict[str, Any]:
        """For ``snowflake.connector.connect(**...)`` and ``Session.builder.configs(...)``."""
        return self.address.connection_parameters

    @property
    def airflow_connection_uri(self) -> str:
        """For the environment variable ``AIRFLOW_CONN_SNOWFLAKE_DEFAULT``."""
        return self.address.airflow_connection_uri

    def airflow_connection_into(self, schema: str) -> str:
        """The same, into another schema of the same database."""
        return self.address.airflow_connection_into(schema)

    def fault(self, kind: str, **details: Any) -> int:
        """Let something go wrong, once or a few times.

        :param kind: what, such as ``drop_reply``, ``refuse`` or ``no_success``.
        :param details: when and to whom: ``statement``, ``user``, ``job``, ``skip``, ``times``, ``seconds``,
            ``errno``, ``message``, ``limit``.
        :return: the fault's id.
        """
        return int(self._call("SYSTEM$SNOWML_LOCAL_FAULT", json.dumps({"kind": kind, **details})))

    def faults(self) -> list[dict[str, Any]]:
        """What was asked for, how many requests or jobs each has ``seen``, and whether one is ``held``."""
        found: list[dict[str, Any]] = json.loads(self._call("SYSTEM$SNOWML_LOCAL_FAULTS"))
        return found

    def release(self, fault: int, how: str) -> None:
        """Let a held request go, and forget the fault; when the request is done, it is not listed any more.

        :param fault: the id of a fault of kind ``hold``.
        :param how: ``drop``, ``carry_out`` without an answer, or ``answer``.
        """
        self._call("SYSTEM$SNOWML_LOCAL_RELEASE", fault, how)

    def clear_faults(self) -> None:
        """Forget all faults; what is held is carried out."""
        self._call("SYSTEM$SNOWML_LOCAL_CLEAR_FAULTS")

    def kill(self) -> None:
        """Kill the server, as a crash of its machine would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def restart(self) -> None:
        """Start the server again after :meth:`kill`, at the same address."""
        self._address = self._start(self._cleanup, self.address.port)

    def _call(self, function: str, *arguments: Any) -> Any:
        import snowflake.connector

        marks = ", ".join(["%s"] * len(arguments))
        with snowflake.connector.connect(**self.connection_parameters) as connection:
            row = connection.cursor().execute(f"SELECT {function}({marks})", arguments).fetchone()
        return row[0]

    def _start(self, stack: contextlib.ExitStack, port: int = 0) -> Address:
        log = stack.enter_context((self.data_dir / "server.log").open("a+"))
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_snowml.local", "serve", "--port", str(port),
             "--data-dir", str(self.data_dir), "--until-stdin-closes",
             "--image-build-seconds", str(self._image_build_seconds),
             *(["--faults"] if self._faults else [])],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )  # fmt: skip
        self._process = process
        stack.callback(_stop, process)
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            address = Address.read(self.data_dir)
            if address is not None and address.pid == process.pid:
                return address
            time.sleep(0.05)
        raise RuntimeError(f"The local Snowflake did not start:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: IO[str]) -> str:
    log.flush()
    log.seek(0)
    return log.read()[-4000:]


def _restore(key: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(key, None)
    else:
        os.environ[key] = value
