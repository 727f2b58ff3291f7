"""The batch operator, killed, and what must be so afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from subject import Subject
from world import DAY, SCHEMA, THRESHOLDS, manifest_of, start_job, write_manifest

from airflow_provider_snowml.core.batch_job import ENDED, ENDING, JobOwner
from airflow_provider_snowml.core.service_deployment import image_build_job


@dataclass
class Batch(Subject):
    """The batch operator. After the crash another version is promoted, and stray input lies about."""

    operator = "airflow_provider_snowml.operators.inference.SnowMLBatchInferenceOperator"
    noted: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"jobs/{self.name}"

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.model,
            "input_query": f"SELECT * FROM {SCHEMA}.X WHERE DAY = '{DAY}'",
            "compute_pool": "CHAOS_POOL",
            "output_stage_location": f"@{SCHEMA}.ST/{self.base}",
            "poll_interval": 0.4,
            "deferrable": self.deferrable,
        }

    def before(self) -> None:
        self.control.rows(f"ALTER MODEL {self.model} SET DEFAULT_VERSION = V1")

    def after_crash(self) -> None:
        self.control.rows(f"ALTER MODEL {self.model} SET DEFAULT_VERSION = V2")
        inputs = self.files(f"{self.base}_snowml_input")
        if inputs and not any(name.endswith("manifest.json") for name in inputs):
            # An interrupted COPY may have written files that the next one does not overwrite.
            job, data = inputs[0].split("/")[:2]
            self.control.rows(
                f"COPY INTO @{SCHEMA}.ST/{self.base}_snowml_input/{job}/{data}/stray FROM "
                f"(SELECT * FROM {SCHEMA}.X LIMIT 3) FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE"
            )

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        found = list(self.noted)
        jobs = self.jobs()
        job = xcom["job_name"].split(".")[-1]
        if set(jobs.values()) - ENDED:
            found.append(f"jobs are left running: {jobs}")
        if self._finished(jobs) != [job]:
            found.append(f"not exactly one finished attempt: {jobs}; the task's is {job}")
        if builds := [name for name, status in self.builds().items() if status not in ENDED | ENDING]:
            found.append(f"image builds are left running: {builds}")
        found += self._attempts(xcom, jobs)
        outputs, inputs = self.files(self.base), self.files(f"{self.base}_snowml_input")
        for what, files in (("output", outputs), ("input", inputs)):
            if {name.split("/")[0] for name in files} - self._directories(jobs):
                found.append(f"orphan {what} directories: {files}")
        if f"{job}/_SUCCESS" not in outputs:
            found.append(f"no _SUCCESS in the output: {outputs}")
        return found + self._rows(xcom)

    def _finished(self, jobs: dict[str, str]) -> list[str]:
        return [name for name, status in jobs.items() if status == "DONE"]

    def statements(self) -> dict[str, str]:
        """The states of the statements that started its jobs, by query id."""
        rows = self.control.rows(
            "SELECT QUERY_ID, EXECUTION_STATUS FROM TABLE(SNOWML.INFORMATION_SCHEMA.QUERY_HISTORY("
            "RESULT_LIMIT => 10000)) WHERE STARTSWITH(QUERY_TEXT, 'EXECUTE') "
            f"AND CONTAINS(QUERY_TEXT, 'NAME = {SCHEMA}.SNOWML_CHAOS_{self.name}_')"
        )
        return {row["QUERY_ID"]: row["EXECUTION_STATUS"] for row in rows}

    def builds(self) -> dict[str, str]:
        """The statuses of the image builds of these statements, by name."""
        rows = self.control.rows(f"SHOW JOB SERVICES LIKE 'MODEL_BUILD_%' IN SCHEMA {SCHEMA}")
        names = {image_build_job(query_id).name for query_id in self.statements()}
        return {row["name"]: row["status"] for row in rows if row["name"] in names}

    def _attempts(self, xcom: dict[str, Any], jobs: dict[str, str]) -> list[str]:
        """A retry is the same work: one attempt, and no other was ever made."""
        if len(jobs) == 1 and xcom["attempt"] == 1:
            return []
        return [f"more than one attempt: {jobs}, attempt {xcom['attempt']}"]

    def _directories(self, jobs: dict[str, str]) -> set[str]:
        return set(jobs)

    def _manifest(self, xcom: dict[str, Any]) -> str:
        return f"{self.base}_snowml_input/{xcom['job_name'].split('.')[-1]}/manifest.json"

    def _rows(self, xcom: dict[str, Any]) -> list[str]:
        found = []
        parquet = f"(FILE_FORMAT => {SCHEMA}.PARQUET_FILES, PATTERN => '.*[.]parquet')"
        rows = self.control.rows(
            'SELECT $1:"ID"::INT AS ID, $1:"output_feature_0"::INT AS P, $1:"F1"::FLOAT AS F1 '
            f"FROM '{xcom['job_output_location']}' {parquet}"
        )
        if sorted(row["ID"] for row in rows) != list(range(0, 60, 2)):
            found.append(f"the output has other rows: {sorted(row['ID'] for row in rows)}")
        manifest = json.loads(self.control.read(f"@{SCHEMA}.ST/{self._manifest(xcom)}") or b"{}")
        if (manifest.get("version"), manifest.get("job_name")) != (xcom["version"], xcom["job_name"]):
            found.append(f"the manifest says {manifest}, the result {xcom}")
        threshold = THRESHOLDS[xcom["version"]]
        if any(row["P"] != int(row["F1"] > threshold) for row in rows):
            found.append(f"the predictions are not those of {xcom['version']}")
        if (xcom["input_rows"], xcom["output_rows"], xcom["status"]) != (30, 30, "DONE"):
            found.append(f"the result is {xcom}")
        return found


@dataclass
class DeferredBatch(Batch):
    """The same, deferred."""

    deferrable = True


@dataclass
class ClearedBatch(Batch):
    """The batch operator, whose run is cleared after the crash. Starting its first job takes a while, and
    that job does not end by itself."""

    points_of = "batch"
    cleared = True

    def before(self) -> None:
        super().before()
        self._faults = [
            self.control.fault(kind, job=f"{self.name}.*_A1$", seconds=seconds)
            for kind, seconds in (("slow_statement", 6), ("slow_job", 90))
        ]

    def after_crash(self) -> None:
        super().after_crash()
        if not any(name.endswith("manifest.json") for name in self.files(f"{self.base}_snowml_input")):
            for fault in self._faults:  # the next try's job is the first one
                self.control.release(fault, "drop")

    def _attempts(self, xcom: dict[str, Any], jobs: dict[str, str]) -> list[str]:
        """The old attempt, if it got that far, is ended."""
        running = [id_ for id_, state in self.statements().items() if state == "RUNNING"]
        return [f"statements are left running: {running}"] if running else []

    def _directories(self, jobs: dict[str, str]) -> set[str]:
        """A cancelled attempt's directories stay for inspection."""
        names = {name.rsplit("_", 1)[0] for name in jobs}
        return {f"{name}_A{number}" for name in names for number in (1, 2)}


