from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_snowml.exceptions import (
    ForeignRowsError,
    InputColumnsError,
    InvalidArgumentError,
    ModelFunctionNotFoundError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    RunCancelledError,
    ServiceConflictError,
    ServiceNotFoundError,
    StatementError,
)
from airflow_provider_snowml.operators.inference import SnowMLRunModelOperator


def _log_models(hook) -> None:
    """SUMS has table functions, LOWER is in lower case, WIDE wants 501 columns, SMALL small numbers."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from snowflake.ml.model import custom_model
    from snowflake.ml.model.model_signature import DataType, FeatureSpec, ModelSignature, ParamSpec

    def total(self, rows, *, times=1.0):
        return pd.DataFrame({"TOTAL": [rows["F1"].sum() * times]})

    def shifted(self, rows):
        return pd.DataFrame({"S": rows["F1"] + 1})

    def summed(self, rows):
        return pd.DataFrame({"SUMMED": rows["C0"] + rows["C500"]})

    def same(self, rows):
        return rows.rename(columns={"F1": "SAME"})

    # As in tests/conftest.py: classes that are pickled by value, annotations that are no texts.
    for function in (total, shifted, summed, same):
        function.__annotations__ = {"rows": pd.DataFrame, "return": pd.DataFrame}
    total.__annotations__["times"] = float

    def model(**methods: Any) -> Any:
        return type("Model", (custom_model.CustomModel,), methods)()

    def features(type_: DataType, *names: str) -> list[FeatureSpec]:
        return [FeatureSpec(name, type_) for name in names]

    def signature(inputs: list[FeatureSpec], output: str, *params: ParamSpec) -> ModelSignature:
        return ModelSignature(inputs=inputs, outputs=features(double, output), params=list(params))

    double, api = DataType.DOUBLE, custom_model.inference_api
    rows = pd.DataFrame({"f 1": np.arange(60.0), "f2": np.arange(60.0)[::-1]})
    classifier = LogisticRegression().fit(rows, (rows["f 1"] > 20).astype(int))
    upper = rows.set_axis(["F1", "F2"], axis=1)
    explained = LogisticRegression().fit(upper, (upper.F1 > 20).astype(int))
    times = ParamSpec(name="times", dtype=double, default_value=1.0)
    with hook.session() as session:
        log = hook.registry(session, hook.default_schema()).log_model
        log(
            model(total=custom_model.partitioned_api(total), shifted=api(shifted)),
            model_name="SUMS",
            version_name="V1",
            signatures={
                "total": signature(features(double, "F1"), "TOTAL", times),
                "shifted": signature(features(double, "F1"), "S"),
            },
            options={"function_type": "TABLE_FUNCTION"},
        )
        log(
            classifier,
            model_name="LOWER",
            version_name="V1",
            sample_input_data=rows,
            options={"target_methods": ["predict"], "case_sensitive": True},
        )
        log(
            model(predict=api(summed)),
            model_name="WIDE",
            version_name="V1",
            signatures={"predict": signature(features(double, *(f"C{i}" for i in range(501))), "SUMMED")},
        )
        log(
            model(predict=api(same)),
            model_name="SMALL",
            version_name="V1",
            signatures={"predict": signature(features(DataType.INT8, "F1"), "SAME")},
        )
        log(
            explained,
            model_name="EXPLAINABLE",
            version_name="V1",
            sample_input_data=upper,
            options={"target_methods": ["predict_proba"], "enable_explainability": True},
        )


@pytest.fixture(scope="module")
def running_schema(scoring_schema, local_snowflake):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", local_snowflake.airflow_connection_uri)
        hook = scoring_schema.hook()
        _log_models(hook)
        wide = ", ".join(f"(SEQ4() + {i})::FLOAT AS C{i}" for i in range(501))
        in_schema = f"CREATE TABLE {scoring_schema.schema}"
        hook.rows(f"{in_schema}.WIDE_X AS SELECT {wide} FROM TABLE(GENERATOR(ROWCOUNT => 4))")
        hook.rows(
            f'{in_schema}.LOWER_X AS SELECT F1 AS "f 1", F2 AS "f2", '
            f"'2013-06-01'::DATE AS \"the day\" FROM {scoring_schema.schema}.X"
        )


@pytest.fixture
def running(scoring, running_schema):
    """As ``scoring``, with models of many kinds."""
    return scoring


def run_model(table: str, **arguments: Any) -> SnowMLRunModelOperator:
    defaults: dict[str, Any] = {"model_name": "M", "function_name": "predict", "input_table": "X"}
    if "input_query" in arguments:
        del defaults["input_table"]
    return SnowMLRunModelOperator(task_id="run", output_table=table, **{**defaults, **arguments})


def test_in_a_dag(scoring, run_dag) -> None:
    with DAG("run_model", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        run_model("RAN", version_name="champion", write_mode="replace")
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["run"] == {
        "rows": 60,
        "table": f"{scoring.schema}.RAN",
        "model": f"{scoring.schema}.M",
        "version": "V1",
        "function": "predict",
    }
    rows = scoring.hook().rows(f"SELECT * FROM {scoring.schema}.RAN ORDER BY ID")
    assert [row["output_feature_0"] for row in rows] == [int(row["F1"] > 20) for row in rows]


def test_replace_is_the_table_and_append_adds(scoring, task_context) -> None:
    hook, context = scoring.hook(), task_context("run")
    count = f"SELECT COUNT(*) FROM {scoring.schema}.MODES"
    for mode, total in (("append", 60), ("append", 120), ("replace", 60)):
        assert run_model("MODES", write_mode=mode).execute(context)["rows"] == 60
        assert hook.value(count) == total


def test_replace_where_is_exactly_the_slice(scoring, task_context) -> None:
    hook, context = scoring.hook(), task_context("run")
    for day in ("2013-06-01", "2013-06-02", "2013-06-01"):
        result = run_model(
            "WHERE_",
            input_query=f"SELECT * FROM X WHERE DAY = '{day}';",
            write_mode="replace_where",
            replace_column="DAY",
            replace_value=day,
        ).execute(context)
        assert result["rows"] == 30
    rows = hook.rows(f"SELECT DAY, COUNT(*) AS N FROM {scoring.schema}.WHERE_ GROUP BY 1 ORDER BY 1")
    assert [(str(row["DAY"]), row["N"]) for row in rows] == [("2013-06-01", 30), ("2013-06-02", 30)]
    with pytest.raises(ForeignRowsError, match="30 rows have another DAY"):
        run_model(
            "WHERE_", write_mode="replace_where", replace_column="DAY", replace_value="2013-06-01"
        ).execute(context)


def test_each_partition_is_seen_together(running, task_context) -> None:
    """Only predictions and the partition's column come out, so the slice's key is added."""
    result = run_model(
        "SUMS",
        model_name="SUMS",
        function_name="total",
        partition_column="ID_MOD",
        input_query="SELECT *, MOD(ID, 3) AS ID_MOD FROM X WHERE DAY = '2013-06-01'",
        inference_params={"times": 2},
        write_mode="replace_where",
        replace_column="DAY",
        replace_value="2013-06-01",
    ).execute(task_context("run"))
    assert (result["rows"], result["function"]) == (3, "total")
    rows = running.hook().rows(f"SELECT * FROM {running.schema}.SUMS ORDER BY ID_MOD")
    sums = {part: 2.0 * sum(i for i in range(0, 60, 2) if i % 3 == part) for part in range(3)}
    assert [{**row, "DAY": str(row["DAY"])} for row in rows] == [
        {"ID_MOD": part, "TOTAL": total, "DAY": "2013-06-01"} for part, total in sums.items()
    ]


def test_a_table_function_keeps_the_input_and_a_partition_is_optional(running, task_context) -> None:
    context = task_context("run")
    arguments = {"model_name": "SUMS", "function_name": "SHIFTED", "write_mode": "replace"}
    assert run_model("SHIFTED", **arguments).execute(context)["rows"] == 60
    found = running.hook().rows(f"SELECT COUNT(*) AS N FROM {running.schema}.SHIFTED WHERE S = F1 + 1")
    assert found == [{"N": 60}]
    arguments["function_name"] = "total"
    assert run_model("ONE", **arguments).execute(context)["rows"] == 1


def test_columns_and_functions_in_lower_case(running, task_context) -> None:
    result = run_model(
        '"lower"',
        model_name="LOWER",
        input_table="LOWER_X",
        function_name="predict",
        write_mode="replace_where",
        replace_column='"the day"',
        replace_value="2013-06-01",
    ).execute(task_context("run"))
    assert result["table"] == f'{running.schema}."lower"'
    rows = running.hook().rows(f'SELECT * FROM {running.schema}."lower"')
    assert [row["output_feature_0"] for row in rows] == [int(row["f 1"] > 20) for row in rows]
    assert {str(row["the day"]) for row in rows} == {"2013-06-01"}


def test_more_columns_than_a_function_takes(running, task_context) -> None:
    """snowflake-ml packs them into one object."""
    result = run_model(
        "WIDE", model_name="WIDE", input_table="WIDE_X", function_name="predict", write_mode="replace"
    ).execute(task_context("run"))
    assert result["rows"] == 4
    rows = running.hook().rows(f"SELECT C0, C500, SUMMED FROM {running.schema}.WIDE")
    assert [row["SUMMED"] for row in rows] == [row["C0"] + row["C500"] for row in rows]


def test_explanations(running, task_context) -> None:
    run_model("EXPLAINED", model_name="EXPLAINABLE", function_name="explain", write_mode="replace").execute(
        task_context("run")
    )
    rows = running.hook().rows(f"SELECT * FROM {running.schema}.EXPLAINED ORDER BY ID")
    assert len(rows) == 60
    # F1 speaks for the class the more, the greater it is.
    assert rows[0]["F1_explanation"] < 0 < rows[-1]["F1_explanation"]


def test_strict_input_validation(running, task_context) -> None:
    """Without it, the model finds out."""
    arguments = {"model_name": "SMALL", "write_mode": "replace", "strict_input_validation": True}
    good, bad = "SELECT 100::INT AS F1", "SELECT 1000::INT AS F1"
    context = task_context("run")
    assert run_model("SMALL", input_query=good, **arguments).execute(context)["rows"] == 1
    with pytest.raises(InvalidArgumentError, match="snowflake-ml does not run predict"):
        run_model("SMALL", input_query=bad, **arguments).execute(context)
    arguments["strict_input_validation"] = False
    with pytest.raises(StatementError, match="cannot safely cast"):
        run_model("SMALL", input_query=bad, **arguments).execute(context)


def test_on_a_service(serving, task_context) -> None:
    serving.deploy("RUNS_M", version="V1")
    context = task_context("run")
    arguments = {"write_mode": "replace", "service_name": "runs_m", "function_name": "predict"}
    result = run_model("SERVED", version_name="V1", **arguments).execute(context)
    assert (result["rows"], result["version"]) == (60, "V1")
    rows = serving.hook().rows(f"SELECT * FROM {serving.schema}.SERVED")
    assert [row["output_feature_0"] for row in rows] == [int(row["F1"] > 20) for row in rows]
    with pytest.raises(ServiceConflictError, match=r"serves version V1 .* version_name means V2"):
        run_model("NEVER", version_name="V2", **arguments).execute(context)
    with pytest.raises(ServiceConflictError, match=r"serves no version of .*\.SLOW"):
        run_model("NEVER", model_name="SLOW", **arguments).execute(context)
    with pytest.raises(InvalidArgumentError, match="which a service does not offer"):
        run_model("NEVER", **{**arguments, "model_name": "TABLES_ONLY"}).execute(context)
    with pytest.raises(ServiceNotFoundError, match=r"no service .*NOT_THERE"):
        run_model("NEVER", **{**arguments, "service_name": "NOT_THERE"}).execute(context)


def running_statements(hook, text: str) -> list[str]:
    """Those that write a table: others ask what columns there are."""
    rows = hook.rows(
        "SELECT QUERY_ID FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_USER(RESULT_LIMIT => 1000)) "
        f"WHERE EXECUTION_STATUS = 'RUNNING' AND CONTAINS(QUERY_TEXT, '{text}') "
        "AND CONTAINS(QUERY_TEXT, 'CREATE ') AND NOT CONTAINS(QUERY_TEXT, 'QUERY_HISTORY')"
    )
    return [row["QUERY_ID"] for row in rows]


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_a_kill_cancels_what_runs(scoring, task_context, mode) -> None:
    hook, marker = scoring.hook(), f"600 /* killed {mode} */"
    operator = run_model(
        "KILLED", model_name="SLOW", input_query=f"SELECT {marker}::FLOAT AS F1", write_mode=mode
    )
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(operator.execute, task_context("run"))
        deadline = time.monotonic() + 180
        while not running_statements(hook, marker):
            assert time.monotonic() < deadline and not task.done(), task
            time.sleep(0.1)
        operator.on_kill()
        with pytest.raises(RunCancelledError, match=r"execution canceled.*A retry runs"):
            task.result(timeout=120)
    assert running_statements(hook, marker) == []
    assert hook.rows(f"SHOW TABLES LIKE 'KILLED' IN SCHEMA {scoring.schema}") == []


def test_a_kill_between_two_statements_writes_nothing(scoring, task_context) -> None:
    operator = run_model("KILLED", write_mode="replace")
    operator.on_kill()
    with pytest.raises(RunCancelledError, match="before it wrote"):
        operator.execute(task_context("run"))
    assert scoring.hook().rows(f"SHOW TABLES LIKE 'KILLED' IN SCHEMA {scoring.schema}") == []


def test_a_timeout_cancels_what_runs(scoring, task_context) -> None:
    """As Airflow's: raised by a signal in the middle of the statement. The session ends, and it with it."""
    hook, marker = scoring.hook(), "601 /* timed out */"

    def time_out(*_: Any) -> None:
        raise AirflowTaskTimeout("Timeout")

    def signal_when_it_runs() -> None:
        while not running_statements(hook, marker):
            time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, time_out)
    try:
        threading.Thread(target=signal_when_it_runs, daemon=True).start()
        query = f"SELECT {marker}::FLOAT AS F1"
        with pytest.raises(AirflowTaskTimeout):
            run_model("KILLED", model_name="SLOW", input_query=query, write_mode="replace").execute(
                task_context("run")
            )
    finally:
        signal.signal(signal.SIGUSR1, before)
    deadline = time.monotonic() + 60
    while running_statements(hook, marker):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert hook.rows(f"SHOW TABLES LIKE 'KILLED' IN SCHEMA {scoring.schema}") == []


