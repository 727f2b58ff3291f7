"""Snowpark's DataFrames over tables, queries, local rows and staged files; asynchronous queries."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest
from snowflake.connector.errors import DatabaseError
from snowflake.snowpark import Row
from snowflake.snowpark import functions as F
from snowflake.snowpark.exceptions import SnowparkSQLException


def test_rows_to_table_and_back(session):
    day = datetime.date(2013, 1, 1)
    frame = session.create_dataframe([[1, "a", day], [2, None, None]], schema=["x", "y", "d"])
    frame.write.save_as_table("t", mode="overwrite")
    assert session.table("t").sort("x").collect() == [Row(1, "a", day), Row(2, None, None)]
    frame.write.save_as_table("t", mode="append")
    assert session.table("t").count() == 4
    with pytest.raises(SnowparkSQLException, match="already exists"):
        frame.write.save_as_table("t", mode="errorifexists")
    frame.write.save_as_table("t", mode="truncate")
    assert session.table("t").count() == 2


def test_many_rows_are_bound_as_an_array(session):
    frame = session.create_dataframe([[i, f"row {i}"] for i in range(3000)], schema=["i", "s"])
    frame.write.save_as_table("many")
    assert session.table("many").agg(F.sum("i"), F.count_distinct("s")).collect() == [
        Row(3000 * 2999 // 2, 3000)
    ]


def test_pandas(session):
    frame = pd.DataFrame({"A": [1, 2], "b": [0.5, None], "C": ["x", "y"]})
    session.create_dataframe(frame).write.save_as_table("p")
    back = session.table("p").sort("A").to_pandas()
    assert back["A"].tolist() == [1, 2]
    assert back["C"].tolist() == ["x", "y"]
    assert pd.isna(back["b"][1])
    written = session.write_pandas(frame, "w", auto_create_table=True)
    assert written.count() == 2


def test_expressions(session):
    session.sql("CREATE TABLE f AS SELECT * FROM VALUES ('UA', 10), ('UA', 20), ('B6', 5) v(c, n)").collect()
    flights = session.table("f")
    grouped = flights.group_by("c").agg(F.avg("n").alias("mean"), F.max("n").alias("most"))
    joined = flights.join(grouped, "c").filter(F.col("n") == F.col("most"))
    assert [r["C"] for r in joined.sort("C").collect()] == ["B6", "UA"]
    assert flights.filter(F.col("n") > 100).collect() == []
    assert flights.schema.names == ["C", "N"]
    assert session.sql("SELECT n FROM f WHERE c = ?", params=["B6"]).collect() == [Row(5)]


def test_a_temporary_view(session):
    session.sql("SELECT 1 AS a").create_or_replace_temp_view("v")
    assert session.sql("SELECT a FROM v").collect() == [Row(1)]


def test_cache_result(session):
    cached = session.sql("SELECT 1 AS a").cache_result()
    assert cached.collect() == [Row(1)]


def test_parquet_of_a_stage_directory(session):
    session.sql("CREATE STAGE st ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')").collect()
    source = session.create_dataframe([[1, "a", 0.5], [2, "b", None]], schema=["x", "y", "z"])
    source.write.copy_into_location("@st/d/", file_format_type="parquet", header=True, overwrite=True)
    read = session.read.parquet("@st/d/")
    assert sorted(read.columns) == ["X", "Y", "Z"]
    assert read.select("x", "y").sort("x").collect() == [Row(1, "a"), Row(2, "b")]
    assert read.agg(F.sum("x")).collect() == [Row(3)]


def test_files(session, tmp_path):
    session.sql("CREATE STAGE st").collect()
    (tmp_path / "a.txt").write_text("hello")
    session.file.put(f"file://{tmp_path}/a.txt", "@st/d", auto_compress=False)
    assert session.file.get_stream("@st/d/a.txt").read() == b"hello"
    session.file.get("@st/d/a.txt", f"file://{tmp_path}/out/")
    assert (tmp_path / "out" / "a.txt").read_text() == "hello"


def test_collect_without_blocking(session):
    session.sql("CREATE TEMPORARY TABLE t AS SELECT 7 AS a").collect()
    job = session.sql("SELECT a, SYSTEM$WAIT(1) FROM t").collect(block=False)
    assert session.sql("SELECT 1 AS one").collect() == [Row(1)]
    assert job.result()[0]["A"] == 7
    assert job.is_done()


def test_a_failed_asynchronous_query_raises_where_its_result_is_read(session):
    job = session.sql("SELECT * FROM nowhere").collect(block=False)
    with pytest.raises(DatabaseError) as error:
        job.result()
    assert error.value.errno == 2003


def test_execute_async_and_result_scan(connection):
    cursor = connection.cursor()
    cursor.execute_async("SELECT SYSTEM$WAIT(5), 5 AS five")
    query_id = cursor.sfqid
    assert connection.is_still_running(connection.get_query_status(query_id))
    cursor.get_results_from_sfqid(query_id)
    assert cursor.fetchall()[0][1] == 5
    scanned = connection.cursor().execute(f"SELECT five FROM TABLE(RESULT_SCAN('{query_id}'))")
    assert scanned.fetchall() == [(5,)]


def test_a_query_of_a_closed_session_goes_on(parameters):
    """A connection's close cancels nothing; a Snowpark session's close cancels what still runs."""
    import snowflake.connector
    from snowflake.snowpark import Session

    with snowflake.connector.connect(**parameters) as watcher:
        raw = snowflake.connector.connect(**parameters)
        cursor = raw.cursor()
        cursor.execute_async("CREATE TABLE made AS SELECT SYSTEM$WAIT(1) AS w")
        raw.close()
        watcher.cursor().get_results_from_sfqid(cursor.sfqid)
        watcher.get_query_status_throw_if_error(cursor.sfqid)
        snowpark = Session.builder.configs(parameters).create()
        job = snowpark.sql("SELECT SYSTEM$WAIT(600)").collect_nowait()
        snowpark.close()
        ended = watcher.cursor()
        with pytest.raises(DatabaseError, match="cancel"):
            ended.get_results_from_sfqid(job.query_id)
            ended.fetchall()


ENDLESS = (
    "SELECT COUNT(*) FROM TABLE(GENERATOR(ROWCOUNT => 1000000000)) a, TABLE(GENERATOR(ROWCOUNT => 100000)) b"
)


def test_cancelling_a_query(connection):
    cursor = connection.cursor()
    cursor.execute_async(ENDLESS)
    (answer,) = connection.cursor().execute(f"SELECT SYSTEM$CANCEL_QUERY('{cursor.sfqid}')").fetchone()
    assert "terminated" in answer
    with pytest.raises(DatabaseError) as error:
        cursor.get_results_from_sfqid(cursor.sfqid)
        cursor.fetchall()
    assert error.value.errno == 604


def test_the_statement_timeout(connection):
    cursor = connection.cursor()
    cursor.execute("ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = 1")
    with pytest.raises(DatabaseError, match="timeout of 1 second") as error:
        cursor.execute(ENDLESS)
    assert error.value.errno == 630


def test_the_clients_own_timeout_cancels(connection):
    cursor = connection.cursor()
    with pytest.raises(DatabaseError) as error:
        cursor.execute(ENDLESS, timeout=5)  # counted from before the request is sent
    assert error.value.errno == 604
    assert cursor.execute("SELECT 1").fetchone() == (1,)
