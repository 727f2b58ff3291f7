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


@mutation("a version that a crashed try made is known by what lies among its files", "register_taken")
def registration_read() -> None:
    from airflow_provider_snowml.operators import registry

    def same(hook: Any, model: Any, version: str) -> Any:
        noted = hook.noted.get(registry.STATE_KEY, None)
        return registry.Registration.from_dict(noted)

    real = registry.SnowMLRegisterModelOperator._made_before

    def made_before(task: Any, context: Any, hook: Any, *others: Any) -> Any:
        hook.noted = context["task_state_store"]
        return real(task, context, hook, *others)

    registry.read_registration = same
    registry.SnowMLRegisterModelOperator._made_before = made_before


@mutation("what is about to be registered is noted", "register", "register_next")
def registration_noted() -> None:
    from airflow_provider_snowml.operators.registry import SnowMLRegisterModelOperator

    SnowMLRegisterModelOperator._note = lambda *_: None


@mutation("a retry completes comment and metrics", "register", "register_copy")
def registration_completed() -> None:
    from airflow_provider_snowml.hooks import model_registration

    model_registration.complete = lambda *_: None


@mutation("a promotion is recorded before readers see it", "promote_bare")
def promotion_recorded_first() -> None:
    from airflow_provider_snowml.operators import promotion

    real = promotion.promotion_steps

    def late(*arguments: Any, **options: Any) -> Any:
        wanted, steps = real(*arguments, **options)
        return wanted, sorted(steps, key=lambda step: step.what.startswith("record"))

    promotion.promotion_steps = late


@mutation("readers get the new champion before the alias names it", "promote", "roll_back")
def default_first() -> None:
    from airflow_provider_snowml.operators import promotion

    for name in ("promotion_steps", "rollback_steps"):
        real = getattr(promotion, name)

        def late(*arguments: Any, real: Any = real, **options: Any) -> Any:
            made = real(*arguments, **options)
            steps = made[1] if isinstance(made, tuple) else made
            steps = sorted(steps, key=lambda step: step.what.endswith("the default"))
            return (made[0], steps) if isinstance(made, tuple) else steps

        setattr(promotion, name, late)


@mutation("the champion's alias is taken last and given first", "promote")
def alias_moved_at_once() -> None:
    from airflow_provider_snowml.core import promotion

    real = promotion.alias_steps

    def slowly(*arguments: Any) -> Any:
        steps = real(*arguments)
        taken = [step for step in steps if step.what.startswith("take")]
        return [*reversed(taken), *reversed(steps[len(taken) :])]

    promotion.alias_steps = slowly


@mutation("a copy that a crashed try made is known", "promote_copy")
def copy_known() -> None:
    from airflow_provider_snowml.operators import promotion

    real = promotion.copy_version
    promotion.copy_version = lambda hook, source, version, model, there: real(
        hook, source, version, model, there and replace(there, versions=())
    )


@mutation("which version a task takes back is noted", "roll_back")
def rollback_noted() -> None:
    from airflow_provider_snowml.operators.promotion import SnowMLRollbackModelOperator

    SnowMLRollbackModelOperator._unwanted = lambda task, context, model: model.default


@mutation("the champion before the default is kept", "prune")
def former_champion_kept() -> None:
    from airflow_provider_snowml.operators import model_retention

    real = model_retention.versions_in_use
    model_retention.versions_in_use = lambda *arguments: [
        replace(version, previous_champion=None) for version in real(*arguments) or []
    ]


@mutation("what is not there any more is deleted already", "delete_version", "delete_model")
def deleted_already() -> None:
    from airflow_provider_snowml.exceptions import ModelVersionNotFoundError
    from airflow_provider_snowml.operators import model_retention

    real = model_retention.versions_in_use

    def must_be_there(*arguments: Any) -> Any:
        found = real(*arguments)
        if not found:
            raise ModelVersionNotFoundError("It is not there.")
        return found

    model_retention.versions_in_use = must_be_there


@mutation("a run's schema says whose it is", "run_schema")
def run_schema_marked() -> None:
    from airflow_provider_snowml.core.run_schema import RunSchemaMark

    RunSchemaMark.to_comment = lambda _: "mine"


@mutation("only schemas that were made for runs are swept", "run_schemas_swept")
def marked_schemas_only() -> None:
    from airflow_provider_snowml.core.run_schema import RunSchemaMark

    real = RunSchemaMark.from_comment
    RunSchemaMark.from_comment = lambda comment: real(comment) or RunSchemaMark("any", "any")


@mutation("a run's schema that was dropped before is nothing to do", "run_schema_dropped")
def dropped_already() -> None:
    from airflow_provider_snowml.operators import run_schema

    real = run_schema.find_run_schema
    run_schema.find_run_schema = lambda *arguments: real(*arguments) or "gone"


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
