from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import InsufficientPrivilegesError
from airflow_provider_snowml.hooks import jobs_watch, watching
from airflow_provider_snowml.hooks.batch_jobs import cancel_build
from airflow_provider_snowml.hooks.jobs_watch import JobsWatch
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.local.launch import LocalSnowflake
from airflow_provider_snowml.triggers import shared_poll
from airflow_provider_snowml.triggers.inference import SnowMLBatchJobTrigger
from benchmarks.counting import connection_of


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


def statement(scoring, name: str, seconds: float, *, pool: str | None = None, build: bool = False) -> str:
    image = "image_build:\n  force_rebuild: true\n" if build else ""
    return (
        f"EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL {pool or scoring.pool} WITH SPECIFICATION "
        f"'output:\n  stage_location: \\'@{scoring.schema}.ST/triggered/\\'\n{image}' "
        f"FROM (SELECT {seconds}::FLOAT AS F1) MODEL = {scoring.schema}.SLOW VERSION = V1 "
        f"FUNCTION = 'predict' NAME = {name} ASYNC = TRUE"
    )


def start(scoring, name: str, seconds: float) -> tuple[str, str]:
    job = f"{scoring.schema}.{name}"
    scoring.hook().rows(statement(scoring, job, seconds))
    return job, f"@{scoring.schema}.ST/triggered/{name}/"


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
    logins, looked_for = [], []
    connect, status = SnowMLHook.get_conn, SnowMLHook.job_status

    def counted(self: SnowMLHook, job: Any) -> Any:
        looked_for.append(job.name.name)
        if job.name.name == "SNOWML_FORBIDDEN":
            raise InsufficientPrivilegesError("not yours", query_id="a-query")
        return status(self, job)

    quick = start(scoring, "SNOWML_QUICK", 1)
    slow = start(scoring, "SNOWML_LONGER", 4)
    bad = start(scoring, "SNOWML_BROKEN", -1)
    stranger = start(scoring, "STRANGER", 1)
    missing, forbidden = (
        (f"{scoring.schema}.SNOWML_{what}", f"@{scoring.schema}.ST/triggered/SNOWML_{what}/")
        for what in ("MISSING", "FORBIDDEN")
    )
    monkeypatch.setattr(SnowMLHook, "job_status", counted)
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
    assert {*looked_for} == {"SNOWML_MISSING", "SNOWML_FORBIDDEN"}  # the others are listed
    assert not shared_poll._waiting


@pytest.fixture
def bad_day(local_snowflake):
    """The local Snowflake; what is left of its faults is forgotten."""
    yield local_snowflake
    local_snowflake.clear_faults()


@pytest.mark.parametrize("kind", ["expire_session", "drop_request", "refuse"])
def test_a_shared_poll_survives_what_befalls_its_connection(scoring, bad_day, kind) -> None:
    waited = [start(scoring, f"SNOWML_{kind}_{n}".upper(), 2) for n in range(2)]
    bad_day.fault(kind, statement="^SHOW JOB SERVICES", times=2)
    limits = asdict(Limits(grace=5, max_errors=8))
    events = asyncio.run(together(*(trigger(*one, limits=limits, poll_interval=0.3) for one in waited)))
    assert [event["outcome"] for event in events] == ["succeeded"] * 2
    (fault,) = bad_day.faults()
    assert fault["seen"] > 1


@pytest.fixture
def rounds(bad_day, scoring, monkeypatch):
    """Counts the looks of polls over the connection ``poller``, and what they ask for, by its beginning."""
    monkeypatch.setenv("AIRFLOW_CONN_POLLER", connection_of(bad_day, "POLLER", scoring.name))
    looks: list[int] = []
    real = JobsWatch.look
    monkeypatch.setattr(JobsWatch, "look", lambda *it: looks.append(1) or real(*it))
    bad_day.fault("note", user="POLLER", times=10**6)

    def read() -> tuple[int, Counter[str]]:
        (note,) = bad_day.faults()
        kinds = ("SHOW JOB SERVICES", "LIST", "DESCRIBE", "GET /monitoring/queries/")
        found = Counter(
            next((kind for kind in kinds if text.startswith(kind)), text)
            for text in note["requests"]
            if "/session" not in text and "/login" not in text
        )
        return len(looks), found

    return read


