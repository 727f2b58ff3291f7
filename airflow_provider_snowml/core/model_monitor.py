"""A model monitor: what it watches, as a statement, and how it differs from one that is there already."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, literal
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    ModelTaskError,
    MonitorColumnsError,
)

BINARY, MULTI, REGRESSION = (
    "TABULAR_BINARY_CLASSIFICATION",
    "TABULAR_MULTI_CLASSIFICATION",
    "TABULAR_REGRESSION",
)
MAX_SEGMENTS = 5
OUTCOMES = (
    "prediction_score_columns",
    "prediction_class_columns",
    "actual_score_columns",
    "actual_class_columns",
)
COLUMN_LISTS = ("id_columns", *OUTCOMES, "segment_columns", "custom_metric_columns")

NUMBERS, TEXTS = ("FIXED", "REAL"), ("TEXT",)
# The connector's names of types, as Snowflake's statements have them.
_TYPE_NAMES = {"FIXED": "NUMBER", "REAL": "FLOAT", "TEXT": "VARCHAR"}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

# Which table function has a metric, and whether it takes a column.
DRIFT, PERFORMANCE, STAT = (f"MODEL_MONITOR_{kind}_METRIC" for kind in ("DRIFT", "PERFORMANCE", "STAT"))
METRICS = {
    **dict.fromkeys(
        ("DIFFERENCE_OF_MEANS", "POPULATION_STABILITY_INDEX", "JENSEN_SHANNON", "WASSERSTEIN"), DRIFT
    ),
    **dict.fromkeys(("RMSE", "MAE", "MAPE", "MSE"), PERFORMANCE),
    **dict.fromkeys(("ROC_AUC", "CLASSIFICATION_ACCURACY", "PRECISION", "RECALL", "F1_SCORE"), PERFORMANCE),
    **dict.fromkeys(
        (f"{kind}_AVERAGE_{what}" for kind in ("MACRO", "MICRO") for what in ("PRECISION", "RECALL")),
        PERFORMANCE,
    ),
    **dict.fromkeys(("COUNT", "COUNT_NULL", "MIN", "MAX", "AVG", "SUM"), STAT),
}


@dataclass(frozen=True)
class ModelMonitor:
    """What CREATE MODEL MONITOR makes. Columns are given by their resolved names.

    :param name: the monitor, in the model's schema.
    :param model: the model.
    :param version: the version's resolved name.
    :param function: the method whose predictions are watched.
    :param source: a table or view with predictions, and with what happened.
    :param warehouse: what refreshes the monitor.
    :param timestamp_column: when each row was predicted.
    :param baseline: a table that drift is measured against.
    :param refresh_interval: how often the monitor looks.
    :param aggregation_window: the shortest time that it tells apart.
    """

    name: QualifiedName
    model: QualifiedName
    version: str
    function: str
    source: QualifiedName
    warehouse: Identifier
    timestamp_column: str
    baseline: QualifiedName | None = None
    id_columns: tuple[str, ...] = ()
    prediction_score_columns: tuple[str, ...] = ()
    prediction_class_columns: tuple[str, ...] = ()
    actual_score_columns: tuple[str, ...] = ()
    actual_class_columns: tuple[str, ...] = ()
    segment_columns: tuple[str, ...] = ()
    custom_metric_columns: tuple[str, ...] = ()
    refresh_interval: str = "1 hour"
    aggregation_window: str = "1 day"
    comment: str | None = None

    def create(self, *, replace: bool = False) -> str:
        """The statement that creates it.

        :param replace: put it in the place of one of the same name.
        """
        clauses = {
            "MODEL": self.model.sql,
            "VERSION": literal(Identifier.of(self.version).sql),
            "FUNCTION": literal(self.function),
            "SOURCE": self.source.sql,
            "WAREHOUSE": self.warehouse.sql,
            "REFRESH_INTERVAL": literal(self.refresh_interval),
            "AGGREGATION_WINDOW": literal(self.aggregation_window),
            "TIMESTAMP_COLUMN": Identifier.of(self.timestamp_column).sql,
        }
        if self.baseline is not None:
            clauses["BASELINE"] = self.baseline.sql
        for name in COLUMN_LISTS:
            if columns := self.columns(name):
                names = ", ".join(literal(Identifier.of(column).sql) for column in columns)
                clauses[name.upper()] = f"({names})"
        if self.comment:
            clauses["COMMENT"] = literal(self.comment)
        verb = "CREATE OR REPLACE" if replace else "CREATE"
        return f"{verb} MODEL MONITOR {self.name.sql} WITH " + " ".join(
            f"{key} = {value}" for key, value in clauses.items()
        )

    def columns(self, name: str) -> tuple[str, ...]:
        """One of its lists of columns, by the argument's name."""
        columns: tuple[str, ...] = getattr(self, name)
        return columns

    def check(self, task: str) -> None:
        """Check what can be checked without looking at tables.

        :param task: the model's task, as it was registered.
        :raises ModelTaskError: if models of that task cannot be monitored, or not by these columns.
        :raises InvalidArgumentError: (or a subclass) for intervals or columns that make no sense.
        """
        if interval_seconds(self.refresh_interval, "refresh_interval") < 60:
            raise InvalidArgumentError(
                f"refresh_interval is {self.refresh_interval!r}; 60 seconds is the shortest."
            )
        if interval_seconds(self.aggregation_window, "aggregation_window", units=("day",)) < 86400:
            raise InvalidArgumentError(
                f"aggregation_window is {self.aggregation_window!r}; 1 day is the shortest."
            )
        self._check_lists()
        self._check_task(task)

    def check_source(self, task: str, columns: Mapping[str, str]) -> None:
        """Check that the source has every column, with a type that fits.

        :param task: the model's task.
        :param columns: the source's columns with their types, as the connector names them.
        :raises MonitorColumnsError: if a column is missing or has another type; the message lists what is
            there.
        """
        self._check_table("source", self.source, columns, ["timestamp_column", *COLUMN_LISTS], task)

    def check_baseline(self, task: str, columns: Mapping[str, str]) -> None:
        """Check that the baseline has the columns that drift is asked for: predictions and segments.

        :param task: the model's task.
        :param columns: the baseline's columns with their types.
        :raises MonitorColumnsError: if one is missing or has another type.
        """
        if self.baseline is not None:
            names = ["prediction_score_columns", "prediction_class_columns", "segment_columns"]
            self._check_table("baseline", self.baseline, columns, names, task)

    def differences(self, described: Mapping[str, Any]) -> list[str]:
        """What an existing monitor watches otherwise than this one, one sentence each.

        The custom metric columns are not among what DESCRIBE MODEL MONITOR shows, so they are not compared.

        :param described: its row of DESCRIBE MODEL MONITOR.
        """
        model, columns = json.loads(described["model"]), json.loads(described["columns"])
        found: dict[str, Any] = {
            "model": _qualified(model, "model_name"),
            "version": model["version_name"],
            "function": model["function_name"].upper(),
            "source": _qualified(json.loads(described["source"] or "{}")),
            "baseline": _qualified(json.loads(described["baseline"] or "{}")),
            "warehouse": described["warehouse_name"],
            "timestamp_column": columns["timestamp_column"],
            **{name: sorted(columns[name]) for name in COLUMN_LISTS if name in columns},
        }
        wanted: dict[str, Any] = {
            "model": _canonical(self.model),
            "version": self.version,
            "function": self.function.upper(),
            "source": _canonical(self.source),
            "baseline": _canonical(self.baseline) if self.baseline else None,
            "warehouse": self.warehouse.name,
            "timestamp_column": self.timestamp_column,
            **{name: sorted(self.columns(name)) for name in COLUMN_LISTS},
        }
        for name in ("refresh_interval", "aggregation_window"):
            found[name], wanted[name] = str(described[name]), getattr(self, name)
            if _seconds(found[name]) in (None, _seconds(wanted[name])):
                found[name] = wanted[name]  # '60 minutes' is '1 hour'
        return [
            f"its {name} is {value or 'none'}, not {wanted[name] or 'none'}"
            for name, value in found.items()
            if value != wanted[name]
        ]

    def _check_lists(self) -> None:
        for name in OUTCOMES:
            if len(columns := self.columns(name)) > 1:
                raise InvalidArgumentError(
                    f"{name} has {len(columns)} columns ({', '.join(columns)}): monitors are for models with "
                    "one output, so it takes one."
                )
        if not self.prediction_score_columns and not self.prediction_class_columns:
            raise InvalidArgumentError(
                "Neither prediction_score_columns nor prediction_class_columns is given; a monitor needs one."
            )
        if len(self.segment_columns) > MAX_SEGMENTS:
            raise InvalidArgumentError(
                f"segment_columns has {len(self.segment_columns)} columns; {MAX_SEGMENTS} are possible."
            )
        places: dict[str, str] = {self.timestamp_column: "timestamp_column"}
        for name in COLUMN_LISTS:
            for column in self.columns(name):
                if column in places:
                    raise InvalidArgumentError(
                        f"The column {column} is in {places[column]} and in {name}: a monitor takes each "
                        "column once."
                    )
                places[column] = name

    def _check_task(self, task: str) -> None:
        refused = {
            BINARY: ("actual_score_columns",),
            MULTI: ("prediction_score_columns", "actual_score_columns"),
            REGRESSION: ("prediction_class_columns", "actual_class_columns"),
        }
        if task not in refused:
            raise ModelTaskError(
                f"{self.model} version {self.version} was registered with the task {task}; monitors take "
                f"{', '.join(refused)}. Register a version with ModelArtifact(task=...)."
            )
        for name in refused[task]:
            if self.columns(name):
                raise ModelTaskError(
                    f"{name} is {', '.join(self.columns(name))}, but {self.model} version {self.version} has "
                    f"the task {task}: it takes {_outcomes_of(task, refused[task])}."
                )

    def _check_table(
        self,
        what: str,
        table: QualifiedName,
        columns: Mapping[str, str],
        names: Sequence[str],
        task: str,
    ) -> None:
        for name in names:
            wanted = (self.timestamp_column,) if name == "timestamp_column" else self.columns(name)
            types = _types(name, task)
            for column in wanted:
                if column not in columns:
                    raise MonitorColumnsError(
                        f"{name} wants {column}, which the {what} {table} lacks. It has: {_listed(columns)}."
                    )
                if types and columns[column] not in types:
                    raise MonitorColumnsError(
                        f"{name} wants {column} to be {_type_name(types[0])}; in the {what} {table} it is "
                        f"{_type_name(columns[column])}. It has: {_listed(columns)}."
                    )


