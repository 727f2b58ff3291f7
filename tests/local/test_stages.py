"""Stages: PUT, GET, LIST, REMOVE, COPY INTO, INFER_SCHEMA, files as query sources."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snowflake.connector import DictCursor
from snowflake.connector.errors import ProgrammingError

from airflow_provider_snowml.local.stages import part_of


@pytest.fixture
def cursor(connection):
    cursor = connection.cursor()
    cursor.execute("CREATE STAGE st ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    return cursor


@pytest.fixture
def put(cursor, tmp_path):
    def put(name: str, text: str, to: str = "@st/in", **options: str) -> tuple:
        (tmp_path / name).write_text(text)
        more = " ".join(f"{k}={v}" for k, v in {"AUTO_COMPRESS": "FALSE", **options}.items())
        return cursor.execute(f"PUT 'file://{tmp_path}/{name}' '{to}' {more}").fetchone()

    return put


def names(cursor, location: str = "@st") -> list[str]:
    return [row[0] for row in cursor.execute(f"LIST {location}").fetchall()]


def test_describe(cursor):
    properties = {r[1]: r[3] for r in cursor.execute("DESCRIBE STAGE st").fetchall()}
    assert properties["TYPE"] == "SNOWFLAKE_SSE"


def test_a_stage_that_is_not_there(cursor):
    with pytest.raises(ProgrammingError) as error:
        cursor.execute("LIST @nowhere")
    assert error.value.errno == 2003


def test_put_list_get_remove(cursor, put, tmp_path):
    assert put("a b.txt", "hello")[6] == "UPLOADED"
    size, _, modified = cursor.execute("LIST @st/in").fetchone()[1:]
    assert size == 5 and modified.endswith("GMT")
    assert names(cursor) == ["st/in/a b.txt"]
    target = tmp_path / "got"
    target.mkdir()
    cursor.execute(f"GET @st/in/ 'file://{target}/'")
    assert (target / "a b.txt").read_text() == "hello"
    assert cursor.execute("REMOVE @st/in").fetchone() == ("st/in/a b.txt", "removed")
    assert names(cursor) == []


def test_what_is_still_written_is_not_there_yet(local_snowflake, schema, cursor, put):
    put("unfinished.csv", "1\n")
    (whole,) = Path(local_snowflake.data_dir, "stages").glob("*/in/unfinished.csv")
    part = part_of(whole)
    part.write_text("half")
    assert names(cursor) == ["st/in/unfinished.csv"]
    cursor.execute("REMOVE @st/in")
    assert names(cursor) == []
    assert part.read_text() == "half"


def test_put_keeps_what_is_there_unless_told_to_overwrite(cursor, put, tmp_path):
    put("code.py", "old")
    assert put("code.py", "new!")[6] == "SKIPPED"
    assert cursor.execute("LIST @st/in").fetchone()[1] == 3
    assert put("code.py", "new!", OVERWRITE="TRUE")[6] == "UPLOADED"
    assert cursor.execute("LIST @st/in").fetchone()[1] == 4


def test_put_compresses_by_default(cursor, put):
    put("a.csv", "1,2\n", AUTO_COMPRESS="TRUE")
    assert names(cursor) == ["st/in/a.csv.gz"]


CLIENT = """
import json, sys, snowflake.connector
parameters, directory = json.loads(sys.argv[1]), sys.argv[2]
with snowflake.connector.connect(**parameters) as connection:
    cursor = connection.cursor()
    put = cursor.execute(f"PUT file://{directory}/sent.txt @st AUTO_COMPRESS=FALSE").fetchone()
    assert put[6] == "UPLOADED", put
    cursor.execute(f"GET @st/sent.txt file://{directory}/back/")
