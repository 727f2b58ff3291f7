"""Model monitors: what each one watches, what it demands of that, and the rows it computes from.

There is no background refresh: while a monitor is active its metrics come from the source's rows of
that moment. A suspended one keeps the rows that it had when it was suspended.
"""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .catalog import Object, Qualified
from .errors import SnowflakeError, compilation_error, does_not_exist, invalid_value
from .grammar import quote
from .stages import part_of

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

KIND = "MODEL MONITOR"
BINARY, MULTI, REGRESSION = (
    "TABULAR_BINARY_CLASSIFICATION",
    "TABULAR_MULTI_CLASSIFICATION",
    "TABULAR_REGRESSION",
)
MAX_FEATURES, MAX_SEGMENTS, MAX_MONITORS = 500, 5, 250
NUMBERS = ("fixed", "real")

# The lists of columns, as CREATE and DESCRIBE MODEL MONITOR name them.
IDS, SEGMENTS, CUSTOM = "id_columns", "segment_columns", "custom_metric_columns"
PREDICTED_CLASS, PREDICTED_SCORE = "prediction_class_columns", "prediction_score_columns"
ACTUAL_CLASS, ACTUAL_SCORE = "actual_class_columns", "actual_score_columns"
OUTCOMES = (PREDICTED_CLASS, PREDICTED_SCORE, ACTUAL_CLASS, ACTUAL_SCORE)
GIVEN = (IDS, *OUTCOMES, SEGMENTS, CUSTOM)
FEATURES = {"numerical_columns": NUMBERS, "string_columns": ("text",), "boolean_columns": ("boolean",)}

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass
class Monitor:
    """What the catalog keeps under kind ``MODEL MONITOR``.

    :param id: the name of its directory, where the baseline's snapshot lies; :param columns: the
    lists of columns, the features that were found in the source among them; :param last_error: why
    it suspended itself.
    """

    name: Qualified
    id: str
    model: Qualified
    version: str
    function: str
    task: str
    source: Qualified
    baseline: Qualified | None
    warehouse: str
    refresh_interval: str
    aggregation_window: str
    timestamp_column: str
    columns: dict[str, list[str]]
    suspended: bool = False
    last_error: str = ""
    owner: str = ""
    comment: str = ""
    created_on: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    @property
    def window_days(self) -> int:
        return interval_seconds(self.aggregation_window, "AGGREGATION_WINDOW") // 86400

    @property
    def monitored(self) -> list[str]:
        """The columns that metrics can be asked for."""
        return [c for kind in (*OUTCOMES, *FEATURES, CUSTOM) for c in self.columns[kind]]

    def one(self, kind: str) -> str | None:
        """The column of a list that has at most one."""
        return next(iter(self.columns[kind]), None)

    def data(self) -> dict[str, Any]:
        kept = {"name", "owner", "comment", "created_on"}
        return {k: v for k, v in asdict(self).items() if k not in kept}


def from_object(found: Object) -> Monitor:
    data = dict(found.data)
    for key in ("model", "source", "baseline"):
        data[key] = Qualified(*data[key]) if data[key] is not None else None
    return Monitor(
        name=found.name, owner=found.owner, comment=found.comment, created_on=found.created_on, **data
    )


def get(session: Session, name: Qualified) -> Monitor:
    """The monitor, or Snowflake's error 2003."""
    found = session.account.catalog.find(KIND, name)
    if found is None:
        raise does_not_exist("Model Monitor", str(name))
    return from_object(found)


# What CREATE and ALTER demand


def interval_seconds(text: str, parameter: str) -> int:
    """``'<num> { seconds | minutes | hours | days }'``; an aggregation window is in days."""
    found = re.fullmatch(r"\s*(\d+)\s+(second|minute|hour|day)s?\s*", text, re.IGNORECASE)
    units = "days" if parameter == "AGGREGATION_WINDOW" else "seconds | minutes | hours | days"
    if found is None or (parameter == "AGGREGATION_WINDOW" and found[2].lower() != "day"):
        raise invalid_value(f"invalid value '{text}' for parameter '{parameter}': '<num> {{ {units} }}'.")
    seconds = int(found[1]) * _SECONDS[found[2].lower()]
    if parameter == "AGGREGATION_WINDOW" and seconds < 86400:
        raise invalid_value(f"invalid value '{text}' for parameter '{parameter}': at least '1 day'.")
    if seconds < 60:
        raise invalid_value(f"invalid value '{text}' for parameter '{parameter}': at least '60 seconds'.")
    return seconds


