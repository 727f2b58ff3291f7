"""The housekeeping example with ``dag.test()``: it plans, then does what it planned, and nothing else."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_snowml.core.run_schema import RunSchemaMark
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_conn")
POOL = "HOUSE_POOL"


class Store(dict):
    """A task's state store."""

    set = dict.__setitem__


@pytest.fixture
def mess(scoring_schema, schema) -> SnowMLHook:
    """Old versions, a run schema that was left, the output of two DAGs' batch jobs, a pool without work."""
    hook = SnowMLHook()
    hook.rows(f"CREATE MODEL OLD WITH VERSION V1 FROM MODEL {scoring_schema.schema}.M VERSION V1")
    for version in ("V2", "V3"):
        hook.rows(f"ALTER MODEL OLD ADD VERSION {version} FROM MODEL {scoring_schema.schema}.M VERSION V1")
    hook.rows(
        "SELECT SNOWFLAKE.CORTEX.FINETUNE('CREATE', 'TUNED', 'mistral-7b', "
        "'SELECT ''why?'' AS prompt, ''because'' AS completion')"
    )
    comment = RunSchemaMark("flight_delays_retrain", "2013-01-01T00:00:00+00:00").to_comment()
    hook.rows(f"CREATE SCHEMA RUN_{schema.rpartition('_')[2]} COMMENT = '{comment}'")
    hook.rows("CREATE STAGE FLIGHT_DELAYS_SCORES ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    hook.rows("CREATE TABLE NONE_TO_SCORE (F1 FLOAT, F2 FLOAT)")
    hook.rows(
        f"CREATE COMPUTE POOL IF NOT EXISTS {POOL} MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS"
    )
    for dag_id in ("flight_delays_score", "somebody_elses"):
        score(dag_id)
    end = time.monotonic() + 120
    while pool_state(hook) != "IDLE":
        assert time.monotonic() < end
        time.sleep(0.1)
    yield hook
    hook.rows(f"DROP COMPUTE POOL {POOL}")


def score(dag_id: str) -> None:
    """A batch result, of no rows: that needs no job."""
    task = SnowMLBatchInferenceOperator(
        task_id="score",
        model_name="OLD",
        function_name="predict",
        input_table="NONE_TO_SCORE",
        compute_pool=POOL,
        output_stage_location="@FLIGHT_DELAYS_SCORES/daily",
        on_empty="replace",
    )
    ti = SimpleNamespace(
        dag_id=dag_id,
        task_id="score",
        run_id="run",
        map_index=-1,
        try_number=1,
        start_date=datetime.now(UTC),
    )
    dag_run = SimpleNamespace(clear_number=0, run_type="manual")
    task.execute(
        {"ti": ti, "dag_run": dag_run, "partition_key": "2013-01-01", "task_state_store": Store()}  # type: ignore[typeddict-item]
    )


def pool_state(hook: SnowMLHook) -> str:
    return str(hook.rows(f"SHOW COMPUTE POOLS LIKE '{POOL}'")[0]["state"])


def seen(hook: SnowMLHook, schema: str) -> dict[str, Any]:
    files = [row["name"] for row in hook.rows("LIST @FLIGHT_DELAYS_SCORES")]
    return {
        "versions": [row["name"] for row in hook.rows("SHOW VERSIONS IN MODEL OLD")],
        "models": [row["name"] for row in hook.rows("SHOW MODELS")],
        "run schema": len(hook.rows(f"SHOW SCHEMAS LIKE 'RUN_{schema.rpartition('_')[2]}'")),
        "ours": sum("FLIGHT_DELAYS_SCORE_SCORE" in name for name in files),
        "others": sum("SOMEBODY" in name for name in files),
        "pool": pool_state(hook),
    }


def test_it_plans_and_then_it_does(dags, run_dag, mess, schema) -> None:
    dag = dags["housekeeping"]
    before = seen(mess, schema)
    assert (before["ours"] > 0, before["others"] > 0) == (True, True)
    now = {"keep_last": 1, "older_than_days": 0, "compute_pool": POOL, "idle_minutes": 0}
    run, planned = run_dag(dag, run_conf=now)
    assert run.state == "success", {ti.task_id: ti.state for ti in run.get_task_instances()}
    assert seen(mess, schema) == before
    assert planned["prune_versions"]["models"] == {
        f"{schema}.OLD": {"dropped": ["V2"], "kept": {"V1": "the default", "V3": "one of the 1 newest"}}
    }
    assert planned["suspend_idle"]["suspended"]["compute_pools"] == [POOL]

    run, done = run_dag(dag, run_conf={**now, "plan_only": False})
    assert run.state == "success", {ti.task_id: ti.state for ti in run.get_task_instances()}
    assert seen(mess, schema) == {
        **before,
        "versions": ["V1", "V3"],
        "run schema": 0,
        "ours": 0,
        "pool": "SUSPENDED",
    }
    assert done["prune_versions"]["versions_dropped"] == 1
    assert done["suspend_idle"]["suspended"] == planned["suspend_idle"]["suspended"]


def test_what_it_does_unless_told_otherwise(dags) -> None:
    dag = dags["housekeeping"]
    assert dag.params["plan_only"] is True
    assert all(task.template_fields and "plan_only" in task.template_fields for task in dag.tasks)
    assert not any(task.upstream_task_ids for task in dag.tasks)
