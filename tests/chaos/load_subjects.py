"""The operators that replace a slice of a table, killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from subject import Subject
from world import DAY, OTHER_DAY, RUN_ID, SCHEMA

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
class LoadWaits(Load):
    """Too many wait for the table's lock, twice."""

    def before(self) -> None:
        super().before()
        self.control.fault("refuse", user=self.name, statement="^DELETE", errno=625, times=2)


@dataclass
class HangingLoad(Load):
    """The load operator, in a process that hangs and goes on when its successor has loaded."""

    points_of = "load"
    hangs = True


@dataclass
class HangingLoadLive(HangingLoad):
    """It goes on when its successor has begun to write."""

    let_go = "^(DELETE|INSERT)"
    retries = 1


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
class HangingRun(Run):
    """The run operator, in a process that hangs and goes on when its successor has written."""

    points_of = "run"
    hangs = True


@dataclass
class RunForeign(Run):
    """Some rows are of another slice."""

    bad_day = True
    failure = "ForeignRowsError"
    where = ""
