from __future__ import annotations

import asyncio
import importlib
from dataclasses import asdict
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import InsufficientPrivilegesError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.local.launch import LocalSnowflake
from airflow_provider_snowml.triggers import shared_poll
from airflow_provider_snowml.triggers.inference import SnowMLBatchJobTrigger


def trigger(job: str | None, location: str, **arguments: Any) -> SnowMLBatchJobTrigger:
    defaults: dict[str, Any] = {
        "query_id": None,
        "hook_arguments": {
            "snowflake_conn_id": "snowflake_default",
            "warehouse": "SNOWML_WH",
            "database": None,
            "schema": None,
            "role": "SYSADMIN",
        },
        "poll_interval": 0.1,
        "limits": asdict(Limits(grace=1, max_errors=3)),
        "cancel_on_kill": True,
    }
    return SnowMLBatchJobTrigger(job_name=job, job_output_location=location, **{**defaults, **arguments})


async def first_event(task: SnowMLBatchJobTrigger) -> dict[str, Any]:
    async for event in task.run():
        return dict(event.payload)
    raise AssertionError("no event")


def start(scoring, name: str, seconds: float) -> tuple[str, str]:
    hook = scoring.hook()
    location = f"@{scoring.schema}.ST/triggered"
    hook.rows(
        f"EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL {scoring.pool} WITH SPECIFICATION "
        f"'output:\n  stage_location: \\'{location}/\\'\n' FROM (SELECT {seconds}::FLOAT AS F1) "
        f"MODEL = {scoring.schema}.SLOW VERSION = V1 FUNCTION = 'predict' NAME = {scoring.schema}.{name} "
        "ASYNC = TRUE"
    )
    return f"{scoring.schema}.{name}", f"{location}/{name}/"


def test_it_travels_whole(scoring) -> None:
    task = trigger("DB.SC.J", "@DB.SC.ST/x/J/")
    path, arguments = task.serialize()
    module, name = path.rsplit(".", 1)
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == (path, arguments)
    assert arguments["hook_arguments"]["role"] == "SYSADMIN"


def test_its_event_says_how_the_job_ended(scoring) -> None:
    job, location = start(scoring, "TRIGGERED", 1)
    event = asyncio.run(first_event(trigger(job, location)))
    assert (event["outcome"], event["status"], event["job_name"]) == ("succeeded", "DONE", job)
    assert event["job_output_location"] == location


def test_passing_errors_are_tolerated_and_lasting_ones_leave_the_job(scoring, monkeypatch) -> None:
    job, location = start(scoring, "TOLERATED", 2)
    real = SnowMLHook.list_jobs
    looks = iter([True, True, False, True, True])

    def flaky(self: SnowMLHook, *arguments: Any) -> Any:
        if next(looks, False):
            raise ConnectionError("gone")
        return real(self, *arguments)

    monkeypatch.setattr(SnowMLHook, "list_jobs", flaky)
    assert asyncio.run(first_event(trigger(job, location)))["outcome"] == "succeeded"

    looks = iter([True] * 3)
    event = asyncio.run(first_event(trigger(job, location)))
    assert event["outcome"] == "poll_errors"
    assert "ConnectionError: gone" in event["detail"]


def test_a_wait_for_the_path_alone_survives_its_session(scoring, local_snowflake) -> None:
    """Only looks that fail tell that its connection is of no use any more."""
    _, location = start(scoring, "SESSIONLESS", 3)
    waiting = trigger(None, location, limits=asdict(Limits(grace=1, max_errors=4)))
    local_snowflake.fault("expire_session", statement=f"^LIST.*{location}", times=1)
    try:
        event = asyncio.run(first_event(waiting))
        (fault,) = local_snowflake.faults()
    finally:
        local_snowflake.clear_faults()
    assert fault["seen"] > 1
    assert event["outcome"] == "succeeded"


async def together(*triggers: SnowMLBatchJobTrigger) -> list[dict[str, Any]]:
    """Run triggers as the triggerer does: over its shared streams."""
    manager = SharedStreamManager()

    async def one(number: int, task: SnowMLBatchJobTrigger) -> dict[str, Any]:
        key = task.shared_stream_key()
        stream = manager.subscribe(trigger_id=number, trigger=task, key=key)
        try:
            async for event in task.filter_shared_stream(stream):
                return dict(event.payload)
            raise AssertionError("no event")
        finally:
            await manager.unsubscribe(number, key)

    return await asyncio.gather(*(one(number, task) for number, task in enumerate(triggers)))


