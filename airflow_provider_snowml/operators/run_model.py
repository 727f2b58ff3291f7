"""Inference in the warehouse: a model's function over a query, into a table."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context

from airflow_provider_snowml.core.lineage import Lineage, model_service, model_version, table, tables
from airflow_provider_snowml.core.model_ref import (
    check_columns,
    check_no_column_twice,
    check_params,
    check_partition_column,
)
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.core.partition_load import PartitionLoad
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    RunCancelledError,
    SnowMLError,
    StatementError,
)
from airflow_provider_snowml.hooks.inference import cancel_statements, check_service, predictions
from airflow_provider_snowml.hooks.loading import append, count_rows, replace_slice, temporary_name
from airflow_provider_snowml.hooks.services import service_name
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, as_text, exactly_one, one_of, rows_query

__all__ = ["SnowMLRunModelOperator"]


class SnowMLRunModelOperator(SnowMLOperator):
    """Run a function of a model in the warehouse, through snowflake-ml's ``mv.run``, into a table.

    The rows stay in Snowflake. XCom: ``{"rows", "table", "model", "version", "function"}``, ``rows`` being
    those that this run wrote.

    ``function_name="explain"`` gives Shapley values, if the model was registered with the option
    ``enable_explainability=True``.

    Privileges: USAGE on the model, SELECT on the input, CREATE TABLE on the output's schema (or INSERT and
    DELETE on the table), USAGE on a warehouse; for a service, USAGE on its endpoint's service role. See
    https://docs.snowflake.com/en/developer-guide/snowflake-ml/inference/warehouse.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: a version, an alias, ``default``, ``first`` or ``last``.
    :param function_name: the model's method; may be left out if it has only one.
    :param input_table: a table or view; or
    :param input_query: a query (it is code: never build it from a run's configuration).
    :param output_table: the table that is written; it has the input's columns and the predictions'.
    :param write_mode: ``"replace"`` makes the table anew; ``"replace_where"`` replaces the rows whose
        ``replace_column`` is ``replace_value``, in one transaction; ``"append"`` adds the rows and is not
        safe to retry: a try that is lost after it wrote leaves its rows, and the next adds them again.
    :param replace_column: for ``"replace_where"``, the column that the slices are told apart by.
    :param replace_value: its value. It is written as an escaped literal.
    :param inference_params: parameters of the method, by name.
    :param partition_column: the column that a table function is partitioned by. A partitioned model gives
        the columns of its predictions and this one; without it all rows are one partition.
    :param strict_input_validation: whether snowflake-ml also checks that the input's values fit the types of
        the signature. It reads the input once more for that.
    :param service_name: a service of this version that runs the function instead of the warehouse,
        ``[[database.]schema.]name``. The warehouse still reads and writes the rows.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a model, version, function or service that isn't there.
    :raises ServiceConflictError: if the service serves something else.
    :raises RunCancelledError: if the task was killed: that cancels the statement that runs the model.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "function_name",
        "input_table",
        "input_query",
        "output_table",
        "replace_column",
        "replace_value",
        "inference_params",
        "partition_column",
        "service_name",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"input_query": "sql", "inference_params": "json"}

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str = "default",
        function_name: str | None = None,
        input_table: str | None = None,
        input_query: str | None = None,
        output_table: str,
        write_mode: str,
        replace_column: str | None = None,
        replace_value: Any = None,
        inference_params: Mapping[str, Any] | None = None,
        partition_column: str | None = None,
        strict_input_validation: bool = False,
        service_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.function_name = function_name
        self.input_table = input_table
        self.input_query = input_query
        self.output_table = output_table
        self.write_mode = write_mode
        self.replace_column = replace_column
        self.replace_value = replace_value
        self.inference_params = inference_params
        self.partition_column = partition_column
        self.strict_input_validation = strict_input_validation
        self.service_name = service_name
        # The session that a kill would cancel, and the kill itself.
        self._session_id: int | None = None
        self._killed = threading.Event()

    def execute(self, context: Context) -> dict[str, Any]:
        """Run and write."""
        source = exactly_one(input_table=self.input_table, input_query=self.input_query)
        one_of("write_mode", self.write_mode, ("replace", "replace_where", "append"))
        if (self.write_mode == "replace_where") != bool(self.replace_column):
            raise InvalidArgumentError(
                f"write_mode is {self.write_mode!r} and replace_column is {self.replace_column!r}: "
                "replace_column goes with 'replace_where', and only with it."
            )
        hook = self.get_hook()
        try:
            with hook.session() as session:
                return self._run(hook, session, source)
        except StatementError as error:
            if not self._killed.is_set():
                raise
            raise RunCancelledError(f"The task was killed, and what it ran with it: {error}") from error

    def _run(self, hook: SnowMLHook, session: Any, source: str) -> dict[str, Any]:
        default = hook.default_schema()
        model = QualifiedName.parse(self.model_name, default, what="model name")
        target = QualifiedName.parse(self.output_table, default, what="output_table")
        key = _identifier("replace_column", self.replace_column)
        partition_column = _identifier("partition_column", self.partition_column)
        service_text = as_text(self.service_name)
        service = service_name(service_text, default) if service_text else None
        query = rows_query(source, getattr(self, source), default)
        params = dict(self.inference_params or {})

        ref = hook.resolve_version(model, self.version_name)
        function = ref.function(as_text(self.function_name))
        columns = hook.columns(query)
        if service is not None:
            check_service(hook, service, ref, function)
        check_columns(function, columns, source=source)
        check_params(function, params)
        if partition_column is not None:
            check_partition_column(function, partition_column, columns, source=source)
        check_no_column_twice(function, columns, source=source)

        self._session_id = session.session_id
        self._stop_if_killed()
        found = predictions(
            hook,
            session,
            ref,
            function,
            query,
            service=service,
            params=params,
            partition_column=partition_column,
            strict_input_validation=self.strict_input_validation,
        )
        where = f"on service {service}" if service is not None else "in the warehouse"
        self.log.info("Running %s of %s %s %s.", function.target_method, model, ref.version, where)
        with session.query_history() as sent:
            rows = self._write(hook, found, target, key)
        self.log.info("Wrote %d rows into %s.", rows, target)
        return self.done(
            {
                "rows": rows,
                "table": target.sql,
                "model": model.sql,
                "version": ref.version,
                "function": function.target_method,
            },
            query_id=sent.queries[-1].query_id if sent.queries else None,
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """From the rows, by the version, to the table."""
        version = model_version(
            done.get("model", self.model_name), done.get("version"), default, function=done.get("function")
        )
        reads = [*tables(self.input_table, default=default), version]
        if service := as_text(self.service_name):
            reads.append(model_service(service, default, version=done.get("version")))
        change = "OVERWRITE" if self.write_mode == "replace" else None
        return Lineage(
            reads=reads,
            writes=[table(done["table"], rows=done["rows"], change=change)] if done else [],
            query=self.input_query,
            query_id=done.get("query_id"),
        )

    def _write(self, hook: SnowMLHook, found: Any, target: QualifiedName, key: Identifier | None) -> int:
        self._stop_if_killed()
        if self.write_mode == "replace":
            found.write.save_as_table(_parts(target), mode="overwrite")
            return count_rows(hook, target)
        # First into a temporary table: the target's lock is not held while the model runs.
        temporary = temporary_name(target.parent)
        found.write.save_as_table(_parts(temporary), mode="errorifexists", table_type="temporary")
        rows = count_rows(hook, temporary)
        columns = tuple(hook.columns(f"SELECT * FROM {temporary.sql}"))
        self._stop_if_killed()
        if key is not None:
            replace_slice(hook, PartitionLoad(target, temporary, columns, key, self.replace_value))
        else:
            append(hook, target, temporary, columns)
        return rows

    def on_kill(self) -> None:
        """Cancel what this try runs. Airflow gives it five seconds."""
        self._killed.set()
        if self._session_id is not None:
            # A hook of its own: the one in use is in the middle of a request.
            try:
                cancel_statements(self.get_hook(), self._session_id)
            except SnowMLError as error:
                self.log.warning("What this try runs could not be cancelled, and may go on: %s", error)

    def _stop_if_killed(self) -> None:
        """Between two statements a kill has nothing to cancel."""
        if self._killed.is_set():
            raise RunCancelledError("The task was killed before it wrote.")


def _identifier(argument: str, value: Any) -> Identifier | None:
    text = as_text(value)
    return Identifier.parse(text, what=argument) if text else None


def _parts(name: QualifiedName) -> list[str]:
    """A name as Snowpark takes it apart."""
    return [name.database.sql, name.schema.sql, name.name.sql]
