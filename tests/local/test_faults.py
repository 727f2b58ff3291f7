"""Bad days on demand: each fault bites the clients as it says."""

from __future__ import annotations

import json
import threading
import time

import pytest
import snowflake.connector
from snowflake.connector import DictCursor
from snowflake.connector.errors import DatabaseError, OperationalError, ProgrammingError

from airflow_provider_snowml.local import LocalSnowflake


@pytest.fixture(scope="module")
def faulty():
    with LocalSnowflake(faults=True) as snowflake:
        yield snowflake


@pytest.fixture
def client(faulty):
    """A connection of the user that the faults are about."""
    parameters = {**faulty.connection_parameters, "user": "CLIENT"}
    with snowflake.connector.connect(**parameters) as connection:
        connection.cursor().execute("CREATE OR REPLACE TABLE T (A INT)")
        yield connection
        faulty.clear_faults()


def rows(client) -> int:
    return client.cursor().execute("SELECT COUNT(*) FROM T").fetchone()[0]


def seen(faulty, id_: int) -> int:
    return next(fault["seen"] for fault in faulty.faults() if fault["id"] == id_)


def test_a_server_that_was_not_asked_to_has_none():
    with LocalSnowflake() as snowflake, pytest.raises(ProgrammingError, match="without --faults"):
        snowflake.fault("delay")


def test_what_is_not_understood_is_refused(faulty, client):
    with pytest.raises(ProgrammingError, match="drop_reply"):
        faulty.fault("no_such_fault")
    with pytest.raises(ProgrammingError, match="seconds"):
        faulty.fault("delay", minutes=1)
    with pytest.raises(ProgrammingError, match="JSON"):
        client.cursor().execute("CALL SYSTEM$SNOWML_LOCAL_FAULT('no json')")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("statement", "("),
        ("statement", 1),
        ("job", "*"),
        ("user", None),
        ("message", ["no"]),
        ("skip", "1"),
        ("times", 1.5),
        ("times", True),
        ("limit", None),
        ("errno", "625"),
        ("seconds", "1"),
        ("seconds", -1),
        ("seconds", float("inf")),
    ],
)
def test_a_fault_that_could_not_bite_is_refused(faulty, field, value):
    with pytest.raises(ProgrammingError, match=f"'{field}' of a fault must be") as refused:
        faulty.fault("refuse", **{field: value})
    assert refused.value.errno == 1008
    assert faulty.faults() == []


def test_faults_of_every_request_can_be_cleared(faulty, client):
    faulty.fault("refuse", user="CLIENT", errno=625, times=1000)
    with pytest.raises(ProgrammingError, match="on purpose"):
        client.cursor().execute("SELECT 1")
    client.cursor().execute("CALL SYSTEM$SNOWML_LOCAL_CLEAR_FAULTS()")
    client.cursor().execute("SELECT 1")


@pytest.mark.parametrize("kind", ["drop_request", "drop_reply"])
def test_a_lost_request_or_reply_is_sent_again_and_done_once(faulty, client, kind):
    fault = faulty.fault(kind, statement="^INSERT", times=2)
    client.cursor().execute("INSERT INTO T VALUES (1)")
    assert rows(client) == 1
    assert seen(faulty, fault) == 3  # twice in vain


def test_refusals_by_number(faulty, client):
    faulty.fault("refuse", statement="^INSERT", errno=625, message="too many", skip=1, times=1)
    client.cursor().execute("INSERT INTO T VALUES (1)")
    with pytest.raises(ProgrammingError) as refused:
        client.cursor().execute("INSERT INTO T VALUES (2)")
    assert refused.value.errno == 625
    client.cursor().execute("INSERT INTO T VALUES (3)")
    assert rows(client) == 2


def test_a_session_that_expires(faulty, client):
    faulty.fault("expire_session", user="CLIENT")
    with pytest.raises((ProgrammingError, DatabaseError, OperationalError)):
        client.cursor().execute("SELECT 1")


