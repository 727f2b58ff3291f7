"""Batch inference: a job in a compute pool that reads rows and writes Parquet."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Literal, NoReturn

from airflow.sdk import Context, conf
from airflow.sdk.exceptions import TaskDeferralTimeout

from airflow_provider_snowml.core.batch_job import DONE, JobManifest
from airflow_provider_snowml.core.batch_poller import ERROR_GRACE, Limits, Outcome, Poller, Verdict
from airflow_provider_snowml.core.hints import explain_error
from airflow_provider_snowml.core.lineage import Lineage, directory, job_output, model_version, tables
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobConflictError,
    BatchJobFailedError,
    BatchJobLostError,
    BatchJobOwnershipError,
    BatchJobReplacedError,
    BatchJobStartTimeoutError,
    BatchJobTimeoutError,
    BatchOutputIncompleteError,
    PollingError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.batch_jobs import (
    JobWatch,
    build_log_tail,
    end_job,
    is_over,
    kill_job,
    log_tail,
    manifest_of_output,
)
from airflow_provider_snowml.hooks.job_logs import JobLogs
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.links.snowsight import SnowsightQueryLink
from airflow_provider_snowml.operators.base import SnowMLOperator, run_of
from airflow_provider_snowml.operators.batch_submission import (
    BatchState,
    Submission,
    followed,
    plan,
    submit_or_attach,
)
from airflow_provider_snowml.triggers.inference import SnowMLBatchJobTrigger

GRACE = 60.0
LATE_END = 60.0  # seconds for the end of a job that took too long
TRIGGERLESS = 600.0  # seconds over its time until a deferred task whose triggerer is gone is woken


class SnowMLBatchInferenceOperator(SnowMLOperator):
    """Run a function of a model over many rows as a batch inference job in a compute pool.

    There is at most one live job for a task and its partition (else data interval, else run): the job's name
    is derived from them, so a retry finds the job and attaches to it. A cleared task ends its old job and
    starts the next attempt.

    The input is copied beside the output with a small manifest that says whose it is. The task succeeds when
    the job is DONE, ``_SUCCESS`` is in its output directory, and (for functions that give one row per row) as
    many rows came out as went in.

    XCom: ``{"job_name", "job_output_location", "input_rows", "output_rows", "model", "version", "status",
    "attempt", "reused", "duration_s"}``; with ``wait_for_completion=False`` without ``output_rows``.
    ``job_name`` is ``None`` where an empty input needed no job, ``reused`` whether the result is an earlier
    run's, and ``duration_s`` the seconds from the submit to when the task saw the end (``None`` if that is
    not known, or not over).

    Privileges: CREATE SERVICE and CREATE FILE FORMAT (a temporary one, to count the output's rows) on the
    schema, USAGE on the compute pool, READ on the model, READ and WRITE on the output's stage, SELECT on the
    input; MONITOR (logs) and OPERATE (cancel) come with owning the job. See
    https://docs.snowflake.com/en/sql-reference/sql/execute-inference-job-service.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: a version, an alias, ``default``, ``first`` or ``last``; resolved once, and kept for
        retries.
    :param function_name: the model's method; may be left out if it has only one.
    :param input_table: a table or view; or
    :param input_query: a query (it is code: never build it from a run's configuration); or
    :param input_stage_location: a directory of Parquet files that is read in place.
    :param compute_pool: the compute pool.
    :param output_stage_location: a directory of an internal stage; the job writes to ``<job name>/`` in it.
    :param image_repo: the image repository to build the model's image into.
    :param force_rebuild: whether to build the image even if there is one.
    :param replicas: nodes to spread the job over.
    :param num_workers: worker processes per node.
    :param max_batch_rows: rows per call of the method.
    :param cpu_requests: CPUs per node, such as ``"2"``.
    :param memory_requests: memory per node, such as ``"8Gi"``.
    :param gpu_requests: GPUs per node, such as ``"1"``.
    :param inference_params: parameters of the method.
    :param column_handling: columns with the paths of stage files, whose content the method gets:
        ``{"PHOTO": {"input_format": "full_stage_path", "convert_to": "raw_bytes"}}``, or ``"base64"`` or
        ``"base64_data_url"``. :func:`.stage_files_query` lists a stage's files as such a column.
    :param partition_column: the column by which a table function gets its rows, as for partitioned models;
        without it, all rows are one partition.
    :param engine: the inference engine of an LLM, ``"vllm"`` or ``"python_generic"``.
    :param engine_args_override: arguments of the engine, such as ``["--max-model-len=4096"]``.
    :param save_mode: what the job does about files in its own directory: ``"error"`` or ``"overwrite"``.
    :param input_version: your name for the state of the input's rows, such as a snapshot's id. It is part of
        what makes work the same, besides the model, version, function, input, parameters and output.
    :param on_conflict: what to do about a live job of another run of the same key: ``"fail"``; ``"wait"``
        for its end, then go on; or ``"replace"`` to end it, and that run's task fails with
        ``BatchJobReplacedError`` and is not retried.
    :param on_rerun: whether another run's finished result of the same work is used: ``"replace"`` (no, the
        rows may have changed) or ``"reuse"``.
    :param on_empty: what an input without rows means: ``"fail"``, ``"skip"``, or ``"replace"`` to give an
        empty result, whose load empties the slice. No job is started.
    :param row_count_check: whether a function must give as many rows as it got: ``"equal"`` or ``"off"``,
        which does not count the rows of ``input_stage_location`` either.
    :param plan_only: resolve and check everything, log the plan, and start nothing. The XCom is then
        ``{"action", "reason", "attempt", "job_name", "model", "version", "function", "compute_pool",
        "input_rows", "input_location", "job_output_location", "statement"}``.
    :param wait_for_completion: whether to wait for the job.
    :param deferrable: whether the wait is the triggerer's; Airflow's ``default_deferrable`` says so if it is
        left out.
    :param poll_interval: seconds between polls.
    :param timeout: seconds from the job's submit until it is cancelled and the task fails. A retry that
        attaches to the job does not start anew. Airflow's ``execution_timeout`` counts for each try, and
        cancels the job too, also while the task is deferred.
    :param start_timeout: seconds from the submit for the image to be built and the job to run.
    :param cancel_on_kill: whether killing the task cancels the job. The job is kept, with its logs.
    :param stream_logs: whether the lines that the job's containers print are shown in the task's log: as they
        come, or after a deferred wait. It costs a poll two statements more.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a model, version, function, stage or pool that isn't there.
    :raises BatchJobError: (a subclass) if the job doesn't end well.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "function_name",
        "input_table",
        "input_query",
        "input_stage_location",
        "compute_pool",
        "output_stage_location",
        "image_repo",
        "replicas",
        "num_workers",
        "max_batch_rows",
        "cpu_requests",
        "memory_requests",
        "gpu_requests",
        "inference_params",
        "column_handling",
        "partition_column",
        "engine",
        "engine_args_override",
        "save_mode",
        "input_version",
    )
    template_ext: Sequence[str] = (".sql",)
    operator_extra_links = (SnowsightQueryLink(),)
    template_fields_renderers = {
        "input_query": "sql",
        "inference_params": "json",
        "column_handling": "json",
        "engine_args_override": "json",
    }

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str = "default",
        function_name: str | None = None,
        input_table: str | None = None,
        input_query: str | None = None,
        input_stage_location: str | None = None,
        compute_pool: str,
        output_stage_location: str,
        image_repo: str | None = None,
        force_rebuild: bool = False,
        replicas: int | str | None = None,
        num_workers: int | str | None = None,
        max_batch_rows: int | str | None = None,
        cpu_requests: str | None = None,
        memory_requests: str | None = None,
        gpu_requests: str | None = None,
        inference_params: Mapping[str, Any] | None = None,
        column_handling: Mapping[str, Mapping[str, Any]] | None = None,
        partition_column: str | None = None,
        engine: str | None = None,
        engine_args_override: Sequence[str] | None = None,
        save_mode: str = "error",
        input_version: str | None = None,
        on_conflict: Literal["fail", "wait", "replace"] = "fail",
        on_rerun: Literal["replace", "reuse"] = "replace",
        on_empty: Literal["fail", "skip", "replace"] = "fail",
        row_count_check: Literal["equal", "off"] = "equal",
        plan_only: bool = False,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        timeout: float = 24 * 3600.0,
        start_timeout: float = 3600.0,
        cancel_on_kill: bool = True,
        stream_logs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.function_name = function_name
        self.input_table = input_table
        self.input_query = input_query
        self.input_stage_location = input_stage_location
        self.compute_pool = compute_pool
        self.output_stage_location = output_stage_location
        self.image_repo = image_repo
        self.force_rebuild = force_rebuild
        self.replicas = replicas
        self.num_workers = num_workers
        self.max_batch_rows = max_batch_rows
        self.cpu_requests = cpu_requests
        self.memory_requests = memory_requests
        self.gpu_requests = gpu_requests
        self.inference_params = inference_params
        self.column_handling = column_handling
        self.partition_column = partition_column
        self.engine = engine
        self.engine_args_override = engine_args_override
        self.save_mode = save_mode
        self.input_version = input_version
        self.on_conflict = on_conflict
        self.on_rerun = on_rerun
        self.on_empty = on_empty
        self.row_count_check = row_count_check
        self.plan_only = plan_only
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.cancel_on_kill = cancel_on_kill
        self.stream_logs = stream_logs
        # The attempt that a kill would cancel, and the kill itself. Not kept across a deferral.
        self._live: tuple[str, str | None] | None = None
        self._killed = threading.Event()

    # -- what Airflow calls -----------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit or attach, then wait."""
        return self._score(context)

    def _score(self, context: Context) -> dict[str, Any]:
        hook = self.get_hook()
        with hook.open_connection():
            if self.plan_only:
                return self._plan(hook, context)
            submission = submit_or_attach(self, hook, context, self._goes_live)
            if self._killed.is_set():
                raise self._was_killed(submission)
            manifest = submission.manifest
            if submission.query_id and (page := hook.query_page(submission.query_id)):
                SnowsightQueryLink.store(context, page)
            if not self.wait_for_completion and not submission.is_in_the_way:
                job = QualifiedName.parse(manifest.job_name)
                status = hook.job_status(job) if manifest.input_rows != 0 else DONE
                return self._result(manifest, status, context)
        verdict = self._wait(submission, context)
        if submission.is_in_the_way:
            return self._after_the_other(verdict, context)
        return self._complete(hook, verdict, manifest, submission.query_id, context)

    def _plan(self, hook: SnowMLHook, context: Context) -> dict[str, Any]:
        planned = plan(self, hook, context)
        lines = [f"{key}: {value}" for key, value in planned.items()]
        self.log.info("The plan; nothing was started:\n%s", "\n".join(lines))
        return planned

    def _wait(self, submission: Submission, context: Context) -> Verdict:
        """Until the job has ended, here or in the triggerer."""
        manifest = submission.manifest
        limits = self._limits(submission, context)
        watch = JobWatch(
            self.get_hook(),
            Poller(limits),
            job_name=manifest.job_name,
            output=StageLocation.parse(manifest.output_location),
            query_id=submission.query_id,
            stream_logs=self.stream_logs and not submission.is_in_the_way,
        )
        try:
            # A job that has ended already, to which a retry attaches, needs no trigger either. One that fires
            # at once is a risk: Airflow 3.3 can take the task for crashed.
            verdict = watch.look()
            # Airflow calls on_kill from a signal handler and lets the task go on.
            if self.deferrable and not is_over(verdict) and not self._killed.is_set():
                self._defer(submission, limits)
            while not is_over(verdict):
                if self._killed.wait(self.poll_interval):
                    raise self._was_killed(submission)
                verdict = watch.look()
        finally:
            watch.close()
        return verdict

    def _was_killed(self, submission: Submission) -> SnowMLError:
        name = submission.manifest.job_name
        message = f"The task was killed while it followed {name}."
        if not self.cancel_on_kill or submission.is_in_the_way:
            return PollingError(message)
        # Once more: the kill may have come before the statement had arrived.
        end_job(self.get_hook(), QualifiedName.parse(name), submission.query_id, wait=0)
        return BatchJobCancelledError(message)

    def _defer(self, submission: Submission, limits: Limits) -> NoReturn:
        ours = not submission.is_in_the_way
        self.defer(
            trigger=SnowMLBatchJobTrigger(
                job_output_location=submission.manifest.output_location,
                job_name=submission.manifest.job_name,
                query_id=submission.query_id,
                hook_arguments=self.hook_arguments(),
                poll_interval=self.poll_interval,
                limits=asdict(limits),
                cancel_on_kill=self.cancel_on_kill and ours,
            ),
            method_name="execute_complete" if ours else "execute_after_the_other",
            # The trigger keeps the time itself; this is for a trigger that can't.
            timeout=timedelta(seconds=max(0.0, (limits.deadline or 0.0) - time.time()) + TRIGGERLESS),
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow does; but a job that no triggerer has looked at in time is cancelled."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            hook = self.get_hook()
            with hook.open_connection():
                manifest = followed(self, hook, context)
                if manifest is None:  # it waited for another run's job
                    raise
                late = Verdict(Outcome.TIMEOUT, "it took longer than allowed, and no triggerer looked at it")
                raise self._error(hook, late, manifest, manifest.query_id) from error

    def execute_after_the_other(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume after another run's job has ended."""
        verdict = Verdict(Outcome(event["outcome"]), event["detail"], event["status"])
        return self._after_the_other(verdict, context)

    def _after_the_other(self, verdict: Verdict, context: Context) -> dict[str, Any]:
        if verdict.outcome in (Outcome.TIMEOUT, Outcome.POLL_ERRORS):
            raise BatchJobConflictError(f"Another run's job of the same key is in the way: {verdict.detail}.")
        return self._score(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume after the trigger's event."""
        # Not from defer's kwargs: dag.test() drops them.
        location = StageLocation.parse(event["job_output_location"])
        hook = self.get_hook()
        with hook.open_connection():
            manifest = manifest_of_output(hook, location)
            if manifest is None:
                raise BatchJobOwnershipError(f"The manifest of job {event['job_name']} is gone.")
            if self.stream_logs and event["status"] is not None:
                JobLogs(QualifiedName.parse(manifest.job_name)).print_new(hook)
            verdict = Verdict(Outcome(event["outcome"]), event["detail"], event["status"])
            return self._complete(hook, verdict, manifest, event["query_id"], context)

    def on_kill(self) -> None:
        """Cancel the attempt that this try submitted or attached to, and no other.

        Airflow calls it from its handler of SIGTERM, and the supervisor kills the process five seconds later;
        and after an ``execution_timeout``, whose error must not be lost to another one.
        """
        self._killed.set()
        if self._live is None or not self.cancel_on_kill:
            return
        job_name, query_id = self._live
        # A hook of its own: the one in use may be in the middle of a request.
        kill_job(self.get_hook(), QualifiedName.parse(job_name), query_id)

    def _goes_live(self, job_name: str, query_id: str | None, is_sent: bool) -> None:
        if self._killed.is_set() and not is_sent and self.cancel_on_kill:
            raise BatchJobCancelledError(f"The task was killed before it submitted {job_name}.")
        self._live = (job_name, query_id)

    # -- wait and finish --------------------------------------------------------------------------------

    def _limits(self, submission: Submission, context: Context) -> Limits:
        """A job has its time from its submit, whichever try waits for it; another run's gets ours."""
        now = time.time()
        ours = not submission.is_in_the_way
        since = submission.manifest.submitted_at if ours else None
        since = since if since is not None else now
        deadline = since + self.timeout
        if self.execution_timeout is not None and self.deferrable:
            # A try has it from its start. Airflow watches it in a worker only, and anew after each deferral.
            started = context["ti"].start_date
            try_since = started.timestamp() if started is not None else now
            deadline = min(deadline, try_since + self.execution_timeout.total_seconds())
        return Limits(
            start_deadline=since + self.start_timeout if ours else None,
            deadline=deadline,
            grace=GRACE,
            error_grace=ERROR_GRACE,
        )

    def _complete(
        self,
        hook: SnowMLHook,
        verdict: Verdict,
        manifest: JobManifest,
        query_id: str | None,
        context: Context,
    ) -> dict[str, Any]:
        """The XCom of a job that ended well, or the error of one that didn't."""
        if verdict.outcome is Outcome.INCOMPLETE:
            BatchState(context).update(rejected=manifest.job_name)
        if verdict.outcome is not Outcome.SUCCEEDED:
            raise self._error(hook, verdict, manifest, query_id)
        with hook.open_connection():
            rows = hook.count_parquet_rows(StageLocation.parse(manifest.output_location))
        if manifest.keeps_row_count and manifest.input_rows is not None and rows != manifest.input_rows:
            BatchState(context).update(rejected=manifest.job_name)
            raise BatchOutputIncompleteError(
                f"Job {manifest.job_name} is DONE, but of {manifest.input_rows} rows {rows} came out."
            )
        return self._result(manifest, verdict.status, context, output_rows=rows)

    def _error(
        self, hook: SnowMLHook, verdict: Verdict, manifest: JobManifest, query_id: str | None
    ) -> SnowMLError:
        job = QualifiedName.parse(manifest.job_name)
        message = f"Batch job {job} ({manifest.model} {manifest.version}): {verdict.detail}."
        if verdict.outcome is Outcome.POLL_ERRORS:
            return PollingError(message)
        if verdict.outcome in (Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST):
            there = manifest_of_output(hook, StageLocation.parse(manifest.output_location))
            if there is not None and (other := there.replaced.get(str(manifest.run))):
                return BatchJobReplacedError(f"{message} Run {other} of the same key has replaced it.")
        if verdict.outcome is Outcome.LOST:
            return BatchJobLostError(message)
        if verdict.outcome in (Outcome.TIMEOUT, Outcome.START_TIMEOUT):
            try:
                # A retry that came before the end would attach to what is being cancelled.
                end_job(hook, job, query_id, submitted_at=manifest.submitted_at, wait=LATE_END)
            except Exception as error:  # whatever it is, the time-out is what went wrong
                message += f" It could not be cancelled and may still run: {error}"
        # A statement that failed has left no job; what there is to read is of its image build.
        logs = ""
        if verdict.status is not None:
            logs = log_tail(hook, job)
        elif query_id:
            logs = build_log_tail(hook, job, query_id)
        hint = explain_error(f"{message}\n{logs}")
        tail = message + (f" The end of its logs:\n{logs}\n" if logs else "\n")
        tail += f"Probably: {hint}\n" if hint else ""
        kinds: dict[Outcome, type[SnowMLError]] = {
            Outcome.FAILED: BatchJobFailedError,
            Outcome.CANCELLED: BatchJobCancelledError,
            Outcome.INCOMPLETE: BatchOutputIncompleteError,
            Outcome.TIMEOUT: BatchJobTimeoutError,
            Outcome.START_TIMEOUT: BatchJobStartTimeoutError,
        }
        return kinds[verdict.outcome](tail)

    def _result(
        self, manifest: JobManifest, status: str | None, context: Context, **counted: int
    ) -> dict[str, Any]:
        reused = manifest.run != run_of(context)
        duration = None
        if manifest.submitted_at is not None and status == DONE and not reused:
            duration = round(max(0.0, time.time() - manifest.submitted_at), 1)
        result = {
            "job_name": manifest.job_name if manifest.input_rows != 0 else None,
            "job_output_location": manifest.output_location,
            "input_rows": manifest.input_rows,
            "model": manifest.model,
            "version": manifest.version,
            "status": status,
            "attempt": manifest.attempt,
            "reused": reused,
            "duration_s": duration,
            **counted,
        }
        return self.done(result, function=manifest.function, query_id=manifest.query_id)

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """From the rows, by the version, to the job's output."""
        version = model_version(
            done.get("model", self.model_name), done.get("version"), default, function=done.get("function")
        )
        staged = self.input_stage_location
        reads = [
            *tables(self.input_table, default=default, rows=done.get("input_rows")),
            *([directory(staged, default)] if staged else []),
            version,
        ]
        writes = []
        if done:
            writes = [job_output(done["job_output_location"], rows=done.get("output_rows"))]
        return Lineage(reads, writes, self.input_query, done.get("query_id"))
