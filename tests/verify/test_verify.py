"""``make verify`` against the local Snowflake: what it says, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import snowflake.connector

from verify import beliefs, contract  # noqa: F401 - they register themselves
from verify.checks import CHECKS

ROOT = Path(__file__).parents[2]
POOL = "VERIFY_POOL"
PATIENCE = "240"


@pytest.fixture
def execute(local_snowflake, monkeypatch):
    """Runs a statement; there is a compute pool, and ``$CONN`` and ``$POOL`` say where to."""
    monkeypatch.setenv("CONN", local_snowflake.airflow_connection_uri)
    monkeypatch.setenv("POOL", POOL)
    with snowflake.connector.connect(**local_snowflake.connection_parameters) as connection:

        def run(sql: str) -> list[Any]:
            return connection.cursor().execute(sql).fetchall()

        run(
            f"CREATE COMPUTE POOL IF NOT EXISTS {POOL} MIN_NODES = 1 MAX_NODES = 4 "
            "INSTANCE_FAMILY = CPU_X64_XS"
        )
        yield run


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "verify", "--patience", PATIENCE, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], said: str = "") -> tuple[dict[str, str], str]:
    """How each check went, and all that was said."""
    assert process.stdout is not None
    said += process.stdout.read()
    process.wait()
    lines = re.findall(r"^ *(holds|differs|not tried)  ([\w-]+)", said, re.MULTILINE)
    return {name: how for how, name in lines}, said


def schemas(execute: Any) -> list[Any]:
    return execute("SHOW SCHEMAS LIKE 'SNOWML_VERIFY_%' IN DATABASE SNOWML")


def test_all_that_we_believe_holds_locally(local_snowflake, execute) -> None:
    process = start()
    found, said = finish(process)
    assert found == dict.fromkeys(CHECKS, "holds"), said
    assert process.returncode == 0
    assert "Left behind: nothing" in said
    assert schemas(execute) == []
    assert local_snowflake.connection_parameters["password"] not in said


def test_an_interruption_leaves_nothing_behind(execute) -> None:
    process = start("--only", "name-taken-live", "--only", "contract-cancel")
    said = ""
    for line in process.stdout or ():
        said += line
        if "name-taken-live" in line:
            break
    assert schemas(execute)
    jobs = [row for row in execute("SHOW JOB SERVICES IN ACCOUNT") if "SNOWML_VERIFY" in str(row)]
    assert any(row[1] in ("PENDING", "RUNNING") for row in jobs), said
    process.send_signal(signal.SIGINT)
    found, said = finish(process, said)
    assert "Interrupted" in said and "Left behind: nothing" in said, said
    assert process.returncode == 1
    assert "contract-cancel" not in found
    assert schemas(execute) == []
    assert not [row for row in execute("SHOW JOB SERVICES IN ACCOUNT") if "SNOWML_VERIFY" in str(row)]


def test_what_is_otherwise_is_said(local_snowflake, execute, monkeypatch) -> None:
    monkeypatch.delenv("POOL")
    local_snowflake.fault("refuse", statement="^LIST", errno=1)
    process = start("--only", "stage-prefix", "--only", "unload-of-nothing", "--only", "name-before")
    found, said = finish(process)
    local_snowflake.clear_faults()
    assert found == {"stage-prefix": "differs", "unload-of-nothing": "holds", "name-before": "not tried"}, (
        said
    )
    assert "A stage path is a prefix of file names? StatementError" in said
    assert "no compute pool was named" in said
    assert process.returncode == 1
    assert schemas(execute) == []


def test_without_a_pool_it_does_not_pass(execute, monkeypatch) -> None:
    monkeypatch.delenv("POOL")
    process = start("--only", "name-before")
    found, said = finish(process)
    assert found == {"name-before": "not tried"}, said
    assert process.returncode == 2


def test_the_table_of_beliefs_names_the_checks() -> None:
    page = (ROOT / "docs" / "local-snowflake.md").read_text()
    named = ", ".join(re.findall(r"verify: (.*) \|$", page, re.MULTILINE))
    assert set(named.split(", ")) == {f"`{name}`" for name in CHECKS if not name.startswith("contract-")}
