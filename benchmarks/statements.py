"""Every statement that a run of each operator sends, and why.

One DAG runs them all against a local Snowflake, each task over a connection of its own user, by which its
statements are told apart. What a wait sends again with every look stands once.
"""

from __future__ import annotations

import os
import re
from typing import Any

import pendulum
from airflow.sdk import DAG

from airflow_provider_snowml.core.preflight_steps import Load, Register, RunBatch
from airflow_provider_snowml.local import LocalSnowflake
from airflow_provider_snowml.operators.evaluation import SnowMLEvaluateModelOperator
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLCleanUpBatchOperator,
    SnowMLLoadPredictionsOperator,
    SnowMLRunModelOperator,
)
from airflow_provider_snowml.operators.model_export import SnowMLExportModelOperator
from airflow_provider_snowml.operators.model_update import SnowMLUpdateModelOperator
from airflow_provider_snowml.operators.monitors import SnowMLCreateMonitorOperator
from airflow_provider_snowml.operators.preflight import SnowMLPreflightOperator
from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator
from airflow_provider_snowml.operators.services import SnowMLCreateServiceOperator, SnowMLDropServiceOperator
from airflow_provider_snowml.operators.suspend_idle import SnowMLSuspendIdleOperator
from airflow_provider_snowml.sensors.inference import SnowMLBatchSuccessSensor
from airflow_provider_snowml.sensors.services import SnowMLServiceReadySensor
from benchmarks.counting import connection_of, query, statements_of
from benchmarks.report import Table

SCHEMA = "STATEMENTS"
POOL = "STATEMENTS_POOL"
LOOK, SDK = "each look: ", "the SDK: "

