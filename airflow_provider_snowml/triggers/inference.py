"""The trigger that waits for a batch inference job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_snowml.core.batch_poller import Limits, Outcome, Poller, Verdict
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.batch_jobs import (
    is_over,
    judge,
    kill_job,
    own_directory,
)
from airflow_provider_snowml.hooks.jobs_watch import JobsWatch, Waited
from airflow_provider_snowml.hooks.query_tag import tag_of
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import log_change
from airflow_provider_snowml.triggers.shared_poll import Look, alone, poll, poll_key, waiting

UNRESOLVED = "unresolved"


class SnowMLBatchJobTrigger(BaseEventTrigger):
    """Wait until a batch job has ended, by the same judgement as the worker; many share one poll.

    Those with the same hook arguments, schema and poll interval share a connection, on which each poll lists
    the schema's jobs once, and once the directory of outputs that may be complete. It yields one event:
    ``{"outcome", "detail", "status", "job_name", "job_output_location", "query_id"}`` (see
    :class:`~airflow_provider_snowml.core.batch_poller.Verdict`).

    A sensor can start here, without a worker before (``start_from_trigger``). Then the names are as its
    templates give them; if they are not fully qualified, the one event says ``"unresolved"`` at once, and the
    worker goes on.

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

    def shared_stream_key(self) -> Hashable | None:
        """One poll for the same connection, schema and interval."""
        return _key(self.serialize()[1]) if self._is_resolved() else None

    def _is_resolved(self) -> bool:
        """Whether the names say all. They are then written as Snowflake lists them."""
        try:
            location = StageLocation.parse(self.job_output_location)
            job = QualifiedName.parse(self.job_name) if self.job_name is not None else None
        except InvalidArgumentError:
            return False
        if job is not None:
            location = own_directory(location, job)
        self.job_output_location, self.job_name = location.sql, job.sql if job is not None else None
        return True

    @classmethod
    def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Look]:
        """Look at the schema's jobs again and again. A look that fails is an event too, never raised."""
        return poll(
            _key(kwargs),
            kwargs["poll_interval"],
            lambda: JobsWatch(SnowMLHook(**kwargs["hook_arguments"]), _schema(kwargs)),
        )

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Judge this trigger's job in each look, and yield the one event."""
        job = Waited(self.job_name, self.job_output_location, self.query_id)
        poller, last = Poller(Limits(**self.limits), path_only=self.job_name is None), ""
        with waiting(self.shared_stream_key(), job, self.poll_interval) as counts:
            async for look in shared_stream:
                if not counts(look):
                    continue
                verdict = judge(poller, look.seen[job])
                last = log_change(self.job_name or self.job_output_location, verdict.detail, last)
                if is_over(verdict):
                    yield TriggerEvent(self._event(verdict))  # type: ignore[no-untyped-call]
                    return

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing, where nothing shares: ``dag.test()``."""
        if not self._is_resolved():
            yield TriggerEvent(self._event(Verdict(Outcome.WAIT, "")) | {"outcome": UNRESOLVED})  # type: ignore[no-untyped-call]
            return
        async with aclosing(alone(self)) as events:
            async for event in events:
                yield event

    def _hook(self) -> SnowMLHook:
        ti = getattr(self, "task_instance", None)
        return SnowMLHook(**self.hook_arguments, query_tag=tag_of(ti) if ti is not None else None)

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
        # Not waited for: the framework allows half a minute.
        await asyncio.to_thread(lambda: kill_job(self._hook(), job, self.query_id))


def _schema(kwargs: dict[str, Any]) -> SchemaName:
    """The job's schema, else that of its output's stage."""
    if kwargs["job_name"]:
        return QualifiedName.parse(kwargs["job_name"]).parent
    return StageLocation.parse(kwargs["job_output_location"]).stage.parent


def _key(kwargs: dict[str, Any]) -> Hashable:
    return poll_key("jobs", kwargs["hook_arguments"], _schema(kwargs), kwargs["poll_interval"])
