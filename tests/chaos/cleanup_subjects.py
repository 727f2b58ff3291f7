"""The clean-up operator, killed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from subject import Subject
from world import DAY, SCHEMA, manifest_of, put, start_job, write_manifest, write_rows

from airflow_provider_snowml.core.batch_job import DONE, JobOwner


@dataclass
class CleanUp(Subject):
    """The clean-up of a job and of an earlier attempt. Beside them lies what another task made."""

    operator = "airflow_provider_snowml.operators.inference.SnowMLCleanUpBatchOperator"
    noted: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"cleaned/{self.name}"

    @property
    def owner(self) -> JobOwner:
        return JobOwner("chaos", f"{self.name}_score", DAY)

    @property
    def other(self) -> str:
        return JobOwner("chaos", f"{self.name}_other", DAY).job_name(1)

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "job_output_location": f"@{SCHEMA}.ST/{self.base}/{self.owner.job_name(2)}/",
        }

    def before(self) -> None:
        first, second = self.owner.job_name(1), self.owner.job_name(2)
        start_job(self.control, self.base, second)
        write_rows(self.control, f"{self.base}/{first}", f"SELECT ID FROM {SCHEMA}.X LIMIT 3")
        for owner, job, attempt in (
            (self.owner, first, 1),
            (self.owner, second, 2),
            (JobOwner("chaos", f"{self.name}_other", DAY), self.other, 1),
        ):
            write_rows(
                self.control, f"{self.base}_snowml_input/{job}/data_0", f"SELECT ID FROM {SCHEMA}.X LIMIT 3"
            )
            write_manifest(self.control, manifest_of(owner, self.base, job, attempt=attempt))
        put(self.control, f"{self.base}/{self.other}", "_SUCCESS")
        deadline = time.monotonic() + 120
        while self.jobs() != {second: DONE} and time.monotonic() < deadline:
            time.sleep(0.2)
        self._whole = self.files(f"{self.base}/{second}")

    def after_crash(self) -> None:
        """Who loads it meanwhile sees all of it, or no ``_SUCCESS``."""
        there = self.files(f"{self.base}/{self.owner.job_name(2)}")
        if "_SUCCESS" in there and there != self._whole:
            self.noted.append(f"a part of the output passes for all of it: {there}")

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        found = list(self.noted)
        if jobs := self.jobs():
            found.append(f"jobs are left: {jobs}")
        if (files := self.files(self.base)) != [f"{self.other}/_SUCCESS"]:
            found.append(f"the outputs that are left are {files}")
        files = sorted(self.files(f"{self.base}_snowml_input"))
        if {file.split("/")[0] for file in files} != {self.other} or len(files) != 2:
            found.append(f"the inputs that are left are {files}")
        if xcom["left_alone"]:
            found.append(f"the result is {xcom}")
        return found
