from __future__ import annotations

from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_provider_snowml.core.names import StageLocation
from airflow_provider_snowml.exceptions import (
    BatchOutputIncompleteError,
    ForeignRowsError,
    InvalidArgumentError,
    InvalidNameError,
    LockWaitersError,
    PredictionColumnsError,
    RowCountError,
    StageNotFoundError,
)
from airflow_provider_snowml.hooks import loading
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLLoadPredictionsOperator,
)


def load(location: str, table: str, **arguments: Any) -> SnowMLLoadPredictionsOperator:
    defaults: dict[str, Any] = {
        "replace_column": "day",
        "replace_value": "2013-06-01",
        "model_name": "M",
        "version_name": "V1",
    }
    return SnowMLLoadPredictionsOperator(
        task_id="load", job_output_location=location, output_table=table, **{**defaults, **arguments}
    )


@pytest.fixture
def output(scoring, request):
    """A directory that looks like a job's output, with the rows of a query."""

    def write(query: str, success: bool = True) -> str:
        hook = scoring.hook()
        with hook.open_connection():
            base = StageLocation.parse("@ST/outputs", hook.default_schema())
            location = base / request.node.name.split("[")[0]
            hook.remove_files(location)
            hook.copy_into_location(location, query)
            if success:
                hook.write_file(location, "_SUCCESS", b"")
        return location.sql

    return write


FIRST = "SELECT ID, F1 AS \"score\" FROM X WHERE DAY = '2013-06-01'"
BOTH = 'SELECT ID, F1 AS "score" FROM X'


