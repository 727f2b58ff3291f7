"""What is killed in the matrix: each operator with its arguments, and what must be so afterwards."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import Any, ClassVar

from lives import Control

from airflow_provider_snowml.core.batch_job import ENDED, JobManifest, JobOwner, fingerprint

SCHEMA = "SNOWML.CHAOS"
DAY, OTHER_DAY = "2013-06-01", "2013-06-02"
RUN_ID = "chaos__2013-06-01"
THRESHOLDS = {"V1": 20, "V2": 40}  # a version's prediction says whether F1 is greater
SLOTS = 2  # how many cases may run at once; each has its own model, whose default version changes


def prepare(hook: Any) -> None:
    """Models, rows, a stage, a pool, and the output of a job to be loaded."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    hook.rows(
        f"CREATE TABLE {SCHEMA}.X AS SELECT SEQ4()::INT AS ID, SEQ4()::FLOAT AS F1, "
        f"DATEADD(day, MOD(SEQ4(), 2), '{DAY}'::DATE)::VARCHAR AS DAY FROM TABLE(GENERATOR(ROWCOUNT => 60))"
    )
    hook.rows(f"CREATE STAGE {SCHEMA}.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    hook.rows(f"CREATE FILE FORMAT {SCHEMA}.PARQUET_FILES TYPE = PARQUET")
    hook.rows("CREATE COMPUTE POOL CHAOS_POOL MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS")
    rows = pd.DataFrame({"F1": np.arange(60.0)})
    with hook.session() as session:
        registry = hook.registry(session, hook.default_schema())
        for slot in range(SLOTS):
            for version, threshold in THRESHOLDS.items():
                registry.log_model(
                    LogisticRegression(C=1e6).fit(rows, (threshold < rows.F1).astype(int)),
                    model_name=f"M{slot}",
                    version_name=version,
                    sample_input_data=rows.head(),
                    options={"target_methods": ["predict"]},
                )
    for name, where in (("A_DAY", f"WHERE DAY = '{DAY}'"), ("ALL_DAYS", ""), ("UNFINISHED", "LIMIT 10")):
        _write_output(hook, name, where)
    hook.rows(f"REMOVE '@{SCHEMA}.ST/loads/UNFINISHED/_SUCCESS'")


def _write_output(hook: Any, name: str, where: str) -> None:
    """What a job leaves: its rows, _SUCCESS, and the manifest beside its input."""
    hook.rows(
        f"COPY INTO @{SCHEMA}.ST/loads/{name}/part FROM "
        f"(SELECT ID, DAY, IFF(F1 > 20, 1, 0) AS OUTPUT_FEATURE_0 FROM {SCHEMA}.X {where}) "
        "FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE"
    )
    manifest = JobManifest(
        **asdict(JobOwner("chaos", "score", DAY)),
        run_id=RUN_ID,
        clear_number=0,
        attempt=1,
        job_name=f"{SCHEMA}.{name}",
        fingerprint=fingerprint({}),
        model=f"{SCHEMA}.M0",
        version_reference="default",
        version="V1",
        function="predict",
        input_location=f"@{SCHEMA}.ST/loads_snowml_input/{name}/data_0/",
        output_location=f"@{SCHEMA}.ST/loads/{name}/",
        input_rows=30,
        keeps_row_count=True,
    )
    for file, path, content in (
        ("_SUCCESS", f"loads/{name}", b""),
        ("manifest.json", f"loads_snowml_input/{name}", manifest.to_json().encode()),
    ):
        hook.rows(
            f"PUT 'file:///{file}' '@{SCHEMA}.ST/{path}/' AUTO_COMPRESS = FALSE OVERWRITE = TRUE",
            file_stream=BytesIO(content),
        )


@dataclass
class Subject:
    """One task instance that is killed.

    :param name: of the case; upper case, and the name of everything that is its own.
    :param control: to look with.
    :param slot: which model is its own.
    """

    name: str
    control: Control
    slot: int = 0
    points_of: ClassVar[str] = ""  # whose requests are its crash points, if not its own
    bad_day: ClassVar[bool] = False  # something goes wrong that is no crash: one case
    failure: ClassVar[str] = ""  # how it must end, if not well
    cleared: ClassVar[bool] = False
    deferrable: ClassVar[bool] = False
    retries: ClassVar[int] = 0
    operator: ClassVar[str] = ""
    run_id: ClassVar[str] = RUN_ID

    @property
    def model(self) -> str:
        return f"{SCHEMA}.M{self.slot}"

    def arguments(self) -> dict[str, Any]:
        """The operator's."""
        raise NotImplementedError

    def before(self) -> None:
        """What is there when the task starts."""

    def after_crash(self) -> None:
        """What happens between the crash and the next try. A violation is noted."""

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        """What is not as it must be, when the task has ended well."""
        raise NotImplementedError

    def violations_of_failure(self) -> list[str]:
        """What is not as it must be, when the task has ended as its ``failure`` says."""
        return []

    def files(self, directory: str) -> list[str]:
        """Below a directory of the stage."""
        rows = self.control.rows(f"LIST '@{SCHEMA}.ST/{directory}/'")
        return [row["name"].removeprefix(f"st/{directory}/") for row in rows]

    def jobs(self) -> dict[str, str]:
        """The statuses of its jobs, by name."""
        rows = self.control.rows(f"SHOW JOB SERVICES LIKE '%{self.name}%' IN SCHEMA {SCHEMA}")
        return {row["name"]: row["status"] for row in rows}


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
        found = []
        jobs = self.jobs()
        job = xcom["job_name"].split(".")[-1]
        if set(jobs.values()) - ENDED:
            found.append(f"jobs are left running: {jobs}")
        if [name for name, status in jobs.items() if status == "DONE"] != [job]:
            found.append(f"not exactly one finished attempt: {jobs}; the task's is {job}")
        found += self._attempts(xcom, jobs)
        outputs, inputs = self.files(self.base), self.files(f"{self.base}_snowml_input")
        for what, files in (("output", outputs), ("input", inputs)):
            if {name.split("/")[0] for name in files} - self._directories(jobs):
                found.append(f"orphan {what} directories: {files}")
        if f"{job}/_SUCCESS" not in outputs:
            found.append(f"no _SUCCESS in the output: {outputs}")
        return found + self._rows(xcom)

    def _attempts(self, xcom: dict[str, Any], jobs: dict[str, str]) -> list[str]:
        """A retry is the same work: one attempt, and no other was ever made."""
        if len(jobs) == 1 and xcom["attempt"] == 1:
            return []
        return [f"more than one attempt: {jobs}, attempt {xcom['attempt']}"]

    def _directories(self, jobs: dict[str, str]) -> set[str]:
        return set(jobs)

    def _rows(self, xcom: dict[str, Any]) -> list[str]:
        found = []
        parquet = f"(FILE_FORMAT => {SCHEMA}.PARQUET_FILES, PATTERN => '.*[.]parquet')"
        rows = self.control.rows(
            'SELECT $1:"ID"::INT AS ID, $1:"output_feature_0"::INT AS P, $1:"F1"::FLOAT AS F1 '
            f"FROM '{xcom['job_output_location']}' {parquet}"
        )
        if sorted(row["ID"] for row in rows) != list(range(0, 60, 2)):
            found.append(f"the output has other rows: {sorted(row['ID'] for row in rows)}")
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
        text = f"NAME = {SCHEMA}.SNOWML_CHAOS_{self.name}"
        running = self.control.rows(
            "SELECT QUERY_ID FROM TABLE(SNOWML.INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000)) "
            "WHERE EXECUTION_STATUS = 'RUNNING' AND STARTSWITH(QUERY_TEXT, 'EXECUTE') "
            f"AND CONTAINS(QUERY_TEXT, '{text}')"
        )
        return [f"{len(running)} statements are left running"] if running else []

    def _directories(self, jobs: dict[str, str]) -> set[str]:
        """A cancelled attempt's directories stay for inspection."""
        names = {name.rsplit("_", 1)[0] for name in jobs}
        return {f"{name}_A{number}" for name in names for number in (1, 2)}


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
    fault: ClassVar[dict[str, Any]] = {"kind": "late_success", "seconds": 2}

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

    fault = {"kind": "slow_job", "seconds": 8}


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


OLD = {DAY: 5, OTHER_DAY: 7}


@dataclass
class Load(Subject):
    """The load operator, into a table that has old rows of this slice and of another."""

    operator = "airflow_provider_snowml.operators.inference.SnowMLLoadPredictionsOperator"
    output: ClassVar[str] = "A_DAY"
    seen: list[str] = field(default_factory=list)

    @property
    def table(self) -> str:
        return f"{SCHEMA}.T_{self.name}"

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "job_output_location": f"@{SCHEMA}.ST/loads/{self.output}/",
            "output_table": self.table,
            "replace_column": "DAY",
            "replace_value": DAY,
        }

    def before(self) -> None:
        self.control.rows(
            f"CREATE TABLE {self.table} (ID INT, DAY VARCHAR, OUTPUT_FEATURE_0 INT, MODEL VARCHAR, "
            "VERSION VARCHAR, RUN_ID VARCHAR, LOADED_AT TIMESTAMP_NTZ)"
        )
        for day, count in OLD.items():
            self.control.rows(
                f"INSERT INTO {self.table} SELECT 1000 + SEQ4(), '{day}', 0, 'OLD', 'V0', 'old', "
                f"CURRENT_TIMESTAMP()::TIMESTAMP_NTZ FROM TABLE(GENERATOR(ROWCOUNT => {count}))"
            )

    def after_crash(self) -> None:
        """A reader looks: the slice is the old one or the new one."""
        found = self._slices()
        if not self._is_right(found) and found != self._untouched():
            self.seen.append(f"a reader saw part of a result: {found}")

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        found = list(self.seen)
        slices = self._slices()
        if not self._is_right(slices):
            found.append(f"the slices are {slices}")
        if xcom["rows"] != 30:
            found.append(f"the result is {xcom}")
        if left := self.control.rows(f"SHOW TABLES LIKE '%TEMP%' IN SCHEMA {SCHEMA}"):
            found.append(f"tables are left: {[row['name'] for row in left]}")
        return found

    def violations_of_failure(self) -> list[str]:
        slices = self._slices()
        return [] if slices == self._untouched() else [f"the slices are {slices}"]

    def _slices(self) -> list[tuple[Any, ...]]:
        """By day and run: how many rows, of which ids."""
        if not self.control.rows(f"SHOW TABLES LIKE 'T_{self.name}' IN SCHEMA {SCHEMA}"):
            return []
        rows = self.control.rows(
            f"SELECT DAY, {self._stamp} AS S, COUNT(*) AS N, COUNT(DISTINCT ID) AS D, MIN(ID) AS A "
            f"FROM {self.table} GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return [tuple(row.values()) for row in rows]

    _stamp: ClassVar[str] = "RUN_ID"
    _old = "old"
    _new: ClassVar[str] = RUN_ID

    def _untouched(self) -> list[tuple[Any, ...]]:
        return [(day, self._old, count, count, 1000) for day, count in OLD.items()]

    def _is_right(self, slices: list[tuple[Any, ...]]) -> bool:
        return slices == [(DAY, self._new, 30, 30, 0), *self._untouched()[1:]]


@dataclass
class LoadNew(Load):
    """The load operator, into a table that is not there yet."""

    def before(self) -> None:
        """Nothing."""

    def _untouched(self) -> list[tuple[Any, ...]]:
        return []


@dataclass
class LoadForeign(Load):
    """Some rows are of another slice."""

    bad_day = True
    failure = "ForeignRowsError"
    output = "ALL_DAYS"


@dataclass
class LoadUnfinished(Load):
    """The job has not written ``_SUCCESS``."""

    bad_day = True
    failure = "BatchOutputIncompleteError"
    output = "UNFINISHED"


@dataclass
class Run(Load):
    """The run operator, replacing one slice."""

    operator = "airflow_provider_snowml.operators.inference.SnowMLRunModelOperator"
    where: ClassVar[str] = f"WHERE DAY = '{DAY}'"
    _stamp = "IFF(ID >= 1000, 'old', 'new')"
    _new = "new"

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.model,
            "input_query": f"SELECT * FROM {SCHEMA}.X {self.where}",
            "output_table": self.table,
            "write_mode": "replace_where",
            "replace_column": "DAY",
            "replace_value": DAY,
        }

    def before(self) -> None:
        self.control.rows(f"ALTER MODEL {self.model} SET DEFAULT_VERSION = V1")
        self.control.rows(
            f'CREATE TABLE {self.table} (ID INT, F1 FLOAT, DAY VARCHAR, "output_feature_0" INT)'
        )
        for day, count in OLD.items():
            self.control.rows(
                f"INSERT INTO {self.table} SELECT 1000 + SEQ4(), 0, '{day}', 0 "
                f"FROM TABLE(GENERATOR(ROWCOUNT => {count}))"
            )


