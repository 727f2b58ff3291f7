"""Batch inference jobs through snowflake-ml-python and through SQL."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from pathlib import Path

import pytest
from snowflake.connector import DictCursor
from snowflake.connector.errors import DatabaseError, ProgrammingError
from snowflake.ml.jobs import delete_job, get_job, list_jobs
from snowflake.ml.model.batch_inference import InferenceSpec, InputSpec, OutputSpec, ResourcesSpec, SaveMode
from snowflake.snowpark.exceptions import SnowparkSQLException

CLASSIFIER = "SNOWML.SHARED_MODELS.CLASSIFIER"
CUSTOM = "SNOWML.SHARED_MODELS.CUSTOM"
WAIT = 180  # seconds; a small machine may be slow


@pytest.fixture
def place(models, session, schema, rows) -> str:
    """A schema with the table FLIGHTS and the stage ST."""
    session.sql(f"CREATE STAGE {schema}.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')").collect()
    session.create_dataframe(rows).write.save_as_table("FLIGHTS")
    return schema


@pytest.fixture
def version(session, place):
    """The classifier's version on the test's own session."""
    from snowflake.ml.registry import Registry

    registry = Registry(session, database_name="SNOWML", schema_name="SHARED_MODELS")
    return registry.get_model("CLASSIFIER").version("V1")


def statement(place: str, name: str, /, **changes: str) -> str:
    """An EXECUTE INFERENCE JOB SERVICE with some clauses replaced."""
    clauses = {
        "pool": "IN COMPUTE POOL JOBS_POOL",
        "spec": f"WITH SPECIFICATION 'output:\n  stage_location: \\'@{place}.ST/out/\\'\n'",
        "source": "FROM (SELECT * FROM FLIGHTS)",
        "model": f"MODEL = {CLASSIFIER}",
        "version": "VERSION = V1",
        "function": "FUNCTION = 'predict'",
        "name": f"NAME = {place}.{name}",
        "mode": "ASYNC = TRUE",
        **changes,
    }
    return "EXECUTE INFERENCE JOB SERVICE\n" + "\n".join(c for c in clauses.values() if c)


def wait_for(session, job: str, *statuses: str) -> str:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        (described,) = session.sql(f"DESCRIBE SERVICE {job}").collect()
        if described["status"] in statuses:
            return described["status"]
        time.sleep(0.2)
    raise AssertionError(f"{job} is still {described['status']}")


def files(session, place: str, path: str) -> list[str]:
    return [r["name"].split("/", 1)[1] for r in session.sql(f"LIST @{place}.ST/{path}").collect()]


def output(session, place: str, path: str):
    read = session.read.option("PATTERN", ".*[.]parquet")
    return read.parquet(f"@{place}.ST/{path}").to_pandas().sort_values("F1")


def worker_pid(local_snowflake, session, job: str) -> int:
    """The job's process, as the server notes it in its data directory."""
    (described,) = session.sql(f"DESCRIBE SERVICE {job}").collect()
    return int(Path(local_snowflake.data_dir, "jobs", described["spec_digest"], "pid").read_text())


def test_run_batch_from_a_dataframe(models, version, session, place, rows, run_batch, local_snowflake):
    job = run_batch(
        version,
        session.table("FLIGHTS"),
        compute_pool="JOBS_POOL",
        output_spec=OutputSpec(stage_location=f"@{place}.ST/out/"),
        resources_spec=ResourcesSpec(cpu_requests="1", memory_requests="1Gi"),
        inference_spec=InferenceSpec(num_workers=1, max_batch_rows=16),
        function_name="predict",
        job_name=f"{place}.J1",
        replicas=2,
    )
    assert job.id == f"{place}.J1"
    assert job.status in ("PENDING", "RUNNING", "DONE")
    assert job.wait(WAIT) == "DONE"
    assert "out/J1/_SUCCESS" in files(session, place, "out/J1/")
    (written,) = Path(local_snowflake.data_dir, "stages").glob("*/out/J1")
    last = max(file.stat().st_mtime_ns for file in written.iterdir())
    assert (written / "_SUCCESS").stat().st_mtime_ns == last
    found = output(session, place, "out/J1/")
    assert list(found.columns) == ["F1", "F2", "output_feature_0"]
    assert list(found["output_feature_0"]) == list(models.classifier.predict(rows))
    assert "40 rows written" in job.get_logs()
    logs = session.sql(f"SELECT LOG FROM TABLE({place}.J1!spcs_get_logs())").collect()
    assert "Inference done, 40 rows written" in [r["LOG"] for r in logs]
    assert job.get_logs(limit=1, as_list=True) == ["Inference done, 40 rows written"]


