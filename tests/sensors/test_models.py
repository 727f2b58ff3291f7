from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from airflow_provider_snowml.assets.models import ModelRef
from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.model_poller import Awaited, ListedModel, ModelOutcome, ModelPoller
from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError, ModelPollingError
from airflow_provider_snowml.sensors.models import SnowMLModelVersionSensor

NUMBERS = itertools.count(1)
CONTEXT: Any = {
    "ti": SimpleNamespace(
        start_date=None, try_number=1, max_tries=0, get_first_reschedule_date=lambda *_: None
    )
}


class Awaiting:
    """A model with version V1, as others see it come."""

    def __init__(self, scoring: Any) -> None:
        self.hook, self.name = scoring.hook(), f"AWAITED_{next(NUMBERS)}"
        self.full_name = f"{scoring.schema}.{self.name}"

    def create(self) -> None:
        self.hook.rows(f"CREATE MODEL {self.name} WITH VERSION V1 FROM MODEL M VERSION V1")

    def alter(self, text: str) -> None:
        self.hook.rows(f"ALTER MODEL {self.name} {text}")

    def add(self, version: str) -> None:
        self.alter(f"ADD VERSION {version} FROM MODEL M VERSION V1")

    def sensor(self, **arguments: Any) -> SnowMLModelVersionSensor:
        return SnowMLModelVersionSensor(
            task_id="sense",
            **{"model_name": self.name, "poke_interval": 0.2, "timeout": 120, **arguments},
        )


@pytest.fixture
def awaiting(scoring) -> Iterator[Awaiting]:
    awaiting = Awaiting(scoring)
    with awaiting.hook.open_connection():
        yield awaiting


@pytest.mark.parametrize("how", [{}, {"deferrable": True}, {"mode": "reschedule"}], ids=str)
def test_in_a_dag(awaiting, run_dag, how) -> None:
    awaiting.create()
    timer = threading.Timer(1, lambda: awaiting.add("V2"))
    with DAG("sense_version", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        SnowMLModelVersionSensor(
            task_id="sense",
            model_name=ModelRef(awaiting.full_name),
            version_name="v2",
            poke_interval=0.3,
            **how,
        )
    timer.start()
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["sense"] == {"model": awaiting.full_name, "version": "V2", "aliases": ["LAST"]}


def test_a_model_an_alias_and_another_default_that_come(awaiting) -> None:
    timer = threading.Timer(0.5, awaiting.create)
    timer.start()
    found = awaiting.sensor(alias="default").execute(CONTEXT)
    assert found == {"model": awaiting.full_name, "version": "V1", "aliases": ["DEFAULT", "FIRST", "LAST"]}
    timer.join()
    awaiting.add("V2")
    for text, arguments, version in (
        ("VERSION V1 SET ALIAS = CHAMPION", {"alias": "champion"}, "V1"),
        ("SET DEFAULT_VERSION = V2", {"alias": "default", "other_than": "V1"}, "V2"),
        ("SET DEFAULT_VERSION = V1", {"alias": "default", "version_name": "V1"}, "V1"),
    ):
        timer = threading.Timer(0.5, awaiting.alter, [text])
        timer.start()
        assert awaiting.sensor(**arguments).execute(CONTEXT)["version"] == version
        timer.join()


@pytest.mark.parametrize("soft_fail", [False, True])
def test_timeout(awaiting, soft_fail) -> None:
    awaiting.create()
    error = AirflowSkipException if soft_fail else AirflowSensorTimeout
    with pytest.raises(error):
        awaiting.sensor(version_name="V9", timeout=1, soft_fail=soft_fail).execute(CONTEXT)


def test_what_is_there_needs_no_trigger_and_what_a_trigger_says_is_believed(awaiting) -> None:
    awaiting.create()
    assert awaiting.sensor(version_name="V1", deferrable=True).execute(CONTEXT)["version"] == "V1"
    sensor = awaiting.sensor(version_name="V2", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(CONTEXT)
    assert deferred.value.trigger.serialize()[1]["model_name"] == awaiting.full_name
    event = {"model": awaiting.full_name, "detail": "", "version": None, "aliases": []}
    for outcome, error in (("timeout", AirflowSensorTimeout), ("poll_errors", ModelPollingError)):
        with pytest.raises(error):
            sensor.execute_complete(CONTEXT, {**event, "outcome": outcome})
    found = {**event, "outcome": "found", "version": "V2", "aliases": ["LAST"]}
    assert sensor.execute_complete(CONTEXT, found)["aliases"] == ["LAST"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, InvalidArgumentError),
        ({"version_name": "V1", "other_than": "V2"}, InvalidArgumentError),
        ({"alias": "a b"}, InvalidNameError),
        ({"model_name": "a b", "alias": "x"}, InvalidNameError),
    ],
)
def test_bad_input(awaiting, arguments, error) -> None:
    with pytest.raises(error):
        awaiting.sensor(**arguments).execute(CONTEXT)


def test_errors_end_a_wait_only_when_they_have_lasted() -> None:
    poller = ModelPoller(Awaited("V1"), Limits(max_errors=2, error_grace=10, deadline=100))
    outcomes = [poller.failed("no", now).outcome for now in (0, 5)]
    assert outcomes == [ModelOutcome.WAIT] * 2
    assert poller.observed(None, 6).outcome is ModelOutcome.WAIT
    assert [poller.failed("no", now).outcome for now in (7, 12)] == [ModelOutcome.WAIT] * 2
    assert poller.failed("no", 17).outcome is ModelOutcome.POLL_ERRORS
    assert poller.observed(ListedModel(), 100).outcome is ModelOutcome.TIMEOUT
    assert poller.observed(ListedModel(("V1",)), 101).outcome is ModelOutcome.FOUND