def test_in_a_dag_after_a_batch_job(scoring, run_dag) -> None:
    with DAG("load", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        batch = SnowMLBatchInferenceOperator(
            task_id="batch",
            model_name="M",
            function_name="predict",
            input_query="SELECT * FROM X WHERE DAY = '2013-06-02'",
            compute_pool="TEST_POOL",
            output_stage_location="@ST/load",
            poll_interval=0.2,
        )
        batch >> SnowMLLoadPredictionsOperator(
            task_id="load",
            job_output_location="{{ ti.xcom_pull(task_ids='batch')['job_output_location'] }}",
            output_table="LOADED",
            replace_column="DAY",
            replace_value="2013-06-02",
            expected_rows="{{ ti.xcom_pull(task_ids='batch')['output_rows'] }}",
        )
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["load"] == {
        "rows": 30,
        "table": f"{scoring.schema}.LOADED",
        "replace_column": "DAY",
        "replace_value": "2013-06-02",
        "model": f"{scoring.schema}.M",
        "version": "V1",
    }
    hook = scoring.hook()
    rows = hook.rows(f"SELECT * FROM {scoring.schema}.LOADED ORDER BY ID")
    assert len(rows) == 30
    assert set(rows[0]) == {
        *("ID", "F1", "F2", "DAY", "OUTPUT_FEATURE_0"),
        *("MODEL", "VERSION", "RUN_ID", "LOADED_AT"),
    }
    assert {str(row["DAY"]) for row in rows} == {"2013-06-02"}
    assert {row["RUN_ID"] for row in rows} == {run.run_id}
    assert [row["OUTPUT_FEATURE_0"] for row in rows] == [int(row["F1"] > 20) for row in rows]


def test_exactly_the_slice_is_replaced_and_again(scoring, output, task_context) -> None:
    table = "SLICES"
    context = task_context("load")
    load(output(FIRST), table).execute(context)
    load(output(FIRST), table, replace_value="2013-06-02", version_name="V2").execute(context)
    hook = scoring.hook()
    select = (
        f"SELECT DAY, VERSION, COUNT(*) AS N, SUM(ID) AS S FROM {scoring.schema}.{table} "
        "GROUP BY 1, 2 ORDER BY 1"
    )
    before = hook.rows(select)
    assert [(row["DAY"], row["VERSION"], row["N"]) for row in before] == [
        ("2013-06-01", "V1", 30),
        ("2013-06-02", "V2", 30),
    ]
    load(output(FIRST), table).execute(context)
    assert hook.rows(select) == before
    load(output(FIRST + " AND ID < 10"), table).execute(context)
    assert [row["N"] for row in hook.rows(select)] == [5, 30]


def test_values_are_never_code(scoring, output, task_context) -> None:
    odd = "it's \\ %s; DROP TABLE X --"
    load(output(FIRST), "ODD", replace_value=odd).execute(task_context("load", run_id="manual__'\\"))
    load(output(FIRST), "ODD", replace_value=odd).execute(task_context("load", run_id="manual__'\\"))
    rows = scoring.hook().rows(f"SELECT DISTINCT DAY, RUN_ID FROM {scoring.schema}.ODD")
    assert rows == [{"DAY": odd, "RUN_ID": "manual__'\\"}]


def test_nothing_is_loaded_unless_all_fits(scoring, output, task_context) -> None:
    context = task_context("load")
    hook = scoring.hook()
    count = f"SELECT COUNT(*) FROM {scoring.schema}.GUARDED"
    load(output(FIRST), "GUARDED").execute(context)
    with pytest.raises(BatchOutputIncompleteError, match="no _SUCCESS"):
        load(output(BOTH, success=False), "GUARDED").execute(context)
    with pytest.raises(RowCountError, match="has 60 rows; expected_rows is 30"):
        load(output(BOTH), "GUARDED", expected_rows="30").execute(context)
    with pytest.raises(PredictionColumnsError, match="no column EXTRA, and the rows have no SCORE"):
        load(output("SELECT ID, F1 AS EXTRA FROM X"), "GUARDED").execute(context)
    with pytest.raises(ForeignRowsError, match="30 rows have another DAY"):
        load(output("SELECT ID, F1 AS SCORE, DAY FROM X"), "GUARDED").execute(context)
    assert hook.value(count) == 30


def test_a_load_that_breaks_half_way_changes_nothing(scoring, output, task_context, monkeypatch) -> None:
    from airflow_provider_snowml.core.partition_load import PartitionLoad

    context = task_context("load")
    load(output(FIRST), "HALF").execute(context)
    with monkeypatch.context() as patch:
        patch.setattr(PartitionLoad, "insert", lambda self: "INSERT INTO NO_SUCH_TABLE SELECT 1")
        with pytest.raises(Exception, match="NO_SUCH_TABLE"):
            load(output(FIRST + " AND ID < 10"), "HALF").execute(context)
    assert scoring.hook().value(f"SELECT COUNT(*) FROM {scoring.schema}.HALF") == 30


def test_a_contended_lock_is_waited_out(scoring, output, task_context, monkeypatch) -> None:
    refusals = iter([True, True])
    real = SnowMLHook.rows

    def contended(self: SnowMLHook, sql: str, **options: Any) -> Any:
        if sql.startswith("DELETE") and next(refusals, False):
            raise LockWaitersError("too many waiters", errno=625)
        return real(self, sql, **options)

    monkeypatch.setattr(SnowMLHook, "rows", contended)
    monkeypatch.setattr(loading, "_LOCK_WAIT", 0.01)
    assert load(output(FIRST), "CONTENDED").execute(task_context("load"))["rows"] == 30
    refusals = iter([True] * 100)
    with pytest.raises(LockWaitersError, match="rolled back"):
        load(output(FIRST + " AND ID < 10"), "CONTENDED").execute(task_context("load"))
    assert scoring.hook().value(f"SELECT COUNT(*) FROM {scoring.schema}.CONTENDED") == 30


def test_bad_input(scoring, task_context) -> None:
    context = task_context("load")
    with pytest.raises(InvalidNameError, match="no valid replace_column"):
        load("@ST/x", "T", replace_column="a b").execute(context)
    with pytest.raises(InvalidNameError, match="no valid job_output_location"):
        load("ST/x", "T").execute(context)
    with pytest.raises(StageNotFoundError, match="has: BUCKET, ST"):
        load("@NOPE/x", "T").execute(context)
    with pytest.raises(InvalidArgumentError, match="expected_rows is 'x'"):
        load("@ST/x", "T", expected_rows="x").execute(context)
    with pytest.raises(InvalidArgumentError, match="model_name and version_name"):
        load("@ST/x/y", "T", model_name=None).execute(context)