def table_columns(session: Session, name: Qualified) -> dict[str, str]:
    """A table's or view's columns and their types on the wire, or the error that it isn't there."""
    described = session.account.engine.describe(session, f"SELECT * FROM {name}")
    return {column["name"]: column["type"] for column in described.rowtype}


def check(session: Session, monitor: Monitor) -> None:
    """Refuse what cannot be monitored, and find the features in the source."""
    if monitor.task not in (BINARY, MULTI, REGRESSION):
        raise compilation_error(
            f"Model task {monitor.task} of {monitor.model} version {monitor.version} is not supported by"
            f" model monitors: it must be {BINARY}, {REGRESSION} or {MULTI}."
        )
    interval_seconds(monitor.refresh_interval, "REFRESH_INTERVAL")
    interval_seconds(monitor.aggregation_window, "AGGREGATION_WINDOW")
    _check_lists(monitor)
    source = table_columns(session, monitor.source)
    for parameter, column, types in _wanted(monitor):
        check_column(source, monitor.source, parameter, column, types)
    used = set(_all_given(monitor))
    for kind, types in FEATURES.items():
        monitor.columns[kind] = [c for c, t in source.items() if t in types and c not in used]
    features = sum(len(monitor.columns[kind]) for kind in FEATURES)
    if features > MAX_FEATURES:
        raise compilation_error(f"{features} features in {monitor.source}: at most {MAX_FEATURES}.")
    if monitor.baseline is not None:
        check_baseline(session, monitor, monitor.baseline)


def check_baseline(session: Session, monitor: Monitor, name: Qualified) -> None:
    """The baseline must have the predictions that it is compared by."""
    baseline = table_columns(session, name)
    for parameter, column, types in _wanted(monitor):
        if parameter.lower() in (PREDICTED_CLASS, PREDICTED_SCORE):
            check_column(baseline, name, parameter, column, types)


def check_column(
    columns: dict[str, str], table: Qualified, parameter: str, column: str, types: Sequence[str]
) -> None:
    if column not in columns:
        raise compilation_error(
            f"invalid identifier '{column}' in {parameter}: {table} has {', '.join(columns)}."
        )
    if types and columns[column] not in types:
        names = {"fixed": "NUMBER", "text": "STRING", "timestamp_ntz": "TIMESTAMP_NTZ"}
        wanted = names[types[0]]
        raise invalid_value(
            f"Column '{column}' in {parameter} must be of type {wanted}, but {table} has it as"
            f" {names.get(columns[column], columns[column].upper())}."
        )


def _check_lists(monitor: Monitor) -> None:
    columns = monitor.columns
    for kind in OUTCOMES:
        if len(columns[kind]) > 1:
            raise compilation_error(
                f"{kind.upper()} has {len(columns[kind])} columns: models with several outputs are not"
                " supported."
            )
    if not columns[PREDICTED_CLASS] and not columns[PREDICTED_SCORE]:
        raise compilation_error(
            f"At least one of {PREDICTED_CLASS.upper()} and {PREDICTED_SCORE.upper()} must be specified."
        )
    refused = {
        BINARY: (ACTUAL_SCORE,),
        MULTI: (PREDICTED_SCORE, ACTUAL_SCORE),
        REGRESSION: (PREDICTED_CLASS, ACTUAL_CLASS),
    }
    for kind in refused[monitor.task]:
        if columns[kind]:
            raise compilation_error(f"{kind.upper()} cannot be specified for model task {monitor.task}.")
    if len(columns[SEGMENTS]) > MAX_SEGMENTS:
        raise compilation_error(f"{SEGMENTS.upper()} has {len(columns[SEGMENTS])} columns: at most 5.")
    given = _all_given(monitor)
    for column in given:
        if given.count(column) > 1:
            raise compilation_error(f"Column '{column}' is specified more than once.")


def _all_given(monitor: Monitor) -> list[str]:
    return [monitor.timestamp_column, *(c for kind in GIVEN for c in monitor.columns[kind])]


def _wanted(monitor: Monitor) -> list[tuple[str, str, Sequence[str]]]:
    """(parameter, column, possible types) for every column that is named; ids may have any type."""
    classes = ("text",) if monitor.task == MULTI else NUMBERS
    types: dict[str, Sequence[str]] = {
        **dict.fromkeys((PREDICTED_SCORE, ACTUAL_SCORE, CUSTOM), NUMBERS),
        **dict.fromkeys((PREDICTED_CLASS, ACTUAL_CLASS), classes),
        SEGMENTS: ("text",),
        IDS: (),
    }
    wanted: list[tuple[str, str, Sequence[str]]] = [
        ("TIMESTAMP_COLUMN", monitor.timestamp_column, ("timestamp_ntz",))
    ]
    return wanted + [(kind.upper(), c, types[kind]) for kind in GIVEN for c in monitor.columns[kind]]


