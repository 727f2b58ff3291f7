"""The operators of services, against real processes: the good day and the bad one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.exceptions import (
    ComputePoolNotFoundError,
    ImageRepositoryNotFoundError,
    InvalidArgumentError,
    InvalidNameError,
    ModelNotFoundError,
    ModelNotServableError,
    ModelVersionNotFoundError,
    NotAModelServiceError,
    ServiceCancelledError,
    ServiceConflictError,
    ServiceExistsError,
    ServiceFailedError,
    ServiceLostError,
    ServiceNotFoundError,
    ServicePollingError,
    ServiceTimeoutError,
)
from airflow_provider_snowml.hooks import services as service_hooks
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators import services as service_operators
from airflow_provider_snowml.operators.service_submission import STATE_KEY
from airflow_provider_snowml.operators.services import (
    SnowMLCreateServiceOperator,
    SnowMLDropServiceOperator,
)

# The program that a worker is, for the test that kills one.
WORKER = str(Path(__file__).with_name("service_worker.py"))


def create(name: str, **arguments: Any) -> SnowMLCreateServiceOperator:
    return SnowMLCreateServiceOperator(
        task_id="serve",
        **{
            "model_name": "M",
            "service_name": name,
            "service_compute_pool": "SERVICE_POOL",
            "min_instances": 1,
            "poll_interval": 0.2,
            **arguments,
        },
    )


def build_for_ever(name: str, **arguments: Any) -> SnowMLCreateServiceOperator:
    """One whose image build never starts."""
    stuck = {"image_build_compute_pool": "SLEEPING_SERVICE_POOL", "force_rebuild": True}
    return create(name, **{**stuck, **arguments})


def start_for_ever(name: str, **arguments: Any) -> SnowMLCreateServiceOperator:
    """One whose service exists and never starts."""
    stuck = {"service_compute_pool": "SLEEPING_SERVICE_POOL", "image_build_compute_pool": "SERVICE_POOL"}
    return create(name, **{**stuck, **arguments})


def drop(name: str, **arguments: Any) -> SnowMLDropServiceOperator:
    return SnowMLDropServiceOperator(task_id="drop", service_name=name, **arguments)


def wait_for(condition: Any, what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not seen in {seconds} s: {what}"
        time.sleep(0.2)
    return value


def until_killed(task: Any, context: Any, seen: Any) -> None:
    """Run a task that is killed as soon as something is seen."""
    killer = threading.Thread(target=lambda: (wait_for(seen, "what the kill waits for"), task.on_kill()))
    killer.start()
    try:
        task.execute(context)
    finally:
        killer.join()


def query_id(context: Any) -> str | None:
    return context["task_state_store"].get(STATE_KEY, {}).get("query_id")


def build_status(serving: Any, name: str, query: str) -> str | None:
    service = QualifiedName.parse(f"{serving.schema}.{name}")
    return serving.hook().job_status(service_hooks.build_job(service, query))


# -- the good day -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
def test_in_a_dag(serving, run_dag, deferrable) -> None:
    with DAG(f"serve_{deferrable}", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        served = create("SVC", version_name="CHAMPION", ingress_enabled=True, deferrable=deferrable)
        served >> drop("{{ ti.xcom_pull('serve')['service_name'] }}")
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    result = xcoms["serve"]
    assert result.pop("query_id")
    assert result.pop("ingress_url").endswith(".snowflakecomputing.app")
    assert result.pop("dns_name").startswith("svc.")
    assert result == {
        "service_name": f"{serving.schema}.SVC",
        "model": f"{serving.schema}.M",
        "version": "V1",
        "status": "RUNNING",
        "instances": 1,
        "reused": False,
    }
    assert xcoms["drop"] == {"service_name": f"{serving.schema}.SVC", "dropped": True}
    assert not serving.services()


def test_every_instance_is_waited_for_and_answers_like_the_model(serving, task_context) -> None:
    result = create("TWO", min_instances=2, max_instances=2, num_workers=1).execute(task_context("serve"))
    assert (result["instances"], result["ingress_url"]) == (2, None)
    hook = serving.hook()
    different = hook.value(
        f"SELECT COUNT_IF({serving.schema}.TWO!PREDICT(F1, F2):output_feature_0::INT "
        "<> MODEL(M, V1)!PREDICT(F1, F2):output_feature_0::INT) FROM X"
    )
    assert different == 0


def test_it_need_only_exist(serving, task_context) -> None:
    task = start_for_ever("BEGUN", wait_until_ready=False)
    result = task.execute(task_context("serve"))
    assert (result["status"], result["instances"]) == ("PENDING", 0)
    assert serving.services() == {"BEGUN": "PENDING"}


# -- retries ------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """A worker that is gone."""


def test_a_retry_attaches_to_what_is_ready(serving, task_context) -> None:
    context = task_context("serve")
    first = create("AGAIN").execute(context)
    # The alias has moved since; a retry keeps the version that it began with.
    assert create("AGAIN").execute(context) == first
    assert serving.services() == {"AGAIN": "RUNNING"}


def test_a_retry_attaches_to_the_statement_that_runs(serving, task_context) -> None:
    context = task_context("serve")
    with pytest.raises(TaskDeferred):
        build_for_ever("BUILT", deferrable=True).execute(context)
    first = query_id(context)
    with pytest.raises(TaskDeferred) as deferred:
        build_for_ever("BUILT", deferrable=True).execute(context)
    assert deferred.value.trigger.intent["query_id"] == first == query_id(context)
    asyncio.run(deferred.value.trigger.on_kill())


def test_a_statement_whose_reply_was_lost_is_found(serving, task_context, monkeypatch) -> None:
    context = task_context("serve")
    sent: list[str] = []
    real = SnowMLHook.submit

    def lost(self: SnowMLHook, sql: str) -> str:
        sent.append(real(self, sql))
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(SnowMLHook, "submit", lost)
        build_for_ever("LOST", deferrable=True).execute(context)
    assert query_id(context) is None
    with pytest.raises(TaskDeferred) as deferred:
        build_for_ever("LOST", deferrable=True).execute(context)
    assert [deferred.value.trigger.intent["query_id"]] == sent
    asyncio.run(deferred.value.trigger.on_kill())


def test_a_killed_worker_leaves_one_statement_that_the_retry_attaches_to(
    serving, task_context, tmp_path
) -> None:
    state = tmp_path / "state.json"
    worker = subprocess.Popen(
        [sys.executable, WORKER, "ORPHAN"], env={**os.environ, "SNOWML_TEST_STORE": str(state)}
    )

    def stored() -> dict[str, Any]:
        values = json.loads(state.read_text()) if state.exists() else {}
        return values if values.get(STATE_KEY, {}).get("query_id") else {}

    try:
        values = wait_for(stored, "the statement's id")
    finally:
        worker.kill()
        worker.wait()
    context = task_context("serve")
    context["task_state_store"].values = values
    with pytest.raises(TaskDeferred) as deferred:
        build_for_ever("ORPHAN", deferrable=True).execute(context)
    assert deferred.value.trigger.intent["query_id"] == values[STATE_KEY]["query_id"]
    assert serving.hook().statement(values[STATE_KEY]["query_id"])[0] is Statement.RUNNING
    asyncio.run(deferred.value.trigger.on_kill())


def test_a_second_statement_of_one_name_leads_to_the_one_service(serving, task_context, monkeypatch) -> None:
    context = task_context("serve")
    real = SnowMLHook.submit

    def twice(self: SnowMLHook, sql: str) -> str:
        # The first one's reply was lost, and it is not in the history yet.
        first = real(self, sql)
        wait_for(lambda: self.statement(first)[0] is not Statement.RUNNING, "the first statement's end")
        return real(self, sql)

    monkeypatch.setattr(SnowMLHook, "submit", twice)
    assert create("ONCE").execute(context)["status"] == "RUNNING"
    status, message = serving.hook().statement(str(query_id(context)))
    assert (status, "already exists" in message) == (Statement.FAILED, True)


def test_a_retry_replaces_a_service_that_failed(serving, task_context) -> None:
    context = task_context("serve")
    broken = create("BROKEN_ONE", model_name="BROKEN")
    for _ in range(2):
        with pytest.raises(ServiceFailedError, match=r"(?s)broken on purpose.*logs.*broken on purpose"):
            broken.execute(context)
        assert serving.services() == {"BROKEN_ONE": "FAILED"}
    assert drop("BROKEN_ONE").execute(context)["dropped"]


def test_a_cleared_run_ends_what_it_had_not_finished(serving, task_context) -> None:
    context = task_context("serve")
    with pytest.raises(TaskDeferred) as old:
        build_for_ever("CLEARED", deferrable=True).execute(context)
    first = str(query_id(context))
    cleared = task_context("serve", clear_number=1, store=context["task_state_store"])
    assert create("CLEARED").execute(cleared)["reused"] is False
    hook = serving.hook()
    assert hook.statement(first)[0] is Statement.FAILED
    assert build_status(serving, "CLEARED", first) == "CANCELLED"
    # The old trigger's kill can come after the new try has begun: it ends nothing of that.
    asyncio.run(old.value.trigger.on_kill())
    assert serving.services() == {"CLEARED": "RUNNING"}
    # What was ready when its run was cleared is a service like any other.
    again = task_context("serve", clear_number=2, store=context["task_state_store"])
    with pytest.raises(ServiceExistsError):
        create("CLEARED").execute(again)


# -- another service of the name ----------------------------------------------------------------------------


def test_another_service_of_the_name(serving, task_context) -> None:
    serving.deploy("TAKEN")
    hook = serving.hook()
    with pytest.raises(ServiceExistsError, match=r"RUNNING; it is there already, serving V1"):
        create("TAKEN").execute(task_context("serve"))
    with pytest.raises(ServiceExistsError, match="it serves version V1, not V2"):
        create("TAKEN", version_name="V2", if_exists="reuse").execute(task_context("serve"))

    hook.rows(f"ALTER SERVICE {serving.schema}.TAKEN SUSPEND")
    wait_for(lambda: serving.services() == {"TAKEN": "SUSPENDED"}, "SUSPENDED")
    task, context = create("TAKEN", if_exists="reuse"), task_context("serve")
    reused = task.execute(context)
    assert (reused["reused"], reused["status"], reused["query_id"]) == (True, "RUNNING", None)
    task.on_kill()  # it is not ours
    assert create("TAKEN", if_exists="reuse").execute(context)["reused"]
    assert serving.services() == {"TAKEN": "RUNNING"}

    replaced = create("TAKEN", version_name="V2", if_exists="replace").execute(task_context("serve"))
    assert (replaced["reused"], replaced["version"]) == (False, "V2")
    assert serving.services() == {"TAKEN": "RUNNING"}


def test_while_another_run_is_deploying_it_the_name_is_taken(serving, task_context) -> None:
    other = serving.deploy(
        "BUSY", wait=False, force_rebuild=True, image_build_compute_pool=Identifier("SLEEPING_SERVICE_POOL")
    )
    wait_for(lambda: build_status(serving, "BUSY", other), "the image build")
    for if_exists in ("fail", "reuse"):
        with pytest.raises(ServiceConflictError, match=other):
            create("BUSY", if_exists=if_exists).execute(task_context("serve"))
    assert serving.hook().statement(other)[0] is Statement.RUNNING
    result = create("BUSY", if_exists="replace").execute(task_context("serve"))
    assert (result["status"], result["reused"]) == ("RUNNING", False)
    assert serving.hook().statement(other)[0] is Statement.FAILED
    assert build_status(serving, "BUSY", other) == "CANCELLED"


def test_a_service_that_is_not_a_models_is_not_dropped(serving, task_context, monkeypatch) -> None:
    serving.deploy("BY_HAND")
    real = service_operators.find_service

    def by_hand(*arguments: Any) -> Any:
        # The local Snowflake makes no others.
        return replace(real(*arguments), managing_object_domain=None, managing_object_name=None)

    monkeypatch.setattr(service_operators, "find_service", by_hand)
    with pytest.raises(NotAModelServiceError, match="a service, created"):
        drop("BY_HAND").execute(task_context("drop"))
    assert serving.services() == {"BY_HAND": "RUNNING"}


def test_what_is_no_models_service_is_left_alone(serving, task_context) -> None:
    query = serving.deploy("ABOUT", wait=False, force_rebuild=True)
    job = service_hooks.build_job(QualifiedName.parse(f"{serving.schema}.ABOUT"), query)
    hook = serving.hook()
    wait_for(lambda: hook.job_status(job), "the image build")
    for task in (create(job.name.name, if_exists="replace"), drop(job.name.name)):
        with pytest.raises(NotAModelServiceError, match="a job of model"):
            task.execute(task_context("serve"))
    wait_for(lambda: serving.services().get("ABOUT") == "RUNNING", "RUNNING")


def test_needless_quotes_make_no_other_name() -> None:
    default = SchemaName.of("DB", "SC")
    assert service_hooks.service_name('"PROD"."ML".svc', default).sql == "PROD.ML.SVC"


# -- kills and timeouts -------------------------------------------------------------------------------------


def test_a_kill_cancels_statement_and_image_build(serving, task_context) -> None:
    context = task_context("serve")

    def is_building() -> bool:
        query = query_id(context)
        return query is not None and build_status(serving, "KILLED", query) is not None

    with pytest.raises(ServiceCancelledError):
        until_killed(build_for_ever("KILLED"), context, is_building)
    first = str(query_id(context))
    assert serving.hook().statement(first)[0] is Statement.FAILED
    assert build_status(serving, "KILLED", first) == "CANCELLED"
    assert not serving.services()
    assert create("KILLED").execute(context)["status"] == "RUNNING"


def test_a_kill_before_the_statement_is_sent_sends_none(serving, task_context, monkeypatch) -> None:
    task, context = create("NEVER"), task_context("serve")
    monkeypatch.setattr(
        "airflow_provider_snowml.operators.service_submission.snowflake_time",
        lambda hook: task.on_kill() or service_hooks.snowflake_time(hook),
    )
    with pytest.raises(ServiceCancelledError, match="before it deployed"):
        task.execute(context)
    assert query_id(context) is None


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_kill_while_the_statement_is_sent_ends_it(serving, task_context, monkeypatch, deferrable) -> None:
    task, context = build_for_ever("LATE", deferrable=deferrable), task_context("serve")
    real = SnowMLHook.submit

    def killed(self: SnowMLHook, sql: str) -> str:
        task.on_kill()  # it finds nothing to end yet
        return real(self, sql)

    monkeypatch.setattr(SnowMLHook, "submit", killed)
    with pytest.raises(ServiceCancelledError):
        task.execute(context)
    sent = str(query_id(context))
    assert serving.hook().statement(sent)[0] is Statement.FAILED
    assert build_status(serving, "LATE", sent) in ("CANCELLED", None)


def test_a_deferred_deployment_that_fails_says_why(serving, task_context) -> None:
    context = task_context("serve")
    task = create("DOOMED", model_name="BROKEN", deferrable=True, force_rebuild=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)

    async def events() -> list[Any]:
        return [event.payload async for event in deferred.value.trigger.run()]

    (event,) = asyncio.run(events())
    with pytest.raises(ServiceFailedError, match=r"(?s)broken on purpose.*The end of its logs"):
        getattr(create("DOOMED", model_name="BROKEN"), deferred.value.method_name)(context, event)


def test_a_kill_drops_what_is_not_ready(serving, task_context) -> None:
    with pytest.raises(ServiceCancelledError):
        until_killed(start_for_ever("KILLED"), task_context("serve"), serving.services)
    assert not serving.services()


def test_a_kill_can_leave_the_deployment_alone(serving, task_context) -> None:
    with pytest.raises(ServicePollingError):
        until_killed(start_for_ever("KEPT", cancel_on_kill=False), task_context("serve"), serving.services)
    assert serving.services() == {"KEPT": "PENDING"}


@pytest.mark.parametrize("phase", [build_for_ever, start_for_ever], ids=["build", "start"])
def test_a_timeout_ends_the_deployment(serving, task_context, phase) -> None:
    context = task_context("serve")
    with pytest.raises(ServiceTimeoutError, match=r"(?s)longer than allowed.*statement was cancelled"):
        phase("LATE", timeout=4).execute(context)
    assert not serving.services()
    assert serving.hook().statement(str(query_id(context)))[0] is Statement.FAILED


def test_a_service_that_somebody_drops_fails_the_task(serving, task_context, monkeypatch) -> None:
    monkeypatch.setattr(service_operators, "GRACE", 0.5)
    serving.deploy("GONE")
    task = create("GONE", if_exists="reuse")
    real = service_operators.deploy_or_attach

    def then_dropped(*arguments: Any) -> Any:
        intent = real(*arguments)
        serving.hook().rows(f"DROP SERVICE {serving.schema}.GONE")
        return intent

    monkeypatch.setattr(service_operators, "deploy_or_attach", then_dropped)
    with pytest.raises(ServiceLostError, match="no such service"):
        task.execute(task_context("serve"))


# -- dropping -----------------------------------------------------------------------------------------------


def test_dropping_what_is_not_there(serving, task_context) -> None:
    context = task_context("drop")
    assert drop("NONE").execute(context) == {"service_name": f"{serving.schema}.NONE", "dropped": False}
    with pytest.raises(ServiceNotFoundError, match="NONE"):
        drop("NONE", if_missing="fail").execute(context)
    with pytest.raises(InvalidArgumentError, match="if_missing"):
        drop("NONE", if_missing="maybe").execute(context)


def test_dropping_what_is_still_to_come(serving, task_context) -> None:
    query = serving.deploy("TO_COME", wait=False, pool=serving.sleeping, force_rebuild=True)
    assert not drop("TO_COME").execute(task_context("drop"))["dropped"]
    assert serving.hook().statement(query)[0] is Statement.FAILED
    assert not serving.services()


# -- refused before anything is made ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model_name": "NOPE"}, ModelNotFoundError, "There is no model"),
        ({"build_external_access_integrations": "PYPI"}, InvalidArgumentError, "a list of names"),
        ({"version_name": "V9"}, ModelVersionNotFoundError, "V1"),
        ({"model_name": "TABLES_ONLY"}, ModelNotServableError, "table functions only"),
        ({"model_name": "IN_WAREHOUSE"}, ModelNotServableError, "runs in WAREHOUSE only"),
        ({"service_name": "no good"}, InvalidNameError, "no valid service name"),
        ({"service_name": '"lower"'}, InvalidNameError, "no names that need double quotes"),
        ({"service_compute_pool": "NOPE"}, ComputePoolNotFoundError, "SERVICE_POOL"),
        ({"image_build_compute_pool": "NOPE"}, ComputePoolNotFoundError, "NOPE"),
        ({"image_repo": "NOPE"}, ImageRepositoryNotFoundError, "CREATE IMAGE REPOSITORY"),
        ({"min_instances": 3, "max_instances": 2}, InvalidArgumentError, "min_instances is 3"),
        ({"max_instances": 0}, InvalidArgumentError, "max_instances is 0"),
        ({"min_instances": "some"}, InvalidArgumentError, "min_instances is 'some'"),
        ({"num_workers": 0}, InvalidArgumentError, "num_workers is 0"),
        ({"memory_requests": "lots"}, InvalidArgumentError, "memory_requests is 'lots'"),
        ({"if_exists": "next"}, InvalidArgumentError, "if_exists is 'next'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_before_anything_is_made(
    serving, task_context, monkeypatch, arguments, error, message
) -> None:
    monkeypatch.setattr(SnowMLHook, "submit", lambda *_: pytest.fail("something was sent"))
    context, arguments = task_context("serve"), dict(arguments)
    with pytest.raises(error, match=message):
        create(arguments.pop("service_name", "REFUSED"), **arguments).execute(context)
    assert query_id(context) is None


def test_an_image_repository_of_ones_own(serving, task_context) -> None:
    serving.hook().rows(f"CREATE IMAGE REPOSITORY IF NOT EXISTS {serving.schema}.IMAGES")
    assert create("FROM_REPO", image_repo="IMAGES").execute(task_context("serve"))["status"] == "RUNNING"
