"""The metrics of model monitors: table functions over the rows that a monitor has.

Rows are counted in the aggregation windows that they fall into, and a window belongs to a range
of time if its start does. Ranges and windows are aligned as TIME_SLICE aligns them.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import monitor_formulas as formulas
from . import monitors
from .errors import SnowflakeError, compilation_error, invalid_value, unsupported
from .functions import table_function
from .grammar import fold, parse_name
from .monitors import Monitor
from .results import SELECT, Result, rows
from .results import now as now_utc

if TYPE_CHECKING:
    from .session import Session

DEFAULT_DAYS = 60  # without a start
_OPTIONAL = ("granularity", "start_time", "end_time", "extra_args")
_TIMED: list[str | tuple[str, str]] = [("EVENT_TIMESTAMP", "timestamp_ntz"), ("METRIC_VALUE", "real")]
_SEGMENT: list[str | tuple[str, str]] = ["SEGMENT_COLUMN", "SEGMENT_VALUE"]

# What Snowflake has; those without a function are not there yet.
DRIFT: dict[str, Callable[[Any, Any], float | None] | None] = {
    "DIFFERENCE_OF_MEANS": formulas.difference_of_means,
    "POPULATION_STABILITY_INDEX": formulas.population_stability_index,
    "JENSEN_SHANNON": None,
    "WASSERSTEIN": None,
}
STAT: dict[str, Callable[[Any], float | None] | None] = {
    "COUNT": formulas.count,
    "AVG": formulas.mean,
    **dict.fromkeys(("COUNT_NULL", "MIN", "MAX", "SUM")),
}


@dataclass(frozen=True)
class Performance:
    """:param compute: of predictions and actuals; None if it is not there yet; :param tasks: the
    model tasks that have it; :param predicted: which column it judges; :param actual: by which."""

    compute: Callable[[Any, Any], float | None] | None
    tasks: tuple[str, ...]
    predicted: str = monitors.PREDICTED_CLASS
    actual: str = monitors.ACTUAL_CLASS


_SCORES = (monitors.PREDICTED_SCORE, monitors.ACTUAL_SCORE)
_REGRESSION, _BINARY, _MULTI = (monitors.REGRESSION,), (monitors.BINARY,), (monitors.MULTI,)
PERFORMANCE = {
    "RMSE": Performance(formulas.root_mean_squared_error, _REGRESSION, *_SCORES),
    "MAE": Performance(formulas.mean_absolute_error, _REGRESSION, *_SCORES),
    "ROC_AUC": Performance(formulas.roc_auc, _BINARY, monitors.PREDICTED_SCORE),
    "CLASSIFICATION_ACCURACY": Performance(formulas.accuracy, _BINARY + _MULTI),
    **dict.fromkeys(("MAPE", "MSE"), Performance(None, _REGRESSION)),
    **dict.fromkeys(("PRECISION", "RECALL", "F1_SCORE"), Performance(None, _BINARY)),
    **dict.fromkeys(
        (f"{kind}_AVERAGE_{what}" for kind in ("MACRO", "MICRO") for what in ("PRECISION", "RECALL")),
        Performance(None, _MULTI),
    ),
}


@table_function("MODEL_MONITOR_DRIFT_METRIC")
def drift_metric(session: Session, *positional: Any, **named: Any) -> Result:
    names = ("model_monitor_name", "drift_metric_name", "column_name")
    query = Query.read(session, "MODEL_MONITOR_DRIFT_METRIC", names, positional, named)
    compute = _supported(DRIFT, query.metric, "MODEL_MONITOR_DRIFT_METRIC")
    column = query.column
    snapshot = monitors.read_baseline(session, query.monitor)
    if snapshot is None:
        raise compilation_error(f"Model monitor {query.monitor.name} has no baseline: drift needs one.")
    if column not in snapshot.column_names:
        raise compilation_error(f"Column '{column}' is not in the baseline {query.monitor.baseline}.")
    if query.metric == "DIFFERENCE_OF_MEANS":
        query.refuse_unless_numeric()
    unused_of_baseline, baseline = _split(query.in_segment(snapshot).column(column))
    found: list[list[Any]] = []
    for start, part in query.ranges(session):
        unused, values = _split(part.column(column))
        value = compute(values, baseline) if len(values) and len(baseline) else None
        counts = (len(values), unused, len(baseline), unused_of_baseline)
        found.append([start, value, *counts, query.metric, column, *query.segment])
    counted = ["COL_COUNT_USED", "COL_COUNT_UNUSED", "BASELINE_COL_COUNT_USED", "BASELINE_COL_COUNT_UNUSED"]
    columns = [*_TIMED, *((c, "fixed") for c in counted), "METRIC_NAME", "COLUMN_NAME", *_SEGMENT]
    return rows(columns, found, SELECT)


@table_function("MODEL_MONITOR_PERFORMANCE_METRIC")
def performance_metric(session: Session, *positional: Any, **named: Any) -> Result:
    names = ("model_monitor_name", "performance_metric_name")
    query = Query.read(session, "MODEL_MONITOR_PERFORMANCE_METRIC", names, positional, named)
    metric = PERFORMANCE.get(query.metric)
    task = query.monitor.task
    if metric is None or task not in metric.tasks:
        known = [name for name, m in PERFORMANCE.items() if task in m.tasks]
        raise invalid_value(
            f"invalid performance metric '{query.metric}' for model task {task}: {', '.join(known)}."
        )
    if metric.compute is None:
        raise unsupported(f"metric {query.metric} of MODEL_MONITOR_PERFORMANCE_METRIC")
    predicted, actual = query.monitor.one(metric.predicted), query.monitor.one(metric.actual)
    found: list[list[Any]] = []
    for start, part in query.ranges(session):
        value, used = None, 0
        if predicted and actual:  # without one of them the metric is NULL, and no error
            pair = part.select([predicted, actual]).drop_null()
            used = pair.num_rows
            value = metric.compute(*(_array(pair.column(c)) for c in (predicted, actual))) if used else None
        found.append([start, value, used, part.num_rows - used, query.metric, *query.segment])
    columns = [*_TIMED, ("COUNT_USED", "fixed"), ("COUNT_UNUSED", "fixed"), "METRIC_NAME", *_SEGMENT]
    return rows(columns, found, SELECT)


@table_function("MODEL_MONITOR_STAT_METRIC")
def stat_metric(session: Session, *positional: Any, **named: Any) -> Result:
    names = ("model_monitor_name", "stat_metric_name", "column_name")
    query = Query.read(session, "MODEL_MONITOR_STAT_METRIC", names, positional, named)
    compute = _supported(STAT, query.metric, "MODEL_MONITOR_STAT_METRIC")
    if not query.metric.startswith("COUNT"):
        query.refuse_unless_numeric()
    found: list[list[Any]] = []
    for start, part in query.ranges(session):
        _, values = _split(part.column(query.column))
        found.append([start, compute(values), query.metric, query.column, *query.segment])
    return rows([*_TIMED, "METRIC_NAME", "COLUMN_NAME", *_SEGMENT], found, SELECT)


def _supported(known: Mapping[str, Any], metric: str, function: str) -> Callable[..., float | None]:
    if metric not in known:
        raise invalid_value(f"invalid metric '{metric}' for {function}: {', '.join(known)}.")
    compute: Callable[..., float | None] | None = known[metric]
    if compute is None:
        raise unsupported(f"metric {metric} of {function}")
    return compute


@dataclass(frozen=True)
class Query:
    """One call of a metric function.

    :param granularity: (number, unit) of the ranges, or None for one range;
    :param segment: (column, value), or (None, None) for all rows.
    """

    monitor: Monitor
    metric: str
    column: str
    granularity: tuple[int, str] | None
    start: np.datetime64
    end: np.datetime64
    segment: tuple[str | None, str | None]

    @classmethod
    def read(
        cls,
        session: Session,
        function: str,
        required: Sequence[str],
        positional: Sequence[Any],
        named: Mapping[str, Any],
    ) -> Query:
        given = _bind(function, (*required, *_OPTIONAL), len(required), positional, named)
        monitor = monitors.get(session, session.resolve(parse_name(str(given["model_monitor_name"]))))
        monitor = monitors.refresh(session, monitor)
        column = fold(str(given["column_name"])) if "column_name" in required else ""
        if column and column not in monitor.monitored:
            raise compilation_error(
                f"Column '{column}' is not monitored by {monitor.name}: {', '.join(monitor.monitored)}."
            )
        end = _time(given.get("end_time"), "end_time") or now_utc().replace(tzinfo=None)
        start = _time(given.get("start_time"), "start_time") or end - datetime.timedelta(days=DEFAULT_DAYS)
        return cls(
            monitor,
            str(given[required[1]]).upper(),
            column,
            _granularity(given.get("granularity")),
            np.datetime64(start, "us"),
            np.datetime64(end, "us"),
            _segment(monitor, given.get("extra_args")),
        )

    def ranges(self, session: Session) -> list[tuple[datetime.datetime, pa.Table]]:
        """The rows of each range that has any, by the range's start."""
        found = self.in_segment(monitors.read_source(session, self.monitor))
        times = found.column(self.monitor.timestamp_column).to_numpy().astype("datetime64[us]")
        windows = slice_starts(times, self.monitor.window_days, "DAY")
        inside = (windows >= self.start) & (windows < self.end)
        if self.granularity is None:
            starts = np.full(len(windows), self.start)
        else:
            starts = slice_starts(windows, *self.granularity)
        return [
            (start.astype(datetime.datetime), found.filter(pa.array(inside & (starts == start))))
            for start in np.unique(starts[inside])
        ]

    def in_segment(self, table: pa.Table) -> pa.Table:
        column, value = self.segment
        if column is None:
            return table
        if column not in table.column_names:
            raise compilation_error(f"Segment column '{column}' is not in the baseline.")
        return table.filter(pc.equal(table.column(column), value))

    def refuse_unless_numeric(self) -> None:
        features = [c for kind in ("string_columns", "boolean_columns") for c in self.monitor.columns[kind]]
        classes = [
            c
            for kind in (monitors.PREDICTED_CLASS, monitors.ACTUAL_CLASS)
            for c in self.monitor.columns[kind]
            if self.monitor.task == monitors.MULTI
        ]
        if self.column in (*features, *classes):
            raise compilation_error(f"{self.metric} needs a numeric column; '{self.column}' is none.")


