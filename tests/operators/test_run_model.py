from __future__ import annotations

from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_provider_snowml.exceptions import (
    ForeignRowsError,
    InputColumnsError,
    InvalidArgumentError,
    ModelFunctionNotFoundError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
)
from airflow_provider_snowml.operators.inference import SnowMLRunModelOperator


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


BAD = {
    "write_mode": ({"write_mode": "overwrite"}, InvalidArgumentError, "'replace', 'replace_where', 'append'"),
    "no column": ({"write_mode": "replace_where"}, InvalidArgumentError, "replace_column is None"),
    "needless column": ({"replace_column": "DAY"}, InvalidArgumentError, "only with it"),
    "no input": ({"input_table": ""}, InvalidArgumentError, "got none of them"),
    "model": ({"model_name": "NOPE"}, ModelNotFoundError, "has: .*M, SLOW"),
    "version": ({"version_name": "V9"}, ModelVersionNotFoundError, "V1 .*V2"),
    "function": ({"function_name": "nope"}, ModelFunctionNotFoundError, "predict_proba"),
    "column": ({"input_query": "SELECT F1 FROM X"}, InputColumnsError, "wants F2"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(scoring, task_context, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        run_model("NEVER", **{"write_mode": "replace", **arguments}).execute(task_context("run"))
    tables = scoring.hook().rows(f"SHOW TABLES LIKE 'NEVER' IN SCHEMA {scoring.schema}")
    assert tables == []
