"""Batch inference jobs as a task handles them: found, submitted, watched, ended."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import replace

from airflow_provider_snowml.core.batch_job import (
    ENDED,
    MANIFEST_FILE,
    NOT_STARTED,
    SUCCESS_FILE,
    Attempt,
    JobManifest,
    JobOwner,
    RunRef,
)
from airflow_provider_snowml.core.batch_poller import Observation, Outcome, Poller, Statement, Verdict
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.core.service_deployment import image_build_job
from airflow_provider_snowml.exceptions import (
    BatchJobConflictError,
    ObjectNotFoundError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.job_logs import JobLogs
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import KeptConnection, in_short, log_change

log = logging.getLogger(__name__)

INPUT_SUFFIX = "_snowml_input"
# The manifest of an attempt whose removal has begun: it says whose the rest is.
REMOVED_FILE = "removed.json"
END_TIMEOUT = 300.0
_UNLISTED = 30.0  # how long a statement that was sent may be unknown
_KILL_TIMEOUT = 2.0  # of the five seconds that a killed worker has


def input_directory(job_output: StageLocation, job_name: str) -> StageLocation:
    """Where a job's manifest and copied input are: beside the output base, never under it.

    :param job_output: the output base, ``output_stage_location``.
    :param job_name: the job's bare name.
    """
    return job_output.beside(INPUT_SUFFIX) / job_name


def data_directory(job_output: StageLocation, job_name: str, run: RunRef) -> StageLocation:
    """Where a run copies a job's input: runs that want the same job at once do not write over each other.

    :param job_output: the output base, ``output_stage_location``.
    :param job_name: the job's bare name.
    :param run: the run.
    """
    digest = hashlib.sha256(f"{run.run_id}/{run.clear_number}".encode()).hexdigest()[:8]
    return input_directory(job_output, job_name) / f"data_{digest}"


def own_directory(location: StageLocation, job: QualifiedName) -> StageLocation:
    """A job's own output directory, from that or from the base that it lies in.

    :param location: ``<base>/<job name>/`` or ``<base>/``.
    :param job: the job.
    """
    is_own = location.path.rstrip("/").rpartition("/")[2] == job.name.name
    return location if is_own else location / job.name.name


def manifest_of_output(hook: SnowMLHook, job_output_location: StageLocation) -> JobManifest | None:
    """The manifest of the job that wrote a directory, if this provider made the job."""
    parts = job_output_location.path.rstrip("/").rsplit("/", 1)
    if len(parts) != 2:
        return None
    base = StageLocation(job_output_location.stage, parts[0] + "/")
    content = hook.read_file(input_directory(base, parts[1]), MANIFEST_FILE)
    return JobManifest.from_json(content) if content is not None else None


def find_attempts(
    hook: SnowMLHook, owner: JobOwner, jobs_schema: SchemaName, output_base: StageLocation
) -> list[Attempt]:
    """Find a task's attempts by name: among jobs, output directories and inputs.

    Job metadata lasts 30 days and directories stay, so none of them is enough. The manifest is read for the
    latest attempt only, which is what decides.
    """
    prefix = f"{owner.stem}_A"
    input_base = output_base.beside(INPUT_SUFFIX)
    outputs = [path.removeprefix(output_base.path) for path in hook.files(output_base, prefix)]
    inputs = [path.removeprefix(input_base.path) for path in hook.files(input_base, prefix)]
    # Last: a job that starts while we look must not pass for one that is gone and has left files.
    statuses = hook.list_jobs(jobs_schema, prefix)
    names = {*statuses, *(path.split("/", 1)[0] for path in outputs + inputs)}
    attempts = []
    for name in names:
        number = owner.attempt_of(name)
        if number is not None:
            attempts.append(
                Attempt(
                    number,
                    status=statuses.get(name),
                    has_output=any(path.startswith(name + "/") for path in outputs),
                    has_success=f"{name}/{SUCCESS_FILE}" in outputs,
                )
            )
    attempts.sort(key=lambda attempt: attempt.number)
    if attempts:
        name = owner.job_name(attempts[-1].number)
        # A job's manifest is older than the job, but may be newer than our look at the inputs.
        if f"{name}/{MANIFEST_FILE}" in inputs or name in statuses:
            content = hook.read_file(input_base / name, MANIFEST_FILE)
            manifest = JobManifest.from_json(content) if content is not None else None
            attempts[-1] = replace(attempts[-1], manifest=manifest)
    return attempts


def write_manifest(
    hook: SnowMLHook, output_base: StageLocation, manifest: JobManifest, *, overwrite: bool = True
) -> bool:
    """Write the manifest beside the job's input, and say whether it was written."""
    name = QualifiedName.parse(manifest.job_name).name.name
    content = manifest.to_json().encode()
    return hook.write_file(input_directory(output_base, name), MANIFEST_FILE, content, overwrite=overwrite)


