"""Databases, schemas, tables, views, temporary tables, binds, errors: through the connector."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
import snowflake.connector
from snowflake.connector.errors import ProgrammingError


@pytest.fixture
def cursor(connection):
    return connection.cursor()


def test_every_column_type_and_its_nulls(cursor):
    cursor.execute(
        "CREATE TABLE t (i INT, n NUMBER(10, 2), f FLOAT, s VARCHAR, b BOOLEAN, d DATE,"
        " ts TIMESTAMP_NTZ, t TIME, v VARIANT)"
    )
    cursor.execute(
        "INSERT INTO t SELECT 1, 1.5, 2.5, 'x', TRUE, '2013-01-01', '2013-01-01 05:15:00.123',"
        " '05:15:00', PARSE_JSON('{\"a\": 1}')"
    )
    cursor.execute("INSERT INTO t (i) VALUES (NULL)")
    full, empty = cursor.execute("SELECT * FROM t ORDER BY i NULLS LAST").fetchall()
    assert full[:8] == (
        1,
        Decimal("1.50"),
        2.5,
        "x",
        True,
        datetime.date(2013, 1, 1),
        datetime.datetime(2013, 1, 1, 5, 15, 0, 123000),
        datetime.time(5, 15),
    )
    assert empty == (None,) * 9
    assert cursor.execute("SELECT v:a::INT FROM t WHERE i = 1").fetchone() == (1,)


def test_times_before_1970(cursor):
    row = cursor.execute("SELECT '1903-12-17 10:35:00.5'::TIMESTAMP_NTZ").fetchone()
    assert row == (datetime.datetime(1903, 12, 17, 10, 35, 0, 500000),)


def test_sums_of_whole_numbers_are_whole(cursor):
    row = cursor.execute("SELECT SUM(column1) FROM VALUES (1), (2)").fetchone()
    assert row == (3,) and isinstance(row[0], int)


def test_dml_counts(cursor):
    cursor.execute("CREATE TABLE t (a INT, b VARCHAR)")
    assert cursor.execute("INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z')").rowcount == 3
    assert cursor.execute("UPDATE t SET b = 'w' WHERE a > 1").rowcount == 2
    assert cursor.execute("DELETE FROM t WHERE a = 1").rowcount == 1
    merged = cursor.execute(
        "MERGE INTO t USING (SELECT 2 AS a UNION ALL SELECT 9) s ON t.a = s.a"
        " WHEN MATCHED THEN UPDATE SET b = 'm' WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a)"
    )
    assert merged.rowcount == 2
    cursor.execute("TRUNCATE TABLE t")
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)


def test_names_with_quotes(cursor):
    for name in ("it's", "a'b\"c\\d$$;--"):
        quoted = '"' + name.replace('"', '""') + '"'
        made = f"CREATE TABLE {quoted} ({quoted} VARCHAR(10)) COMMENT = 'it''s'"
        assert cursor.execute(made).fetchone() == (f"Table {name} successfully created.",)
        assert [row[:2] for row in cursor.execute(f"DESCRIBE TABLE {quoted}")] == [(name, "VARCHAR(10)")]
        assert name in [row[1] for row in cursor.execute("SHOW TABLES")]
        assert cursor.execute(f"DROP TABLE {quoted}").fetchone() == (f"{name} successfully dropped.",)
    with pytest.raises(ProgrammingError, match="Unsupported feature 'schema name it's'"):
        cursor.execute('CREATE SCHEMA "it\'s"')


def test_views(cursor):
    cursor.execute("CREATE TABLE t AS SELECT 1 AS a")
    cursor.execute("CREATE VIEW v AS SELECT a + 1 AS b FROM t")
    assert cursor.execute("SELECT b FROM v").fetchone() == (2,)
    cursor.execute("CREATE OR REPLACE VIEW v AS SELECT a + 2 AS b FROM t")
    assert cursor.execute("SELECT b FROM v").fetchone() == (3,)
    cursor.execute("DROP VIEW v")


def test_databases_and_schemas(cursor):
    cursor.execute("CREATE DATABASE IF NOT EXISTS OTHER_DB")
    assert cursor.execute("SELECT CURRENT_DATABASE(), CURRENT_SCHEMA()").fetchone() == (
        "OTHER_DB",
        "PUBLIC",
    )
    cursor.execute("CREATE SCHEMA OTHER_DB.S")
    cursor.execute("CREATE TABLE OTHER_DB.S.t AS SELECT 1 AS a")
    assert [r[1] for r in cursor.execute("SHOW DATABASES LIKE 'OTHER%'").fetchall()] == ["OTHER_DB"]
    shown = cursor.execute("SHOW SCHEMAS LIKE 'S' IN DATABASE OTHER_DB").fetchall()
    assert [r[1] for r in shown] == ["S"]
    assert [r[1] for r in cursor.execute("SHOW TABLES IN SCHEMA OTHER_DB.S").fetchall()] == ["T"]
    cursor.execute("DROP SCHEMA OTHER_DB.S")
    with pytest.raises(ProgrammingError) as error:
        cursor.execute("SELECT * FROM OTHER_DB.S.t")
    assert error.value.errno == 2003
    cursor.execute("DROP DATABASE OTHER_DB")
    assert cursor.execute("SHOW DATABASES LIKE 'OTHER%'").fetchall() == []


def test_a_temporary_table_belongs_to_its_session(cursor, parameters):
    cursor.execute("CREATE TABLE t AS SELECT 'permanent' AS a")
    cursor.execute("CREATE TEMPORARY TABLE t AS SELECT 'temporary' AS a")
    assert cursor.execute("SELECT t.a FROM t").fetchone() == ("temporary",)
    with snowflake.connector.connect(**parameters) as other:
        assert other.cursor().execute("SELECT a FROM t").fetchone() == ("permanent",)
        other.cursor().execute("CREATE TEMP TABLE mine (a INT)")
        names = [r[1] for r in other.cursor().execute("SHOW SCHEMAS").fetchall()]
        assert not [n for n in names if "TEMP" in n]
    assert cursor.execute("DROP TABLE t").fetchone() == ("T successfully dropped.",)
    assert cursor.execute("SELECT a FROM t").fetchone() == ("permanent",)
    with pytest.raises(ProgrammingError):
        cursor.execute("SELECT * FROM mine")


def test_a_temporary_table_in_a_transaction_with_another_table(cursor):
    cursor.execute("CREATE TABLE t (a INT)")
    cursor.execute("CREATE TEMPORARY TABLE new AS SELECT 1 AS a")
    cursor.execute("BEGIN")
    cursor.execute("DELETE FROM t")
    cursor.execute("INSERT INTO t SELECT * FROM new")
    cursor.execute("COMMIT")
    assert cursor.execute("SELECT * FROM t").fetchall() == [(1,)]


def test_bind_parameters(parameters):
    with snowflake.connector.connect(**parameters, paramstyle="qmark") as connection:
        cursor = connection.cursor()
        values = (1, 2.5, "it's \\ here?", None, True, datetime.date(2013, 1, 1),
                  datetime.datetime(2013, 1, 1, 5, 15), b"\x00\xff")  # fmt: skip
        row = cursor.execute("SELECT " + ", ".join("?" * len(values)), values).fetchone()
        assert row[:7] == values[:7]
        assert bytes(row[7]) == values[7]
        cursor.execute("CREATE TABLE IDENTIFIER(?) (a INT, b VARCHAR)", ("BOUND",))
        rows = [(i, f"row {i}") for i in range(2500)]
        cursor.executemany("INSERT INTO bound VALUES (?, ?)", rows)
        assert cursor.execute("SELECT COUNT(*), MAX(a) FROM bound").fetchone() == (2500, 2499)


def test_describe_a_query_without_running_it(cursor):
    cursor.execute("CREATE TABLE t (a INT, b VARCHAR)")
    described = cursor.describe("SELECT b, a + 1 AS c FROM t")
    assert [c.name for c in described] == ["B", "C"]


@pytest.mark.parametrize(
    ("statement", "errno", "sqlstate", "text"),
    [
        ("SELECT * FROM nowhere", 2003, "42S02", "Object 'NOWHERE' does not exist"),
        ("SELECT nothing FROM t", 904, "42000", "invalid identifier 'NOTHING'"),
        ("CREATE TABLE t (a INT)", 2002, "42710", "already exists"),
        ("SELECT 'x'::INT", 100038, "22018", "Numeric value 'x' is not recognized"),
        ("SELECT FROM WHERE", 1003, "42000", "syntax error"),
        ("SELECT 1; SELECT 2", 8, "0A000", "statement count"),
        ("CREATE TABLE u (a INT) AS SELECT * FROM VALUES (1, 2)", 2026, "42601", "column definition list"),
    ],
)
def test_errors_have_snowflakes_numbers(cursor, statement, errno, sqlstate, text):
    cursor.execute("CREATE TABLE t (a INT)")
    with pytest.raises(ProgrammingError, match=text) as error:
        cursor.execute(statement)
    assert (error.value.errno, error.value.sqlstate) == (errno, sqlstate)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE USER alice",
        "GRANT SELECT ON TABLE t TO ROLE r",
        "CREATE TASK t AS SELECT 1",
        "CREATE DYNAMIC TABLE t TARGET_LAG = '1 minute' WAREHOUSE = w AS SELECT 1 AS a",
        "CREATE FUNCTION f() RETURNS INT AS '1'",
        "SELECT SYSTEM$NO_SUCH_FUNCTION()",
        "SELECT * FROM TABLE(NO_SUCH_TABLE_FUNCTION())",
        "PRAGMA database_list",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "COPY INTO t FROM 's3://bucket/' FILE_FORMAT = (TYPE = CSV)",
        "ALTER SERVICE s SET AUTO_SUSPEND_SECS = 1",
    ],
)
def test_what_is_not_supported_is_refused_by_name(cursor, statement):
    with pytest.raises(ProgrammingError) as error:
        cursor.execute(statement)
    assert error.value.errno in (2, 2003)
    if error.value.errno == 2:
        assert error.value.sqlstate == "0A000"
        assert "local Snowflake" in str(error.value)


def test_sysdate_is_utc_without_a_zone(cursor):
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    (now,) = cursor.execute("SELECT SYSDATE()").fetchone()
    assert cursor.description[0].type_code == 8  # TIMESTAMP_NTZ
    assert abs(now - before) < datetime.timedelta(minutes=5)
    cursor.execute("CREATE TABLE t AS SELECT NULL::TIMESTAMP_NTZ AS a")
    cursor.execute("INSERT INTO t SELECT SYSDATE()")
    assert cursor.execute("SELECT COUNT(a) FROM t").fetchone() == (1,)


def test_variables_are_not_looked_for_in_texts_names_and_comments(cursor):
    cursor.execute("""CREATE TABLE "a$b $c" AS SELECT 'é$d \\' $e' AS "$f", $$ $g $$ AS h -- $i""")
    assert cursor.execute('SELECT * /* $j */ FROM "a$b $c"').fetchall() == [("é$d ' $e", " $g ")]
    with pytest.raises(ProgrammingError, match="'\\$NONE' does not exist"):
        cursor.execute("SELECT $none")