"""


def test_from_a_client_that_shares_no_disk(local_snowflake, parameters, cursor, tmp_path):
    """The client runs in a mount namespace in which the server's directory is an empty one."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("needs the right to make a mount namespace (unshare -m)")
    data_dir = local_snowflake.data_dir
    shutil.copy(local_snowflake.address.bundle, tmp_path / "bundle.pem")
    (tmp_path / "sent.txt").write_text("hello")
    (tmp_path / "back").mkdir()
    (tmp_path / "client.py").write_text(CLIENT)
    script = f"""
        mount -t tmpfs none {data_dir}
        test ! -e {data_dir}/stages
        REQUESTS_CA_BUNDLE={tmp_path}/bundle.pem exec "$@"
    """
    client = [sys.executable, f"{tmp_path}/client.py", json.dumps(parameters), str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-e", "-c", script, "sh", *client],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back" / "sent.txt").read_text() == "hello"
    assert names(cursor) == ["st/sent.txt"]


def test_unload_and_read_parquet(cursor, tmp_path):
    unloaded = cursor.execute(
        "COPY INTO @st/out/ FROM (SELECT column1 AS id, column2 AS name FROM VALUES (1, 'a'), (2, 'b'))"
        " FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE OVERWRITE = TRUE"
    ).fetchone()
    assert unloaded[0] == 2
    cursor.execute(f"GET @st/out/ file://{tmp_path}/")
    (file,) = tmp_path.glob("*.parquet")
    assert pq.read_table(file).to_pydict() == {"ID": [1, 2], "NAME": ["a", "b"]}
    cursor.execute("CREATE TEMPORARY FILE FORMAT pf TYPE = PARQUET")
    rows = cursor.execute(
        "SELECT $1:ID::INT, $1:NAME::VARCHAR, $1:MISSING::VARCHAR, METADATA$FILENAME"
        " FROM @st/out/ (FILE_FORMAT => 'pf', PATTERN => '.*[.]parquet') ORDER BY 1"
    ).fetchall()
    assert [r[:3] for r in rows] == [(1, "a", None), (2, "b", None)]
    assert rows[0][3].startswith("out/data")
    (count,) = cursor.execute("SELECT COUNT(*) FROM @st/out/ (FILE_FORMAT => 'pf')").fetchone()
    assert count == 2
    (row,) = cursor.execute("SELECT $1 FROM @st/out/ (FILE_FORMAT => 'pf') LIMIT 1").fetchone()
    assert json.loads(row) == {"ID": 1, "NAME": "a"}


def test_a_format_of_another_schema(cursor, schema):
    cursor.execute("COPY INTO @st/out/ FROM (SELECT 1 AS a) FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE")
    cursor.execute("CREATE FILE FORMAT pf TYPE = PARQUET")
    cursor.execute("USE SCHEMA SNOWML.PUBLIC")
    for name in (f"{schema}.pf", f"'{schema}.PF'"):
        cursor.execute(f"SELECT $1:A::INT FROM @{schema}.st/out/ (FILE_FORMAT => {name})")
        assert cursor.fetchall() == [(1,)], name


def test_unloading_onto_files_needs_overwrite(cursor):
    copy = "COPY INTO @st/out/ FROM (SELECT 1 AS a) FILE_FORMAT = (TYPE = PARQUET)"
    cursor.execute(copy)
    with pytest.raises(ProgrammingError, match="Files already existing"):
        cursor.execute(copy)
    cursor.execute(copy + " OVERWRITE = TRUE")


def test_overwrite_replaces_files_of_the_same_name_only(cursor, put):
    put("other.txt", "stays", to="@st/out")
    cursor.execute("COPY INTO @st/out/ FROM (SELECT 1) FILE_FORMAT = (TYPE = PARQUET) OVERWRITE = TRUE")
    assert "st/out/other.txt" in names(cursor, "@st/out/")


