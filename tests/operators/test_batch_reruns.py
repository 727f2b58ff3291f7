"""Runs again, by clears and changes: what becomes of the job that was there, and whose it may be."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_snowml.core.batch_job import MANIFEST_FILE, JobManifest
from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobConflictError,
    BatchJobOwnershipError,
    BatchJobReplacedError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.batch_jobs import input_directory, manifest_of_output, write_manifest
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators import batch_submission
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator


def slow(task_id: str, seconds: float, **arguments: Any) -> SnowMLBatchInferenceOperator:
    return SnowMLBatchInferenceOperator(
        task_id=task_id,
        model_name="SLOW",
        function_name="predict",
        input_query=f"SELECT {seconds}::FLOAT AS F1, 1 AS ID",
        compute_pool="TEST_POOL",
        output_stage_location=f"@ST/{task_id}",
        poll_interval=0.2,
        **arguments,
    )


def jobs(scoring: Any, task_id: str) -> dict[str, str]:
    """The statuses of a task's jobs by attempt."""
    hook = scoring.hook()
    with hook.open_connection():
        found = hook.list_jobs(hook.default_schema(), f"SNOWML_BAD_DAY_{task_id.upper()}_")
    return {name.rsplit("_", 1)[1]: status for name, status in found.items()}


def test_a_finished_task_that_is_cleared_runs_the_next_attempt(scoring, task_context) -> None:
    store = task_context.store()
    first = slow("finished", 0).execute(task_context("finished", store=store))
    second = slow("finished", 0).execute(task_context("finished", store=store, clear_number=1))
    assert (first["attempt"], second["attempt"], second["reused"]) == (1, 2, False)
    assert jobs(scoring, "finished") == {"A1": "DONE", "A2": "DONE"}


def test_of_two_runs_that_replace_each_other_the_first_fails_for_good(scoring, task_context) -> None:
    """Else the retry of each would end the job of the other, and neither would ever be done."""
    name = "replaced"
    first, second = task_context(name, run_id="first"), task_context(name, run_id="second")
    errors: list[BaseException] = []

    def follow() -> None:
        try:
            slow(name, 600, on_conflict="replace").execute(first)
        except BaseException as error:
            errors.append(error)

    follower = threading.Thread(target=follow)
    follower.start()
    while jobs(scoring, name) != {"A1": "RUNNING"}:
        assert follower.is_alive()
        time.sleep(0.2)
    slow(name, 600, on_conflict="replace", wait_for_completion=False).execute(second)
    follower.join()
    (error,) = errors
    assert isinstance(error, BatchJobReplacedError) and "Run second of the same key" in str(error)
    assert isinstance(error, AirflowFailException)  # which Airflow does not retry
    # A retry all the same: of a task whose worker was killed, it would be one.
    with pytest.raises(BatchJobReplacedError, match="run second has replaced"):
        slow(name, 600, on_conflict="replace").execute(first)
    assert jobs(scoring, name)["A2"] in ("PENDING", "RUNNING")
    # Cleared, it comes back; and it is the other one that stays away.
    cleared = task_context(name, run_id="first", clear_number=1)
    assert slow(name, 0, on_conflict="replace").execute(cleared)["attempt"] == 3
    with pytest.raises(BatchJobReplacedError, match="run first has replaced"):
        slow(name, 600, on_conflict="replace").execute(second)
    assert jobs(scoring, name) == {"A1": "CANCELLED", "A2": "CANCELLED", "A3": "DONE"}


def test_what_a_hanging_try_submits_after_a_clear_fails_at_once(
    scoring, task_context, local_snowflake
) -> None:
    hold = local_snowflake.fault("hold", statement=r"^EXECUTE INFERENCE[\s\S]*_HANGING_")
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow("hanging", 600).execute, task_context("hanging"))
        while not any(fault["id"] == hold and fault["held"] for fault in local_snowflake.faults()):
            assert not late.done(), late.exception()
            time.sleep(0.2)
        cleared = slow("hanging", 0).execute(task_context("hanging", clear_number=1))
        local_snowflake.release(hold, "drop")  # the client sends it once more
        with pytest.raises(SnowMLError):
            late.result(120)
    assert cleared["attempt"] == 2
    assert jobs(scoring, "hanging") == {"A1": "FAILED", "A2": "DONE"}


def test_changed_arguments_end_the_old_job_and_run_the_next_attempt(scoring, task_context) -> None:
    context = task_context("changed")
    slow("changed", 600, wait_for_completion=False).execute(context)
    assert slow("changed", 0).execute(context)["attempt"] == 2
    assert jobs(scoring, "changed") == {"A1": "CANCELLED", "A2": "DONE"}


