"""The life of a task instance, from its first try to its end, with one crash in it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import snowflake.connector

from airflow_provider_snowml.local import LocalSnowflake
from airflow_provider_snowml.local.address import USER

TRIES = Path(__file__).with_name("tries.py")
PATIENCE = 300.0  # seconds; a case that takes longer is a violation
MANY = 1_000_000
LOOK = 0.08  # seconds between two looks at a process
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

    def stop(self, pid: int) -> None:
        """As a machine does that hangs: it may go on later, and knows nothing of what happened meanwhile."""
        os.killpg(pid, signal.SIGSTOP)

    def let_go(self, pid: int) -> None:
        os.killpg(pid, signal.SIGCONT)

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

    def rows(self, sql: str, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        with self._lock, self._connection.cursor(snowflake.connector.DictCursor) as cursor:
            return list(cursor.execute(sql, arguments or None, **options).fetchall())

    def close(self) -> None:
        self._connection.close()

    def connection_of(self, user: str) -> str:
        """An Airflow connection's URI: into the same schema, of a user whom faults can be told about."""
        uri = self.local.airflow_connection_into(self._schema)
        return uri.replace(f"://{USER}:", f"://{user}:", 1)

    def read(self, location: str) -> bytes:
        """A file on a stage; empty if it is not there."""
        with tempfile.TemporaryDirectory() as directory:
            with contextlib.suppress(snowflake.connector.errors.OperationalError):  # there is no such file
                self.rows(f"GET '{location}' '{Path(directory).as_uri()}/'")
            return b"".join(path.read_bytes() for path in Path(directory).iterdir())

    def value(self, sql: str, *arguments: Any) -> Any:
        return next(iter(self.rows(sql, *arguments)[0].values()))

    def fault(self, kind: str, **details: Any) -> int:
        return int(self.value("SELECT SYSTEM$SNOWML_LOCAL_FAULT(%s)", json.dumps({"kind": kind, **details})))

    def faults(self) -> list[dict[str, Any]]:
        return json.loads(self.value("SELECT SYSTEM$SNOWML_LOCAL_FAULTS()"))

    def look_at(self, fault: int) -> dict[str, Any]:
        return next((one for one in self.faults() if one["id"] == fault), {})

    def forget_faults_of(self, name: str) -> None:
        """Those that a case was told of: with hundreds of them each request would take its time."""
        for fault in self.faults():
            if fault["user"] == name or name in fault["job"]:
                self.release(fault["id"], "carry_out")

    def release(self, fault: int, how: str) -> None:
        self.value("SELECT SYSTEM$SNOWML_LOCAL_RELEASE(%s, %s)", fault, how)