def test_infer_schema_and_template(cursor, tmp_path):
    pq.write_table(
        pa.table({"id": [1], "Score": [0.5], "day": pa.array([0], pa.date32())}),
        tmp_path / "x.parquet",
    )
    cursor.execute(f"PUT file://{tmp_path}/x.parquet @st/p AUTO_COMPRESS=FALSE")
    cursor.execute("CREATE FILE FORMAT pf TYPE = PARQUET")
    inferred = cursor.execute(
        "SELECT COLUMN_NAME, TYPE FROM TABLE(INFER_SCHEMA(LOCATION => '@st/p', FILE_FORMAT => 'pf'))"
    ).fetchall()
    assert inferred == [("id", "NUMBER(38, 0)"), ("Score", "REAL"), ("day", "DATE")]
    cursor.execute(
        "CREATE TABLE t USING TEMPLATE (SELECT ARRAY_AGG(OBJECT_CONSTRUCT(*)) FROM TABLE("
        "INFER_SCHEMA(LOCATION => '@st/p', FILE_FORMAT => 'pf', IGNORE_CASE => TRUE)))"
    )
    assert [r[0] for r in cursor.execute("DESCRIBE TABLE t").fetchall()] == ["ID", "SCORE", "DAY"]
    load = (
        "COPY INTO t FROM @st/p FILE_FORMAT = (TYPE = PARQUET)"
        " MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE PATTERN = '.*[.]parquet'"
    )
    assert cursor.execute(load).fetchone()[1:4] == ("LOADED", 1, 1)
    assert cursor.execute("SELECT id, score FROM t").fetchall() == [(1, 0.5)]
    # A file is loaded once, unless the table is new or emptied, or FORCE says so.
    assert cursor.execute(load).fetchone() == ("Copy executed with 0 files processed.",)
    assert cursor.execute(load + " FORCE = TRUE").fetchone()[3] == 1
    cursor.execute("TRUNCATE TABLE t")
    assert cursor.execute(load).fetchone()[3] == 1
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (1,)


def test_what_is_no_parquet_file_is_named(cursor, put):
    put("_SUCCESS", "")
    cursor.execute("CREATE TEMPORARY FILE FORMAT pf TYPE = PARQUET")
    with pytest.raises(ProgrammingError, match="in/_SUCCESS"):
        cursor.execute("SELECT COUNT(*) FROM @st/in/ (FILE_FORMAT => 'pf')")


def test_copy_csv(cursor, put):
    put("a.csv", 'id,name\n1,"x, y"\n2,\n')
    cursor.execute("CREATE TABLE t (id INT, name VARCHAR)")
    loaded = cursor.execute(
        "COPY INTO t FROM @st/in FILE_FORMAT = (TYPE = CSV SKIP_HEADER = 1"
        " FIELD_OPTIONALLY_ENCLOSED_BY = '\"')"
    ).fetchone()
    assert loaded[3] == 2
    assert cursor.execute("SELECT * FROM t ORDER BY id").fetchall() == [(1, "x, y"), (2, None)]


def test_a_copy_that_fails_loads_nothing(cursor, put):
    put("a.csv", "1\n2\nthree\n")
    cursor.execute("CREATE TABLE t (id INT)")
    with pytest.raises(ProgrammingError):
        cursor.execute("COPY INTO t FROM @st/in FILE_FORMAT = (TYPE = CSV)")
    assert cursor.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)


def test_an_empty_result_unloads_no_file(cursor):
    cursor.execute("CREATE TABLE t (a INT)")
    unloaded = cursor.execute("COPY INTO @st/out/ FROM t FILE_FORMAT = (TYPE = PARQUET)").fetchone()
    assert unloaded[0] == 0
    assert names(cursor, "@st/out/") == []


def test_write_pandas(connection, cursor):
    from snowflake.connector.pandas_tools import write_pandas

    frame = pd.DataFrame(
        {"ID": [1, 2, 3], "Name": ["a", None, "c"], "AT": pd.to_datetime(["2013-01-01"] * 3)}
    )
    ok, _, rows, _ = write_pandas(connection, frame, "LOADED", auto_create_table=True, use_logical_type=True)
    assert ok and rows == 3
    back = cursor.execute("SELECT * FROM LOADED ORDER BY ID").fetch_pandas_all()
    assert list(back.columns) == ["ID", "Name", "AT"]
    assert back["Name"].tolist() == ["a", None, "c"]
    assert back["AT"].tolist() == frame["AT"].tolist()
    write_pandas(connection, frame, "LOADED", overwrite=True, auto_create_table=True)
    assert cursor.execute("SELECT COUNT(*) FROM LOADED").fetchone() == (3,)


