from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_snowml.core.batch_statement import BatchStatement
from airflow_provider_snowml.core.names import Identifier, QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchJobCancelledError,
    BatchJobFailedError,
    BatchOutputIncompleteError,
    InvalidNameError,
    JobNotFoundError,
    StageNotFoundError,
)
from airflow_provider_snowml.sensors.inference import SnowMLBatchSuccessSensor
from airflow_provider_snowml.triggers.inference import SnowMLBatchJobTrigger


@pytest.fixture
def submitted(scoring):
    """Start somebody else's job, which waits some seconds; its name and directory."""

    def submit(name: str, seconds: float) -> tuple[str, str]:
        hook = scoring.hook()
        with hook.open_connection():
            schema = hook.default_schema()
            base = StageLocation.parse("@ST/sensed", schema)
            data = StageLocation.parse("@ST/sensed_in", schema) / name
            hook.copy_into_location(data, f"SELECT {seconds}::FLOAT AS F1")
            job = QualifiedName(schema.database, schema.schema, Identifier(name))
            statement = BatchStatement(
                name=job,
                compute_pool=Identifier(scoring.pool),
                model=QualifiedName.parse("SLOW", schema),
                version="V1",
                function="predict",
                input_location=data,
                output_location=base,
            )
            hook.rows(statement.sql())
        return job.sql, (base / name).sql

    return submit


