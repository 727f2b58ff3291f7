"""One poll for all triggers that wait in one place, by Airflow's shared streams.

The stream is opened with the arguments of one of the triggers. What the others wait for it finds here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_snowml.core.names import SchemaName

# How many triggers of this process wait for each thing, by the key of their poll.
_waiting: Counter[tuple[Hashable, Hashable]] = Counter()


class Watch(Protocol):
    """What can be looked at again and again; nothing is raised."""

    def look(self, waited: Collection[Any]) -> dict[Any, Any]:
        """What is seen of each thing that is waited for; a text is why the look failed."""

    def close(self) -> None:
        """Close its connection."""


@dataclass(frozen=True)
class Look:
    """One look.

    :param began: when, an epoch.
    :param seen: what it saw, by thing.
    """

    began: float
    seen: dict[Any, Any]


def poll_key(what: str, hook_arguments: dict[str, Any], schema: SchemaName, poll_interval: float) -> Hashable:
    """Who has an equal key shares the poll: the same connection, schema and interval."""
    return (f"snowml {what}", json.dumps(hook_arguments, sort_keys=True), schema.sql, poll_interval)


async def poll(key: Hashable, poll_interval: float, make_watch: Callable[[], Watch]) -> AsyncIterator[Look]:
    """Look again and again at all that is waited for with a key.

    :param key: the poll's key.
    :param poll_interval: seconds between looks.
    :param make_watch: opens nothing yet.
    """
    # The connection is used, and closed, by one thread only, so that other triggers are not held up.
    with ThreadPoolExecutor(1, thread_name_prefix="snowml-poll") as thread:

        async def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)

        watch = await call(make_watch)
        try:
            while True:
                await asyncio.sleep(poll_interval)
                began = time.time()
                yield Look(
                    began, await call(watch.look, {thing for where, thing in _waiting if where == key})
                )
        finally:
            await call(watch.close)


async def alone(trigger: BaseEventTrigger) -> AsyncGenerator[TriggerEvent, None]:
    """A trigger's events where nothing shares its poll, as in ``dag.test()``.

    :param trigger: the trigger.
    """
    stream = trigger.open_shared_stream(trigger.serialize()[1])
    try:
        async for event in trigger.filter_shared_stream(stream):
            yield event
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


@contextmanager
def waiting(key: Hashable, thing: Hashable, poll_interval: float) -> Iterator[Callable[[Look], bool]]:
    """Have a thing looked at; gives a function that says whether a look counts.

    Whoever deferred has looked already, and a trigger that fires at once can wake the task before Airflow has
    noticed that it deferred: a look counts that began well after this wait.
    """
    earliest = time.time() + poll_interval / 2
    _waiting[key, thing] += 1
    try:
        yield lambda look: thing in look.seen and look.began >= earliest
    finally:
        _waiting[key, thing] -= 1
        if _waiting[key, thing] <= 0:
            del _waiting[key, thing]
