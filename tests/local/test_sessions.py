"""Sessions: USE, CURRENT_*, parameters, tags, transactions, waiting writers."""

from __future__ import annotations

import threading
import time

import pytest
import snowflake.connector
from snowflake.connector.errors import DatabaseError, ProgrammingError


@pytest.fixture
def cursor(connection):
    return connection.cursor()


def test_a_session_starts_where_the_parameters_say(cursor, schema):
    row = cursor.execute(
        "SELECT CURRENT_DATABASE(), CURRENT_SCHEMA(), CURRENT_WAREHOUSE(), CURRENT_ROLE(), CURRENT_USER()"
    ).fetchone()
    database, name = schema.split(".")
    assert row == (database, name, "SNOWML_WH", "SYSADMIN", "SNOWML")
    assert [d.name for d in cursor.description][:2] == ["CURRENT_DATABASE()", "CURRENT_SCHEMA()"]


def test_use(cursor, connection, schema):
    cursor.execute(f"CREATE SCHEMA {schema}_B")
    assert connection.schema == schema.split(".")[1] + "_B"
    cursor.execute(f"USE SCHEMA {schema}")
    assert connection.schema == schema.split(".")[1]
    cursor.execute("CREATE WAREHOUSE IF NOT EXISTS OTHER_WH")
    cursor.execute("USE WAREHOUSE OTHER_WH")
    assert connection.warehouse == "OTHER_WH"
    cursor.execute("USE ROLE PUBLIC")
    assert cursor.execute("SELECT CURRENT_ROLE()").fetchone() == ("PUBLIC",)
    cursor.execute(f"DROP SCHEMA {schema}_B")


@pytest.mark.parametrize(
    ("statement", "errno"),
    [
        ("USE SCHEMA NOWHERE", 2003),
        ("USE DATABASE NOWHERE", 2003),
        ("USE WAREHOUSE NOWHERE", 2043),
        ("ALTER SESSION SET NO_SUCH_PARAMETER = 1", 1008),
        ("ALTER SESSION SET AUTOCOMMIT = maybe", 1008),
    ],
)
def test_what_is_not_there_cannot_be_used(cursor, statement, errno):
    with pytest.raises(ProgrammingError) as error:
        cursor.execute(statement)
    assert error.value.errno == errno


def test_wrong_password(local_snowflake, parameters):
    with pytest.raises(DatabaseError, match="Incorrect username or password"):
        snowflake.connector.connect(**{**local_snowflake.connection_parameters, "password": "x"})


def test_any_account_name(local_snowflake):
    parameters = {**local_snowflake.connection_parameters, "account": "myorg-myaccount"}
    with snowflake.connector.connect(**parameters) as connection:
        assert connection.cursor().execute("SELECT 1").fetchone() == (1,)


def test_parameters_and_query_tag(cursor):
    assert cursor.execute("SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION").fetchone()[1] == ""
    cursor.execute("ALTER SESSION SET QUERY_TAG = 'nightly', LOCK_TIMEOUT = 7")
    row = cursor.execute("SHOW PARAMETERS LIKE 'QUERY_TAG'").fetchone()
    assert row[:4] == ("QUERY_TAG", "nightly", "", "SESSION")
    assert cursor.execute("SHOW PARAMETERS LIKE 'LOCK_TIMEOUT'").fetchone()[1] == "7"
    cursor.execute("SELECT 'tagged'")
    tags = cursor.execute(
        "SELECT query_tag FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY())"
        " WHERE query_text = 'SELECT ''tagged'''"
    ).fetchall()
    assert ("nightly",) in tags
    cursor.execute("ALTER SESSION UNSET QUERY_TAG")
    assert cursor.execute("SHOW PARAMETERS LIKE 'QUERY_TAG'").fetchone()[1] == ""


def test_session_parameters_of_the_login(parameters):
    with snowflake.connector.connect(
        **parameters, session_parameters={"QUERY_TAG": "from login"}
    ) as connection:
        shown = connection.cursor().execute("SHOW PARAMETERS LIKE 'QUERY_TAG'").fetchone()
    assert shown[1] == "from login"


def test_rollback_and_commit(cursor, parameters):
    cursor.execute("CREATE TABLE t (a INT)")
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t VALUES (1)")
    cursor.execute("ROLLBACK")
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)
    cursor.execute("BEGIN TRANSACTION")
    cursor.execute("INSERT INTO t VALUES (1)")
    with snowflake.connector.connect(**parameters) as other:
        assert other.cursor().execute("SELECT COUNT(*) FROM t").fetchone() == (0,)
        cursor.execute("COMMIT")
        assert other.cursor().execute("SELECT COUNT(*) FROM t").fetchone() == (1,)


def test_autocommit_off(cursor, parameters):
    cursor.execute("CREATE TABLE t (a INT)")
    with snowflake.connector.connect(**parameters, autocommit=False) as other:
        other.cursor().execute("INSERT INTO t VALUES (1)")
        assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)
        other.commit()
        assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (1,)
        other.cursor().execute("INSERT INTO t VALUES (2)")
        other.rollback()
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (1,)