# What a statement is for, by what it starts with (a regular expression). The first that fits counts.
REASONS = {
    r"SHOW PARAMETERS LIKE 'QUERY_TAG'": "the tag that the connection has, to be kept",
    r"ALTER SESSION (UN)?SET QUERY_TAG": "who asks: DAG, task and run, for the query history",
    r"SHOW GRANTS TO": "what the role may do",
    # A batch job
    r"LIST '\S*_snowml_input/SNOWML\S*_A'": "the task's attempts, by their inputs",
    r"LIST '\S*_A'": "the task's attempts, by their outputs",
    r"LIST '\S*' PATTERN": LOOK + "which of the outputs in a directory are complete",
    r"LIST '\S*_SUCCESS'": LOOK + "whether the output is complete",
    r"LIST 'snow://": SDK + "which files the version has",
    r"LIST ": "the files of the output",
    r"SHOW JOB SERVICES LIKE 'SNOWML_%'": LOOK + "all jobs of the schema, for all tasks that wait",
    r"SHOW JOB SERVICES LIKE": "the task's attempts, by their jobs",
    r"DESCRIBE SERVICE": LOOK + "the status of one",
    r"SHOW SERVICE CONTAINERS": LOOK + "its containers",
    r"SELECT SYSTEM\$GET_SERVICE_LOGS": LOOK + "a container's log",
    r"SHOW STAGES LIKE": "that the stage is there and internal",
    r"SHOW COMPUTE POOLS LIKE": "that the compute pool is there, and whether it has work",
    r"SHOW VERSIONS LIKE": "the version's functions and their columns",
    r"SHOW VERSIONS IN MODEL": "the model's versions and aliases",
    r"SHOW FUNCTIONS IN MODEL": "the functions' types",
    r"REMOVE '\S*_SNOWML_EXPORT'": "the export is whole: what says that it is not goes",
    r"REMOVE '": "an input that a crash left",
    r"COPY INTO '@": "the input, and how many rows it has",
    r"PUT 'file:///removed.json'": "whose it is, should the clean-up be interrupted",
    r"WITH PREDICTIONS AS": "the model's predictions and their metrics",
    r"PUT 'file:///manifest.json'": "the job's manifest",
    r"GET 'snow://": SDK + "a file of the version",
    r"GET '\S*_SNOWML_EXPORT'": "that nobody else has begun to export there",
    r"GET '": "the job's manifest",
    r"EXECUTE INFERENCE JOB SERVICE": "the job",
    r"CREATE TEMPORARY FILE FORMAT": "what reading Parquet of a stage needs",
    r"SELECT COUNT\(\*\) FROM '@": "how many rows came out",
    # Tables
    r"SELECT COUNT\(\*\) FROM \S*SNOWML_TEMP\S* WHERE": "that no row is of another slice",
    r"SELECT COUNT\(\*\) FROM \S*SNOWML_TEMP\S*$": "how many rows there are",
    r"CREATE TEMPORARY TABLE .*INFER_SCHEMA": "a temporary table with the columns of the files",
    r"CREATE TEMPORARY TABLE \S*SNOWML_TEMP": "the rows' temporary table: snowflake-ml's query",
    r"COPY INTO \S*SNOWML_TEMP": "the predictions, into it",
    r"SELECT \*": "its columns; it is described and not run",
    r"DESCRIBE TABLE": "the target's columns, if it is there",
    r"SELECT CURRENT_TRANSACTION": "which one, so that nothing is written when it was lost",
    r"(BEGIN|COMMIT)$": "one transaction for the slice",
    r"DELETE FROM": "the slice's old rows",
    r"INSERT INTO": "the slice's new rows",
    r"CREATE TABLE IF NOT EXISTS": "the target, if it is missing",
    # Services and monitors
    r"SELECT QUERY_ID FROM TABLE\(\S*QUERY_HISTORY_BY_USER": "whether a lost try is deploying it",
    r"SELECT CURRENT_TIMESTAMP": "to tell this service from an earlier one of its name",
    r"CALL SYSTEM\$DEPLOY_MODEL": "the service, and its image",
    r"SHOW ENDPOINTS": "the address",
    r"SHOW SERVICES EXCLUDE JOBS": "the services, and since when they run",
    r"SHOW SERVICES IN COMPUTE POOL": "what is in the pool",
    r"SHOW MODELS IN SCHEMA": "the models whose versions services may serve",
    r"DROP SERVICE": "the service goes",
    r"SELECT CURRENT_WAREHOUSE": "the monitor's warehouse",
    r"SHOW WAREHOUSES": "that the warehouse is there",
    r"SHOW MODEL MONITORS": "whether the name is taken",
    r"CREATE MODEL MONITOR": "the monitor",
    # A promotion, an update, an export
    r"ALTER MODEL \S+ MODIFY VERSION \S+ SET METADATA = '": "the metrics, among them a promotion's record",
    r"ALTER MODEL \S+ MODIFY VERSION \S+ SET COMMENT = '": "the version's comment",
    r"ALTER MODEL \S+ SET COMMENT": "the model's comment",
    r"PUT 'file:///_SNOWML_EXPORT'": "that an export is begun",
    r"PUT 'file:///_SUCCESS'": "that it is whole",
    r"PUT 'file:///\S*snowml-export": "a file of the version, to the stage",
    r"ALTER MODEL \S+ SET DEFAULT_VERSION": "what readers get",
    r"ALTER MODEL \S+ VERSION \S+ (UN)?SET ALIAS": "the champion's alias",
    r"SHOW TAGS LIKE": "that the tag is there",
    r"CREATE TAG IF NOT EXISTS": "the tag, if it is missing",
    r"SELECT SYSTEM\$GET_TAG": "the tag's value",
    r"ALTER MODEL \S+ SET TAG": "the tag's new value",
    # What snowflake-ml and Snowpark send by themselves
    r"SHOW (DATABASES|SCHEMAS) LIKE": SDK + "that the registry's schema is there",
    r"SELECT SYSTEM\$ML_PLATFORM_CAPABILITIES": SDK + "what the account can do",
    r"SHOW MODELS LIKE": "whether the model is there, its comment and its type; the SDK's and ours",
    r"CREATE SCOPED TEMPORARY STAGE": SDK + "where the model is uploaded to",
    r"DESC ARTIFACT REPOSITORY": SDK + "whether packages come from PyPI",
    r"SELECT PACKAGE_NAME, VERSION FROM information_schema": SDK + "which packages the warehouse has",
    r"PUT 'file": SDK + "a file of the model",
    r"CREATE MODEL|ALTER MODEL": SDK + "the version",
    r"SHOW PARAMETERS LIKE 'QUOTED_IDENTIFIERS": SDK + "how columns are spelt",
    r"WITH SNOWPARK_ML_MODEL_INFERENCE": SDK + "the query's columns; it is described and not run",
    r'SELECT "': SDK + "the query's columns; it is described and not run",
    # The version's first prediction, compared with what it gives in the worker.
    r"CREATE TEMP (STAGE|FILE FORMAT|TABLE)": SDK + "where write_pandas puts the sample",
    r"SELECT COLUMN_NAME, TYPE FROM table\(infer_schema": SDK + "the types of the sample",
    r"COPY INTO identifier\(": SDK + "the sample, into a temporary table",
    r"SELECT CAST \(": "one prediction of the sample, as the version gives it",
    r"select system\$cancel_all_queries": SDK + "closing the session",
}


