"""Waiting for a batch job's output."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSensorTimeout
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_snowml.core.batch_poller import ERROR_GRACE, Limits, Memory, Outcome, Poller, Verdict
from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobFailedError,
    BatchOutputIncompleteError,
    JobNotFoundError,
    PollingError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.batch_jobs import log_tail, own_directory
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import TIMEOUTS, in_short
from airflow_provider_snowml.operators.base import as_text, run_of
from airflow_provider_snowml.sensors.base import SnowMLSensor
from airflow_provider_snowml.triggers.inference import UNRESOLVED, SnowMLBatchJobTrigger

STATE_KEY = "snowml_batch_success"


class SnowMLBatchSuccessSensor(SnowMLSensor):
    """Wait until ``_SUCCESS`` is in a batch job's output directory.

    With ``job_name`` it also wants the job DONE, and fails at once when the job has failed or was cancelled,
    or is DONE without ``_SUCCESS`` after ``grace``. Without, it waits for the file alone, of a job that
    somebody else runs.

    XCom: ``{"job_output_location", "job_name", "status"}``.

    Privileges: READ on the stage; MONITOR on the job. See
    https://docs.snowflake.com/en/sql-reference/sql/execute-inference-job-service.

    :param job_output_location: the job's own directory, ``<output_stage_location>/<job name>/``; with
        ``job_name``, the directory above is enough.
    :param job_name: the job, ``[[database.]schema.]name``.
    :param grace: seconds that ``_SUCCESS`` may come after DONE, and a job may be missing.
    :param start_from_trigger: with ``deferrable``: whether the wait begins in the triggerer, so that a worker
        is needed only once it is over. The two names must then be texts, and give full names; templates are
        fine, but not of XComs, which Airflow 3.3's triggerer cannot pull. Where that cannot be (an XCom, a
        name without its schema, a templated connection, a mapped task) the wait begins in a worker after
        all. ``timeout`` counts for each try.
    :raises BatchJobError: (a subclass) if the job didn't end well.
    """

    template_fields: Sequence[str] = (*SnowMLSensor.template_fields, "job_output_location", "job_name")

    def __init__(
        self,
        *,
        job_output_location: str,
        job_name: str | None = None,
        grace: float = 60.0,
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_output_location = job_output_location
        self.job_name = job_name
        self.grace = grace
        self.start_from_trigger = start_from_trigger and self.deferrable and self._is_plain()
        if self.start_from_trigger:
            # What the triggerer makes the trigger of. It renders those that are template fields here, too.
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls=f"{SnowMLBatchJobTrigger.__module__}.{SnowMLBatchJobTrigger.__qualname__}",
                trigger_kwargs=self._trigger_arguments(Limits(grace=self.grace, error_grace=ERROR_GRACE)),
                next_method="execute_complete",
                timeout=timedelta(seconds=float(self.timeout)),
            )
        self._poller: Poller | None = None
        self._status: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait here, or in the triggerer."""
        hook = self.get_hook()
        with hook.open_connection():
            default = hook.default_schema()
            location = StageLocation.parse(self.job_output_location, default, what="job_output_location")
            name = as_text(self.job_name)
            job = QualifiedName.parse(name, default, what="job_name") if name else None
            hook.check_internal_stage(location.stage)
        if job is not None:
            location = own_directory(location, job)
        self.job_output_location, self.job_name = location.sql, job.sql if job else None
        if self.deferrable and self._look(context).outcome is Outcome.WAIT:
            self._defer()
        self.wait_here(context)
        return self._result()

    def _defer(self) -> NoReturn:
        deadline = time.time() + float(self.timeout)
        limits = Limits(deadline=deadline, grace=self.grace, error_grace=ERROR_GRACE)
        self.wait_there(SnowMLBatchJobTrigger(**self._trigger_arguments(limits)))

    def _trigger_arguments(self, limits: Limits) -> dict[str, Any]:
        return {
            "job_output_location": self.job_output_location,
            "job_name": self.job_name,
            "query_id": None,
            "hook_arguments": self.hook_arguments(),
            "poll_interval": float(self.poke_interval),
            "limits": asdict(limits),
            "cancel_on_kill": False,  # the job is not ours
        }

    def _is_plain(self) -> bool:
        """Whether the triggerer can be told all, as texts that it can render."""
        names = (self.job_output_location, self.job_name)
        connection = self.hook_arguments().values()
        if not all(isinstance(value, str | None) for value in (*names, *connection)):
            return False
        # Airflow 3.3's triggerer does not understand what ti.xcom_pull asks it, and never answers.
        pulls = any("xcom" in value.lower() for value in names if value)
        # Only what has the name of a template field is rendered there.
        return not pulls and not any(mark in value for value in connection if value for mark in ("{{", "{%"))

    def poke(self, context: Context) -> bool:
        """Look once."""
        return self._judge(self.get_hook(), self._look(context))

    def _look(self, context: Context) -> Verdict:
        if self._poller is None:
            self._poller = Poller(
                Limits(grace=self.grace, error_grace=ERROR_GRACE),
                path_only=self.job_name is None,
                memory=self._memory(context),
            )
        hook = SnowMLHook(**self.hook_arguments(), connector_options=TIMEOUTS)
        job = QualifiedName.parse(self.job_name) if self.job_name else None
        try:
            seen = hook.observe_job(job, StageLocation.parse(self.job_output_location))
        except Exception as error:
            verdict = self._poller.failed(in_short(error), time.time())
        else:
            verdict = self._poller.observed(seen, time.time())
        self._status = verdict.status
        if self.reschedule:
            # The next look is by another process.
            noted: Any = {"try": _this_try(context), "memory": list(self._poller.memory)}
            context["task_state_store"].set(STATE_KEY, noted)
        self.log.info("%s: %s", self.job_name or self.job_output_location, verdict.detail)
        return verdict

    def _memory(self, context: Context) -> Memory:
        noted: Any = context["task_state_store"].get(STATE_KEY, None) if self.reschedule else None
        if noted is None or noted["try"] != _this_try(context):
            return 0, None, None
        errors, failing_since, suspect_since = noted["memory"]
        return errors, failing_since, suspect_since

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume after the trigger's event."""
        if event["outcome"] == UNRESOLVED:
            self.log.info("The names are not fully qualified: the wait begins here after all.")
            return self.execute(context)
        hook = self.get_hook()
        with hook.open_connection():
            default = hook.default_schema()
            location = StageLocation.parse(self.job_output_location, default)
            name = as_text(self.job_name)
            job = QualifiedName.parse(name, default) if name else None
            if job is not None:
                location = own_directory(location, job)
            self.job_output_location, self.job_name = location.sql, job.sql if job else None
            self._judge(hook, Verdict(Outcome(event["outcome"]), event["detail"], event["status"]))
        return self._result()

    def _judge(self, hook: SnowMLHook, verdict: Verdict) -> bool:
        self._status = verdict.status
        if verdict.outcome in (Outcome.SUCCEEDED, Outcome.WAIT):
            return verdict.outcome is Outcome.SUCCEEDED
        message = f"{self.job_name or self.job_output_location}: {verdict.detail}."
        if verdict.outcome is Outcome.TIMEOUT:
            raise AirflowSensorTimeout(message)
        kinds: dict[Outcome, type[SnowMLError]] = {
            Outcome.FAILED: BatchJobFailedError,
            Outcome.CANCELLED: BatchJobCancelledError,
            Outcome.INCOMPLETE: BatchOutputIncompleteError,
            Outcome.LOST: JobNotFoundError,
            Outcome.POLL_ERRORS: PollingError,
        }
        if self.job_name and verdict.outcome in (Outcome.FAILED, Outcome.CANCELLED, Outcome.INCOMPLETE):
            message += f" The end of its logs:\n{log_tail(hook, QualifiedName.parse(self.job_name))}\n"
        raise kinds[verdict.outcome](message)

    def _result(self) -> dict[str, Any]:
        return {
            "job_output_location": self.job_output_location,
            "job_name": self.job_name,
            "status": self._status,
        }


def _this_try(context: Context) -> list[Any]:
    return [*asdict(run_of(context)).values(), context["ti"].try_number]
