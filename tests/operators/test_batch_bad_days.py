"""What a running Airflow does to batch tasks on a bad day: real scheduler, triggerer and supervisors.

The days are had at once, by one Airflow; each test looks at what came of one.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = {
    "worker_killed": 90,
    "triggerer_killed": 90,
    "airflow_killed": 90,
}  # that those jobs take; others: long
PATIENCE = 400
PRELOAD = ["snowflake.connector", "airflow_provider_snowml.operators.inference"]  # tasks are forked
pytestmark = pytest.mark.timeout(1800)  # all the days are had in the first test's set-up


class Days:
    """The DAGs of ``bad_days.py``, run by an Airflow."""

    def __init__(self, running: Any, scoring: Any, pids: Path) -> None:
        self.running, self.scoring, self.pids = running, scoring, pids
        self.runs: dict[str, str] = {}

    def jobs(self, name: str) -> dict[str, str]:
        """The statuses of a DAG's jobs by attempt."""
        hook = self.scoring.hook()
        with hook.open_connection():
            found = hook.list_jobs(hook.default_schema(), f"SNOWML_{name.upper()}_SCORE_")
        return {job.rsplit("_", 1)[1]: status for job, status in found.items()}

    def task(self, name: str) -> dict[str, Any]:
        """The task instance."""
        found: dict[str, Any] = self.running.get(f"dags/{name}/dagRuns/{self.runs[name]}/taskInstances/score")
        return found

    def answers(self) -> bool:
        """Whether the API server does."""
        try:
            return bool(self.running.get("dags"))
        except OSError:
            return False

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not seen in {PATIENCE} s: {what}"
            time.sleep(0.5)
        return value

    def ask(self, send: Callable[..., Any], path: str, body: dict[str, Any]) -> None:
        """Ask for something that may be asked for twice: SQLite refuses writers on a busy machine."""
        for _ in range(5):
            try:
                send(path, body)
                return
            except Exception as error:
                if "409" in str(error):  # it is there by now
                    return
                refused = error
                time.sleep(2)
        raise refused

    def begin(self, name: str) -> None:
        self.runs[name] = f"manual_{name}"
        body = {"logical_date": None, "dag_run_id": self.runs[name]}
        self.ask(self.running.post, f"dags/{name}/dagRuns", body)

    def has_begun(self, name: str, *, deferred: bool) -> bool:
        return self.jobs(name) == {"A1": "RUNNING"} and (
            not deferred or self.task(name)["state"] == "deferred"
        )

    def latest_pid(self, name: str) -> int:
        """The process of a DAG's latest try."""
        files = self.pids.glob(f"{name}_*")
        return int(max(files, key=lambda file: int(file.name.rpartition("_")[2])).read_text())

    def clear(self, name: str) -> None:
        self.scoring.hook().rows(f"UPDATE WAITS SET SECONDS = 0 WHERE NAME = '{name}'")
        body = {"dry_run": False, "dag_run_id": self.runs[name], "task_ids": ["score"], "only_failed": False}
        self.ask(self.running.post, f"dags/{name}/clearTaskInstances", body)

    def ended(self, name: str) -> dict[str, Any]:
        """The task instance, once it has ended."""
        ends = ("success", "failed")
        return self.wait_for(lambda: (it := self.task(name))["state"] in ends and it, f"the end of {name}")


