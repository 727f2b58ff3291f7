from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_snowml.assets.models import ModelRef
from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.model_poller import Awaited
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.triggers.models import SnowMLModelVersionEventTrigger, SnowMLModelVersionTrigger

NUMBERS = itertools.count(1)
HOOK: dict[str, Any] = {
    "snowflake_conn_id": "snowflake_default",
    "warehouse": None,
    "database": None,
    "schema": None,
    "role": None,
}


class Store:
    """Airflow's asset state store."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


class Watched:
    """A model that somebody changes."""

    def __init__(self, hook: SnowMLHook, schema: str) -> None:
        self.hook, self.name = hook, f"WATCHED_{next(NUMBERS)}"
        self.full_name = f"{schema}.{self.name}"

    async def create(self) -> None:
        await self._send(f"CREATE MODEL {self.name} WITH VERSION V1 FROM MODEL M VERSION V1")

    async def alter(self, text: str) -> None:
        await self._send(f"ALTER MODEL {self.name} {text}")

    async def add(self, version: str) -> None:
        await self.alter(f"ADD VERSION {version} FROM MODEL M VERSION V1")

    async def _send(self, sql: str) -> None:
        await asyncio.to_thread(self.hook.rows, sql)

    def watcher(self, store: Store | None = None, **arguments: Any) -> SnowMLModelVersionEventTrigger:
        trigger = SnowMLModelVersionEventTrigger(
            **{"model_name": ModelRef(self.full_name), "poll_interval": 0.3, **arguments}
        )
        trigger.asset_state_store = store
        return trigger


@pytest.fixture
def watched(scoring) -> Iterator[Watched]:
    hook = scoring.hook()
    with hook.open_connection():
        yield Watched(hook, scoring.schema)


@contextlib.asynccontextmanager
async def watching(trigger: SnowMLModelVersionEventTrigger) -> AsyncIterator[list[tuple[str | None, str]]]:
    """The former and the new version, as events come."""
    seen: list[tuple[str | None, str]] = []

    async def watch() -> None:
        async for event in trigger.run():
            assert event.payload["model"] == trigger.model_name
            seen.append((event.payload["previous_version"], event.payload["version"]))

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "trigger",
    [
        SnowMLModelVersionEventTrigger(model_name="DB.SC.M", alias=None, role="R", poll_interval=5),
        SnowMLModelVersionTrigger(
            model_name="DB.SC.M",
            awaited=asdict(Awaited("V1")),
            hook_arguments=HOOK,
            poll_interval=5,
            limits=asdict(Limits()),
        ),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_they_travel_whole(trigger) -> None:
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == (path, arguments)
    assert again.shared_stream_key() == trigger.shared_stream_key()


def test_it_goes_into_a_watcher() -> None:
    ref = ModelRef("DB.SC.M")
    Asset(
        ref.uri,
        watchers=[AssetWatcher(name="m", trigger=SnowMLModelVersionEventTrigger(model_name=ref))],
    )


def test_an_event_whenever_another_version_is_the_default(watched, local_snowflake) -> None:
    store = Store()

    async def first_life() -> None:
        async with watching(watched.watcher(store)) as seen:
            await until(lambda: bool(store.values))  # it has looked once; there is no model
            await watched.create()
            await until(lambda: seen == [(None, "V1")])
            local_snowflake.fault("expire_session", statement="^SHOW MODELS", times=1)
            await watched.add("V2")
            await watched.alter("SET DEFAULT_VERSION = V2")
            await until(lambda: seen[1:] == [("V1", "V2")])

    async def second_life() -> None:
        async with watching(watched.watcher(store)) as seen:
            await until(lambda: bool(seen))
            await asyncio.sleep(1)  # some looks more
            assert seen == [("V2", "V1")]

    try:
        asyncio.run(first_life())
    finally:
        local_snowflake.clear_faults()
    asyncio.run(watched.alter("SET DEFAULT_VERSION = V1"))  # while no triggerer ran
    asyncio.run(second_life())


def test_an_alias_that_moves_is_one_event_and_a_new_version_one_of_another_watcher(watched) -> None:
    async def life() -> None:
        await watched.create()
        await watched.alter("VERSION V1 SET ALIAS = CHAMPION")
        stores = Store(), Store()
        async with (
            watching(watched.watcher(stores[0], alias="champion")) as champions,
            watching(watched.watcher(stores[1], alias=None)) as versions,
        ):
            await until(lambda: all(store.values for store in stores))
            await watched.add("V2")
            await watched.alter("VERSION CHAMPION UNSET ALIAS")
            await until(lambda: versions == [(None, "V2")])
            await asyncio.sleep(1)  # some looks while no version has the alias
            assert champions == []
            await watched.alter("VERSION V2 SET ALIAS = CHAMPION")
            await until(lambda: champions == [("V1", "V2")])
        assert versions == [(None, "V2")]

    asyncio.run(life())


def test_waits_and_watchers_share_one_statement(watched, scoring, local_snowflake) -> None:
    """As the triggerer runs them: over its shared streams."""
    note = local_snowflake.fault("note", statement="^SHOW MODELS", times=1000)

    def wait(model: str, version: str) -> SnowMLModelVersionTrigger:
        return SnowMLModelVersionTrigger(
            model_name=model,
            awaited=asdict(Awaited(version)),
            hook_arguments=HOOK,
            poll_interval=0.5,
            limits=asdict(Limits()),
        )

    async def life() -> list[dict[str, Any]]:
        manager = SharedStreamManager()

        async def one(number: int, trigger: Any) -> dict[str, Any]:
            key = trigger.shared_stream_key()
            stream = manager.subscribe(trigger_id=number, trigger=trigger, key=key)
            try:
                async for event in trigger.filter_shared_stream(stream):
                    return dict(event.payload)
                raise AssertionError("no event")
            finally:
                manager.unsubscribe(trigger_id=number, key=key)

        triggers = [
            *(wait(watched.full_name, version) for version in ("V1", "V2")),
            *(wait(f"{scoring.schema}.M", "V2") for _ in range(5)),
            watched.watcher(poll_interval=0.5, alias=None),
        ]
        tasks = [asyncio.create_task(one(number, trigger)) for number, trigger in enumerate(triggers)]
        await asyncio.gather(*tasks[2:7])
        await watched.create()
        await tasks[0]
        await watched.add("V2")
        return await asyncio.gather(*tasks)

    try:
        events = asyncio.run(asyncio.wait_for(life(), 240))
        (found,) = [fault for fault in local_snowflake.faults() if fault["id"] == note]
    finally:
        local_snowflake.clear_faults()
    assert [event["version"] for event in events[:2]] == ["V1", "V2"]
    assert {event["outcome"] for event in events[:7]} == {"found"}
    assert len({text for text in found["requests"] if " LIKE " not in text}) == 1
    assert len(found["requests"]) < 8 * 3, "each wait looked for itself"
