"""The statement against the installed SDK's own builder: the two cannot part unnoticed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import yaml

from airflow_provider_snowml.core.batch_statement import BatchStatement, work_fingerprint
from airflow_provider_snowml.core.names import Identifier, QualifiedName, StageLocation

BASE: dict[str, Any] = {
    "name": QualifiedName.parse("db.sc.j1"),
    "compute_pool": Identifier.parse("pool"),
    "model": QualifiedName.parse("db.sc.m"),
    "version": "V1",
    "function": "predict",
    "input_location": StageLocation.parse("@db.sc.st/in"),
    "output_location": StageLocation.parse("@db.sc.st/out"),
}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "overwrite": {"save_mode": "overwrite"},
    "scaled": {
        "replicas": 2,
        "num_workers": 4,
        "max_batch_rows": 1000,
        "cpu_requests": "2",
        "memory_requests": "8Gi",
        "gpu_requests": "1",
    },
    "params": {"inference_params": {"temperature": 0.7, "stop": ["it's", 'a "b"'], "n": None}},
    "partitioned": {"partition_column": "CARRIER"},
    "column handling": {
        "column_handling": {"PHOTO": {"input_format": "full_stage_path", "convert_to": "base64"}}
    },
    "image": {"image_repo": "db.sc.repo"},
    "rebuild": {"image_repo": "db.sc.repo", "force_rebuild": True},
}


def sdk_statement(case: dict[str, Any]) -> str:
    from snowflake.ml._internal.utils.sql_identifier import SqlIdentifier
    from snowflake.ml.model._client.ops.service_ops import build_inference_job_service_yaml
    from snowflake.ml.model._client.service import inference_job_service_spec
    from snowflake.ml.model._client.sql.service import build_execute_inference_job_service_sql
    from snowflake.ml.model.batch_inference import (
        ImageBuildSpec,
        InferenceSpec,
        OutputSpec,
        ResourcesSpec,
        SaveMode,
    )

    def pick(**names: str) -> dict[str, Any] | None:
        return {sdk: case[ours] for sdk, ours in names.items() if ours in case} or None

    input_ = pick(
        params="inference_params", column_handling="column_handling", partition_column="partition_column"
    )
    resources = pick(
        cpu_requests="cpu_requests", memory_requests="memory_requests", gpu_requests="gpu_requests"
    )
    inference = pick(num_workers="num_workers", max_batch_rows="max_batch_rows")
    image = pick(image_repo="image_repo", force_rebuild="force_rebuild")
    text = build_inference_job_service_yaml(
        input_spec=inference_job_service_spec._InternalInputSpec(**input_) if input_ else None,
        output_spec=OutputSpec(
            stage_location=BASE["output_location"].sql, mode=SaveMode(case.get("save_mode", "error"))
        ),
        resources_spec=ResourcesSpec(**resources) if resources else None,
        inference_spec=InferenceSpec(**inference) if inference else None,
        image_build_spec=ImageBuildSpec(**image) if image else None,
    )
    return str(
        build_execute_inference_job_service_sql(
            yaml_body=text,
            compute_pool_name=SqlIdentifier("pool"),
            model_fqn="DB.SC.M",
            version=SqlIdentifier("V1"),
            function_name="predict",
            job_fqn="DB.SC.J1",
            async_=True,
            replicas=case.get("replicas"),
            from_source=BASE["input_location"].sql,
        )
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_what_the_sdk_sends(case: dict[str, Any]) -> None:
    from snowflake.ml.model._client.service import inference_job_service_spec

    if not hasattr(inference_job_service_spec, "_InternalInputSpec"):
        pytest.skip("1.x makes its statement elsewhere; test_batch_contract.py compares what it sends")
    assert BatchStatement(**BASE, **case).sql() == sdk_statement(case)


def test_backslashes_reach_the_model_as_written() -> None:
    pattern = {"pattern": "\\d+\n'x'\\'"}
    sql = BatchStatement(**BASE, inference_params=pattern).sql()
    body = sql.split("WITH SPECIFICATION '", 1)[1].split("'\nFROM @", 1)[0]
    text, i = "", 0
    while i < len(body):  # Snowflake's reading of a literal: a backslash takes what follows
        assert body[i] != "'"
        i += body[i] == "\\"
        text += body[i]
        i += 1
    assert yaml.safe_load(text)["input"]["params"] == pattern


SAME = {"version": "V1", "input_query": None, "input_version": None}
# Where a job runs, how fast and from which image makes no other work; nor does a name, or what a retry is to
# do about files in its own directory.
NO_OTHER_WORK = {
    "name": QualifiedName.parse("db.sc.j2"),
    "compute_pool": Identifier.parse("other"),
    "version": '"V1"',
    "save_mode": "overwrite",
    "cpu_requests": "2",
    "memory_requests": "8Gi",
    "gpu_requests": "1",
    "num_workers": 4,
    "max_batch_rows": 1000,
    "image_repo": "db.sc.repo",
    "force_rebuild": True,
    "replicas": 2,
}
OTHER_WORK = {
    "model": QualifiedName.parse("db.sc.other"),
    "function": "predict_proba",
    "input_location": StageLocation.parse("@db.sc.st/other"),
    "output_location": StageLocation.parse("@db.sc.st/other"),
    "inference_params": {"temperature": 0.7},
    "column_handling": {"PHOTO": {"input_format": "full_stage_path", "convert_to": "base64"}},
    "partition_column": "CARRIER",
    "engine": "VLLM",
    "engine_args_override": ["--seed=1"],
}


def test_every_field_is_other_work_or_is_not() -> None:
    plain = BatchStatement(**BASE)
    assert {field.name for field in fields(plain)} == NO_OTHER_WORK.keys() | OTHER_WORK.keys()
    mark = work_fingerprint(plain, **SAME)
    assert {
        work_fingerprint(replace(plain, **{one: NO_OTHER_WORK[one]}), **SAME) for one in NO_OTHER_WORK
    } == {mark}
    others = {work_fingerprint(replace(plain, **{one: OTHER_WORK[one]}), **SAME) for one in OTHER_WORK}
    others |= {
        work_fingerprint(plain, **{**SAME, **given})
        for given in ({"version": "V2"}, {"input_query": "SELECT 1"}, {"input_version": "snapshot 1"})
    }
    assert len(others | {mark}) == len(OTHER_WORK) + 4


def test_the_fingerprint_of_a_query_does_not_depend_on_where_its_rows_are_copied_to() -> None:
    query = {**SAME, "input_query": "SELECT 1"}
    elsewhere = BatchStatement(**{**BASE, "input_location": OTHER_WORK["input_location"]})
    assert work_fingerprint(elsewhere, **query) == work_fingerprint(BatchStatement(**BASE), **query)


def test_the_fingerprint_is_that_of_the_manifests_that_are_there() -> None:
    """Another one would have every task that is running start its job once more."""
    assert work_fingerprint(BatchStatement(**BASE), **SAME) == "f5cff0295a46c2466512110ccdc3cef0"
