from __future__ import annotations

import asyncio
import importlib
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_snowml.core.batch_poller import Limits, Statement
from airflow_provider_snowml.core.model_service import DeploymentIntent
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.hooks import services as service_hooks
from airflow_provider_snowml.hooks.services import find_service
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.triggers import shared_poll
from airflow_provider_snowml.triggers.services import (
    SnowMLServiceDeploymentTrigger,
    SnowMLServiceReadyTrigger,
)

HOOK: dict[str, Any] = {
    "snowflake_conn_id": "snowflake_default",
    "warehouse": "SNOWML_WH",
    "database": None,
    "schema": None,
    "role": "SYSADMIN",
}
LIMITS = asdict(Limits(grace=1, max_errors=3))


def deployment(serving: Any, name: str, query_id: str | None, **arguments: Any):
    hook = serving.hook()
    since = service_hooks.snowflake_time(hook) - timedelta(minutes=5)
    intent = DeploymentIntent(
        run_id="run",
        clear_number=0,
        service_name=f"{serving.schema}.{name}",
        fingerprint="",
        model=f"{serving.schema}.M",
        version_reference="default",
        version="V1",
        since=since.isoformat(),
        query_id=query_id,
        **arguments.pop("intent", {}),
    )
    defaults = {
        "hook_arguments": HOOK,
        "poll_interval": 0.2,
        "limits": LIMITS,
        "until_ready": True,
        "cancel_on_kill": True,
    }
    return SnowMLServiceDeploymentTrigger(intent=intent.to_dict(), **{**defaults, **arguments})


def ready(serving: Any, name: str, **arguments: Any) -> SnowMLServiceReadyTrigger:
    defaults = {"hook_arguments": HOOK, "poll_interval": 0.2, "limits": LIMITS}
    return SnowMLServiceReadyTrigger(service_name=f"{serving.schema}.{name}", **{**defaults, **arguments})


async def first_event(events: Any) -> dict[str, Any]:
    async for event in events:
        return dict(event.payload)
    raise AssertionError("no event")


async def together(*triggers: SnowMLServiceReadyTrigger) -> list[dict[str, Any]]:
    """Run triggers as the triggerer does: over its shared streams."""
    manager = SharedStreamManager()

    async def one(number: int, trigger: SnowMLServiceReadyTrigger) -> dict[str, Any]:
        key = trigger.shared_stream_key()
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            return await first_event(trigger.filter_shared_stream(stream))
        finally:
            await manager.unsubscribe(number, key)

    return await asyncio.gather(*(one(number, trigger) for number, trigger in enumerate(triggers)))


@pytest.fixture
def streams(monkeypatch) -> list[dict[str, Any]]:
    """The arguments of each stream that is opened."""
    opened: list[dict[str, Any]] = []
    real = SnowMLServiceReadyTrigger.open_shared_stream.__func__

    def counted(cls: type, kwargs: dict[str, Any]) -> Any:
        opened.append(kwargs)
        return real(cls, kwargs)

    monkeypatch.setattr(SnowMLServiceReadyTrigger, "open_shared_stream", classmethod(counted))
    return opened


def test_they_travel_whole(serving) -> None:
    for task in (deployment(serving, "SVC", "q1"), ready(serving, "SVC")):
        path, arguments = task.serialize()
        module, name = path.rsplit(".", 1)
        again = getattr(importlib.import_module(module), name)(**arguments)
        assert again.serialize() == (path, arguments)
        assert arguments["hook_arguments"]["role"] == "SYSADMIN"


def test_the_deployments_event_says_which_service_got_ready(serving) -> None:
    query = serving.deploy("DEPLOYED", wait=False)
    event = asyncio.run(first_event(deployment(serving, "DEPLOYED", query).run()))
    assert (event["outcome"], event["status"], event["instances"]) == ("ready", "RUNNING", 1)
    found = find_service(serving.hook(), QualifiedName.parse(event["intent"]["service_name"]))
    assert event["intent"]["created_on"] == found.created_on.isoformat()


def test_a_failed_statement_is_reported_with_snowflakes_message(serving) -> None:
    query = serving.deploy("NEVER", wait=False, version="V9")
    event = asyncio.run(first_event(deployment(serving, "NEVER", query).run()))
    assert event["outcome"] == "failed"
    assert "V9" in event["detail"]


