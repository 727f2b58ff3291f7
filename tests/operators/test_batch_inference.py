"""The batch operator against a running Snowflake: the good day and the bad one."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from airflow_provider_snowml.core.batch_job import SUCCESS_FILE
from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobConflictError,
    BatchJobFailedError,
    BatchJobOwnershipError,
    BatchJobStartTimeoutError,
    BatchJobTimeoutError,
    BatchOutputIncompleteError,
    ComputePoolNotFoundError,
    InputColumnsError,
    InvalidArgumentError,
    InvalidNameError,
    ModelFunctionNotFoundError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    PersonalDatabaseError,
    RowCountError,
    StageNotFoundError,
    StageNotInternalError,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators import batch_inference, batch_submission
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLLoadPredictionsOperator,
)


def batch(task_id: str, **arguments: Any) -> SnowMLBatchInferenceOperator:
    defaults: dict[str, Any] = {
        "model_name": "M",
        "function_name": "predict",
        "input_table": "X",
        "compute_pool": "TEST_POOL",
        "output_stage_location": f"@ST/{task_id}",
        "poll_interval": 0.2,
    }
    if arguments.keys() & {"input_query", "input_stage_location"}:
        del defaults["input_table"]
    return SnowMLBatchInferenceOperator(task_id=task_id, **{**defaults, **arguments})


def slow(task_id: str, seconds: float, **arguments: Any) -> SnowMLBatchInferenceOperator:
    return batch(
        task_id, model_name="SLOW", input_query=f"SELECT {seconds}::FLOAT AS F1, 1 AS ID", **arguments
    )


def jobs(scoring: Any, task_id: str) -> dict[str, str]:
    """The statuses of a task's jobs by attempt."""
    hook = scoring.hook()
    with hook.open_connection():
        found = hook.list_jobs(hook.default_schema(), f"SNOWML_BAD_DAY_{task_id.upper()}_")
    return {name.rsplit("_", 1)[1]: status for name, status in found.items()}


