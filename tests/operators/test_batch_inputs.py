"""Batch jobs whose input is more than numbers in columns: files of a stage, messages, partitions."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.core.stage_files import stage_files_query
from airflow_provider_snowml.exceptions import (
    BatchJobFailedError,
    InputColumnsError,
    InvalidArgumentError,
)
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

PICTURES = {"a.jpg": b"\xff\xd8\xff\xe0 a picture", "b.jpg": b"\xff\xd8\xff\xe1 b", "notes.txt": b"none"}
RAW = {"PHOTO": {"input_format": "full_stage_path", "convert_to": "raw_bytes"}}


def batch(scoring: Any, task_id: str, **arguments: Any) -> SnowMLBatchInferenceOperator:
    return SnowMLBatchInferenceOperator(
        task_id=task_id,
        compute_pool=scoring.pool,
        output_stage_location=f"@ST/{task_id}",
        poll_interval=0.2,
        **arguments,
    )


def output(scoring: Any, result: dict[str, Any]) -> list[dict[str, Any]]:
    hook = scoring.hook()
    with hook.open_connection():
        location = StageLocation.parse(result["job_output_location"])
        name = hook.parquet_format(location.stage.parent).sql
        rows = hook.rows(
            f"SELECT $1 AS R FROM '{location.sql}' (FILE_FORMAT => '{name}', PATTERN => '.*parquet')"
        )
    return [json.loads(row["R"]) for row in rows]


@pytest.fixture(scope="module")
def pictures(scoring_schema, local_snowflake) -> Iterator[str]:
    """A stage with a directory table and some files."""
    import snowflake.connector

    stage = f"{scoring_schema.schema}.PICTURES"
    with snowflake.connector.connect(**local_snowflake.connection_parameters) as connection:
        execute = connection.cursor().execute
        execute(f"CREATE STAGE {stage} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE') DIRECTORY = (ENABLE = TRUE)")
        for name, content in PICTURES.items():
            target = f"@{stage}/2013-06-01/"
            execute(f"PUT 'file:///{name}' '{target}' AUTO_COMPRESS = FALSE", file_stream=io.BytesIO(content))
        execute(f"ALTER STAGE {stage} REFRESH")
        yield stage
        execute(f"DROP STAGE {stage}")  # other tests count the schema's stages


def test_stage_files_are_rows_whose_content_the_method_gets(
    scoring, special_models, pictures, run_dag
) -> None:
    import pendulum
    from airflow.sdk import DAG

    with DAG("pictures", schedule=None, start_date=pendulum.datetime(2013, 6, 1)) as dag:
        batch(
            scoring,
            "measure",
            model_name="FILES",
            function_name="measure",
            input_query=stage_files_query(
                f"@{pictures}/{{{{ params.day }}}}/", pattern=r".*\.jpg", column_name="PHOTO"
            ),
            column_handling=RAW,
        )
    dag.params["day"] = "2013-06-01"
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert (xcoms["measure"]["input_rows"], xcoms["measure"]["output_rows"]) == (2, 2)
    found = {
        row["PHOTO"].rsplit("/")[-1]: (row["BYTES"], row["START"])
        for row in output(scoring, xcoms["measure"])
    }
    wanted = {name: (len(content), content[:4].hex()) for name, content in PICTURES.items() if "jpg" in name}
    assert found == wanted


@pytest.mark.parametrize("encoding", ["base64", "base64_data_url"])
def test_the_encodings(scoring, special_models, pictures, task_context, encoding) -> None:
    from snowflake.ml.model.batch_inference import FileEncoding, InputFormat

    handling = {"photo": {"input_format": InputFormat.FULL_STAGE_PATH, "convert_to": FileEncoding(encoding)}}
    name = f"encoded_{encoding}"
    path = f"@{pictures}/2013-06-01/a.jpg"
    task = batch(
        scoring,
        name,
        model_name="FILES",
        function_name="start",
        input_query=f"SELECT '{path}' AS PHOTO",
        column_handling=handling,
    )
    (row,) = output(scoring, task.execute(task_context(name)))
    text = base64.b64encode(PICTURES["a.jpg"]).decode()
    wanted = text if encoding == "base64" else f"data:image/jpeg;base64,{text}"
    assert row == {"PHOTO": path, "START": wanted[:30]}


def test_a_file_that_is_not_there_fails_the_job(scoring, special_models, pictures, task_context) -> None:
    task = batch(
        scoring,
        "no_file",
        model_name="FILES",
        function_name="measure",
        input_query=f"SELECT '@{pictures}/gone.jpg' AS PHOTO",
        column_handling=RAW,
    )
    with pytest.raises(BatchJobFailedError, match=r"gone\.jpg: there is no such file"):
        task.execute(task_context("no_file"))


@pytest.mark.parametrize(
    "messages",
    [
        "ARRAY_CONSTRUCT(OBJECT_CONSTRUCT('role', 'user', 'content', "
        "ARRAY_CONSTRUCT(OBJECT_CONSTRUCT('type', 'text', 'text', 'Was I late?'))))",
        """PARSE_JSON('[{"role": "user", "content": [{"type": "text", "text": "Was I late?"}]}]')""",
    ],
    ids=["array", "variant"],
)
def test_chat_messages_reach_the_engine_as_lists_of_dicts(
    scoring, special_models, task_context, request, messages
) -> None:
    """A model with OpenAI's signature stands for the engine, which the local Snowflake has not."""
    name = f"chat_{request.node.callspec.id}"
    task = batch(
        scoring,
        name,
        model_name="CHAT",
        input_query=f'SELECT 1 AS ID, {messages} AS "messages"',
        inference_params={"temperature": 0.5},
        engine="vllm",
    )
    result = task.execute(task_context(name))
    (row,) = output(scoring, result)
    assert row["choices"][0]["message"]["content"] == "user at 0.5: Was I late?"
    assert "simulated" in scoring.hook().job_logs(QualifiedName.parse(result["job_name"]))