BAD = {
    "write_mode": ({"write_mode": "overwrite"}, InvalidArgumentError, "'replace', 'replace_where', 'append'"),
    "no column": ({"write_mode": "replace_where"}, InvalidArgumentError, "replace_column is None"),
    "needless column": ({"replace_column": "DAY"}, InvalidArgumentError, "only with it"),
    "no input": ({"input_table": ""}, InvalidArgumentError, "got none of them"),
    "model": ({"model_name": "NOPE"}, ModelNotFoundError, r"no model .*NOPE.* has: \w"),
    "version": ({"version_name": "V9"}, ModelVersionNotFoundError, "V1 .*V2"),
    "function": ({"function_name": "nope"}, ModelFunctionNotFoundError, "predict_proba"),
    "column": ({"input_query": "SELECT F1 FROM X"}, InputColumnsError, "wants F2"),
    "type": (
        {"input_query": "SELECT 'a' AS F1, 'b' AS F2"},
        InvalidArgumentError,
        "snowflake-ml does not run",
    ),
    "parameter": ({"inference_params": {"by": 1}}, InvalidArgumentError, "no parameter 'by'.*can be: none"),
    "partition": ({"partition_column": "DAY"}, InvalidArgumentError, "is of type FUNCTION"),
}
BAD_TABLES = {
    "parameter": ({"inference_params": {"by": 1}}, InvalidArgumentError, "no parameter 'by'.*can be: times"),
    "type": ({"inference_params": {"times": "x"}}, InvalidArgumentError, "snowflake-ml does not run total"),
    "partition": (
        {"partition_column": "NOPE"},
        InputColumnsError,
        "NOPE, which input_table lacks. It has: ID",
    ),
    "quoted": ({"partition_column": '"day"'}, InputColumnsError, 'partition_column is "day", which'),
    "twice": (
        {"input_query": "SELECT *, 1 AS TOTAL FROM X"},
        InputColumnsError,
        "input_query has TOTAL, which the table function total gives",
    ),
    "service": ({"service_name": "S"}, InvalidArgumentError, "which a service does not offer"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(scoring, task_context, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        run_model("NEVER", **{"write_mode": "replace", **arguments}).execute(task_context("run"))
    tables = scoring.hook().rows(f"SHOW TABLES LIKE 'NEVER' IN SCHEMA {scoring.schema}")
    assert tables == []


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_input_of_a_table_function(running, task_context, arguments, error, message) -> None:
    operator = run_model(
        "NEVER", **{"write_mode": "replace", "model_name": "SUMS", "function_name": "total", **arguments}
    )
    with pytest.raises(error, match=message):
        operator.execute(task_context("run"))
    assert running.hook().rows(f"SHOW TABLES LIKE 'NEVER' IN SCHEMA {running.schema}") == []