def claim(hook: SnowMLHook, output_base: StageLocation, manifest: JobManifest) -> None:
    """Write a job's first manifest, unless another try has done so since we looked.

    :raises BatchJobConflictError: if one has.
    """
    if write_manifest(hook, output_base, manifest, overwrite=False):
        return
    other = manifest_of_output(hook, StageLocation.parse(manifest.output_location))
    if other is None:  # it is unreadable
        write_manifest(hook, output_base, manifest)
        return
    name = QualifiedName.parse(manifest.job_name).name.name
    ours = StageLocation.parse(manifest.input_location)
    # An input that is read in place is the user's.
    is_copy = input_directory(output_base, name).contains(ours)
    if is_copy and other.input_location != manifest.input_location:
        hook.remove_files(ours)
    raise _taken(other)


def check_is_ours(hook: SnowMLHook, manifest: JobManifest) -> None:
    """Check that no other run has replaced a job's manifest: two may have looked before either wrote.

    :raises BatchJobConflictError: if one has.
    """
    there = manifest_of_output(hook, StageLocation.parse(manifest.output_location))
    if there is not None and there.run != manifest.run:
        raise _taken(there)


def _taken(other: JobManifest) -> BatchJobConflictError:
    return BatchJobConflictError(f"Run {other.run_id} got job {other.job_name} first, at the same moment.")


def is_starting(statement: Statement, submitted_at: float | None) -> bool:
    """Whether a statement may still make its job: it runs, or was sent so lately that it may not be listed.

    :param statement: how it is doing.
    :param submitted_at: when it was sent, an epoch by the worker's clock, if known.
    """
    if statement is Statement.UNKNOWN:
        return submitted_at is not None and time.time() < submitted_at + _UNLISTED
    return statement is Statement.RUNNING


def end_job(
    hook: SnowMLHook,
    job: QualifiedName,
    query_id: str | None,
    *,
    submitted_at: float | None = None,
    wait: float = END_TIMEOUT,
) -> None:
    """Cancel a job, and the statement that is still starting it, and wait for their end. The job is kept.

    :param hook: the hook.
    :param job: the job.
    :param query_id: the statement, if known.
    :param submitted_at: when it was sent, an epoch; ``None`` for just now.
    :param wait: seconds to wait for the end, 0 to only ask for it.
    :raises BatchJobConflictError: if they have not ended by then.
    """
    submitted_at = submitted_at or time.time()
    with hook.open_connection():
        deadline = time.monotonic() + (wait or _KILL_TIMEOUT)
        query_id = query_id or find_statement(hook, job)
        asked = False
        while True:
            # First: a statement that ends between the two looks may have made the job.
            statement = hook.statement(query_id)[0] if query_id else Statement.FAILED
            starting = is_starting(statement, submitted_at)
            if query_id and (starting or (statement is Statement.UNKNOWN and not asked)):
                cancel_start(hook, job, query_id)
                asked = True
            status = hook.job_status(job)
            if status not in ENDED | {None, "CANCELLING"}:
                try:
                    hook.cancel_job(job)
                    log.info("Cancelled job %s (it was %s); it is kept, with its logs.", job, status)
                except ObjectNotFoundError:
                    status = None
            if not starting and (not wait or status in ENDED | {None}):
                return
            if time.monotonic() > deadline:
                if not wait:
                    return
                what = (
                    f"Job {job} is still {status}" if status else f"The statement that starts job {job} runs"
                )
                raise BatchJobConflictError(f"{what} {wait:g} s after it was cancelled.")
            time.sleep(1 if wait else 0.2)


def void_attempt(hook: SnowMLHook, output_base: StageLocation, manifest: JobManifest) -> None:
    """See that an attempt that has not begun never does: a process that hangs may yet submit its job.

    Without its input that job would fail at once.

    :param hook: the hook.
    :param output_base: the output base, ``output_stage_location``.
    :param manifest: the attempt's.
    """
    job, location = QualifiedName.parse(manifest.job_name), StageLocation.parse(manifest.input_location)
    if input_directory(output_base, job.name.name).contains(location):  # else it is the user's
        hook.remove_files(location)
    # It may have been submitted between the look and now.
    end_job(hook, job, manifest.query_id, submitted_at=manifest.submitted_at)


def kill_job(hook: SnowMLHook, job: QualifiedName, query_id: str | None) -> None:
    """Cancel a job as a kill does: at once, since a worker that is killed has five seconds.

    Once it is cancelled, the end of its logs goes to the log. It never raises: a kill must not hide what else
    went wrong.

    :param hook: the hook.
    :param job: the job.
    :param query_id: the statement, if known.
    """
    try:
        with hook.open_connection():
            end_job(hook, job, query_id, wait=0)
            if hook.job_status(job) is not None:
                log.info("The end of the logs of job %s:\n%s", job, log_tail(hook, job))
    except Exception as error:
        log.error("Job %s could not be cancelled and may still run: %s", job, error)