def train(session: Any) -> ModelArtifact:
    """A model of two columns."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    rows = pd.DataFrame({"F1": [float(i) for i in range(40)], "F2": [1.0] * 40})
    model = LogisticRegression().fit(rows, rows.F1 > 20)
    return ModelArtifact(
        model, sample_input_data=rows.head(), options={"target_methods": ["predict", "predict_proba"]}
    )


def operators() -> DAG:
    """One task per operator and path; a task's connection is named like it."""
    with DAG("statements", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        register = SnowMLRegisterModelOperator(
            **_own("register"), model_name="M", version_name="V1", python_callable=train
        )
        preflight = SnowMLPreflightOperator(
            **_own("preflight"),
            steps=[
                Register(model_name="M"),
                RunBatch(
                    model_name="M", compute_pool=POOL, output_stage_location="@ST/batch", input_table="X"
                ),
                Load(output_table="X", stage="ST"),
            ],
        )
        run = SnowMLRunModelOperator(
            **_own("run_model"),
            model_name="M",
            function_name="predict",
            input_table="X",
            output_table="Y",
            write_mode="replace_where",
            replace_column="DAY",
            replace_value="2013-06-01",
        )
        score: dict[str, Any] = {
            "model_name": "M",
            "function_name": "predict",
            "input_table": "X",
            "compute_pool": POOL,
            "poll_interval": 0.5,
        }
        batch = SnowMLBatchInferenceOperator(
            **_own("batch"), **score, output_stage_location="@ST/batch", deferrable=False
        )
        deferred = SnowMLBatchInferenceOperator(
            **_own("batch_deferred"), **score, output_stage_location="@ST/deferred", deferrable=True
        )
        done = SnowMLBatchSuccessSensor(
            **_own("success_sensor"),
            job_name="{{ ti.xcom_pull(task_ids='batch')['job_name'] }}",
            job_output_location="{{ ti.xcom_pull(task_ids='batch')['job_output_location'] }}",
        )
        load = SnowMLLoadPredictionsOperator(
            **_own("load"),
            job_output_location="{{ ti.xcom_pull(task_ids='batch')['job_output_location'] }}",
            expected_rows="{{ ti.xcom_pull(task_ids='batch')['input_rows'] }}",
            output_table="LOADED",
            replace_column="DAY",
            replace_value="2013-06-01",
        )
        serve = SnowMLCreateServiceOperator(
            **_own("create_service"),
            model_name="M",
            service_name="S",
            service_compute_pool=POOL,
            min_instances=1,
            poll_interval=0.5,
        )
        ready = SnowMLServiceReadySensor(**_own("service_sensor"), service_name="S")
        drop = SnowMLDropServiceOperator(**_own("drop_service"), service_name="S")
        monitor = SnowMLCreateMonitorOperator(
            **_own("create_monitor"),
            monitor_name="MONITOR",
            model_name="M",
            function_name="predict_proba",
            source="WATCHED",
            timestamp_column="AT",
            id_columns=["ID"],
            prediction_score_columns=["P"],
            actual_class_columns=["HAPPENED"],
        )
        evaluate = SnowMLEvaluateModelOperator(
            **_own("evaluate"),
            model_name="M",
            function_name="predict_proba",
            input_query="SELECT *, F1 > 20 AS LATE FROM X",
            label_column="LATE",
            task="binary_classification",
            positive_class=True,
            probability_columns={False: "output_feature_0", True: "output_feature_1"},
        )
        clean_up = SnowMLCleanUpBatchOperator(
            **_own("clean_up"),
            job_output_location="{{ ti.xcom_pull(task_ids='batch')['job_output_location'] }}",
        )
        promote = SnowMLPromoteModelOperator(
            **_own("promote"), model_name="M", version_name="V1", tag="LIVE_VERSION", create_tag=True
        )
        update = SnowMLUpdateModelOperator(
            **_own("update"),
            model_name="M",
            version_name="V1",
            metrics={"reviewed": 1},
            version_comment="reviewed",
            tags={"LIVE_VERSION": "none"},
            comment="a model",
        )
        export = SnowMLExportModelOperator(**_own("export"), model_name="M", path="@ST/exported")
        suspend = SnowMLSuspendIdleOperator(**_own("suspend_idle"), compute_pools=POOL)
        (
            register
            >> preflight
            >> evaluate
            >> promote
            >> update
            >> export
            >> run
            >> batch
            >> deferred
            >> done
            >> load
            >> clean_up
        )
        clean_up >> serve >> ready >> suspend >> drop >> monitor
    return dag


def _own(task_id: str) -> dict[str, str]:
    return {"task_id": task_id, "snowflake_conn_id": f"statements_{task_id}"}


def prepare(local: LocalSnowflake) -> None:
    """Make what the operators read."""
    rows = "SELECT SEQ4()::INT AS ID, SEQ4()::FLOAT AS F1, 1::FLOAT AS F2, '2013-06-01' AS DAY"
    for sql in (
        f"CREATE OR REPLACE SCHEMA {SCHEMA}",
        f"CREATE STAGE {SCHEMA}.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
        f"CREATE COMPUTE POOL IF NOT EXISTS {POOL} MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS",
        f"CREATE TABLE {SCHEMA}.X AS {rows} FROM TABLE(GENERATOR(ROWCOUNT => 60))",
        f"CREATE TABLE {SCHEMA}.WATCHED AS SELECT ID, DATEADD(HOUR, ID, '2013-06-01'::TIMESTAMP_NTZ) AS AT, "
        f"ID / 60 AS P, IFF(ID > 30, 1, 0) AS HAPPENED FROM {SCHEMA}.X",
    ):
        query(local, sql)


def sent(local: LocalSnowflake) -> dict[str, list[str]]:
    """Run all operators; the statements that each sent, in order, those of its looks once.

    :param local: a local Snowflake.
    :raises RuntimeError: if one of them fails.
    """
    prepare(local)
    dag = operators()
    for task in dag.tasks:
        key = f"AIRFLOW_CONN_STATEMENTS_{task.task_id.upper()}"
        os.environ[key] = connection_of(local, task.task_id, SCHEMA)
    run(dag)
    return {
        task.task_id: once([text for text, _ in statements_of(local, task.task_id)])
        for task in dag.topological_sort()
    }


def run(dag: DAG) -> None:
    """Run a DAG that no file holds, in an Airflow whose database is there."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    dag_run = dag.test()
    if dag_run.state != "success":
        failed = [ti.task_id for ti in dag_run.get_task_instances() if ti.state == "failed"]
        raise RuntimeError(f"These tasks failed: {', '.join(failed)}.")


def once(statements: list[str]) -> list[str]:
    """The same statements without repetitions of what a wait sends with every look."""
    kept: list[str] = []
    for text in statements:
        if not (reason(text).startswith(LOOK) and text in kept):
            kept.append(text)
    return kept


def reason(statement: str) -> str:
    """What a statement is for; ``""`` if nobody has said it."""
    for pattern, why in REASONS.items():
        if re.match(pattern, " ".join(statement.split()), re.IGNORECASE):
            return why
    return ""


def plain(statement: str) -> str:
    """A statement in short, without the names of the run."""
    text = " ".join(statement.split())
    for pattern, name in (
        (r"SNOWML_STATEMENTS_\w+?_A(\d+)?\b", "<job>"),
        (r"SNOWML_TEMP_\w+", "<temporary>"),
        (r'"?SNOWML"?\."?STATEMENTS"?\.', ""),
        (r"'\{\"dag_id\".*\}'", "'{...}'"),
        (r"file:///\S*/", "file://.../"),
        (r"SNOWPARK_TEMP_STAGE_\w+", "<stage>"),
        (r"MODEL_BUILD_\w+", "<image build>"),
    ):
        text = re.sub(pattern, name, text)
    return text if len(text) <= 110 else text[:107] + "..."


def tables(found: dict[str, list[str]]) -> list[Table]:
    """A summary, and a table per operator."""
    counts = [(task, len(statements)) for task, statements in found.items()]
    whole = [Table("Statements of a run, by operator", ("task", "statements"), counts)]
    for task, statements in found.items():
        lines = [(i, f"`{plain(text)}`", reason(text)) for i, text in enumerate(statements, 1)]
        whole.append(Table(f"`{task}`", ("", "statement", "why"), lines))
    return whole