@dataclass
class ClearedBuild(ClearedBatch):
    """The same; its first job's image is built, which does not end by itself."""

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "force_rebuild": True}

    def before(self) -> None:
        Batch.before(self)
        self._build = self.control.fault("hang_job", job="^MODEL_BUILD", user=self.name)

    def after_crash(self) -> None:
        Batch.after_crash(self)
        if not self.statements():  # the next try's build is the first one
            self.control.release(self._build, "drop")


@dataclass
class KilledBatch(ClearedBatch):
    """The batch operator is cleared while it is deferred: the trigger's ``on_kill`` comes first."""

    points_of = ""
    cleared = False
    deferrable = True
    killed = "before"

    def after_crash(self) -> None:
        Batch.after_crash(self)

    def after_kill(self) -> None:
        if alive := [name for name, status in self.jobs().items() if status not in ENDED | ENDING]:
            self.noted.append(f"jobs live after the kill: {alive}")
        if alive := [name for name, status in self.builds().items() if status not in ENDED | ENDING]:
            self.noted.append(f"image builds live after the kill: {alive}")

    def before(self) -> None:
        Batch.before(self)
        self.control.fault("slow_job", job=f"{self.name}.*_A1$", seconds=90)


@dataclass
class KilledBuild(KilledBatch):
    """It is cleared while the image is built, which does not end by itself."""

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "force_rebuild": True}

    def before(self) -> None:
        Batch.before(self)
        self.control.fault("hang_job", job="^MODEL_BUILD", user=self.name)


