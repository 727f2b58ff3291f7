"""A model's life, run by Airflow's own task runner with its OpenLineage listener, in a process of its own."""

from __future__ import annotations

import os
import sys
from typing import Any

import openlineage.client
import pendulum
import snowflake.sqlalchemy
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG, Asset

from airflow_provider_snowml.operators.champion_challenger import SnowMLChampionChallengerOperator
from airflow_provider_snowml.operators.evaluation import SnowMLEvaluateModelOperator
from airflow_provider_snowml.operators.inference import SnowMLBatchInferenceOperator, SnowMLRunModelOperator
from airflow_provider_snowml.operators.load_predictions import SnowMLLoadPredictionsOperator
from airflow_provider_snowml.operators.model_export import SnowMLExportModelOperator
from airflow_provider_snowml.operators.model_retention import SnowMLDeleteModelOperator
from airflow_provider_snowml.operators.model_update import SnowMLUpdateModelOperator
from airflow_provider_snowml.operators.monitors import SnowMLCreateMonitorOperator
from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator
from airflow_provider_snowml.operators.services import SnowMLCreateServiceOperator, SnowMLDropServiceOperator

# Loaded once, and not by every fork of the listener.
_LOADED = openlineage.client, snowflake.sqlalchemy

MODEL: dict[str, Any] = {"model_name": "lineage_model"}
V1: dict[str, Any] = {**MODEL, "version_name": "V1"}
PREDICT: dict[str, Any] = {**MODEL, "function_name": "predict"}
LABELLED: dict[str, Any] = {
    **PREDICT,
    "input_query": "WITH labelled AS (SELECT x.*, IFF(F1 > 20, 1, 0) AS LABEL FROM x) SELECT * FROM labelled",
    "label_column": "LABEL",
    "task": "binary_classification",
    "prediction_column": "output_feature_0",
    "positive_class": 1,
}


def train(session: Any) -> ModelArtifact:
    from sklearn.linear_model import LogisticRegression

    rows = session.table("X").select("F1", "F2").to_pandas()
    model = LogisticRegression().fit(rows, (rows.F1 > 20).astype(int))
    return ModelArtifact(model, sample_input_data=rows.head(), metrics={"rows": len(rows)})


with DAG("lineage", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
    register = SnowMLRegisterModelOperator(
        task_id="register",
        **V1,
        python_callable=train,
        training_tables="{{ 'x' }}",
        inlets=[Asset("snowflake://myorg-other/RAW/PUBLIC/WEATHER")],
        task="TABULAR_BINARY_CLASSIFICATION",
        verify=False,
    )
    copy = SnowMLRegisterModelOperator(
        task_id="copy", **MODEL, version_name="V2", source_model="lineage_model", source_version="V1"
    )
    evaluate = SnowMLEvaluateModelOperator(task_id="evaluate", version_name="V1", **LABELLED)
    contest = SnowMLChampionChallengerOperator(
        task_id="contest",
        challenger_version="V2",
        champion_version="V1",
        metric="accuracy",
        follow_task_ids_if_better="promote",
        follow_task_ids_if_not_better="promote",
        **LABELLED,
    )
    promote = SnowMLPromoteModelOperator(task_id="promote", **V1)
    elsewhere = SnowMLPromoteModelOperator(task_id="elsewhere", **V1, copy_to="lineage_elsewhere")
    export = SnowMLExportModelOperator(task_id="export", **V1, path="@st/lineage_export/v1")
    rename = SnowMLUpdateModelOperator(
        task_id="rename", model_name="lineage_elsewhere", rename_to="lineage_renamed"
    )
    run_model = SnowMLRunModelOperator(
        task_id="run_model",
        **PREDICT,
        version_name="champion",
        input_table="X",
        output_table='"lineage ran"',
        write_mode="replace",
    )
    batch = SnowMLBatchInferenceOperator(
        task_id="batch",
        **PREDICT,
        version_name="champion",
        input_query="SELECT * FROM x WHERE DAY = '2013-06-01'",
        compute_pool="TEST_POOL",
        output_stage_location="@st/lineage",
        poll_interval=0.2,
        deferrable=True,
    )
    load = SnowMLLoadPredictionsOperator(
        task_id="load",
        job_output_location=batch.output["job_output_location"],
        output_table="lineage_predictions",
        replace_column="DAY",
        replace_value="2013-06-01",
    )
    upstream = SQLExecuteQueryOperator(
        task_id="upstream",
        conn_id="snowflake_default",
        sql="CREATE OR REPLACE TABLE lineage_report AS SELECT * FROM lineage_predictions",
    )
    monitor = SnowMLCreateMonitorOperator(
        task_id="monitor",
        monitor_name="lineage_monitor",
        **V1,
        function_name="predict_proba",
        source="watched_lineage",
        timestamp_column="AT",
        id_columns=["ID"],
        prediction_score_columns=["P"],
        actual_class_columns=["HAPPENED"],
    )
    serve = SnowMLCreateServiceOperator(
        task_id="serve",
        **V1,
        service_name="lineage_service",
        service_compute_pool="TEST_POOL",
        wait_until_ready=False,
        poll_interval=0.2,
    )
    unserve = SnowMLDropServiceOperator(task_id="unserve", service_name="lineage_service")
    delete = SnowMLDeleteModelOperator(task_id="delete", **MODEL, version_name="V2")
    fail = SnowMLRunModelOperator(
        task_id="fail",
        **PREDICT,
        version_name="missing",
        input_table="X",
        output_table="lineage_never",
        write_mode="replace",
        trigger_rule="all_done",
    )
    (
        register
        >> copy
        >> evaluate
        >> contest
        >> promote
        >> elsewhere
        >> export
        >> rename
        >> run_model
        >> batch
        >> load
    )
    load >> upstream >> monitor >> serve >> unserve >> delete >> fail

if __name__ == "__main__":
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    run = dag.test()
    states = {ti.task_id: ti.state for ti in run.get_task_instances()}
    sys.exit(0 if {task for task, state in states.items() if state != "success"} == {"fail"} else str(states))
