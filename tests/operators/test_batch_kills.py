"""Kills and time-outs of the batch operator: what ends with the task, and what is kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferred

from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobStartTimeoutError,
    BatchJobTimeoutError,
)
from airflow_provider_snowml.hooks.batch_jobs import build_job
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.batch_submission import STATE_KEY
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

PROGRAM = Path(__file__).with_name("killed_dag.py")
SUPERVISOR_GRACE = 5  # seconds from SIGTERM to SIGKILL


def slow(task_id: str, seconds: float = 120, **arguments: Any) -> SnowMLBatchInferenceOperator:
    return SnowMLBatchInferenceOperator(
        task_id=task_id,
        output_stage_location=f"@ST/{task_id}",
        **{
            "model_name": "SLOW",
            "function_name": "predict",
            "input_query": f"SELECT {seconds}::FLOAT AS F1, 1 AS ID",
            "compute_pool": "TEST_POOL",
            "poll_interval": 0.2,
            **arguments,
        },
    )


def jobs(scoring: Any, prefix: str) -> dict[str, str]:
    """The statuses of a task's jobs by attempt."""
    hook = scoring.hook()
    with hook.open_connection():
        found = hook.list_jobs(hook.default_schema(), f"SNOWML_{prefix.upper()}_")
    return {name.rsplit("_", 1)[1]: status for name, status in found.items()}


def wait_for(condition: Any, what: str, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not seen in {seconds} s: {what}"
        time.sleep(0.2)
    return value


def resume(task: Any, deferred: TaskDeferred, context: Any) -> Any:
    """What triggerer and worker do with a task that has deferred."""

    async def event() -> Any:
        return await anext(event.payload async for event in deferred.trigger.run())

    return getattr(task, deferred.method_name)(context, asyncio.run(event()))


def finish(task: Any, context: Any) -> Any:
    """The task to its end, deferred or not."""
    try:
        return task.execute(context)
    except TaskDeferred as deferred:
        return resume(task, deferred, context)


@pytest.fixture
def sleeping_pool(scoring) -> str:
    """A compute pool that never starts anything."""
    scoring.hook().rows(
        "CREATE COMPUTE POOL IF NOT EXISTS SLEEPING_POOL MIN_NODES = 1 MAX_NODES = 1 "
        "INSTANCE_FAMILY = CPU_X64_XS AUTO_RESUME = FALSE INITIALLY_SUSPENDED = TRUE"
    )
    return "SLEEPING_POOL"


def start(scoring: Any, dag_id: str, log: Path, **arguments: Any) -> subprocess.Popen[bytes]:
    wanted = {
        "dag_id": dag_id,
        "compute_pool": scoring.pool,
        "output_stage_location": f"@{scoring.schema}.ST/{dag_id}",
        **arguments,
    }
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(wanted)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ.copy(),
            start_new_session=True,
        )


def test_sigterm_cancels_the_job_before_sigkill_comes(scoring, airflow_db, tmp_path) -> None:
    """Airflow's own handler runs, and the process is killed as its supervisor does it."""
    log = tmp_path / "log"
    worker = start(scoring, "terminated", log, stream_logs=False)
    try:
        wait_for(lambda: jobs(scoring, "terminated_score") == {"A1": "RUNNING"}, "the job running")
        os.kill(worker.pid, signal.SIGTERM)
        time.sleep(SUPERVISOR_GRACE)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_for(lambda: jobs(scoring, "terminated_score") == {"A1": "CANCELLED"}, "CANCELLED")
    assert "The end of the logs of job" in log.read_text()
    assert "waiting 120.0 seconds" in log.read_text()


def test_execution_timeout_cancels_the_job_and_stays_the_error(scoring, airflow_db, tmp_path) -> None:
    log = tmp_path / "log"
    worker = start(scoring, "overdue", log, stream_logs=False, execution_timeout=25)
    try:
        assert worker.wait(240) == 0
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
    text = log.read_text()
    assert "AirflowTaskTimeout" in text and "state: failed" in text
    assert jobs(scoring, "overdue_score") in ({"A1": "CANCELLED"}, {"A1": "CANCELLING"})
    assert "The end of the logs of job" in text