def test_ddl_commits_an_open_transaction(cursor):
    cursor.execute("CREATE TABLE t (a INT)")
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t VALUES (1)")
    cursor.execute("CREATE TABLE u (a INT)")
    cursor.execute("ROLLBACK")
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (1,)


def test_a_failed_statement_leaves_the_transaction_as_it_was(cursor):
    cursor.execute("CREATE TABLE t (d DATE)")
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO t VALUES ('2024-01-01')")
    for bad in ("INSERT INTO t VALUES ('no date')", "SELECT * FROM nowhere"):
        with pytest.raises(ProgrammingError):
            cursor.execute(bad)
    cursor.execute("INSERT INTO t VALUES ('2024-01-02')")
    cursor.execute("COMMIT")
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (2,)


def test_writers_of_one_table_wait_for_each_other(cursor, parameters):
    """Eight sessions replace the same date at once: none fails, one row is left."""
    cursor.execute("CREATE TABLE scores (d DATE, writer INT)")
    cursor.execute("INSERT INTO scores VALUES ('2024-01-01', -1)")
    barrier = threading.Barrier(8)
    errors: list[Exception] = []

    def replace(writer: int) -> None:
        try:
            with snowflake.connector.connect(**parameters) as own:
                mine = own.cursor()
                barrier.wait(60)
                mine.execute("BEGIN")
                mine.execute("DELETE FROM scores WHERE d = '2024-01-01'")
                mine.execute("INSERT INTO scores VALUES ('2024-01-01', %s)", (writer,))
                mine.execute("COMMIT")
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=replace, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert errors == []
    assert cursor.execute("SELECT COUNT(*) FROM scores").fetchone() == (1,)


def test_a_writer_that_waited_sees_what_the_other_one_committed(cursor, parameters):
    cursor.execute("CREATE TABLE n (a INT)")
    cursor.execute("INSERT INTO n VALUES (1)")
    with (
        snowflake.connector.connect(**parameters) as one,
        snowflake.connector.connect(**parameters) as two,
    ):
        one.cursor().execute("BEGIN")
        one.cursor().execute("UPDATE n SET a = a + 10")
        two.cursor().execute("BEGIN")
        assert two.cursor().execute("SELECT a FROM n").fetchone() == (1,)
        waiting = threading.Thread(target=lambda: two.cursor().execute("UPDATE n SET a = a + 100"))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        one.cursor().execute("COMMIT")
        waiting.join(60)
        two.cursor().execute("COMMIT")
    assert cursor.execute("SELECT a FROM n").fetchone() == (111,)


def test_the_lock_timeout(cursor, parameters):
    cursor.execute("CREATE TABLE n (a INT)")
    with snowflake.connector.connect(**parameters) as other:
        other.cursor().execute("BEGIN")
        other.cursor().execute("DELETE FROM n")
        cursor.execute("ALTER SESSION SET LOCK_TIMEOUT = 1")
        with pytest.raises(ProgrammingError, match="LOCK_TIMEOUT"):
            cursor.execute("DELETE FROM n")


def test_an_asynchronous_statement_leaves_the_locks_of_its_sessions_transaction(cursor, parameters):
    cursor.execute("CREATE TABLE n (a INT)")
    cursor.execute("CREATE TABLE beside (a INT)")
    with snowflake.connector.connect(**parameters) as other:
        writer = other.cursor()
        writer.execute("BEGIN")
        writer.execute("DELETE FROM n")
        beside = other.cursor()
        beside.execute_async("DELETE FROM beside")
        beside.get_results_from_sfqid(beside.sfqid)
        cursor.execute("ALTER SESSION SET LOCK_TIMEOUT = 1")
        with pytest.raises(ProgrammingError, match="LOCK_TIMEOUT"):
            cursor.execute("DELETE FROM n")


def test_more_than_twenty_waiters_are_refused(cursor, parameters):
    cursor.execute("CREATE TABLE n (a INT)")
    cursor.execute("BEGIN")
    cursor.execute("DELETE FROM n")
    waiters = [snowflake.connector.connect(**parameters) for _ in range(21)]
    cursors = [waiter.cursor() for waiter in waiters]

    def refused() -> list[int]:
        found = []
        for waiter, sent in zip(waiters, cursors, strict=True):
            try:
                waiter.get_query_status_throw_if_error(sent.sfqid)
            except ProgrammingError as e:
                found.append(e.errno)
        return found

    try:
        for sent in cursors:
            sent.execute_async("DELETE FROM n")
        deadline = time.monotonic() + 60
        while not refused():  # until all stand in the queue, but the one that finds it full
            assert time.monotonic() < deadline
        assert refused() == [625]
    finally:
        cursor.execute("COMMIT")
        for waiter in waiters:
            waiter.close()


def test_a_session_ends_after_its_schema_is_gone(parameters, connection, schema) -> None:
    from snowflake.snowpark import Session

    session = Session.builder.configs(parameters).create()
    connection.cursor().execute(f"DROP SCHEMA {schema}")
    assert session.sql("SELECT 1").collect()[0][0] == 1
    session.close()  # which cancels what runs, beside the session
