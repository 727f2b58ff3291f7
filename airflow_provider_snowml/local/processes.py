"""Starting the processes in which users' models run.

Loading pandas and snowflake-ml-python takes seconds. On Linux one process loads them once and
every other is forked from it; elsewhere forking such a process is not safe and each loads its own.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

Process = multiprocessing.process.BaseProcess


def _context() -> ForkServerContext | SpawnContext:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["airflow_provider_snowml.local.preload"])
    return context


# Threads of a model that wait for each other by spinning would take the cores from all others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
CONTEXT = _context()
_lock = threading.Lock()


class _OpenFile:
    """A file descriptor that goes along to the new process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.number)

    def __setstate__(self, passed: Any) -> None:
        self.number = passed.detach()
        os.set_inheritable(self.number, False)  # not for the processes that a model starts


def prepare() -> None:
    """Load the libraries ahead of the first process, in the background."""
    if sys.platform == "linux":
        with _lock:
            multiprocessing.forkserver.ensure_running()


def start(log: Path, held: int | None, target: Callable[..., None], *arguments: Any) -> Process:
    """Call ``target`` in a new process, in a session and process group of its own.

    :param log: what it prints is appended here.
    :param held: a file descriptor that it keeps open, with its lock, for as long as it lives.
    """
    file = None if held is None else _OpenFile(held)
    process = CONTEXT.Process(target=_run, args=(str(log), file, target, arguments), daemon=True)
    with _lock:
        process.start()
    return process


def exit_code(process: Process, patience: float) -> int | None:
    """How a process has ended, as soon as it has.

    :param patience: seconds. ``None`` if it runs still.
    """
    wait([process.sentinel], patience)
    with _lock:  # of two threads that read it at once (starting another does, too), one reads 255
        return process.exitcode


def _run(log: str, held: _OpenFile | None, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.setsid()  # a terminal's Ctrl-C is for the server
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]
    # Daemonic only for the server's exit: a model may start processes.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # a fork has its parent's state
    target(*arguments)
    del held
