from __future__ import annotations

from datetime import date
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from sklearn.metrics import roc_auc_score

from airflow_provider_snowml.core.names import QualifiedName
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
    create_monitor,
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
START = date(2013, 6, 1)
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

    (auc,) = monitor_metric(hook, "WATCH_WATCH", "roc_auc", granularity="ALL", start=START)
    rows = hook.rows("SELECT P, HAPPENED, PART FROM WATCHED")
    assert auc["METRIC_VALUE"] == pytest.approx(
        roc_auc_score([row["HAPPENED"] for row in rows], [row["P"] for row in rows]), abs=1e-9
    )
    days = monitor_metric(hook, "WATCH_WATCH", "COUNT", column="f1", start=START, end=date(2013, 6, 3))
    assert [(str(day["EVENT_TIMESTAMP"])[:10], day["METRIC_VALUE"]) for day in days] == [
        ("2013-06-01", 24),
        ("2013-06-02", 24),
    ]
    (early,) = monitor_metric(
        hook,
        f"{scoring.schema}.WATCH_WATCH",
        "DIFFERENCE_OF_MEANS",
        column="P",
        granularity="1 YEAR",
        start=date(2013, 1, 1),
        segment={"PART": "early"},
    )
    assert (early["METRIC_VALUE"], early["SEGMENT_VALUE"]) == (0, "early")
    for arguments, message in {
        ("PSI",): "it can be DIFFERENCE_OF_MEANS",
        ("ROC_AUC", "P"): "ROC_AUC takes none",
        ("AVG", None): "AVG is the metric of a column",
    }.items():
        with pytest.raises(InvalidArgumentError, match=message):
            monitor_metric(hook, "WATCH_WATCH", arguments[0], column=(*arguments, None)[1])


def test_if_exists(hook, task_context) -> None:
    def run(**arguments: Any) -> bool:
        return monitor(**arguments).execute(task_context("watch"))["created"]

    def created_on() -> Any:
        (row,) = list_monitors(hook, hook.default_schema())
        return row["created_on"]

    assert run()
    first = created_on()
    with pytest.raises(ModelMonitorExistsError, match=r"WATCH already \(it watches the same\), .* is 'fail'"):
        run()
    assert not run(if_exists="reuse", refresh_interval="60 minutes", function_name="PREDICT_PROBA")
    for changes, message in (
        ({"baseline": None}, "baseline is .*NORMAL, not none"),
        ({"version_name": "V2"}, "version is V1, not V2"),
        ({"segment_columns": []}, r"segment_columns is \['PART'\], not none"),
        ({"refresh_interval": "1 day"}, "refresh_interval is 1 hour, not 1 day"),
        ({"function_name": "predict"}, "function is PREDICT_PROBA, not PREDICT"),
    ):
        with pytest.raises(ModelMonitorExistsError, match=message):
            run(if_exists="reuse", **changes)
    with pytest.raises(
        ModelMonitorExistsError, match="V1 has a monitor already, WATCH, and a version has one"
    ):
        run(monitor_name="OTHER", if_exists="replace")
    assert created_on() == first
    # What is there already needs no tables: the baseline may be gone.
    hook.rows("DROP TABLE NORMAL")
    assert not run(if_exists="reuse")
    assert run(if_exists="replace", version_name="V2", baseline=None)
    assert created_on() > first


def test_a_retry_after_a_crash_finds_its_own_monitor(hook, task_context, monkeypatch) -> None:
    class Crash(BaseException):
        pass

    store, task = task_context.store(), monitor()
    with monkeypatch.context() as patch, pytest.raises(Crash):
        import airflow_provider_snowml.operators.monitors as module

        def create_and_crash(*arguments: Any, **keywords: Any) -> None:
            create_monitor(*arguments, **keywords)
            raise Crash

        patch.setattr(module, "create_monitor", create_and_crash)
        task.execute(task_context("watch", store=store))
    try:
        # Meanwhile the alias is another version's; the try had found V1.
        hook.rows("ALTER MODEL M VERSION V1 UNSET ALIAS")
        hook.rows("ALTER MODEL M VERSION V2 SET ALIAS = CHAMPION")
        result = task.execute(task_context("watch", store=store))
    finally:
        hook.rows("ALTER MODEL M VERSION V2 UNSET ALIAS")
        hook.rows("ALTER MODEL M VERSION V1 SET ALIAS = CHAMPION")
    assert (result["created"], result["version"]) == (True, "V1")
    # A cleared task is new work.
    with pytest.raises(ModelMonitorExistsError):
        task.execute(task_context("watch", store=store, clear_number=1))