@dataclass
class BatchKilledLate(KilledBatch):
    """The next try has begun when ``on_kill`` comes, which must leave that one's job alone."""

    killed = "after"

    def before(self) -> None:
        super().before()
        self.control.fault("slow_job", job=f"{self.name}.*_A2$", seconds=6)


@dataclass
class BuildKilledLate(KilledBuild):
    """Both."""

    killed = "after"


@dataclass
class HangingBatch(Batch):
    """The batch operator, in a process that hangs and goes on when its successor has come to its end."""

    points_of = "batch"
    hangs = True


@dataclass
class HangingBatchLive(HangingBatch):
    """It goes on when its successor has submitted the job, which then reads its input."""

    let_go = "^(EXECUTE INFERENCE|DESCRIBE SERVICE)"
    retries = 1

    def before(self) -> None:
        super().before()
        self.control.fault("slow_job", job=f"{self.name}.*_A1$", seconds=2)


@dataclass
class HangingBatchCleared(ClearedBatch):
    """The batch operator, in a process that hangs while its run is cleared, and goes on when that is done.

    Not in the transfer of a manifest's bytes: a stage has no way to write a file only if it is not there. The
    client asks, and then writes.
    """

    hangs = True
    spared = "^PUT /files/"

    def before(self) -> None:
        Batch.before(self)
        self._begun = False

    def after_crash(self) -> None:
        Batch.after_crash(self)
        self._begun = bool(self.statements())

    def _attempts(self, xcom: dict[str, Any], jobs: dict[str, str]) -> list[str]:
        """A job that had not begun when the run was cleared never does."""
        found = super()._attempts(xcom, jobs)
        others = {name: status for name, status in jobs.items() if not xcom["job_name"].endswith(name)}
        if others and not self._begun and set(others.values()) != {"FAILED"}:
            found.append(f"a job began after the clear: {others}")
        return found

    def _finished(self, jobs: dict[str, str]) -> list[str]:
        """One that had begun may have ended well before the clear."""
        done = super()._finished(jobs)
        return done[-1:] if self._begun else done


@dataclass
class EmptyBatch(Batch):
    """The batch operator, on a date without rows."""

    def arguments(self) -> dict[str, Any]:
        return {
            **super().arguments(),
            "input_query": f"SELECT * FROM {SCHEMA}.X WHERE DAY = '1999-12-31'",
            "on_empty": "replace",
        }

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        found = []
        if jobs := self.jobs():
            found.append(f"there are jobs: {jobs}")
        outputs = self.files(self.base)
        job = xcom["job_output_location"].rstrip("/").split("/")[-1]
        if outputs != [f"{job}/_SUCCESS"]:
            found.append(f"the output is {outputs}")
        inputs = [name for name in self.files(f"{self.base}_snowml_input") if "stray" not in name]
        if inputs != [f"{job}/manifest.json"]:
            found.append(f"the input is {inputs}")
        if (xcom["job_name"], xcom["input_rows"], xcom["output_rows"], xcom["attempt"]) != (None, 0, 0, 1):
            found.append(f"the result is {xcom}")
        return found


