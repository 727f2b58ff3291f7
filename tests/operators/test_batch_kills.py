"""Kills and time-outs of the batch operator: what ends with the task, and what is kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferralError, TaskDeferred

from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import Identifier, QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobConflictError,
    BatchJobStartTimeoutError,
    BatchJobTimeoutError,
)
from airflow_provider_snowml.hooks import batch_jobs
from airflow_provider_snowml.hooks.batch_jobs import (
    build_job,
    end_job,
    is_starting,
    kill_job,
    log_tail,
    manifest_of_output,
    write_manifest,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators import batch_submission
from airflow_provider_snowml.operators.batch_submission import STATE_KEY
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

PROGRAM = Path(__file__).with_name("killed_dag.py")
WORKER = Path(__file__).with_name("worker.py")
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


def builds(scoring: Any) -> dict[str, str]:
    """The image builds of the schema."""
    hook = scoring.hook()
    with hook.open_connection():
        return hook.list_jobs(hook.default_schema(), "MODEL_BUILD_")


def start_worker(store: Path, **arguments: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SNOWML_TEST_STORE": str(store)}
    program = [sys.executable, str(WORKER), json.dumps(arguments)]
    return subprocess.Popen(program, env=environment, start_new_session=True)


def kill(worker: subprocess.Popen[bytes]) -> None:
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def jobs(scoring: Any, prefix: str) -> dict[str, str]:
    """The statuses of a task's jobs by attempt."""
    hook = scoring.hook()
    with hook.open_connection():
        found = hook.list_jobs(hook.default_schema(), f"SNOWML_{prefix.upper()}_")
    return {name.rsplit("_", 1)[1]: status for name, status in found.items()}


