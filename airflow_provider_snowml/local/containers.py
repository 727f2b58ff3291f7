"""The processes in which jobs and services run.

A container has a directory of its own with its specification, its log and its state. It holds a
lock on a file there for as long as it lives, whatever kills it; so a server that was restarted
sees which ones outlived it, and a process id that was given away again deceives nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import processes

PENDING, RUNNING, DONE, FAILED, CANCELLED = "PENDING", "RUNNING", "DONE", "FAILED", "CANCELLED"
ENDED = (DONE, FAILED, CANCELLED)
LONGEST_PAUSE = 10.0  # seconds before a container that keeps dying is started again


def write_state(directory: Path, status: str, message: str, **more: Any) -> None:
    """Replace the container's state."""
    state = {"status": status, "message": message, "time": time.time(), **more}
    _replace(directory / "state.json", state)


def _replace(file: Path, content: dict[str, Any]) -> None:
    """Write a file whose readers see the old or the new content, nothing between."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(file)


class Containers:
    """:param root: every container has a directory here, named by its id."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._lock = threading.RLock()
        self._processes: dict[str, processes.Process] = {}
        self._closed = False

    def directory(self, id_: str) -> Path:
        return self._root / id_

    def create(self, id_: str, spec: dict[str, Any]) -> Path:
        """Make the directory of a container that is still to be started."""
        directory = self.directory(id_)
        directory.mkdir(exist_ok=True)
        (directory / "spec.json").write_text(json.dumps(spec))
        (directory / "log.txt").touch()
        write_state(directory, PENDING, "Waiting to be scheduled")
        return directory

    def remove(self, id_: str) -> None:
        shutil.rmtree(self.directory(id_), ignore_errors=True)

    def start(self, id_: str, main: Callable[[str], None]) -> None:
        """Run ``main(directory)`` in a process of its own as the container, unless it was ended before."""
        directory = self.directory(id_)
        with self._lock:
            if self._closed or self.written(id_)["status"] in ENDED:
                return
            alive = os.open(directory / "alive", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                # The process gets the file with its lock: no moment at which nobody holds it.
                fcntl.flock(alive, fcntl.LOCK_EX)
                process = processes.start(directory / "log.txt", alive, main, str(directory))
            finally:
                os.close(alive)
            (directory / "pid").write_text(str(process.pid))
            self._processes[id_] = process

    def renew(self, id_: str, spec: dict[str, Any], main: Callable[[str], None]) -> None:
        """Create and start a container that is kept running, in place of one that has ended."""
        with self._lock:
            if self._closed or self.alive(id_):
                return
            self.create(id_, spec)
            (self.directory(id_) / "restarts.json").unlink(missing_ok=True)
            self.start(id_, main)
        self.keep(id_, main)

    def reset(self, id_: str) -> None:
        """Forget what a container ended with, which is to be renewed."""
        with self._lock:
            if self.directory(id_).exists() and not self.alive(id_):
                write_state(self.directory(id_), CANCELLED, "Waiting to be scheduled")

    def keep(self, id_: str, main: Callable[[str], None]) -> None:
        """Start a container again whenever its process dies, from now on.

        One that dies before it was RUNNING has failed, one that was ended stays so.
        """
        threading.Thread(target=self._keep, args=(id_, main), name=f"keep {id_}", daemon=True).start()

    def _keep(self, id_: str, main: Callable[[str], None]) -> None:
        while self._has_died(id_):
            restarts = self.restarts(id_)["count"]
            time.sleep(min(0.2 * 2**restarts, LONGEST_PAUSE))
            with self._lock:
                if self._closed or self.alive(id_) or self.written(id_)["status"] != RUNNING:
                    return
                again = {"count": restarts + 1, "time": time.time(), "exit_code": self._exit_code(id_)}
                _replace(self.directory(id_) / "restarts.json", again)
                write_state(self.directory(id_), PENDING, "Restarting")
                self.start(id_, main)

    def _has_died(self, id_: str) -> bool:
        """Wait until nobody holds the container's lock; whether it is one to be started again."""
        try:
            with (self.directory(id_) / "alive").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False
        with self._lock:
            if self._closed or self.alive(id_):
                return False
            status = self.written(id_)["status"]
            if status == PENDING:
                write_state(self.directory(id_), FAILED, self._how_it_died(id_))
            return bool(status == RUNNING)

    def restarts(self, id_: str) -> dict[str, Any]:
        """``count``, and the ``time`` and ``exit_code`` of the last one."""
        try:
            found: dict[str, Any] = json.loads((self.directory(id_) / "restarts.json").read_text())
        except FileNotFoundError:
            return {"count": 0, "time": None, "exit_code": None}
        return found

    def written(self, id_: str) -> dict[str, Any]:
        """The state that was written last, whether or not the container lives."""
        return self._read(self.directory(id_))

    def alive(self, id_: str) -> bool:
        try:
            file = os.open(self.directory(id_) / "alive", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def state(self, id_: str) -> dict[str, Any]:
        """The state that the container wrote last, or what became of it."""
        directory = self.directory(id_)
        alive = self.alive(id_)  # before reading: a state written in between is not overlooked
        state = self._read(directory)
        if state["status"] in ENDED or alive or not (directory / "alive").exists():
            return state
        with self._lock:  # with it, as it may only just have been started
            if not self.alive(id_) and self._read(directory)["status"] not in ENDED:
                write_state(directory, FAILED, self._how_it_died(id_))
        return self._read(directory)

    @staticmethod
    def _read(directory: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((directory / "state.json").read_text())
        except FileNotFoundError:
            return {"status": FAILED, "message": "the container's directory is gone", "time": 0.0}
        return state

    def _exit_code(self, id_: str) -> int | None:
        process = self._processes.get(id_)
        if process is None:
            return None
        return processes.exit_code(process, 5)  # dead already, but its exit code may be on the way

    def _how_it_died(self, id_: str) -> str:
        code = self._exit_code(id_)
        if code is None:
            return "The container ended without a result"
        if code < 0:
            return f"The container was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"The container exited with code {code}"

    def end(self, id_: str, status: str, message: str) -> dict[str, Any]:
        """Kill a container and write why, unless it had ended by itself."""
        with self._lock:
            if self.state(id_)["status"] in ENDED:
                return self.state(id_)
            self._kill(id_)
            state = self._read(self.directory(id_))
            if state["status"] not in ENDED:
                write_state(self.directory(id_), status, message)
            return self._read(self.directory(id_))

    def _kill(self, id_: str) -> None:
        while self.alive(id_):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int((self.directory(id_) / "pid").read_text()), signal.SIGKILL)
            process = self._processes.get(id_)
            if process is not None:
                processes.exit_code(process, 0.1)
            else:
                time.sleep(0.02)

    def log(self, id_: str) -> str:
        try:
            return (self.directory(id_) / "log.txt").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """A stopped server leaves no processes behind, nor those of one that was killed before."""
        with self._lock:
            self._closed = True
        for directory in self._root.iterdir():
            if self.alive(directory.name):
                self.end(directory.name, FAILED, "The local Snowflake was stopped")
