"""Inference: in the warehouse, in a batch job, and what becomes of a batch job's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context

from airflow_provider_snowml.core.batch_job import SUCCESS_FILE
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.core.partition_load import NOW, PartitionLoad
from airflow_provider_snowml.exceptions import (
    BatchOutputIncompleteError,
    InvalidArgumentError,
    RowCountError,
)
from airflow_provider_snowml.hooks.batch_jobs import manifest_of_output
from airflow_provider_snowml.hooks.loading import (
    count_rows,
    empty_slice,
    parquet_to_temporary_table,
    replace_slice,
)
from airflow_provider_snowml.operators.base import SnowMLOperator
from airflow_provider_snowml.operators.batch_cleanup import SnowMLCleanUpBatchOperator
from airflow_provider_snowml.operators.batch_inference import SnowMLBatchInferenceOperator
from airflow_provider_snowml.operators.run_model import SnowMLRunModelOperator

__all__ = [
    "SnowMLBatchInferenceOperator",
    "SnowMLCleanUpBatchOperator",
    "SnowMLLoadPredictionsOperator",
    "SnowMLRunModelOperator",
]


class SnowMLLoadPredictionsOperator(SnowMLOperator):
    """Load a batch job's output into exactly one slice of a table.

    The Parquet files go into a temporary table, are counted, and then one short transaction deletes the slice
    and inserts the rows. Column names are in upper case. Each row says which model, version and run it came
    from and when it was loaded: ``MODEL``, ``VERSION``, ``RUN_ID``, ``LOADED_AT``. Doing it again gives the
    same slice. A result without rows (see ``on_empty`` of the batch operator) empties the slice.

    XCom: ``{"rows", "table", "replace_column", "replace_value", "model", "version"}``.

    Privileges: READ on the stage, CREATE FILE FORMAT and CREATE TABLE on the table's schema (for temporary
    ones, and for the table if it is missing), INSERT and DELETE on the table. See
    https://docs.snowflake.com/en/sql-reference/sql/copy-into-table.

    :param job_output_location: the job's output directory, as the batch operator's XCom has it. It must have
        ``_SUCCESS``.
    :param output_table: the table; created if it is missing.
    :param replace_column: the column that the slices are told apart by. If the predictions have it, every row
        must be of this slice; else it is added.
    :param replace_value: the slice's value. It is written as an escaped literal.
    :param expected_rows: refuse any other number of rows.
    :param model_name: what ``MODEL`` says; read from the job's manifest if it is left out.
    :param version_name: what ``VERSION`` says; likewise.
    :raises BatchOutputIncompleteError: if there is no ``_SUCCESS``.
    :raises RowCountError: if there are not ``expected_rows`` rows.
    :raises ForeignRowsError: if some rows are of another slice.
    :raises PredictionColumnsError: if the table has other columns.
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

    def execute(self, context: Context) -> dict[str, Any]:
        """Load."""
        expected = _row_count(self.expected_rows)
        key = Identifier.parse(self.replace_column, what="replace_column")
        hook = self.get_hook()
        with hook.open_connection():
            default = hook.default_schema()
            target = QualifiedName.parse(self.output_table, default, what="output_table")
            location = StageLocation.parse(self.job_output_location, default, what="job_output_location")
            hook.check_internal_stage(location.stage)
            model, version = self._model_and_version(hook, location, default)
            files = hook.files(location)
            if f"{location.path}{SUCCESS_FILE}" not in files:
                raise BatchOutputIncompleteError(
                    f"There is no {SUCCESS_FILE} in {location}: the job has not ended, or not well."
                )
            source = parquet_to_temporary_table(hook, location, target.parent)
            rows = count_rows(hook, source) if source is not None else 0
            if expected is not None and rows != expected:
                raise RowCountError(f"{location} has {rows} rows; expected_rows is {expected}.")
            if source is None:
                empty_slice(hook, target, key, self.replace_value)
            else:
                stamps = {
                    "MODEL": model,
                    "VERSION": version,
                    "RUN_ID": context["ti"].run_id,
                    "LOADED_AT": NOW,
                }
                columns = tuple(hook.columns(f"SELECT * FROM {source.sql}"))
                replace_slice(hook, PartitionLoad(target, source, columns, key, self.replace_value, stamps))
        self.log.info("%s has %d rows where %s is %r.", target, rows, key, self.replace_value)
        return {
            "rows": rows,
            "table": target.sql,
            "replace_column": key.name,
            "replace_value": self.replace_value,
            "model": model,
            "version": version,
        }

    def _model_and_version(self, hook: Any, location: StageLocation, default: SchemaName) -> tuple[str, str]:
        model, version = self.model_name, self.version_name
        if not (model and version):
            manifest = manifest_of_output(hook, location)
            if manifest is None:
                raise InvalidArgumentError(
                    f"{location} is not the output of a job of SnowMLBatchInferenceOperator: say which "
                    "model_name and version_name made it."
                )
            model, version = model or manifest.model, version or manifest.version
        return QualifiedName.parse(model, default, what="model name").sql, version


def _row_count(value: Any) -> int | None:
    if value in (None, "", "None"):
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"expected_rows is {value!r}; it must be a number of rows.") from None