@pytest.fixture(scope="module")
def days(scoring_schema, local_snowflake, tmp_path_factory) -> Iterator[Days]:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from airflow_processes import COMPONENTS, airflow
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    home, dags, pids = (tmp_path_factory.mktemp(name) for name in ("home", "dags", "pids"))
    shutil.copy(Path(__file__).with_name("bad_days.py"), dags)
    environment = {
        "AIRFLOW_CONN_SNOWFLAKE_DEFAULT": local_snowflake.airflow_connection_into(scoring_schema.name),
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "SNOWML_TEST_PIDS": str(pids),
    }
    marked = {
        "marked_failed": "failed",
        "marked_success": "success",
        "success_deferred": "success",
    }
    deferred = {"cleared_deferred", "success_deferred", "triggerer_killed", "airflow_killed"}
    names = {"worker_killed", "cleared_running", *marked, *deferred}
    with (
        pytest.MonkeyPatch.context() as patch,
        airflow(home, dags, parallelism=6, environment=environment, preload=PRELOAD) as running,
    ):
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        found = Days(running, scoring_schema, pids)
        values = ", ".join(f"('{name}', {SECONDS.get(name, 600)})" for name in names)
        columns = "SELECT COLUMN1 AS NAME, COLUMN2 AS SECONDS"
        scoring_schema.hook().rows(f"CREATE TABLE WAITS AS {columns} FROM VALUES {values}")
        running.wait_for_dags(sorted(names), timeout=PATIENCE)
        # Those whose jobs end by themselves last: nobody waits for another's start while they run.
        for group in (names - SECONDS.keys(), SECONDS.keys()):
            for name in sorted(group):
                found.begin(name)
            missing = set(group)  # each is seen while its job runs, however late another is

            def have_begun(missing: set[str] = missing) -> bool:
                missing -= {name for name in missing if found.has_begun(name, deferred=name in deferred)}
                return not missing

            found.wait_for(have_begun, f"the jobs of {', '.join(group)}")
        os.kill(found.latest_pid("worker_killed"), signal.SIGKILL)
        found.clear("cleared_running")
        found.clear("cleared_deferred")
        for name, state in marked.items():
            path = f"dags/{name}/dagRuns/{found.runs[name]}/taskInstances/score"
            found.ask(running.patch, path, {"new_state": state})
        # The job of a deferred task is ended by its triggerer, which is killed next.
        found.wait_for(lambda: found.jobs("success_deferred") == {"A1": "CANCELLED"}, "CANCELLED")
        running.kill("triggerer")
        running.start("triggerer")
        for name in sorted(names - {"airflow_killed"}):
            found.ended(name)
        for component in COMPONENTS:
            running.kill(component)
        # A scheduler without an API server starts tries that nobody answers, and uses them up.
        running.start("api-server")
        found.wait_for(found.answers, "the API server")
        for component in COMPONENTS[1:]:
            running.start(component)
        running.wait_for_dags(["airflow_killed"], timeout=PATIENCE)
        found.ended("airflow_killed")
        yield found


def test_a_worker_that_is_killed_leaves_its_job_to_the_retry(days) -> None:
    task = days.ended("worker_killed")
    assert task["state"] == "success"
    assert task["try_number"] >= 2
    assert days.jobs("worker_killed") == {"A1": "DONE"}


def test_a_running_task_that_is_cleared_ends_its_job_and_runs_the_next(days) -> None:
    assert days.ended("cleared_running")["state"] == "success"
    assert days.jobs("cleared_running") == {"A1": "CANCELLED", "A2": "DONE"}


def test_a_deferred_task_that_is_cleared_ends_its_job_and_its_late_kill_ends_no_other(days) -> None:
    assert days.ended("cleared_deferred")["state"] == "success"
    assert days.jobs("cleared_deferred") == {"A1": "CANCELLED", "A2": "DONE"}


def test_a_running_task_that_is_marked_failed_ends_its_job(days) -> None:
    assert days.ended("marked_failed")["state"] == "failed"
    days.wait_for(lambda: days.jobs("marked_failed") == {"A1": "CANCELLED"}, "CANCELLED")


@pytest.mark.parametrize("name", ["marked_success", "success_deferred"])
def test_a_task_that_is_marked_success_needs_its_job_no_more(days, name) -> None:
    """Airflow kills it, or its trigger, as if it were marked failed."""
    assert days.ended(name)["state"] == "success"
    days.wait_for(lambda: days.jobs(name) == {"A1": "CANCELLED"}, "CANCELLED")


def test_a_triggerer_that_is_killed_leaves_its_jobs_to_the_next(days) -> None:
    assert days.ended("triggerer_killed")["state"] == "success"
    assert days.jobs("triggerer_killed") == {"A1": "DONE"}


def test_an_airflow_that_is_killed_leaves_its_jobs_to_the_next(days) -> None:
    assert days.ended("airflow_killed")["state"] == "success"
    assert days.jobs("airflow_killed") == {"A1": "DONE"}
