"""The engine's protections, each of which can be taken out, to see that the matrix notices.

They are applied in the processes that are killed, before these do anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Mutation:
    """A protection that is taken out.

    :param protection: what it protects.
    :param subjects: whose cases show it.
    :param apply: take it out of this process.
    """

    protection: str
    subjects: tuple[str, ...]
    apply: Callable[[], None]


MUTATIONS: dict[str, Mutation] = {}


def mutation(protection: str, *subjects: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(apply: Callable[[], None]) -> Callable[[], None]:
        MUTATIONS[apply.__name__] = Mutation(protection, subjects, apply)
        return apply

    return add


@mutation("a job's name comes from the piece of work, not from the try", "batch")
def name_of_the_work() -> None:
    from airflow_provider_snowml.core.batch_job import JobOwner

    real = JobOwner.stem.fget
    JobOwner.stem = property(lambda owner: f"{real(owner)[:-5]}{os.getpid():05d}"[:56])


@mutation("the same run, clear and work attaches to what is there", "batch", "batch_deferred")
def attach() -> None:
    from airflow_provider_snowml.core import batch_job

    batch_job._same_try = lambda latest: batch_job._next(latest, "mutation")


@mutation("the manifest is written before the job is submitted", "batch")
def manifest_first() -> None:
    from airflow_provider_snowml.operators import batch_submission

    real = batch_submission.write_manifest

    def late(hook: Any, base: Any, manifest: Any) -> None:
        if manifest.query_id is not None:
            real(hook, base, manifest)

    batch_submission.write_manifest = late
    batch_submission.claim = lambda *_: None


@mutation("an input that has no manifest is emptied before it is written anew", "batch")
def emptied_input() -> None:
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    SnowMLHook.remove_files = lambda *_: None


@mutation("a retry keeps the version that the crashed try resolved", "batch")
def pinned_version() -> None:
    from airflow_provider_snowml.operators import batch_submission

    batch_submission._pinned_version = lambda *_: None


@mutation("a statement that was sent, and whose id was not noted, is found", "build_cleared")
def statement_found() -> None:
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    SnowMLHook.find_running_statement = lambda *_, **__: None


@mutation("a statement's id is noted, and one that was not noted is found", "build_cleared")
def statement_known() -> None:
    from airflow_provider_snowml.operators import batch_submission

    statement_found()
    real = batch_submission.write_manifest
    batch_submission.write_manifest = lambda hook, base, it: real(hook, base, replace(it, query_id=None))
    batch_submission.BatchState.completed = lambda _, manifest: manifest


@mutation("a cleared run ends the old attempt first", "batch_cleared")
def old_attempt_ended() -> None:
    from airflow_provider_snowml.operators import batch_submission

    batch_submission.end_job = lambda *_, **__: None


@mutation("as many rows come out as went in", "batch_loses_rows")
def output_rows_counted() -> None:
    from airflow_provider_snowml.core.model_ref import ModelFunction

    ModelFunction.keeps_row_count = property(lambda _: False)


@mutation("a retry does not attach to a result that was found incomplete", "batch_loses_rows")
def rejected_result() -> None:
    from airflow_provider_snowml.operators.batch_submission import BatchState

    real = BatchState.get
    BatchState.get = lambda state, key: None if key == "rejected" else real(state, key)


@mutation("a job that is DONE has succeeded only with _SUCCESS", "batch_late_success", "sensor_late_success")
def success_file() -> None:
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    real = SnowMLHook.observe_job
    SnowMLHook.observe_job = lambda *arguments: replace(real(*arguments), success=True)


@mutation("DELETE and INSERT are one transaction", "load", "run")
def one_transaction() -> None:
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    @contextmanager
    def none(hook: Any) -> Any:
        yield

    SnowMLHook.transaction = none
    transaction_known()


@mutation("what is sent after the transaction was lost does nothing", "load_hangs", "run_hangs")
def transaction_known() -> None:
    from airflow_provider_snowml.hooks import loading

    loading._only_in = lambda _: "TRUE"


@mutation("the slice's old rows are deleted", "load", "run")
def old_rows_deleted() -> None:
    from airflow_provider_snowml.core.partition_load import PartitionLoad

    PartitionLoad.delete = lambda _: "SELECT 1"


@mutation("rows of other slices are refused", "load_foreign", "run_foreign")
def foreign_rows_refused() -> None:
    from airflow_provider_snowml.core.partition_load import PartitionLoad

    PartitionLoad.count_foreign_rows = lambda _: None


@mutation("only an output with _SUCCESS is loaded", "load_unfinished")
def unfinished_output_refused() -> None:
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    real = SnowMLHook.files
    SnowMLHook.files = lambda hook, location, prefix="": [
        *real(hook, location, prefix),
        f"{location.path}_SUCCESS",
    ]


@mutation("a job of another owner is left alone", "batch_foreign")
def owner_checked() -> None:
    from airflow_provider_snowml.core.batch_job import JobOwner

    JobOwner.__eq__ = lambda *_: True
    JobOwner.__hash__ = object.__hash__


@mutation("a live job of another run of the same key is left alone", "batch_conflict", "batch_waits")
def other_run_left_alone() -> None:
    from airflow_provider_snowml.operators import batch_submission

    real = batch_submission.decide
    batch_submission.decide = lambda **given: real(**{**given, "on_conflict": "replace"})


@mutation(
    "a wait bears some looks in a row that fail",
    "batch_poll_errors",
    "batch_poll_errors_deferred",
    "sensor_poll_errors",
    "sensor_poll_errors_deferred",
)
def passing_errors() -> None:
    from airflow_provider_snowml.core.batch_poller import Outcome, Poller, Verdict

    Poller.failed = lambda _, error, __: Verdict(Outcome.POLL_ERRORS, error)


@mutation("too many that wait for the table's lock are waited out", "load_waits")
def lock_waited_for() -> None:
    from airflow_provider_snowml.hooks import loading

    loading.LOCK_RETRIES = 1


@mutation("an image build is cancelled with the statement that waits for it", "build_killed", "build_cleared")
def build_cancelled() -> None:
    from airflow_provider_snowml.hooks import batch_jobs

    batch_jobs.cancel_build = lambda *_: []


@mutation("a kill ends the attempt that it carries, and no newer one", "batch_killed_late")
def kill_of_its_own() -> None:
    from airflow_provider_snowml.triggers import inference

    real = inference.kill_job

    def kill(hook: Any, job: Any, query_id: str | None) -> None:
        newest = sorted(hook.list_jobs(job.parent, job.name.name.rpartition("_A")[0]))[-1]
        real(hook, replace(job, name=replace(job.name, name=newest)), None)

    inference.kill_job = kill


@mutation("whose a removed attempt was is known until all of it is gone", "clean_up")
def removal_noted() -> None:
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    real = SnowMLHook.write_file
    SnowMLHook.write_file = lambda hook, location, name, *content: (
        name == "removed.json" or real(hook, location, name, *content)
    )


@mutation("an empty result is one that is complete", "batch_empty")
def empty_result_marked() -> None:
    from airflow_provider_snowml.operators import batch_submission

    batch_submission._write_empty_result = lambda _, manifest: batch_submission.Submission(manifest, None)


@mutation("a rescheduled sensor remembers what it saw", "sensor_rescheduled_incomplete")
def sensor_memory() -> None:
    from airflow_provider_snowml.sensors.inference import SnowMLBatchSuccessSensor

    SnowMLBatchSuccessSensor._memory = lambda *_: (0, None, None)


# The last one: what it leaves would be found after all others.
@mutation("the tables that rows pass through are temporary and have names of their own", "load", "run")
def temporary_tables() -> None:
    from snowflake.snowpark import DataFrameWriter

    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    real_rows, real_save = SnowMLHook.rows, DataFrameWriter.save_as_table
    SnowMLHook.rows = lambda hook, sql, **options: real_rows(
        hook, sql.replace("CREATE TEMPORARY TABLE", "CREATE TABLE"), **options
    )
    DataFrameWriter.save_as_table = lambda writer, name, **options: real_save(
        writer, name, **{key: value for key, value in options.items() if key != "table_type"}
    )
