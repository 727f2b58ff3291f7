"""How a batch task gets its job: resolve and check, look, decide, act."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_snowml.core.batch_job import (
    SUCCESS_FILE,
    Action,
    Attempt,
    Decision,
    JobManifest,
    JobOwner,
    RunRef,
    decide,
)
from airflow_provider_snowml.core.names import Identifier, QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobConflictError,
    BatchJobOwnershipError,
    BatchJobReplacedError,
    ObjectExistsError,
    RowCountError,
)
from airflow_provider_snowml.hooks.batch_jobs import (
    REMOVED_FILE,
    check_is_ours,
    claim,
    data_directory,
    end_job,
    find_attempts,
    find_statement,
    input_directory,
    is_starting,
    job_identifier,
    void_attempt,
    write_manifest,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import is_backfill, owner_of, run_of
from airflow_provider_snowml.operators.batch_work import Work, check_arguments, resolve

if TYPE_CHECKING:
    from airflow_provider_snowml.operators.batch_inference import SnowMLBatchInferenceOperator

log = logging.getLogger(__name__)

STATE_KEY = "snowml_batch_job"


class BatchState:
    """What the task remembers across tries, deferrals and clears, in Airflow's ``task_state_store``."""

    def __init__(self, context: Context) -> None:
        self._store = context["task_state_store"]
        stored = self._store.get(STATE_KEY, {})
        self._values: dict[str, Any] = dict(stored) if isinstance(stored, dict) else {}

    def get(self, key: str) -> Any:
        """A remembered value."""
        return self._values.get(key)

    def update(self, **values: Any) -> None:
        """Remember values."""
        self._values.update(values)
        self._store.set(STATE_KEY, self._values)

    def forget(self, job_name: str) -> None:
        """Forget an earlier job of a name that is free again, as it is after a clean-up."""
        stale = [key for key in ("job_name", "rejected") if self._values.get(key) == job_name]
        if stale:
            self.update(**dict.fromkeys(stale))

    def completed(self, manifest: JobManifest) -> JobManifest:
        """A job's manifest, with the statement that starts it if that is known only here."""
        if manifest.query_id is None and self._values.get("job_name") == manifest.job_name:
            query_id, submitted_at = self._values["query_id"], self._values.get("submitted_at")
            return replace(manifest, query_id=query_id, submitted_at=submitted_at)
        return manifest


@dataclass(frozen=True)
class Situation:
    """What a try finds, and what it decides to do about it.

    :param owner: the piece of work.
    :param run: the run that the try is in.
    :param latest: the latest attempt, ``None`` for none.
    :param work: what the try would submit.
    :param job: the job of the decision.
    :param decision: what to do.
    """

    owner: JobOwner
    run: RunRef
    latest: Attempt | None
    work: Work
    job: QualifiedName
    decision: Decision


@dataclass(frozen=True)
class Submission:
    """The job that a task follows.

    :param manifest: the job.
    :param query_id: the statement that starts it, if known.
    :param is_in_the_way: whether it is another run's, whose end must be awaited before looking again.
    """

    manifest: JobManifest
    query_id: str | None
    is_in_the_way: bool = False


def submit_or_attach(
    task: SnowMLBatchInferenceOperator,
    hook: SnowMLHook,
    context: Context,
    on_live: Callable[[str, str | None, bool], None],
) -> Submission:
    """Get the task its job.

    :param task: the operator, with its arguments rendered.
    :param hook: a hook with an open connection.
    :param context: the try's context.
    :param on_live: told the job's name, its statement if known, and whether that was sent, as soon as a kill
        should cancel it.
    """
    state = BatchState(context)
    found = look(task, hook, context, state)
    work, decision, latest = found.work, found.decision, found.latest
    log.info("%s %s: %s.", decision.action.value.capitalize(), found.job, decision.reason)
    state.update(
        run=asdict(found.run),
        model=work.statement.model.sql,
        reference=task.version_name,
        version=work.ref.version,
    )
    old = latest.manifest if latest is not None else None
    if decision.action is Action.WAIT:
        assert old is not None
        return Submission(old, old.query_id, is_in_the_way=True)
    if decision.action is Action.ATTACH:
        assert old is not None
        on_live(old.job_name, old.query_id, True)
        return Submission(old, old.query_id)
    if decision.action is Action.RESUBMIT:
        assert old is not None
        if old.input_rows == 0:
            return _write_empty_result(hook, old)
        return _submit(hook, work, old, state, on_live)
    if decision.action is Action.REPLACE:
        assert old is not None
        if old.run_id != found.run.run_id:
            # Told before its end: that run must not take it for a failure, come back, and end ours in turn.
            old = old.replaced_by(found.run)
            write_manifest(hook, work.statement.output_location, old)
        job = QualifiedName.parse(old.job_name)
        end_job(hook, job, old.query_id, submitted_at=old.submitted_at)
    elif old is not None and old.run_id == found.run.run_id and _has_not_begun(latest):
        # Another run's is left alone: that run may be about to submit it.
        void_attempt(hook, work.statement.output_location, old)
    state.forget(found.job.sql)
    manifest = _prepare(task, hook, found, old.replaced if old is not None else {})
    if manifest.input_rows == 0:
        return _write_empty_result(hook, manifest)
    return _submit(hook, work, manifest, state, on_live)


