"""Statements about model monitors: CREATE, ALTER, SHOW, DESCRIBE, DROP."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from . import models, monitors
from .catalog import Qualified
from .errors import (
    SnowflakeError,
    already_exists,
    compilation_error,
    does_not_exist,
    invalid_value,
    unsupported,
)
from .grammar import Reader, fold, parse_name, quote_if_needed
from .monitors import KIND, Monitor
from .results import DESCRIBE, SHOW, Result, rows, status
from .scope import read_like, read_scope
from .statements import statement

if TYPE_CHECKING:
    from .session import Session

_DONE = "Statement executed successfully."
_NAMES = ("MODEL", "SOURCE", "BASELINE")
_TEXTS = ("VERSION", "FUNCTION", "REFRESH_INTERVAL", "AGGREGATION_WINDOW", "COMMENT")
_LISTS = tuple(kind.upper() for kind in monitors.GIVEN)
_REQUIRED = (
    *("MODEL", "VERSION", "FUNCTION", "SOURCE", "WAREHOUSE"),
    *("REFRESH_INTERVAL", "AGGREGATION_WINDOW", "TIMESTAMP_COLUMN"),
)
_NOT_YET = ("GATEWAY", "GROUND_TRUTH", "TIMESTAMP_CUSTOM_METRIC_TABLE")

_SHOWN: list[str | tuple[str, str]] = [
    ("created_on", "timestamp_ltz"), "name", "database_name", "schema_name", "warehouse_name",
    "refresh_interval", "aggregation_window", "model_task", "type", "gateway", "ground_truth",
    "monitor_state", "source", "baseline", "model", "comment",
]  # fmt: skip
_DESCRIBED: list[str | tuple[str, str]] = [
    *_SHOWN, "aggregation_status", "aggregation_last_error", "aggregation_last_data_timestamp",
    "columns", "monitor_start_time",
]  # fmt: skip


@statement("CREATE [OR REPLACE] MODEL MONITOR")
def create_model_monitor(session: Session, reader: Reader) -> Result:
    reader.expect("CREATE")
    replace = reader.accept("OR", "REPLACE")
    reader.expect("MODEL", "MONITOR")
    if_not_exists = reader.accept("IF", "NOT", "EXISTS")
    if replace and if_not_exists:
        raise compilation_error("options OR REPLACE and IF NOT EXISTS are incompatible.")
    name = session.resolve(reader.name())
    reader.expect("WITH")
    given = _parameters(reader)
    catalog = session.account.catalog
    existing = catalog.find(KIND, name)
    if existing is not None and if_not_exists:
        return status(f"{quote_if_needed(name.name)} already exists, statement succeeded.")
    if existing is not None and not replace:
        raise already_exists(str(name))
    monitor = _new_monitor(session, name, given)
    _refuse_second_monitor(session, monitor)
    monitors.check(session, monitor)
    # The snapshot first: a monitor that is there has it.
    monitors.keep_baseline(session, monitor, monitor.baseline)
    try:
        catalog.create(KIND, name, session.role, monitor.data(), monitor.comment, replace=replace)
    except SnowflakeError:
        monitors.forget(session.account, monitor)
        raise
    if existing is not None:
        monitors.forget(session.account, monitors.from_object(existing))
    return status(f"Model monitor {quote_if_needed(name.name)} successfully created.")


def _parameters(reader: Reader) -> dict[str, Any]:
    """``KEY = value ...``; names come as Name, lists and identifiers in their stored case."""
    given: dict[str, Any] = {}
    while not reader.at_end():
        key = reader.next().text.upper()
        if key in _NOT_YET:
            raise unsupported(f"{key} of a model monitor")
        if key not in (*_NAMES, *_TEXTS, *_LISTS, "WAREHOUSE", "TIMESTAMP_COLUMN") or key in given:
            reader.position -= 1
            raise reader.unexpected()
        reader.expect_symbol("=")
        if key in _NAMES:
            given[key] = parse_name(reader.string()) if reader.is_string() else reader.name()
        elif key in _LISTS:
            given[key] = _column_list(reader)
        elif key in _TEXTS:
            given[key] = reader.scalar()
        else:
            given[key] = _identifier(reader)
        reader.accept_symbol(",")
    missing = [key for key in _REQUIRED if key not in given]
    if missing:
        raise compilation_error(f"Missing option(s): [{', '.join(missing)}].")
    return given


def _identifier(reader: Reader) -> str:
    """``NAME``, ``"name"``, ``'name'`` or ``'"name"'``."""
    return fold(reader.string()) if reader.is_string() else reader.identifier()


def _column_list(reader: Reader) -> list[str]:
    reader.expect_symbol("(")
    columns = []
    while not reader.accept_symbol(")"):
        columns.append(_identifier(reader))
        if not reader.accept_symbol(",") and reader.peek().text != ")":
            raise reader.unexpected()
    return columns


def _new_monitor(session: Session, name: Qualified, given: dict[str, Any]) -> Monitor:
    model = models.get(session, session.resolve(given["MODEL"]))
    if model.name[:2] != name[:2]:
        raise compilation_error(f"Model monitor {name} must be in the same schema as its model {model.name}.")
    # An alias is no version's name.
    wanted = given["VERSION"], fold(given["VERSION"])
    version = next((v for v in model.versions if v.name in wanted), None)
    if version is None:
        raise does_not_exist("Version", given["VERSION"])
    method = version.method(given["FUNCTION"])
    if method is None:
        raise compilation_error(
            f"Function '{given['FUNCTION']}' does not exist in model {model.name} version {version.name}:"
            f" it has {models.function_list(version)}."
        )
    return Monitor(
        name=name,
        id=uuid.uuid4().hex,
        model=model.name,
        version=version.name,
        function=given["FUNCTION"],
        task=models.attributes(models.spec_text(session, model, version))["task"],
        source=session.resolve(given["SOURCE"]),
        baseline=session.resolve(given["BASELINE"]) if "BASELINE" in given else None,
        warehouse=_warehouse(session, given["WAREHOUSE"]),
        refresh_interval=given["REFRESH_INTERVAL"],
        aggregation_window=given["AGGREGATION_WINDOW"],
        timestamp_column=given["TIMESTAMP_COLUMN"],
        columns={kind: given.get(kind.upper(), []) for kind in monitors.GIVEN},
        comment=given.get("COMMENT", ""),
    )


def _warehouse(session: Session, name: str) -> str:
    if session.account.catalog.find("WAREHOUSE", Qualified("", "", name)) is None:
        raise does_not_exist("Warehouse", quote_if_needed(name))
    return name


def _refuse_second_monitor(session: Session, monitor: Monitor) -> None:
    others = [monitors.from_object(o) for o in session.account.catalog.list(KIND)]
    others = [o for o in others if o.name != monitor.name]
    for other in others:
        if (other.model, other.version) == (monitor.model, monitor.version):
            raise SnowflakeError(
                2002,
                "42710",
                f"SQL compilation error:\nModel monitor for {monitor.model} version {monitor.version} already"
                f" exists: {other.name}.",
            )
    if len(others) >= monitors.MAX_MONITORS:
        raise compilation_error(f"The account has {len(others)} model monitors: no more are possible.")


@statement("ALTER MODEL MONITOR")
def alter_model_monitor(session: Session, reader: Reader) -> Result:
    reader.expect("ALTER", "MODEL", "MONITOR")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    catalog = session.account.catalog
    if if_exists and catalog.find(KIND, name) is None:
        return status(_DONE)
    monitor = monitors.get(session, name)
    _alter(session, reader, monitor)
    with catalog.change(KIND, name) as found:
        found.data, found.comment = monitor.data(), monitor.comment
    return status(_DONE)


def _alter(session: Session, reader: Reader, monitor: Monitor) -> None:
    if reader.accept("SUSPEND"):
        reader.done()
        monitors.suspend(session, monitor)
    elif reader.accept("RESUME"):
        reader.done()
        monitors.resume(session, monitor)
    elif reader.accept("UNSET", "COMMENT"):
        reader.done()
        monitor.comment = ""
    elif reader.accept("UNSET", "BASELINE"):
        reader.done()
        monitor.baseline = None
        monitors.keep_baseline(session, monitor, None)
    elif reader.accept("SET"):
        _set(session, reader, monitor)
    elif what := reader.accept_any("ADD", "DROP"):
        _change_columns(session, reader, monitor, add=what == "ADD")
    else:
        raise reader.unexpected()


def _set(session: Session, reader: Reader, monitor: Monitor) -> None:
    if reader.at_end():
        raise reader.unexpected()
    while not reader.at_end():
        key = reader.accept_any("BASELINE", "REFRESH_INTERVAL", "WAREHOUSE", "COMMENT")
        if key is None:
            raise reader.unexpected()
        reader.expect_symbol("=")
        if key == "BASELINE":
            name = session.resolve(parse_name(reader.string()) if reader.is_string() else reader.name())
            monitors.check_baseline(session, monitor, name)
            monitors.keep_baseline(session, monitor, name)
            monitor.baseline = name
        elif key == "REFRESH_INTERVAL":
            monitor.refresh_interval = reader.string()
            monitors.interval_seconds(monitor.refresh_interval, key)
        elif key == "WAREHOUSE":
            monitor.warehouse = _warehouse(session, _identifier(reader))
        else:
            monitor.comment = reader.string()
        reader.accept_symbol(",")


def _change_columns(session: Session, reader: Reader, monitor: Monitor, add: bool) -> None:
    kinds = {"SEGMENT_COLUMN": monitors.SEGMENTS, "CUSTOM_METRIC_COLUMN": monitors.CUSTOM}
    what = reader.accept_any(*kinds)
    if what is None:
        raise reader.unexpected()
    reader.expect_symbol("=")
    column, kind = _identifier(reader), kinds[what]
    reader.done()
    if add:
        monitor.columns[kind].append(column)
    elif column in monitor.columns[kind]:
        monitor.columns[kind].remove(column)
    else:
        raise invalid_value(f"'{column}' is no {what} of model monitor {monitor.name}.")
    monitors.check(session, monitor)
    if monitor.baseline is not None:
        monitors.keep_baseline(session, monitor, monitor.baseline)


@statement("SHOW MODEL MONITORS", reads_only=True)
def show_model_monitors(session: Session, reader: Reader) -> Result:
    reader.expect("SHOW", "MODEL", "MONITORS")
    like = read_like(reader)
    # Without IN it is the database, not the schema.
    database, schema = read_scope(session, reader) if reader.is_word("IN") else (session.database, None)
    reader.done()
    found = session.account.catalog.list(KIND, database, schema, like)
    return rows(_SHOWN, [_row(session, monitors.from_object(o)) for o in found], SHOW)


@statement("DESCRIBE MODEL MONITOR", "DESC MODEL MONITOR", reads_only=True)
def describe_model_monitor(session: Session, reader: Reader) -> Result:
    reader.next()
    reader.expect("MODEL", "MONITOR")
    monitor = monitors.get(session, session.resolve(reader.name()))
    reader.done()
    if _table(session, monitor.source)["status"] == "ACTIVE":
        monitor = monitors.refresh(session, monitor)
    parts = ["SOURCE_AGGREGATED"]
    if monitor.columns[monitors.ACTUAL_CLASS] or monitor.columns[monitors.ACTUAL_SCORE]:
        parts.append("ACCURACY_AGGREGATED")
    parts += [f"{part}_{segment}" for segment in monitor.columns[monitors.SEGMENTS] for part in parts[:2]]
    listed = ("id_columns", *monitors.OUTCOMES, *monitors.FEATURES, "segment_columns")
    more = {
        "aggregation_status": dict.fromkeys(parts, "SUSPENDED" if monitor.suspended else "ACTIVE"),
        "aggregation_last_error": dict.fromkeys(parts, monitor.last_error),
        "aggregation_last_data_timestamp": dict.fromkeys(parts, monitors.last_timestamp(session, monitor)),
        "columns": {
            "timestamp_column": monitor.timestamp_column,
            **{kind: monitor.columns[kind] for kind in listed},
        },
    }
    described = {**_row(session, monitor), **{k: json.dumps(v) for k, v in more.items()}}
    return rows(_DESCRIBED, [{**described, "monitor_start_time": ""}], DESCRIBE)


def _row(session: Session, monitor: Monitor) -> dict[str, Any]:
    baseline = _table(session, monitor.baseline) if monitor.baseline else {"status": "NOT_SET"}
    return {
        "created_on": monitor.created_on,
        "name": monitor.name.name,
        "database_name": monitor.name.database,
        "schema_name": monitor.name.schema,
        "warehouse_name": monitor.warehouse,
        "refresh_interval": monitor.refresh_interval,
        "aggregation_window": monitor.aggregation_window,
        "model_task": monitor.task,
        "type": "MODEL_VERSION_MONITOR",
        "gateway": "",
        "ground_truth": "",
        "monitor_state": "SUSPENDED" if monitor.suspended else "ACTIVE",
        "source": json.dumps(_table(session, monitor.source)),
        "baseline": json.dumps(baseline),
        "model": json.dumps(_model(session, monitor)),
        "comment": monitor.comment,
    }


def _table(session: Session, name: Qualified) -> dict[str, str]:
    try:
        monitors.table_columns(session, name)
        found = "ACTIVE"
    except SnowflakeError:
        found = "DELETED"
    return {"name": name.name, "database_name": name.database, "schema_name": name.schema, "status": found}


def _model(session: Session, monitor: Monitor) -> dict[str, str]:
    found = session.account.catalog.find("MODEL", monitor.model)
    versions = [v.name for v in models.from_object(found).versions] if found else []
    return {
        "model_name": monitor.model.name,
        "version_name": monitor.version,
        "function_name": monitor.function,
        "database_name": monitor.model.database,
        "schema_name": monitor.model.schema,
        "model_status": "ACTIVE" if found else "DELETED",
        "version_status": "ACTIVE" if monitor.version in versions else "DELETED",
    }


@statement("DROP MODEL MONITOR")
def drop_model_monitor(session: Session, reader: Reader) -> Result:
    reader.expect("DROP", "MODEL", "MONITOR")
    if_exists = reader.accept("IF", "EXISTS")
    name = session.resolve(reader.name())
    reader.done()
    if if_exists and session.account.catalog.find(KIND, name) is None:
        return status(f"Drop statement executed successfully ({quote_if_needed(name.name)} already dropped).")
    monitor = monitors.get(session, name)
    session.account.catalog.drop(KIND, name)
    monitors.forget(session.account, monitor)
    return status(f"{quote_if_needed(name.name)} successfully dropped.")
