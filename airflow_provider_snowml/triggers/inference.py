"""The trigger that waits for a batch inference job."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_snowml.core.batch_poller import Limits, Observation, Poller, Verdict
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.hooks.batch_jobs import JobsWatch, Waited, end_job, is_over, judge, log_change
from airflow_provider_snowml.hooks.query_tag import tag_of
from airflow_provider_snowml.hooks.snowml import SnowMLHook

# When a look began, and what it saw.
Snapshot = tuple[float, dict[Waited, Observation | str]]


class SnowMLBatchJobTrigger(BaseEventTrigger):
    """Wait until a batch job has ended, by the same judgement as the worker; many share one poll.

    Those with the same hook arguments, schema and poll interval share a connection, on which each poll lists
    the schema's jobs once and looks into those that are not (or no longer) live. It yields one event:
    ``{"outcome", "detail", "status", "job_name", "job_output_location", "query_id"}`` (see
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

    # How many triggers of this process wait for each job. The stream is opened with the arguments of one of
    # them; here it finds what the others wait for.
    _waited_for: Counter[tuple[Hashable, Waited]] = Counter()

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

    def shared_stream_key(self) -> Hashable:
        """One poll for the same connection, schema and interval."""
        return _key(self.serialize()[1])

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """Look at the schema's jobs again and again. A look that fails is an event too, never raised."""
        key, schema = _key(kwargs), _schema(kwargs)
        # The connection is used, and closed, by one thread only.
        with ThreadPoolExecutor(1, thread_name_prefix="snowml-jobs") as thread:

            async def call(function: Callable[..., Any], *arguments: Any) -> Any:
                return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)

            watch = JobsWatch(await call(lambda: SnowMLHook(**kwargs["hook_arguments"])), schema)
            try:
                while True:
                    # First: whoever deferred has looked already. A trigger that fires at once can wake the
                    # task before Airflow has noticed that it deferred.
                    await asyncio.sleep(kwargs["poll_interval"])
                    began = time.time()
                    waited = {job for where, job in cls._waited_for if where == key}
                    yield began, await call(watch.look, waited)
            finally:
                await call(watch.close)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Judge this trigger's job in each look, and yield the one event."""
        job = Waited(self.job_name, self.job_output_location, self.query_id)
        poller = Poller(Limits(**self.limits), path_only=self.job_name is None)
        waited, started, last = (self.shared_stream_key(), job), time.time(), ""
        self._waited_for[waited] += 1
        try:
            async for began, seen in shared_stream:
                if job not in seen or began < started + self.poll_interval / 2:
                    continue  # begun before this trigger was there, or too soon after the task deferred
                verdict = judge(poller, seen[job])
                last = log_change(self.job_name or self.job_output_location, verdict, last)
                if is_over(verdict):
                    yield TriggerEvent(self._event(verdict))  # type: ignore[no-untyped-call]
                    return
        finally:
            self._waited_for[waited] -= 1
            if self._waited_for[waited] <= 0:
                del self._waited_for[waited]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing, where nothing shares: ``dag.test()``."""
        stream = self.open_shared_stream(self.serialize()[1])
        try:
            async for event in self.filter_shared_stream(stream):
                yield event
                return
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

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
        try:
            # Not waited for: the framework allows half a minute.
            await asyncio.to_thread(lambda: end_job(self._hook(), job, self.query_id, wait=0))
        except Exception as error:
            self.log.error("Job %s could not be cancelled and may still run: %s", job, error)


def _schema(kwargs: dict[str, Any]) -> SchemaName:
    """The job's schema, else that of its output's stage."""
    if kwargs["job_name"]:
        return QualifiedName.parse(kwargs["job_name"]).parent
    return StageLocation.parse(kwargs["job_output_location"]).stage.parent


def _key(kwargs: dict[str, Any]) -> Hashable:
    arguments = json.dumps(kwargs["hook_arguments"], sort_keys=True)
    return ("snowml jobs", arguments, _schema(kwargs).sql, kwargs["poll_interval"])