def test_another_tasks_job_under_our_name_is_an_error_that_names_both(scoring, task_context) -> None:
    context = task_context("theirs")
    job = slow("theirs", 600, wait_for_completion=False).execute(context)
    hook = scoring.hook()
    location = StageLocation.parse(job["job_output_location"])
    with hook.open_connection():
        manifest = manifest_of_output(hook, location)
        assert isinstance(manifest, JobManifest)
        base = StageLocation.parse("@ST/theirs", hook.default_schema())
        write_manifest(hook, base, replace(manifest, dag_id="another_dag"))
    with pytest.raises(BatchJobOwnershipError) as caught:
        slow("theirs", 0, on_conflict="replace").execute(task_context("theirs", clear_number=1))
    for owner in ("bad_day.theirs for 2013-06-01", "another_dag.theirs for 2013-06-01"):
        assert owner in str(caught.value)
    assert set(jobs(scoring, "theirs").values()) <= {"PENDING", "RUNNING"}
    content = hook.read_file(input_directory(base, manifest.job_name.rpartition(".")[2]), MANIFEST_FILE)
    assert json.loads(content or b"{}")["dag_id"] == "another_dag"


def test_a_retry_rebuilds_no_image_that_its_first_try_builds(scoring, task_context) -> None:
    """``force_rebuild`` is no other work: the retry follows the statement that builds."""
    context = task_context("rebuilt")
    slow("rebuilt", 1, force_rebuild=True, wait_for_completion=False).execute(context)
    result = slow("rebuilt", 1, force_rebuild=True).execute(context)
    assert result["attempt"] == 1
    assert jobs(scoring, "rebuilt") == {"A1": "DONE"}


def overtaken_at(patch: Any, owner: Any, step: str, other: Any, *, goes_on: bool = True) -> None:
    """Another try, which has looked at the same moment, comes from beginning to end before a step."""
    real = getattr(owner, step)

    def wait_for_the_other(*arguments: Any) -> Any:
        patch.setattr(owner, step, real)
        patch.setattr(batch_submission, "find_attempts", lambda *_: [])
        other()
        return real(*arguments) if goes_on else None

    patch.setattr(owner, step, wait_for_the_other)


@pytest.mark.parametrize("goes_on", [True, False], ids=["before_manifest", "after_manifest"])
def test_of_two_runs_at_the_same_moment_the_first_manifest_gets_the_job(
    scoring, task_context, goes_on
) -> None:
    """Also if the slower one wrote its manifest too, and the faster one's replaced that."""
    name, results = f"overtaken_{goes_on}", []
    faster = slow(name, 600, wait_for_completion=False)
    run_faster = lambda: results.append(faster.execute(task_context(name, run_id="faster")))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        overtaken_at(patch, batch_submission, "claim", run_faster, goes_on=goes_on)
        with pytest.raises(BatchJobConflictError, match="Run faster got job"):
            slow(name, 600).execute(task_context(name, run_id="slower"))
    hook = scoring.hook()
    with hook.open_connection():
        manifest = manifest_of_output(hook, StageLocation.parse(results[0]["job_output_location"]))
        assert manifest is not None and manifest.run_id == "faster"
        assert len(hook.files(StageLocation.parse(manifest.input_location))) == 1
    assert set(jobs(scoring, name)) <= {"A1"}
    faster.on_kill()


def test_a_run_that_comes_between_anothers_manifest_and_its_job_leaves_both_alone(
    scoring, task_context
) -> None:
    def run_late() -> None:
        with pytest.raises(BatchJobConflictError, match="Run first got job"):
            slow("in_between", 600).execute(task_context("in_between", run_id="late"))

    with pytest.MonkeyPatch.context() as patch:
        overtaken_at(patch, SnowMLHook, "submit", run_late)
        result = slow("in_between", 0).execute(task_context("in_between", run_id="first"))
    assert (result["attempt"], result["output_rows"], result["reused"]) == (1, 1, False)
    assert jobs(scoring, "in_between") == {"A1": "DONE"}


def test_a_run_that_comes_too_late_leaves_an_input_that_is_read_in_place_alone(scoring, task_context) -> None:
    hook = scoring.hook()
    with hook.open_connection():
        places = {
            run: StageLocation.parse(f"@ST/of_{run}", hook.default_schema()) for run in ("faster", "slower")
        }
        for place in places.values():
            hook.copy_into_location(place, "SELECT 600::FLOAT AS F1, 1 AS ID")

    def score(run: str) -> Any:
        task = SnowMLBatchInferenceOperator(
            task_id="overtaken_in_place",
            model_name="SLOW",
            input_stage_location=places[run].sql,
            compute_pool="TEST_POOL",
            output_stage_location="@ST/overtaken_in_place",
            wait_for_completion=False,
        )
        task.execute(task_context("overtaken_in_place", run_id=run))
        return task

    tasks: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        overtaken_at(patch, batch_submission, "claim", lambda: tasks.append(score("faster")))
        with pytest.raises(BatchJobConflictError, match="Run faster got job"):
            score("slower")
    assert all(hook.files(place) for place in places.values())
    tasks[0].on_kill()
