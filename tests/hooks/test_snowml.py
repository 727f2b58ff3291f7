from __future__ import annotations

import json
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, task

from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.exceptions import (
    InsufficientPrivilegesError,
    LockWaitersError,
    ObjectExistsError,
    ObjectNotFoundError,
    PersonalDatabaseError,
    StatementError,
    UnavailableError,
)
from airflow_provider_snowml.hooks.errors import as_statement_error
from airflow_provider_snowml.hooks.query_tag import merged_tag
from airflow_provider_snowml.hooks.snowml import SnowMLHook


@pytest.fixture
def hook(airflow_conn) -> SnowMLHook:
    return SnowMLHook(snowflake_conn_id=airflow_conn)


# -- connections ------------------------------------------------------------------------------------------


def test_a_session_is_always_closed(hook) -> None:
    with hook.session() as session:
        assert session.sql("SELECT 1 AS A").collect()[0]["A"] == 1
    assert session.connection.is_closed()

    class Stop(Exception):
        pass

    with pytest.raises(Stop), hook.session() as broken:
        raise Stop
    assert broken.connection.is_closed()


def test_verbs_share_the_open_connection_and_else_have_their_own(hook, schema) -> None:
    with hook.open_connection() as connection:
        session_id = hook.value("SELECT CURRENT_SESSION()")
        assert hook.value("SELECT CURRENT_SESSION()") == session_id
        hook.rows("CREATE TEMPORARY TABLE SHARED AS SELECT 1 AS A")
        assert hook.value("SELECT A FROM SHARED") == 1
    assert connection.is_closed()
    assert hook.value("SELECT CURRENT_SESSION()") != session_id
    with hook.session() as session:
        session.sql("CREATE TEMPORARY TABLE SHARED AS SELECT 2 AS A").collect()
        assert hook.value("SELECT A FROM SHARED") == 2


def test_a_temporary_file_format_is_made_in_each_connection(hook, schema) -> None:
    with hook.open_connection():
        hook.rows("CREATE STAGE ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
        # The stage may be where the role can make nothing.
        hook.rows("CREATE SCHEMA IF NOT EXISTS ELSEWHERE")
        hook.rows("CREATE OR REPLACE STAGE ELSEWHERE.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
        hook.rows(f"USE SCHEMA {schema}")
        here = StageLocation.parse("@ELSEWHERE.ST/a", hook.default_schema())
        hook.copy_into_location(here, "SELECT '2013-06-01 05:15:00'::TIMESTAMP_NTZ AS T")
        assert hook.parquet_format(hook.default_schema()).parent.sql == schema
    with hook.session():
        assert hook.count_parquet_rows(here) == 1
    with hook.open_connection():
        assert hook.count_parquet_rows(here) == 1
        with hook.session():
            assert hook.count_parquet_rows(here) == 1
        assert hook.count_parquet_rows(here) == 1
        shown = hook.rows("SHOW FILE FORMATS IN ACCOUNT")
        assert not any(row["schema_name"] == "ELSEWHERE" for row in shown)


def test_unqualified_names_are_in_the_connections_schema_unless_told(hook, schema) -> None:
    assert hook.default_schema() == SchemaName.of(*schema.split("."))
    assert SnowMLHook(schema="PUBLIC").default_schema().sql == "SNOWML.PUBLIC"
    with pytest.raises(PersonalDatabaseError):
        SnowMLHook(database="USER$ME")


def test_a_transaction_is_all_or_nothing(hook) -> None:
    with hook.open_connection():
        hook.rows("CREATE TABLE T (A INT)")
        with hook.transaction():
            hook.rows("INSERT INTO T VALUES (1)")
        with pytest.raises(ObjectNotFoundError), hook.transaction():
            hook.rows("INSERT INTO T VALUES (2)")
            hook.rows("INSERT INTO NO_SUCH_TABLE VALUES (2)")
        assert hook.value("SELECT COUNT(*) FROM T") == 1


# -- query tag --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "merged"),
    [
        (None, {"dag_id": "d"}),
        ("", {"dag_id": "d"}),
        ('{"team": "ml", "dag_id": "x"}', {"team": "ml", "dag_id": "d"}),
        ("plain text", None),
        ('["a"]', None),
    ],
)
def test_a_tag_is_merged_only_into_json(present: str | None, merged: dict[str, Any] | None) -> None:
    tag = merged_tag(present, {"dag_id": "d"})
    assert (json.loads(tag) if tag else None) == merged


def test_the_query_tag_names_the_task(airflow_conn, run_dag) -> None:
    with DAG("tagged", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:

        @task
        def tags() -> list[str]:
            show = "SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION"
            hook = SnowMLHook()
            with hook.session() as session:
                tag = session.sql(show).collect()[0]["value"]
            return [tag, hook.rows(show)[0]["value"]]

        tags()
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    for tag in xcoms["tags"]:
        assert json.loads(tag) == {
            "dag_id": "tagged",
            "task_id": "tags",
            "run_id": run.run_id,
            "map_index": -1,
            "try_number": 1,
        }


def test_a_plain_text_tag_is_left_alone(airflow_conn) -> None:
    hook = SnowMLHook(session_parameters={"QUERY_TAG": "theirs"}, query_tag={"dag_id": "d"})
    show = "SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION"
    with hook.session() as session:
        assert session.sql(show).collect()[0]["value"] == "theirs"
    assert hook.rows(show)[0]["value"] == "theirs"


# -- errors -----------------------------------------------------------------------------------------------


def test_both_families_of_errors_become_ours(hook, schema) -> None:
    with pytest.raises(ObjectNotFoundError) as from_connector:
        hook.rows("SELECT * FROM NO_SUCH_TABLE")
    with pytest.raises(ObjectNotFoundError) as from_snowpark, hook.session() as session:
        session.sql("SELECT * FROM NO_SUCH_TABLE").collect()
    for caught in (from_connector, from_snowpark):
        assert caught.value.errno == 2003
        assert "NO_SUCH_TABLE" in str(caught.value)
        assert "A retry fails the same way until" in str(caught.value)
    assert from_connector.value.query_id
    with hook.open_connection(), pytest.raises(ObjectExistsError):
        hook.rows("CREATE TABLE TWICE (A INT)")
        hook.rows("CREATE TABLE TWICE (A INT)")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (2003, ObjectNotFoundError),
        (3001, InsufficientPrivilegesError),
        (625, LockWaitersError),
        (1, StatementError),
    ],
)
def test_errors_go_by_number(number: int, kind: type[StatementError]) -> None:
    from snowflake.connector.errors import ProgrammingError
    from snowflake.snowpark.exceptions import SnowparkSQLException

    for error in (
        ProgrammingError(msg="m", errno=number),
        SnowparkSQLException("m", sql_error_code=number),
    ):
        ours = as_statement_error(error)
        assert type(ours) is kind
        assert ours.errno == number
    assert as_statement_error(ValueError("x")) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("OperationalError", UnavailableError),
        ("TooManyRequests", UnavailableError),
        ("ServiceUnavailableError", UnavailableError),
        ("NonRetryableTlsError", StatementError),
        ("DatabaseError", StatementError),
    ],
)
def test_a_snowflake_that_is_away_is_told_from_one_that_refuses(
    name: str, kind: type[StatementError]
) -> None:
    from snowflake.connector import errors

    assert type(as_statement_error(getattr(errors, name)(msg="m", errno=250001))) is kind