def sensor(job: str | None, location: str, **arguments: Any) -> SnowMLBatchSuccessSensor:
    return SnowMLBatchSuccessSensor(
        job_output_location=location,
        job_name=job,
        **{"task_id": "sense", "poke_interval": 0.2, "timeout": 120, **arguments},
    )


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_in_a_dag(scoring, submitted, run_dag, deferrable) -> None:
    job, location = submitted(f"SENSED_{deferrable}".upper(), 2)
    with DAG(f"sense_{deferrable}", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        sensor(job, location, deferrable=deferrable)
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["sense"] == {"job_output_location": location, "job_name": job, "status": "DONE"}


def test_it_waits_for_the_file_alone_where_no_job_is_named(scoring) -> None:
    location = StageLocation.parse(f"@{scoring.schema}.ST/path_alone/job")
    task = sensor(None, "@ST/path_alone/job")
    with pytest.raises(AirflowSensorTimeout):
        sensor(None, "@ST/path_alone/job", timeout=1).execute(CONTEXT)
    threading.Timer(1, lambda: scoring.hook().write_file(location, "_SUCCESS", b"")).start()
    result = task.execute(CONTEXT)
    assert result == {"job_output_location": location.sql, "job_name": None, "status": None}


class _TaskInstance:
    """What BaseSensorOperator asks of a task instance."""

    run_id = "manual"
    start_date = None
    try_number = 1
    max_tries = 0

    def get_first_reschedule_date(self, *_: Any) -> None:
        return None


class _StateStore(dict[str, Any]):
    """What Airflow's ``task_state_store`` does."""

    set = dict.__setitem__


def context(ti: Any = None) -> Any:
    dag_run = SimpleNamespace(clear_number=0)
    return {"ti": ti or _TaskInstance(), "dag_run": dag_run, "task_state_store": _StateStore()}


CONTEXT = context()


def test_it_fails_at_once_when_the_named_job_has_failed(scoring, submitted) -> None:
    job, location = submitted("SENSED_FAILED", -1)
    with pytest.raises(BatchJobFailedError, match=r"(?s)FAILED.*broke on purpose"):
        sensor(job, location).execute(CONTEXT)


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferrable"])
def test_a_soft_failure_skips(scoring, submitted, deferrable) -> None:
    job, location = submitted(f"SENSED_SOFT_{deferrable}".upper(), -1)
    with pytest.raises(BatchJobFailedError):
        sensor(job, location).execute(CONTEXT)
    task = sensor(job, location, soft_fail=True, deferrable=deferrable)
    with pytest.raises(AirflowSkipException):
        task.execute(CONTEXT)
    event = {"outcome": "failed", "detail": "the job is FAILED", "status": "FAILED"}
    with pytest.raises(AirflowSkipException):
        task.resume_execution("execute_complete", {"event": event}, CONTEXT)


def test_it_fails_at_once_when_the_named_job_is_cancelled(scoring, submitted) -> None:
    job, location = submitted("SENSED_CANCELLED", 60)
    scoring.hook().cancel_job(QualifiedName.parse(job))
    with pytest.raises(BatchJobCancelledError):
        sensor(job, location).execute(CONTEXT)


def test_done_without_success_is_a_failure_after_the_grace(scoring, submitted) -> None:
    job, location = submitted("SENSED_INCOMPLETE", 0)
    sensor(job, location).execute(CONTEXT)
    scoring.hook().rows(f"REMOVE '{location}_SUCCESS'")
    with pytest.raises(BatchOutputIncompleteError, match="wrote no _SUCCESS within 1 s"):
        sensor(job, location, grace=1).execute(CONTEXT)


def test_bad_input(scoring) -> None:
    with pytest.raises(InvalidNameError, match="no valid job_output_location"):
        sensor(None, "ST/x").execute(CONTEXT)
    with pytest.raises(InvalidNameError, match="no valid job_name"):
        sensor("a b", "@ST/x").execute(CONTEXT)
    with pytest.raises(StageNotFoundError, match=r"no stage .* has: \w"):
        sensor(None, "@NOPE/x").execute(CONTEXT)
    with pytest.raises(JobNotFoundError, match=r"no such job within 0\.5 s"):
        sensor("NOPE", "@ST/x", grace=0.5).execute(CONTEXT)


def test_rescheduled_it_looks_anew_and_keeps_its_time(scoring, submitted) -> None:
    job, location = submitted("SENSED_RESCHEDULED", 8)
    task = sensor(job, location, mode="reschedule", poke_interval=60)
    with pytest.raises(AirflowRescheduleException):
        task.execute(CONTEXT)
    sensor(job, location).execute(CONTEXT)
    again = sensor(job, location, mode="reschedule", poke_interval=60)
    assert again.execute(CONTEXT)["status"] == "DONE"

    class Late(_TaskInstance):
        def get_first_reschedule_date(self, *_: Any) -> Any:
            return pendulum.now().subtract(hours=1)

    late = context(Late())
    nothing = sensor(None, "@ST/never", mode="reschedule", timeout=60)
    with pytest.raises(AirflowSensorTimeout):
        nothing.execute(late)
    nothing.soft_fail = True
    with pytest.raises(AirflowSkipException):
        nothing.execute(late)


def test_rescheduled_it_counts_the_grace_from_one_process_to_the_next(scoring, clock) -> None:
    ours = context()
    with pytest.raises(AirflowRescheduleException):
        sensor("NOPE", "@ST/x", mode="reschedule", grace=60).execute(ours)
    clock.tick(20)
    with pytest.raises(AirflowRescheduleException):
        sensor("NOPE", "@ST/x", mode="reschedule", grace=60).execute(ours)
    clock.tick(60)
    with pytest.raises(JobNotFoundError, match="no such job within"):
        sensor("NOPE", "@ST/x", mode="reschedule", grace=60).execute(ours)
    ours["ti"].try_number = 2
    with pytest.raises(AirflowRescheduleException):
        sensor("NOPE", "@ST/x", mode="reschedule", grace=60).execute(ours)


@pytest.fixture
def clock(monkeypatch) -> Any:
    """A clock of the sensor's that can be put forward."""
    from airflow_provider_snowml.sensors import inference

    late = SimpleNamespace(by=0.0)
    late.tick = lambda seconds: setattr(late, "by", late.by + seconds)
    real = time.time
    monkeypatch.setattr(inference, "time", SimpleNamespace(time=lambda: real() + late.by))
    return late


def test_the_base_directory_of_a_named_job_is_enough(scoring, submitted) -> None:
    job, location = submitted("SENSED_BASE", 0)
    base = location.rstrip("/").rpartition("/")[0]
    result = sensor(job, base).execute(CONTEXT)
    assert result == {"job_output_location": location, "job_name": job, "status": "DONE"}


def test_success_may_come_before_done_and_after(scoring, submitted, local_snowflake) -> None:
    job, location = submitted("SENSED_EARLY", 60)
    hook = scoring.hook()
    hook.write_file(StageLocation.parse(location), "_SUCCESS", b"")
    with pytest.raises(AirflowSensorTimeout):
        sensor(job, location, timeout=1).execute(CONTEXT)
    hook.cancel_job(QualifiedName.parse(job))
    with pytest.raises(BatchJobCancelledError):
        sensor(job, location).execute(CONTEXT)

    try:
        local_snowflake.fault("late_success", job="SENSED_LATE", seconds=2)
        job, location = submitted("SENSED_LATE", 0)
        assert sensor(job, location).execute(CONTEXT)["status"] == "DONE"
    finally:
        local_snowflake.clear_faults()


def test_deferred_it_times_out_as_a_sensor_does(scoring) -> None:
    task = sensor(None, "@ST/never", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(CONTEXT)
    assert deferred.value.trigger.limits["deadline"] - time.time() <= 120
    event = {"outcome": "timeout", "detail": "it took longer than allowed", "status": None}
    for error, resumed in (
        (AirflowSensorTimeout, {"event": event}),
        (AirflowSensorTimeout, {"error": "Trigger timeout"}),
    ):
        method = "execute_complete" if "event" in resumed else "__fail__"
        task.soft_fail = False
        with pytest.raises(error):
            task.resume_execution(method, dict(resumed), CONTEXT)
        task.soft_fail = True
        with pytest.raises(AirflowSkipException):
            task.resume_execution(method, dict(resumed), CONTEXT)


STARTED: dict[str, Any] = {"deferrable": True, "start_from_trigger": True}


def test_it_starts_in_the_triggerer_where_that_can_be() -> None:
    task = sensor("{{ params.job }}", "@DB.SC.ST/x/{{ ds }}", **STARTED)
    assert task.start_from_trigger
    arguments = task.start_trigger_args
    assert arguments.timeout.total_seconds() == 120
    assert arguments.trigger_kwargs["job_name"] == "{{ params.job }}"
    assert arguments.trigger_kwargs["limits"]["deadline"] is None
    json.dumps(arguments.trigger_kwargs)
    with DAG("starts", schedule=None, start_date=pendulum.datetime(2013, 1, 1)):
        other = sensor(None, "@DB.SC.ST/x")
        tasks = [
            sensor(None, "@DB.SC.ST/x", task_id="a", start_from_trigger=True),
            sensor(other.output["job_name"], "@DB.SC.ST/x", task_id="b", **STARTED),
            sensor(None, "@DB.SC.ST/x", task_id="c", schema="{{ params.schema }}", **STARTED),
            sensor(None, "{{ ti.xcom_pull('other')['job_output_location'] }}", task_id="d", **STARTED),
        ]
    assert not any(task.start_from_trigger for task in tasks)


def test_names_that_are_not_whole_are_left_to_the_worker(scoring, submitted) -> None:
    job, location = submitted("SENSED_STARTED", 0)
    sensor(job, location).execute(CONTEXT)
    short = sensor("SENSED_STARTED", location, **STARTED)
    for arguments, outcome in (
        (short.start_trigger_args.trigger_kwargs, "unresolved"),
        (short.start_trigger_args.trigger_kwargs | {"job_name": "None"}, "unresolved"),
        (short.start_trigger_args.trigger_kwargs | {"job_name": job.lower()}, "succeeded"),
    ):
        trigger = SnowMLBatchJobTrigger(**arguments)
        assert (trigger.shared_stream_key() is None) == (outcome == "unresolved")
        event = asyncio.run(_first(trigger))
        assert event["outcome"] == outcome
        result = short.resume_execution("execute_complete", {"event": event}, CONTEXT)
        assert result == {"job_output_location": location, "job_name": job, "status": "DONE"}


async def _first(trigger: SnowMLBatchJobTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("no event")