def test_partitions(scoring, special_models, task_context) -> None:
    task = batch(scoring, "totals", model_name="TOTALS", input_table="X", partition_column="DAY")
    result = task.execute(task_context("totals"))
    assert (result["input_rows"], result["output_rows"]) == (60, 2)
    assert sorted(row["TOTAL"] for row in output(scoring, result)) == [870.0, 900.0]


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "partition column is not there": (
        {"model_name": "TOTALS", "partition_column": "NOPE"},
        InputColumnsError,
        "partition_column is NOPE, which input_table lacks. It has: ID, F1",
    ),
    "a time with a zone": (
        {"input_table": None, "input_query": "SELECT *, CURRENT_TIMESTAMP() AS SEEN FROM X"},
        InputColumnsError,
        r"input_query has SEEN \(TIMESTAMP_L?TZ\), .* cast to TIMESTAMP_NTZ",
    ),
    "partitions of a function": (
        {"partition_column": "DAY"},
        InvalidArgumentError,
        "partition_column is DAY, but predict is of type FUNCTION",
    ),
    "partition column is in the output": (
        {"model_name": "TOTALS", "partition_column": "TOTAL"},
        InvalidArgumentError,
        "which total gives too",
    ),
    "handled column is not there": (
        {"column_handling": RAW},
        InputColumnsError,
        "column_handling names PHOTO, which input_table lacks",
    ),
    "no encoding": (
        {"column_handling": {"F1": {"input_format": "full_stage_path"}}},
        InvalidArgumentError,
        "must have input_format and convert_to",
    ),
    "odd encoding": (
        {"column_handling": {"F1": {"input_format": "full_stage_path", "convert_to": "hex"}}},
        InvalidArgumentError,
        "convert_to of column F1 is 'hex'; it can be 'raw_bytes', 'base64'",
    ),
    "odd engine": ({"engine": "onnx"}, InvalidArgumentError, "engine is 'onnx'; it can be 'vllm'"),
    "engine arguments as a text": (
        {"engine_args_override": "--seed=1"},
        InvalidArgumentError,
        "must be a list of texts",
    ),
    "engine without messages": ({"engine": "vllm"}, BatchJobFailedError, "has no messages"),
    "GPU without runtime": ({"gpu_requests": "1"}, InvalidArgumentError, "registered without a GPU runtime"),
    "memory": ({"memory_requests": "lots"}, InvalidArgumentError, "memory_requests is 'lots'"),
    "parameters": ({"inference_params": "by=1"}, InvalidArgumentError, "inference_params is 'by=1'"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_start_no_job(scoring, special_models, task_context, arguments, error, message) -> None:
    hook = scoring.hook()
    function = {} if arguments.get("model_name") else {"function_name": "predict"}
    task = batch(scoring, "bad_input", **{"model_name": "M", "input_table": "X", **function, **arguments})
    with pytest.raises(error, match=message):
        task.execute(task_context("bad_input"))
    with hook.open_connection():
        assert hook.list_jobs(hook.default_schema(), "SNOWML_BAD_DAY_BAD_INPUT_") == {}


def test_a_failure_says_the_status_the_last_log_lines_and_what_to_do(scoring, task_context) -> None:
    hook = scoring.hook()
    with hook.open_connection():
        data = StageLocation.parse("@ST/lacking_in", hook.default_schema())
        hook.copy_into_location(data, "SELECT F1 FROM X")
    task = batch(scoring, "lacking", model_name="M", function_name="predict", input_stage_location=data.sql)
    with pytest.raises(BatchJobFailedError) as caught:
        task.execute(task_context("lacking"))
    text = str(caught.value)
    assert "the job is FAILED" in text
    assert "JobError: Column F2 that function" in text.partition("The end of its logs:")[2]
    assert "Probably: The input lacks a column that the model was registered with" in text
    assert text.endswith("this job is kept for inspection.")