# Rows


def read_source(session: Session, monitor: Monitor) -> pa.Table:
    """The source's rows as the monitor has them: the time stamp, what is monitored, the segments."""
    if monitor.suspended:
        return pq.read_table(_directory(session.account, monitor) / "source.parquet")
    columns = [monitor.timestamp_column, *monitor.monitored, *monitor.columns[SEGMENTS]]
    selected = ", ".join(quote(c) for c in columns)
    rows = session.query(
        f"SELECT {selected} FROM {monitor.source} WHERE {quote(monitor.timestamp_column)} IS NOT NULL"
    )
    return rows.rename_columns(columns)


def read_baseline(session: Session, monitor: Monitor) -> pa.Table | None:
    """The snapshot that was taken of the baseline; None if there is none."""
    file = _directory(session.account, monitor) / "baseline.parquet"
    return pq.read_table(file) if file.is_file() else None


def keep_baseline(session: Session, monitor: Monitor, name: Qualified | None) -> None:
    """Take the snapshot of a baseline, which later changes of the table do not touch."""
    file = _directory(session.account, monitor) / "baseline.parquet"
    if name is None:
        file.unlink(missing_ok=True)
        return
    present = table_columns(session, name)
    columns = [c for c in (*monitor.monitored, *monitor.columns[SEGMENTS]) if c in present]
    rows = session.query(f"SELECT {', '.join(quote(c) for c in columns)} FROM {name}")
    _write(rows.rename_columns(columns), file)


def _write(rows: pa.Table, file: Path) -> None:
    """Another session may be reading it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(file)
    pq.write_table(rows, part)
    part.replace(file)


def suspend(session: Session, monitor: Monitor, error: str = "") -> None:
    """Stop aggregating: what the source has from now on is not seen until the monitor is resumed."""
    if monitor.suspended:
        return
    rows = read_source(session, monitor)
    file = _directory(session.account, monitor) / "source.parquet"
    # It suspends itself over rows that it could not aggregate.
    _write(rows.slice(0, 0) if error else rows, file)
    monitor.suspended, monitor.last_error = True, error


def resume(session: Session, monitor: Monitor) -> None:
    monitor.suspended, monitor.last_error = False, ""
    (_directory(session.account, monitor) / "source.parquet").unlink(missing_ok=True)


def refresh(session: Session, monitor: Monitor) -> Monitor:
    """Suspend the monitor if its source holds what cannot be aggregated; the monitor as it then is."""
    if monitor.suspended:
        return monitor
    error = _invalid_values(monitor, read_source(session, monitor))
    if error:
        suspend(session, monitor, error)
        with session.account.catalog.change(KIND, monitor.name) as found:
            found.data = monitor.data()
    return monitor


def _invalid_values(monitor: Monitor, rows: pa.Table) -> str:
    for kind in (PREDICTED_SCORE, ACTUAL_SCORE):
        for column in monitor.columns[kind]:
            values = rows.column(column).drop_null().cast(pa.float64()).to_numpy()
            if not np.isfinite(values).all():
                return f"Column {column} of {monitor.source} has NaN or infinite values."
            if monitor.task == BINARY and ((values < 0) | (values > 1)).any():
                return f"Column {column} of {monitor.source} has probabilities outside of 0 to 1."
    return ""


def last_timestamp(session: Session, monitor: Monitor) -> str:
    """The newest of the aggregated rows, as text; empty if there are none."""
    try:
        times = read_source(session, monitor).column(monitor.timestamp_column)
    except SnowflakeError:
        return ""  # the source is gone
    newest = pc.max(times).as_py()
    return str(newest) if newest is not None else ""


def forget(account: Account, monitor: Monitor) -> None:
    shutil.rmtree(_directory(account, monitor), ignore_errors=True)


def drop_in(account: Account, database: str, schema: str | None) -> None:
    """What a dropped database or schema takes with it."""
    for found in account.catalog.list(KIND, database, schema):
        forget(account, from_object(found))


def _directory(account: Account, monitor: Monitor) -> Path:
    return account.data_dir / "monitors" / monitor.id
