"""Model monitors: looked up, created, paused, dropped, and asked for their metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from airflow_provider_snowml.core.model_monitor import METRICS, PERFORMANCE, ModelMonitor
from airflow_provider_snowml.core.model_ref import ModelVersionRef
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, literal, value_sql
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    ObjectNotFoundError,
    TableNotFoundError,
    WarehouseNotFoundError,
)
from airflow_provider_snowml.hooks.snowml import Row, SnowMLHook


def model_task(hook: SnowMLHook, ref: ModelVersionRef) -> str:
    """What a version was registered for: ``TABULAR_REGRESSION``, say, or ``UNKNOWN``."""
    rows = hook.rows(f"SHOW VERSIONS LIKE {literal(ref.version)} IN MODEL {ref.model.sql}")
    row = next((row for row in rows if row["name"] == ref.version), {})
    return str(json.loads(row.get("model_attributes") or "{}").get("task") or "UNKNOWN")


def table_columns(hook: SnowMLHook, table: QualifiedName, what: str) -> dict[str, str]:
    """The columns of a table or view, and their types as the connector names them.

    :param table: the table or view.
    :param what: what it is for, for the error.
    :raises TableNotFoundError: if it isn't there; the message lists the schema's tables and views.
    """
    try:
        return dict(hook.typed_columns(f"SELECT * FROM {table.sql}"))
    except ObjectNotFoundError:
        raise TableNotFoundError(
            f"There is no table or view {table}, which {what} names, or the role may not see it. "
            f"{table.parent} has: {hook.listing('SHOW OBJECTS IN SCHEMA ' + table.parent.sql)}."
        ) from None


def current_warehouse(hook: SnowMLHook) -> Identifier:
    """The warehouse of the hook's connection.

    :raises WarehouseNotFoundError: if it has none, or one that isn't there.
    """
    name = hook.value("SELECT CURRENT_WAREHOUSE()")
    rows = hook.rows("SHOW WAREHOUSES")
    known = [str(row["name"]) for row in rows]
    if name is None or str(name).strip('"') not in known:
        raise WarehouseNotFoundError(
            f"The warehouse is {name}: name one in the Airflow connection or as warehouse. There are: "
            f"{', '.join(known) or 'none'}."
        )
    return Identifier.of(str(name).strip('"'))


def list_monitors(hook: SnowMLHook, schema: SchemaName) -> list[Row]:
    """The rows of SHOW MODEL MONITORS for a schema. Needs any privilege on each monitor."""
    return hook.rows(f"SHOW MODEL MONITORS IN SCHEMA {schema.sql}")


def describe_monitor(hook: SnowMLHook, monitor: QualifiedName) -> Row | None:
    """The row of DESCRIBE MODEL MONITOR; ``None`` if there is no such monitor."""
    try:
        return hook.rows(f"DESCRIBE MODEL MONITOR {monitor.sql}")[0]
    except ObjectNotFoundError:
        return None


def create_monitor(hook: SnowMLHook, monitor: ModelMonitor, *, replace: bool = False) -> None:
    """Create a monitor. Snowflake snapshots the baseline and computes a first time before it returns.

    :param monitor: what it watches.
    :param replace: put it in the place of one of the same name.
    :raises ObjectExistsError: if there is one of that name, or of that model version.
    """
    hook.rows(monitor.create(replace=replace))


def suspend_monitor(hook: SnowMLHook, monitor: QualifiedName) -> None:
    """Stop a monitor's refreshes, and what they cost. Needs MODIFY on it."""
    hook.rows(f"ALTER MODEL MONITOR {monitor.sql} SUSPEND")


def resume_monitor(hook: SnowMLHook, monitor: QualifiedName) -> None:
    """Let a suspended monitor go on. Needs MODIFY on it."""
    hook.rows(f"ALTER MODEL MONITOR {monitor.sql} RESUME")


def drop_monitor(hook: SnowMLHook, monitor: QualifiedName) -> None:
    """Drop a monitor and what it has computed, if it is there. Needs OWNERSHIP of it."""
    hook.rows(f"DROP MODEL MONITOR IF EXISTS {monitor.sql}")


def monitor_metric(
    hook: SnowMLHook,
    monitor: QualifiedName | str,
    metric: str,
    *,
    column: str | None = None,
    granularity: str | None = None,
    start: date | datetime | None = None,
    end: date | datetime | None = None,
    segment: Mapping[str, str] | None = None,
) -> list[Row]:
    """What a monitor has computed: one row per range of time, oldest first.

    Each row has ``EVENT_TIMESTAMP``, where the range starts, ``METRIC_VALUE``, which can be ``None``, and how
    many rows were used. See https://docs.snowflake.com/en/sql-reference/functions-model-monitors. Needs any
    privilege on the monitor.

    :param monitor: the monitor; a text is ``[[database.]schema.]name``.
    :param metric: ``POPULATION_STABILITY_INDEX``, ``ROC_AUC``, ``COUNT``, ...
    :param column: what a drift or statistical metric is of; performance metrics take none.
    :param granularity: ``"1 DAY"``, ``"2 WEEK"``, ``"ALL"``, ...; Snowflake's is a day.
    :param start: from when on; Snowflake's is 60 days before now.
    :param end: until when, not included; Snowflake's is now.
    :param segment: only the rows of one segment, ``{column: value}``.
    :raises InvalidArgumentError: if there is no such metric, or it needs a column, or takes none.
    """
    name = metric.upper()
    function = METRICS.get(name)
    if function is None:
        raise InvalidArgumentError(f"metric is {metric!r}; it can be {', '.join(METRICS)}.")
    if (column is None) != (function == PERFORMANCE):
        raise InvalidArgumentError(
            f"column is {column!r}, but {name} {'takes none' if column else 'is the metric of a column'}."
        )
    with hook.open_connection():
        if not isinstance(monitor, QualifiedName):
            monitor = QualifiedName.parse(monitor, hook.default_schema(), what="monitor name")
        arguments = [literal(monitor.sql), literal(name)]
        if column is not None:
            arguments.append(literal(Identifier.parse(column, what="column").sql))
        arguments += [value_sql(value) for value in (granularity, start, end, _segments(segment))]
        return hook.rows(f"SELECT * FROM TABLE({function}({', '.join(arguments)})) ORDER BY EVENT_TIMESTAMP")


def _segments(segment: Mapping[str, str] | None) -> str | None:
    if not segment:
        return None
    chosen: Sequence[Any] = [{"column": column, "value": value} for column, value in segment.items()]
    if len(chosen) > 1:
        raise InvalidArgumentError(f"segment is {dict(segment)}; Snowflake takes one column and value.")
    return json.dumps({"SEGMENTS": chosen})
