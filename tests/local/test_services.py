"""Services of models through snowflake-ml-python, through SQL and over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from pathlib import Path

import pandas as pd
import pytest
import requests
import yaml
from snowflake.connector import DictCursor, connect
from snowflake.connector.errors import DatabaseError, ProgrammingError
from snowflake.ml._internal.platform_capabilities import PlatformCapabilities
from snowflake.ml.model._client.ops.deployment_step import DeploymentStep, get_service_id_from_deployment_step
from snowflake.ml.registry import Registry

CLASSIFIER = "SNOWML.SHARED_MODELS.CLASSIFIER"
CUSTOM = "SNOWML.SHARED_MODELS.CUSTOM"
WAIT = 180  # seconds; a small machine may be slow


def specification(service: str, model: str = CLASSIFIER, *, build=(), pool="SERVICES_POOL", **changes) -> str:
    """A deployment as snowflake-ml writes it."""
    spec = {
        "models": [{"name": model, "version": "V1"}],
        "image_build": {"compute_pool": "SERVICES_POOL", "force_rebuild": False, **dict(build)},
        "service": {
            "name": service,
            "compute_pool": pool,
            "ingress_enabled": False,
            "min_instances": 1,
            "max_instances": 1,
            **changes,
        },
    }
    return yaml.safe_dump(spec)


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def deploy(connection, service: str, *arguments, **keywords) -> str:
    """Deploy and wait; gives the statement's answer."""
    sql = f"CALL SYSTEM$DEPLOY_MODEL({literal(specification(service, *arguments, **keywords))})"
    return connection.cursor().execute(sql).fetchone()[0]


def submit(connection, service: str, *arguments, **keywords) -> str:
    """Deploy without waiting; gives the query id."""
    cursor = connection.cursor()
    sql = f"CALL SYSTEM$DEPLOY_MODEL({literal(specification(service, *arguments, **keywords))})"
    return cursor.execute_async(sql)["queryId"]


def result(connection, query_id: str) -> str:
    cursor = connection.cursor()
    cursor.get_results_from_sfqid(query_id)
    return cursor.fetchone()[0]


def show(connection, sql: str) -> list[dict]:
    return connection.cursor(DictCursor).execute(sql).fetchall()


def describe(connection, service: str) -> dict:
    (row,) = show(connection, f"DESCRIBE SERVICE {service}")
    return row


def instances(connection, service: str) -> list[dict]:
    return show(connection, f"SHOW SERVICE CONTAINERS IN SERVICE {service}")


