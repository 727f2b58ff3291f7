"""What a batch job predicted, into a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from airflow.sdk import Context

from airflow_provider_snowml.core.batch_job import SUCCESS_FILE
from airflow_provider_snowml.core.lineage import Lineage, job_output, table
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.core.partition_load import NOW, PartitionLoad, Stamp
from airflow_provider_snowml.exceptions import (
    BatchOutputGoneError,
    BatchOutputIncompleteError,
    InvalidArgumentError,
    RowCountError,
)
from airflow_provider_snowml.hooks.batch_cleanup import removal_has_begun
from airflow_provider_snowml.hooks.batch_jobs import manifest_of_output
from airflow_provider_snowml.hooks.loading import (
    count_rows,
    empty_slice,
    parquet_to_temporary_table,
    replace_slice,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, as_text, one_of, whole_number


class SnowMLLoadPredictionsOperator(SnowMLOperator):
    """Load a batch job's output into exactly one slice of a table.

    The Parquet files go into a temporary table, are counted, and then one short transaction deletes the slice
    and inserts the rows, matched by column name. Column names are in upper case. Each row says which model,
    version and run it came from and when it was loaded. Doing it again gives the same slice. A result without
    rows (see ``on_empty`` of the batch operator) empties the slice.

    XCom: ``{"rows", "table", "replace_column", "replace_value", "model", "version"}``.

    Privileges: READ on the stage, CREATE FILE FORMAT and CREATE TABLE on the table's schema (for temporary
    ones, and for the table if it is missing), INSERT and DELETE on the table, OWNERSHIP of it for
    ``on_schema_change="add_columns"``. See
    https://docs.snowflake.com/en/sql-reference/sql/copy-into-table.

    :param job_output_location: the job's output directory, as the batch operator's XCom has it. It must have
        ``_SUCCESS``.
    :param output_table: the table.
    :param replace_column: the column that the slices are told apart by. If the predictions have it, every row
        must be of this slice; else it is added.
    :param replace_value: the slice's value. It is written as an escaped literal.
    :param expected_rows: refuse any other number of rows.
    :param model_name: what ``model_column`` says; read from the job's manifest if it is left out.
    :param version_name: what ``version_column`` says; likewise.
    :param create_table: whether the table is created if it is missing, with the columns and types of the
        rows; else a missing one is an error.
    :param on_schema_change: what to do if the rows and the table have different columns: ``"fail"`` lists
        them; ``"add_columns"`` adds those that the table lacks, and leaves those that the rows lack to their
        defaults, mostly NULL. A column that must not be NULL is still an error, and so is a table without
        ``replace_column``.
    :param model_column: the column for the model's name; ``None`` leaves it out.
    :param version_column: the column for the version; likewise.
    :param run_id_column: the column for the DAG run's id; likewise.
    :param loaded_at_column: the column for the time of the load, a TIMESTAMP_NTZ in UTC; likewise.
    :raises BatchOutputIncompleteError: if there is no ``_SUCCESS``.
    :raises BatchOutputGoneError: if the output was cleaned up.
    :raises RowCountError: if there are not ``expected_rows`` rows.
    :raises ForeignRowsError: if some rows are of another slice.
    :raises PredictionColumnsError: if the table has other columns, or the rows have one that is to be added.
    :raises TableNotFoundError: if the table is missing and ``create_table`` is ``False``.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "job_output_location",
        "output_table",
        "replace_column",
        "replace_value",
        "expected_rows",
        "model_name",
        "version_name",
        "model_column",
        "version_column",
        "run_id_column",
        "loaded_at_column",
    )

    def __init__(
        self,
        *,
        job_output_location: str,
        output_table: str,
        replace_column: str,
        replace_value: Any,
        expected_rows: int | str | None = None,
        model_name: str | None = None,
        version_name: str | None = None,
        create_table: bool = True,
        on_schema_change: Literal["fail", "add_columns"] = "fail",
        model_column: str | None = "MODEL",
        version_column: str | None = "VERSION",
        run_id_column: str | None = "RUN_ID",
        loaded_at_column: str | None = "LOADED_AT",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_output_location = job_output_location
        self.output_table = output_table
        self.replace_column = replace_column
        self.replace_value = replace_value
        self.expected_rows = expected_rows
        self.model_name = model_name
        self.version_name = version_name
        self.create_table = create_table
        self.on_schema_change = on_schema_change
        self.model_column = model_column
        self.version_column = version_column
        self.run_id_column = run_id_column
        self.loaded_at_column = loaded_at_column

    def execute(self, context: Context) -> dict[str, Any]:
        """Load."""
        expected = whole_number("expected_rows", self.expected_rows, at_least=0)
        one_of("on_schema_change", self.on_schema_change, ("fail", "add_columns"))
        key = Identifier.parse(self.replace_column, what="replace_column")
        columns = self._stamp_columns(key)
        hook = self.get_hook()
        with hook.open_connection():
            default = hook.default_schema()
            target = QualifiedName.parse(self.output_table, default, what="output_table")
            location = StageLocation.parse(self.job_output_location, default, what="job_output_location")
            hook.check_internal_stage(location.stage)
            self._check_success(hook, location)
            model, version = self._model_and_version(hook, location, default)
            source = parquet_to_temporary_table(hook, location, target.parent)
            rows = count_rows(hook, source) if source is not None else 0
            # A clean-up removes _SUCCESS first: as long as it stands, nothing else was missing.
            self._check_success(hook, location)
            if expected is not None and rows != expected:
                raise RowCountError(f"{location} has {rows} rows; expected_rows is {expected}.")
            query_id = None
            if source is None:
                empty_slice(hook, target, key, self.replace_value, create_table=self.create_table)
            else:
                values = {
                    "model_column": model,
                    "version_column": version,
                    "run_id_column": context["ti"].run_id,
                    "loaded_at_column": NOW,
                }
                load = PartitionLoad(
                    target,
                    source,
                    tuple(hook.columns(f"SELECT * FROM {source.sql}")),
                    key,
                    self.replace_value,
                    tuple(Stamp(column, values[argument]) for argument, column in columns.items()),
                )
                query_id = replace_slice(
                    hook, load, create_table=self.create_table, on_schema_change=self.on_schema_change
                )
        self.log.info("%s has %d rows where %s is %r.", target, rows, key, self.replace_value)
        return self.done(
            {
                "rows": rows,
                "table": target.sql,
                "replace_column": key.name,
                "replace_value": self.replace_value,
                "model": model,
                "version": version,
            },
            query_id=query_id,
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """From the job's output to the table."""
        rows = done.get("rows")
        return Lineage(
            reads=[job_output(self.job_output_location, default, rows=rows)],
            writes=[table(done["table"], rows=rows)] if done else [],
            query_id=done.get("query_id"),
        )

    def _stamp_columns(self, key: Identifier) -> dict[str, Identifier]:
        """The columns that are to be added, by the argument that names them."""
        arguments = ("model_column", "version_column", "run_id_column", "loaded_at_column")
        columns = {
            argument: Identifier.parse(name, what=argument)
            for argument in arguments
            if (name := as_text(getattr(self, argument))) is not None
        }
        names = [column.name for column in columns.values()]
        for argument, column in columns.items():
            if names.count(column.name) > 1 or column.name == key.name:
                raise InvalidArgumentError(
                    f"{argument} is {column}, which is also replace_column or another of "
                    f"{', '.join(arguments)}: each needs a name of its own, or None to leave it out."
                )
        return columns

    @staticmethod
    def _check_success(hook: SnowMLHook, location: StageLocation) -> None:
        if f"{location.path}{SUCCESS_FILE}" in hook.files(location, SUCCESS_FILE):
            return
        if removal_has_begun(hook, location):
            raise BatchOutputGoneError(
                f"There is nothing in {location} any more: it was cleaned up, or never written."
            )
        raise BatchOutputIncompleteError(
            f"There is no {SUCCESS_FILE} in {location}: the job has not ended, or not well."
        )

    def _model_and_version(
        self, hook: SnowMLHook, location: StageLocation, default: SchemaName
    ) -> tuple[str, str]:
        model, version = self.model_name, self.version_name
        if not (model and version):
            manifest = manifest_of_output(hook, location)
            if manifest is None:
                if removal_has_begun(hook, location):
                    raise BatchOutputGoneError(f"{location} is being cleaned up.")
                raise InvalidArgumentError(
                    f"{location} is not the output of a job of SnowMLBatchInferenceOperator: say which "
                    "model_name and version_name made it."
                )
            model, version = model or manifest.model, version or manifest.version
        return QualifiedName.parse(model, default, what="model name").sql, version
