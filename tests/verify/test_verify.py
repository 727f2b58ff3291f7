"""``make verify`` against the local Snowflake: what it says, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import snowflake.connector

from verify import beliefs, contract, reruns  # noqa: F401 - they register themselves
from verify.__main__ import CONN_ID, main
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
        # What a shell starts in the background ignores it, and so would we.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str], said: str = "") -> tuple[dict[str, str], str]:
    """How each check went, and all that was said."""
    assert process.stdout is not None
    said += process.stdout.read()
    process.wait()
    return read(said), said


def read(said: str) -> dict[str, str]:
    lines = re.findall(r"^ *(holds|differs|not tried)  ([\w-]+)", said, re.MULTILINE)
    return {name: how for how, name in lines}


@pytest.fixture
def here(execute, local_snowflake, monkeypatch, capsys):
    """Runs some checks in this process: how each went, the exit code, and all that was said."""
    for name in (f"AIRFLOW_CONN_{CONN_ID.upper()}", "AIRFLOW__LOGGING__LOGGING_LEVEL", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")  # so that it is as before afterwards
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*names: str) -> tuple[dict[str, str], int, str]:
        only = [part for name in names for part in ("--only", name)]
        monkeypatch.setattr(sys, "argv", ["verify", "--patience", PATIENCE, *only])
        code = main()
        said = capsys.readouterr().out
        return read(said), code, said

    yield run
    local_snowflake.clear_faults()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def schemas(execute: Any) -> list[Any]:
    return execute("SHOW SCHEMAS LIKE 'SNOWML_VERIFY_%' IN DATABASE SNOWML")


def jobs(execute: Any) -> list[Any]:
    return [row for row in execute("SHOW JOB SERVICES IN ACCOUNT") if "SNOWML_VERIFY" in str(row)]


@pytest.mark.timeout(1200)
def test_all_that_we_believe_holds_locally(local_snowflake, execute) -> None:
    # However slow the machine is, the first look is at a job that does not run yet.
    local_snowflake.fault("slow_statement", job="_UNSTARTED_", seconds=30)
    process = start()
    found, said = finish(process)
    local_snowflake.clear_faults()
    assert found == dict.fromkeys(CHECKS, "holds"), said
    assert process.returncode == 0
    assert "Left behind: nothing" in said
    assert schemas(execute) == []
    assert local_snowflake.connection_parameters["password"] not in said


def test_an_interruption_leaves_nothing_behind(local_snowflake, execute) -> None:
    local_snowflake.fault("hang_job", job="_SCORE_")
    process = start("--only", "name-taken-live", "--only", "contract-submit", "--only", "contract-attach")
    said = ""
    for line in process.stdout or ():
        said += line
        if "name-taken-live" in line:
            break
    for _ in range(int(PATIENCE)):  # a task follows a job that does not end
        live = [row[0] for row in jobs(execute) if row[1] in ("PENDING", "RUNNING")]
        if len(live) == 2:
            break
        time.sleep(1)
    assert schemas(execute) and len(live) == 2, said
    process.send_signal(signal.SIGINT)
    found, said = finish(process, said)
    local_snowflake.clear_faults()
    assert "Interrupted" in said and "Left behind: nothing" in said, said
    assert process.returncode == 1
    assert found == {"name-taken-live": "holds"}
    assert schemas(execute) == [] and jobs(execute) == []


def test_what_is_otherwise_is_said(local_snowflake, execute, here, monkeypatch) -> None:
    monkeypatch.delenv("POOL")
    local_snowflake.fault("refuse", statement="^LIST", errno=1)
    found, code, said = here("stage-prefix", "unload-of-nothing", "name-before")
    assert found == {"stage-prefix": "differs", "unload-of-nothing": "holds", "name-before": "not tried"}, (
        said
    )
    assert "A stage path is a prefix of file names? StatementError" in said
    assert "no compute pool was named" in said
    assert code == 1
    assert schemas(execute) == []


def test_a_contract_that_does_not_hold_is_said_and_either_order_of_success_and_done_is_fine(
    local_snowflake, execute, here
) -> None:
    local_snowflake.fault("late_success", job="SNOWML_FIRST", seconds=15)
    local_snowflake.fault("lose_rows", job="_SCORE_")
    found, code, said = here("job-service-exists", "done-and-success", "contract-submit", "contract-attach")
    assert found == {
        "job-service-exists": "holds",
        "done-and-success": "holds",
        "contract-submit": "differs",
        "contract-attach": "not tried",
    }, said
    assert re.search(r"_SUCCESS came \d+\.\d s after DONE", said)
    assert "as many rows come out as go in? BatchOutputIncompleteError" in said
    assert code == 1
    assert schemas(execute) == [] and jobs(execute) == []


def test_without_a_pool_it_does_not_pass(here, monkeypatch) -> None:
    monkeypatch.delenv("POOL")
    found, code, said = here("name-before")
    assert (found, code) == ({"name-before": "not tried"}, 2), said


def test_the_table_of_beliefs_names_the_checks() -> None:
    page = (ROOT / "docs" / "local-snowflake.md").read_text()
    named = ", ".join(re.findall(r"verify: (.*) \|$", page, re.MULTILINE))
    assert set(named.split(", ")) == {f"`{name}`" for name in CHECKS if not name.startswith("contract-")}
