"""The same through Airflow's own scheduler and triggerer: a task's process, and the triggerer, are killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow_processes import Airflow, airflow, end
from batch_subjects import DeferredBatch
from load_subjects import Load, Run
from sensor_subjects import DeferredSensor
from subject import Subject

DAGS = Path(__file__).with_name("dags")
PATIENCE = 300


class Batch(DeferredBatch):
    """Its job lives long enough for two crashes."""

    def before(self) -> None:
        super().before()
        self.control.fault("slow_job", job=self.name, seconds=45)


# Each is killed when it sends its first statement of this kind, which is then dropped or carried out.
KILLED: dict[str, tuple[type[Subject], str, str]] = {
    "CHAOSBATCH": (Batch, "^EXECUTE INFERENCE JOB SERVICE", "carry_out"),
    "CHAOSLOAD": (Load, "^INSERT", "carry_out"),
    "CHAOSRUN": (Run, "^INSERT", "drop"),
    "CHAOSSENSOR": (DeferredSensor, "^DESCRIBE SERVICE", "drop"),
}


@pytest.fixture(scope="module")
def tasks(control) -> dict[str, Subject]:
    return {name: subject(name, control) for name, (subject, _, _) in KILLED.items()}


@pytest.fixture(scope="module")
def running(control, tasks, tmp_path_factory):
    directory = tmp_path_factory.mktemp("airflow")
    told = directory / "tasks.json"
    told.write_text(
        json.dumps({n: {"operator": it.operator, "arguments": it.arguments()} for n, it in tasks.items()})
    )
    connections = {f"AIRFLOW_CONN_{name}": control.connection_of(name) for name in tasks}
    home = directory / "home"
    home.mkdir()
    environment = {"SNOWML_CHAOS_TASKS": str(told), **connections}
    with airflow(home, DAGS, parallelism=2, environment=environment) as it:
        it.wait_for_dags(list(tasks), timeout=PATIENCE)
        yield it


def wait_for(condition: Any, what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not seen in {PATIENCE} s: {what}"
        time.sleep(0.2)
    return value


def kill_who_asks(running: Airflow, port: int, component: str) -> None:
    """Kill the process below one of Airflow's that is connected to the local Snowflake."""

    def connected() -> list[psutil.Process]:
        tree = psutil.Process(running.processes[component].pid)
        found = []
        for process in [tree, *tree.children(recursive=True)]:
            try:
                connections = process.net_connections("tcp")
            except psutil.Error:
                continue
            if any(it.raddr and it.raddr.port == port and it.status == "ESTABLISHED" for it in connections):
                found.append(process)
        return found

    os.kill(wait_for(connected, f"who asks, of the {component}")[-1].pid, signal.SIGKILL)


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_task_is_put_right_by_its_next_try(running, tasks, control, name) -> None:
    subject, (_, statement, how) = tasks[name], KILLED[name]
    subject.before()
    task = f"dags/{name}/dagRuns/{subject.run_id}/taskInstances/{name}"
    hold = control.fault("hold", user=name, statement=statement)
    running.post(f"dags/{name}/dagRuns", {"logical_date": None, "dag_run_id": subject.run_id})
    wait_for(lambda: control.look_at(hold)["held"], "the request")
    kill_who_asks(running, control.local.address.port, "scheduler")
    if name == "CHAOSBATCH":
        # The next try defers; the triggerer's first poll is held as well, and the triggerer killed.
        poll = control.fault("hold", user=name, statement="^SHOW JOB SERVICES LIKE 'SNOWML_%'")
    control.release(hold, how)
    subject.after_crash()

    def ended() -> Any:
        found = running.get(task)
        return found if found["state"] in ("success", "failed") else None

    if name == "CHAOSBATCH":
        wait_for(lambda: control.look_at(poll).get("held") or ended(), "the triggerer's poll")
        end([running.processes["triggerer"]], grace=0)
        control.release(poll, "drop")
        running.start("triggerer")
    found = wait_for(ended, "the task's end")
    assert found["state"] == "success"
    assert found["try_number"] > 1
    xcom = running.get(f"{task}/xcomEntries/return_value")["value"]
    assert subject.violations(xcom) == []
