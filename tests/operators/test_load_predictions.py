from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pendulum
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG

from airflow_provider_snowml.core.names import QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    BatchOutputGoneError,
    BatchOutputIncompleteError,
    ForeignRowsError,
    InvalidArgumentError,
    InvalidNameError,
    LockWaitersError,
    PredictionColumnsError,
    RowCountError,
    StageNotFoundError,
    TableNotFoundError,
    TransactionLostError,
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

    def write(query: str, success: bool = True, name: str = "") -> str:
        hook = scoring.hook()
        with hook.open_connection():
            base = StageLocation.parse("@ST/outputs", hook.default_schema())
            location = base / (request.node.name.split("[")[0] + name)
            hook.remove_files(location)
            hook.copy_into_location(location, query)
            if success:
                hook.write_file(location, "_SUCCESS", b"")
        return location.sql

    return write


@pytest.fixture
def bad_day(local_snowflake):
    """The local Snowflake; what is left of its faults is forgotten."""
    yield local_snowflake
    local_snowflake.clear_faults()


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


def test_a_contended_lock_is_waited_out(scoring, output, task_context, monkeypatch, bad_day) -> None:
    location = output(FIRST)
    load(location, "CONTENDED").execute(task_context("load"))
    monkeypatch.setattr(loading, "_LOCK_WAIT", 0.1)
    monkeypatch.setattr(loading, "LOCK_RETRIES", 3)
    bad_day.fault("lock_waiters", limit=0)
    holder = scoring.hook()
    shorter = output(FIRST + " AND ID < 10")
    with holder.transaction():
        holder.rows(f"DELETE FROM {scoring.schema}.CONTENDED WHERE ID = -1")
        with pytest.raises(LockWaitersError, match="rolled back"):
            load(shorter, "CONTENDED").execute(task_context("load"))
    assert scoring.hook().value(f"SELECT COUNT(*) FROM {scoring.schema}.CONTENDED") == 30

    # This time the lock is let go while the load tries again.
    refused = threading.Event()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        refused.set()
        released.wait(60)

    released = threading.Event()
    monkeypatch.setattr(loading, "time", SimpleNamespace(sleep=pause))
    with ThreadPoolExecutor(1) as pool:
        with holder.transaction():
            holder.rows(f"DELETE FROM {scoring.schema}.CONTENDED WHERE ID = -1")
            loaded = pool.submit(load(shorter, "CONTENDED").execute, task_context("load"))
            while not refused.wait(0.1):
                assert not loaded.done(), loaded.exception()
        released.set()
        assert loaded.result(60)["rows"] == 5
    assert len(pauses) == 1
    assert scoring.hook().value(f"SELECT COUNT(*) FROM {scoring.schema}.CONTENDED") == 5


def test_a_load_that_hangs_until_its_transaction_is_lost_writes_nothing(
    scoring, output, task_context, bad_day
) -> None:
    load(output(FIRST), "LOST").execute(task_context("load"))
    bad_day.fault("abort_idle", seconds=0)
    hold = bad_day.fault("hold", statement=r"^INSERT INTO \S*LOST")
    late = load(output(FIRST + " AND ID < 10"), "LOST")
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(late.execute, task_context("load"))
        while not any(fault["id"] == hold and fault["held"] for fault in bad_day.faults()):
            assert not loaded.done(), loaded.exception()
        # Who waits for the lock gets it, and the transaction is gone.
        scoring.hook().rows(f"UPDATE {scoring.schema}.LOST SET RUN_ID = 'other' WHERE DAY = '2013-06-01'")
        bad_day.release(hold, "drop")  # the client sends it once more
        with pytest.raises(TransactionLostError, match="rolled back"):
            loaded.result(120)
    seen = scoring.hook().rows(f"SELECT RUN_ID, COUNT(*) AS N FROM {scoring.schema}.LOST GROUP BY 1")
    assert [tuple(row.values()) for row in seen] == [("other", 30)]


