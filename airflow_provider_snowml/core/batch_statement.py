"""The text of ``EXECUTE INFERENCE JOB SERVICE``.

The clauses and their order are those that snowflake-ml's ``run_batch`` sends; Snowflake wants them in this
order. One thing differs on purpose: backslashes are escaped before quotes, which the SDK does not do, so that
a parameter such as ``"\\d+"`` reaches the model as it was written. See
https://docs.snowflake.com/en/sql-reference/sql/execute-inference-job-service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from airflow_provider_snowml.core.batch_job import fingerprint
from airflow_provider_snowml.core.names import Identifier, QualifiedName, StageLocation, literal


@dataclass(frozen=True)
class BatchStatement:
    """A batch inference job to be started. ``None`` leaves the choice to Snowflake.

    :param name: the job's name.
    :param compute_pool: the compute pool it runs in.
    :param model: the model.
    :param version: the version as it is written in SQL.
    :param function: the model's method.
    :param input_location: the directory that it reads.
    :param output_location: the directory under which it writes ``<job name>/``.
    :param save_mode: ``"error"`` or ``"overwrite"``, for files in the job's own directory.
    :param inference_params: parameters of the model's method.
    :param column_handling: how columns with stage paths are read, ``{column: {"input_format",
        "convert_to"}}``.
    :param partition_column: the column that a partitioned model is partitioned by.
    :param cpu_requests: CPUs per node, such as ``"2"``.
    :param memory_requests: memory per node, such as ``"8Gi"``.
    :param gpu_requests: GPUs per node.
    :param num_workers: worker processes per node.
    :param max_batch_rows: rows per call of the method.
    :param engine: the inference engine, in upper case.
    :param engine_args_override: arguments of the engine.
    :param image_repo: the image repository that the model's image is built into.
    :param force_rebuild: whether the image is built even if it exists.
    :param replicas: nodes.
    """

    name: QualifiedName
    compute_pool: Identifier
    model: QualifiedName
    version: str
    function: str
    input_location: StageLocation
    output_location: StageLocation
    save_mode: str = "error"
    inference_params: Mapping[str, Any] | None = None
    column_handling: Mapping[str, Mapping[str, str]] | None = None
    partition_column: str | None = None
    cpu_requests: str | None = None
    memory_requests: str | None = None
    gpu_requests: str | None = None
    num_workers: int | None = None
    max_batch_rows: int | None = None
    engine: str | None = None
    engine_args_override: Sequence[str] | None = None
    image_repo: str | None = None
    force_rebuild: bool | None = None
    replicas: int | None = None

    def specification(self) -> str:
        """The YAML of ``WITH SPECIFICATION``."""
        image_build = _without_none(image_repo=self.image_repo, force_rebuild=self.force_rebuild)
        if image_build:
            image_build.setdefault("force_rebuild", False)  # the SDK always sends it with the block
        engine_options = _without_none(
            engine=self.engine,
            engine_args_override=list(self.engine_args_override) if self.engine_args_override else None,
        )
        blocks: dict[str, dict[str, Any]] = {
            "input": _without_none(
                params=dict(self.inference_params) if self.inference_params else None,
                column_handling={column: dict(how) for column, how in self.column_handling.items()}
                if self.column_handling
                else None,
                partition_column=self.partition_column,
            ),
            "output": {"stage_location": self.output_location.sql, "mode": self.save_mode},
            "resources": _without_none(
                cpu_requests=self.cpu_requests,
                memory_requests=self.memory_requests,
                gpu_requests=self.gpu_requests,
            ),
            "inference": _without_none(
                num_workers=self.num_workers,
                max_batch_rows=self.max_batch_rows,
                engine_options=engine_options or None,
            ),
            "image_build": image_build,
        }
        text: str = yaml.safe_dump({key: block for key, block in blocks.items() if block}, sort_keys=False)
        return text

    def sql(self) -> str:
        """The statement."""
        clauses = [
            "EXECUTE INFERENCE JOB SERVICE",
            f"IN COMPUTE POOL {self.compute_pool.sql}",
            f"WITH SPECIFICATION {literal(self.specification())}",
            f"FROM {self.input_location.sql}",
            f"MODEL = {self.model.sql}",
            f"VERSION = {self.version}",
            f"FUNCTION = {literal(self.function)}",
            f"NAME = {self.name.sql}",
            "ASYNC = TRUE",
        ]
        if self.replicas is not None:
            clauses.append(f"REPLICAS = {self.replicas}")
        return "\n".join(clauses)


def work_fingerprint(
    statement: BatchStatement, *, version: str, input_query: str | None, input_version: str | None
) -> str:
    """What would make a job's result different. Not where it runs, how fast, or from which image.

    :param statement: the job; its name does not count.
    :param version: the model version's bare name.
    :param input_query: the query of the input; ``None`` for one that is read in place.
    :param input_version: the user's name for the state of the input's rows.
    """
    if_given = {
        "input_version": input_version,
        "column_handling": statement.column_handling,
        "partition_column": statement.partition_column,
        "engine": statement.engine,
        "engine_args_override": statement.engine_args_override,
    }
    return fingerprint(
        {
            "model": statement.model.sql,
            "version": version,
            "function": statement.function,
            "input": input_query if input_query is not None else statement.input_location.sql,
            "params": dict(statement.inference_params or {}),
            "output": statement.output_location.sql,
            **{name: value for name, value in if_given.items() if value},
        }
    )


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
