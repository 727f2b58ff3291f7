"""Runs again, by clears and changes: what becomes of the job that was there, and whose it may be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_snowml.core.batch_job import MANIFEST_FILE, JobManifest
from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import BatchJobOwnershipError
from airflow_provider_snowml.hooks.batch_jobs import manifest_of_output, write_manifest
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
    content = hook.read_file(
        StageLocation.parse(manifest.input_location.removesuffix("data/")), MANIFEST_FILE
    )
    assert json.loads(content or b"{}")["dag_id"] == "another_dag"


def test_a_retry_rebuilds_no_image_that_its_first_try_builds(scoring, task_context) -> None:
    """``force_rebuild`` is no other work: the retry follows the statement that builds."""
    context = task_context("rebuilt")
    slow("rebuilt", 1, force_rebuild=True, wait_for_completion=False).execute(context)
    result = slow("rebuilt", 1, force_rebuild=True).execute(context)
    assert result["attempt"] == 1
    assert jobs(scoring, "rebuilt") == {"A1": "DONE"}
