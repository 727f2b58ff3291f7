"""What only a real scheduler and triggerer show: a wait that no worker began, and an asset watcher."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_snowml.core.names import StageLocation

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from airflow_processes import Airflow, airflow, end, tail

pytestmark = pytest.mark.timeout(1200)

DAGS = """
from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset, AssetWatcher, Param, task

from airflow_provider_snowml.sensors.inference import SnowMLBatchSuccessSensor
from airflow_provider_snowml.triggers.batch_success import SnowMLBatchSuccessEventTrigger

BASE = "{base}"
QUICK = {{"deferrable": True, "start_from_trigger": True, "poke_interval": 1, "timeout": 600}}

scored = Asset(
    "scored",
    watchers=[
        AssetWatcher(
            name="scored",
            trigger=SnowMLBatchSuccessEventTrigger(output_stage_location=BASE, poll_interval=1),
        )
    ],
)

# A busy machine may fail to start a task.
AGAIN = {{"retries": 5, "retry_delay": timedelta(seconds=1)}}

with DAG("started", schedule=None, params={{"job": Param("", type="string")}}, default_args=AGAIN):

    @task
    def where() -> str:
        return BASE + "xcom/"

    where() >> SnowMLBatchSuccessSensor(
        task_id="xcom", job_output_location="{{{{ ti.xcom_pull(task_ids='where') }}}}", **QUICK
    )
    SnowMLBatchSuccessSensor(task_id="param", job_output_location=BASE + "{{{{ params.job }}}}", **QUICK)
    SnowMLBatchSuccessSensor(
        task_id="short", job_output_location="@ST/in_airflow/{{{{ params.job }}}}", **QUICK
    )
    SnowMLBatchSuccessSensor.partial(task_id="mapped", **QUICK).expand(job_output_location=[BASE + "xcom"])

with DAG("after", schedule=[scored], default_args=AGAIN):

    @task
    def report(triggering_asset_events=None):
        return [event.extra["payload"]["job_name"] for event in triggering_asset_events[scored]]

    report()
"""


@pytest.fixture
def base(scoring) -> StageLocation:
    hook = scoring.hook()
    with hook.open_connection():
        return StageLocation.parse("@ST/in_airflow", hook.default_schema())


@pytest.fixture
def running(scoring, base, tmp_path) -> Iterator[Airflow]:
    dags, home = tmp_path / "dags", tmp_path / "home"
    dags.mkdir()
    home.mkdir()
    (dags / "watching.py").write_text(DAGS.format(base=base.sql))
    connection = {name: os.environ[name] for name in ("AIRFLOW_CONN_SNOWFLAKE_DEFAULT",)}
    with airflow(home, dags, parallelism=4, environment=connection) as running:
        running.wait_for_dags(["started", "after"], timeout=600)
        yield running


def until(running: Airflow, look: Any, seconds: float = 400) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        running.check_processes()
        assert time.monotonic() < deadline, tail(running.home / "triggerer.log")
        time.sleep(1)
    return found


def test_no_worker_is_needed_before_the_end_and_each_job_is_an_event(running, scoring, base) -> None:
    hook = scoring.hook()
    running.post("dags/started/dagRuns", {"logical_date": None, "conf": {"job": "param"}, "dag_run_id": "r"})

    def states() -> dict[str, str]:
        instances = running.get("dags/started/dagRuns/r/taskInstances")["task_instances"]
        return {ti["task_id"]: ti["state"] for ti in instances}

    def events() -> list[str]:
        found = running.get("assets/events")["asset_events"]
        return sorted(event["extra"]["payload"]["job_name"] for event in found)

    def reported() -> set[str]:
        """Airflow may make one run of several events, and that of the first alone."""
        names: set[str] = set()
        for run in running.get("dags/after/dagRuns")["dag_runs"]:
            if run["state"] == "success":
                path = f"dags/after/dagRuns/{run['dag_run_id']}/taskInstances/report/xcomEntries/return_value"
                names |= set(running.get(f"{path}?deserialize=true")["value"])
        return names

    waits = {"xcom": "deferred", "param": "deferred", "short": "deferred", "mapped": "deferred"}
    until(running, lambda: waits.items() <= states().items())
    # Workers were needed only to pull an XCom, to say what a short name means, and for a mapped task.
    logs = running.home / "logs"
    tries = [path for path in logs.glob("dag_id=started/**/attempt=*.log") if ".trigger." not in path.name]
    begun = {path.parent.name for path in tries}
    assert begun == {f"task_id={task}" for task in ("where", "xcom", "short")} | {"map_index=0"}
    for name in ("xcom", "param"):
        hook.write_file(base / name, "_SUCCESS", b"")
    until(running, lambda: set(states().values()) == {"success"})
    until(running, lambda: events() == ["param", "xcom"])
    until(running, lambda: reported() & {"param", "xcom"})

    # Another triggerer goes on where the first one ended.
    end([running.processes.pop("triggerer")])
    hook.write_file(base / "meanwhile", "_SUCCESS", b"")
    running.start("triggerer")
    until(running, lambda: "meanwhile" in reported())
    assert events() == ["meanwhile", "param", "xcom"]