def test_a_time_out_while_the_statement_is_sent_leaves_no_job(scoring, task_context, monkeypatch) -> None:
    """The exception comes before the query id: the statement is found by the job's name."""
    scoring.hook().rows("CREATE IMAGE REPOSITORY IF NOT EXISTS IMAGES")
    task = slow("overtaken", force_rebuild=True)
    real = SnowMLHook.submit
    sent = []

    def interrupted(self: SnowMLHook, sql: str) -> str:
        sent.append(real(self, sql))
        raise AirflowTaskTimeout

    monkeypatch.setattr(SnowMLHook, "submit", interrupted)
    with pytest.raises(AirflowTaskTimeout):
        task.execute(task_context("overtaken"))
    task.on_kill()  # as Airflow does
    hook = scoring.hook()
    wait_for(lambda: hook.statement(sent[0])[0] is not Statement.RUNNING, "the statement's end")
    assert set(jobs(scoring, "bad_day_overtaken").values()) <= {"CANCELLED"}


def test_a_kill_that_fails_says_so_and_hides_no_other_error(
    scoring, task_context, monkeypatch, caplog
) -> None:
    task = slow("refused", wait_for_completion=False)
    job = task.execute(task_context("refused"))["job_name"]
    with monkeypatch.context() as patch:
        patch.setattr(SnowMLHook, "cancel_job", lambda *_: (_ for _ in ()).throw(RuntimeError("not today")))
        task.on_kill()
    assert f"Job {job} could not be cancelled and may still run: not today" in caplog.text
    scoring.hook().cancel_job(QualifiedName.parse(job))


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_a_build_that_never_starts_is_cancelled_with_its_statement(
    scoring, task_context, sleeping_pool, deferrable
) -> None:
    name, store = f"unbuilt_{deferrable}", task_context.store()
    task = slow(name, compute_pool=sleeping_pool, force_rebuild=True, start_timeout=3, deferrable=deferrable)
    context = task_context(name, store=store)
    with pytest.raises(BatchJobStartTimeoutError, match=r"did not start in time; the statement is running"):
        finish(task, context)
    query_id = store.values[STATE_KEY]["query_id"]
    hook = scoring.hook()
    with hook.open_connection():
        assert hook.statement(query_id)[0] is Statement.FAILED
        made = QualifiedName.parse(f"{scoring.schema}.ANY")
        assert hook.job_status(build_job(made, query_id)) == "CANCELLED"
    assert jobs(scoring, f"bad_day_{name}") == {}


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_a_time_out_says_what_the_job_printed_and_keeps_it(scoring, task_context, deferrable) -> None:
    name = f"late_{deferrable}"
    with pytest.raises(
        BatchJobTimeoutError, match=r"(?s)longer than allowed.*waiting 120\.0 seconds"
    ) as caught:
        finish(slow(name, timeout=20, deferrable=deferrable), task_context(name))
    assert not isinstance(caught.value, BatchJobStartTimeoutError)
    wait_for(lambda: jobs(scoring, f"bad_day_{name}") == {"A1": "CANCELLED"}, "CANCELLED")


def test_a_kill_during_the_build_ends_it(scoring, task_context, sleeping_pool) -> None:
    store = task_context.store()
    task = slow("build_killed", compute_pool=sleeping_pool, force_rebuild=True, wait_for_completion=False)
    task.execute(task_context("build_killed", store=store))
    query_id, hook = store.values[STATE_KEY]["query_id"], scoring.hook()
    build = build_job(QualifiedName.parse(f"{scoring.schema}.ANY"), query_id)
    wait_for(lambda: hook.job_status(build), "the build")
    task.on_kill()
    assert hook.job_status(build) == "CANCELLED"
    assert hook.statement(query_id)[0] is Statement.FAILED


def test_the_kill_of_a_deferred_task_logs_the_end_of_the_logs(scoring, task_context, caplog) -> None:
    caplog.set_level("INFO")
    task = slow("trigger_killed", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(task_context("trigger_killed"))
    wait_for(lambda: jobs(scoring, "bad_day_trigger_killed") == {"A1": "RUNNING"}, "RUNNING")
    hook = scoring.hook()
    job = QualifiedName.parse(deferred.value.trigger.job_name)
    wait_for(lambda: "waiting 120.0" in hook.job_logs(job), "its log")
    asyncio.run(deferred.value.trigger.on_kill())
    assert jobs(scoring, "bad_day_trigger_killed") == {"A1": "CANCELLED"}
    assert "waiting 120.0 seconds" in caplog.text
    with pytest.raises(BatchJobCancelledError, match="CANCELLED"):
        resume(task, deferred.value, task_context("trigger_killed"))
