"""What the operator sends against what the installed SDK's ``run_batch`` sends, as Snowflake sees both."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {
        "replicas": 1,
        "num_workers": 1,
        "max_batch_rows": 16,
        "cpu_requests": "1",
        "memory_requests": "1Gi",
    },
    "overwrite": {"save_mode": "overwrite"},
}


def clauses(sql: str) -> dict[str, Any]:
    """A statement by clause, in order; the job's name apart."""
    head, specification, tail = re.fullmatch(
        r"(.*)WITH SPECIFICATION '(.*)'\n(FROM .*)", sql, re.DOTALL
    ).groups()
    parts = [re.sub(r"^NAME = .*", "NAME", line) for line in tail.strip().splitlines()]
    return {
        "head": head.split(),
        "specification": yaml.safe_load(specification.replace("\\'", "'")),
        "tail": parts,
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_operator_sends_what_run_batch_sends(scoring, task_context, monkeypatch, request, case) -> None:
    from snowflake.ml.model.batch_inference import InferenceSpec, OutputSpec, ResourcesSpec, SaveMode

    name = f"contract_{request.node.callspec.id}"
    hook = scoring.hook()
    with hook.open_connection():
        data = StageLocation.parse("@ST/contract_in", hook.default_schema())
        hook.copy_into_location(data, "SELECT * FROM X")

    sent: list[str] = []
    real = SnowMLHook.submit
    monkeypatch.setattr(SnowMLHook, "submit", lambda self, sql: (sent.append(sql), real(self, sql))[1])
    SnowMLBatchInferenceOperator(
        task_id=name,
        model_name="M",
        function_name="predict",
        input_stage_location=data.sql,
        compute_pool=scoring.pool,
        output_stage_location=f"@ST/{name}",
        poll_interval=0.2,
        **case,
    ).execute(task_context(name))

    def spec(kind: Any, *names: str) -> Any:
        given = {key: case[key] for key in names if key in case}
        return kind(**given) if given else None

    with hook.session() as session:
        version = hook.registry(session, hook.default_schema()).get_model("M").version("V1")
        with session.query_history() as history:
            job = version.run_batch(
                input_stage_location=data.sql,
                compute_pool=scoring.pool,
                output_spec=OutputSpec(
                    stage_location=f"@{scoring.schema}.ST/{name}",
                    mode=SaveMode(case.get("save_mode", "error")),
                ),
                resources_spec=spec(ResourcesSpec, "cpu_requests", "memory_requests"),
                inference_spec=spec(InferenceSpec, "num_workers", "max_batch_rows"),
                function_name="predict",
                job_name=f"SDK_{name}",
                replicas=case.get("replicas"),
            )
        job.wait()
    theirs = [query.sql_text for query in history.queries if query.sql_text.startswith("EXECUTE INFERENCE")]
    assert len(theirs) == len(sent) == 1
    assert clauses(sent[0]) == clauses(theirs[0])
