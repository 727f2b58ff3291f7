"""The processes that die: tries of tasks and their triggers, forked from one that has loaded everything.

Started as a program, it reads orders as JSON from its standard input, one a line, and answers each with
one line: ``{"do": "start", ...}`` with the new process's id, ``{"do": "look", "pid": ...}`` with its exit
code, or null while it lives. A kill is the caller's.

What a task instance keeps from one process to the next is in a directory of its own: ``store.json``, its
``task_state_store``, written at once, as Airflow does; ``outcome-<n>.json``, how a process ended.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class FileStore:
    """A task state store that outlives the process: what was set is there, whole, when ``set`` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str, default: Any = None) -> Any:
        return self._all().get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._write({**self._all(), key: value})

    def delete(self, key: str) -> None:
        self._write({name: value for name, value in self._all().items() if name != key})

    def _all(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def _write(self, values: dict[str, Any]) -> None:
        _write(self.path, values)


def _write(path: Path, value: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, default=str))
    part.replace(path)


def context_of(told: dict[str, Any]) -> dict[str, Any]:
    """What Airflow would pass: the same run and map index in each try; a clear counts the run's clears up."""
    since = told["rescheduled_since"]
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="chaos",
        task_id=told["arguments"]["task_id"],
        run_id="chaos__2013-06-01",
        map_index=-1,
        try_number=told["try_number"],
        max_tries=3,
        start_date=None,
        pushed=pushed,
        xcom_push=lambda key, value: pushed.update({key: value}),
        get_first_reschedule_date=lambda *_: since and datetime.fromtimestamp(since, UTC),
    )
    return {
        "ti": ti,
        "dag_run": SimpleNamespace(clear_number=told["clear_number"], run_type="scheduled"),
        "partition_key": "2013-06-01",
        "task_state_store": FileStore(Path(told["directory"]) / "store.json"),
    }


def named(path: str) -> Any:
    """What is called ``module.name``."""
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def run(told: dict[str, Any]) -> dict[str, Any]:
    """One process's work: a try, a ``trigger`` or its ``kill``, or ``resume`` with the trigger's event."""
    if told["mutation"]:
        import mutations

        mutations.MUTATIONS[told["mutation"]].apply()
    os.environ["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"] = told["connection"]
    if told["phase"] in ("trigger", "kill"):
        trigger = named(told["deferred"]["trigger"])(**told["deferred"]["arguments"])
        if told["phase"] == "kill":
            asyncio.run(trigger.on_kill())
            return {"killed": True}
        return {"event": asyncio.run(_first_event(trigger))}

    from airflow.sdk.exceptions import AirflowRescheduleException, DownstreamTasksSkipped, TaskDeferred

    task, context = named(told["operator"])(**told["arguments"]), context_of(told)
    context["ti"].task = task
    try:
        if told["phase"] == "resume":
            method, event = told["deferred"]["method"], told["event"]
            return {"xcom": task.resume_execution(method, {"event": event}, context)}
        return {"xcom": task.execute(context)}
    except TaskDeferred as deferred:
        path, arguments = deferred.trigger.serialize()
        return {"deferred": {"trigger": path, "arguments": arguments, "method": deferred.method_name}}
    except DownstreamTasksSkipped as skipped:
        return {"xcom": {**context["ti"].pushed, "skipped": sorted(task for task, _ in skipped.tasks)}}
    except AirflowRescheduleException:
        return {"rescheduled": True}
    except Exception as error:
        traceback.print_exc()
        return {"error": type(error).__name__, "text": str(error)}


async def _first_event(trigger: Any) -> Any:
    """As the triggerer runs it: over a shared stream."""
    from airflow.triggers.shared_stream import SharedStreamManager

    manager, key = SharedStreamManager(), trigger.shared_stream_key()
    stream = manager.subscribe(trigger_id=1, trigger=trigger, key=key)
    try:
        async for event in trigger.filter_shared_stream(stream):
            return event.payload
    finally:
        await manager.unsubscribe(1, key)
    raise AssertionError("the trigger has ended without an event")


def _in_child(told: dict[str, Any]) -> None:
    directory = Path(told["directory"])
    os.setsid()
    log = os.open(directory / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 0
    try:
        _write(Path(told["outcome"]), run(told))
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _load_everything() -> None:
    import model_tasks  # noqa: F401
    import snowflake.ml.model
    import snowflake.ml.registry
    import snowflake.snowpark  # noqa: F401
    from airflow.sdk.execution_time import cache, supervisor  # noqa: F401
    from airflow.triggers import shared_stream  # noqa: F401

    import airflow_provider_snowml.operators.inference
    import airflow_provider_snowml.sensors.inference  # noqa: F401
    from airflow_provider_snowml.hooks import loading

    gc.freeze()  # what is loaded here is no garbage of the forks
    loading._LOCK_WAIT = 0.1  # the waiting for a lock would take most of the matrix' time


def main() -> None:
    # What a library prints must not pass for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _load_everything()
    print("ready", file=answers)
    alive: set[int] = set()
    for line in sys.stdin:
        told = json.loads(line)
        if told["do"] == "start":
            pid = os.fork()
            if pid == 0:
                os.close(answers.fileno())
                _in_child(told)
            alive.add(pid)
            print(pid, file=answers)
        else:
            ended, status = os.waitpid(told["pid"], os.WNOHANG)
            alive.discard(ended)
            print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), file=answers)
    for pid in alive:  # who gave the orders is gone
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