def test_waits_for_paths_in_one_directory_are_one_listing(scoring, rounds) -> None:
    hook, polled = scoring.hook(), {"hook_arguments": {"snowflake_conn_id": "poller"}, "poll_interval": 0.5}
    base = StageLocation.parse(f"@{scoring.schema}.ST/many_paths")
    outputs = [base / f"JOB_{n}" for n in range(20)]

    async def live() -> tuple[list[dict[str, Any]], tuple[int, Counter[str]]]:
        events = asyncio.create_task(together(*(trigger(None, one.sql, **polled) for one in outputs)))
        while rounds()[0] < 3:
            await asyncio.sleep(0.2)
        await asyncio.to_thread(finish)
        return await events, rounds()

    def finish() -> None:
        with hook.open_connection():
            for output in outputs:
                hook.write_file(output, "_SUCCESS", b"")

    events, (looks, requests) = asyncio.run(live())
    assert [event["outcome"] for event in events] == ["succeeded"] * 20
    assert requests == {"LIST": looks}


def test_waits_for_images_are_one_listing_and_some_looks_at_statements(scoring, rounds, monkeypatch) -> None:
    """No statement asks after statements, and no more than a few requests."""
    monkeypatch.setattr(jobs_watch, "STATEMENTS_PER_LOOK", 7)
    hook, polled = scoring.hook(), {"hook_arguments": {"snowflake_conn_id": "poller"}, "poll_interval": 0.5}
    names = [f"{scoring.schema}.SNOWML_BUILDING_{n}" for n in range(20)]
    with hook.open_connection():
        hook.rows(
            "CREATE COMPUTE POOL IF NOT EXISTS SLEEPING_POOL MIN_NODES = 1 MAX_NODES = 1 "
            "INSTANCE_FAMILY = CPU_X64_XS AUTO_RESUME = FALSE INITIALLY_SUSPENDED = TRUE"
        )
        sent = [hook.submit(statement(scoring, name, 0, pool="SLEEPING_POOL", build=True)) for name in names]
    waits = [
        trigger(name, f"@{scoring.schema}.ST/triggered/{name}/", query_id=query_id, **polled)
        for name, query_id in zip(names, sent, strict=True)
    ]

    async def live() -> tuple[list[dict[str, Any]], tuple[int, Counter[str]]]:
        events = asyncio.create_task(together(*waits))
        while rounds()[0] < 4:
            await asyncio.sleep(0.2)
        seen = rounds()
        await asyncio.to_thread(end)
        return await events, seen

    def end() -> None:
        with hook.open_connection():
            for name, query_id in zip(names, sent, strict=True):
                hook.cancel_statement(query_id)
                cancel_build(hook, QualifiedName.parse(name), query_id)

    events, (looks, requests) = asyncio.run(live())
    assert [event["outcome"] for event in events] == ["failed"] * 20
    assert requests.keys() == {"SHOW JOB SERVICES", "GET /monitoring/queries/"}
    assert requests["SHOW JOB SERVICES"] <= looks
    assert requests["GET /monitoring/queries/"] <= 7 * looks


@pytest.mark.parametrize("asked", ["^SHOW JOB SERVICES", ""], ids=["statement", "whatever"])
def test_a_network_that_hangs_does_not_hang_those_that_wait(scoring, bad_day, monkeypatch, asked) -> None:
    """Requests that nobody answers are given up, while their connections stay open."""
    monkeypatch.setattr(watching, "TIMEOUTS", {"login_timeout": 2, "network_timeout": 2, "socket_timeout": 1})
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", connection_of(bad_day, "HUNG", scoring.name))
    waited = [start(scoring, f"SNOWML_HUNG_{len(asked)}_{n}", 1) for n in range(2)]
    bad_day.fault("hold", user="HUNG", statement=asked, times=4)
    limits = asdict(Limits(grace=30, max_errors=20))
    events = asyncio.run(together(*(trigger(*one, limits=limits, poll_interval=0.3) for one in waited)))
    (fault,) = bad_day.faults()
    assert fault["held"] and fault["seen"] > 4
    assert [event["outcome"] for event in events] == ["succeeded"] * 2


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