@dataclass
class BatchLosesRows(Batch):
    """The first job is DONE, and some rows did not come out."""

    bad_day = True
    retries = 1

    def before(self) -> None:
        super().before()
        self.control.fault("lose_rows", job=f"{self.name}.*_A1$")

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        found = self._rows(xcom)
        if [name[-3:] for name in self.jobs()] != ["_A1", "_A2"]:
            found.append(f"the jobs are {self.jobs()}")
        return found


@dataclass
class BatchLateSuccess(Batch):
    """``_SUCCESS`` comes after DONE."""

    bad_day = True
    fault: ClassVar[dict[str, Any]] = {"kind": "late_success", "seconds": 6}

    def before(self) -> None:
        super().before()
        self.control.fault(job=self.name, **self.fault)


@dataclass
class BatchLateDone(BatchLateSuccess):
    """DONE comes after ``_SUCCESS``."""

    fault = {"kind": "late_done", "seconds": 2}


@dataclass
class BatchSlow(BatchLateSuccess):
    """Long enough for the server to be killed and started again meanwhile."""

    fault = {"kind": "slow_job", "seconds": 30}


@dataclass
class DeferredBatchSlow(BatchSlow):
    """The same, deferred."""

    deferrable = True


@dataclass
class BatchExpired(BatchSlow):
    """The session of those who wait expires."""

    fault = {"kind": "slow_job", "seconds": 3}

    def before(self) -> None:
        super().before()
        self.control.fault("expire_session", user=self.name, statement="^(DESCRIBE SERVICE|SHOW JOB)", skip=2)


@dataclass
class DeferredBatchExpired(BatchExpired):
    """The same, deferred."""

    deferrable = True


@dataclass
class BatchPollErrors(BatchSlow):
    """Some looks in a row fail."""

    fault = {"kind": "slow_job", "seconds": 2}

    def before(self) -> None:
        super().before()
        self.control.fault(
            "refuse", user=self.name, statement="^(DESCRIBE SERVICE|SHOW JOB)", skip=2, times=2
        )


@dataclass
class DeferredBatchPollErrors(BatchPollErrors):
    """The same, deferred."""

    deferrable = True


@dataclass
class BatchForeign(Batch):
    """A job of another owner bears our name, and lives."""

    bad_day = True
    failure = "BatchJobOwnershipError"
    on_conflict: ClassVar[str] = "replace"
    other: ClassVar[dict[str, Any]] = {"dag_id": "another"}
    seconds: ClassVar[float] = 4

    @property
    def _name(self) -> str:
        return JobOwner("chaos", self.name, DAY).job_name(1)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "on_conflict": self.on_conflict}

    def before(self) -> None:
        super().before()
        self.control.fault("slow_job", job=self._name, seconds=self.seconds)
        start_job(self.control, self.base, self._name)
        owner = JobOwner("chaos", self.name, DAY)
        write_manifest(self.control, manifest_of(owner, self.base, self._name, **self.other))

    def violations_of_failure(self) -> list[str]:
        jobs = self.jobs()
        untouched = list(jobs) == [self._name] and jobs[self._name] in ("PENDING", "RUNNING", "DONE")
        return [] if untouched else [f"the other's job is not as it was: {jobs}"]


@dataclass
class BatchConflict(BatchForeign):
    """A job of another run of the same key lives, which must be left alone."""

    failure = "BatchJobConflictError"
    on_conflict = "fail"
    other = {"run_id": "another"}
    seconds = 30  # it lives still when the task looks


@dataclass
class BatchWaits(BatchConflict):
    """A job of another run of the same key lives, whose end is awaited."""

    failure = ""
    on_conflict = "wait"
    seconds = 4

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        found = self._rows(xcom)
        if set(self.jobs().values()) != {"DONE"} or xcom["attempt"] != 2:
            found.append(f"the jobs are {self.jobs()}, the attempt {xcom['attempt']}")
        return found