def test_run_batch_from_a_stage_with_a_parameter(session, place, rows, run_batch):
    from snowflake.ml.registry import Registry

    registry = Registry(session, database_name="SNOWML", schema_name="SHARED_MODELS")
    session.table("FLIGHTS").write.copy_into_location(
        f"@{place}.ST/in/", file_format_type="parquet", header=True
    )
    job = run_batch(
        registry.get_model("CUSTOM").version("V1"),
        input_stage_location=f"@{place}.ST/in/",
        compute_pool="JOBS_POOL",
        input_spec=InputSpec(params={"by": 3.0}),
        output_spec=OutputSpec(stage_location=f"@{place}.ST/out/"),
        function_name="predict",
    )
    assert job.name.startswith("BATCH_INFERENCE_")
    assert job.wait(WAIT) == "DONE"
    found = output(session, place, f"out/{job.name}/")
    assert list(found["SHIFTED"]) == list(rows["F1"] + 3)


def test_sql_from_a_query_and_waiting_for_it(session, place):
    sql = statement(place, "J2", mode="ASYNC = FALSE", version="VERSION = FIRST")
    (row,) = session.sql(sql).collect()
    assert "J2" in row[0]
    assert len(output(session, place, "out/J2/")) == 40
    (described,) = session.sql(f"DESCRIBE SERVICE {place}.J2").collect()
    assert (described["status"], described["is_job"]) == ("DONE", "true")


def test_a_job_that_fails(session, place):
    job = f"{place}.JF"
    broken = {"model": f"MODEL = {CUSTOM}", "function": "FUNCTION = 'fail'"}
    sql = statement(place, "JF", **broken, mode="ASYNC = FALSE")
    with pytest.raises(SnowparkSQLException, match=r"Job .+ failed to complete.*Exited with status: FAILED"):
        session.sql(sql).collect()
    assert wait_for(session, job, "FAILED") == "FAILED"
    found = get_job(job, session=session)
    assert found.status == "FAILED"
    assert "ValueError: no good: 40 rows" in found.get_logs()
    (container,) = session.sql(f"SHOW SERVICE CONTAINERS IN SERVICE {job}").collect()
    assert "no good" in container["message"]
    assert not any("_SUCCESS" in f for f in files(session, place, "out/"))


def test_a_missing_column_is_named(session, place):
    session.sql(statement(place, "JC", source="FROM (SELECT F1, 1 AS OTHER FROM FLIGHTS)")).collect()
    assert wait_for(session, f"{place}.JC", "FAILED", "DONE") == "FAILED"
    (row,) = session.sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('{place}.JC', 0, 'main')").collect()
    assert "Column F2" in row[0]
    assert "F1, OTHER" in row[0]


def test_empty_input_fails(session, place):
    session.sql(statement(place, "JE", source=f"FROM @{place}.ST/nothing/")).collect()
    assert wait_for(session, f"{place}.JE", "FAILED", "DONE") == "FAILED"


def sleeping_job(session, place: str, name: str) -> str:
    sql = statement(place, name, model=f"MODEL = {CUSTOM}", function="FUNCTION = 'sleep'")
    session.sql(sql).collect()
    return f"{place}.{name}"


def test_cancel(session, place, local_snowflake, has_ended):
    job = sleeping_job(session, place, "JX")
    assert wait_for(session, job, "RUNNING") == "RUNNING"
    pid = worker_pid(local_snowflake, session, job)
    get_job(job, session=session).cancel()
    assert wait_for(session, job, "CANCELLED") == "CANCELLED"
    assert has_ended(pid)
    assert not any("_SUCCESS" in f for f in files(session, place, "out/"))
    session.sql(f"CALL {job}!spcs_cancel_job()").collect()  # again does no harm


def test_a_killed_worker(session, place, local_snowflake):
    job = sleeping_job(session, place, "JK")
    wait_for(session, job, "RUNNING")
    os.kill(worker_pid(local_snowflake, session, job), signal.SIGKILL)
    assert wait_for(session, job, "FAILED") == "FAILED"
    (instance,) = session.sql(f"SHOW SERVICE CONTAINERS IN SERVICE {job}").collect()
    assert "SIGKILL" in instance["message"]


def test_wait_for(session, place):
    job = sleeping_job(session, place, "JW")
    session.sql(f"CALL {job}!SPCS_WAIT_FOR('RUNNING', {WAIT})").collect()
    with pytest.raises(SnowparkSQLException, match="did not reach state DONE"):
        session.sql(f"CALL {job}!spcs_wait_for('DONE', 1)").collect()
    session.sql(f"CALL {job}!spcs_cancel_job()").collect()
    with pytest.raises(SnowparkSQLException, match="cannot reach state DONE"):
        session.sql(f"CALL {job}!spcs_wait_for('DONE', 30)").collect()


