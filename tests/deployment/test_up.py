"""``make up`` and ``make down``, as programs; and what they leave running, as a user sees it."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from browser import missing_programs
from pictures import take
from up import COMPONENTS, DAGS, SNOWFLAKE, Settings, Up

ROOT = Path(__file__).parents[2]
DAG_IDS = sorted(file.stem for file in DAGS.glob("*.py"))


def run(directory: Path, *arguments: str, code: int = 0) -> str:
    """Run the program of ``make up`` to its end, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "scripts/up.py", "--directory", str(directory), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """The port that ``make up`` would like best is somebody else's."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
        except OSError:
            pass  # all the better: somebody really has it
        yield 8080


@pytest.fixture(scope="module")
def directory(tmp_path_factory, taken) -> Iterator[Path]:
    """Where an Airflow and a local Snowflake are up, for all tests of this module."""
    directory = tmp_path_factory.mktemp("up") / "state"
    printed = run(directory, "up")
    settings = Settings.of(directory)
    assert f"http://127.0.0.1:{settings.airflow_port} " in printed
    assert settings.password in printed
    try:
        yield directory
    finally:
        run(directory, "down")


@pytest.fixture
def up(directory) -> Up:
    return Up(directory, Settings.of(directory))


def test_everything_runs_and_a_taken_port_is_left(up, taken):
    assert up.missing() == []
    assert sorted(up.processes()) == sorted([SNOWFLAKE, *COMPONENTS])
    assert up.settings.airflow_port != taken


def test_secrets_are_the_users_own(up):
    private = ["settings.json", "airflow/passwords.json", "snowflake/server.json", "snowflake/password"]
    assert {(up.directory / file).stat().st_mode & 0o077 for file in private} == {0}
    assert up.directory.stat().st_mode & 0o077 == 0


def test_a_second_up_starts_nothing(up):
    before = up.processes()
    printed = run(up.directory, "up")
    assert printed.startswith("It is running already.")
    assert up.settings.password in printed
    assert {name: processes[0] for name, processes in up.processes().items()} == {
        name: processes[0] for name, processes in before.items()
    }


def test_nothing_of_the_flights_runs_by_itself_even_when_unpaused(up):
    airflow = up.airflow()
    dags = {dag["dag_id"]: dag for dag in airflow.get("dags")["dags"]}
    assert sorted(dags) == DAG_IDS
    assert all(dag["is_paused"] for dag in dags.values())
    # What is about no flights of 2013 begins with its last day or week, as any DAG does.
    others = "daily_fraud_training|housekeeping"
    run(up.directory, "airflow", "dags", "unpause", "--yes", "--treat-dag-id-as-regex", f"^(?!{others}).*")
    time.sleep(5)  # several rounds of the scheduler
    dags = [dag for dag in airflow.get("dags")["dags"] if dag["dag_id"] not in others.split("|")]
    assert {(dag["is_paused"], dag["next_dagrun_run_after"]) for dag in dags} == {(False, None)}
    assert airflow.get("dags/~/dagRuns")["total_entries"] == 0


def test_the_commands_that_up_prints_are_understood(up):
    from airflow.cli.cli_parser import get_parser

    commands = re.findall(r"scripts/up\.py .*? airflow (.*?)\n(?!      )", up.summary(), re.DOTALL)
    parsed = [get_parser().parse_args(shlex.split(command.replace("\\\n", " "))) for command in commands]
    assert [it.dag_id for it in parsed[1:]] == [
        "flight_delays_load",
        "flight_delays_retrain",
        "flight_delays_score",
        "flight_delays_serve",
    ]


@pytest.mark.skipif(
    bool(missing_programs()), reason=f"not run: {', '.join(missing_programs())} not installed"
)
def test_a_user_logs_in_finds_the_dags_and_pictures_are_taken(up, tmp_path):
    take(up.airflow(), tmp_path)
    taken = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    # Those that README and documentation show; `make pictures` takes them with runs to see.
    assert set(taken) == {file.name for file in (ROOT / "docs" / "images").glob("airflow_*.png")}
    for name, picture in taken.items():
        assert struct.unpack(">I", picture[16:20]) == (1400,), name
        assert len(picture) > 20_000, name  # a blank page hardly takes any bytes


def test_a_wrong_password_does_not_open(up):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        dataclasses.replace(up.airflow(), password="guessed").log_in()


def test_what_ended_is_started_again_and_the_rest_left_alone(up):
    before = up.processes()
    for name in ("triggerer", SNOWFLAKE):
        for process in before[name]:
            process.kill()
    psutil.wait_procs(before["triggerer"] + before[SNOWFLAKE], 30)
    assert up.missing() == [SNOWFLAKE, "triggerer"]
    run(up.directory, "up")
    after = up.processes()
    assert up.missing() == []
    assert before["scheduler"][0] in after["scheduler"]
    assert before["triggerer"][0] not in after["triggerer"]


def test_down_leaves_no_process_and_up_finds_everything_again(up):
    airflow = up.airflow()
    airflow.post("dags/flight_delays_load/dagRuns", {"logical_date": None, "dag_run_id": "kept"})
    processes = [it for of_name in up.processes().values() for it in of_name]
    os.kill(up.processes()["scheduler"][0].pid, signal.SIGKILL)  # its children are to be found all the same
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert "processes are ended" in run(up.directory, "down")
    assert not [it for it in processes if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]
    assert up.processes() == {}
    assert run(up.directory, "down") == "Nothing runs.\n"
    assert stranger.poll() is None
    stranger.communicate()

    run(up.directory, "up")
    assert up.airflow().get("dags/flight_delays_load/dagRuns/kept")["dag_run_id"] == "kept"


def test_down_where_nothing_ever_was(tmp_path):
    assert "Nothing was ever started" in run(tmp_path / "none", "down")
    assert not (tmp_path / "none").exists()