def test_the_waits_for_a_lock_are_spread_and_grow(monkeypatch, scoring) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(loading, "time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(loading, "random", SimpleNamespace(uniform=lambda low, high: high if not low else 0))

    def refuse(*_: object) -> None:
        raise LockWaitersError("too many waiters", errno=625)

    monkeypatch.setattr(SnowMLHook, "transaction", refuse)
    with pytest.raises(LockWaitersError):
        loading._in_one_transaction(scoring.hook(), QualifiedName.parse("DB.SC.T"), "DELETE")
    assert pauses == [4, 8, 16, 32, 64, 64, 64]


def test_a_reader_never_sees_half_of_a_load(scoring, output, task_context) -> None:
    """Two slices are loaded again and again, in turns of 30 and of 5 rows, while somebody reads."""
    table = f"{scoring.schema}.READ"
    wide, narrow = output(FIRST, name="wide"), output(FIRST + " AND ID < 10", name="narrow")
    days = ("2013-06-01", "2013-06-02")
    for day in days:
        load(wide, "READ", replace_value=day).execute(task_context("load"))
    done = threading.Event()

    def read() -> set[tuple[str, int, int]]:
        seen = set()
        hook = scoring.hook()
        with hook.open_connection():
            while not done.is_set():
                rows = hook.rows(
                    f"SELECT DAY, COUNT(*) AS N, COUNT(DISTINCT RUN_ID) AS RUNS FROM {table} GROUP BY DAY"
                )
                assert {row["DAY"] for row in rows} == set(days)
                seen |= {(row["DAY"], row["N"], row["RUNS"]) for row in rows}
        return seen

    def write(day: str) -> None:
        for turn in range(6):
            task = load(narrow if turn % 2 == 0 else wide, "READ", replace_value=day)
            task.execute(task_context("load", run_id=f"run_{turn}"))

    with ThreadPoolExecutor(3) as pool:
        reader = pool.submit(read)
        writers = [pool.submit(write, day) for day in days]
        try:
            for writer in writers:
                writer.result(120)
        finally:
            done.set()
        assert reader.result(60) == {(day, rows, 1) for day in days for rows in (5, 30)}


def test_a_load_again_differs_in_run_and_time_only(scoring, output, task_context) -> None:
    hook = scoring.hook()
    select = f"SELECT * FROM {scoring.schema}.AGAIN ORDER BY ID"
    location = output(FIRST)
    load(location, "AGAIN").execute(task_context("load", run_id="first"))
    before = hook.rows(select)
    load(location, "AGAIN").execute(task_context("load", run_id="second"))
    after = hook.rows(select)
    stamps = {"RUN_ID", "LOADED_AT"}
    for old, new in zip(before, after, strict=True):
        assert {name for name in new if new[name] != old[name]} == stamps
        assert new["LOADED_AT"] > old["LOADED_AT"]


def test_a_session_that_is_lost_half_way_changes_nothing(scoring, output, task_context, bad_day) -> None:
    load(output(FIRST), "LOST").execute(task_context("load"))
    count = f"SELECT COUNT(*) FROM {scoring.schema}.LOST"
    narrow = output(FIRST + " AND ID < 10")
    bad_day.fault("abort_idle", seconds=0.3)
    bad_day.fault("expire_session", statement="^INSERT INTO .*LOST ", times=1)
    with pytest.raises(Exception, match=r"(?i)session"):
        load(narrow, "LOST").execute(task_context("load"))
    assert scoring.hook().value(count) == 30
    assert load(narrow, "LOST").execute(task_context("load"))["rows"] == 5
    assert scoring.hook().value(count) == 5


def test_columns_can_be_added(scoring, output, task_context) -> None:
    context = task_context("load")
    hook = scoring.hook()
    rows = f"SELECT * FROM {scoring.schema}.GROWN ORDER BY DAY, ID"
    load(output(FIRST), "GROWN").execute(context)
    more = output(FIRST.replace("ID, ", "ID, F2 AS EXTRA, "), name="more")
    with pytest.raises(PredictionColumnsError, match="no column EXTRA, and the rows have no \\(none\\)"):
        load(more, "GROWN", replace_value="2013-06-02").execute(context)
    grow: dict[str, Any] = {"on_schema_change": "add_columns"}
    load(more, "GROWN", replace_value="2013-06-02", model_column="MADE_BY", **grow).execute(context)
    found = hook.rows(rows)
    first, last = found[0], found[-1]
    assert (first["EXTRA"], first["MODEL"], first["MADE_BY"]) == (None, f"{scoring.schema}.M", None)
    assert (last["EXTRA"], last["MODEL"], last["MADE_BY"]) == (1.0, None, f"{scoring.schema}.M")
    # An older model's rows, which lack the new column, are still welcome; what must not be NULL is not.
    load(output(FIRST), "GROWN", replace_value="2013-06-03", **grow).execute(context)
    assert hook.rows(rows)[-1]["EXTRA"] is None
    hook.rows(f"CREATE TABLE {scoring.schema}.STRICT (ID INT, DAY VARCHAR, SCORE FLOAT, MUST INT NOT NULL)")
    with pytest.raises(PredictionColumnsError, match="no column \\(none\\), and the rows have no MUST"):
        load(output(FIRST), "STRICT", **grow).execute(context)
    hook.rows(f"CREATE TABLE {scoring.schema}.KEYLESS (ID INT, SCORE FLOAT)")
    with pytest.raises(PredictionColumnsError, match="no column DAY"):
        load(output(FIRST), "KEYLESS", **grow).execute(context)


def test_two_runs_may_add_the_same_column(scoring, output, task_context) -> None:
    location = output(FIRST)
    scoring.hook().rows(f"CREATE TABLE {scoring.schema}.RACED (ID INT, DAY VARCHAR)")
    days = [f"2013-06-0{n}" for n in range(1, 5)]

    def run(day: str) -> int:
        task = load(location, "RACED", replace_value=day, on_schema_change="add_columns")
        return task.execute(task_context("load"))["rows"]

    with ThreadPoolExecutor(len(days)) as pool:
        assert list(pool.map(run, days)) == [30] * 4
    count = f"SELECT COUNT(*) AS N, COUNT(SCORE) AS S, COUNT(LOADED_AT) AS L FROM {scoring.schema}.RACED"
    assert scoring.hook().rows(count) == [{"N": 120, "S": 120, "L": 120}]


def test_the_added_columns_have_names_of_your_choice(scoring, output, task_context) -> None:
    context = task_context("load")
    names: dict[str, Any] = {
        "model_column": "made_by",
        "version_column": None,
        "run_id_column": '"run id"',
        "loaded_at_column": "{{ none }}",
    }
    task = load(output(FIRST), "NAMED", **names)
    task.loaded_at_column = "None"  # as the template renders
    task.execute(context)
    assert scoring.hook().columns(f"SELECT * FROM {scoring.schema}.NAMED") == [
        *("ID", "SCORE", "DAY", "MADE_BY", "run id")
    ]
    with pytest.raises(InvalidArgumentError, match=r"run_id_column is DAY, which is also replace_column"):
        load("@ST/x", "NAMED", run_id_column="day").execute(context)
    with pytest.raises(InvalidArgumentError, match="model_column is A, which is also"):
        load("@ST/x", "NAMED", model_column="a", version_column="A").execute(context)
    with pytest.raises(PredictionColumnsError, match="The rows have MODEL already"):
        load(output("SELECT ID, 'x' AS MODEL FROM X"), "NAMED").execute(context)


def test_a_table_is_not_created_unless_it_may_be(scoring, output, task_context) -> None:
    context = task_context("load")
    for query in (FIRST, FIRST + " AND FALSE"):
        with pytest.raises(TableNotFoundError, match=r"no table .*MISSING.*create_table is False"):
            load(output(query), "MISSING", create_table=False).execute(context)
    load(output(FIRST), "MISSING").execute(context)
    assert load(output(FIRST), "MISSING", create_table=False).execute(context)["rows"] == 30


def test_what_was_cleaned_up_cannot_be_loaded(scoring, output, task_context) -> None:
    context = task_context("load")
    with pytest.raises(BatchOutputGoneError, match=r"cleaned up.*clear the task that scores"):
        load("@ST/cleaned/SNOWML_JOB_A1", "T").execute(context)
    location = output(FIRST)
    parent, name = location.rstrip("/").rsplit("/", 1)
    hook = scoring.hook()
    with hook.open_connection():
        beside = StageLocation.parse(f"{parent}_snowml_input/{name}")
        hook.write_file(beside, "removed.json", b"{}")
    with pytest.raises(BatchOutputGoneError, match="is being cleaned up"):
        load(location, "T", model_name=None).execute(context)


def test_a_column_may_be_all_null_in_many_files(scoring, output, task_context) -> None:
    location = StageLocation.parse(output(FIRST + " AND FALSE"))
    hook = scoring.hook()
    with hook.open_connection():
        for number in range(12):
            sink = pa.BufferOutputStream()
            rows = pa.table({"ID": [number], "SCORE": [0.5 if number == 11 else None]})
            pq.write_table(rows, sink)
            hook.write_file(location, f"part_{number:02}.parquet", sink.getvalue().to_pybytes())
    load(location.sql, "LATE_TYPE").execute(task_context("load"))
    described = hook.rows(f"DESCRIBE TABLE {scoring.schema}.LATE_TYPE")
    assert next(row["type"] for row in described if row["name"] == "SCORE") == "FLOAT"


@pytest.mark.parametrize("moment", ["LIST", "COPY INTO"])
def test_a_clean_up_meanwhile_neither_empties_nor_halves_a_slice(
    scoring, output, task_context, monkeypatch, moment
) -> None:
    table = f"MEANWHILE_{moment[:4]}"
    load(output(FIRST, name="before"), table).execute(task_context("load"))
    directory = StageLocation.parse(output(FIRST))
    real = SnowMLHook.rows
    due = [moment]

    def rows(hook: SnowMLHook, sql: str, **options: Any) -> Any:
        # The whole list is asked for, or the files are read: all are removed right before it.
        if due and sql.startswith(moment) and not sql.endswith("_SUCCESS'"):
            due.clear()
            real(hook, f"REMOVE '{directory.sql}_SUCCESS'")
            hook.remove_files(directory)
        return real(hook, sql, **options)

    monkeypatch.setattr(SnowMLHook, "rows", rows)
    with pytest.raises(BatchOutputGoneError):
        load(directory.sql, table).execute(task_context("load"))
    assert due == []
    assert scoring.hook().value(f"SELECT COUNT(*) FROM {scoring.schema}.{table}") == 30


def test_bad_input(scoring, output, task_context) -> None:
    context = task_context("load")
    with pytest.raises(InvalidNameError, match="no valid replace_column"):
        load("@ST/x", "T", replace_column="a b").execute(context)
    with pytest.raises(InvalidNameError, match="no valid job_output_location"):
        load("ST/x", "T").execute(context)
    with pytest.raises(StageNotFoundError, match=r"no stage .* has: \w"):
        load("@NOPE/x", "T").execute(context)
    with pytest.raises(InvalidArgumentError, match="expected_rows is 'x'"):
        load("@ST/x", "T", expected_rows="x").execute(context)
    with pytest.raises(InvalidArgumentError, match="on_schema_change is 'grow'"):
        load("@ST/x", "T", on_schema_change="grow").execute(context)
    with pytest.raises(InvalidArgumentError, match="model_name and version_name"):
        load(output(FIRST), "T", model_name=None).execute(context)
