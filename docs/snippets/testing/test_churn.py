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