def wait_for(condition: Any, what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not seen in {seconds} s: {what}"
        time.sleep(0.2)
    return value


def to_the_end(task: Any, deferred: TaskDeferred, context: Any) -> Any:
    """Do what triggerer and worker do, for as often as the task defers."""

    async def events() -> list[Any]:
        return [event.payload async for event in deferred.trigger.run()]

    try:
        return getattr(task, deferred.method_name)(context, asyncio.run(events())[0])
    except TaskDeferred as again:
        return to_the_end(task, again, context)


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_in_a_dag(scoring, run_dag, deferrable) -> None:
    with DAG(f"batch_{deferrable}", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        batch(
            "score",
            output_stage_location=f"@ST/dag_{deferrable}",
            version_name="champion",
            deferrable=deferrable,
            num_workers="1",
        )
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    xcom = xcoms["score"]
    assert xcom["job_name"].startswith(f"{scoring.schema}.SNOWML_BATCH_{str(deferrable).upper()}_SCORE_")
    job = xcom["job_name"].rsplit(".", 1)[1]
    assert xcom.pop("duration_s") > 0
    assert xcom == {
        "job_name": f"{scoring.schema}.{job}",
        "job_output_location": f"@{scoring.schema}.ST/dag_{deferrable}/{job}/",
        "input_rows": 60,
        "output_rows": 60,
        "model": f"{scoring.schema}.M",
        "version": "V1",
        "status": "DONE",
        "attempt": 1,
        "reused": False,
    }
    files = scoring.hook().files(StageLocation.parse(xcom["job_output_location"]))
    assert any(name.endswith("/_SUCCESS") for name in files)
    assert any(name.endswith(".parquet") for name in files)


def test_input_in_place_and_no_wait(scoring, task_context) -> None:
    hook = scoring.hook()
    with hook.open_connection():
        staged = StageLocation.parse("@ST/handmade", hook.default_schema())
        hook.copy_into_location(staged, "SELECT * FROM X")
    task = batch("in_place", input_stage_location="@ST/handmade/", wait_for_completion=False)
    xcom = task.execute(task_context("in_place"))
    assert "output_rows" not in xcom
    assert xcom["input_rows"] == 60
    wait_for(lambda: jobs(scoring, "in_place") == {"A1": "DONE"}, "DONE")
    again = batch("in_place", input_stage_location="@ST/handmade/").execute(task_context("in_place"))
    assert again["output_rows"] == 60
    assert again["attempt"] == 1


@pytest.mark.parametrize("source", ["input_table", "input_stage_location"])
def test_rows_that_get_lost_are_missed_unless_told_not_to_count(
    scoring, task_context, local_snowflake, source
) -> None:
    hook = scoring.hook()
    with hook.open_connection():
        staged = StageLocation.parse("@ST/to_count", hook.default_schema())
        hook.copy_into_location(staged, "SELECT * FROM X")
    given = {"input_table": "X", "input_stage_location": "@ST/to_count/"}
    local_snowflake.fault("lose_rows", job="COUNTED", times=2)
    try:
        with pytest.raises(BatchOutputIncompleteError, match="of 60 rows"):
            batch("counted", **{source: given[source]}).execute(task_context("counted", run_id=source))
        off = batch("uncounted", **{source: given[source]}, row_count_check="off")
        xcom = off.execute(task_context("uncounted", run_id=source))
    finally:
        local_snowflake.clear_faults()
    assert xcom["status"] == "DONE"
    assert xcom["output_rows"] < 60


def test_a_directory_without_rows_starts_no_job(scoring, task_context) -> None:
    with pytest.raises(RowCountError, match="input_stage_location gives no rows"):
        batch("nothing_staged", input_stage_location="@ST/nothing/").execute(task_context("nothing_staged"))
    assert not jobs(scoring, "nothing_staged")


def test_a_retry_attaches_even_when_its_state_is_lost(scoring, task_context) -> None:
    first = slow("retry", 2, wait_for_completion=False).execute(task_context("retry"))
    second = slow("retry", 2).execute(task_context("retry"))
    assert second["job_name"] == first["job_name"]
    assert second["output_rows"] == 1
    assert jobs(scoring, "retry") == {"A1": "DONE"}


def test_a_crash_before_the_submit_resubmits_the_same_input(scoring, task_context, monkeypatch) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: Any) -> Any:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(batch_submission, "_submit", crash)
        batch("before", input_query="SELECT * FROM X LIMIT 7").execute(task_context("before"))
    assert jobs(scoring, "before") == {}
    result = batch("before", input_query="SELECT * FROM X LIMIT 7").execute(task_context("before"))
    assert (result["attempt"], result["input_rows"], result["output_rows"]) == (1, 7, 7)


def test_a_second_statement_of_one_name_leads_to_the_one_job(scoring, task_context, monkeypatch) -> None:
    """As after a lost reply: no query id is known, and the job is not there yet."""
    slow("twice", 3, wait_for_completion=False).execute(task_context("twice"))
    real = batch_submission.find_attempts

    def too_early(*arguments: Any) -> Any:
        return [
            replace(found, status=None, manifest=replace(found.manifest, query_id=None))
            for found in real(*arguments)
        ]

    monkeypatch.setattr(batch_submission, "find_attempts", too_early)
    result = slow("twice", 3).execute(task_context("twice"))
    assert (result["attempt"], result["output_rows"]) == (1, 1)
    assert jobs(scoring, "twice") == {"A1": "DONE"}


def test_a_running_statement_counts_as_a_job(scoring, task_context, monkeypatch) -> None:
    """As while the image is built: there is no job yet, and the statement runs."""
    slow("building", 0).execute(task_context("building"))
    real = batch_submission.find_attempts

    def no_job(*arguments: Any) -> Any:
        return [replace(found, status=None, has_output=False) for found in real(*arguments)]

    monkeypatch.setattr(batch_submission, "find_attempts", no_job)
    monkeypatch.setattr(SnowMLHook, "statement", lambda *_: (Statement.RUNNING, ""))
    with pytest.raises(BatchJobConflictError):
        slow("building", 0).execute(task_context("building", run_id="other"))
    assert slow("building", 0).execute(task_context("building"))["attempt"] == 1


def test_a_retry_keeps_the_version_that_the_crashed_try_resolved(scoring, task_context) -> None:
    hook = scoring.hook()
    batch("promoted", wait_for_completion=False).execute(task_context("promoted"))
    hook.rows(f"ALTER MODEL {scoring.schema}.M SET DEFAULT_VERSION = V2")
    try:
        assert batch("promoted").execute(task_context("promoted"))["version"] == "V1"
        cleared = batch("promoted").execute(task_context("promoted", clear_number=1))
    finally:
        hook.rows(f"ALTER MODEL {scoring.schema}.M SET DEFAULT_VERSION = V1")
    assert (cleared["version"], cleared["attempt"]) == ("V2", 2)


def test_a_cleared_task_ends_the_old_job_and_runs_the_next_attempt(scoring, task_context) -> None:
    slow("cleared", 60, wait_for_completion=False).execute(task_context("cleared"))
    result = slow("cleared", 0).execute(task_context("cleared", clear_number=1))
    assert result["attempt"] == 2
    assert jobs(scoring, "cleared") == {"A1": "CANCELLED", "A2": "DONE"}


def test_another_run_of_the_key_waits_its_turn_or_replaces(scoring, task_context) -> None:
    slow("rerun", 60, wait_for_completion=False).execute(task_context("rerun"))
    other = task_context("rerun", run_id="backfill__2013-06-01")
    with pytest.raises(BatchJobConflictError, match="scheduled__2013-06-01"):
        slow("rerun", 0).execute(other)
    assert set(jobs(scoring, "rerun")) == {"A1"}
    result = slow("rerun", 0, on_conflict="replace").execute(other)
    assert result["attempt"] == 2
    assert jobs(scoring, "rerun") == {"A1": "CANCELLED", "A2": "DONE"}
    # Finished work of another run is done again, unless its result may be reused.
    third = task_context("rerun", run_id="manual__1")
    reused = slow("rerun", 0, on_rerun="reuse").execute(third)
    assert (reused["attempt"], reused["reused"], reused["duration_s"]) == (2, True, None)
    # A new name for the state of the rows makes it other work.
    newer = slow("rerun", 0, on_rerun="reuse", input_version="snapshot 2").execute(third)
    assert (newer["attempt"], newer["reused"]) == (3, False)
    assert slow("rerun", 0).execute(third)["attempt"] == 4


def test_a_run_that_waits_for_another_runs_job_of_its_key(scoring, task_context) -> None:
    slow("turn", 3, wait_for_completion=False).execute(task_context("turn"))
    other = task_context("turn", run_id="backfill__2013-06-01")
    result = slow("turn", 0, on_conflict="wait").execute(other)
    assert result["attempt"] == 2
    assert jobs(scoring, "turn") == {"A1": "DONE", "A2": "DONE"}


def test_a_deferred_run_waits_for_another_runs_job_of_its_key(scoring, task_context) -> None:
    slow("turns", 60, wait_for_completion=False).execute(task_context("turns"))
    other = task_context("turns", run_id="backfill__2013-06-01")
    task = slow("turns", 0, on_conflict="wait", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(other)
    trigger = deferred.value.trigger
    asyncio.run(trigger.on_kill())  # the job is the other run's
    assert set(jobs(scoring, "turns").values()) <= {"PENDING", "RUNNING"}
    hook = scoring.hook()
    hook.cancel_job(QualifiedName.parse(trigger.job_name))
    assert to_the_end(task, deferred.value, other)["attempt"] == 2
    assert jobs(scoring, "turns") == {"A1": "CANCELLED", "A2": "DONE"}


def test_a_strangers_job_under_our_name_is_left_alone(scoring, task_context) -> None:
    job = slow("stranger", 600, wait_for_completion=False).execute(task_context("stranger"))["job_name"]
    hook, name = scoring.hook(), QualifiedName.parse(job)
    while hook.job_status(name) is None:
        time.sleep(0.2)
    hook.rows(f"REMOVE @{scoring.schema}.ST/stranger_snowml_input/{name.name.name}/manifest.json")
    with pytest.raises(BatchJobOwnershipError, match="no manifest"):
        slow("stranger", 0).execute(task_context("stranger", run_id="other"))
    assert jobs(scoring, "stranger")["A1"] in ("PENDING", "RUNNING")
    hook.cancel_job(name)


def test_another_output_location_is_the_next_attempt_once_the_job_has_ended(scoring, task_context) -> None:
    store = task_context.store()
    slow("moved", 0, output_stage_location="@ST/moved_from").execute(task_context("moved", store=store))
    result = slow("moved", 0, output_stage_location="@ST/moved_to").execute(
        task_context("moved", store=store)
    )
    assert (result["attempt"], result["status"]) == (2, "DONE")
    assert jobs(scoring, "moved") == {"A1": "DONE", "A2": "DONE"}


def test_a_backfill_is_warned_of_a_version_that_may_move(scoring, task_context, caplog) -> None:
    for reference, warns in (("champion", True), ("V1", False)):
        caplog.clear()
        context = task_context("warned")
        context["dag_run"].run_type = "backfill"
        batch("warned", version_name=reference, plan_only=True).execute(context)
        assert ("pin one" in caplog.text) is warns


def test_a_failed_job_fails_the_task_with_its_logs_and_a_retry_is_the_next_attempt(
    scoring, task_context
) -> None:
    with pytest.raises(BatchJobFailedError, match=r"(?s)FAILED.*the model broke on purpose"):
        slow("broken", -1).execute(task_context("broken"))
    with pytest.raises(BatchJobFailedError):
        slow("broken", -1).execute(task_context("broken"))
    assert jobs(scoring, "broken") == {"A1": "FAILED", "A2": "FAILED"}


def test_a_kill_cancels_this_job_and_keeps_it(scoring, task_context) -> None:
    task = slow("kill", 60, wait_for_completion=False)
    task.execute(task_context("kill"))
    task.on_kill()
    wait_for(lambda: jobs(scoring, "kill") == {"A1": "CANCELLED"}, "CANCELLED")


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_kill_while_the_statement_is_sent_ends_the_job(
    scoring, task_context, monkeypatch, deferrable
) -> None:
    name = f"killed_late_{deferrable}"
    task = slow(name, 60, deferrable=deferrable)
    real = SnowMLHook.submit

    def killed(self: SnowMLHook, sql: str) -> str:
        task.on_kill()  # it finds nothing to end yet
        return real(self, sql)

    monkeypatch.setattr(SnowMLHook, "submit", killed)
    with pytest.raises(BatchJobCancelledError):
        task.execute(task_context(name))
    wait_for(lambda: jobs(scoring, name) in ({"A1": "CANCELLED"}, {}), "no live job")


def test_a_kill_before_the_statement_is_sent_sends_none(scoring, task_context, monkeypatch) -> None:
    task = slow("killed_early", 60)
    real = SnowMLHook.copy_into_location

    def killed(*arguments: Any) -> int:
        task.on_kill()
        return real(*arguments)

    monkeypatch.setattr(SnowMLHook, "copy_into_location", killed)
    with pytest.raises(BatchJobCancelledError, match="before it submitted"):
        task.execute(task_context("killed_early"))
    assert jobs(scoring, "killed_early") == {}


def test_a_kill_ends_the_wait(scoring, task_context) -> None:
    task, context = slow("waiting", 60), task_context("waiting")
    threading.Thread(
        target=lambda: (wait_for(lambda: jobs(scoring, "waiting"), "the job"), task.on_kill())
    ).start()
    with pytest.raises(BatchJobCancelledError):
        task.execute(context)
    wait_for(lambda: jobs(scoring, "waiting") == {"A1": "CANCELLED"}, "CANCELLED")
    assert slow("waiting", 0).execute(context)["attempt"] == 2


def test_rows_that_are_missing_fail_the_task_and_a_retry_does_it_again(scoring, task_context) -> None:
    context = task_context("partial")
    done = batch("partial").execute(context)
    location = StageLocation.parse(done["job_output_location"])
    hook = scoring.hook()
    with hook.open_connection():
        for name in hook.files(location):
            if name.endswith(".parquet"):
                hook.rows(f"REMOVE '@{scoring.schema}.ST/{name}'")
        hook.copy_into_location(location / "part", "SELECT * FROM X LIMIT 7")
    with pytest.raises(BatchOutputIncompleteError, match="of 60 rows 7 came out"):
        batch("partial").execute(context)
    again = batch("partial").execute(context)
    assert (again["attempt"], again["output_rows"]) == (2, 60)


def test_done_without_success_fails_the_task_and_a_retry_does_it_again(
    scoring, task_context, monkeypatch
) -> None:
    monkeypatch.setattr(batch_inference, "GRACE", 0.5)
    context = task_context("unmarked")
    done = batch("unmarked").execute(context)
    scoring.hook().rows(f"REMOVE '{done['job_output_location']}_SUCCESS'")
    with pytest.raises(BatchOutputIncompleteError, match="DONE but wrote no _SUCCESS"):
        batch("unmarked").execute(context)
    assert batch("unmarked").execute(context)["attempt"] == 2


def test_a_job_that_somebody_cancels_fails_the_task(scoring, task_context) -> None:
    context = task_context("cancelled")

    def cancel() -> None:
        wait_for(lambda: jobs(scoring, "cancelled") == {"A1": "RUNNING"}, "RUNNING")
        hook = scoring.hook()
        with hook.open_connection():
            (name,) = hook.list_jobs(hook.default_schema(), "SNOWML_BAD_DAY_CANCELLED_")
            hook.cancel_job(QualifiedName.parse(name, hook.default_schema()))

    threading.Thread(target=cancel).start()
    with pytest.raises(BatchJobCancelledError, match="CANCELL"):
        slow("cancelled", 60).execute(context)


def test_timeouts_cancel_the_job(scoring, task_context) -> None:
    with pytest.raises(BatchJobTimeoutError, match="longer than allowed") as caught:
        slow("late", 60, timeout=3).execute(task_context("late"))
    assert not isinstance(caught.value, BatchJobStartTimeoutError)
    wait_for(lambda: jobs(scoring, "late") == {"A1": "CANCELLED"}, "CANCELLED")


def test_a_job_that_never_starts_is_cancelled(scoring, task_context) -> None:
    hook = scoring.hook()
    hook.run(
        "CREATE COMPUTE POOL IF NOT EXISTS SLEEPING_POOL MIN_NODES = 1 MAX_NODES = 1 "
        "INSTANCE_FAMILY = CPU_X64_XS AUTO_RESUME = FALSE INITIALLY_SUSPENDED = TRUE"
    )
    batch("built").execute(task_context("built"))  # else it would be the image that is not built in time
    with pytest.raises(BatchJobStartTimeoutError, match="did not start in time"):
        batch("stuck", compute_pool="SLEEPING_POOL", start_timeout=2).execute(task_context("stuck"))
    wait_for(lambda: jobs(scoring, "stuck") == {"A1": "CANCELLED"}, "CANCELLED")


def test_an_empty_input_starts_no_job(scoring, task_context) -> None:
    empty = {"input_query": "SELECT * FROM X WHERE FALSE"}
    with pytest.raises(RowCountError, match="no rows"):
        batch("empty", **empty).execute(task_context("empty"))
    with pytest.raises(AirflowSkipException):
        batch("empty", on_empty="skip", **empty).execute(task_context("empty"))
    assert jobs(scoring, "empty") == {}


def test_an_empty_input_that_replaces_empties_the_slice_when_loaded(scoring, task_context) -> None:
    def load(result: dict[str, Any]) -> dict[str, Any]:
        return SnowMLLoadPredictionsOperator(
            task_id="load",
            job_output_location=result["job_output_location"],
            output_table="SCORED_DAYS",
            replace_column="DAY",
            replace_value="2013-06-01",
            expected_rows=result["output_rows"],
        ).execute(task_context("load"))

    day = "SELECT * EXCLUDE DAY FROM X WHERE DAY = '2013-06-01'"
    load(batch("emptied", input_query=day).execute(task_context("emptied")))
    assert scoring.hook().value("SELECT COUNT(*) FROM SCORED_DAYS") == 30

    none = batch("emptied", input_query=f"{day} AND FALSE", on_empty="replace")
    context = task_context("emptied", clear_number=1)
    first = none.execute(context)
    assert (first["job_name"], first["status"], first["output_rows"], first["attempt"]) == (
        None,
        "DONE",
        0,
        2,
    )
    again = none.execute(context)
    assert (again["attempt"], again["output_rows"]) == (2, 0)
    assert load(again)["rows"] == 0
    assert scoring.hook().value("SELECT COUNT(*) FROM SCORED_DAYS") == 0
    assert jobs(scoring, "emptied") == {"A1": "DONE"}


def test_an_empty_result_that_a_crash_kept_from_its_success_file_is_finished(
    scoring, task_context, monkeypatch
) -> None:
    task = batch("half_empty", input_query="SELECT * FROM X WHERE FALSE", on_empty="replace")
    context, real = task_context("half_empty"), SnowMLHook.write_file

    def crash(hook: SnowMLHook, location: StageLocation, name: str, *arguments: Any, **options: Any) -> Any:
        if name == SUCCESS_FILE:
            raise KeyboardInterrupt
        return real(hook, location, name, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SnowMLHook, "write_file", crash)
        with pytest.raises(KeyboardInterrupt):
            task.execute(context)
    result = task.execute(context)
    assert (result["job_name"], result["attempt"], result["output_rows"]) == (None, 1, 0)
    assert jobs(scoring, "half_empty") == {}


def test_a_plan_starts_nothing(scoring, task_context) -> None:
    plan = batch("planned", plan_only=True, replicas=1).execute(task_context("planned"))
    assert (plan["action"], plan["attempt"], plan["version"], plan["input_rows"]) == ("submit", 1, "V1", 60)
    assert plan["statement"].startswith("EXECUTE INFERENCE JOB SERVICE\nIN COMPUTE POOL TEST_POOL")
    assert plan["job_name"] in plan["statement"] and plan["input_location"] in plan["statement"]
    hook = scoring.hook()
    with hook.open_connection():
        assert hook.files(StageLocation.parse("@ST/planned", hook.default_schema())) == []
    assert jobs(scoring, "planned") == {}
    with pytest.raises(ComputePoolNotFoundError):
        batch("planned", plan_only=True, compute_pool="NO_POOL").execute(task_context("planned"))


def test_a_statement_whose_id_was_never_noted_is_found(scoring) -> None:
    hook = scoring.hook()
    with hook.open_connection():
        text = "SELECT COUNT(*) /* NAME = A1\nASYNC */ FROM TABLE(GENERATOR(ROWCOUNT => 1)) WHERE "
        query_id = hook.submit(text + "SYSTEM$WAIT(60) IS NOT NULL")
        assert hook.find_running_statement("SELECT COUNT(*)", "NAME = A1\nASYNC") == query_id
        assert hook.find_running_statement("SELECT COUNT(*)", "NAME = A2\nASYNC") is None
        hook.cancel_statement(query_id)


BAD = {
    "no identifier": ({"model_name": "M; DROP TABLE X"}, InvalidNameError, "no valid model name"),
    "personal database": ({"model_name": "USER$ME.PUBLIC.M"}, PersonalDatabaseError, "personal database"),
    "no input": ({"input_table": None}, InvalidArgumentError, "got none of them"),
    "two inputs": (
        {"input_table": "X", "input_query": "SELECT 1"},
        InvalidArgumentError,
        "input_table and input_query",
    ),
    "model": ({"model_name": "NOPE"}, ModelNotFoundError, r"no model .*NOPE.* has: \w"),
    "version": ({"version_name": "V9"}, ModelVersionNotFoundError, r"V1 \(.*CHAMPION.*V2"),
    "function": ({"function_name": "nope"}, ModelFunctionNotFoundError, "There are: .*predict_proba"),
    "ambiguous function": ({"function_name": None}, ModelFunctionNotFoundError, "name one of them"),
    "column": ({"input_query": "SELECT F1 FROM X"}, InputColumnsError, "wants F2, which input_query lacks"),
    "stage": ({"output_stage_location": "@NOPE/x"}, StageNotFoundError, r"no stage .*NOPE.* has: \w"),
    "external stage": ({"output_stage_location": "@BUCKET/x"}, StageNotInternalError, "is EXTERNAL"),
    "stage root": ({"output_stage_location": "@ST"}, InvalidNameError, "root of a stage"),
    "no stage": ({"output_stage_location": "ST/x"}, InvalidNameError, "no valid output_stage_location"),
    "pool": ({"compute_pool": "NOPE"}, ComputePoolNotFoundError, "There are: .*TEST_POOL"),
    "input in output": (
        {"input_stage_location": "@ST/bad/x", "output_stage_location": "@ST/bad"},
        InvalidArgumentError,
        "lies in output_stage_location",
    ),
    "image repository": ({"image_repo": "a b"}, InvalidNameError, "no valid image_repo"),
    "number": ({"replicas": "many"}, InvalidArgumentError, "replicas is 'many'"),
    "save_mode": ({"save_mode": "append"}, InvalidArgumentError, "'error', 'overwrite'"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_before_anything_is_made(
    scoring, task_context, arguments, error, message
) -> None:
    hook = scoring.hook()
    with hook.open_connection():
        root = StageLocation(QualifiedName.parse("ST", hook.default_schema()))
        before = (hook.files(root), hook.list_jobs(hook.default_schema()))
        with pytest.raises(error, match=message) as caught:
            batch("bad", **arguments).execute(task_context("bad"))
        assert "retry" in str(caught.value)
        assert (hook.files(root), hook.list_jobs(hook.default_schema())) == before
