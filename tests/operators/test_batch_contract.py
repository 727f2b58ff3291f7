"""The operator's statement against that of the installed SDK's ``run_batch``, both taken by Snowflake."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import yaml

from airflow_provider_snowml.core.model_ref import ModelVersionRef, refuse_adapter
from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

PHOTO = {"PHOTO": {"input_format": "full_stage_path", "convert_to": "base64"}}


@dataclass(frozen=True)
class Case:
    """:param arguments: the operator's; :param specs: the SDK's, by the argument of ``run_batch``."""

    arguments: dict[str, Any]
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str = "M"
    function: str = "predict"
    query: str = "SELECT * FROM X"


CASES = {
    "plain": Case({}),
    "scaled": Case(
        {
            "replicas": 1,
            "num_workers": 1,
            "max_batch_rows": 16,
            "cpu_requests": "1",
            "memory_requests": "1Gi",
        },
        {
            "resources_spec": {"cpu_requests": "1", "memory_requests": "1Gi"},
            "inference_spec": {"num_workers": 1, "max_batch_rows": 16},
        },
    ),
    "overwrite": Case({"save_mode": "overwrite"}, {"output_spec": {"mode": "overwrite"}}),
    "parameters": Case(
        {"inference_params": {"temperature": 0.7, "stop": ["it's", 'a "b"'], "n": None}},
        {"input_spec": {"params": {"temperature": 0.7, "stop": ["it's", 'a "b"'], "n": None}}},
    ),
    "partitioned": Case(
        {"partition_column": "DAY"}, {"input_spec": {"partition_column": "DAY"}}, "TOTALS", "total"
    ),
    "one_partition": Case({}, {}, "TOTALS", "total"),
    "column_handling": Case(
        {"column_handling": PHOTO},
        {"input_spec": {"column_handling": PHOTO}},
        "FILES",
        "start",
        "SELECT '@D.S.ST/x.jpg' AS PHOTO",
    ),
    "engine": Case(
        {"engine": "vllm", "engine_args_override": ["--max-model-len=4096", "--seed=1"], "num_workers": 1},
        {
            "inference_spec": {
                "num_workers": 1,
                "engine_options": {
                    "engine": "vllm",
                    "engine_args_override": ["--max-model-len=4096", "--seed=1"],
                },
            }
        },
        "CHAT",
        "__call__",
        """SELECT PARSE_JSON('[{"role": "user", "content": [{"text": "Hello"}]}]') AS "messages" """,
    ),
    "image_repo": Case({"image_repo": "IMAGES"}, {"image_build_spec": {"image_repo": "IMAGES"}}),
    "rebuilt": Case({"force_rebuild": True}, {"image_build_spec": {"force_rebuild": True}}),
}


def clauses(sql: str) -> dict[str, Any]:
    """A statement by clause, in order; the job's name apart."""
    head, specification, tail = re.fullmatch(
        r"(.*)WITH SPECIFICATION '(.*)'\n(FROM .*)", sql, re.DOTALL
    ).groups()
    parts = [re.sub(r"^NAME = .*", "NAME", line) for line in tail.strip().splitlines()]
    text = re.sub(r"\\(.)", r"\1", specification)
    return {"head": head.split(), "specification": yaml.safe_load(text), "tail": parts}


@pytest.fixture
def sent(monkeypatch) -> list[str]:
    """The jobs' statements that clients of this process send."""
    from snowflake.connector.cursor import SnowflakeCursor

    texts: list[str] = []
    real = SnowflakeCursor._execute_helper

    def execute(self: SnowflakeCursor, query: str, *arguments: Any, **options: Any) -> Any:
        if query.startswith("EXECUTE INFERENCE"):
            texts.append(query)
        return real(self, query, *arguments, **options)

    monkeypatch.setattr(SnowflakeCursor, "_execute_helper", execute)
    return texts


def run_by_the_sdk(run_batch: Any, scoring: Any, case: Case, name: str, data: StageLocation) -> None:
    from snowflake.ml.model import batch_inference as sdk

    kinds = {
        "input_spec": sdk.InputSpec,
        "resources_spec": sdk.ResourcesSpec,
        "inference_spec": sdk.InferenceSpec,
        "image_build_spec": sdk.ImageBuildSpec,
        "output_spec": sdk.OutputSpec,
    }
    output = {"stage_location": f"@{scoring.schema}.ST/{name}", **case.specs.get("output_spec", {})}
    build = case.specs.get("image_build_spec", {})
    if "image_repo" in build:  # the operator writes names in full, the SDK sends what it is given
        build = {"image_repo": f"{scoring.schema}.{build['image_repo']}"}
    given = {**case.specs, "output_spec": output, **({"image_build_spec": build} if build else {})}
    specs = {what: kinds[what](**values) for what, values in given.items()}
    hook = scoring.hook()
    with hook.session() as session:
        version = hook.registry(session, hook.default_schema()).get_model(case.model).version("V1")
        run_batch(
            version,
            input_stage_location=data.sql,
            compute_pool=scoring.pool,
            function_name=case.function,
            job_name=f"SDK_{name}",
            replicas=case.arguments.get("replicas"),
            **specs,
        ).cancel()


