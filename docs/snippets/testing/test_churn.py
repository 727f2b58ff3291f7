from __future__ import annotations

from airflow_provider_snowml.hooks.snowml import SnowMLHook


def test_every_customer_gets_a_score(snowml_local_schema, dags):
    hook = SnowMLHook()  # snowflake_default, into this test's own schema
    hook.run(
        "CREATE TABLE CUSTOMERS AS SELECT SEQ4() AS VISITS, IFF(SEQ4() < 20, 1, 0) AS LEFT_US "
        "FROM TABLE(GENERATOR(ROWCOUNT => 100))"
    )

    run = dags["churn"].test()

    assert run.state == "success"
    assert hook.get_first('SELECT COUNT(*), MAX("output_feature_0") FROM CHURN_SCORES') == (100, 1)


def test_a_lost_reply_and_a_refusal(snowml_local_schema, snowml_local_faults, dags):
    hook = SnowMLHook()
    hook.run(
        "CREATE TABLE CUSTOMERS AS SELECT SEQ4() AS VISITS, MOD(SEQ4(), 2) AS LEFT_US "
        "FROM TABLE(GENERATOR(ROWCOUNT => 100))"
    )

    snowml_local_faults.fault("drop_reply", statement="CHURN_SCORES", times=2)
    assert dags["churn"].test().state == "success"
    assert hook.get_first("SELECT COUNT(*) FROM CHURN_SCORES") == (100,)

    snowml_local_faults.fault("refuse", statement="CHURN_SCORES", errno=3001, message="Not yours.")
    assert dags["churn"].test().state == "failed"
    assert hook.get_first("SELECT COUNT(*) FROM CHURN_SCORES") == (100,)