def _has_not_begun(attempt: Attempt | None) -> bool:
    return attempt is not None and attempt.status is None and not attempt.has_success


def plan(task: SnowMLBatchInferenceOperator, hook: SnowMLHook, context: Context) -> dict[str, Any]:
    """What :func:`submit_or_attach` would do; it changes nothing."""
    found = look(task, hook, context, BatchState(context))
    work, job = found.work, found.job
    statement = replace(work.statement, name=job)
    rows = None
    if work.query is not None:
        statement = replace(
            statement, input_location=data_directory(work.statement.output_location, job.name.name, found.run)
        )
        rows = int(hook.value(f"SELECT COUNT(*) FROM ({work.query}\n)"))
    elif task.row_count_check == "equal":
        rows = hook.count_parquet_rows(statement.input_location)
    return {
        "action": found.decision.action.value,
        "reason": found.decision.reason,
        "attempt": found.decision.attempt,
        "job_name": job.sql,
        "model": work.statement.model.sql,
        "version": work.ref.version,
        "function": work.statement.function,
        "compute_pool": work.statement.compute_pool.sql,
        "input_rows": rows,
        "input_location": statement.input_location.sql,
        "job_output_location": (work.statement.output_location / job.name.name).sql,
        "statement": statement.sql(),
    }


def look(
    task: SnowMLBatchInferenceOperator, hook: SnowMLHook, context: Context, state: BatchState
) -> Situation:
    """Resolve and check everything, look at what is there, and decide. It changes nothing.

    :raises BatchJobOwnershipError: if somebody else's job bears our name.
    :raises BatchJobConflictError: if another run's job is in the way.
    :raises BatchJobReplacedError: if another run has ended this run's job.
    """
    check_arguments(task)
    owner, run = owner_of(context), run_of(context)
    schema = hook.default_schema()
    output = StageLocation.parse(task.output_stage_location, schema, what="output_stage_location")
    output.beside("")  # the root of a stage has no room for the input
    hook.check_internal_stage(output.stage)

    attempts = find_attempts(hook, owner, schema, output)
    latest = _as_remembered(hook, attempts, state)
    model = QualifiedName.parse(task.model_name, schema, what="model name")
    pinned = _pinned_version(task, model, run, latest, state)
    work = resolve(task, hook, schema, model, output, pinned)
    if is_backfill(context) and work.ref.version != Identifier.parse(task.version_name).name:
        log.warning("Each run of this backfill resolves version %r for itself: pin one.", task.version_name)
    decision = decide(
        owner=owner,
        run=run,
        job_fingerprint=work.fingerprint,
        attempts=attempts,
        on_conflict=task.on_conflict,
        on_rerun=task.on_rerun,
    )
    job = job_identifier(schema, owner.job_name(decision.attempt))
    if decision.action is Action.FOREIGN:
        raise BatchJobOwnershipError(f"Job {job} would be {owner}'s, and is not: {decision.reason}.")
    if decision.action is Action.REPLACED:
        raise BatchJobReplacedError(f"{owner}: {decision.reason}.")
    if decision.action is Action.CONFLICT:
        raise BatchJobConflictError(f"Job {job} of {owner} is in the way: {decision.reason}.")
    return Situation(owner, run, latest, work, job, decision)


def followed(task: SnowMLBatchInferenceOperator, hook: SnowMLHook, context: Context) -> JobManifest | None:
    """The job that an earlier process of this try followed, if it is this run's own."""
    schema = hook.default_schema()
    output = StageLocation.parse(task.output_stage_location, schema, what="output_stage_location")
    attempts = find_attempts(hook, owner_of(context), schema, output)
    latest = _as_remembered(hook, attempts, BatchState(context))
    manifest = latest.manifest if latest is not None else None
    return manifest if manifest is not None and manifest.run == run_of(context) else None