# -- models -----------------------------------------------------------------------------------------------


def test_versions_and_what_they_can(scoring) -> None:
    hook = scoring.hook()
    model = QualifiedName.parse(f"{scoring.schema}.M")
    versions = hook.model_versions(model) or []
    assert {version.name: set(version.aliases) for version in versions} == {
        "V1": {"DEFAULT", "FIRST", "CHAMPION"},
        "V2": {"LAST"},
    }
    found = {
        reference: hook.resolve_version(model, reference).version
        for reference in ("V2", "default", "first", "last", "champion")
    }
    assert found == {"V2": "V2", "default": "V1", "first": "V1", "last": "V2", "champion": "V1"}
    predict = hook.resolve_version(model, "V1").function("predict")
    assert (predict.name, predict.inputs, predict.keeps_row_count) == ("PREDICT", ("F1", "F2"), True)
    assert hook.model_versions(QualifiedName.parse(f"{scoring.schema}.NOPE")) is None


# -- stages -----------------------------------------------------------------------------------------------


def test_files_of_a_stage(hook, schema) -> None:
    with hook.open_connection():
        hook.rows("CREATE STAGE ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
        here = StageLocation.parse("@ST/a/day=2013-06-01", hook.default_schema())
        assert hook.files(here) == []
        hook.write_file(here, "manifest.json", b"1")
        hook.write_file(here, "manifest.json", b"2")
        assert hook.read_file(here, "manifest.json") == b"2"
        assert hook.read_file(here, "nope.json") is None
        rows = hook.copy_into_location(
            here / "data", "SELECT SEQ4() AS A FROM TABLE(GENERATOR(ROWCOUNT => 9)) --"
        )
        assert rows == hook.count_parquet_rows(here) == 9
        assert "a/day=2013-06-01/manifest.json" in hook.files(here, "man")
        assert hook.files(here, "x") == []
        hook.remove_files(here)
        assert hook.files(here) == []


# -- statements and jobs ----------------------------------------------------------------------------------


def test_a_submitted_statement_outlives_its_connection(hook) -> None:
    import time

    hook.rows("CREATE TABLE LATE (A INT)")
    query_id = hook.submit("INSERT INTO LATE SELECT 1 FROM (SELECT SYSTEM$WAIT(2))")
    deadline = time.monotonic() + 60
    while hook.statement(query_id)[0] is Statement.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    assert hook.statement(query_id) == (Statement.SUCCEEDED, "")
    assert hook.value("SELECT COUNT(*) FROM LATE") == 1


def test_a_failed_statement_says_why(hook) -> None:
    import time

    query_id = hook.submit("SELECT * FROM NO_SUCH_TABLE")
    deadline = time.monotonic() + 60
    while (state := hook.statement(query_id))[0] is Statement.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    assert state[0] is Statement.FAILED
    assert "NO_SUCH_TABLE" in state[1]


def test_jobs_are_listed_logged_cancelled_and_deleted(scoring) -> None:
    hook = scoring.hook()
    job = QualifiedName.parse(f"{scoring.schema}.HOOKED_1")
    assert hook.job_status(job) is None
    hook.rows(
        f"EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL {scoring.pool} WITH SPECIFICATION "
        f"'output:\n  stage_location: \"@{scoring.schema}.ST/hooked/\"\n' FROM (SELECT 0::FLOAT AS F1) "
        f"MODEL = {scoring.schema}.SLOW VERSION = V1 FUNCTION = 'predict' NAME = {job.sql} ASYNC = FALSE"
    )
    assert hook.list_jobs(job.parent, "HOOKED_") == {"HOOKED_1": "DONE"}
    assert hook.list_jobs(job.parent, "HOOKEDX") == {}
    assert "waiting 0.0 seconds" in hook.job_logs(job)
    with pytest.raises(ObjectNotFoundError):
        hook.cancel_job(QualifiedName.parse(f"{scoring.schema}.NO_JOB"))
    hook.delete_job(job)
    hook.delete_job(job)
    assert hook.job_status(job) is None