def test_show_list_and_delete(session, place):
    wait_for(session, sleeping_job(session, place, "J0"), "RUNNING")  # the image is built
    delete_job(f"{place}.J0", session=session)
    for build in session.sql(f"SHOW JOB SERVICES IN SCHEMA {place}").collect():
        session.sql(f"DROP SERVICE {place}.{build['name']}").collect()
    job = sleeping_job(session, place, "JS")
    for show in ("SHOW SERVICES", "SHOW JOB SERVICES"):
        (shown,) = session.sql(f"{show} IN SCHEMA {place} STARTS WITH 'JS'").collect()
        assert (shown["name"], shown["compute_pool"]) == ("JS", "JOBS_POOL")
    assert session.sql("SHOW SERVICES EXCLUDE JOBS").collect() == []
    listed = list_jobs(session=session)
    assert list(listed["name"]) == ["JS"]
    with pytest.raises(SnowparkSQLException, match="JS"):
        session.sql("DROP COMPUTE POOL JOBS_POOL").collect()
    delete_job(job, session=session)
    assert session.sql(f"SHOW SERVICES IN SCHEMA {place}").collect() == []
    assert len(list_jobs(session=session)) == 0
    assert get_job(job, session=session).status == "CANCELLED"  # from the job history
    session.sql(f"DROP SERVICE IF EXISTS {job}").collect()
    with pytest.raises(SnowparkSQLException) as e:
        session.sql(f"DROP SERVICE {job}").collect()
    assert e.value.sql_error_code == 2003


def test_a_name_that_exists_is_refused_until_dropped(session, place):
    job = sleeping_job(session, place, "JD")
    with pytest.raises(SnowparkSQLException, match="already exists") as e:
        session.sql(statement(place, "JD")).collect()
    assert e.value.sql_error_code == 2002
    session.sql(f"DROP SERVICE {job}").collect()
    session.sql(statement(place, "JD", mode="ASYNC = FALSE")).collect()
    assert wait_for(session, job, "DONE") == "DONE"


def test_save_modes(version, session, place, run_batch):
    session.sql("CREATE TABLE OLD AS SELECT 'old' AS X").collect()
    session.table("OLD").write.copy_into_location(
        f"@{place}.ST/out/JM/", file_format_type="parquet", header=True
    )
    with pytest.raises(SnowparkSQLException, match="not empty"):
        session.sql(statement(place, "JM")).collect()
    job = run_batch(
        version,
        session.table("FLIGHTS"),
        compute_pool="JOBS_POOL",
        output_spec=OutputSpec(stage_location=f"@{place}.ST/out/", mode=SaveMode.OVERWRITE),
        function_name="predict",
        job_name=f"{place}.JM",
    )
    assert job.wait(WAIT) == "DONE"
    assert len(output(session, place, "out/JM/")) == 40


def test_a_refused_submit_removes_the_staged_input(version, session, place, run_batch):
    with pytest.raises(DatabaseError):
        run_batch(
            version,
            session.table("FLIGHTS"),
            compute_pool="NO_SUCH_POOL",
            output_spec=OutputSpec(stage_location=f"@{place}.ST/out/"),
            function_name="predict",
        )
    assert files(session, place, "out/") == []


@pytest.mark.parametrize(
    ("changes", "errno", "words"),
    [
        ({"pool": "IN COMPUTE POOL NO_SUCH_POOL"}, 2003, "NO_SUCH_POOL"),
        ({"model": "MODEL = NO_SUCH_MODEL"}, 2003, "NO_SUCH_MODEL"),
        ({"version": "VERSION = V9"}, 2003, "V9"),
        ({"function": "FUNCTION = 'nope'"}, 2143, "predict, predict_proba"),
        ({"function": ""}, 1003, "several functions"),
        ({"source": "FROM @NO_SUCH_STAGE/x/"}, 2003, "NO_SUCH_STAGE"),
        ({"source": "FROM (SELECT * FROM NO_SUCH_TABLE)"}, 2003, "NO_SUCH_TABLE"),
        ({"source": "FROM @{place}.ST/out/in/"}, 395018, "inside the output"),
        ({"spec": "WITH SPECIFICATION 'output: {{stage_location: ''@NOT_THERE/x''}}'"}, 2003, "NOT_THERE"),
        ({"spec": "WITH SPECIFICATION 'output: {{mode: error}}'"}, 395018, "stage_location"),
        ({"spec": "WITH SPECIFICATION 'colour: {{red: 1}}'"}, 395018, "unknown key 'colour'"),
        (
            {"spec": "WITH SPECIFICATION 'output: {{stage_location: ''@{place}.ST/o'', colour: red}}'"},
            395018,
            "unknown key 'output.colour'",
        ),
        ({"name": 'NAME = {place}."../x"'}, 1003, "invalid job name"),
        ({"mode": "ASYNC = TRUE\nCOLOUR = RED"}, 1003, "COLOUR"),
        ({"mode": "ASYNC = TRUE REPLICAS = 99"}, 1008, "REPLICAS"),
    ],
)
def test_refused_before_anything_starts(connection, session, place, changes, errno, words):
    changes = {k: v.format(place=place) for k, v in changes.items()}
    with pytest.raises(ProgrammingError, match=words) as e:
        connection.cursor().execute(statement(place, "JR", **changes))
    assert e.value.errno == errno
    assert session.sql(f"SHOW SERVICES IN SCHEMA {place}").collect() == []
    assert files(session, place, "out/") == []


