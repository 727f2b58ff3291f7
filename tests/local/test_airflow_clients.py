"""Airflow's own, unmodified Snowflake hook and operators against the local Snowflake."""

from __future__ import annotations

import datetime

import pytest

pytestmark = pytest.mark.usefixtures("airflow_db")


def test_snowflake_hook(airflow_conn):
    from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook

    hook = SnowflakeHook(snowflake_conn_id=airflow_conn)
    hook.run("CREATE TABLE t (a INT)")
    hook.run(["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"], autocommit=False)
    assert hook.get_first("SELECT COUNT(*) FROM t") == (2,)
    assert hook.get_records("SELECT a FROM t WHERE a > %(least)s", {"least": 1}) == [(2,)]
    assert hook.test_connection() == (True, "Connection successfully tested")
    hook.insert_rows("t", [(3,), (4,)], target_fields=["a"])
    assert hook.get_df("SELECT a FROM t ORDER BY a")["A"].tolist() == [1, 2, 3, 4]
    session = hook.get_snowpark_session()
    assert session.sql("SHOW PARAMETERS LIKE 'QUERY_TAG'").collect()[0]["value"].startswith('{"airflow')
    session.close()


def test_operators(airflow_conn, run_dag):
    from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
    from airflow.providers.snowflake.operators.snowpark import SnowparkOperator
    from airflow.sdk import DAG

    def count(session) -> list[str]:
        return [row["DAG"] for row in session.table("scored").sort("DAG").collect()]

    with DAG("clients", schedule=None, start_date=datetime.datetime(2014, 1, 1)) as dag:
        create = SQLExecuteQueryOperator(
            task_id="create",
            conn_id=airflow_conn,
            sql="CREATE TABLE scored AS SELECT '{{ dag.dag_id }}' AS dag; INSERT INTO scored VALUES ('x')",
            split_statements=True,
        )
        select = SQLExecuteQueryOperator(
            task_id="select", conn_id=airflow_conn, sql="SELECT dag FROM scored ORDER BY 1"
        )
        snowpark = SnowparkOperator(task_id="snowpark", snowflake_conn_id=airflow_conn, python_callable=count)
        create >> select >> snowpark
    run, values = run_dag(dag)
    assert run.state == "success"
    assert values["snowpark"] == ["clients", "x"]
    assert len(values["select"]) == 2
