"""Compute pools."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from snowflake.connector import DictCursor
from snowflake.connector.errors import ProgrammingError


@pytest.fixture
def execute(connection):
    def run(sql: str) -> list[dict]:
        return connection.cursor(DictCursor).execute(sql).fetchall()

    return run


@pytest.fixture
def pool(execute) -> Iterator[str]:
    name = f"POOL_{uuid.uuid4().hex[:8].upper()}"
    execute(f"CREATE COMPUTE POOL {name} MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S")
    yield name
    execute(f"DROP COMPUTE POOL IF EXISTS {name}")


def test_create_show_describe(execute, pool):
    (shown,) = execute(f"SHOW COMPUTE POOLS LIKE '{pool.lower()}'")
    assert shown["name"] == pool
    assert shown["instance_family"] == "CPU_X64_S"
    assert (shown["min_nodes"], shown["max_nodes"]) == (1, 2)
    assert shown["state"] in ("STARTING", "IDLE")
    (described,) = execute(f"DESCRIBE COMPUTE POOL {pool}")
    assert described["auto_resume"] == "true"


def test_create_twice(execute, pool):
    options = "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS"
    execute(f"CREATE COMPUTE POOL IF NOT EXISTS {pool} {options}")
    with pytest.raises(ProgrammingError) as e:
        execute(f"CREATE COMPUTE POOL {pool} {options}")
    assert e.value.errno == 2002
    assert execute(f"DESC COMPUTE POOL {pool}")[0]["max_nodes"] == 2


def test_suspend_resume_set(execute, pool):
    execute(f"ALTER COMPUTE POOL {pool} SUSPEND")
    (shown,) = execute(f"DESC COMPUTE POOL {pool}")
    assert (shown["state"], shown["active_nodes"], shown["target_nodes"]) == ("SUSPENDED", 0, 0)
    execute(f"ALTER COMPUTE POOL {pool} RESUME")
    execute(f"ALTER COMPUTE POOL {pool} SET MAX_NODES = 5 AUTO_RESUME = FALSE COMMENT = 'big'")
    (shown,) = execute(f"DESC COMPUTE POOL {pool}")
    assert shown["state"] != "SUSPENDED"
    assert (shown["max_nodes"], shown["auto_resume"], shown["comment"]) == (5, "false", "big")


@pytest.mark.parametrize(
    ("sql", "errno"),
    [
        ("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1", 1003),
        ("CREATE COMPUTE POOL P MIN_NODES = 2 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS", 1008),
        ("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_HUGE", 1008),
        ("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 COLOUR = RED", 1003),
        ("DESCRIBE COMPUTE POOL NO_SUCH_POOL", 2003),
        ("ALTER COMPUTE POOL NO_SUCH_POOL SUSPEND", 2003),
        ("DROP COMPUTE POOL NO_SUCH_POOL", 2003),
    ],
)
def test_errors(execute, sql, errno):
    with pytest.raises(ProgrammingError) as e:
        execute(sql)
    assert e.value.errno == errno


def test_stop_all(execute, pool):
    execute(f"ALTER COMPUTE POOL {pool} STOP ALL")
    assert execute(f"DESC COMPUTE POOL {pool}")[0]["num_jobs"] == 0


def test_drop(execute, pool):
    execute(f"DROP COMPUTE POOL {pool}")
    assert execute(f"SHOW COMPUTE POOLS LIKE '{pool}'") == []
    execute(f"DROP COMPUTE POOL IF EXISTS {pool}")
