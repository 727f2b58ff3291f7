from __future__ import annotations

import asyncio
import importlib
from dataclasses import asdict
from typing import Any

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.hooks.snowml import SnowMLHook
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
    real = SnowMLHook.observe_job
    looks = iter([True, True, False, True, True])

    def flaky(self: SnowMLHook, *arguments: Any) -> Any:
        if next(looks, False):
            raise ConnectionError("gone")
        return real(self, *arguments)

    monkeypatch.setattr(SnowMLHook, "observe_job", flaky)
    assert asyncio.run(first_event(trigger(job, location)))["outcome"] == "succeeded"

    looks = iter([True] * 3)
    event = asyncio.run(first_event(trigger(job, location)))
    assert event["outcome"] == "poll_errors"
    assert "ConnectionError: gone" in event["detail"]


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