def test_many_share_one_poll(scoring, monkeypatch) -> None:
    logins, looked_into = [], []
    connect, observe = SnowMLHook.get_conn, SnowMLHook.observe_job

    def counted(self: SnowMLHook, job: Any, *arguments: Any) -> Any:
        looked_into.append(job.name.name)
        if job.name.name == "SNOWML_FORBIDDEN":
            raise InsufficientPrivilegesError("not yours")
        return observe(self, job, *arguments)

    quick = start(scoring, "SNOWML_QUICK", 1)
    slow = start(scoring, "SNOWML_LONGER", 4)
    bad = start(scoring, "SNOWML_BROKEN", -1)
    stranger = start(scoring, "STRANGER", 1)  # a name that is not ours is looked into one by one
    missing, forbidden = (
        (f"{scoring.schema}.SNOWML_{what}", f"@{scoring.schema}.ST/triggered/SNOWML_{what}/")
        for what in ("MISSING", "FORBIDDEN")
    )
    monkeypatch.setattr(SnowMLHook, "observe_job", counted)
    monkeypatch.setattr(SnowMLHook, "get_conn", lambda self: logins.append(1) or connect(self))
    jobs = [quick, quick, slow, bad, stranger, missing, forbidden]
    tasks = [trigger(job, location, poll_interval=0.3) for job, location in jobs]
    assert len({task.shared_stream_key() for task in tasks}) == 1
    events = asyncio.run(together(*tasks))
    assert [event["job_name"] for event in events] == [job for job, _ in jobs]
    outcomes = ["succeeded", "succeeded", "succeeded", "failed", "succeeded", "lost", "poll_errors"]
    assert [event["outcome"] for event in events] == outcomes
    assert "not yours" in events[-1]["detail"]
    assert len(logins) == 1
    assert looked_into.count("SNOWML_LONGER") <= 3  # not while it is live
    assert not shared_poll._waiting


@pytest.fixture
def bad_day(local_snowflake):
    """The local Snowflake; what is left of its faults is forgotten."""
    yield local_snowflake
    local_snowflake.clear_faults()


@pytest.mark.parametrize("kind", ["expire_session", "drop_request", "refuse"])
def test_a_shared_poll_survives_what_befalls_its_connection(scoring, bad_day, kind) -> None:
    waited = [start(scoring, f"SNOWML_{kind}_{n}".upper(), 2) for n in range(2)]
    bad_day.fault(kind, statement="^SHOW JOB SERVICES", skip=1, times=2)
    limits = asdict(Limits(grace=5, max_errors=8))
    events = asyncio.run(together(*(trigger(*one, limits=limits, poll_interval=0.3) for one in waited)))
    assert [event["outcome"] for event in events] == ["succeeded"] * 2
    (fault,) = bad_day.faults()
    assert fault["seen"] > 1


def test_a_shared_poll_survives_a_server_that_restarts(tmp_path, monkeypatch) -> None:
    """Nothing is known but paths: with its jobs, it would be a test of the server."""
    with LocalSnowflake(tmp_path) as snowflake:
        monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", snowflake.airflow_connection_uri)
        hook = SnowMLHook()
        hook.rows("CREATE STAGE RESTARTED ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
        with hook.open_connection():
            schema = hook.default_schema()
        locations = [StageLocation.parse(f"@RESTARTED/job{n}", schema) for n in range(2)]

        async def restart() -> None:
            await asyncio.sleep(1)
            await asyncio.to_thread(snowflake.kill)
            await asyncio.sleep(1)
            await asyncio.to_thread(snowflake.restart)
            for location in locations:
                await asyncio.to_thread(hook.write_file, location, "_SUCCESS", b"")

        async def both() -> list[dict[str, Any]]:
            limits = asdict(Limits(max_errors=1000))
            waits = [trigger(None, location.sql, limits=limits, poll_interval=0.3) for location in locations]
            _, events = await asyncio.gather(restart(), together(*waits))
            return events

        assert [event["outcome"] for event in asyncio.run(both())] == ["succeeded"] * 2


def test_other_connections_schemas_and_intervals_have_their_own_poll(scoring) -> None:
    job, location = "DB.SC.J", "@DB.SC.ST/x/J/"
    other = trigger(job, location).hook_arguments | {"role": "OTHER"}
    keys = [
        task.shared_stream_key()
        for task in (
            trigger(job, location),
            trigger("DB.OTHER.J", location),
            trigger(job, location, poll_interval=5),
            trigger(job, location, hook_arguments=other),
        )
    ]
    assert len(set(keys)) == 4
    assert trigger(None, location).shared_stream_key() == keys[0]


def test_a_kill_cancels_its_job_and_no_other(scoring) -> None:
    from airflow_provider_snowml.core.names import QualifiedName

    old, old_location = start(scoring, "KILLED_A1", 60)
    new, _ = start(scoring, "KILLED_A2", 60)
    hook = scoring.hook()
    asyncio.run(trigger(old, old_location, cancel_on_kill=False).on_kill())
    assert hook.job_status(QualifiedName.parse(old)) in ("PENDING", "RUNNING")
    asyncio.run(trigger(old, old_location).on_kill())
    event = asyncio.run(first_event(trigger(old, old_location)))
    assert event["outcome"] == "cancelled"
    assert hook.job_status(QualifiedName.parse(new)) in ("PENDING", "RUNNING")
    hook.cancel_job(QualifiedName.parse(new))
