from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_snowml.core.batch_poller import Limits, Statement
from airflow_provider_snowml.core.model_service import KNOWN
from airflow_provider_snowml.core.service_poller import (
    ServiceContainer,
    ServiceObservation,
    ServiceOutcome,
    ServicePoller,
)

LIMITS = Limits(grace=30, max_errors=3)
READY = ServiceContainer("0", "READY", "model-inference", "READY", "Running")
PENDING = ServiceContainer("0", "PENDING", "model-inference", "PENDING", "Readiness probe is failing")
FAILED = ServiceContainer("1", "FAILED", "model-inference", "FAILED", "Container finished with errors")
WAIT, IS_READY = ServiceOutcome.WAIT, ServiceOutcome.READY


def outcomes(poller: ServicePoller, *looks: tuple[float, ServiceObservation | str]) -> list[ServiceOutcome]:
    return [
        (poller.failed(seen, now) if isinstance(seen, str) else poller.observed(seen, now)).outcome
        for now, seen in looks
    ]


def seen(status: str | None, *containers: ServiceContainer, target: int = 1) -> ServiceObservation:
    return ServiceObservation(status, target_instances=target, containers=containers)


@pytest.mark.parametrize("status", [*sorted(KNOWN), "NEVER_SEEN_BEFORE", None], ids=str)
def test_every_status(status: str | None) -> None:
    expected = {
        "RUNNING": IS_READY,
        "FAILED": ServiceOutcome.FAILED,
        "INTERNAL_ERROR": ServiceOutcome.FAILED,
    }
    verdict = ServicePoller(LIMITS).observed(seen(status, READY), 0)
    assert verdict.outcome is expected.get(str(status), WAIT)


def test_unknown_status_is_waited_on_and_said() -> None:
    assert "does not know" in ServicePoller(LIMITS).observed(seen("ODD"), 0).detail


def test_every_instance_must_be_ready() -> None:
    second = replace(READY, instance_id="1")
    poller = ServicePoller(LIMITS)
    assert outcomes(
        poller,
        (0, seen("RUNNING", target=2)),
        (1, seen("RUNNING", READY, target=2)),
        (2, seen("RUNNING", READY, replace(PENDING, instance_id="1"), target=2)),
        (3, seen("RUNNING", READY, second, target=2)),
    ) == [WAIT, WAIT, WAIT, IS_READY]
    assert poller.observed(seen("RUNNING", READY, second, target=2), 4).instances == 2


def test_one_that_is_going_does_not_count() -> None:
    going = replace(FAILED, instance_status="TERMINATING")
    assert outcomes(ServicePoller(LIMITS), (0, seen("RUNNING", READY, going))) == [IS_READY]


def test_more_instances_than_were_asked_for_must_be_ready_as_well() -> None:
    new = replace(PENDING, instance_id="1")
    assert outcomes(ServicePoller(LIMITS), (0, seen("RUNNING", READY, new))) == [WAIT]


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "FAILED"])
def test_a_failed_container_fails_at_once_with_its_message(status: str) -> None:
    verdict = ServicePoller(LIMITS).observed(seen(status, READY, FAILED, target=2), 0)
    assert verdict.outcome is ServiceOutcome.FAILED
    assert "Container finished with errors" in verdict.detail
    assert "instance 1" in verdict.detail
    assert "Running" not in verdict.detail


def test_what_it_waits_for_is_said() -> None:
    assert "Readiness probe is failing" in ServicePoller(LIMITS).observed(seen("PENDING", PENDING), 0).detail


def test_statement_first_then_service() -> None:
    building = ServiceObservation(statement=Statement.RUNNING, build="RUNNING")
    poller = ServicePoller(LIMITS)
    assert "image build is RUNNING" in poller.observed(building, 0).detail
    assert outcomes(
        poller, (100, building), (200, seen("PENDING", PENDING)), (300, seen("RUNNING", READY))
    ) == [WAIT, WAIT, IS_READY]


def test_a_failed_statement_fails_with_snowflakes_message_unless_there_is_a_service() -> None:
    failed = ServiceObservation(statement=Statement.FAILED, statement_error="Image build ended")
    verdict = ServicePoller(LIMITS).observed(failed, 0)
    assert verdict.outcome is ServiceOutcome.FAILED
    assert "Image build ended" in verdict.detail
    # It exists already: our own earlier submit, whose reply was lost, came through.
    late = replace(seen("RUNNING", READY), statement=Statement.FAILED)
    assert outcomes(ServicePoller(LIMITS), (0, late)) == [IS_READY]


@pytest.mark.parametrize("statement", [Statement.SUCCEEDED, Statement.UNKNOWN])
@pytest.mark.parametrize("status", [None, "DELETING", "DELETED"])
def test_a_missing_service_is_lost_after_the_grace(statement: Statement, status: str | None) -> None:
    missing = ServiceObservation(status, statement=statement)
    assert outcomes(ServicePoller(LIMITS), (0, missing), (29, missing), (30, missing)) == [
        WAIT,
        WAIT,
        ServiceOutcome.LOST,
    ]


def test_a_suspended_service_may_be_on_its_way_for_the_grace() -> None:
    suspended = seen("SUSPENDED")
    assert outcomes(ServicePoller(LIMITS), (0, suspended), (31, suspended)) == [
        WAIT,
        ServiceOutcome.SUSPENDED,
    ]
    resumed = (20, seen("PENDING", PENDING))
    assert outcomes(ServicePoller(LIMITS), (0, suspended), resumed, (31, suspended)) == [WAIT] * 3


def test_existing_is_enough_if_that_is_all_that_is_waited_for() -> None:
    poller = ServicePoller(LIMITS, until_ready=False)
    assert outcomes(poller, (0, ServiceObservation(statement=Statement.RUNNING)), (1, seen("PENDING"))) == [
        WAIT,
        ServiceOutcome.CREATED,
    ]
    assert outcomes(poller, (2, seen("FAILED", FAILED))) == [ServiceOutcome.FAILED]


def test_deadline() -> None:
    poller = ServicePoller(replace(LIMITS, deadline=100))
    assert outcomes(poller, (99, seen("PENDING", PENDING)), (100, seen("PENDING", PENDING))) == [
        WAIT,
        ServiceOutcome.TIMEOUT,
    ]
    assert outcomes(poller, (101, seen("RUNNING", READY))) == [IS_READY]
    assert outcomes(poller, (102, "no connection")) == [ServiceOutcome.TIMEOUT]


def test_errors_in_a_row() -> None:
    poller = ServicePoller(LIMITS)
    ready_not = seen("PENDING", PENDING)
    assert outcomes(poller, (0, "e"), (1, "e"), (2, ready_not), (3, "e"), (4, "e"), (5, "e")) == [
        *[WAIT] * 5,
        ServiceOutcome.POLL_ERRORS,
    ]
