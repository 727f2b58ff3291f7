"""The weekly contest through a real Airflow, since ``dag.test()`` waits for the approval for ever.

Three weeks, one after the other: nobody answers, somebody approves over Airflow's REST API, and somebody
approves what then fails its smoke test. The flights are made up: what makes one late drifts from week to
week, so a model that has learned from later weeks is the better one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import snowflake.connector

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from airflow_processes import Airflow, airflow

pytestmark = pytest.mark.timeout(1800)

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "champion_challenger.py"
CONTEST, UNANSWERED = "champion_challenger", "unanswered"
SCHEMA = "CONTEST"
PATIENCE = 600  # seconds for one step, on a slow machine
FLIGHTS_A_DAY = 160
# The Mondays on which the contests are run.
FIRST, SECOND, THIRD = "2013-02-11", "2013-02-18", "2013-02-25"


@pytest.fixture(scope="module")
def connection(local_snowflake) -> Iterator[Any]:
    """Into a schema with six weeks of flights."""
    import numpy as np
    import pandas as pd
    from snowflake.snowpark import Session

    random = np.random.default_rng(13)
    days = np.repeat(pd.date_range("2013-01-14", "2013-02-24").date, FLIGHTS_A_DAY)
    count = len(days)
    wind, visibility = random.normal(size=(2, count))
    turn = 2 * np.pi * np.repeat(np.arange(count // FLIGHTS_A_DAY), FLIGHTS_A_DAY) / 84
    late = random.random(count) < 1 / (1 + np.exp(-4 * (wind * np.cos(turn) + visibility * np.sin(turn))))
    flights = pd.DataFrame(
        {
            "FLIGHT_DATE": days,
            "FLIGHT_ID": [f"{n:05}" for n in range(count)],
            "ORIGIN": random.choice(["EWR", "JFK", "LGA"], count),
            "DISTANCE": random.normal(size=count),
            "SCHED_DEP_MINUTE": 480.0,
            "DAY_OF_WEEK": 1.0,
            "WIND_SPEED": wind,
            "PRECIPITATION": 0.0,
            "VISIBILITY": visibility,
            "LATE": late,
        }
    )
    types = {"FLIGHT_DATE": "DATE", "FLIGHT_ID": "VARCHAR", "ORIGIN": "VARCHAR", "LATE": "BOOLEAN"}
    parameters = local_snowflake.connection_parameters | {"schema": SCHEMA}
    with snowflake.connector.connect(**local_snowflake.connection_parameters) as first:
        first.cursor().execute(f"CREATE OR REPLACE SCHEMA SNOWML.{SCHEMA}")
    session = Session.builder.configs(parameters).create()
    columns = ", ".join(f"{name} {types.get(name, 'FLOAT')}" for name in flights)
    session.sql(f"CREATE TABLE FLIGHTS ({columns})").collect()
    session.write_pandas(flights, "FLIGHTS", use_logical_type=True)
    session.sql("CREATE VIEW FLIGHT_FEATURES AS SELECT * EXCLUDE (LATE) FROM FLIGHTS").collect()
    session.sql("CREATE VIEW FLIGHT_OUTCOMES AS SELECT FLIGHT_DATE, FLIGHT_ID, LATE FROM FLIGHTS").collect()
    session.close()
    with snowflake.connector.connect(**parameters) as connection:
        yield connection
        connection.cursor().execute(f"DROP SCHEMA SNOWML.{SCHEMA}")


@pytest.fixture(scope="module")
def running(connection, local_snowflake, tmp_path_factory) -> Iterator[Airflow]:
    """Airflow with the example, and with the same for which two days are a second."""
    directory = tmp_path_factory.mktemp("contest")
    (dags := directory / "dags").mkdir()
    (home := directory / "airflow").mkdir()
    for dag_id in (CONTEST, UNANSWERED):
        changes = {'"retry_delay": timedelta(seconds=10)': '"retry_delay": timedelta(seconds=1)'}
        if dag_id == UNANSWERED:
            changes |= {"response_timeout=timedelta(days=2)": "response_timeout=timedelta(seconds=1)"}
            changes |= {f"def {CONTEST}(": f"def {dag_id}(", f"\n{CONTEST}()": f"\n{dag_id}()"}
        text = EXAMPLE.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (dags / f"{dag_id}.py").write_text(text)
    with airflow(
        home,
        dags,
        parallelism=2,
        environment={"AIRFLOW_CONN_SNOWFLAKE_DEFAULT": local_snowflake.airflow_connection_into(SCHEMA)},
        settings={"scheduler": {"trigger_timeout_check_interval": 1}},
        preload=["snowflake.ml.registry", "airflow_provider_snowml.operators.promotion"],
    ) as it:
        it.wait_for_dags([CONTEST, UNANSWERED], timeout=PATIENCE)
        yield it


class Run:
    """A DAG run, from outside."""

    def __init__(self, airflow: Airflow, dag_id: str, monday: str) -> None:
        self.airflow, self.id = airflow, f"contest_{monday}"
        self.path = f"dags/{dag_id}/dagRuns/{quote(self.id)}"
        body = {"dag_run_id": self.id, "logical_date": f"{monday}T18:00:00Z"}
        airflow.post(f"dags/{dag_id}/dagRuns", body)

    def states(self) -> dict[str, str]:
        tasks = self.airflow.get(f"{self.path}/taskInstances?limit=100")["task_instances"]
        return {task["task_id"]: task["state"] for task in tasks}

    def approval(self) -> dict[str, Any]:
        return self.airflow.get(f"{self.path}/taskInstances/approve/-1/hitlDetails")

    def xcom(self, task_id: str, key: str) -> Any:
        return self.airflow.get(f"{self.path}/taskInstances/{task_id}/xcomEntries/{key}")["value"]

    def wait_for_approval(self) -> dict[str, Any]:
        """The question that is asked."""

        def waits() -> bool:
            states = self.states()
            assert "failed" not in states.values(), states
            return states.get("approve") == "awaiting_input"

        self.wait_until(waits)
        return self.approval()

    def answer(self, option: str) -> None:
        """Answer, as a person would: some seconds later, and once more if asked again.

        Airflow 3.3 can take a task for crashed that goes on within seconds of having begun to wait.
        """
        time.sleep(5)
        path = f"{self.path}/taskInstances/approve/-1/hitlDetails"

        def answered() -> bool:
            state = self.states()["approve"]
            if state == "awaiting_input":
                self.airflow.patch(path, {"chosen_options": [option], "params_input": {}})
            return state == "success"

        self.wait_until(answered)

    def wait_until_it_ends(self) -> tuple[str, dict[str, str]]:
        """The run's state, and its tasks'."""
        ended = ("success", "failed")
        self.wait_until(lambda: self.airflow.get(self.path)["state"] in ended)
        return self.airflow.get(self.path)["state"], self.states()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.airflow.check_processes()
            assert time.monotonic() < deadline, self.states()
            time.sleep(0.5)


def aliases(connection: Any) -> dict[str, str]:
    """The version of each alias but Snowflake's FIRST and LAST."""
    cursor = connection.cursor()
    cursor.execute("SHOW VERSIONS IN MODEL FLIGHT_DELAYS_CONTEST")
    names = [column.name for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    held = {alias: row["name"] for row in rows for alias in json.loads(row["aliases"])}
    return {alias: name for alias, name in held.items() if alias not in ("FIRST", "LAST")}


def run_schemas(connection: Any) -> int:
    return len(connection.cursor().execute("SHOW SCHEMAS LIKE 'RUN_CONTEST_%'").fetchall())


def test_silence_approval_and_a_rollback(running, connection):
    # Nobody answers in time: no promotion, and no failure. The first version is the default by itself.
    run = Run(running, UNANSWERED, FIRST)
    state, tasks = run.wait_until_it_ends()
    assert (state, tasks["approve"], tasks["promote"]) == ("success", "success", "skipped"), tasks
    assert {tasks[task] for task in ("ask", "smoke_test", "announce", "roll_back")} == {"skipped"}
    answer = run.approval()
    assert (answer["chosen_options"], answer["responded_by_user"]) == (["Reject"], None)
    assert aliases(connection) == {"DEFAULT": "V20130211"}

    # Somebody reads the report, and approves.
    run = Run(running, CONTEST, SECOND)
    asked = run.wait_for_approval()
    assert asked["subject"] == "Shall V20130218 be the champion of FLIGHT_DELAYS_CONTEST?"
    assert asked["body"] == run.xcom("contest", "report")
    assert "V20130218 is to be the first champion" in asked["body"]
    assert aliases(connection) == {"DEFAULT": "V20130211"}  # not before the answer
    run.answer("Approve")
    state, tasks = run.wait_until_it_ends()
    assert (state, tasks["announce"], tasks["roll_back"]) == ("success", "success", "skipped"), tasks
    assert aliases(connection) == {"DEFAULT": "V20130218", "CHAMPION": "V20130218"}
    assert run_schemas(connection) == 0

    # Approved; and while the question was open, what the model is asked about has become all the same.
    run = Run(running, CONTEST, THIRD)
    assert "V20130225 is to be the champion" in run.wait_for_approval()["body"]
    connection.cursor().execute(
        "UPDATE FLIGHTS SET WIND_SPEED = 0, VISIBILITY = 0, DISTANCE = 0 WHERE FLIGHT_DATE >= '2013-02-18'"
    )
    run.answer("Approve")
    state, tasks = run.wait_until_it_ends()
    assert (state, tasks["promote"], tasks["smoke_test"]) == ("failed", "success", "failed"), tasks
    assert (tasks["roll_back"], tasks["announce"]) == ("success", "upstream_failed")
    assert run.xcom("promote", "version") == "V20130225"  # it was the champion for a moment
    assert run.xcom("roll_back", "rolled_back_from") == "V20130225"
    assert aliases(connection) == {"DEFAULT": "V20130218", "CHAMPION": "V20130218"}
    assert run_schemas(connection) == 1  # kept, for whoever looks into it
    connection.cursor().execute("DROP SCHEMA IF EXISTS SNOWML.RUN_CONTEST_20130218T110000")
