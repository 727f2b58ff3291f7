"""The trigger that waits for a batch inference job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_snowml.core.batch_poller import Limits, Poller, Verdict
from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.hooks.batch_jobs import JobWatch, end_job, is_over
from airflow_provider_snowml.hooks.query_tag import tag_of
from airflow_provider_snowml.hooks.snowml import SnowMLHook


class SnowMLBatchJobTrigger(BaseTrigger):
    """Wait until a batch job has ended, by the same judgement as the worker.

    It polls over one connection that it keeps open, in a thread, so that other triggers are not held up. It
    yields one event: ``{"outcome", "detail", "status", "job_name", "job_output_location", "query_id"}`` (see
    :class:`~airflow_provider_snowml.core.batch_poller.Verdict`).

    :param job_output_location: the job's output directory, fully qualified.
    :param job_name: the job's full name; ``None`` to wait for ``_SUCCESS`` alone.
    :param query_id: the statement that starts the job, if known.
    :param hook_arguments: the arguments of the hook.
    :param poll_interval: seconds between polls.
    :param limits: the fields of :class:`~airflow_provider_snowml.core.batch_poller.Limits`.
    :param cancel_on_kill: whether a user's kill of the task cancels the job. Only this job: a newer
        attempt has another name.
    """

    def __init__(
        self,
        *,
        job_output_location: str,
        job_name: str | None,
        query_id: str | None,
        hook_arguments: dict[str, Any],
        poll_interval: float,
        limits: dict[str, Any],
        cancel_on_kill: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_output_location = job_output_location
        self.job_name = job_name
        self.query_id = query_id
        self.hook_arguments = hook_arguments
        self.poll_interval = poll_interval
        self.limits = limits
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "job_output_location": self.job_output_location,
                "job_name": self.job_name,
                "query_id": self.query_id,
                "hook_arguments": self.hook_arguments,
                "poll_interval": self.poll_interval,
                "limits": self.limits,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    def _hook(self) -> SnowMLHook:
        ti = getattr(self, "task_instance", None)
        return SnowMLHook(**self.hook_arguments, query_tag=tag_of(ti) if ti is not None else None)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield the one event."""
        watch = JobWatch(
            await asyncio.to_thread(self._hook),
            Poller(Limits(**self.limits), path_only=self.job_name is None),
            job_name=self.job_name,
            output=StageLocation.parse(self.job_output_location),
            query_id=self.query_id,
        )
        try:
            # Whoever deferred has looked already. A trigger that fires at once can wake the task before
            # Airflow has noticed that it deferred.
            await asyncio.sleep(self.poll_interval)
            while not is_over(verdict := await asyncio.to_thread(watch.look)):
                await asyncio.sleep(self.poll_interval)
            yield TriggerEvent(self._event(verdict))  # type: ignore[no-untyped-call]
        finally:
            await asyncio.to_thread(watch.close)

    def _event(self, verdict: Verdict) -> dict[str, Any]:
        return {
            **asdict(verdict),
            "outcome": verdict.outcome.value,
            "job_name": self.job_name,
            "job_output_location": self.job_output_location,
            "query_id": self.query_id,
        }

    async def on_kill(self) -> None:
        """A user killed, cleared or marked the deferred task: cancel the job that this trigger carries."""
        if not self.cancel_on_kill or self.job_name is None:
            return
        job = QualifiedName.parse(self.job_name)
        try:
            # Not waited for: the framework allows half a minute.
            await asyncio.to_thread(lambda: end_job(self._hook(), job, self.query_id, wait=0))
        except Exception as error:
            self.log.error("Job %s could not be cancelled and may still run: %s", job, error)
