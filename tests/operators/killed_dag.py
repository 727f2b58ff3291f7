"""One slow batch task under Airflow's own task runner, as ``dag.test()`` has it, in a process to kill."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta

import pendulum
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.sdk import DAG

from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator

if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    if "execution_timeout" in wanted:
        wanted["execution_timeout"] = timedelta(seconds=wanted["execution_timeout"])
    with DAG(wanted.pop("dag_id"), schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        SnowMLBatchInferenceOperator(
            task_id="score",
            model_name="SLOW",
            function_name="predict",
            input_query="SELECT 120::FLOAT AS F1, 1 AS ID",
            poll_interval=0.2,
            **wanted,
        )
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    print("state:", dag.test().state)