def test_a_crash_before_a_monitor_is_replaced_does_not_pass_for_the_new_one(
    hook, task_context, monkeypatch
) -> None:
    monitor().execute(task_context("watch"))
    store, task = task_context.store(), monitor(if_exists="replace")
    (before,) = list_monitors(hook, hook.default_schema())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        import airflow_provider_snowml.operators.monitors as module

        def interrupted(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(module, "create_monitor", interrupted)
        task.execute(task_context("watch", store=store))
    assert task.execute(task_context("watch", store=store))["created"]
    (after,) = list_monitors(hook, hook.default_schema())
    assert after["created_on"] > before["created_on"]


def test_it_makes_what_snowflake_ml_makes(hook, task_context) -> None:
    from snowflake.ml.monitoring.entities.model_monitor_config import (
        ModelMonitorConfig,
        ModelMonitorSourceConfig,
    )

    hook.rows('CREATE OR REPLACE TABLE "odd table" AS SELECT W.*, P AS "odd p" FROM WATCHED W')
    arguments = {
        "source": '"odd table"',
        "prediction_score_columns": ['"odd p"'],
        "baseline": None,
        "custom_metric_columns": ["f1"],
        "aggregation_window": "7 days",
    }
    name = hook.default_schema()
    monitor(monitor_name='"odd monitor"', **arguments).execute(task_context("watch"))
    made = hook.rows('DESCRIBE MODEL MONITOR "odd monitor"')
    hook.rows('DROP MODEL MONITOR "odd monitor"')
    with hook.session() as session:
        registry = hook.registry(session, name)
        given = {**ARGUMENTS, **arguments}
        for other in ("monitor_name", "model_name", "version_name", "function_name", "aggregation_window"):
            given.pop(other)
        version = registry.get_model("M").version("V1")
        registry.add_monitor(
            '"odd monitor"',
            ModelMonitorSourceConfig(**{**given, "timestamp_column": "AT"}),
            ModelMonitorConfig(version, "predict_proba", "SNOWML_WH", "1 hour", "7 days"),
        )
    theirs = hook.rows('DESCRIBE MODEL MONITOR "odd monitor"')
    hook.rows('DROP MODEL MONITOR "odd monitor"')
    for row in (*made, *theirs):
        row.pop("created_on")
    assert made == theirs


def test_verbs_of_the_hook(hook, task_context) -> None:
    monitor().execute(task_context("watch"))
    name = QualifiedName.parse("WATCH", hook.default_schema())
    suspend_monitor(hook, name)
    assert describe_monitor(hook, name)["monitor_state"] == "SUSPENDED"
    assert not monitor(if_exists="reuse").execute(task_context("watch"))["created"]
    resume_monitor(hook, name)
    assert describe_monitor(hook, name)["monitor_state"] == "ACTIVE"
    drop_monitor(hook, name)
    drop_monitor(hook, name)
    assert describe_monitor(hook, name) is None


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "if_exists": ({"if_exists": "next"}, InvalidArgumentError, "'fail', 'reuse', 'replace'"),
    "name": ({"monitor_name": "w 1"}, InvalidNameError, "no valid monitor name"),
    "schema": ({"monitor_name": "SNOWML.PUBLIC.W"}, InvalidArgumentError, "its model's schema"),
    "model": ({"model_name": "NOPE"}, ModelNotFoundError, r"no model .*NOPE.* has: \w"),
    "version": ({"version_name": "V9"}, ModelVersionNotFoundError, "V1 .*V2"),
    "function": ({"function_name": "nope"}, ModelFunctionNotFoundError, "predict_proba"),
    "which function": ({"function_name": None}, ModelFunctionNotFoundError, "name one of them"),
    "task": ({"model_name": "SLOW", "version_name": "V1", "function_name": None}, ModelTaskError, "UNKNOWN"),
    "actual score": ({"actual_score_columns": ["F1"]}, ModelTaskError, "it takes prediction_score_columns"),
    "source": ({"source": "NOPE"}, TableNotFoundError, r"which source names.* has: \w"),
    "baseline": ({"baseline": "NOPE"}, TableNotFoundError, "which baseline names"),
    "warehouse": ({"warehouse": "NOPE"}, WarehouseNotFoundError, "There are: .*SNOWML_WH"),
    "column": ({"id_columns": ["NOPE"]}, MonitorColumnsError, "source .*WATCHED lacks.* P FLOAT"),
    "baseline's column": ({"baseline": "X"}, MonitorColumnsError, "P, which the baseline .*X lacks"),
    "time": ({"timestamp_column": "DAY"}, MonitorColumnsError, "DAY to be TIMESTAMP_NTZ; .* it is DATE"),
    "score": ({"prediction_score_columns": ["PART2"]}, MonitorColumnsError, "PART2 to be NUMBER; .* VARCHAR"),
    "segment": ({"segment_columns": ["F1"]}, MonitorColumnsError, "F1 to be VARCHAR; .* it is FLOAT"),
    "no prediction": (
        {"prediction_score_columns": [], "prediction_class_columns": []},
        InvalidArgumentError,
        "a monitor needs one",
    ),
    "two predictions": ({"prediction_score_columns": ["P", "F1"]}, InvalidArgumentError, "2 columns"),
    "a column twice": ({"id_columns": ["p"]}, InvalidArgumentError, "P is in id_columns and in prediction"),
    "no list": ({"id_columns": "ID"}, InvalidArgumentError, "must be a list"),
    "no name": ({"id_columns": ["a b"]}, InvalidNameError, "column in id_columns"),
    "six segments": ({"segment_columns": list("ABCDEF")}, InvalidArgumentError, "5 are possible"),
    "window": ({"aggregation_window": "24 hours"}, InvalidArgumentError, "aggregation_window is '24 hours'"),
    "no window": ({"aggregation_window": "0 days"}, InvalidArgumentError, "1 day is the shortest"),
    "interval": ({"refresh_interval": "30 seconds"}, InvalidArgumentError, "60 seconds is the shortest"),
    "odd interval": ({"refresh_interval": "daily"}, InvalidArgumentError, "refresh_interval is 'daily'"),
}


def test_bad_input(hook, task_context) -> None:
    hook.rows(f"CREATE OR REPLACE VIEW WATCHED AS SELECT *, PART AS PART2 FROM ({ROWS})")
    for name, (arguments, error, message) in BAD.items():
        with pytest.raises(error, match=message):
            monitor(**arguments).execute(task_context("watch"))
            pytest.fail(name)
    assert list_monitors(hook, hook.default_schema()) == []
