"""What nobody needs is put to sleep, and nothing that somebody does."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from airflow_provider_snowml.core.batch_statement import BatchStatement
from airflow_provider_snowml.core.names import Identifier, QualifiedName, StageLocation
from airflow_provider_snowml.exceptions import (
    ComputePoolNotFoundError,
    InvalidArgumentError,
    InvalidNameError,
    ServiceNotFoundError,
)
from airflow_provider_snowml.operators.suspend_idle import SnowMLSuspendIdleOperator

POOL = "LAZY_POOL"


def suspend(**arguments: Any) -> dict[str, Any]:
    given = {"plan_only": False, "idle_for": 0, "service_names": [], **arguments}
    return SnowMLSuspendIdleOperator(task_id="suspend", **given).execute({})


@pytest.fixture
def pool(scoring):
    """A compute pool of this test's, IDLE."""
    hook = scoring.hook()
    hook.rows(f"DROP COMPUTE POOL IF EXISTS {POOL}")
    hook.rows(f"CREATE COMPUTE POOL {POOL} MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS")
    wait_for(hook, "IDLE")
    yield POOL
    hook.rows(f"ALTER COMPUTE POOL {POOL} STOP ALL")
    hook.rows(f"DROP COMPUTE POOL {POOL}")


def state(hook: Any) -> str:
    return hook.rows(f"SHOW COMPUTE POOLS LIKE '{POOL}'")[0]["state"]


def wait_for(hook: Any, wanted: str) -> None:
    end = time.monotonic() + 120
    while state(hook) != wanted:
        assert time.monotonic() < end, state(hook)
        time.sleep(0.1)


def test_a_pool_without_work(scoring, pool) -> None:
    hook = scoring.hook()
    planned = suspend(compute_pools="lazy_pool", plan_only="True")
    assert planned == {"suspended": {"services": [], "compute_pools": [POOL]}, "kept": {}}
    assert state(hook) == "IDLE"
    kept = suspend(compute_pools=[pool], idle_for=3600)
    assert "has run for" in kept["kept"][POOL]
    assert suspend(compute_pools=[pool], plan_only="false") == planned
    assert state(hook) == "SUSPENDED"
    assert suspend(compute_pools=[pool])["kept"] == {POOL: "is SUSPENDED"}
    hook.rows(f"ALTER COMPUTE POOL {POOL} RESUME")
    wait_for(hook, "IDLE")
    hook.rows(f"ALTER COMPUTE POOL {POOL} SET AUTO_RESUME = FALSE")
    assert "AUTO_RESUME is off" in suspend(compute_pools=[pool])["kept"][POOL]


def test_a_pool_that_another_schemas_job_uses(scoring, pool) -> None:
    """The job is of another schema, and this task's connection looks at its own only."""
    hook = scoring.hook()
    elsewhere = f"SNOWML.ELSEWHERE_{uuid.uuid4().hex[:8].upper()}"
    hook.rows(f"CREATE SCHEMA {elsewhere}")
    try:
        location = StageLocation.parse(f"@{scoring.schema}.ST/lazy")
        hook.copy_into_location(location / "in", "SELECT 600::FLOAT AS F1")
        job = BatchStatement(
            name=QualifiedName.parse(f"{elsewhere}.LAZY_JOB"),
            compute_pool=Identifier(POOL),
            model=QualifiedName.parse(f"{scoring.schema}.SLOW"),
            version="V1",
            function="predict",
            input_location=location / "in",
            output_location=location / "out",
        )
        hook.rows(job.sql())
        kept = suspend(compute_pools=[pool])
        assert kept["suspended"]["compute_pools"] == []
        assert kept["kept"][POOL].startswith(("is ACTIVE", "has 1 jobs"))
        assert state(hook) == "ACTIVE"
    finally:
        hook.rows(f"DROP SCHEMA {elsewhere}")


def test_the_service_of_a_version_that_was_replaced(serving) -> None:
    hook = serving.hook()
    serving.deploy("LAZY_CHAMPION", version="V1", wait=False)
    serving.deploy("LAZY_BY_ITSELF", version="V2", min_instances=0, wait=False)
    serving.deploy("LAZY", version="V2")
    end = time.monotonic() + 300
    while set(serving.services().values()) != {"RUNNING"} or len(serving.services()) != 3:
        assert time.monotonic() < end, serving.services()
        time.sleep(0.2)
    names = {name: f"{serving.schema}.{name}" for name in serving.services()}
    planned = suspend(service_names=None, plan_only=True)
    assert planned["suspended"] == {"services": [names["LAZY"]], "compute_pools": []}
    assert planned["kept"] == {
        names["LAZY_CHAMPION"]: "serves V1, which has the alias CHAMPION, DEFAULT",
        names["LAZY_BY_ITSELF"]: "is suspended by Snowflake after 1800 s without a call",
    }
    assert set(serving.services().values()) == {"RUNNING"}
    assert "has run for" in suspend(service_names=["lazy"], idle_for="3600")["kept"][names["LAZY"]]
    assert suspend(service_names=None) == planned
    assert serving.services()["LAZY"] == "SUSPENDED"
    # Who needs it after all only has to call it.
    assert hook.rows(f"SELECT {names['LAZY']}!PREDICT(1.0::FLOAT, 1.0::FLOAT) AS P")
    assert suspend(service_names=["lazy_champion"])["suspended"]["services"] == []


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"plan_only": "maybe"}, InvalidArgumentError, "plan_only is 'maybe'"),
        ({"idle_for": "a while"}, InvalidArgumentError, "idle_for is 'a while'"),
        ({"compute_pools": ["a b"]}, InvalidNameError, "a b"),
        ({"compute_pools": [1]}, InvalidArgumentError, r"compute_pools is \[1\]"),
        ({"compute_pools": ["NOPE"]}, ComputePoolNotFoundError, "NOPE"),
        ({"service_names": ["NOPE"]}, ServiceNotFoundError, "NOPE"),
    ],
)
def test_what_makes_no_sense(scoring, arguments, error, says) -> None:
    with pytest.raises(error, match=says):
        suspend(**arguments)
