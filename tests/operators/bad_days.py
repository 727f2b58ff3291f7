"""DAGs of one slow batch task each, for the bad days of ``test_batch_bad_days.py``."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.sdk import DAG, Context

from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

DEFERRABLE = {
    "worker_killed": False,
    "cleared_running": False,
    "marked_failed": False,
    "marked_success": False,
    "cleared_deferred": True,
    "success_deferred": True,
    "triggerer_killed": True,
    "airflow_killed": True,
}


def write_pid(context: Context) -> None:
    """Tell the test which process the try is."""
    ti = context["ti"]
    Path(os.environ["SNOWML_TEST_PIDS"], f"{ti.dag_id}_{ti.try_number}").write_text(str(os.getpid()))


for name, deferrable in DEFERRABLE.items():
    with DAG(name, schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        SnowMLBatchInferenceOperator(
            task_id="score",
            model_name="SLOW",
            function_name="predict",
            input_query=f"SELECT SECONDS::FLOAT AS F1, 1 AS ID FROM WAITS WHERE NAME = '{name}'",
            compute_pool="TEST_POOL",
            output_stage_location=f"@ST/{name}",
            deferrable=deferrable,
            poll_interval=1,
            retries=5,  # on a busy machine Airflow loses a try now and then
            retry_delay=timedelta(0),
            pre_execute=write_pid,
        )
    globals()[name] = dag