def test_a_directory_table_lists_what_was_there_at_the_last_refresh(connection, schema) -> None:
    import io

    execute = connection.cursor(DictCursor).execute

    def listed(stage: str) -> list[str]:
        return [row["RELATIVE_PATH"] for row in execute(f"SELECT * FROM DIRECTORY(@{stage})").fetchall()]

    execute("CREATE STAGE PICTURES DIRECTORY = (ENABLE = TRUE)")
    for name in ("d/x.jpg", "d/y.jpg", "z.txt"):
        directory, _, file = name.rpartition("/")
        execute(
            f"PUT 'file:///{file}' '@PICTURES/{directory}' AUTO_COMPRESS = FALSE",
            file_stream=io.BytesIO(b"1"),
        )
    assert listed("PICTURES") == []
    changes = execute("ALTER STAGE PICTURES REFRESH SUBPATH = 'd'").fetchall()
    assert [(row["file"], row["status"]) for row in changes] == [
        ("d/x.jpg", "REGISTERED_NEW"),
        ("d/y.jpg", "REGISTERED_NEW"),
    ]
    assert listed("PICTURES") == ["d/x.jpg", "d/y.jpg"]
    execute("REMOVE @PICTURES/d/x.jpg")
    assert listed(f"{schema}.PICTURES") == ["d/x.jpg", "d/y.jpg"]
    execute("ALTER STAGE PICTURES REFRESH")
    assert listed("PICTURES") == ["d/y.jpg", "z.txt"]
    (row,) = execute(
        "SELECT RELATIVE_PATH AS P FROM DIRECTORY(@PICTURES) WHERE RELATIVE_PATH LIKE 'd/%'"
    ).fetchall()
    assert row == {"P": "d/y.jpg"}


def test_a_stage_has_a_directory_table_only_if_it_is_enabled(connection) -> None:
    execute = connection.cursor(DictCursor).execute
    execute("CREATE STAGE PLAIN")
    for sql in ("SELECT * FROM DIRECTORY(@PLAIN)", "ALTER STAGE PLAIN REFRESH"):
        with pytest.raises(ProgrammingError, match="no directory table"):
            execute(sql)
    execute("ALTER STAGE PLAIN SET DIRECTORY = (ENABLE = TRUE)")
    execute("ALTER STAGE PLAIN REFRESH")
    assert execute("SHOW STAGES LIKE 'PLAIN'").fetchone()["directory_enabled"] == "Y"
    with pytest.raises(ProgrammingError, match="SET COMMENT"):
        execute("ALTER STAGE PLAIN SET COMMENT = 'x'")


def test_semi_structured_values_are_unloaded_as_json(connection) -> None:
    execute = connection.cursor(DictCursor).execute
    execute("CREATE STAGE J")
    execute("CREATE TEMPORARY FILE FORMAT P TYPE = PARQUET")
    execute(
        "COPY INTO @J/x FROM (SELECT ARRAY_CONSTRUCT(OBJECT_CONSTRUCT('a', ARRAY_CONSTRUCT(1))) AS A, "
        "ARRAY_CONSTRUCT('t') AS T, OBJECT_CONSTRUCT('k', 'v') AS O) "
        "FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE"
    )
    row = execute(
        "SELECT $1:A::VARCHAR AS A, $1:T::VARCHAR AS T, $1:O::VARCHAR AS O FROM @J (FILE_FORMAT => 'P')"
    )
    found = {name: json.loads(text) for name, text in row.fetchone().items()}
    assert found == {"A": [{"a": [1]}], "T": ["t"], "O": {"k": "v"}}


def test_times_with_a_zone_are_not_unloaded_as_parquet(cursor):
    cursor.execute("CREATE STAGE zoned")
    unload = "COPY INTO @zoned/a/ FROM (SELECT CURRENT_TIMESTAMP(){} AS t) FILE_FORMAT = (TYPE = PARQUET)"
    with pytest.raises(ProgrammingError, match="LTZ types are not supported for unloading") as raised:
        cursor.execute(unload.format(""))
    assert raised.value.errno == 100171
    cursor.execute(unload.format("::TIMESTAMP_NTZ"))
