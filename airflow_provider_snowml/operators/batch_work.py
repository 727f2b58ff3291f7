"""What a batch task would submit: its arguments, resolved and checked before anything is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.batch_statement import BatchStatement, work_fingerprint
from airflow_provider_snowml.core.model_ref import (
    ModelFunction,
    ModelVersionRef,
    check_columns,
    check_partition_column,
    refuse_adapter,
)
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.core.service_deployment import check_requests
from airflow_provider_snowml.exceptions import InputColumnsError, InvalidArgumentError
from airflow_provider_snowml.hooks.batch_jobs import job_identifier
from airflow_provider_snowml.hooks.services import check_image_repository
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import as_text, exactly_one, one_of, rows_query, whole_number

if TYPE_CHECKING:
    from airflow_provider_snowml.operators.batch_inference import SnowMLBatchInferenceOperator

# snowflake.ml.model.batch_inference's InputFormat, FileEncoding and InferenceEngine.
INPUT_FORMATS = ("full_stage_path",)
FILE_ENCODINGS = ("raw_bytes", "base64", "base64_data_url")
ENGINES = ("vllm", "python_generic")


@dataclass(frozen=True)
class Work:
    """What a try would submit, resolved and checked.

    :param statement: the job, but for its name and input.
    :param query: the input's query; ``None`` for an input that is read in place.
    :param source: the argument that the input came from.
    :param ref: the model version.
    :param function: the function.
    :param input_version: the user's name for the state of the input's rows.
    """

    statement: BatchStatement
    query: str | None
    source: str
    ref: ModelVersionRef
    function: ModelFunction
    input_version: str | None = None

    @property
    def fingerprint(self) -> str:
        """What would make the result different."""
        return work_fingerprint(
            self.statement,
            version=self.ref.version,
            input_query=self.query,
            input_version=self.input_version,
        )


def check_arguments(task: SnowMLBatchInferenceOperator) -> str:
    """Check what needs no Snowflake; which input is given.

    :raises InvalidArgumentError: if something makes no sense.
    """
    one_of("save_mode", task.save_mode, ("error", "overwrite"))
    one_of("on_conflict", task.on_conflict, ("fail", "wait", "replace"))
    one_of("on_rerun", task.on_rerun, ("replace", "reuse"))
    one_of("on_empty", task.on_empty, ("fail", "skip", "replace"))
    one_of("row_count_check", task.row_count_check, ("equal", "off"))
    for name in ("replicas", "num_workers", "max_batch_rows"):
        whole_number(name, getattr(task, name))
    check_requests(**_requests(task))
    if not isinstance(task.inference_params or {}, Mapping):
        raise InvalidArgumentError(f"inference_params is {task.inference_params!r}; it must be a mapping.")
    _engine(task)
    _column_handling(task)
    return exactly_one(
        input_table=task.input_table,
        input_query=task.input_query,
        input_stage_location=task.input_stage_location,
    )


def resolve(
    task: SnowMLBatchInferenceOperator,
    hook: SnowMLHook,
    schema: SchemaName,
    model: QualifiedName,
    output: StageLocation,
    pinned: str | None,
) -> Work:
    """Resolve every name, and check that it is there and fits, before anything is made.

    :param task: the operator, with its arguments rendered.
    :param hook: a hook with an open connection.
    :param schema: where unqualified names are.
    :param model: the model.
    :param output: the output base.
    :param pinned: the version, if an earlier try has resolved it.
    """
    source = check_arguments(task)
    pool = Identifier.parse(task.compute_pool, what="compute pool")
    hook.check_compute_pool(pool)
    ref = hook.resolve_version(model, Identifier.of(pinned).sql if pinned else task.version_name)
    refuse_adapter(ref)
    function = ref.function(task.function_name)
    query, staged, columns = None, output, None
    if source == "input_stage_location":
        staged = _staged_input(str(task.input_stage_location), schema, output)
        hook.check_internal_stage(staged.stage)
    else:
        query = rows_query(source, getattr(task, source), schema)
        typed = hook.typed_columns(query)
        columns = [name for name, _ in typed]
        check_columns(function, columns, source=source)
        _check_types(typed, source)
    partition_column = as_text(task.partition_column)
    if partition_column is not None:
        column = Identifier.parse(partition_column, what="partition_column")
        _check_not_an_output(column, function)
        check_partition_column(function, column, columns, source=source)
    requests = _requests(task)
    if requests["gpu_requests"] not in (None, "0") and ref.supports_gpu is False:
        raise InvalidArgumentError(
            f"gpu_requests is {requests['gpu_requests']!r}, but {model} version {ref.version} was registered "
            "without a GPU runtime: register it with options={'cuda_version': ...}, or leave it out."
        )
    repository = None
    if image_repo := as_text(task.image_repo):
        repository = QualifiedName.parse(image_repo, schema, what="image_repo")
        check_image_repository(hook, repository)
    engine, engine_args = _engine(task)
    statement = BatchStatement(
        name=job_identifier(schema, "UNNAMED"),
        compute_pool=pool,
        model=model,
        version=ref.version_sql,
        function=function.target_method,
        input_location=staged,
        output_location=output,
        save_mode=task.save_mode,
        inference_params=task.inference_params,
        column_handling=_in_the_input(_column_handling(task), columns, source),
        partition_column=partition_column,
        num_workers=whole_number("num_workers", task.num_workers),
        max_batch_rows=whole_number("max_batch_rows", task.max_batch_rows),
        engine=engine,
        engine_args_override=engine_args,
        image_repo=repository.sql if repository is not None else None,
        force_rebuild=task.force_rebuild or None,
        replicas=whole_number("replicas", task.replicas),
        **requests,
    )
    return Work(statement, query, source, ref, function, as_text(task.input_version))


def _check_types(columns: Sequence[tuple[str, str]], source: str) -> None:
    zoned = [f"{name} ({type_})" for name, type_ in columns if type_ in ("TIMESTAMP_TZ", "TIMESTAMP_LTZ")]
    if zoned:
        raise InputColumnsError(
            f"{source} has {', '.join(zoned)}, which Snowflake cannot write as Parquet: "
            "cast to TIMESTAMP_NTZ, or leave out."
        )


def _staged_input(text: str, schema: SchemaName, output: StageLocation) -> StageLocation:
    staged = StageLocation.parse(text, schema, what="input_stage_location")
    if output.contains(staged):
        raise InvalidArgumentError(
            f"input_stage_location {staged} lies in output_stage_location {output}, which the job may empty: "
            "use another directory."
        )
    return staged


def _requests(task: SnowMLBatchInferenceOperator) -> dict[str, str | None]:
    names = ("cpu_requests", "memory_requests", "gpu_requests")
    return {name: as_text(getattr(task, name)) for name in names}


def _engine(task: SnowMLBatchInferenceOperator) -> tuple[str | None, Sequence[str] | None]:
    """The engine as the statement has it, and its arguments."""
    arguments = task.engine_args_override
    if isinstance(arguments, str) or not all(isinstance(one, str) for one in arguments or ()):
        raise InvalidArgumentError(
            f"engine_args_override is {arguments!r}; it must be a list of texts, such as "
            "['--max-model-len=4096']."
        )
    engine = as_text(_plain(task.engine))
    if engine is None:
        return None, arguments
    one_of("engine", engine.lower(), ENGINES)
    return engine.upper(), arguments


def _column_handling(task: SnowMLBatchInferenceOperator) -> dict[str, dict[str, str]] | None:
    """How columns with stage paths are read; snowflake-ml's enumerations may be used, and their values."""
    if not task.column_handling:
        return None
    if not isinstance(task.column_handling, Mapping):
        raise InvalidArgumentError(f"column_handling is {task.column_handling!r}; it must be a mapping.")
    found = {}
    for column, options in task.column_handling.items():
        how = {key: _plain(value) for key, value in options.items()} if isinstance(options, Mapping) else {}
        if how.keys() != {"input_format", "convert_to"}:
            raise InvalidArgumentError(
                f"column_handling of {column} is {options!r}; it must have input_format and convert_to."
            )
        one_of(f"input_format of column {column}", how["input_format"], INPUT_FORMATS)
        one_of(f"convert_to of column {column}", how["convert_to"], FILE_ENCODINGS)
        found[str(column)] = how
    return found


def _plain(value: Any) -> Any:
    """The value of an enumeration's member."""
    return getattr(value, "value", value)


def _in_the_input(
    handling: dict[str, dict[str, str]] | None, columns: Sequence[str] | None, source: str
) -> dict[str, dict[str, str]] | None:
    """The same by the names that the input's files have; those of a staged input are not known."""
    if handling is None or columns is None:
        return handling
    names = {column.upper(): column for column in columns} | {column: column for column in columns}
    found = {}
    for column, how in handling.items():
        name = names.get(column, names.get(column.upper()))
        if name is None:
            raise InputColumnsError(
                f"column_handling names {column}, which {source} lacks. It has: {', '.join(columns)}."
            )
        found[name] = how
    return found


def _check_not_an_output(column: Identifier, function: ModelFunction) -> None:
    """Check that the job can add the partition's column to the output, as the SDK does.

    :raises InvalidArgumentError: if the function gives it already.
    """
    if function.is_partitioned and column.name.upper() in (output.upper() for output in function.outputs):
        raise InvalidArgumentError(
            f"partition_column is {column}, which {function.target_method} gives too; the job adds it to the "
            "output by itself: register the model without it."
        )
