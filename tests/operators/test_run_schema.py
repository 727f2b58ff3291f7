"""A schema for each run: made, found again, dropped or kept, and swept."""

from __future__ import annotations

from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, task

from airflow_provider_snowml.core.run_schema import RunSchemaMark
from airflow_provider_snowml.exceptions import InvalidArgumentError, RunSchemaOwnershipError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.run_schema import (
    SnowMLDropStaleRunSchemasOperator,
    SnowMLRunSchemaOperator,
)


def make_schema(**arguments: Any) -> SnowMLRunSchemaOperator:
    return SnowMLRunSchemaOperator(task_id="make", prefix="RUN_TESTED", **arguments)


def drop_schema(**arguments: Any) -> SnowMLRunSchemaOperator:
    return SnowMLRunSchemaOperator(task_id="drop", prefix="RUN_TESTED", **arguments).as_teardown()


def sweep(**arguments: Any) -> dict[str, Any]:
    given = {"older_than": 0, "prefix": "RUN_TESTED", **arguments}
    return SnowMLDropStaleRunSchemasOperator(task_id="sweep", **given).execute({})


@pytest.fixture
def hook(scoring):
    hook = scoring.hook()
    yield hook
    for name in schemas(hook):
        hook.rows(f"DROP SCHEMA {name}")


def schemas(hook: SnowMLHook) -> list[str]:
    return [row["name"] for row in hook.rows("SHOW SCHEMAS LIKE 'RUN_TESTED%' IN DATABASE SNOWML")]


@pytest.mark.parametrize("fails", [False, True])
def test_dropped_on_success_and_kept_on_failure(scoring, hook, run_dag, fails) -> None:
    """Also if what fails is not directly before the teardown."""

    @task
    def work(schema: str, fails: bool) -> None:
        SnowMLHook().rows(f"CREATE TABLE {schema}.T AS SELECT 1 AS A")
        if fails:
            raise ValueError("The work failed.")

    @task(trigger_rule="all_done")
    def tell() -> None:
        """Runs whatever happened before it."""

    with DAG(
        "run_schemas", schedule="@daily", start_date=pendulum.datetime(2013, 1, 28), catchup=False
    ) as dag:
        make = make_schema()
        drop = SnowMLRunSchemaOperator(task_id="drop", prefix="RUN_TESTED").as_teardown(setups=make)
        work(make.output["schema"], fails) >> tell() >> drop
    dag_run, results = run_dag(dag, logical_date=pendulum.datetime(2013, 1, 28))
    states = {ti.task_id: ti.state for ti in dag_run.get_task_instances()}
    schema = "SNOWML.RUN_TESTED_20130128T000000"
    assert results["make"] == {"schema": schema, "created": True}
    if fails:
        assert (states["work"], states["tell"], states["drop"]) == ("failed", "success", "skipped")
        assert hook.value(f"SELECT A FROM {schema}.T") == 1
    else:
        assert results["drop"] == {"schema": schema, "dropped": True}
        assert schemas(hook) == []


def test_a_retry_finds_what_is_there(hook, task_context) -> None:
    first = make_schema().execute(task_context("make"))
    hook.rows(f"CREATE TABLE {first['schema']}.T AS SELECT 1 AS A")
    assert make_schema().execute(task_context("make")) == {"schema": first["schema"], "created": False}
    assert hook.value(f"SELECT A FROM {first['schema']}.T") == 1
    drop = drop_schema(keep_on_failure=False)
    assert [drop.execute(task_context("drop"))["dropped"] for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("comment", "whose"),
    [
        ("mine", "was not made by this operator"),
        (RunSchemaMark("another", "2013-06-01").to_comment(), "is of DAG another for 2013-06-01"),
        (RunSchemaMark("bad_day", "2013.06.01").to_comment(), "is of DAG bad_day for 2013.06.01"),
    ],
)
def test_what_it_did_not_make_it_leaves_alone(hook, task_context, comment, whose) -> None:
    hook.rows(f"CREATE SCHEMA RUN_TESTED_2013_06_01 COMMENT = '{comment}'")
    for operator in (make_schema(), drop_schema(keep_on_failure=False)):
        with pytest.raises(RunSchemaOwnershipError, match=whose):
            operator.execute(task_context(operator.task_id))
    assert schemas(hook) == ["RUN_TESTED_2013_06_01"]


def test_the_sweep_takes_what_is_old_and_marked(hook, task_context) -> None:
    old = make_schema().execute(task_context("make"))["schema"]
    hook.rows("CREATE SCHEMA RUN_TESTED_MINE COMMENT = 'mine'")
    assert sweep(older_than=3600) == {"dropped": [], "kept": [old]}
    assert sweep(plan_only=True) == {"dropped": [old], "kept": []}
    assert sweep(prefix="RUN_TEST") == {"dropped": [], "kept": []}
    assert sweep() == {"dropped": [old], "kept": []}
    assert schemas(hook) == ["RUN_TESTED_MINE"]


@pytest.mark.parametrize("age", ["a week", -1, None])
def test_a_bad_age(hook, age) -> None:
    with pytest.raises(InvalidArgumentError, match="older_than is"):
        sweep(older_than=age)