def test_a_partitioned_model(models, session, place):
    """A table function sees each value's rows together; the output has the value and its answer."""
    sql = statement(
        place,
        "JT",
        model="MODEL = SNOWML.SHARED_MODELS.PARTITIONED",
        function="FUNCTION = 'total'",
        spec="WITH SPECIFICATION 'input: {partition_column: F2}\n"
        f"output: {{stage_location: ''@{place}.ST/out/''}}'",
        mode="ASYNC = FALSE",
    )
    session.sql(sql).collect()
    read = session.read.option("PATTERN", ".*[.]parquet")
    found = read.parquet(f"@{place}.ST/out/JT/").to_pandas()
    expected = session.sql("SELECT F2, SUM(F1) AS T FROM FLIGHTS GROUP BY F2").collect()
    assert dict(zip(found["F2"], found["TOTAL"], strict=True)) == {r["F2"]: r["T"] for r in expected}


def test_dropping_the_schema_ends_its_jobs(session, place, local_snowflake, has_ended):
    job = sleeping_job(session, place, "JG")
    pid = worker_pid(local_snowflake, session, job)
    session.sql(f"DROP SCHEMA {place}").collect()
    assert has_ended(pid)


def test_cancelling_a_waiting_statement(connection, session, place):
    """ASYNC = FALSE: the statement can be cancelled; the job goes on."""
    cursor = connection.cursor()
    sql = statement(
        place, "JQ", model=f"MODEL = {CUSTOM}", function="FUNCTION = 'sleep'", mode="ASYNC = FALSE"
    )
    cursor.execute_async(sql)
    deadline = time.monotonic() + WAIT
    while not session.sql(f"SHOW SERVICES IN SCHEMA {place}").collect() and time.monotonic() < deadline:
        time.sleep(0.2)
    session.sql(f"SELECT SYSTEM$CANCEL_QUERY('{cursor.sfqid}')").collect()
    while connection.is_still_running(connection.get_query_status(cursor.sfqid)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert wait_for(session, f"{place}.JQ", "RUNNING") == "RUNNING"
    session.sql(f"CALL {place}.JQ!spcs_cancel_job()").collect()


def test_a_suspended_pool_keeps_the_job_waiting(session, place):
    pool = f"POOL_{uuid.uuid4().hex[:8].upper()}"
    session.sql(
        f"CREATE COMPUTE POOL {pool} MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS"
        " AUTO_RESUME = FALSE INITIALLY_SUSPENDED = TRUE"
    ).collect()
    session.sql(statement(place, "JP", pool=f"IN COMPUTE POOL {pool}")).collect()
    assert wait_for(session, f"{place}.JP", "PENDING", "RUNNING", "DONE") == "PENDING"
    with pytest.raises(SnowparkSQLException, match="PENDING"):
        session.sql(f"SELECT SYSTEM$GET_SERVICE_LOGS('{place}.JP', '0', 'main')").collect()
    session.sql(f"ALTER COMPUTE POOL {pool} RESUME").collect()
    assert wait_for(session, f"{place}.JP", "DONE", "FAILED") == "DONE"
    session.sql(f"DROP COMPUTE POOL {pool}").collect()


def test_jobs_outlive_a_killed_server_but_not_a_stopped_one(tmp_path, has_ended):
    """The worker of a killed server goes on; the next server on the directory finds its result."""
    import snowflake.connector

    from airflow_provider_snowml.local import LocalSnowflake

    def status(server: LocalSnowflake, name: str) -> str:
        with snowflake.connector.connect(**server.connection_parameters) as connection:
            cursor = connection.cursor(DictCursor)
            return cursor.execute(f"DESCRIBE SERVICE SNOWML.PUBLIC.{name}").fetchone()["status"]

    with LocalSnowflake(tmp_path) as server:
        _small_registry(server)
        with snowflake.connector.connect(**server.connection_parameters) as connection:
            for name, seconds in (("QUICK", 3), ("LONG", 600)):
                connection.cursor().execute(_small_job(name, seconds))
        os.kill(server.address.pid, signal.SIGKILL)
    with LocalSnowflake(tmp_path) as server:
        assert status(server, "LONG") in ("PENDING", "RUNNING")
        with snowflake.connector.connect(**server.connection_parameters) as connection:
            answer = connection.cursor().execute("SELECT SNOWML.PUBLIC.M!SLEEP(0)").fetchone()
        assert json.loads(answer[0]) == {"SLEPT": 0.0}
        deadline = time.monotonic() + WAIT
        while status(server, "QUICK") not in ("DONE", "FAILED") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert status(server, "QUICK") == "DONE"
        jobs = (tmp_path / "jobs").iterdir()
        (directory,) = (d for d in jobs if "out/LONG" in (d / "spec.json").read_text())
        pid = int((directory / "pid").read_text())
        os.kill(pid, 0)
    with LocalSnowflake(tmp_path) as server:
        assert status(server, "LONG") == "FAILED"
        assert has_ended(pid)


HANDLER = """
import time
def infer(frame):
    time.sleep(frame.iloc[0, 0])
    return [{"SLEPT": v} for v in frame.iloc[:, 0]]
"""
MANIFEST = """
manifest_version: '1.0'
methods:
- {name: SLEEP, handler: functions.sleep.infer, type: FUNCTION,
   inputs: [{name: SECONDS, type: DOUBLE}], outputs: [{type: OBJECT}]}
"""
SPEC = "signatures: {sleep: {inputs: [], outputs: [{name: SLEPT, type: DOUBLE}]}}\n"


def _small_registry(server) -> None:
    """A model without snowflake-ml-python: a package written by hand."""
    import tempfile

    import snowflake.connector

    with (
        snowflake.connector.connect(**server.connection_parameters) as connection,
        tempfile.TemporaryDirectory() as d,
    ):
        cursor = connection.cursor()
        cursor.execute("CREATE STAGE SNOWML.PUBLIC.ST")
        parts = {"MANIFEST.yml": MANIFEST, "functions/sleep.py": HANDLER, "model/model.yaml": SPEC}
        for path, text in parts.items():
            file = Path(d, path)
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            target = f"@SNOWML.PUBLIC.ST/package/{Path(path).parent}".removesuffix("/.")
            cursor.execute(f"PUT 'file://{file}' '{target}' AUTO_COMPRESS = FALSE")
        cursor.execute("CREATE MODEL SNOWML.PUBLIC.M WITH VERSION V1 FROM @SNOWML.PUBLIC.ST/package")
        cursor.execute("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_XS")


def _small_job(name: str, seconds: int) -> str:
    return (
        "EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL P"
        " WITH SPECIFICATION 'output: {stage_location: ''@SNOWML.PUBLIC.ST/out''}'"
        f" FROM (SELECT {seconds}::FLOAT AS SECONDS) MODEL = SNOWML.PUBLIC.M NAME = SNOWML.PUBLIC.{name}"
    )


def test_an_image_is_built_once_for_all_jobs_of_a_version(session, place):
    def builds() -> list:
        return session.sql(f"SHOW JOB SERVICES LIKE 'MODEL_BUILD_%' IN SCHEMA {place}").collect()

    def spec(build: str) -> str:
        return (
            f"WITH SPECIFICATION 'output:\n  stage_location: \\'@{place}.ST/out/\\'\n"
            f"image_build: {{{build}}}\n'"
        )

    session.sql(statement(place, "J1", spec=spec("force_rebuild: true"))).collect()
    (first,) = builds()
    assert first["status"] == "DONE"  # the statement waits for it
    session.sql(statement(place, "J2")).collect()
    assert len(builds()) == 1
    session.sql(f"CREATE IMAGE REPOSITORY {place}.REPO").collect()
    session.sql(statement(place, "J3", spec=spec(f"image_repo: {place}.REPO"))).collect()
    assert len(builds()) == 2
    with pytest.raises(SnowparkSQLException, match="NOWHERE"):
        session.sql(statement(place, "J4", spec=spec(f"image_repo: {place}.NOWHERE"))).collect()
    wait_for(session, f"{place}.J3", "DONE")
