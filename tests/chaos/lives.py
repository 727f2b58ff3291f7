"""The life of a task instance, from its first try to its end, with one crash in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import snowflake.connector

from airflow_provider_snowml.local import LocalSnowflake
from airflow_provider_snowml.local.address import USER

TRIES = Path(__file__).with_name("tries.py")
PATIENCE = 300.0  # seconds; a case that takes longer is a violation
MANY = 1_000_000
IDLE = 0.3  # seconds until the transaction of a killed process is rolled back if others wait


class Processes:
    """Processes forked from a prepared one."""

    def __init__(self, directory: Path) -> None:
        with (directory / "tries.log").open("ab") as log:
            self._prepared = subprocess.Popen(
                [sys.executable, str(TRIES)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._lock = threading.Lock()
        if self._prepared.stdout.readline() != "ready\n":
            raise RuntimeError((directory / "tries.log").read_text())

    def start(self, **told: Any) -> int:
        return self._ask(do="start", **told)

    def exit_code(self, pid: int) -> int | None:
        """None while it lives."""
        return self._ask(do="look", pid=pid)

    def kill(self, pid: int) -> None:
        os.killpg(pid, signal.SIGKILL)
        while self.exit_code(pid) is None:
            time.sleep(0.005)

    def close(self) -> None:
        self._prepared.stdin.close()
        self._prepared.wait()

    def _ask(self, **told: Any) -> Any:
        with self._lock:
            self._prepared.stdin.write(json.dumps(told) + "\n")
            self._prepared.stdin.flush()
            return json.loads(self._prepared.stdout.readline())


class Control:
    """A connection of our own: faults, and a look at what is there. No fault meets it.

    :param local: the running local Snowflake.
    :param schema: where to look.
    """

    def __init__(self, local: LocalSnowflake, schema: str) -> None:
        self.local, self._schema = local, schema
        self._lock = threading.Lock()
        self.connect()

    def connect(self) -> None:
        """Also anew, when the server was started again; it has forgotten its faults."""
        self._connection = snowflake.connector.connect(
            **{**self.local.connection_parameters, "schema": self._schema}
        )
        self.fault("abort_idle", seconds=IDLE)

    def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        with self._lock, self._connection.cursor(snowflake.connector.DictCursor) as cursor:
            return list(cursor.execute(sql, arguments or None).fetchall())

    def close(self) -> None:
        self._connection.close()

    def connection_of(self, user: str) -> str:
        """An Airflow connection's URI: into the same schema, of a user whom faults can be told about."""
        uri = self.local.airflow_connection_into(self._schema)
        return uri.replace(f"://{USER}:", f"://{user}:", 1)

    def value(self, sql: str, *arguments: Any) -> Any:
        return next(iter(self.rows(sql, *arguments)[0].values()))

    def fault(self, kind: str, **details: Any) -> int:
        return int(self.value("SELECT SYSTEM$SNOWML_LOCAL_FAULT(%s)", json.dumps({"kind": kind, **details})))

    def look_at(self, fault: int) -> dict[str, Any]:
        found = json.loads(self.value("SELECT SYSTEM$SNOWML_LOCAL_FAULTS()"))
        return next((one for one in found if one["id"] == fault), {})

    def release(self, fault: int, how: str) -> None:
        self.value("SELECT SYSTEM$SNOWML_LOCAL_RELEASE(%s, %s)", fault, how)


@dataclass(frozen=True)
class Crash:
    """Where a process dies.

    :param phase: which of the task's processes: ``execute``, ``trigger``, ``resume``.
    :param request: at the n-th request that the server sees of it, counted from 1.
    :param how: what becomes of that request: ``drop``, the crash came before it; ``carry_out``, after it.
    """

    phase: str
    request: int
    how: str


@dataclass
class Life:
    """A task instance that is run as Airflow runs it.

    A killed worker's try is followed by another one, a killed triggerer's trigger is run by another
    triggerer, and a try that fails is followed by another one as long as there are ``retries``.

    :param name: the task id; also the user that the server sees, and the name of all that is its own.
    :param operator: the class's path.
    :param arguments: the operator's, rendered.
    :param crash: where it dies, if at all.
    :param cleared: whether somebody presses Clear after the crash.
    :param after_crash: what else happens in the world then.
    :param retries: how many tries may fail.
    """

    name: str
    operator: str
    arguments: dict[str, Any]
    processes: Processes
    control: Control
    connection: str
    directory: Path
    crash: Crash | None = None
    cleared: bool = False
    after_crash: Callable[[], None] = lambda: None
    retries: int = 0
    mutation: str | None = None
    crashed: bool = False
    requests: dict[str, list[str]] = field(default_factory=dict)
    _clear_number: int = 0
    _try_number: int = 1

    def run(self) -> dict[str, Any]:
        """Live; how it ended: ``{"xcom"}`` or ``{"error", "text"}``."""
        self.directory.mkdir(parents=True)
        deadline = time.monotonic() + PATIENCE
        phase, deferred, event = "execute", None, None
        while True:
            outcome = self._process(phase, deferred, event, deadline)
            if outcome is None:  # crashed
                phase = "trigger" if phase == "trigger" and not self.cleared else "execute"
                self._try_number += phase == "execute"
                self._clear_number += self.cleared
                self.after_crash()
            elif "deferred" in outcome:
                phase, deferred = "trigger", outcome["deferred"]
            elif "event" in outcome:
                phase, event = "resume", outcome["event"]
            elif "error" in outcome and self.retries:
                self.retries -= 1
                self._try_number += 1
                phase = "execute"
            else:
                return outcome

    def _process(self, phase: str, deferred: Any, event: Any, deadline: float) -> dict[str, Any] | None:
        """One process, to its end or its crash."""
        crash = self.crash if self.crash and self.crash.phase == phase and not self.crashed else None
        user = {"user": self.name}
        hold = self.control.fault("hold", **user, skip=crash.request - 1) if crash else None
        note = None if self.crash else self.control.fault("note", **user, times=MANY)
        file = self.directory / "outcome.json"
        file.unlink(missing_ok=True)
        pid = self.processes.start(
            phase=phase,
            operator=self.operator,
            arguments=self.arguments,
            connection=self.connection,
            directory=str(self.directory),
            deferred=deferred,
            event=event,
            mutation=self.mutation,
            try_number=self._try_number,
            clear_number=self._clear_number,
        )
        while (code := self.processes.exit_code(pid)) is None:
            if hold and self.control.look_at(hold)["held"]:
                self.processes.kill(pid)
                self.control.release(hold, crash.how)
                while self.control.look_at(hold):  # until the request is done
                    time.sleep(0.02)
                self.crashed = True
                return None
            if time.monotonic() > deadline:
                self.processes.kill(pid)
                return {"error": "Stuck", "text": f"{phase} has not ended within {PATIENCE:.0f} s"}
            time.sleep(0.05)
        if hold:
            self.control.release(hold, "carry_out")  # it ended before; the next process is not meant
        if note:
            self.requests.setdefault(phase, []).extend(self.control.look_at(note).get("requests", []))
            self.control.release(note, "carry_out")
        if code or not file.exists():
            log = (self.directory / "log.txt").read_text()[-1500:]
            return {"error": "Died", "text": f"{phase} ended with code {code}:\n{log}"}
        return dict(json.loads(file.read_text()))
