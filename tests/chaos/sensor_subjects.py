"""The sensor, killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from subject import Subject
from world import SCHEMA, start_job


@dataclass
class Sensor(Subject):
    """The sensor, on a job of somebody else."""

    operator = "airflow_provider_snowml.sensors.inference.SnowMLBatchSuccessSensor"

    @property
    def job(self) -> str:
        return f"{SCHEMA}.{self.name}"

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "job_name": self.job,
            "job_output_location": f"@{SCHEMA}.ST/sensed/{self.name}/",
            "poke_interval": 0.4,
            "timeout": 200,
            "deferrable": self.deferrable,
        }

    def before(self) -> None:
        start_job(self.control, "sensed", self.name)

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        found = []
        if self.jobs() != {self.name: "DONE"}:
            found.append(f"the job it waited for is not as it was: {self.jobs()}")
        if "_SUCCESS" not in self.files(f"sensed/{self.name}"):
            found.append("there is no _SUCCESS")
        expected = {"job_output_location": f"@{SCHEMA}.ST/sensed/{self.name}/", "job_name": self.job}
        if xcom != {**expected, "status": "DONE"}:
            found.append(f"the result is {xcom}")
        return found


@dataclass
class DeferredSensor(Sensor):
    """The same, deferred."""

    deferrable = True


@dataclass
class SensorLateSuccess(Sensor):
    """``_SUCCESS`` comes after DONE."""

    bad_day = True
    fault: ClassVar[str] = "late_success"

    def before(self) -> None:
        self.control.fault(self.fault, job=self.name, seconds=5)
        super().before()


@dataclass
class SensorLateDone(SensorLateSuccess):
    """DONE comes after ``_SUCCESS``."""

    fault = "late_done"


@dataclass
class RescheduledSensor(Sensor):
    """The sensor, in another process at each look."""

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "mode": "reschedule"}

    def before(self) -> None:
        self.control.fault("slow_job", job=self.name, seconds=2)
        super().before()


@dataclass
class RescheduledSensorIncomplete(RescheduledSensor):
    """The same, on a job that is DONE and never writes ``_SUCCESS``."""

    bad_day = True
    failure = "BatchOutputIncompleteError"

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "grace": 2, "timeout": 45}

    def before(self) -> None:
        self.control.fault("no_success", job=self.name)
        start_job(self.control, "sensed", self.name)


@dataclass
class SensorPollErrors(SensorLateSuccess):
    """Some looks in a row fail."""

    fault = "slow_job"

    def before(self) -> None:
        super().before()
        self.control.fault(
            "refuse", user=self.name, statement="^(DESCRIBE SERVICE|SHOW JOB)", skip=1, times=2
        )


@dataclass
class DeferredSensorPollErrors(SensorPollErrors):
    """The same, deferred."""

    deferrable = True
