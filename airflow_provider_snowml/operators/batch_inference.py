"""Batch inference: a job in a compute pool that reads rows and writes Parquet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Literal

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_snowml.core.batch_job import (
    Action,
    Attempt,
    JobManifest,
    decide,
    fingerprint,
)
from airflow_provider_snowml.core.batch_poller import Limits, Outcome, Poller, Statement, Verdict
from airflow_provider_snowml.core.batch_statement import BatchStatement
from airflow_provider_snowml.core.model_ref import ModelFunction, ModelVersionRef, check_columns
from airflow_provider_snowml.core.names import Identifier, QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobConflictError,
    BatchJobFailedError,
    BatchJobOwnershipError,
    BatchJobStartTimeoutError,
    BatchJobTimeoutError,
    BatchOutputIncompleteError,
    InvalidArgumentError,
    JobNotFoundError,
    ObjectExistsError,
    PollingError,
    RowCountError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.batch_jobs import (
    JobWatch,
    end_job,
    find_attempts,
    input_directory,
    is_over,
    job_identifier,
    log_tail,
    manifest_of_output,
    write_manifest,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    exactly_one,
    is_backfill,
    one_of,
    owner_of,
    run_of,
)
from airflow_provider_snowml.triggers.inference import SnowMLBatchJobTrigger

STATE_KEY = "snowml_batch_job"
GRACE = 60.0


class SnowMLBatchInferenceOperator(SnowMLOperator):
    """Run a function of a model over many rows as a batch inference job in a compute pool.

    There is at most one live job for a task and its partition (else data interval, else run): the job's name
    is derived from them, so a retry finds the job and attaches to it. A cleared task ends its old job and
    starts the next attempt. The input is copied beside the output with a small manifest that says whose it
    is. The task succeeds when the job is DONE, ``_SUCCESS`` is in its output directory, and (for functions
    that give one row per row) as many rows came out as went in.

    XCom: ``{"job_name", "job_output_location", "input_rows", "output_rows", "model", "version", "status",
    "attempt"}``; with ``wait_for_completion=False`` without ``output_rows``.

    Privileges: CREATE SERVICE on the schema, USAGE on the compute pool, READ on the model, READ and WRITE on
    the output's stage, SELECT on the input; MONITOR (logs) and OPERATE (cancel) come with owning the job. See
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
    :param replicas: nodes to spread the job over.
    :param num_workers: worker processes per node.
    :param max_batch_rows: rows per call of the method.
    :param cpu_requests: CPUs per node, such as ``"2"``.
    :param memory_requests: memory per node, such as ``"8Gi"``.
    :param gpu_requests: GPUs per node, such as ``"1"``.
    :param inference_params: parameters of the method.
    :param save_mode: what the job does about files in its own directory: ``"error"`` or ``"overwrite"``.
    :param on_conflict: what to do about a live job of another run of the same key: ``"fail"``, or
        ``"replace"`` to end it.
    :param on_rerun: whether another run's finished result of the same work is used: ``"replace"`` (no, the
        rows may have changed) or ``"reuse"``.
    :param on_empty: what an input without rows means: ``"fail"`` or ``"skip"``. No job is started.
    :param wait_for_completion: whether to wait for the job.
    :param deferrable: whether the wait is the triggerer's.
    :param poll_interval: seconds between polls.
    :param timeout: seconds until the job is cancelled and the task fails.
    :param start_timeout: seconds for the image to be built and the job to run.
    :param cancel_on_kill: whether killing the task cancels the job. The job is kept, with its logs.
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
        "save_mode",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"input_query": "sql", "inference_params": "json"}

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
        replicas: int | str | None = None,
        num_workers: int | str | None = None,
        max_batch_rows: int | str | None = None,
        cpu_requests: str | None = None,
        memory_requests: str | None = None,
        gpu_requests: str | None = None,
        inference_params: Mapping[str, Any] | None = None,
        save_mode: str = "error",
        on_conflict: Literal["fail", "replace"] = "fail",
        on_rerun: Literal["replace", "reuse"] = "replace",
        on_empty: Literal["fail", "skip"] = "fail",
        wait_for_completion: bool = True,
        deferrable: bool = False,
        poll_interval: float = 10.0,
        timeout: float = 24 * 3600.0,
        start_timeout: float = 3600.0,
        cancel_on_kill: bool = True,
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
        self.replicas = replicas
        self.num_workers = num_workers
        self.max_batch_rows = max_batch_rows
        self.cpu_requests = cpu_requests
        self.memory_requests = memory_requests
        self.gpu_requests = gpu_requests
        self.inference_params = inference_params
        self.save_mode = save_mode
        self.on_conflict = on_conflict
        self.on_rerun = on_rerun
        self.on_empty = on_empty
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.cancel_on_kill = cancel_on_kill
        # The attempt that a kill would cancel, and the kill itself. Not kept across a deferral.
        self._live: tuple[str, str | None] | None = None
        self._killed = threading.Event()

    # -- what Airflow calls -----------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit or attach, then wait."""
        hook = self.get_hook()
        with hook.open_connection():
            manifest, query_id = self._submit_or_attach(hook, context)
            if not self.wait_for_completion:
                return self._result(manifest, hook.job_status(QualifiedName.parse(manifest.job_name)))
        limits = self._limits()
        if self.deferrable:
            self.defer(
                trigger=SnowMLBatchJobTrigger(
                    job_output_location=manifest.output_location,
                    job_name=manifest.job_name,
                    query_id=query_id,
                    hook_arguments=self.hook_arguments(),
                    poll_interval=self.poll_interval,
                    limits=asdict(limits),
                    cancel_on_kill=self.cancel_on_kill,
                ),
                method_name="execute_complete",
                # The trigger keeps the time itself; this is for a trigger that can't.
                timeout=timedelta(seconds=self.timeout + 600),
            )
        verdict = self._watch(manifest, query_id, limits)
        return self._complete(verdict, manifest, query_id)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume after the trigger's event."""
        # Not from defer's kwargs: dag.test() drops them.
        location = StageLocation.parse(event["job_output_location"])
        manifest = manifest_of_output(self.get_hook(), location)
        if manifest is None:
            raise BatchJobOwnershipError(f"The manifest of job {event['job_name']} is gone.")
        verdict = Verdict(Outcome(event["outcome"]), event["detail"], event["status"])
        return self._complete(verdict, manifest, event["query_id"])

    def on_kill(self) -> None:
        """Cancel the attempt that this try submitted or attached to, and no other."""
        self._killed.set()
        if self._live is None or not self.cancel_on_kill:
            return
        job_name, query_id = self._live
        # A hook of its own: the one in use may be in the middle of a request.
        end_job(self.get_hook(), QualifiedName.parse(job_name), query_id, wait=0)

    # -- submit or attach -------------------------------------------------------------------------------

    def _submit_or_attach(self, hook: SnowMLHook, context: Context) -> tuple[JobManifest, str | None]:
        """Look, decide, act; the job that is to be followed, and its statement if known."""
        source = self._check_arguments()
        default = hook.default_schema()
        model = QualifiedName.parse(self.model_name, default, what="model name")
        pool = Identifier.parse(self.compute_pool, what="compute pool")
        output = StageLocation.parse(self.output_stage_location, default, what="output_stage_location")
        output.beside("")  # not a stage's root
        staged = self._staged_input(default, output)
        hook.check_internal_stage(output.stage)
        if staged is not None:
            hook.check_internal_stage(staged.stage)
        hook.check_compute_pool(pool)

        owner, run = owner_of(context), run_of(context)
        state = _State(context)
        attempts = find_attempts(hook, owner, default, output)
        latest = self._with_running_statement(hook, attempts, owner.job_name, state)
        pinned = self._pinned_version(latest, run, model, state)
        if pinned is None and is_backfill(context) and self.version_name.upper() in ("DEFAULT", "LAST"):
            self.log.warning(
                "This backfill resolves version %r in each run: name a version to have one for all.",
                self.version_name,
            )
        ref = hook.resolve_version(model, Identifier.of(pinned).sql if pinned else self.version_name)
        function = ref.function(self.function_name)
        query = None
        if staged is None:
            query = self._input_query(source, default)
            check_columns(function, hook.columns(query), source=source)
        state.update(run=asdict(run), model=model.sql, reference=self.version_name, version=ref.version)
        work = self._fingerprint(ref, function, query or str(staged), output)

        decision = decide(
            owner=owner,
            run=run,
            job_fingerprint=work,
            attempts=attempts,
            on_conflict=self.on_conflict,
            on_rerun=self.on_rerun,
        )
        job = job_identifier(default, owner.job_name(decision.attempt))
        self.log.info("%s %s: %s.", decision.action.value.capitalize(), job, decision.reason)
        if decision.action is Action.FOREIGN:
            raise BatchJobOwnershipError(
                f"Job {job}, which {owner} would use, is not its own: {decision.reason}."
            )
        if decision.action is Action.CONFLICT:
            raise BatchJobConflictError(f"Job {job} of {owner} is in the way: {decision.reason}.")
        if decision.action is Action.ATTACH:
            assert latest is not None and latest.manifest is not None
            query_id = state.query_id(job.sql)
            self._live = (job.sql, query_id)
            return latest.manifest, query_id
        if decision.action is Action.REPLACE:
            old = job_identifier(default, owner.job_name(decision.attempt - 1))
            end_job(hook, old, state.query_id(old.sql))

        if decision.action is Action.RESUBMIT:
            assert latest is not None and latest.manifest is not None
            manifest = latest.manifest
        else:
            directory = input_directory(output, job.name.name)
            rows = None
            location = staged
            if query is not None:
                location = directory / "data"
                hook.remove_files(directory)
                rows = hook.copy_into_location(location, query)
                self.log.info("Copied %d rows to %s.", rows, location)
                self._refuse_empty(rows, source)
            assert location is not None
            manifest = JobManifest(
                **asdict(owner),
                **asdict(run),
                attempt=decision.attempt,
                job_name=job.sql,
                fingerprint=work,
                model=model.sql,
                version_reference=self.version_name,
                version=ref.version,
                function=function.target_method,
                input_location=location.sql,
                output_location=(output / job.name.name).sql,
                input_rows=rows,
                keeps_row_count=function.keeps_row_count,
            )
            write_manifest(hook, output, manifest)
        statement = self._statement(
            job, pool, ref, function, StageLocation.parse(manifest.input_location), output
        )
        return manifest, self._submit(hook, manifest, statement, state)

    def _submit(
        self, hook: SnowMLHook, manifest: JobManifest, statement: BatchStatement, state: _State
    ) -> str | None:
        self._live = (manifest.job_name, None)
        try:
            query_id = hook.submit(statement.sql())
        except ObjectExistsError:
            # Our own earlier submit, whose reply was lost, came through after we had looked.
            self.log.info("Job %s exists by now; attaching to it.", manifest.job_name)
            return None
        self._live = (manifest.job_name, query_id)
        state.update(job_name=manifest.job_name, query_id=query_id)
        self.log.info("Submitted job %s (query id %s).", manifest.job_name, query_id)
        return query_id

    def _check_arguments(self) -> str:
        source = exactly_one(
            input_table=self.input_table,
            input_query=self.input_query,
            input_stage_location=self.input_stage_location,
        )
        one_of("save_mode", self.save_mode, ("error", "overwrite"))
        one_of("on_conflict", self.on_conflict, ("fail", "replace"))
        one_of("on_rerun", self.on_rerun, ("replace", "reuse"))
        one_of("on_empty", self.on_empty, ("fail", "skip"))
        for name in ("replicas", "num_workers", "max_batch_rows"):
            _number(name, getattr(self, name))
        return source

    def _input_query(self, source: str, default: Any) -> str:
        if source == "input_table":
            return (
                f"SELECT * FROM {QualifiedName.parse(str(self.input_table), default, what='input_table').sql}"
            )
        return str(self.input_query).strip().rstrip(";")

    def _staged_input(self, default: Any, output: StageLocation) -> StageLocation | None:
        if not self.input_stage_location:
            return None
        staged = StageLocation.parse(self.input_stage_location, default, what="input_stage_location")
        if output.contains(staged):
            raise InvalidArgumentError(
                f"input_stage_location {staged} lies in output_stage_location {output}, which the job may "
                "empty: use another directory."
            )
        return staged

    def _with_running_statement(
        self,
        hook: SnowMLHook,
        attempts: list[Attempt],
        job_name: Callable[[int], str],
        state: _State,
    ) -> Attempt | None:
        """The latest attempt; if its statement still runs (an image is built), the job counts as there."""
        if not attempts:
            return None
        latest = attempts[-1]
        if latest.status is None and latest.manifest is not None:
            query_id = state.query_id(latest.manifest.job_name)
            if query_id and hook.statement(query_id)[0] is Statement.RUNNING:
                latest = attempts[-1] = Attempt(latest.number, "PENDING", latest.manifest)
        return latest

    def _pinned_version(
        self, latest: Attempt | None, run: Any, model: QualifiedName, state: _State
    ) -> str | None:
        """The version that an earlier try of this run resolved the same reference to."""
        manifest = latest.manifest if latest is not None else None
        if (
            manifest is not None
            and manifest.run == run
            and manifest.model == model.sql
            and manifest.version_reference == self.version_name
        ):
            return manifest.version
        remembered = (asdict(run), model.sql, self.version_name)
        if (state.get("run"), state.get("model"), state.get("reference")) == remembered:
            version = state.get("version")
            return str(version) if version else None
        return None

    def _fingerprint(
        self, ref: ModelVersionRef, function: ModelFunction, source: str, output: StageLocation
    ) -> str:
        return fingerprint(
            {
                "model": ref.model.sql,
                "version": ref.version,
                "function": function.target_method,
                "input": source,
                "params": dict(self.inference_params or {}),
                "output": output.sql,
            }
        )

    def _refuse_empty(self, rows: int, source: str) -> None:
        if rows:
            return
        if self.on_empty == "skip":
            raise AirflowSkipException(f"{source} gives no rows; no job was started.")
        raise RowCountError(f"{source} gives no rows; no job was started. on_empty='skip' skips the task.")

    def _statement(
        self,
        job: QualifiedName,
        pool: Identifier,
        ref: ModelVersionRef,
        function: ModelFunction,
        source: StageLocation,
        output: StageLocation,
    ) -> BatchStatement:
        return BatchStatement(
            name=job,
            compute_pool=pool,
            model=ref.model,
            version=ref.version_sql,
            function=function.target_method,
            input_location=source,
            output_location=output,
            save_mode=self.save_mode,
            inference_params=self.inference_params,
            cpu_requests=_text(self.cpu_requests),
            memory_requests=_text(self.memory_requests),
            gpu_requests=_text(self.gpu_requests),
            num_workers=_number("num_workers", self.num_workers),
            max_batch_rows=_number("max_batch_rows", self.max_batch_rows),
            image_repo=self.image_repo or None,
            replicas=_number("replicas", self.replicas),
        )

    # -- wait and finish --------------------------------------------------------------------------------

    def _limits(self) -> Limits:
        import time

        now = time.time()
        timeout = self.timeout
        if self.execution_timeout is not None:
            # Airflow does not watch it while the task is deferred.
            timeout = min(timeout, self.execution_timeout.total_seconds())
        return Limits(start_deadline=now + self.start_timeout, deadline=now + timeout, grace=GRACE)

    def _watch(self, manifest: JobManifest, query_id: str | None, limits: Limits) -> Verdict:
        watch = JobWatch(
            self.get_hook(),
            Poller(limits),
            job_name=manifest.job_name,
            output=StageLocation.parse(manifest.output_location),
            query_id=query_id,
        )
        try:
            while not is_over(verdict := watch.look()):
                # Airflow calls on_kill from a signal handler and lets the task go on.
                if self._killed.wait(self.poll_interval):
                    raise BatchJobCancelledError(
                        f"The task was killed while it waited for {manifest.job_name}."
                    )
            return verdict
        finally:
            watch.close()

    def _complete(self, verdict: Verdict, manifest: JobManifest, query_id: str | None) -> dict[str, Any]:
        """The XCom of a job that ended well, or the error of one that didn't."""
        hook = self.get_hook()
        with hook.open_connection():
            if verdict.outcome is not Outcome.SUCCEEDED:
                raise self._error(hook, verdict, manifest, query_id)
            rows = hook.count_parquet_rows(StageLocation.parse(manifest.output_location))
        if manifest.keeps_row_count and manifest.input_rows is not None and rows != manifest.input_rows:
            raise BatchOutputIncompleteError(
                f"Job {manifest.job_name} is DONE, but of {manifest.input_rows} rows {rows} came out."
            )
        return {**self._result(manifest, verdict.status), "output_rows": rows}

    def _error(
        self, hook: SnowMLHook, verdict: Verdict, manifest: JobManifest, query_id: str | None
    ) -> SnowMLError:
        job = QualifiedName.parse(manifest.job_name)
        message = f"Batch job {job} ({manifest.model} {manifest.version}): {verdict.detail}."
        if verdict.outcome is Outcome.POLL_ERRORS:
            return PollingError(message)
        if verdict.outcome is Outcome.LOST:
            return JobNotFoundError(message)
        if verdict.outcome in (Outcome.TIMEOUT, Outcome.START_TIMEOUT):
            end_job(hook, job, query_id, wait=0)
        tail = f"{message} The end of its logs:\n{log_tail(hook, job)}\n"
        kinds: dict[Outcome, type[SnowMLError]] = {
            Outcome.FAILED: BatchJobFailedError,
            Outcome.CANCELLED: BatchJobCancelledError,
            Outcome.INCOMPLETE: BatchOutputIncompleteError,
            Outcome.TIMEOUT: BatchJobTimeoutError,
            Outcome.START_TIMEOUT: BatchJobStartTimeoutError,
        }
        return kinds[verdict.outcome](tail)

    @staticmethod
    def _result(manifest: JobManifest, status: str | None) -> dict[str, Any]:
        return {
            "job_name": manifest.job_name,
            "job_output_location": manifest.output_location,
            "input_rows": manifest.input_rows,
            "model": manifest.model,
            "version": manifest.version,
            "status": status,
            "attempt": manifest.attempt,
        }


class _State:
    """What the task remembers across tries, deferrals and clears."""

    def __init__(self, context: Context) -> None:
        self._store = context["task_state_store"]
        stored = self._store.get(STATE_KEY, {})
        self._values: dict[str, Any] = dict(stored) if isinstance(stored, dict) else {}

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def update(self, **values: Any) -> None:
        self._values.update(values)
        self._store.set(STATE_KEY, self._values)

    def query_id(self, job_name: str) -> str | None:
        """The statement that started a job, if it was this job."""
        query_id = self._values.get("query_id")
        return str(query_id) if query_id and self._values.get("job_name") == job_name else None


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _number(name: str, value: Any) -> int | None:
    if value in (None, "", "None"):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise InvalidArgumentError(f"{name} is {value!r}; it must be a whole number of at least 1.")
    return number
