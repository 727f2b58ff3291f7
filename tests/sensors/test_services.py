from __future__ import annotations

import threading
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from airflow_provider_snowml.exceptions import (
    InvalidNameError,
    ServiceFailedError,
    ServiceNotFoundError,
    ServiceSuspendedError,
)
from airflow_provider_snowml.sensors.services import SnowMLServiceReadySensor


class _TaskInstance:
    """What BaseSensorOperator asks of a task instance."""

    start_date = None
    try_number = 1
    max_tries = 0

    def get_first_reschedule_date(self, *_: Any) -> None:
        return None


CONTEXT: Any = {"ti": _TaskInstance()}


def sensor(name: str, **arguments: Any) -> SnowMLServiceReadySensor:
    return SnowMLServiceReadySensor(
        task_id="sense", service_name=name, **{"poke_interval": 0.2, "timeout": 120, **arguments}
    )


@pytest.mark.parametrize("how", [{}, {"deferrable": True}, {"mode": "reschedule"}], ids=str)
def test_in_a_dag(serving, run_dag, how) -> None:
    serving.deploy("SENSED", wait=False)
    with DAG("sense_service", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        sensor("SENSED", **how)
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["sense"] == {
        "service_name": f"{serving.schema}.SENSED",
        "status": "RUNNING",
        "instances": 1,
    }


def test_it_waits_for_every_instance(serving) -> None:
    serving.deploy("ALL", wait=False, min_instances=2, max_instances=2)
    assert sensor("ALL").execute(CONTEXT)["instances"] == 2


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferrable"])
def test_it_fails_at_once_with_the_containers_message(serving, deferrable) -> None:
    query = serving.deploy("BAD", model="BROKEN", wait=False)
    hook = serving.hook()
    while hook.statement(query)[0].value == "running":
        threading.Event().wait(0.2)
    with pytest.raises(ServiceFailedError, match=r"(?s)container model-inference.*broken on purpose.*logs"):
        sensor("BAD", deferrable=deferrable).execute(CONTEXT)
    with pytest.raises(AirflowSkipException):
        sensor("BAD", deferrable=deferrable, soft_fail=True).execute(CONTEXT)
    event = {
        "outcome": "failed",
        "detail": "the service is FAILED",
        "status": "FAILED",
        "instances": 0,
        "service_name": f"{serving.schema}.BAD",
    }
    with pytest.raises(AirflowSkipException):
        sensor("BAD", soft_fail=True).resume_execution("execute_complete", {"event": event}, CONTEXT)


def test_what_is_suspended_or_missing_fails_after_the_grace(serving) -> None:
    serving.deploy("IDLE")
    serving.hook().rows(f"ALTER SERVICE {serving.schema}.IDLE SUSPEND")
    with pytest.raises(ServiceSuspendedError, match=r"is SUSPENDED for 0\.5 s"):
        sensor("IDLE", grace=0.5).execute(CONTEXT)
    with pytest.raises(ServiceNotFoundError, match=r"no such service for 0\.5 s"):
        sensor("NOPE", grace=0.5).execute(CONTEXT)
    # Somebody resumes it meanwhile.
    threading.Timer(1, lambda: serving.hook().rows(f"ALTER SERVICE {serving.schema}.IDLE RESUME")).start()
    assert sensor("IDLE").execute(CONTEXT)["status"] == "RUNNING"


def test_timeout(serving) -> None:
    serving.deploy("SLEEPS", wait=False, pool=serving.sleeping)
    with pytest.raises(AirflowSensorTimeout):
        sensor("SLEEPS", timeout=2).execute(CONTEXT)


def test_bad_input(serving) -> None:
    with pytest.raises(InvalidNameError, match="no valid service name"):
        sensor("a b").execute(CONTEXT)
