"""Every template field of every operator and sensor: what it is, and how its text is found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml
from fuzz_world import World

from airflow_provider_snowml.core.preflight_steps import Register
from airflow_provider_snowml.local.grammar import quote, tokens, unquote_string

Found = Callable[[World, dict[str, Any]], Any]


@dataclass(frozen=True)
class Field:
    """A template field.

    :param kind: ``model``, ``version`` and ``table``: the name of one that is there. ``made``: the name of
        what comes to be. ``text``: a text that is kept as it is. ``lookup``: a name of something else, a
        number, one of a few words: refused, or nothing is changed. The others are not let loose: ``code`` is
        SQL by design, ``python`` gets to Snowflake in a model's files only, ``connection`` is the hook's.
    :param shape: how the argument holds the text.
    :param found: where it is found again, of ``made``: all names that there are.
    :param drop: how what was made is removed.
    :param others: arguments that go with it.
    """

    kind: Literal["model", "version", "table", "made", "text", "lookup", "code", "python", "connection"]
    shape: Literal["text", "list", "key", "value", "tag", "path", "step"] = "text"
    found: Found | None = None
    drop: Callable[[World, str], None] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_let_loose(self) -> bool:
        return self.kind not in ("code", "python", "connection")

    def value(self, text: str) -> Any:
        """The argument that holds a text."""
        if self.shape == "path":
            return f"@ST/exports/{text}"  # other ways lead out of Snowflake
        if self.shape == "step":
            return [Register(model_name=text, source_model=text, tags=[text])]
        shapes = {
            "text": text,
            "list": [text],
            "key": {text: "x"},
            "value": {"x": text},
            "tag": {"TEAM": text},
        }
        return shapes[self.shape]


MODEL = Field("model")
VERSION = Field("version")
LOOKUP, LIST, KEY, VALUE = Field("lookup"), *(Field("lookup", shape) for shape in ("list", "key", "value"))
CODE, PYTHON, CONNECTION = Field("code"), Field("python"), Field("connection")
CONNECTIONS = dict.fromkeys(("snowflake_conn_id", "warehouse", "database", "schema", "role"), CONNECTION)

EVALUATION = {
    "function_name": LOOKUP,
    "input_table": Field("table", others={"input_query": None}),
    "input_query": CODE,
    "label_column": LOOKUP,
    "metrics": LIST,
    "prediction_column": LOOKUP,
    "probability_columns": VALUE,
    "positive_class": LOOKUP,  # a literal: no row is of that class
    "threshold": LOOKUP,
    "expressions": CODE,
    "inference_params": KEY,
}


def metric_name(world: World, _: Any) -> str:
    """The only metric's; nothing if there is none."""
    return next(iter(world.metrics("V2")), "")


def made(what: str, drop: str = "", **others: Any) -> Field:
    """The name of an object in the schema, by the word of SHOW and DROP."""
    word = drop or what.rstrip("S")
    return Field(
        "made",
        found=lambda world, _: world.named(what),
        drop=lambda world, name: world.rows(f"DROP {word} IF EXISTS {quote(name)}"),
        others=others,
    )


def model_comment(world: World, _: Any) -> str:
    return world.comment()


def planned(path: str) -> Found:
    """A value in the specification of the job that would be started."""

    def found(_: World, result: dict[str, Any]) -> Any:
        strings = [unquote_string(one.text) for one in tokens(result["statement"]) if one.kind == "string"]
        value = yaml.safe_load(strings[0])
        for key in path.split("."):
            value = value[key]
        return value

    return found


def alias_of_v2(world: World, _: Any) -> set[str]:
    return set(world.aliases("V2"))


def alias_of_v1(world: World, _: Any) -> set[str]:
    return set(world.aliases("V1"))


def loaded(column: str) -> Found:
    """A value of the rows that were loaded."""

    def found(world: World, _: Any) -> Any:
        values = {row[column] for row in world.rows("SELECT * FROM LOADED")}
        world.drop_table("LOADED")
        (value,) = values
        return value

    return found


def loaded_columns(world: World, _: Any) -> set[str]:
    if "LOADED" not in world.named("TABLES"):
        return {"ID", "PREDICTED", "DAY", "MODEL", "VERSION", "RUN_ID", "LOADED_AT"}
    return {row["name"] for row in world.rows("DESCRIBE TABLE LOADED")}