def test_a_kill_ends_its_deployment_and_no_other(serving) -> None:
    query = serving.deploy("ONE", wait=False, pool=serving.sleeping)
    hook, name = serving.hook(), QualifiedName.parse(f"{serving.schema}.ONE")
    asyncio.run(deployment(serving, "ONE", query, cancel_on_kill=False).on_kill())
    while (service := find_service(hook, name)) is None:
        assert hook.statement(query)[0] is Statement.RUNNING
    # Another service of the name than the one that it has seen.
    earlier = (service.created_on - timedelta(seconds=1)).isoformat()
    asyncio.run(deployment(serving, "ONE", None, intent={"created_on": earlier}).on_kill())
    # One that came before its statement.
    late = serving.deploy("ONE", wait=False)
    seen = service.created_on.isoformat()
    while hook.statement(late)[0] is Statement.RUNNING:
        time.sleep(0.2)
    asyncio.run(deployment(serving, "ONE", late, intent={"created_on": seen}).on_kill())
    # One that is reused.
    asyncio.run(deployment(serving, "ONE", None, intent={"reused": True}).on_kill())
    assert serving.services() == {"ONE": "PENDING"}
    asyncio.run(deployment(serving, "ONE", query).on_kill())
    assert not serving.services()
    assert hook.statement(query)[0] is Statement.FAILED


def test_a_kill_keeps_what_is_ready(serving) -> None:
    serving.deploy("READY")
    asyncio.run(deployment(serving, "READY", None).on_kill())
    assert serving.services() == {"READY": "RUNNING"}


def test_many_share_one_poll(serving, streams) -> None:
    serving.deploy("FIRST")
    serving.deploy("SECOND", wait=False)
    serving.deploy("BAD", model="BROKEN", wait=False)
    names = ["FIRST", "FIRST", "SECOND", "BAD", "MISSING"]
    graces = [1, 1, 120, 120, 1]
    events = asyncio.run(
        together(
            *(
                ready(serving, name, limits={**LIMITS, "grace": grace})
                for name, grace in zip(names, graces, strict=True)
            )
        )
    )
    assert [event["service_name"] for event in events] == [f"{serving.schema}.{name}" for name in names]
    assert [event["outcome"] for event in events] == ["ready", "ready", "ready", "failed", "lost"]
    assert "broken on purpose" in events[3]["detail"]
    assert len(streams) == 1
    assert not shared_poll._waiting


def test_other_connections_schemas_and_intervals_have_their_own(serving) -> None:
    other_role = {**HOOK, "role": "OTHER"}
    keys = {
        trigger.shared_stream_key()
        for trigger in (
            ready(serving, "FIRST"),
            ready(serving, "SECOND"),
            ready(serving, "FIRST", hook_arguments=other_role),
            ready(serving, "FIRST", poll_interval=5),
            SnowMLServiceReadyTrigger(
                service_name="OTHER.SCHEMA.FIRST", hook_arguments=HOOK, poll_interval=0.2, limits=LIMITS
            ),
        )
    }
    assert len(keys) == 4


def test_passing_errors_are_tolerated_and_lasting_ones_end_each_wait(serving, monkeypatch, streams) -> None:
    serving.deploy("FLAKY")
    real = service_hooks.list_services
    looks = iter([True, True, False])

    def flaky(*arguments: Any) -> Any:
        if next(looks, False):
            raise ConnectionError("gone")
        return real(*arguments)

    monkeypatch.setattr(service_hooks, "list_services", flaky)
    assert asyncio.run(together(ready(serving, "FLAKY")))[0]["outcome"] == "ready"

    looks = iter([True] * 10)
    patient = {**LIMITS, "max_errors": 5}
    events = asyncio.run(together(ready(serving, "FLAKY"), ready(serving, "FLAKY", limits=patient)))
    assert [event["outcome"] for event in events] == ["poll_errors", "poll_errors"]
    assert [event["detail"].split()[0] for event in events] == ["3", "5"]
    assert len(streams) == 2


def test_one_that_may_not_be_looked_into_holds_up_nobody(serving, monkeypatch) -> None:
    from airflow_provider_snowml.exceptions import InsufficientPrivilegesError

    serving.deploy("MINE")
    serving.deploy("THEIRS")
    real = service_hooks.observe

    def observe(hook: SnowMLHook, found: Any) -> Any:
        if found.name.name.name == "THEIRS":
            raise InsufficientPrivilegesError("Snowflake (003001): Insufficient privileges.")
        return real(hook, found)

    monkeypatch.setattr(service_hooks, "observe", observe)
    mine, theirs = asyncio.run(together(ready(serving, "MINE"), ready(serving, "THEIRS")))
    assert mine["outcome"] == "ready"
    assert theirs["outcome"] == "poll_errors"
    assert "Insufficient privileges" in theirs["detail"]
