"""Services of models through the operators, against real service processes."""

from __future__ import annotations

import pytest

from airflow_provider_snowml.operators.services import (
    SnowMLCreateServiceOperator,
    SnowMLDropServiceOperator,
)

POOL = "SERVICE_TEST_POOL"


@pytest.fixture(scope="module", autouse=True)
def pool(scoring_schema, local_snowflake):
    """The tests of services have a compute pool of their own, with room for some at once."""
    import snowflake.connector

    with snowflake.connector.connect(**local_snowflake.connection_parameters) as connection:
        connection.cursor().execute(
            f"CREATE COMPUTE POOL IF NOT EXISTS {POOL} MIN_NODES = 1 MAX_NODES = 4 "
            "INSTANCE_FAMILY = CPU_X64_XS"
        )


def create(name: str, **arguments) -> SnowMLCreateServiceOperator:
    return SnowMLCreateServiceOperator(
        task_id=f"serve_{name}".lower(),
        **{
            "model_name": "M",
            "service_name": name,
            "service_compute_pool": POOL,
            "min_instances": 1,
            "poll_interval": 0.2,
            **arguments,
        },
    )


def drop(name: str, **arguments) -> SnowMLDropServiceOperator:
    return SnowMLDropServiceOperator(task_id="drop", service_name=name, **arguments)


def test_a_service_is_deployed_until_it_is_ready_and_dropped(scoring, task_context) -> None:
    context = task_context("serve")
    result = create("SVC", version_name="CHAMPION", ingress_enabled=True).execute(context)
    print(result)
    assert drop("SVC").execute(context) == {"service_name": f"{scoring.schema}.SVC", "dropped": True}
    assert drop("SVC").execute(context) == {"service_name": f"{scoring.schema}.SVC", "dropped": False}
