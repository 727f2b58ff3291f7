"""Watching how a model version does once it is in use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from airflow.sdk import Context

from airflow_provider_snowml.core.lineage import Lineage, model_monitor, model_version, tables
from airflow_provider_snowml.core.model_monitor import COLUMN_LISTS, ModelMonitor
from airflow_provider_snowml.core.model_ref import ModelVersionRef
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelMonitorExistsError
from airflow_provider_snowml.hooks.monitors import (
    create_monitor,
    current_warehouse,
    describe_monitor,
    list_monitors,
    model_task,
    table_columns,
)
from airflow_provider_snowml.hooks.snowml import Row, SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, one_of, run_of

STATE_KEY = "snowml_create_monitor"


class SnowMLCreateMonitorOperator(SnowMLOperator):
    """Create a monitor of a model version: drift against a baseline, performance, counts, day by day.

    Everything is checked first: the version and its task, the warehouse, the columns of source and baseline
    and their types. The source is to hold this version's predictions only, with what happened in the end: a
    table that mixes versions gives wrong metrics. Snowflake wants no NULL, NaN or infinite values in it, and
    probabilities from 0 to 1; else the monitor suspends itself. Performance needs an actual column; of a
    binary classification ``ROC_AUC`` needs the score, the other metrics need the class that was predicted.

    A retry after a crash finds the monitor that the crashed try had made. A version has one monitor only.

    XCom: ``{"monitor_name", "model", "version", "function", "source", "baseline", "created"}``: full names,
    ``baseline`` or ``None``, and whether this run made it.

    Privileges: CREATE MODEL MONITOR on the schema; USAGE on the database, the schema, the model and the
    warehouse; SELECT on source and baseline; OWNERSHIP of a monitor that is replaced. See
    https://docs.snowflake.com/en/sql-reference/sql/create-model-monitor.

    :param monitor_name: the monitor, ``[[database.]schema.]name``. It lives in the model's schema, so that is
        where an unqualified one is made.
    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: a version, an alias, ``default``, ``first`` or ``last``; resolved once.
    :param function_name: the method whose predictions are watched; may be left out if there is only one.
    :param source: a table or view with a row per prediction.
    :param baseline: a table or view with rows like the source's, of a time that is normal. Snowflake takes a
        snapshot of it. Without one there are no drift metrics.
    :param timestamp_column: when a row was predicted; TIMESTAMP_NTZ.
    :param id_columns: what tells rows apart.
    :param prediction_score_columns: the predicted number, or probability; one column.
    :param prediction_class_columns: the predicted class: a number for a binary classification, a text for one
        with more classes; one column.
    :param actual_score_columns: what the number turned out to be, of a regression; one column.
    :param actual_class_columns: what the class turned out to be; one column.
    :param segment_columns: up to five VARCHAR columns by whose values metrics can be asked for, too.
    :param custom_metric_columns: numeric columns that are no features.
    :param refresh_interval: how often the monitor looks at the source, ``"60 seconds"`` at least. Each look
        costs warehouse time.
    :param aggregation_window: the shortest time that metrics are told apart by, in days.
    :param comment: the monitor's comment.
    :param if_exists: what to do about a monitor of that name: ``"fail"``; ``"reuse"`` it if it watches the
        same; or ``"replace"`` it, and lose what it has computed.
    :param warehouse: what refreshes the monitor, and runs this task; the connection's if it is left out.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense, or do not fit the tables.
    :raises NotFoundError: (a subclass) for a model, version, function, table or warehouse that isn't there.
    :raises ModelMonitorExistsError: if there is a monitor already and it must not be replaced.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "monitor_name",
        "model_name",
        "version_name",
        "function_name",
        "source",
        "baseline",
        "timestamp_column",
        *COLUMN_LISTS,
        "refresh_interval",
        "aggregation_window",
        "comment",
        "if_exists",
    )

    def __init__(
        self,
        *,
        monitor_name: str,
        model_name: str,
        version_name: str = "default",
        function_name: str | None = None,
        source: str,
        baseline: str | None = None,
        timestamp_column: str,
        id_columns: Sequence[str] = (),
        prediction_score_columns: Sequence[str] = (),
        prediction_class_columns: Sequence[str] = (),
        actual_score_columns: Sequence[str] = (),
        actual_class_columns: Sequence[str] = (),
        segment_columns: Sequence[str] = (),
        custom_metric_columns: Sequence[str] = (),
        refresh_interval: str = "1 hour",
        aggregation_window: str = "1 day",
        comment: str | None = None,
        if_exists: Literal["fail", "reuse", "replace"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.monitor_name = monitor_name
        self.model_name = model_name
        self.version_name = version_name
        self.function_name = function_name
        self.source = source
        self.baseline = baseline
        self.timestamp_column = timestamp_column
        self.id_columns = id_columns
        self.prediction_score_columns = prediction_score_columns
        self.prediction_class_columns = prediction_class_columns
        self.actual_score_columns = actual_score_columns
        self.actual_class_columns = actual_class_columns
        self.segment_columns = segment_columns
        self.custom_metric_columns = custom_metric_columns
        self.refresh_interval = refresh_interval
        self.aggregation_window = aggregation_window
        self.comment = comment
        self.if_exists = if_exists

    def execute(self, context: Context) -> dict[str, Any]:
        """Check, and create."""
        one_of("if_exists", self.if_exists, ("fail", "reuse", "replace"))
        hook = self.get_hook()
        with hook.open_connection():
            noted = self._noted(context)
            ref = self._resolve(hook, noted)
            monitor = self._monitor(hook, ref)
            task = model_task(hook, ref)
            monitor.check(task)

            existing = self._existing(hook, monitor)
            differences = monitor.differences(existing) if existing else []
            if existing and not differences and self._made(noted, monitor, existing):
                self.log.info("Monitor %s is this run's own, of an earlier try.", monitor.name)
                return self._result(monitor, created=True)
            if existing and self.if_exists != "replace":
                self._reuse(monitor, existing, differences)
                return self._result(monitor, created=False)

            monitor.check_source(task, table_columns(hook, monitor.source, "source"))
            if monitor.baseline is not None:
                monitor.check_baseline(task, table_columns(hook, monitor.baseline, "baseline"))
            # Noted before it is made: from here on a monitor like this is ours.
            context["task_state_store"].set(
                STATE_KEY,
                {
                    "run": asdict(run_of(context)),
                    "asked": [self.model_name, self.version_name],
                    "version": ref.version_sql,
                    "statement": monitor.create(),
                    "found": str(existing["created_on"]) if existing else None,
                },
            )
            self.log.info("Creating monitor %s of %s version %s.", monitor.name, ref.model, ref.version)
            create_monitor(hook, monitor, replace=existing is not None)
            return self._result(monitor, created=True, query_id=hook.query_id)

    def _noted(self, context: Context) -> dict[str, Any]:
        """What an earlier try of this run, since it was last cleared, was about to create."""
        noted = context["task_state_store"].get(STATE_KEY, None)
        if not isinstance(noted, dict) or noted.get("run") != asdict(run_of(context)):
            return {}
        return noted if noted.get("asked") == [self.model_name, self.version_name] else {}

    @staticmethod
    def _made(noted: dict[str, Any], monitor: ModelMonitor, existing: Row) -> bool:
        """Whether the monitor is what an earlier try of this run has made."""
        same = noted.get("statement") == monitor.create()
        return same and noted.get("found") != str(existing["created_on"])

    def _resolve(self, hook: SnowMLHook, noted: dict[str, Any]) -> ModelVersionRef:
        """The version; on a retry the one that the first try had found, wherever an alias points now."""
        model = QualifiedName.parse(self.model_name, hook.default_schema(), what="model name")
        return hook.resolve_version(model, noted.get("version", self.version_name))

    def _monitor(self, hook: SnowMLHook, ref: ModelVersionRef) -> ModelMonitor:
        name = QualifiedName.parse(self.monitor_name, ref.model.parent, what="monitor name")
        if name.parent != ref.model.parent:
            raise InvalidArgumentError(
                f"The monitor {name} must be in its model's schema, {ref.model.parent}: leave the schema out."
            )
        default = hook.default_schema()
        return ModelMonitor(
            name=name,
            model=ref.model,
            version=ref.version,
            function=ref.function(self.function_name).target_method,
            source=QualifiedName.parse(self.source, default, what="source"),
            baseline=QualifiedName.parse(self.baseline, default, what="baseline") if self.baseline else None,
            warehouse=current_warehouse(hook),
            timestamp_column=Identifier.parse(self.timestamp_column, what="timestamp_column").name,
            refresh_interval=self.refresh_interval,
            aggregation_window=self.aggregation_window,
            comment=self.comment,
            **{name: self._column_list(name) for name in COLUMN_LISTS},
        )

    def _column_list(self, name: str) -> tuple[str, ...]:
        columns = getattr(self, name)
        if isinstance(columns, str) or not isinstance(columns, Sequence):
            raise InvalidArgumentError(f"{name} is {columns!r}; it must be a list of columns.")
        return tuple(Identifier.parse(column, what=f"column in {name}").name for column in columns)

    @staticmethod
    def _existing(hook: SnowMLHook, monitor: ModelMonitor) -> Row | None:
        """The monitor of that name, if there is one.

        :raises ModelMonitorExistsError: if the version has one of another name.
        """
        found = list_monitors(hook, monitor.model.parent)
        for row in found:
            watched = json.loads(row["model"] or "{}")
            version = (watched.get("model_name"), watched.get("version_name"))
            if (
                version == (monitor.model.name.name, monitor.version)
                and row["name"] != monitor.name.name.name
            ):
                raise ModelMonitorExistsError(
                    f"{monitor.model} version {monitor.version} has a monitor already, {row['name']}, and a "
                    "version has one only: name that one as monitor_name, or DROP MODEL MONITOR it."
                )
        if any(row["name"] == monitor.name.name.name for row in found):
            return describe_monitor(hook, monitor.name)
        return None

    def _reuse(self, monitor: ModelMonitor, existing: Row, differences: Sequence[str]) -> None:
        if self.if_exists == "fail" or differences:
            why = "; ".join(differences) if differences else "it watches the same"
            raise ModelMonitorExistsError(
                f"There is a monitor {monitor.name} already ({why}), and if_exists is {self.if_exists!r}. "
                "'reuse' takes one that watches the same, 'replace' makes it anew."
            )
        state = existing["monitor_state"]
        log = self.log.info if state == "ACTIVE" else self.log.warning
        log("Monitor %s exists, watches the same, and is %s.", monitor.name, state)

    def _result(self, monitor: ModelMonitor, *, created: bool, query_id: str | None = None) -> dict[str, Any]:
        return self.done(
            {
                "monitor_name": monitor.name.sql,
                "model": monitor.model.sql,
                "version": monitor.version,
                "function": monitor.function,
                "source": monitor.source.sql,
                "baseline": monitor.baseline.sql if monitor.baseline else None,
                "created": created,
            },
            query_id=query_id,
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """From the predictions, of the version, to the monitor."""
        version = model_version(
            done.get("model", self.model_name), done.get("version"), default, function=done.get("function")
        )
        change = "CREATE" if done.get("created") else None
        return Lineage(
            reads=[*tables(self.source, self.baseline, default=default), version],
            writes=[model_monitor(done["monitor_name"], change=change)] if done else [],
            query_id=done.get("query_id"),
        )