@pytest.mark.parametrize(("how", "expected"), [("carry_out", 1), ("drop", 0), ("answer", 1)])
def test_a_request_that_is_held_while_its_client_dies(faulty, client, how, expected):
    fault = faulty.fault("hold", user="CLIENT", statement="^INSERT", times=1)
    parameters = {**faulty.connection_parameters, "user": "CLIENT"}
    other = snowflake.connector.connect(**parameters, network_timeout=60)
    answers: list[int | None] = []
    dying = threading.Thread(
        target=lambda: answers.append(_try(other, "INSERT INTO T VALUES (1)")), daemon=True
    )
    dying.start()
    deadline = time.monotonic() + 60
    while not any(it["held"] for it in faulty.faults()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # The client's own second try must not hide what became of the first.
    faulty.fault("refuse", user="CLIENT", statement="^INSERT", times=100)
    faulty.release(fault, how)
    dying.join(60)
    faulty.clear_faults()
    assert rows(client) == expected
    assert answers == [1 if how == "answer" else None]


def _try(connection, sql: str) -> int | None:
    """How many rows it changed, if it was told."""
    try:
        return connection.cursor().execute(sql).rowcount
    except Exception:
        return None


def test_fewer_waiters_for_a_lock(faulty, client):
    faulty.fault("lock_waiters", limit=0)
    client.cursor().execute("BEGIN")
    client.cursor().execute("DELETE FROM T")
    with (
        snowflake.connector.connect(**faulty.connection_parameters) as other,
        pytest.raises(ProgrammingError) as refused,
    ):
        other.cursor().execute("DELETE FROM T")
    assert refused.value.errno == 625
    client.cursor().execute("ROLLBACK")


def test_what_is_asked_is_noted(faulty, client):
    fault = faulty.fault("note", user="CLIENT", times=100)
    client.cursor().execute("SELECT 42")
    snowflake.connector.connect(**{**faulty.connection_parameters, "user": "CLIENT"}).close()
    (noted,) = [it["requests"] for it in faulty.faults() if it["id"] == fault]
    assert noted == ["SELECT 42", "POST /session/v1/login-request", "POST /session"]


def test_a_transaction_whose_client_is_gone_makes_others_wait_for_a_while(faulty, client):
    faulty.fault("abort_idle", seconds=1)
    client.cursor().execute("INSERT INTO T VALUES (1), (2)")
    gone = snowflake.connector.connect(**faulty.connection_parameters)
    gone.cursor().execute("BEGIN")
    gone.cursor().execute("DELETE FROM T WHERE A = 1")
    assert rows(client) == 2
    client.cursor().execute("DELETE FROM T WHERE A = 2")
    gone.cursor().execute("ROLLBACK")
    assert rows(client) == 1
    gone.close()


def test_a_killed_server_comes_back_with_what_it_had(faulty, client):
    client.cursor().execute("INSERT INTO T VALUES (1)")
    address = faulty.address
    faulty.kill()
    faulty.restart()
    assert (faulty.address.host, faulty.address.port) == (address.host, address.port)
    with snowflake.connector.connect(**faulty.connection_parameters) as again:
        assert rows(again) == 1


def test_faults_are_listed(faulty, client):
    id_ = faulty.fault("delay", seconds=0.1, statement="^SELECT 42")
    client.cursor().execute("SELECT 42")
    listed = json.loads(client.cursor().execute("SELECT SYSTEM$SNOWML_LOCAL_FAULTS()").fetchone()[0])
    assert [(fault["id"], fault["kind"], fault["seen"]) for fault in listed] == [(id_, "delay", 1)]


@pytest.fixture(scope="module")
def scored(faulty):
    """A model and its rows; ``start(name)`` starts a job on them."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from snowflake.ml.registry import Registry
    from snowflake.snowpark import Session

    rows = pd.DataFrame({"F1": np.arange(40.0)})
    with Session.builder.configs(faulty.connection_parameters).create() as session:
        session.sql("CREATE STAGE ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')").collect()
        session.sql(
            "CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS"
        ).collect()
        classifier = LogisticRegression().fit(rows, (rows.F1 > 20).astype(int))
        Registry(session).log_model(
            classifier, model_name="M", version_name="V1", sample_input_data=rows.head()
        )

        def start(name: str) -> None:
            session.sql(
                "EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL P WITH SPECIFICATION "
                "'output:\n  stage_location: \\'@ST/out/\\'\n' "
                "FROM (SELECT SEQ4()::FLOAT AS F1 FROM TABLE(GENERATOR(ROWCOUNT => 40))) "
                f"MODEL = M VERSION = V1 FUNCTION = 'predict' NAME = {name} ASYNC = TRUE"
            ).collect()

        def look(name: str) -> tuple[str, int, bool]:
            """The job's status, its rows, and whether ``_SUCCESS`` is there."""
            (described,) = session.sql(f"DESCRIBE SERVICE {name}").collect()
            files = [row["name"] for row in session.sql(f"LIST @ST/out/{name}/").collect()]
            count = 0
            if described["status"] in ("DONE", "FAILED") and any(f.endswith(".parquet") for f in files):
                parquet = session.read.option("PATTERN", ".*[.]parquet")
                count = parquet.parquet(f"@ST/out/{name}/").count()
            return described["status"], count, any(f.endswith("/_SUCCESS") for f in files)

        yield start, look


def test_the_bad_days_of_jobs(faulty, scored):
    start, look = scored
    expected = {
        "FAIL_JOB": ("FAILED", 0, False),
        "HANG_JOB": ("RUNNING", 0, False),
        "SLOW_JOB": ("DONE", 40, True),
        "PARTIAL_OUTPUT": ("FAILED", 20, False),
        "NO_SUCCESS": ("DONE", 40, False),
        "LATE_SUCCESS": ("DONE", 40, True),
        "LATE_DONE": ("DONE", 40, True),
        "LOSE_ROWS": ("DONE", 20, True),
        "GOOD_DAY": ("DONE", 40, True),
    }
    for name in expected:
        if name != "GOOD_DAY":
            faulty.fault(name.lower(), job=f"^{name}$", seconds=0.5)
        start(name)
    deadline = time.monotonic() + 180
    while (found := {name: look(name) for name in expected}) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    faulty.clear_faults()


def test_the_bad_days_of_image_builds(faulty, client, scored):
    cursor = client.cursor()
    deploy = (
        "CALL SYSTEM$DEPLOY_MODEL('{models: [{name: M, version: V1}], image_build: {compute_pool: P},"
        " service: {name: S, compute_pool: P, min_instances: 1, max_instances: 1}}')"
    )

    def build() -> tuple[str, str]:
        """The name and the status of the newest one."""
        shown = client.cursor(DictCursor).execute("SHOW JOB SERVICES LIKE 'MODEL_BUILD_%'").fetchall()
        newest = max(shown, key=lambda row: row["created_on"])
        return newest["name"], newest["status"]

    def log(name: str) -> str:
        sql = f"CALL SYSTEM$GET_SERVICE_LOGS('{name}', '0', 'model-build')"
        return client.cursor().execute(sql).fetchone()[0]

    not_of_builds = faulty.fault("no_success", times=100)
    faulty.fault("fail_job", job="^MODEL_BUILD_", message="The disk is full.")
    with pytest.raises(
        DatabaseError, match=r"MODEL_BUILD_\w+ of model .*FAILED: .*The disk is full"
    ) as failed:
        cursor.execute(deploy)
    failed_build, status = build()
    assert failed_build in str(failed.value)
    assert status == "FAILED"
    assert "The disk is full" in log(failed_build)

    faulty.fault("hang_job", job="^MODEL_BUILD_")
    query = cursor.execute_async(deploy)["queryId"]
    deadline = time.monotonic() + 180
    while (found := build())[0] == failed_build or found[1] == "PENDING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert found[1] == "RUNNING"
    cursor.execute(f"CALL {found[0]}!SPCS_CANCEL_JOB()")
    with pytest.raises(DatabaseError, match=f"{found[0]} of model .*CANCELLED"):
        cursor.get_results_from_sfqid(query)
        cursor.fetchone()

    slow = faulty.fault("slow_job", job="^MODEL_BUILD_", seconds=2)
    begin = time.monotonic()
    client.cursor().execute(deploy)
    assert time.monotonic() - begin > 2
    assert seen(faulty, slow) == 1
    assert build()[1] == "DONE"
    assert seen(faulty, not_of_builds) == 0
    client.cursor().execute("DROP SERVICE S")
