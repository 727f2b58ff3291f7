from __future__ import annotations

import json
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    ModelFunctionNotFoundError,
    ModelMonitorExistsError,
    ModelNotFoundError,
    ModelTaskError,
    ModelVersionNotFoundError,
    MonitorColumnsError,
    TableNotFoundError,
    WarehouseNotFoundError,
)
from airflow_provider_snowml.hooks.monitors import (
    describe_monitor,
    drop_monitor,
    list_monitors,
    monitor_metric,
    resume_monitor,
    suspend_monitor,
)
from airflow_provider_snowml.operators.monitors import SnowMLCreateMonitorOperator

ARGUMENTS: dict[str, Any] = {
    "monitor_name": "WATCH",
    "model_name": "M",
    "version_name": "champion",
    "function_name": "predict_proba",
    "source": "WATCHED",
    "baseline": "NORMAL",
    "timestamp_column": "AT",
    "id_columns": ["ID"],
    "prediction_score_columns": ["P"],
    "prediction_class_columns": ["PREDICTED"],
    "actual_class_columns": ["HAPPENED"],
    "segment_columns": ["PART"],
}
ROWS = """
    SELECT ID, DATEADD(HOUR, ID, '2013-06-01'::TIMESTAMP_NTZ) AS AT, ID / 60 AS P,
        IFF(ID > 30, 1, 0) AS PREDICTED, IFF(MOD(ID, 7) > 3, 1, 0) AS HAPPENED, F1,
        IFF(ID > 20, 'later', 'early') AS PART, DAY
    FROM X
"""


def monitor(**arguments: Any) -> SnowMLCreateMonitorOperator:
    return SnowMLCreateMonitorOperator(task_id="watch", **{**ARGUMENTS, **arguments})


@pytest.fixture
def hook(scoring):
    """The hook of a schema with predictions and no monitors; what a test makes is dropped."""
    hook = scoring.hook()
    hook.rows(f"CREATE OR REPLACE VIEW WATCHED AS {ROWS}")
    hook.rows(f"CREATE OR REPLACE TABLE NORMAL AS {ROWS} WHERE ID < 30")
    yield hook
    for row in list_monitors(hook, hook.default_schema()):
        hook.rows(f"DROP MODEL MONITOR {row['name']}")


def test_in_a_dag_and_its_numbers(scoring, hook, run_dag) -> None:
    with DAG("watch", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        monitor(monitor_name="watch_{{ dag.dag_id }}", segment_columns=["{{ 'PART' }}"], comment="it's new")
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["watch"] == {
        "monitor_name": f"{scoring.schema}.WATCH_WATCH",
        "model": f"{scoring.schema}.M",
        "version": "V1",
        "function": "predict_proba",
        "source": f"{scoring.schema}.WATCHED",
        "baseline": f"{scoring.schema}.NORMAL",
        "created": True,
    }
    (shown,) = list_monitors(hook, hook.default_schema())
    assert (shown["name"], shown["comment"], shown["warehouse_name"]) == (
        "WATCH_WATCH",
        "it's new",
        "SNOWML_WH",
    )
