from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from airflow.sdk import Asset, AssetWatcher

from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.hooks.batch_success import SuccessesWatch
from airflow_provider_snowml.triggers.batch_success import SnowMLBatchSuccessEventTrigger


class Store:
    """Airflow's asset state store."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


@pytest.fixture
def base(scoring, request) -> StageLocation:
    hook = scoring.hook()
    with hook.open_connection():
        return StageLocation.parse(f"@ST/{request.node.name.split('[')[0]}", hook.default_schema())


@pytest.fixture
def finish(scoring, base) -> Callable[..., None]:
    """Write some files, as jobs do."""

    def write(*paths: str) -> None:
        hook = scoring.hook()
        with hook.open_connection():
            for path in paths:
                directory, _, name = path.rpartition("/")
                hook.write_file(base / directory, name, b"")

    return write


def watcher(base: StageLocation, store: Store | None = None) -> SnowMLBatchSuccessEventTrigger:
    trigger = SnowMLBatchSuccessEventTrigger(output_stage_location=base.sql, poll_interval=0.3)
    trigger.asset_state_store = store
    return trigger


@contextlib.asynccontextmanager
async def watching(trigger: SnowMLBatchSuccessEventTrigger) -> AsyncIterator[list[str]]:
    """The names of the jobs, as events come."""
    seen: list[str] = []

    async def watch() -> None:
        async for event in trigger.run():
            where = event.payload["job_output_location"]
            assert where == f"{trigger.output_stage_location}{event.payload['job_name']}/"
            seen.append(event.payload["job_name"])

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


def test_it_travels_whole_and_goes_into_a_watcher() -> None:
    trigger = SnowMLBatchSuccessEventTrigger(output_stage_location="@DB.SC.ST/x", role="R", poll_interval=5)
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == (path, arguments)
    assert again.shared_stream_key() == trigger.shared_stream_key()
    Asset("scored", watchers=[AssetWatcher(name="scored", trigger=trigger)])


def test_an_event_for_each_output_that_becomes_complete(base, finish, local_snowflake) -> None:
    store = Store()

    async def first_life() -> None:
        async with watching(watcher(base, store)) as seen:
            await until(lambda: bool(store.values))  # it has looked once
            await asyncio.to_thread(
                finish, "JOB_A1/part.parquet", "JOB_A1/_SUCCESS", "JOB_A2/part.parquet", "deep/er/_SUCCESS"
            )
            await until(lambda: seen == ["JOB_A1"])
            local_snowflake.fault("expire_session", statement="^LIST", times=1)
            await asyncio.to_thread(finish, "JOB_A2/_SUCCESS")
            await until(lambda: len(seen) > 1)
            await asyncio.sleep(1)  # some looks more
            assert seen == ["JOB_A1", "JOB_A2"]

    async def second_life(store: Store | None, expected: list[str]) -> None:
        async with watching(watcher(base, store)) as seen:
            await asyncio.sleep(2)
            await asyncio.to_thread(finish, "JOB_A4/_SUCCESS")
            await until(lambda: "JOB_A4" in seen)
            assert seen == expected

    finish("OLD_A1/_SUCCESS")
    try:
        asyncio.run(first_life())
    finally:
        local_snowflake.clear_faults()
    finish("JOB_A3/_SUCCESS")  # while no triggerer ran
    asyncio.run(second_life(store, ["JOB_A3", "JOB_A4"]))


def test_what_fails_is_looked_at_again(base, finish, scoring) -> None:
    stage = f"{scoring.schema}.NOT_YET"
    nowhere = StageLocation.parse(f"@{stage}/x")

    async def life() -> None:
        async with watching(watcher(nowhere)) as seen:
            await asyncio.sleep(1.5)
            hook = scoring.hook()
            await asyncio.to_thread(hook.rows, f"CREATE STAGE {stage} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
            # What is there when it first sees anything is no news, so there may be one more.
            for n in range(60):
                if seen:
                    break
                await asyncio.to_thread(hook.write_file, nowhere / f"JOB_A{n}", "_SUCCESS", b"")
                await asyncio.sleep(0.5)
            assert seen

    try:
        asyncio.run(life())
    finally:
        scoring.hook().rows(f"DROP STAGE IF EXISTS {stage}")  # other tests count the schema's stages


def test_a_stage_that_is_gone_costs_the_others_no_connection(scoring, base, finish, monkeypatch) -> None:
    finish("JOB_A1/_SUCCESS")
    hook = scoring.hook()
    opened = []
    real = hook.get_conn
    monkeypatch.setattr(hook, "get_conn", lambda: opened.append(1) or real())
    watch = SuccessesWatch(hook)
    try:
        for _ in range(2):
            seen = watch.look(["@GONE/x/", base.sql])
            assert "GONE" in str(seen["@GONE/x/"])
            assert [*seen[base.sql]] == [f"{base.sql}JOB_A1/"]
    finally:
        watch.close()
    assert len(opened) == 1