def slice_starts(times: Any, number: int, unit: str) -> Any:
    """The starts of the slices that times fall into, as TIME_SLICE counts them from 1970; weeks
    start on Mondays."""
    if unit in ("DAY", "WEEK"):
        days = times.astype("datetime64[D]").astype(np.int64)
        length, shift = (number, 0) if unit == "DAY" else (7 * number, 3)  # 1970 began on a Thursday
        slices = ((days + shift) // length * length - shift).astype("datetime64[D]")
    else:
        length = number * {"MONTH": 1, "QUARTER": 3, "YEAR": 12}[unit]
        months = times.astype("datetime64[M]").astype(np.int64)
        slices = (months // length * length).astype("datetime64[M]")
    return slices.astype("datetime64[us]")


def _bind(
    function: str, names: Sequence[str], required: int, positional: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    if {"service", "base_service"} & set(named):
        raise unsupported(f"SERVICE of {function}: gateway model monitors")
    given = dict(zip(names, positional, strict=False))
    unknown = [name for name in named if name not in names or name in given]
    given.update(named)
    missing = [name for name in names[:required] if given.get(name) is None]
    if len(positional) > len(names) or unknown or missing:
        wrong = f"missing {missing[0]}" if missing else f"unexpected {unknown[0] if unknown else 'argument'}"
        raise SnowflakeError(
            939, "22023", f"SQL compilation error:\n{wrong.upper()}: {function}({', '.join(names).upper()})"
        )
    return given


def _granularity(text: Any) -> tuple[int, str] | None:
    if text is None:
        return 1, "DAY"
    found = re.fullmatch(r"\s*([1-9]\d*)\s+(DAY|WEEK|MONTH|QUARTER|YEAR)S?\s*", str(text), re.IGNORECASE)
    if found:
        return int(found[1]), found[2].upper()
    if str(text).strip().upper() == "ALL":
        return None
    raise invalid_value(
        f"invalid granularity '{text}': '<num> DAY | WEEK | MONTH | QUARTER | YEAR', 'ALL' or NULL."
    )


def _time(value: Any, name: str) -> datetime.datetime | None:
    """A timestamp without a zone; one with a zone is taken in UTC."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise invalid_value(f"invalid {name} '{value}': it must be a timestamp or NULL.") from None
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day)
    raise invalid_value(f"invalid {name} '{value}': it must be a timestamp or NULL.")


def _segment(monitor: Monitor, text: Any) -> tuple[str | None, str | None]:
    """``{"SEGMENTS": [{"column": ..., "value": ...}]}``"""
    if text is None:
        return None, None
    form = '{"SEGMENTS": [{"column": "<name>", "value": "<value>"}]}'
    try:
        ((key, (segment,)),) = json.loads(text).items()
        column, value = fold(segment.pop("column")), segment.pop("value")
        if key != "SEGMENTS" or segment or not isinstance(value, str):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise invalid_value(f"invalid extra_args '{text}': {form}, one segment only.") from None
    known = monitor.columns[monitors.SEGMENTS]
    if column not in known:
        raise invalid_value(
            f"'{column}' is no segment column of {monitor.name}: {', '.join(known) or 'none'}."
        )
    return column, value


def _split(column: pa.ChunkedArray) -> tuple[int, Any]:
    """How many values are missing, and the others."""
    present = column.drop_null()
    return len(column) - len(present), _array(present)


def _array(column: pa.ChunkedArray) -> Any:
    """Numbers as floats, anything else as text."""
    kind = column.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    values = column.cast(pa.float64() if numeric else pa.string())
    return values.to_numpy() if numeric else np.array(values.to_pylist(), dtype=str)