def eventually(check, what: str):
    """The first true answer of ``check``."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {WAIT} seconds: {what}")


def wait_for(connection, service: str, status: str) -> dict:
    def check():
        try:
            row = describe(connection, service)
        except ProgrammingError:
            return None
        return row if row["status"] == status else None

    return eventually(check, f"{service} is {status}")


def suspended_pool(connection) -> str:
    """A pool that nothing but ALTER resumes: what is put there stays PENDING."""
    name = f"P_{uuid.uuid4().hex}".upper()
    connection.cursor().execute(
        f"CREATE COMPUTE POOL {name} MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS"
        " INITIALLY_SUSPENDED = TRUE AUTO_RESUME = FALSE"
    )
    return name


def pids(snowflake, connection, service: str) -> list[int]:
    """The processes of the instances, as the server notes them in its data directory."""
    digest = describe(connection, service)["spec_digest"]
    found = sorted(Path(snowflake.data_dir, "jobs").glob(f"{digest}-*/pid"))
    return [int(f.read_text()) for f in found]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.fixture(scope="module")
def pool(models) -> str:
    models.session.sql(
        "CREATE COMPUTE POOL IF NOT EXISTS SERVICES_POOL MIN_NODES = 1 MAX_NODES = 4"
        " INSTANCE_FAMILY = CPU_X64_XS"
    ).collect()
    return "SERVICES_POOL"


@pytest.fixture(scope="module")
def served(local_snowflake, models, pool) -> str:
    """A public service of the model with a parameter, two instances; its name."""
    name = "SNOWML.SHARED_MODELS.SERVED"
    with connect(**local_snowflake.connection_parameters) as connection:
        deploy(connection, name, CUSTOM, ingress_enabled=True, min_instances=2, max_instances=2)
    return name


@pytest.fixture
def version(session, pool):
    """The classifier's version on the test's own session."""
    registry = Registry(session, database_name="SNOWML", schema_name="SHARED_MODELS")
    return registry.get_model("CLASSIFIER").version("V1")


@pytest.fixture
def endpoint(local_snowflake, connection, served):
    """POST to a path of the public endpoint."""
    (shown,) = show(connection, f"SHOW ENDPOINTS IN SERVICE {served}")
    assert (shown["name"], shown["is_public"]) == ("inference", "true")
    token = local_snowflake.connection_parameters["password"]

    def post(path: str, body, **headers) -> requests.Response:
        given = {"Authorization": f'Snowflake Token="{token}"', **headers}
        return requests.post(f"https://{shown['ingress_url']}{path}", json=body, headers=given, timeout=WAIT)

    return post


# -- snowflake-ml-python ----------------------------------------------------------------------------------


def test_create_run_list_and_delete(version, session, schema, rows, models):
    answer = version.create_service(
        service_name=f"{schema}.S",
        service_compute_pool="SERVICES_POOL",
        ingress_enabled=True,
        min_instances=1,
        block=True,
    )
    assert "S" in answer
    (listed,) = version.list_services().to_dict("records")
    assert (listed["name"], listed["status"]) == (f"{schema}.S", "RUNNING")
    assert listed["inference_endpoint"].startswith("localhost:")
    assert listed["internal_endpoint"].endswith(":5000")
    assert not listed["autocapture_enabled"]
    found = version.run(rows, function_name="predict", service_name=f"{schema}.S")
    expected = version.run(rows, function_name="predict")
    pd.testing.assert_frame_equal(found, expected)
    assert list(found["output_feature_0"]) == list(models.classifier.predict(rows))
    session.create_dataframe(rows).write.save_as_table("FLIGHTS")
    found = version.run(session.table("FLIGHTS"), function_name="predict_proba", service_name=f"{schema}.S")
    assert found.count() == len(rows)
    version.delete_service(f"{schema}.S")
    assert version.list_services().empty
    with pytest.raises(ValueError, match="does not exist"):
        version.delete_service(f"{schema}.S")


@pytest.mark.parametrize("form", ["inline", "in a stage"])
def test_create_without_waiting(session, connection, schema, pool, form):
    """Where the server does not know of inline specifications, snowflake-ml uploads a file."""
    with contextlib.ExitStack() as stack:
        if form == "in a stage":
            stack.enter_context(PlatformCapabilities.mock_features({}))
        registry = Registry(session, database_name="SNOWML", schema_name="SHARED_MODELS")
        version = registry.get_model("CLASSIFIER").version("V1")
    job = version.create_service(
        service_name=f"{schema}.S", service_compute_pool="SERVICES_POOL", force_rebuild=True, block=False
    )
    build = f"{schema}." + get_service_id_from_deployment_step(job.query_id, DeploymentStep.MODEL_BUILD)
    assert wait_for(connection, build, "DONE")["is_job"] == "true"
    assert "S" in job.result()[0][0]
    assert describe(connection, f"{schema}.S")["status"] == "RUNNING"
    sql = connection.cursor().execute(
        "SELECT QUERY_TEXT FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY()) WHERE QUERY_ID = %s",
        (job.query_id,),
    )
    assert sql.fetchone()[0].startswith("CALL SYSTEM$DEPLOY_MODEL('@") == (form == "in a stage")


def test_a_model_with_more_columns_than_a_function_takes_arguments(registry, connection, schema, pool):
    from sklearn.linear_model import LinearRegression

    wide = pd.DataFrame([[float(i == j) for j in range(501)] for i in range(4)]).add_prefix("C")
    regression = LinearRegression().fit(wide, [0.0, 1.0, 2.0, 3.0])
    registry.log_model(regression, model_name="WIDE", version_name="V1", sample_input_data=wide)
    deploy(connection, f"{schema}.S", f"{schema}.WIDE")
    values = ", ".join(f"'{name}', {float(name == 'C2')}" for name in wide.columns)
    call = f"SELECT {schema}.S!PREDICT(OBJECT_CONSTRUCT_KEEP_NULL({values})):output_feature_0::FLOAT"
    assert connection.cursor().execute(call).fetchone()[0] == pytest.approx(2.0)


# -- the image build --------------------------------------------------------------------------------------


def test_the_build_is_a_job_of_its_own(connection, schema, pool):
    paused = suspended_pool(connection)
    query = submit(connection, f"{schema}.S", build={"force_rebuild": True, "compute_pool": paused})
    build = f"{schema}." + get_service_id_from_deployment_step(query, DeploymentStep.MODEL_BUILD)
    wait_for(connection, build, "PENDING")
    assert [s["name"] for s in show(connection, "SHOW SERVICES EXCLUDE JOBS")] == []
    (container,) = instances(connection, build)
    assert container["container_name"] == "model-build"
    connection.cursor().execute(f"ALTER COMPUTE POOL {paused} RESUME")
    result(connection, query)
    assert describe(connection, build)["status"] == "DONE"
    sql = f"CALL SYSTEM$GET_SERVICE_LOGS('{build}', '0', 'model-build')"
    log = connection.cursor().execute(sql).fetchone()[0]
    assert "Simulated by the local Snowflake" in log
    assert "Image build complete" in log
    assert [s["name"] for s in show(connection, "SHOW SERVICES EXCLUDE JOBS")] == ["S"]
    assert [s["name"] for s in show(connection, "SHOW JOB SERVICES")] == [build.split(".")[2]]


def test_an_image_is_built_once(connection, schema, model, pool):
    deploy(connection, f"{schema}.S1", model)
    deploy(connection, f"{schema}.S2", model)
    assert len(show(connection, "SHOW SERVICES STARTS WITH 'MODEL_BUILD_'")) == 1
    deploy(connection, f"{schema}.S3", model, build={"force_rebuild": True})
    assert len(show(connection, "SHOW SERVICES STARTS WITH 'MODEL_BUILD_'")) == 2
    connection.cursor().execute("CREATE IMAGE REPOSITORY REPO")
    deploy(connection, f"{schema}.S4", model, build={"image_repo": f"{schema}.REPO"})
    assert len(show(connection, "SHOW SERVICES STARTS WITH 'MODEL_BUILD_'")) == 3
    assert "/repo/" in instances(connection, f"{schema}.S4")[0]["image_name"]


def test_image_repositories(connection, schema):
    cursor = connection.cursor()
    cursor.execute("CREATE IMAGE REPOSITORY REPO COMMENT = 'images'")
    cursor.execute("CREATE IMAGE REPOSITORY IF NOT EXISTS REPO")
    with pytest.raises(ProgrammingError, match="already exists"):
        cursor.execute("CREATE IMAGE REPOSITORY REPO")
    (row,) = show(connection, "SHOW IMAGE REPOSITORIES LIKE 'rep%'")
    assert (row["name"], row["comment"]) == ("REPO", "images")
    assert row["repository_url"].endswith("/" + schema.replace(".", "/").lower() + "/repo")
    cursor.execute("DROP IMAGE REPOSITORY REPO")
    cursor.execute("DROP IMAGE REPOSITORY IF EXISTS REPO")
    assert show(connection, "SHOW IMAGE REPOSITORIES") == []


@pytest.mark.parametrize("how", ["query", "job", "drop"])
def test_a_build_is_cancelled(connection, schema, model, pool, how):
    """With its statement it is not: that one only stops to wait."""
    name = suspended_pool(connection)
    query = submit(connection, f"{schema}.S", model, build={"compute_pool": name})
    build = f"{schema}." + get_service_id_from_deployment_step(query, DeploymentStep.MODEL_BUILD)
    wait_for(connection, build, "PENDING")
    if how == "query":
        connection.cursor().execute(f"SELECT SYSTEM$CANCEL_QUERY('{query}')")
    elif how == "job":
        connection.cursor().execute(f"CALL {build}!SPCS_CANCEL_JOB()")
    else:
        connection.cursor().execute(f"DROP SERVICE {build}")
    with pytest.raises(DatabaseError, match=r"cancel|CANCELLED"):
        result(connection, query)
    if how == "job":
        assert describe(connection, build)["status"] == "CANCELLED"
    if how == "query":
        assert describe(connection, build)["status"] == "PENDING"
        connection.cursor().execute(f"ALTER COMPUTE POOL {name} RESUME")
        wait_for(connection, build, "DONE")
    assert show(connection, "SHOW SERVICES EXCLUDE JOBS") == []


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"autocapture": True}, "service.autocapture"),
        ({"inference_engine_spec": {"inference_engine_name": "vllm"}}, "service.inference_engine_spec"),
        ({"feature_retrieval": {"lookups": {}}}, "service.feature_retrieval"),
        ({"adapters": [{"name": "A", "version": "V1"}]}, "service.adapters"),
        ({"colour": "blue"}, "unknown key 'service.colour'"),
        ({"min_instances": 3, "max_instances": 2}, "MIN_INSTANCES"),
        ({"gpu": "1"}, "has none"),
        ({"pool": "NO_POOL"}, "NO_POOL.*does not exist"),
        ({"build": {"image_repo": "SNOWML.SHARED_MODELS.NO_REPO"}}, "NO_REPO.*does not exist"),
        ({"build": {"compute_pool": "NO_POOL"}}, "NO_POOL.*does not exist"),
    ],
)
def test_what_a_deployment_cannot_ask_for(connection, schema, pool, changes, message):
    with pytest.raises(ProgrammingError, match=message):
        deploy(connection, f"{schema}.S", **changes)
    assert show(connection, "SHOW SERVICES") == []


def test_a_model_that_cannot_be_served(connection, schema, pool):
    with pytest.raises(ProgrammingError, match="table functions only"):
        deploy(connection, f"{schema}.S", "SNOWML.SHARED_MODELS.PARTITIONED")
    with pytest.raises(ProgrammingError, match=r"NO_MODEL.*does not exist"):
        deploy(connection, f"{schema}.S", "SNOWML.SHARED_MODELS.NO_MODEL")
    with pytest.raises(ProgrammingError, match=r"NO_SCHEMA.*does not exist"):
        deploy(connection, "SNOWML.NO_SCHEMA.S")


def test_a_name_that_is_taken(connection, schema, served):
    with pytest.raises(ProgrammingError, match="already exists") as e:
        deploy(connection, served, build={"force_rebuild": True})
    assert e.value.errno == 2002
    schema_of_served = served.rpartition(".")[0]
    builds = show(connection, f"SHOW SERVICES LIKE 'MODEL_BUILD%' IN SCHEMA {schema_of_served}")
    assert all(b["status"] == "DONE" for b in builds)


def test_other_services_are_refused_by_name(connection, schema, served):
    for sql in (
        f"CREATE SERVICE {schema}.X IN COMPUTE POOL P FROM SPECIFICATION 'spec:'",
        f"CREATE GATEWAY {schema}.G FROM SPECIFICATION 'spec:'",
        f"ALTER SERVICE {served} SET QUERY_WAREHOUSE = W",
        f"ALTER SERVICE {served} FROM SPECIFICATION 'spec:'",
    ):
        with pytest.raises(ProgrammingError, match="Unsupported feature"):
            connection.cursor().execute(sql)


# -- what one sees of a service ---------------------------------------------------------------------------


def test_show_and_describe(connection, served):
    row = describe(connection, served)
    expected = {
        "name": "SERVED",
        "status": "RUNNING",
        "compute_pool": "SERVICES_POOL",
        "current_instances": 2,
        "target_instances": 2,
        "min_instances": 2,
        "max_instances": 2,
        "auto_resume": "true",
        "is_job": "false",
        "managing_object_domain": "Model",
        "managing_object_name": CUSTOM,
    }
    assert {k: row[k] for k in expected} == expected
    spec = yaml.safe_load(row["spec"])["spec"]
    assert spec["containers"][0]["name"] == "model-inference"
    assert spec["endpoints"] == [{"name": "inference", "port": 5000, "public": True}]
    (shown,) = show(connection, "SHOW SERVICES LIKE 'serv%' IN SCHEMA SNOWML.SHARED_MODELS LIMIT 1")
    assert shown == {k: v for k, v in row.items() if k != "spec"}
    containers = instances(connection, served)
    assert [(c["instance_id"], c["status"], c["restart_count"]) for c in containers] == [
        ("0", "READY", 0),
        ("1", "READY", 0),
    ]
    shown = show(connection, f"SHOW SERVICE INSTANCES IN SERVICE {served}")
    assert [(i["instance_id"], i["status"]) for i in shown] == [("0", "READY"), ("1", "READY")]
    (of_pool,) = show(connection, "SHOW COMPUTE POOLS LIKE 'SERVICES_POOL'")
    assert of_pool["num_services"] >= 1


def test_logs(connection, served):
    for instance in ("0", "1"):
        sql = f"CALL SYSTEM$GET_SERVICE_LOGS('{served}', '{instance}', 'model-inference', 100)"
        assert "Model loaded, answering /predict" in connection.cursor().execute(sql).fetchone()[0]
    lines = show(connection, f"SELECT LOG FROM TABLE({served}!SPCS_GET_LOGS())")
    assert f"Loading {CUSTOM} version V1" in [line["LOG"] for line in lines]
    with pytest.raises(DatabaseError, match="it has 'model-inference'"):
        connection.cursor().execute(f"CALL SYSTEM$GET_SERVICE_LOGS('{served}', '0', 'main')")
    with pytest.raises(DatabaseError, match="Instance 2 not found"):
        connection.cursor().execute(f"CALL SYSTEM$GET_SERVICE_LOGS('{served}', '2', 'model-inference')")


def test_wait_for(connection, served):
    (row,) = connection.cursor().execute(f"CALL {served}!SPCS_WAIT_FOR('RUNNING', 5)").fetchall()
    assert "RUNNING" in row[0]
    with pytest.raises(DatabaseError, match="did not reach state SUSPENDED within 0 seconds"):
        connection.cursor().execute(f"CALL {served}!SPCS_WAIT_FOR('SUSPENDED', 0)")


def test_the_endpoint_of_a_private_service(connection, schema, model, pool):
    deploy(connection, f"{schema}.S", model)
    (shown,) = show(connection, f"SHOW ENDPOINTS IN SERVICE {schema}.S")
    assert (shown["is_public"], shown["ingress_url"], shown["port"]) == ("false", None, 5000)


# -- predictions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"data": [[0, 1.0, 2.0, 10.0], [1, 3.0, 4.0, 10.0]]},
        {"data": [[0, {"F1": 1.0, "F2": 2.0, "by": 10}], [1, {"F1": 3.0, "F2": 4.0, "by": 10}]]},
        {
            "dataframe_split": {"index": [0, 1], "columns": ["F1", "F2"], "data": [[1.0, 2.0], [3.0, 4.0]]},
            "params": {"by": 10},
        },
        {
            "dataframe_records": [{"F1": 1.0, "F2": 2.0, "ID": "a"}, {"F1": 3.0, "F2": 4.0, "ID": "b"}],
            "params": {"by": 10},
            "extra_columns": ["ID"],
        },
    ],
)
def test_the_formats_of_a_request(endpoint, body):
    answer = endpoint("/predict", body)
    assert answer.status_code == 200
    assert answer.json() == {"data": [[0, {"SHIFTED": 11.0}], [1, {"SHIFTED": 13.0}]]}


def test_a_parameter_has_its_default(endpoint):
    record = {"dataframe_records": [{"F1": 1.0, "F2": 2.0}]}
    assert endpoint("/predict", record).json() == {"data": [[0, {"SHIFTED": 101.0}]]}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/predict", {"data": [[0, 1.0, 2.0]]}, 400, "has 2 value.s., the function takes 3: F1, F2, by"),
        ("/predict", {"dataframe_records": [{"F1": 1.0}]}, 400, r"missing column\(s\) \['F2'\]"),
        (
            "/predict",
            {"dataframe_records": [{"F1": 1, "F2": 2, "F3": 3}]},
            400,
            r"unknown column\(s\) \['F3'\]",
        ),
        ("/predict", {"dataframe_split": {"columns": ["F1"], "data": [[1, 2]]}}, 400, "row 0"),
        ("/predict", {"instances": []}, 400, "needs one of 'data'"),
        ("/predict", [1], 400, "not a JSON object"),
        ("/fail", {"data": [[0, 1.0, 2.0]]}, 400, "no good: 1 rows"),
        ("/nothing", {"data": []}, 404, "there is /predict"),
    ],
)
def test_a_request_that_does_not_fit(endpoint, path, body, status, message):
    import re

    answer = endpoint(path, body)
    assert answer.status_code == status
    assert re.search(message, answer.json()["error"])


def test_who_may_ask(endpoint, connection, local_snowflake):
    record = {"dataframe_records": [{"F1": 1.0, "F2": 2.0}]}
    assert endpoint("/predict", record, Authorization="").status_code == 401
    assert endpoint("/predict", record, Authorization='Snowflake Token="wrong"').status_code == 401
    session_token = f'Snowflake Token="{connection.rest.token}"'
    assert endpoint("/predict", record, Authorization=session_token).status_code == 200
    host = f"{local_snowflake.address.host}:{local_snowflake.address.port}"
    unknown = f"https://{host}/ingress/none.snowflakecomputing.app/predict"
    answer = requests.post(unknown, json=record, headers={"Authorization": session_token}, timeout=WAIT)
    assert answer.status_code == 404


def test_a_request_resumes_a_service(local_snowflake, connection, schema, model, pool):
    service = f"{schema}.S"
    deploy(connection, service, model, ingress_enabled=True)
    connection.cursor().execute(f"ALTER SERVICE {service} SUSPEND")
    (shown,) = show(connection, f"SHOW ENDPOINTS IN SERVICE {service}")
    url = f"https://{shown['ingress_url']}/predict"
    headers = {"Authorization": f'Snowflake Token="{connection.rest.token}"'}
    body = {"data": [[7, 30.0, 1.0]]}

    def answered():
        answer = requests.post(url, json=body, headers=headers, timeout=WAIT)
        assert answer.status_code in (200, 503)
        return answer if answer.status_code == 200 else None

    answer = eventually(answered, "the service is resumed by a request")
    assert answer.json() == {"data": [[7, {"output_feature_0": "late"}]]}
    connection.cursor().execute(f"ALTER SERVICE {service} SET AUTO_RESUME = FALSE")
    connection.cursor().execute(f"ALTER SERVICE {service} SUSPEND")
    answer = requests.post(url, json=body, headers=headers, timeout=WAIT)
    assert answer.status_code == 503
    assert "suspended" in answer.json()["error"]


def test_in_sql(connection, served):
    cursor = connection.cursor()
    sql = f"SELECT {served}!PREDICT(SEQ4(), 0, 5):SHIFTED::FLOAT AS S FROM TABLE(GENERATOR(ROWCOUNT => 5000))"
    assert sorted(r[0] for r in cursor.execute(sql).fetchall()) == [i + 5.0 for i in range(5000)]
    with pytest.raises(ProgrammingError, match="Unknown function NOTHING in service"):
        cursor.execute(f"SELECT {served}!NOTHING(1, 2, 3)")
    with pytest.raises(ProgrammingError, match="got 1 arguments, expected 3"):
        cursor.execute(f"SELECT {served}!PREDICT(1)")
    with pytest.raises(DatabaseError, match=r"400 .*no good: 1 rows"):
        cursor.execute(f"SELECT {served}!FAIL(1, 2)")


def test_requests_go_to_every_instance(connection, endpoint, served):
    def lines(instance: int) -> int:
        sql = f"CALL SYSTEM$GET_SERVICE_LOGS('{served}', '{instance}', 'model-inference')"
        return connection.cursor().execute(sql).fetchone()[0].count("POST /predict")

    before = lines(0), lines(1)
    for _ in range(4):
        endpoint("/predict", {"dataframe_records": [{"F1": 1.0, "F2": 2.0}]})
    assert (lines(0), lines(1)) == (before[0] + 2, before[1] + 2)


# -- what becomes of a service ----------------------------------------------------------------------------


def test_suspend_and_resume(local_snowflake, connection, schema, model, pool):
    service = f"{schema}.S"
    deploy(connection, service, model, min_instances=2, max_instances=2)
    before = pids(local_snowflake, connection, service)
    connection.cursor().execute(f"ALTER SERVICE {service} SUSPEND")
    row = describe(connection, service)
    assert (row["status"], row["current_instances"]) == ("SUSPENDED", 0)
    assert row["suspended_on"] is not None
    assert not any(is_alive(pid) for pid in before)
    (nothing,) = instances(connection, service)
    assert (nothing["service_status"], nothing["instance_id"], nothing["status"]) == ("SUSPENDED", None, None)
    connection.cursor().execute(f"ALTER SERVICE IF EXISTS {service} RESUME")
    assert wait_for(connection, service, "RUNNING")["resumed_on"] is not None
    assert all(is_alive(pid) for pid in pids(local_snowflake, connection, service))
    connection.cursor().execute(f"ALTER SERVICE IF EXISTS {schema}.NO_SERVICE SUSPEND")


def test_a_call_resumes_a_service(connection, schema, model, pool):
    service = f"{schema}.S"
    deploy(connection, service, model)
    call = f"SELECT {service}!PREDICT(30, 1):output_feature_0::TEXT"
    connection.cursor().execute(f"ALTER SERVICE {service} SUSPEND")
    assert connection.cursor().execute(call).fetchone() == ("late",)
    assert describe(connection, service)["status"] == "RUNNING"
    connection.cursor().execute(f"ALTER SERVICE {service} SET AUTO_RESUME = FALSE COMMENT = 'off'")
    connection.cursor().execute(f"ALTER SERVICE {service} SUSPEND")
    with pytest.raises(
        DatabaseError, match=r"no service hosts found.*suspended, and its AUTO_RESUME is FALSE"
    ):
        connection.cursor().execute(call)
    row = describe(connection, service)
    assert (row["status"], row["auto_resume"], row["comment"]) == ("SUSPENDED", "false", "off")


def test_more_and_fewer_instances(local_snowflake, connection, schema, model, pool):
    service = f"{schema}.S"
    deploy(connection, service, model)
    connection.cursor().execute(f"ALTER SERVICE {service} SET MIN_INSTANCES = 2 MAX_INSTANCES = 3")
    wait_for(connection, service, "RUNNING")
    assert [c["status"] for c in instances(connection, service)] == ["READY", "READY"]
    _, second = pids(local_snowflake, connection, service)
    connection.cursor().execute(f"ALTER SERVICE {service} SET MIN_INSTANCES = 0")
    assert len(instances(connection, service)) == 1
    eventually(lambda: not is_alive(second), "the second instance has ended")
    with pytest.raises(ProgrammingError, match="MAX_INSTANCES"):
        connection.cursor().execute(f"ALTER SERVICE {service} SET MIN_INSTANCES = 9")


def test_an_instance_that_dies_is_started_again(local_snowflake, connection, schema, model, pool):
    service = f"{schema}.S"
    deploy(connection, service, model)
    (pid,) = pids(local_snowflake, connection, service)
    os.kill(pid, signal.SIGKILL)

    def restarted():
        (container,) = instances(connection, service)
        return container if container["restart_count"] and container["status"] == "READY" else None

    container = eventually(restarted, "the instance is ready again")
    assert (container["restart_count"], container["last_exit_code"]) == (1, "137")
    assert container["last_restart_time"] is not None
    assert describe(connection, service)["status"] == "RUNNING"


def test_a_model_that_cannot_be_loaded(local_snowflake, connection, schema, model, pool):
    connection.cursor().execute(f"CREATE MODEL BROKEN WITH VERSION V1 FROM MODEL {model} VERSION V1")
    found = Path(local_snowflake.data_dir, "models").glob("*/versions/*/functions/predict.py")
    newest = max(found, key=lambda f: f.stat().st_ctime)
    newest.write_text("raise RuntimeError('this model is broken')\n")
    query = submit(connection, f"{schema}.S", f"{schema}.BROKEN")
    row = wait_for(connection, f"{schema}.S", "FAILED")
    with pytest.raises(DatabaseError, match="cannot be loaded: RuntimeError: this model is broken"):
        result(connection, query)
    (container,) = instances(connection, f"{schema}.S")
    assert (container["service_status"], container["status"]) == ("FAILED", "FAILED")
    assert "this model is broken" in container["message"]
    assert row["is_job"] == "false"
    with pytest.raises(DatabaseError, match="it is FAILED"):
        connection.cursor().execute(f"CALL {schema}.S!SPCS_WAIT_FOR('RUNNING', 60)")


def test_a_model_that_is_dropped(local_snowflake, connection, schema, model, pool):
    """What runs goes on; what has to load the model again fails."""
    service = f"{schema}.S"
    deploy(connection, service, model, ingress_enabled=True)
    connection.cursor().execute(f"DROP MODEL {model}")
    assert describe(connection, service)["status"] == "RUNNING"
    call = f"SELECT {service}!PREDICT(30, 1):output_feature_0::TEXT"
    assert connection.cursor().execute(call).fetchone() == ("late",)
    connection.cursor().execute(f"ALTER SERVICE {service} SUSPEND")
    connection.cursor().execute(f"ALTER SERVICE {service} RESUME")
    wait_for(connection, service, "FAILED")
    with pytest.raises(DatabaseError, match="no service hosts found"):
        connection.cursor().execute(call)


def test_a_suspended_pool(connection, schema, model, pool):
    name = suspended_pool(connection)
    cursor = connection.cursor()
    query = submit(connection, f"{schema}.S", model, pool=name)
    wait_for(connection, f"{schema}.S", "PENDING")
    (container,) = instances(connection, f"{schema}.S")
    assert (container["instance_id"], container["service_status"]) == (None, "PENDING")
    assert name in container["message"]
    with pytest.raises(DatabaseError, match="no service hosts found"):
        cursor.execute(f"SELECT {schema}.S!PREDICT(30, 1)")
    cursor.execute(f"ALTER COMPUTE POOL {name} RESUME")
    assert "S" in result(connection, query)
    assert describe(connection, f"{schema}.S")["status"] == "RUNNING"
    cursor.execute(f"ALTER COMPUTE POOL {name} SUSPEND")
    assert describe(connection, f"{schema}.S")["status"] == "SUSPENDED"
    cursor.execute(f"ALTER COMPUTE POOL {name} RESUME")
    assert describe(connection, f"{schema}.S")["status"] == "SUSPENDED"
    with pytest.raises(ProgrammingError, match="1 service"):
        cursor.execute(f"DROP COMPUTE POOL {name}")
    cursor.execute(f"ALTER SERVICE {schema}.S RESUME")
    wait_for(connection, f"{schema}.S", "RUNNING")
    with pytest.raises(ProgrammingError, match="1 service"):
        cursor.execute(f"DROP COMPUTE POOL {name}")
    cursor.execute(f"ALTER COMPUTE POOL {name} STOP ALL")
    assert show(connection, "SHOW SERVICES EXCLUDE JOBS") == []
    cursor.execute(f"DROP COMPUTE POOL {name}")


@pytest.mark.parametrize("what", ["SERVICE {}.S", "SCHEMA {}"])
def test_drop(local_snowflake, connection, schema, model, pool, what):
    deploy(connection, f"{schema}.S", model)
    found = pids(local_snowflake, connection, f"{schema}.S")
    assert [is_alive(pid) for pid in found] == [True]
    connection.cursor().execute("DROP " + what.format(schema))
    assert not any(is_alive(pid) for pid in found)
    with pytest.raises(ProgrammingError, match="does not exist"):
        connection.cursor().execute(f"DESCRIBE SERVICE {schema}.S")
    connection.cursor().execute(f"DROP SERVICE IF EXISTS {schema}.S")


def test_the_history_is_of_jobs_only(connection, served):
    names = [r["NAME"] for r in show(connection, "SELECT NAME FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY())")]
    assert "SERVED" not in names
    assert any(name.startswith("MODEL_BUILD_") for name in names)
    with pytest.raises(DatabaseError, match="no job"):
        connection.cursor().execute(f"CALL {served}!SPCS_CANCEL_JOB()")


def test_json_of_show_versions(connection, served):
    (row,) = show(connection, f"SHOW VERSIONS IN MODEL {CUSTOM}")
    assert json.loads(row["inference_services"]) == [served]


@pytest.mark.parametrize("how", ["dropped", "suspended"])
def test_a_service_that_is_gone_when_its_restart_comes(tmp_path, how):
    """The list of services to start again is older than what became of one of them."""
    from airflow_provider_snowml.local import services
    from airflow_provider_snowml.local.account import Account
    from airflow_provider_snowml.local.catalog import Qualified

    account = Account(tmp_path, "localhost", 0)
    try:
        name = Qualified("SNOWML", "PUBLIC", "S")
        data = {"container": services.CONTAINER, "min_instances": 1, "suspended": False, "changed": 0.0}
        data.update(id="s", waits_for_pool=False, compute_pool="P", worker={})
        listed = [account.catalog.create("SERVICE", name, "R", data)]
        if how == "suspended":
            services.suspend(account, listed[0])
        else:
            account.catalog.drop("SERVICE", name)
        services._start_again(account, listed)
        assert not account.containers.directory("s-0").exists() or how == "suspended"
        assert not account.containers.alive("s-0")

        # And one that goes at the very moment.
        account.catalog.create("SERVICE", name, "R", data, replace=True)
        renew = account.containers.renew

        def renewed(*arguments):
            renew(*arguments)
            with account.catalog.change("SERVICE", name) as changed:
                changed.data["suspended"] = True
            if how == "dropped":
                account.catalog.drop("SERVICE", name)

        account.containers.renew = renewed
        services._start_again(account, listed)
        deadline = time.monotonic() + WAIT
        while account.containers.alive("s-0"):  # it has no model to load, and may be ending by itself
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert account.containers.directory("s-0").exists() == (how == "suspended")
    finally:
        account.close()


def test_a_server_that_was_killed_and_one_that_is_stopped(tmp_path, rows):
    """Its services run again after the next start, and no process of them is left behind."""
    from sklearn.linear_model import LogisticRegression
    from snowflake.snowpark import Session

    from airflow_provider_snowml.local import LocalSnowflake

    service = "SNOWML.PUBLIC.S"
    with LocalSnowflake(tmp_path, image_build_seconds=0) as snowflake:
        with Session.builder.configs(snowflake.connection_parameters).create() as session:
            session.sql(
                "CREATE COMPUTE POOL SERVICES_POOL MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS"
            ).collect()
            classifier = LogisticRegression().fit(rows, rows.F1 > 20)
            registry = Registry(session, database_name="SNOWML", schema_name="PUBLIC")
            registry.log_model(classifier, model_name="M", version_name="V1", sample_input_data=rows)
            deploy(session.connection, service, "SNOWML.PUBLIC.M")
            (first,) = pids(snowflake, session.connection, service)
        os.kill(snowflake.address.pid, signal.SIGKILL)
    eventually(lambda: not is_alive(first), "the instance has ended with its server")
    with LocalSnowflake(tmp_path) as snowflake, connect(**snowflake.connection_parameters) as connection:
        wait_for(connection, service, "RUNNING")
        (second,) = pids(snowflake, connection, service)
        assert is_alive(second)
        cursor = connection.cursor().execute(f"SELECT {service}!PREDICT(30, 1):output_feature_0::BOOLEAN")
        assert cursor.fetchone() == (True,)
    assert not is_alive(second)