def _as_remembered(hook: SnowMLHook, attempts: list[Attempt], state: BatchState) -> Attempt | None:
    """The latest attempt, with what only this task knows.

    If its statement still runs (an image is built) or was sent just now, the job counts as there; if an
    earlier try found its result incomplete, it counts as failed.
    """
    if not attempts:
        return None
    latest = attempts[-1]
    if latest.manifest is not None:
        name = latest.manifest.job_name
        manifest = state.completed(latest.manifest)
        if latest.status is None and not manifest.query_id and not latest.has_success:
            # Its worker may have died between sending the statement and noting its id.
            manifest = replace(manifest, query_id=find_statement(hook, QualifiedName.parse(name)))
        latest = replace(latest, manifest=manifest)
        query_id = manifest.query_id if latest.status is None else None
        if query_id and is_starting(hook.statement(query_id)[0], manifest.submitted_at):
            latest = replace(latest, status="PENDING")
        elif state.get("rejected") == name:
            latest = replace(latest, status="FAILED")
        attempts[-1] = latest
    return latest


def _pinned_version(
    task: SnowMLBatchInferenceOperator,
    model: QualifiedName,
    run: RunRef,
    latest: Attempt | None,
    state: BatchState,
) -> str | None:
    """The version that an earlier try of this run, since its last clear, resolved the same reference to."""
    manifest = latest.manifest if latest is not None else None
    same = (run, model.sql, task.version_name)
    if manifest is not None and (manifest.run, manifest.model, manifest.version_reference) == same:
        return manifest.version
    wanted = (asdict(run), model.sql, task.version_name)
    if (state.get("run"), state.get("model"), state.get("reference")) == wanted and state.get("version"):
        return str(state.get("version"))
    return None


def _prepare(
    task: SnowMLBatchInferenceOperator, hook: SnowMLHook, found: Situation, replaced: Mapping[str, str]
) -> JobManifest:
    """Write the input, then the manifest: where there is a manifest, the input is complete."""
    work, job = found.work, found.job
    statement = work.statement
    location, rows = statement.input_location, None
    output = statement.output_location / job.name.name
    if work.query is not None:
        beside = input_directory(statement.output_location, job.name.name)
        location = data_directory(statement.output_location, job.name.name, found.run)
        hook.remove_files(location)
        hook.remove_file(beside, REMOVED_FILE)  # a clean-up's, that left the name free
        rows = hook.copy_into_location(location, work.query)
        log.info("Copied %d rows to %s.", rows, location)
    elif task.row_count_check == "equal":
        rows = hook.count_parquet_rows(location)
    if rows == 0 and task.on_empty == "skip":
        raise AirflowSkipException(f"{work.source} gives no rows; no job was started.")
    if rows == 0 and task.on_empty == "fail":
        raise RowCountError(f"{work.source} gives no rows; no job was started. See on_empty.")
    manifest = JobManifest(
        **asdict(found.owner),
        **asdict(found.run),
        attempt=found.decision.attempt,
        job_name=job.sql,
        fingerprint=work.fingerprint,
        model=statement.model.sql,
        version_reference=task.version_name,
        version=work.ref.version,
        function=statement.function,
        input_location=location.sql,
        output_location=output.sql,
        input_rows=rows,
        keeps_row_count=work.function.keeps_row_count and task.row_count_check == "equal",
        submitted_at=time.time(),
        replaced=replaced,
    )
    claim(hook, statement.output_location, manifest)
    return manifest


def _write_empty_result(hook: SnowMLHook, manifest: JobManifest) -> Submission:
    """The result of no rows needs no job: an output directory that is complete and has none."""
    hook.write_file(StageLocation.parse(manifest.output_location), SUCCESS_FILE, b"no rows\n")
    log.info(
        "The input of %s has no rows: an empty result is written, and no job started.", manifest.job_name
    )
    return Submission(manifest, None)


def _submit(
    hook: SnowMLHook,
    work: Work,
    manifest: JobManifest,
    state: BatchState,
    on_live: Callable[[str, str | None, bool], None],
) -> Submission:
    """Send the statement, unless the job turns out to be there already."""
    statement = replace(
        work.statement,
        name=QualifiedName.parse(manifest.job_name),
        input_location=StageLocation.parse(manifest.input_location),
    )
    check_is_ours(hook, manifest)
    on_live(manifest.job_name, None, False)
    submitted_at = time.time()
    try:
        query_id = hook.submit(statement.sql())
    except ObjectExistsError:
        check_is_ours(hook, manifest)
        # Our own earlier submit, whose reply was lost, came through after we had looked.
        log.info("Job %s exists by now; attaching to it.", manifest.job_name)
        return Submission(manifest, None)
    on_live(manifest.job_name, query_id, True)
    state.update(job_name=manifest.job_name, query_id=query_id, submitted_at=submitted_at)
    # For those who don't have this task's state: while the image is built there is no job to be seen.
    sent = replace(manifest, query_id=query_id, submitted_at=submitted_at)
    write_manifest(hook, work.statement.output_location, sent)
    log.info("Submitted job %s (query id %s).", manifest.job_name, query_id)
    return Submission(sent, query_id)