def drop_loaded(world: World, _: str) -> None:
    world.drop_table("LOADED")


LOADED_COLUMN = Field("made", found=loaded_columns, drop=drop_loaded)

FIELDS: dict[str, dict[str, Field]] = {
    "SnowMLRegisterModelOperator": {
        "model_name": made("MODELS"),
        "version_name": Field(
            "made", found=lambda world, _: set(world.versions()), drop=lambda world, name: world.reset_model()
        ),
        **dict.fromkeys(
            ("model_file", "mlflow_model_uri", "huggingface_model", "huggingface_task", "external_python"),
            PYTHON,
        ),
        **dict.fromkeys(("requirements", "op_args", "op_kwargs", "user_files", "code_paths"), PYTHON),
        **dict.fromkeys(("compute_pool_for_log", "huggingface_secret", "python_version", "task"), PYTHON),
        **dict.fromkeys(("conda_dependencies", "pip_requirements", "artifact_repository_map"), PYTHON),
        **dict.fromkeys(("resource_constraint", "target_platforms"), PYTHON),
        "source_model": Field("model", others={"version_name": "NEW"}),
        "source_version": Field("version", others={"version_name": "NEW"}),
        "if_exists": LOOKUP,
        "training_tables": LIST,
        "comment": Field("text", found=lambda world, _: world.versions()["NEW"]["comment"]),
        "metrics": Field("text", "value", found=lambda world, _: world.metrics("NEW")["x"]),
        "tags": Field("text", "tag", found=lambda world, _: world.tag("TEAM")),
    },
    "SnowMLEvaluateModelOperator": {
        "model_name": MODEL,
        "version_name": VERSION,
        **EVALUATION,
        "stored_as": Field("text", found=metric_name),
    },
    "SnowMLChampionChallengerOperator": {
        "model_name": MODEL,
        "challenger_version": VERSION,
        "champion_version": LOOKUP,
        **EVALUATION,
        **dict.fromkeys(("metric", "floor", "min_margin", "min_rows"), LOOKUP),
        "slices": CODE,
        "max_slice_loss": LOOKUP,
        "stored_as": Field("text", found=metric_name),
    },
    "SnowMLPromoteModelOperator": {
        "model_name": MODEL,
        "version_name": VERSION,
        "alias": Field("made", found=alias_of_v2, drop=lambda world, _: world.reset_model()),
        "previous_alias": Field("made", found=alias_of_v1, drop=lambda world, _: world.reset_model()),
        "tag": made("TAGS", create_tag=True),
        "comment": Field("text", found=model_comment),
        "trained_until": LOOKUP,
        "on_older": LOOKUP,
        "copy_to": made("MODELS"),
    },
    "SnowMLRollbackModelOperator": {
        "model_name": LOOKUP,
        "version_name": LOOKUP,
        "comment": Field("text", found=lambda world, _: world.comment("R")),
    },
    "SnowMLUpdateModelOperator": {
        "model_name": MODEL,
        "version_name": Field("version", others={"version_comment": "x"}),
        "metrics": Field("text", "value", found=lambda world, _: world.metrics("V2")["x"]),
        "version_comment": Field("text", found=lambda world, _: world.versions()["V2"]["comment"]),
        "alias": Field("made", found=alias_of_v2, drop=lambda world, _: world.reset_model()),
        "tags": Field("text", "tag", found=lambda world, _: world.tag("TEAM")),
        "comment": Field("text", found=model_comment),
        "rename_to": Field(
            "made",
            found=lambda world, _: world.named("MODELS"),
            drop=lambda world, name: world.drop_model(name),
        ),
    },
    "SnowMLExportModelOperator": {
        "model_name": MODEL,
        "version_name": VERSION,
        "path": Field("lookup", "path"),
        "export_mode": LOOKUP,
        "if_exists": LOOKUP,
    },
    "SnowMLPreflightOperator": {"steps": Field("lookup", "step")},
    "SnowMLSuspendIdleOperator": {
        "compute_pools": LIST,
        "service_names": LIST,
        "idle_for": LOOKUP,
        "plan_only": LOOKUP,
    },
    "SnowMLPruneModelVersionsOperator": {
        "model_name": MODEL,
        "keep_last": LOOKUP,
        "older_than": LOOKUP,
        "plan_only": LOOKUP,
    },
    "SnowMLDeleteModelOperator": {"model_name": MODEL, "version_name": VERSION},
    "SnowMLRunSchemaOperator": {
        "prefix": Field(
            "made",
            found=lambda world, _: {
                row["name"].removesuffix("_2013_06_01")
                for row in world.rows(f"SHOW SCHEMAS IN DATABASE {world.database}")
            },
            drop=lambda world, name: world.rows(f'DROP SCHEMA {world.database}."{name}_2013_06_01"'),
        )
    },
    "SnowMLDropStaleRunSchemasOperator": {"older_than": LOOKUP, "prefix": LOOKUP, "plan_only": LOOKUP},
    "SnowMLCreateMonitorOperator": {
        "monitor_name": made("MODEL MONITORS", "MODEL MONITOR"),
        "model_name": LOOKUP,
        "version_name": LOOKUP,
        "function_name": LOOKUP,
        "source": Field("table", others={"baseline": None}),
        "baseline": Field("table"),
        "timestamp_column": LOOKUP,
        **dict.fromkeys(
            (
                *("id_columns", "prediction_score_columns", "prediction_class_columns", "segment_columns"),
                *("actual_score_columns", "actual_class_columns", "custom_metric_columns"),
            ),
            LIST,
        ),
        "refresh_interval": LOOKUP,
        "aggregation_window": LOOKUP,
        "comment": Field(
            "text", found=lambda world, _: world.rows("SHOW MODEL MONITORS LIKE 'WATCH'")[0]["comment"]
        ),
        "if_exists": LOOKUP,
    },
    "SnowMLBatchInferenceOperator": {
        "model_name": MODEL,
        "version_name": VERSION,
        "function_name": LOOKUP,
        "input_table": Field("table", others={"input_query": None}),
        "input_query": CODE,
        "input_stage_location": Field("lookup", others={"input_query": None}),
        "compute_pool": LOOKUP,
        "output_stage_location": LOOKUP,
        "image_repo": LOOKUP,
        **dict.fromkeys(("replicas", "num_workers", "max_batch_rows", "cpu_requests"), LOOKUP),
        **dict.fromkeys(("memory_requests", "gpu_requests", "engine", "save_mode", "input_version"), LOOKUP),
        "inference_params": Field("text", "value", found=planned("input.params.x")),
        "column_handling": KEY,
        "partition_column": LOOKUP,
        "engine_args_override": Field(
            "text",
            "list",
            found=lambda world, result: planned("inference.engine_options.engine_args_override")(
                world, result
            )[0],
            others={"engine": "vllm"},
        ),
    },
    "SnowMLCleanUpBatchOperator": {
        "job_output_location": Field("lookup", others={"output_stage_location": None, "older_than": None}),
        "output_stage_location": LOOKUP,
        "older_than": LOOKUP,
        "job_dag_id": LOOKUP,
        "plan_only": LOOKUP,
    },
    "SnowMLLoadPredictionsOperator": {
        "job_output_location": LOOKUP,
        "output_table": made("TABLES"),
        "replace_column": LOADED_COLUMN,
        "replace_value": Field("text", found=loaded("DAY")),
        "expected_rows": LOOKUP,
        "model_name": Field("lookup", others={"output_table": "LOADED"}),
        "version_name": Field("text", found=loaded("VERSION")),
        **dict.fromkeys(
            ("model_column", "version_column", "run_id_column", "loaded_at_column"), LOADED_COLUMN
        ),
    },
    "SnowMLRunModelOperator": {
        "model_name": MODEL,
        "version_name": VERSION,
        "function_name": LOOKUP,
        "input_table": Field("table", others={"input_query": None}),
        "input_query": CODE,
        "output_table": made("TABLES"),
        "replace_column": LOOKUP,
        "replace_value": Field("lookup"),
        "inference_params": KEY,
        "partition_column": LOOKUP,
        "service_name": LOOKUP,
    },
    "SnowMLCreateServiceOperator": {
        "model_name": LOOKUP,
        "version_name": LOOKUP,
        "service_name": LOOKUP,
        "service_compute_pool": LOOKUP,
        "image_build_compute_pool": LOOKUP,
        "image_repo": LOOKUP,
        "build_external_access_integrations": LIST,
        **dict.fromkeys(("if_exists", "min_instances", "max_instances", "num_workers"), LOOKUP),
        **dict.fromkeys(("max_batch_rows", "cpu_requests", "memory_requests", "gpu_requests"), LOOKUP),
    },
    "SnowMLDropServiceOperator": {"service_name": LOOKUP},
    "SnowMLBatchSuccessSensor": {
        "job_output_location": LOOKUP,
        "job_name": Field("lookup", others={"job_output_location": "@ST/none/"}),
    },
    "SnowMLModelVersionSensor": {
        "model_name": MODEL,
        "version_name": VERSION,
        "alias": Field("lookup", others={"version_name": None}),
        "other_than": Field("lookup", others={"version_name": None, "alias": "default"}),
    },
    "SnowMLServiceReadySensor": {"service_name": LOOKUP},
}
EVALUATED: dict[str, Any] = {
    "model_name": "M",
    "input_query": "SELECT F1, F2, HAPPENED FROM X",
    "label_column": "HAPPENED",
    "task": "binary_classification",
    "function_name": "predict",
    "prediction_column": "output_feature_0",
    "positive_class": 1,
    "metrics": ["accuracy"],
}
# What an operator is given else.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "SnowMLRegisterModelOperator": {
        "model_name": "M",
        "version_name": "NEW",
        "source_model": "M",
        "source_version": "V1",
    },
    "SnowMLEvaluateModelOperator": {**EVALUATED, "version_name": "V2"},
    "SnowMLChampionChallengerOperator": {
        **EVALUATED,
        "challenger_version": "V2",
        "metric": "accuracy",
        "follow_task_ids_if_better": "promote",
        "follow_task_ids_if_not_better": "keep",
    },
    "SnowMLPromoteModelOperator": {"model_name": "M", "version_name": "V2", "on_older": "promote"},
    "SnowMLRollbackModelOperator": {"model_name": "R", "version_name": "V2"},
    "SnowMLUpdateModelOperator": {"model_name": "M", "version_name": "V2", "version_comment": ""},
    "SnowMLExportModelOperator": {"model_name": "M", "version_name": "V1", "path": "@ST/exports/x"},
    "SnowMLSuspendIdleOperator": {},
    "SnowMLPreflightOperator": {},
    "SnowMLPruneModelVersionsOperator": {"model_name": "M", "keep_last": 2, "plan_only": False},
    "SnowMLDeleteModelOperator": {"model_name": "M"},
    "SnowMLRunSchemaOperator": {},
    "SnowMLDropStaleRunSchemasOperator": {"older_than": 1e9},
    "SnowMLCreateMonitorOperator": {
        "monitor_name": "WATCH",
        "model_name": "M",
        "version_name": "V1",
        "function_name": "predict_proba",
        "source": "X",
        "baseline": "NORMAL",
        "timestamp_column": "AT",
        "id_columns": ["ID"],
        "prediction_score_columns": ["P"],
        "actual_class_columns": ["HAPPENED"],
    },
    "SnowMLBatchInferenceOperator": {
        "model_name": "M",
        "function_name": "predict",
        "input_query": "SELECT F1, F2 FROM X",
        "output_stage_location": "@ST/jobs",
        "plan_only": True,
    },
    "SnowMLCleanUpBatchOperator": {"output_stage_location": "@ST/jobs", "older_than": 1e9},
    "SnowMLLoadPredictionsOperator": {
        "job_output_location": "@ST/loads/done/",
        "output_table": "LOADED",
        "replace_column": "DAY",
        "replace_value": "2013-06-01",
        "model_name": "M",
        "version_name": "V1",
    },
    "SnowMLRunModelOperator": {
        "model_name": "M",
        "function_name": "predict",
        "input_query": "SELECT ID, F1, F2 FROM X",
        "output_table": "PREDICTED",
        "write_mode": "replace",
    },
    "SnowMLCreateServiceOperator": {
        "model_name": "M",
        "service_name": "S",
        "min_instances": 1,
        "poll_interval": 0.1,
        "timeout": 0,
    },
    "SnowMLDropServiceOperator": {"service_name": "S"},
    "SnowMLBatchSuccessSensor": {"job_output_location": "@ST/none/", "timeout": 0, "poke_interval": 0},
    "SnowMLModelVersionSensor": {"model_name": "M", "version_name": "V1", "timeout": 0, "poke_interval": 0},
    "SnowMLServiceReadySensor": {"service_name": "S", "timeout": 0, "poke_interval": 0, "grace": 0},
}
