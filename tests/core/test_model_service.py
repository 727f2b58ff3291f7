"""What a task does about the service that it finds under its name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_snowml.core.batch_job import RunRef
from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.model_service import (
    DeploymentIntent,
    FoundService,
    ServiceAction,
    decide,
)
from airflow_provider_snowml.core.names import QualifiedName

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
RUN = RunRef("run", 0)
INTENT = DeploymentIntent(
    run_id="run",
    clear_number=0,
    service_name="DB.SC.SVC",
    fingerprint="f1",
    model="DB.SC.M",
    version_reference="default",
    version="V1",
    since=NOON.isoformat(),
    query_id="q1",
)
OURS = FoundService(
    QualifiedName.parse("DB.SC.SVC"),
    "PENDING",
    NOON + timedelta(minutes=1),
    managing_object_domain="Model",
    managing_object_name="DB.SC.M",
)
EARLIER = replace(OURS, created_on=NOON - timedelta(days=1), status="RUNNING")


def action(**situation: Any) -> ServiceAction:
    return decide(
        **{
            "run": RUN,
            "deployment_fingerprint": "f1",
            "version": "V1",
            "intent": None,
            "statement": Statement.UNKNOWN,
            "found": None,
            "serves": None,
            **situation,
        }
    ).action


def test_nothing_is_there() -> None:
    assert action() is ServiceAction.SUBMIT
    assert action(intent=INTENT, statement=Statement.FAILED) is ServiceAction.SUBMIT


def test_a_retry_follows_its_statement_then_its_service() -> None:
    assert action(intent=INTENT, statement=Statement.RUNNING) is ServiceAction.ATTACH
    for status in ("PENDING", "RUNNING", "SUSPENDED", "A_NEW_ONE"):
        found = replace(OURS, status=status)
        for serves in ("V1", None):
            assert action(intent=INTENT, found=found, serves=serves) is ServiceAction.ATTACH


@pytest.mark.parametrize("status", ["FAILED", "INTERNAL_ERROR", "DELETING"])
def test_a_retry_replaces_what_it_left_failed(status: str) -> None:
    assert action(intent=INTENT, found=replace(OURS, status=status)) is ServiceAction.REPLACE


def test_a_cleared_run_replaces_what_it_had_not_finished_and_asks_about_what_serves() -> None:
    cleared = RunRef("run", 1)
    running = {"intent": INTENT, "statement": Statement.RUNNING}
    assert action(run=cleared, **running) is ServiceAction.REPLACE
    for statement in (Statement.RUNNING, Statement.SUCCEEDED):
        mine = {"intent": INTENT, "statement": statement, "found": OURS, "serves": "V1"}
        assert action(run=cleared, **mine) is ServiceAction.REPLACE
    seen = replace(INTENT, created_on=OURS.created_on.isoformat())
    assert action(run=cleared, intent=seen, found=OURS, serves="V1") is ServiceAction.REPLACE
    ready = replace(OURS, status="RUNNING")
    assert action(run=cleared, intent=INTENT, found=ready, serves="V1") is ServiceAction.CONFLICT
    reuse = action(run=cleared, intent=INTENT, found=ready, serves="V1", if_exists="reuse")
    assert reuse is ServiceAction.REUSE


def test_a_younger_service_of_somebody_else_is_not_taken_for_ours() -> None:
    cleared = RunRef("run", 1)
    seen = replace(INTENT, created_on=OURS.created_on.isoformat())
    younger = replace(OURS, created_on=OURS.created_on + timedelta(days=1))
    for status in ("PENDING", "SUSPENDING", "FAILED"):
        found = replace(younger, status=status)
        assert action(run=cleared, intent=seen, found=found, serves="V2") is ServiceAction.CONFLICT
        # Nobody saw it, and of the statement nothing is known any more, or that it failed.
        assert action(run=cleared, intent=INTENT, found=found, serves="V2") is ServiceAction.CONFLICT
        failed = {"intent": INTENT, "statement": Statement.FAILED, "found": found, "serves": "V1"}
        assert action(**failed) is ServiceAction.CONFLICT


def test_other_arguments_replace_what_was_not_finished() -> None:
    changed = {"deployment_fingerprint": "f2", "intent": INTENT}
    assert action(**changed, found=OURS, serves="V1") is ServiceAction.REPLACE
    assert action(**changed, statement=Statement.RUNNING) is ServiceAction.REPLACE


def test_another_run_has_no_claim() -> None:
    other = RunRef("another run", 0)
    assert action(run=other, intent=INTENT, found=OURS, serves="V1") is ServiceAction.CONFLICT
    # Its statement would make the service: Snowflake refuses one of the two.
    assert action(run=other, intent=INTENT, statement=Statement.RUNNING) is ServiceAction.SUBMIT


@pytest.mark.parametrize("intent", [None, INTENT, replace(INTENT, reused=True)], ids=str)
def test_somebodys_service(intent: DeploymentIntent | None) -> None:
    there = {"intent": intent, "found": EARLIER}
    assert action(**there, serves="V1") is ServiceAction.CONFLICT
    assert action(**there, serves="V1", if_exists="reuse") is ServiceAction.REUSE
    assert action(**there, serves="V2", if_exists="reuse") is ServiceAction.CONFLICT
    assert action(**there, serves=None, if_exists="reuse") is ServiceAction.CONFLICT
    assert action(**there, serves="V2", if_exists="replace") is ServiceAction.REPLACE


@pytest.mark.parametrize("if_exists", ["fail", "reuse", "replace"])
@pytest.mark.parametrize(
    "other", [{"is_job": True}, {"managing_object_domain": None}, {"managing_object_domain": "Notebook"}]
)
def test_what_is_no_models_service_is_never_touched(if_exists: str, other: dict[str, Any]) -> None:
    found = replace(EARLIER, **other)
    assert action(found=found, serves="V1", if_exists=if_exists) is ServiceAction.CONFLICT


def test_a_service_that_was_seen_is_told_from_the_next_one_of_its_name() -> None:
    seen = replace(INTENT, created_on=OURS.created_on.isoformat())
    assert seen.made(OURS)
    assert not seen.made(replace(OURS, created_on=OURS.created_on + timedelta(seconds=1)))
    assert INTENT.made(OURS)
    assert not INTENT.made(EARLIER)
    assert not INTENT.made(None)
    assert not replace(INTENT, reused=True).made(OURS)


def test_the_intent_survives_the_tasks_state() -> None:
    assert DeploymentIntent.from_dict(INTENT.to_dict()) == INTENT
    assert DeploymentIntent.from_dict({**INTENT.to_dict(), "of a later version": 1}) == INTENT
    for other in (None, {}, "text", {"run_id": "run"}):
        assert DeploymentIntent.from_dict(other) is None


def test_an_error_can_say_what_is_there() -> None:
    assert str(EARLIER) == (
        "DB.SC.SVC, a service of model DB.SC.M, created on 2013-05-31 12:00:00+0000, RUNNING"
    )
    assert "a job of model" in str(replace(EARLIER, is_job=True))