@dataclass(frozen=True)
class Crash:
    """Where a process dies, or hangs.

    :param phase: which of its processes: ``execute``; ``clear``, the first try after a Clear; ``poke``,
        when it was rescheduled; ``trigger``, ``resume``; ``kill``, the trigger's ``on_kill``.
    :param request: at the n-th request that the server sees of it, counted from 1.
    :param how: what becomes of that request: ``drop``, the crash came before it; ``carry_out``, after it.
    :param hangs: it does not die but is stopped, and let go later, when Airflow has long begun the next try.
    """

    phase: str
    request: int
    how: str
    hangs: bool = False


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
    :param killed: somebody presses Clear while it is deferred, so that the trigger's ``on_kill`` is called:
        ``before`` the next try begins, or ``after`` it has deferred, too.
    :param after_kill: a look at the world when ``on_kill`` has come to its end.
    :param let_go: what the successor of a process that hangs sends when that is let go; empty for when the
        successor has come to its end.
    :param retries: how many tries may fail.
    :param watched: at which statements it is held for a look at the world, and then goes on.
    :param watch: the look.
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
    killed: Literal["", "before", "after"] = ""
    after_kill: Callable[[], None] = lambda: None
    let_go: str = ""
    retries: int = 0
    watched: str = ""
    watch: Callable[[], None] = lambda: None
    mutation: str | None = None
    crashed: bool = False
    requests: dict[str, list[str]] = field(default_factory=dict)
    _clear_number: int = 0
    _try_number: int = 1
    _rescheduled_since: float | None = None
    _hanging: int | None = None  # a stopped process,
    _stopped: int | None = None  # and one that was
    _awaited: int | None = None  # what it is let go for
    _outcomes: Iterator[int] = field(default_factory=itertools.count)

    def run(self) -> dict[str, Any]:
        """Live; how it ended: ``{"xcom"}`` or ``{"error", "text"}``."""
        self.directory.mkdir(parents=True)
        deadline = time.monotonic() + PATIENCE
        end = self._to_its_end(deadline)
        if self._hanging is not None:
            self._go_on()
        while self._stopped is not None and self.processes.exit_code(self._stopped) is None:
            if time.monotonic() > deadline:
                self.processes.kill(self._stopped)
                return {"error": "Stuck", "text": f"what was let go has not ended within {PATIENCE:.0f} s"}
            time.sleep(LOOK)
        return end

    def _to_its_end(self, deadline: float) -> dict[str, Any]:
        phase, deferred, event, old = "execute", None, None, None
        while True:
            outcome = self._process(phase, deferred, event, deadline)
            if outcome is None:  # crashed
                cleared = self.cleared or phase == "kill"
                self._clear_number += cleared and not self._clear_number
                phase = "trigger" if phase == "trigger" and not cleared else self._next_try()
                self.after_crash()
            elif "deferred" in outcome:
                phase, deferred = "trigger", outcome["deferred"]
                if self.killed and old is None:
                    old, self._clear_number = deferred, 1
                    phase = "kill" if self.killed == "before" else self._next_try()
                elif self.killed == "after":
                    killed = self._process("kill", old, None, deadline)
                    if killed is None:
                        self.after_crash()
                    elif "error" in killed:
                        return killed
                    self.killed = ""
            elif "killed" in outcome:
                self.after_kill()
                phase = self._next_try()
            elif "rescheduled" in outcome:
                phase, self._rescheduled_since = "poke", self._rescheduled_since or time.time()
            elif "event" in outcome:
                phase, event = "resume", outcome["event"]
            elif "error" in outcome and self.retries:
                self.retries -= 1
                phase = self._next_try()
            else:
                return outcome

    def _next_try(self) -> str:
        self._try_number += 1
        self._rescheduled_since = None
        return "clear" if self._clear_number else "execute"

    def _process(self, phase: str, deferred: Any, event: Any, deadline: float) -> dict[str, Any] | None:
        """One process, to its end or its crash."""
        crash = self.crash if self.crash and self.crash.phase == phase and not self.crashed else None
        hold = self.control.fault("hold", user=self.name, skip=crash.request - 1) if crash else None
        # What comes before the crash, a life without one has shown.
        watch = self._hold_for_a_look() if self.watched and not crash else None
        note = None
        if not self.crash and phase not in self.requests:
            note = self.control.fault("note", user=self.name, times=MANY)
        file = self.directory / f"outcome-{next(self._outcomes)}.json"
        pid = self.processes.start(
            phase=phase,
            operator=self.operator,
            arguments=self.arguments,
            connection=self.connection,
            directory=str(self.directory),
            outcome=str(file),
            deferred=deferred,
            event=event,
            mutation=self.mutation,
            try_number=self._try_number,
            clear_number=self._clear_number,
            rescheduled_since=self._rescheduled_since,
        )
        while (code := self.processes.exit_code(pid)) is None:
            if hold and self.control.look_at(hold)["held"]:
                self._crash(pid, hold, crash)
                return None
            if watch and self.control.look_at(watch)["held"]:
                held, watch = watch, self._hold_for_a_look()
                self.watch()
                self.control.release(held, "answer")
                continue
            if self._hanging is not None and self._awaited and self.control.look_at(self._awaited)["seen"]:
                self._go_on()
            if time.monotonic() > deadline:
                self.processes.kill(pid)
                return {"error": "Stuck", "text": f"{phase} has not ended within {PATIENCE:.0f} s"}
            time.sleep(LOOK)
        if hold:
            self.control.release(hold, "carry_out")  # it ended before; the next process is not meant
        if watch:
            self.control.release(watch, "carry_out")
            self.watch()
        if note:
            self.requests[phase] = self.control.look_at(note).get("requests", [])
            self.control.release(note, "carry_out")
        if code or not file.exists():
            log = (self.directory / "log.txt").read_text()[-1500:]
            return {"error": "Died", "text": f"{phase} ended with code {code}:\n{log}"}
        return dict(json.loads(file.read_text()))

    def _hold_for_a_look(self) -> int:
        return self.control.fault("hold", user=self.name, statement=self.watched)

    def _crash(self, pid: int, hold: int, crash: Crash) -> None:
        if crash.hangs:
            self.processes.stop(pid)
        else:
            self.processes.kill(pid)
        self.control.release(hold, crash.how)
        while self.control.look_at(hold):  # until the request is done
            time.sleep(0.02)
        self.crashed = True
        if crash.hangs:
            self._hanging = self._stopped = pid
            if self.let_go:
                self._awaited = self.control.fault("note", user=self.name, statement=self.let_go, times=MANY)

    def _go_on(self) -> None:
        self.processes.let_go(self._hanging)
        self._hanging = None
        if self._awaited:
            self.control.release(self._awaited, "carry_out")
            self._awaited = None
