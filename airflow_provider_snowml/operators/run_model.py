"""Inference in the warehouse: a model's function over a query, into a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context

from airflow_provider_snowml.core.model_ref import check_columns
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.core.partition_load import PartitionLoad
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.loading import append, count_rows, replace_slice, temporary_name
from airflow_provider_snowml.operators.base import SnowMLOperator, exactly_one, one_of

__all__ = ["SnowMLRunModelOperator"]


class SnowMLRunModelOperator(SnowMLOperator):
    """Run a function of a model in the warehouse, through snowflake-ml's ``mv.run``, into a table.

    The rows stay in Snowflake. XCom: ``{"rows", "table", "model", "version"}``, ``rows`` being those that
    this run wrote.

    Privileges: USAGE on the model, SELECT on the input, CREATE TABLE on the output's schema (or INSERT and
    DELETE on the table), USAGE on a warehouse. See
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
    :param inference_params: parameters of the method.
    :param partition_column: the column that a partitioned model is partitioned by.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a model, version or function that isn't there.
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
        with hook.session() as session:
            default = hook.default_schema()
            model = QualifiedName.parse(self.model_name, default, what="model name")
            target = QualifiedName.parse(self.output_table, default, what="output_table")
            key = (
                Identifier.parse(self.replace_column, what="replace_column") if self.replace_column else None
            )
            if source == "input_table":
                table = QualifiedName.parse(str(self.input_table), default, what="input_table")
                query = f"SELECT * FROM {table.sql}"
            else:
                query = str(self.input_query).strip().rstrip(";")
            ref = hook.resolve_version(model, self.version_name)
            function = ref.function(self.function_name)
            check_columns(function, hook.columns(query), source=source)

            version = hook.registry(session, model.parent).get_model(model.name.sql).version(ref.version_sql)
            predictions = version.run(
                session.sql(query),
                function_name=function.target_method,
                partition_column=self.partition_column,
                params=dict(self.inference_params) if self.inference_params else None,
            )
            self.log.info("Running %s of %s %s into %s.", function.target_method, model, ref.version, target)
            if self.write_mode == "replace":
                predictions.write.save_as_table(_parts(target), mode="overwrite")
                rows = count_rows(hook, target)
            else:
                # First into a temporary table: the target's lock is not held while the model runs.
                temporary = temporary_name(target.parent)
                predictions.write.save_as_table(
                    _parts(temporary), mode="errorifexists", table_type="temporary"
                )
                rows = count_rows(hook, temporary)
                columns = tuple(hook.columns(f"SELECT * FROM {temporary.sql}"))
                if key is not None:
                    replace_slice(hook, PartitionLoad(target, temporary, columns, key, self.replace_value))
                else:
                    append(hook, target, temporary, columns)
        self.log.info("Wrote %d rows.", rows)
        return {"rows": rows, "table": target.sql, "model": model.sql, "version": ref.version}


def _parts(name: QualifiedName) -> list[str]:
    """A name as Snowpark takes it apart."""
    return [name.database.sql, name.schema.sql, name.name.sql]