@dataclass
class RunForeign(Run):
    """Some rows are of another slice."""

    bad_day = True
    failure = "ForeignRowsError"
    where = ""


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
        specification = json.dumps({"output": {"stage_location": f"@{SCHEMA}.ST/sensed/"}})
        self.control.rows(
            f"EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL CHAOS_POOL WITH SPECIFICATION '{specification}' "
            f"FROM (SELECT F1 FROM {SCHEMA}.X) MODEL = {SCHEMA}.M0 VERSION = V1 FUNCTION = 'predict' "
            f"NAME = {self.job} ASYNC = TRUE"
        )

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
        self.control.fault(self.fault, job=self.name, seconds=2)
        super().before()


@dataclass
class SensorLateDone(SensorLateSuccess):
    """DONE comes after ``_SUCCESS``."""

    fault = "late_done"


SUBJECTS: dict[str, type[Subject]] = {
    "batch": Batch,
    "batch_deferred": DeferredBatch,
    "batch_cleared": ClearedBatch,
    "load": Load,
    "load_new": LoadNew,
    "run": Run,
    "sensor": Sensor,
    "sensor_deferred": DeferredSensor,
    "batch_loses_rows": BatchLosesRows,
    "batch_late_success": BatchLateSuccess,
    "batch_late_done": BatchLateDone,
    "batch_slow": BatchSlow,
    "batch_slow_deferred": DeferredBatchSlow,
    "batch_expired": BatchExpired,
    "batch_expired_deferred": DeferredBatchExpired,
    "load_foreign": LoadForeign,
    "load_unfinished": LoadUnfinished,
    "run_foreign": RunForeign,
    "sensor_late_success": SensorLateSuccess,
    "sensor_late_done": SensorLateDone,
}
