from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_snowml.core.idleness import PoolInUse, ServiceInUse

SERVICE = ServiceInUse(
    status="RUNNING",
    auto_resume=True,
    auto_suspend_secs=0,
    running_since=0.0,
    is_of_a_model=True,
    version="V1",
    aliases=("FIRST",),
)
POOL = PoolInUse(state="IDLE", jobs=0, active_nodes=0, auto_resume=True, running_since=0.0)


def test_what_is_idle() -> None:
    assert SERVICE.kept_because(idle_for=60, now=60) is None
    assert POOL.kept_because(idle_for=60, now=60) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": "PENDING"}, "is PENDING"),
        ({"is_of_a_model": False}, "is no model's service"),
        ({"auto_resume": False}, "would not resume when it is called"),
        ({"auto_suspend_secs": 1800}, "is suspended by Snowflake after 1800 s"),
        ({"version": None}, "is gone, or may not be seen"),
        ({"aliases": ("DEFAULT", "LAST")}, "has the alias DEFAULT"),
        ({"aliases": ("SHADOW", "LAST")}, "has the alias SHADOW"),
        ({"running_since": 1.0}, "has run for 59 s only"),
    ],
)
def test_which_service_is_not(change, says) -> None:
    assert says in (replace(SERVICE, **change).kept_because(idle_for=60, now=60) or "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": "ACTIVE"}, "is ACTIVE"),
        ({"state": "STARTING"}, "is STARTING"),
        ({"jobs": 1}, "has 1 jobs and 0 active nodes"),
        ({"active_nodes": 1}, "has 0 jobs and 1 active nodes"),
        ({"live": ["JOB"]}, "has JOB"),
        ({"auto_resume": False}, "would not resume for the next job"),
        ({"running_since": 1.0}, "has run for 59 s only"),
    ],
)
def test_which_pool_is_not(change, says) -> None:
    assert says in (replace(POOL, **change).kept_because(idle_for=60, now=60) or "")