def interval_seconds(text: str, what: str, units: Sequence[str] = tuple(_SECONDS)) -> int:
    """How long ``"<number> <unit>"`` is, in seconds.

    :param text: such as ``"1 day"`` or ``"90 minutes"``.
    :param what: which argument it is, for the error.
    :param units: the units that are possible, in the singular.
    :raises InvalidArgumentError: if it is none.
    """
    seconds = _seconds(text)
    if seconds is None or not re.search(f"({'|'.join(units)})s?$", text.strip().lower()):
        raise InvalidArgumentError(
            f"{what} is {text!r}; write a number and {' or '.join(unit + 's' for unit in units)}: '1 day'."
        )
    return seconds


def _seconds(text: str) -> int | None:
    found = re.fullmatch(r"(\d+)\s+(second|minute|hour|day)s?", str(text).strip().lower())
    return int(found[1]) * _SECONDS[found[2]] if found else None


def _types(name: str, task: str) -> Sequence[str]:
    """The types that the columns of a list may have; any if it is empty."""
    if name == "timestamp_column":
        return ("TIMESTAMP_NTZ",)
    if name == "segment_columns" or (name.endswith("_class_columns") and task == MULTI):
        return TEXTS
    return () if name == "id_columns" else NUMBERS


def _outcomes_of(task: str, refused: Sequence[str]) -> str:
    return " and ".join(name for name in OUTCOMES if name not in refused)


def _canonical(name: QualifiedName) -> str:
    """A name without quotes that it does not need."""
    return ".".join(Identifier.of(part.name).sql for part in (name.database, name.schema, name.name))


def _qualified(table: Mapping[str, str], key: str = "name") -> str | None:
    """A name that SHOW and DESCRIBE give in parts."""
    parts = [table.get(part) for part in ("database_name", "schema_name", key)]
    return ".".join(Identifier.of(part).sql for part in parts if part) if all(parts) else None


def _type_name(type_: str) -> str:
    return _TYPE_NAMES.get(type_, type_)


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {_type_name(type_)}" for name, type_ in columns.items())