@pytest.mark.parametrize("name", CASES)
def test_the_operator_sends_what_run_batch_sends(
    scoring, special_models, task_context, sent, run_batch, name
) -> None:
    case, name = CASES[name], f"contract_{name}"
    hook = scoring.hook()
    with hook.open_connection():
        hook.rows("CREATE IMAGE REPOSITORY IF NOT EXISTS IMAGES")
        data = StageLocation.parse(f"@ST/{name}_in", hook.default_schema())
        hook.copy_into_location(data, case.query)
    task = SnowMLBatchInferenceOperator(
        task_id=name,
        model_name=case.model,
        function_name=case.function,
        input_stage_location=data.sql,
        compute_pool=scoring.pool,
        output_stage_location=f"@ST/{name}",
        wait_for_completion=False,
        **case.arguments,
    )
    task.execute(task_context(name))
    run_by_the_sdk(run_batch, scoring, case, name, data)
    task.on_kill()
    ours, theirs = map(clauses, sent)
    assert ours == theirs


# What becomes of each argument of ``run_batch``, and of each field of its specs: the operator's argument that
# passes it, or why there is none.
FIELDS = {
    "X": "input_table or input_query, which the operator copies itself",
    "input_stage_location": "input_stage_location",
    "compute_pool": "compute_pool",
    "function_name": "function_name",
    "job_name": "made by the operator: the name is the lock",
    "replicas": "replicas",
    "async_": "always: the operator waits by itself",
    "input_spec.params": "inference_params",
    "input_spec.column_handling": "column_handling",
    "input_spec.partition_column": "partition_column",
    "input_spec.layout": "the SDK's own, for an X that it has copied by partitions; else the job does that",
    "output_spec.stage_location": "output_stage_location",
    "output_spec.mode": "save_mode",
    "resources_spec.cpu_requests": "cpu_requests",
    "resources_spec.memory_requests": "memory_requests",
    "resources_spec.gpu_requests": "gpu_requests",
    "inference_spec.num_workers": "num_workers",
    "inference_spec.max_batch_rows": "max_batch_rows",
    "inference_spec.adapters": "refused: a version that is a LoRA adapter, by name",
    "inference_spec.engine_options.engine": "engine",
    "inference_spec.engine_options.engine_args_override": "engine_args_override",
    "image_build_spec.image_repo": "image_repo",
    "image_build_spec.force_rebuild": "force_rebuild",
}


def test_what_becomes_of_each_field_of_the_installed_sdk(run_batch) -> None:
    """A newer SDK that takes more is noticed here."""
    if run_batch.__name__ != "run_batch":
        pytest.skip("snowflake-ml-python 1.x takes less")
    from snowflake.ml.model import batch_inference as sdk
    from snowflake.ml.model._client.service.inference_job_service_spec import _InternalInputSpec

    specs = {
        "input_spec": _InternalInputSpec,  # the public one, and what only the SDK itself may set
        "output_spec": sdk.OutputSpec,
        "resources_spec": sdk.ResourcesSpec,
        "inference_spec": sdk.InferenceSpec,
        "inference_spec.engine_options": sdk.EngineOptions,
        "image_build_spec": sdk.ImageBuildSpec,
    }
    arguments = inspect.signature(run_batch).parameters.keys() - {"self"}
    fields = {f"{spec}.{name}" for spec, kind in specs.items() for name in kind.model_fields}
    assert arguments | fields == FIELDS.keys() | specs.keys()
    ours = inspect.signature(SnowMLBatchInferenceOperator).parameters
    passed = {what for what in FIELDS.values() if " " not in what}
    assert passed <= ours.keys()
    assert {"layout", "adapters", "job_name", "async_"}.isdisjoint(ours)


def test_a_lora_adapter_is_refused_by_name() -> None:
    """``run_batch`` runs its base model with it; the statement for that is not sent here."""
    handlers = pytest.importorskip("snowflake.ml.model._packager.model_handlers.peft_adapter")
    kind = handlers.PeftAdapterModelHandler.HANDLER_TYPE
    adapter = ModelVersionRef(QualifiedName.parse("DB.SC.M"), "V1", model_type=kind)
    with pytest.raises(InvalidArgumentError, match=r"DB\.SC\.M version V1 is a LoRA adapter"):
        refuse_adapter(adapter)
    refuse_adapter(replace(adapter, model_type="sklearn"))


def test_the_kind_of_a_version_is_seen(scoring) -> None:
    assert scoring.hook().resolve_version("M").model_type == "sklearn"