def find_statement(hook: SnowMLHook, job: QualifiedName) -> str | None:
    """The statement that is starting a job, if it runs and there is no job yet: its id may have been lost."""
    if hook.job_status(job) is not None:
        return None
    return hook.find_running_statement("EXECUTE INFERENCE JOB SERVICE", f"NAME = {job.sql}\nASYNC")


def build_job(made: QualifiedName, query_id: str) -> QualifiedName:
    """The job that builds the image for a job or a service, in its schema.

    :param made: the job or service.
    :param query_id: the statement that makes it.
    """
    return QualifiedName(made.database, made.schema, image_build_job(query_id))


def cancel_start(hook: SnowMLHook, made: QualifiedName, query_id: str) -> list[str]:
    """Cancel the statement that makes a job or a service, and its image build.

    The build goes first: whoever dies in between leaves a statement that is found, and by it the build.
    If there was none, it is looked for once more, since it may have begun meanwhile.

    :return: what was done besides.
    """
    done = cancel_build(hook, made, query_id)
    hook.cancel_statement(query_id)
    return done or cancel_build(hook, made, query_id)


def cancel_build(hook: SnowMLHook, made: QualifiedName, query_id: str) -> list[str]:
    """Cancel an image build, if there is one: cancelling the statement that waits for it does not end it.

    It never raises: what else is to be ended must not be left for it.

    :return: what was done.
    """
    build = build_job(made, query_id)
    try:
        if hook.job_status(build) in ENDED | {None, "CANCELLING"}:
            return []
        hook.cancel_job(build)
    except SnowMLError as error:
        log.warning("The image build %s could not be cancelled and may still run: %s", build, error)
        return [f"the image build {build} could not be cancelled"]
    return ["the image build was cancelled"]


def log_tail(hook: SnowMLHook, job: QualifiedName, lines: int = 50) -> str:
    """The end of a job's logs for an error's text; never raises."""
    try:
        return hook.job_logs(job, lines) or "(no logs)"
    except Exception as error:
        return f"(its logs could not be read: {error})"


def build_log_tail(hook: SnowMLHook, made: QualifiedName, query_id: str, lines: int = 50) -> str:
    """The end of an image build's logs; empty if there was none, or they cannot be read."""
    try:
        return hook.job_logs(build_job(made, query_id), lines)
    except SnowMLError:
        return ""


class JobWatch:
    """Looks at one job again and again, over one connection that it keeps and replaces when it breaks.

    :param hook: the hook, used by nobody else meanwhile.
    :param poller: judges what is seen.
    :param job_name: the job's full name; ``None`` to look at its output alone.
    :param output: its output directory.
    :param query_id: the statement that starts it, if known.
    :param stream_logs: whether the lines that its containers print are logged as they come.
    """

    def __init__(
        self,
        hook: SnowMLHook,
        poller: Poller,
        *,
        job_name: str | None,
        output: StageLocation,
        query_id: str | None = None,
        stream_logs: bool = False,
    ) -> None:
        self.poller = poller
        self.job = QualifiedName.parse(job_name) if job_name else None
        self.output = output
        self.query_id = query_id
        self._logs = JobLogs(self.job) if self.job and stream_logs else None
        self._connection = KeptConnection(hook)
        self._last_detail = ""

    def look(self) -> Verdict:
        """Look once. A look that fails is judged too, and never raised."""
        seen: Observation | str
        try:
            with self._connection.use() as hook:
                seen = found = hook.observe_job(self.job, self.output, self.query_id)
                if self._logs and found.status not in NOT_STARTED | {None}:
                    self._logs.print_new(hook)
        except Exception as error:  # whatever it is, the job goes on and so does the wait
            seen = in_short(error)
        verdict = judge(self.poller, seen)
        self._last_detail = log_change(self.job or self.output, verdict.detail, self._last_detail)
        return verdict

    def close(self) -> None:
        """Close its connection. What it looked at goes on."""
        self._connection.close()


def judge(poller: Poller, seen: Observation | str) -> Verdict:
    """What a look means; a text is why it failed."""
    if isinstance(seen, str):
        return poller.failed(seen, time.time())
    return poller.observed(seen, time.time())


def is_over(verdict: Verdict) -> bool:
    """Whether there is nothing more to wait for."""
    return verdict.outcome is not Outcome.WAIT


def job_identifier(schema: SchemaName, name: str) -> QualifiedName:
    """A job's full name."""
    return QualifiedName(schema.database, schema.schema, Identifier(name))