def printed(scoring: Any, prefix: str) -> str:
    """What a task's first attempt has printed."""
    hook = scoring.hook()
    with hook.open_connection():
        schema = hook.default_schema()
        names = hook.list_jobs(schema, f"SNOWML_{prefix.upper()}_")
        return "".join(
            log_tail(hook, QualifiedName(schema.database, schema.schema, Identifier(name))) for name in names
        )


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
        wait_for(lambda: "waiting 120.0 seconds" in printed(scoring, "terminated_score"), "the job at work")
        os.kill(worker.pid, signal.SIGTERM)
        # As much longer as everything takes on a machine that has more to do than cores.
        time.sleep(SUPERVISOR_GRACE * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
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


@pytest.fixture
def bad_day(local_snowflake):
    """The local Snowflake; what is left of its faults is forgotten."""
    yield local_snowflake
    local_snowflake.clear_faults()


def test_a_worker_that_is_killed_while_the_image_is_built_leaves_statement_and_build_to_the_retry(
    scoring, task_context, bad_day, tmp_path
) -> None:
    before = builds(scoring).keys()
    bad_day.fault("slow_job", job="^MODEL_BUILD_", seconds=12)
    arguments = {"task_id": "died_building", "seconds": 0, "schema": scoring.name, "force_rebuild": True}
    worker = start_worker(tmp_path / "store.json", **arguments)
    try:
        wait_for(lambda: "RUNNING" in new_builds(scoring, before).values(), "the build running")
    finally:
        kill(worker)
    assert jobs(scoring, "bad_day_died_building") == {}
    result = slow("died_building", 0, force_rebuild=True).execute(task_context("died_building"))
    assert (result["attempt"], result["output_rows"]) == (1, 1)
    assert jobs(scoring, "bad_day_died_building") == {"A1": "DONE"}
    assert [*new_builds(scoring, before).values()] == ["DONE"]  # one build, and it is the first try's


def new_builds(scoring: Any, before: Any) -> dict[str, str]:
    return {name: status for name, status in builds(scoring).items() if name not in before}


def test_a_lost_reply_to_the_submit_makes_one_job(scoring, task_context, bad_day) -> None:
    """The connector asks again, and is told what came of the first time."""
    bad_day.fault("drop_reply", statement="^EXECUTE INFERENCE JOB SERVICE", times=2)
    result = slow("unanswered", 0).execute(task_context("unanswered"))
    (fault,) = bad_day.faults()
    assert fault["seen"] == 3
    assert (result["attempt"], result["output_rows"]) == (1, 1)
    assert jobs(scoring, "bad_day_unanswered") == {"A1": "DONE"}


def test_a_worker_that_dies_waiting_for_the_reply_to_its_submit_leaves_one_job(
    scoring, task_context, bad_day, tmp_path
) -> None:
    """Nobody has heard of the statement: its job is found by its name."""
    bad_day.fault("drop_reply", statement="^EXECUTE INFERENCE JOB SERVICE", times=1000)
    worker = start_worker(tmp_path / "store.json", task_id="unheard", seconds=5, schema=scoring.name)
    try:
        wait_for(lambda: bad_day.faults()[0]["seen"], "the submit")
    finally:
        kill(worker)
    bad_day.clear_faults()
    assert "query_id" not in (tmp_path / "store.json").read_text()
    result = slow("unheard", 5).execute(task_context("unheard"))
    assert (result["attempt"], result["output_rows"]) == (1, 1)
    assert jobs(scoring, "bad_day_unheard") == {"A1": "DONE"}


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


def test_a_deferred_task_has_its_execution_timeout_from_the_start_of_its_try(scoring, task_context) -> None:
    """Airflow 3.3 does not watch it meanwhile, and begins to count anew after the wait."""
    begun = datetime.now(UTC) - timedelta(seconds=100)
    context = task_context("late_try", started=begun)
    with pytest.raises(TaskDeferred) as deferred:
        slow("late_try", deferrable=True, execution_timeout=timedelta(seconds=1000)).execute(context)
    assert deferred.value.trigger.limits["deadline"] == (begun + timedelta(seconds=1000)).timestamp()
    wait_for(lambda: jobs(scoring, "bad_day_late_try") == {"A1": "RUNNING"}, "RUNNING")
    task = slow("late_try", deferrable=True, execution_timeout=timedelta(seconds=101))
    with pytest.raises(BatchJobTimeoutError, match=r"(?s)longer than allowed"):
        finish(task, context)
    wait_for(lambda: jobs(scoring, "bad_day_late_try") == {"A1": "CANCELLED"}, "CANCELLED")


def test_a_job_has_its_time_from_its_submit_and_a_retry_gives_it_no_more(scoring, task_context) -> None:
    context = task_context("no_more")
    submitted = slow("no_more", wait_for_completion=False).execute(context)
    wait_for(lambda: jobs(scoring, "bad_day_no_more") == {"A1": "RUNNING"}, "RUNNING")
    hook = scoring.hook()
    with hook.open_connection():
        manifest = manifest_of_output(hook, StageLocation.parse(submitted["job_output_location"]))
        base = StageLocation.parse("@ST/no_more", hook.default_schema())
        an_hour_ago = replace(manifest, submitted_at=manifest.submitted_at - 3600)
        write_manifest(hook, base, an_hour_ago)
    started_in_time = slow("no_more", start_timeout=60, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        started_in_time.execute(context)
    assert deferred.value.trigger.limits["deadline"] == an_hour_ago.submitted_at + 24 * 3600
    with pytest.raises(BatchJobTimeoutError, match="longer than allowed"):
        slow("no_more", timeout=3000).execute(context)
    wait_for(lambda: jobs(scoring, "bad_day_no_more") == {"A1": "CANCELLED"}, "CANCELLED")


def test_a_deferred_job_that_no_triggerer_looked_at_in_time_is_cancelled(scoring, task_context) -> None:
    """Airflow then wakes the task to have it fail. Any other failure of the trigger leaves the job alone."""
    context = task_context("unlooked")
    task = slow("unlooked", deferrable=True)
    with pytest.raises(TaskDeferred):
        task.execute(context)
    wait_for(lambda: jobs(scoring, "bad_day_unlooked") == {"A1": "RUNNING"}, "RUNNING")
    with pytest.raises(TaskDeferralError, match="TRIGGER_FAILURE"):
        task.resume_execution(TRIGGER_FAIL_REPR, {"error": TriggerFailureReason.TRIGGER_FAILURE}, context)
    assert jobs(scoring, "bad_day_unlooked") == {"A1": "RUNNING"}
    with pytest.raises(BatchJobTimeoutError, match="no triggerer looked at it"):
        task.resume_execution(TRIGGER_FAIL_REPR, {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context)
    assert jobs(scoring, "bad_day_unlooked") == {"A1": "CANCELLED"}


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


def lose_cancels(patch: Any, seconds: float = 1000) -> None:
    """For a while, asking to cancel a statement or its build does nothing."""
    until, real, real_build = time.monotonic() + seconds, SnowMLHook.cancel_statement, batch_jobs.cancel_build
    late = lambda: time.monotonic() > until  # noqa: E731
    patch.setattr(SnowMLHook, "cancel_statement", lambda *it: real(*it) if late() else None)
    patch.setattr(batch_jobs, "cancel_build", lambda *it: real_build(*it) if late() else [])


def test_the_end_of_a_job_is_also_that_of_the_statement_that_may_still_make_it(
    scoring, task_context, bad_day, monkeypatch
) -> None:
    """A statement that does not heed its cancellation makes the job in the end, which is cancelled then."""
    bad_day.fault("slow_job", job="^MODEL_BUILD_", seconds=10)
    store = task_context.store()
    task = slow("unheeded", force_rebuild=True, wait_for_completion=False)
    job = QualifiedName.parse(task.execute(task_context("unheeded", store=store))["job_name"])
    query_id, hook = store.values[STATE_KEY]["query_id"], scoring.hook()
    lose_cancels(monkeypatch)
    with pytest.raises(BatchJobConflictError, match=r"The statement that starts job .* runs"):
        end_job(hook, job, query_id, wait=0.001)
    end_job(hook, job, query_id)
    assert hook.statement(query_id)[0] is Statement.SUCCEEDED
    assert jobs(scoring, "bad_day_unheeded") == {"A1": "CANCELLED"}


def test_a_statement_that_is_not_listed_yet_is_cancelled_and_attached_to(
    scoring, task_context, sleeping_pool, monkeypatch
) -> None:
    store = task_context.store()
    context = task_context("unlisted", store=store)
    arguments = {"compute_pool": sleeping_pool, "force_rebuild": True}
    task = slow("unlisted", wait_for_completion=False, **arguments)
    task.execute(context)
    query_id, hook = store.values[STATE_KEY]["query_id"], scoring.hook()
    with monkeypatch.context() as patch:
        patch.setattr(SnowMLHook, "statement", lambda *_: (Statement.UNKNOWN, ""))
        assert slow("unlisted", plan_only=True, **arguments).execute(context)["action"] == "attach"
        patch.setattr(batch_jobs, "_UNLISTED", 0)
        assert slow("unlisted", plan_only=True, **arguments).execute(context)["action"] == "resubmit"
        task.on_kill()
    wait_for(lambda: hook.statement(query_id)[0] is Statement.FAILED, "the statement's end")


def test_a_statement_that_nobody_knows_is_starting_for_a_while() -> None:
    now = time.time()
    assert is_starting(Statement.UNKNOWN, now) and is_starting(Statement.RUNNING, None)
    assert not is_starting(Statement.UNKNOWN, now - 60) and not is_starting(Statement.UNKNOWN, None)
    assert not is_starting(Statement.FAILED, now) and not is_starting(Statement.SUCCEEDED, now)


def test_a_time_out_whose_cancellation_fails_stays_the_error(scoring, task_context, monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(SnowMLHook, "cancel_job", refuse)
        patch.setattr(SnowMLHook, "cancel_statement", refuse)
        with pytest.raises(BatchJobTimeoutError, match="could not be cancelled and may still run: not today"):
            slow("unstoppable", timeout=1).execute(task_context("unstoppable"))
    hook = scoring.hook()
    with hook.open_connection():
        location = StageLocation.parse(
            f"@ST/unstoppable/{batch_submission.owner_of(task_context('unstoppable')).job_name(1)}/",
            hook.default_schema(),
        )
        manifest = manifest_of_output(hook, location)
    kill_job(hook, QualifiedName.parse(manifest.job_name), manifest.query_id)


def test_a_time_out_waits_for_the_end_so_that_a_retry_starts_anew(
    scoring, task_context, sleeping_pool, monkeypatch
) -> None:
    store = task_context.store()
    task = slow("slow_end", compute_pool=sleeping_pool, force_rebuild=True, start_timeout=1)
    lose_cancels(monkeypatch, 15)
    with pytest.raises(BatchJobStartTimeoutError) as caught:
        task.execute(task_context("slow_end", store=store))
    assert "could not be cancelled" not in str(caught.value)
    assert scoring.hook().statement(store.values[STATE_KEY]["query_id"])[0] is Statement.FAILED


def test_a_kill_while_a_retry_looks_ends_the_job_that_it_finds(scoring, task_context, monkeypatch) -> None:
    first = slow("looked_at", wait_for_completion=False).execute(task_context("looked_at"))
    hook = scoring.hook()
    with hook.open_connection():
        base = StageLocation.parse("@ST/looked_at", hook.default_schema())
        manifest = manifest_of_output(hook, StageLocation.parse(first["job_output_location"]))
        write_manifest(hook, base, replace(manifest, query_id=None))
    wait_for(lambda: jobs(scoring, "bad_day_looked_at"), "the job")
    task, real = slow("looked_at", wait_for_completion=False), batch_submission.find_attempts

    def look_and_be_killed(*arguments: Any) -> Any:
        found = real(*arguments)
        task.on_kill()
        return found

    monkeypatch.setattr(batch_submission, "find_attempts", look_and_be_killed)
    with pytest.raises(BatchJobCancelledError):
        task.execute(task_context("looked_at"))
    wait_for(lambda: jobs(scoring, "bad_day_looked_at") == {"A1": "CANCELLED"}, "CANCELLED")
