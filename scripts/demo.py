"""``make demo``: the main job, end to end, on real data and without an account.

Starts a local Snowflake and a real Airflow; loads the flights, retrains for two successive weeks, backfills
seven days of scoring, serves the champion and compares; stops everything it started; and says what came out
of it and what the champion's monitor saw.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import snowflake.connector
from airflow_processes import Airflow, AirflowFailed, airflow

from airflow_provider_snowml.local import LocalSnowflake

DAGS = Path(__file__).resolve().parents[1] / "example_dags"
DAG_IDS = ("flight_delays_load", "flight_delays_retrain", "flight_delays_score", "flight_delays_serve")
# Intervals that start on Mondays: the flights of these weeks are held out, those before them train.
RETRAIN = {"from": "2013-01-14", "to": "2013-01-22", "runs": 2}
SCORE = {"from": "2013-01-28", "to": "2013-02-03T23:00:00", "runs": 7}
WORTH_A_LINE = {"deferred", "success", "up_for_retry", "failed", "upstream_failed"}
PATIENCE = 600  # seconds for one DAG's runs, on a slow machine

Row = tuple[Any, ...]


class DagFailed(Exception):
    """A DAG run has failed; its tasks' logs are in the message."""


class Progress:
    """One line per step, with the time since the start; and how long each part took."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.parts: dict[str, float] = {}

    def say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"{minutes}:{seconds:02d}  {text}", flush=True)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.say(name)
        before = time.monotonic()
        yield
        self.parts[name] = time.monotonic() - before


def follow(running: Airflow, dag_id: str, runs: int, progress: Progress) -> None:
    """Wait until a DAG has that many finished runs, and say whenever one of their tasks gets on.

    :raises DagFailed: if one of them failed.
    """
    told: set[tuple[str, ...]] = set()
    deadline = time.monotonic() + PATIENCE
    while True:
        running.check_processes()
        found = running.get(f"dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        tasks = running.get(f"dags/{dag_id}/dagRuns/~/taskInstances?limit=1000")["task_instances"]
        labels = {run["dag_run_id"]: label(run) for run in found}
        for task in sorted(tasks, key=lambda it: it["end_date"] or it["start_date"] or "9"):
            name = task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else "")
            event = (task["dag_run_id"], name, task["state"] or "")
            if task["state"] in WORTH_A_LINE and event not in told:
                told.add(event)
                detail = f" in {task['duration']:.1f} s" if task["state"] == "success" else ""
                if task["state"] == "up_for_retry":
                    detail = f" ({last_error(running, task)})"
                progress.say(f"  {dag_id}  {labels[event[0]]:10}  {name}: {task['state']}{detail}")
        failed = [run["dag_run_id"] for run in found if run["state"] == "failed"]
        if failed:
            raise DagFailed(f"{dag_id} failed:\n{logs_of_failed(running, tasks)}")
        if sum(run["state"] == "success" for run in found) >= runs:
            return
        if time.monotonic() > deadline:
            states = {labels[run["dag_run_id"]]: run["state"] for run in found}
            raise DagFailed(f"{dag_id} is not done after {PATIENCE} s: {states}")
        time.sleep(1)


def label(run: dict[str, Any]) -> str:
    """The day that a run is about."""
    interval_end = (run.get("data_interval_end") or "")[:10]
    return run.get("partition_key") or (interval_end if run["run_type"] != "manual" else "")


def log_files(running: Airflow, task: dict[str, Any]) -> list[Path]:
    """The logs of a task's tries and of their triggers."""
    run_directory = running.home / "logs" / f"dag_id={task['dag_id']}" / f"run_id={task['dag_run_id']}"
    return sorted(run_directory.glob(f"task_id={task['task_id']}/**/attempt=*.log*"))


def last_error(running: Airflow, task: dict[str, Any]) -> str:
    """The last exception in a task's logs, in one line."""
    lines = [line for file in log_files(running, task) for line in file.read_text().splitlines()]
    errors = [readable(line).splitlines()[-1].strip() for line in lines if '"error_detail"' in line]
    return errors[-1] if errors else "see its log"


def logs_of_failed(running: Airflow, tasks: list[dict[str, Any]]) -> str:
    """What the failed tasks logged, each try."""
    texts = []
    for task in tasks:
        if task["state"] != "failed":
            continue
        for file in log_files(running, task):
            texts.append(f"--- {task['dag_run_id']} {task['task_id']} ({file.name})")
            texts += [readable(line) for line in file.read_text(errors="replace").splitlines()[-60:]]
    return "\n".join(texts)


def readable(line: str) -> str:
    """A line of a task's log, which is JSON, as text."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    text = f"{entry.get('timestamp', '')[11:19]} {entry.get('level', '')} {entry.get('event', '')}"
    for error in entry.get("error_detail") or []:
        frames = [f"    {it['filename']}:{it['lineno']} {it['name']}" for it in error.get("frames", [])[-6:]]
        text = "\n".join([text, *frames, f"  {error['exc_type']}: {error['exc_value']}"])
    return text


def champion_version(connection: Any) -> str:
    """The version that scores."""
    for version in versions(connection):
        if "CHAMPION" in version["aliases"]:
            return str(version["name"])
    raise DagFailed("Retraining has promoted no model.")


def versions(connection: Any) -> list[dict[str, Any]]:
    """The model's versions with their aliases and metrics, oldest first."""
    cursor = connection.cursor(snowflake.connector.DictCursor)
    rows = cursor.execute("SHOW VERSIONS IN MODEL FLIGHT_DELAYS").fetchall()
    return [
        {
            "name": row["name"],
            "aliases": json.loads(row["aliases"]),
            "metrics": json.loads(row["metadata"]).get("metrics", {}),
        }
        for row in sorted(rows, key=lambda row: row["created_on"])
    ]


# Of the flights that arrived: how many were late, how many of them the predictions let one expect, and
# how many of the tenth with the highest probabilities were late?
DAYS = """
SELECT
    FLIGHT_DATE,
    COUNT(*) AS FLIGHTS,
    COUNT(P_LATE) AS PREDICTIONS,
    COUNT_IF(LATE IS NULL) AS NEVER_ARRIVED,
    COUNT_IF(LATE) / COUNT(LATE) AS LATE,
    AVG(IFF(LATE IS NULL, NULL, P_LATE)) AS EXPECTED,
    COUNT_IF(LATE AND TENTH = 1) / COUNT_IF(LATE IS NOT NULL AND TENTH = 1) AS LATE_OF_TENTH
FROM (
    SELECT O.FLIGHT_DATE, O.LATE, P.P_LATE,
        NTILE(10) OVER (PARTITION BY O.FLIGHT_DATE ORDER BY P.P_LATE DESC) AS TENTH
    FROM FLIGHT_OUTCOMES O
    LEFT JOIN FLIGHT_DELAY_PREDICTIONS P ON P.FLIGHT_DATE = O.FLIGHT_DATE AND P.FLIGHT_ID = O.FLIGHT_ID
    WHERE O.FLIGHT_DATE >= '2013-01-28' AND O.FLIGHT_DATE <= '2013-02-03'
) AS SCORED
GROUP BY FLIGHT_DATE
ORDER BY FLIGHT_DATE
"""


# What the monitor of the version that scored says of each day, and of one segment.
MONITORED = (
    ("flights", "STAT", ("COUNT", "P_LATE"), {}),
    ("AUC", "PERFORMANCE", ("ROC_AUC",), {}),
    ("accuracy", "PERFORMANCE", ("CLASSIFICATION_ACCURACY",), {}),
    ("drift of P_LATE (PSI)", "DRIFT", ("POPULATION_STABILITY_INDEX", "P_LATE"), {}),
    ("AUC from JFK", "PERFORMANCE", ("ROC_AUC",), {"ORIGIN": "JFK"}),
)


def monitor_lines(connection: Any, version: str) -> list[str]:
    """The monitor's numbers, day by day."""
    monitor = f"FLIGHT_DELAYS_MONITOR_{version}"
    days: dict[str, dict[str, float]] = {}
    for title, function, names, segment in MONITORED:
        arguments = [repr(name) for name in (monitor, *names, "1 DAY")]
        arguments += [f"'{SCORE['from']}'::TIMESTAMP_NTZ", "'2013-02-04'::TIMESTAMP_NTZ"]
        if segment:
            segments = [{"column": column, "value": value} for column, value in segment.items()]
            arguments.append(repr(json.dumps({"SEGMENTS": segments})))
        cursor = connection.cursor(snowflake.connector.DictCursor)
        cursor.execute(f"SELECT * FROM TABLE(MODEL_MONITOR_{function}_METRIC({', '.join(arguments)}))")
        for row in cursor.fetchall():
            days.setdefault(str(row["EVENT_TIMESTAMP"])[:10], {})[title] = row["METRIC_VALUE"]
    lines = [
        "",
        f"Monitor {monitor}: the flights that arrived, against the weeks that the model learned from",
    ]
    titles = [title for title, *_ in MONITORED]
    lines.append(f"  {'day':12}{titles[0]:>8}" + "".join(f"{title:>25}" for title in titles[1:]))
    for day, found in sorted(days.items()):
        flights, *others = (found[title] for title in titles)
        lines.append(f"  {day:12}{flights:>8,.0f}" + "".join(f"{value:>25.3f}" for value in others))
    if len(days) != SCORE["runs"]:
        raise DagFailed("\n".join([*lines, "The monitor has no numbers for some days."]))
    return lines


def service_lines(connection: Any, compared: dict[str, Any]) -> list[str]:
    """What the service answered, and that it is gone."""
    left = connection.cursor().execute("SHOW SERVICES EXCLUDE JOBS").fetchall()
    if left:
        raise DagFailed(f"A service was left: {left}")
    return [
        "",
        f"Service of {compared['version']}: {compared['flights']:,} predictions as in the warehouse (largest "
        f"difference {compared['largest_difference']:.1g}); dropped",
    ]


def clean_up_lines(connection: Any, events: list[dict[str, Any]]) -> list[str]:
    """Which days were told of, and that nothing is left of the jobs that scored them."""
    left = connection.cursor().execute("LIST @FLIGHT_DELAYS_SCORES").fetchall()
    if left:
        raise DagFailed(f"Batch jobs have left files: {left}")
    days = sorted(str(event["partition_key"]) for event in events)
    if len(days) != SCORE["runs"]:
        raise DagFailed(f"Not one event of the asset per day: {days}")
    return [f"  Each day an event of the asset, {days[0]} to {days[-1]}; the jobs' files are removed"]


def summary(
    connection: Any,
    version: str,
    events: list[dict[str, Any]],
    compared: dict[str, Any],
    progress: Progress,
) -> list[str]:
    """What came out, for a person."""
    lines = ["", "Model FLIGHT_DELAYS: will a flight arrive more than 15 minutes late?"]
    lines.append(f"  {'version':12}{'trained on':>12}{'AUC held out':>14}{'Brier':>8}")
    for found in versions(connection):
        metrics = found["metrics"]
        held_out = metrics["held_out"]["challenger"]["metrics"]
        lines.append(
            f"  {found['name']:12}{metrics['training_flights']:>12,}{held_out['roc_auc']:>14.3f}"
            f"{held_out['brier']:>8.3f}" + ("   champion" if "CHAMPION" in found["aliases"] else "")
        )
    lines += ["", "Predictions, made an hour before each flight was to leave, and the flights that arrived"]
    lines.append(
        f"  {'day':12}{'flights':>8}{'predictions':>13}{'never arrived':>15}{'late':>7}{'expected':>11}"
        f"{'late of the riskiest tenth':>28}"
    )
    days = connection.cursor().execute(DAYS).fetchall()
    for day, flights, predictions, never_arrived, late, expected, late_of_tenth in days:
        lines.append(
            f"  {day!s:12}{flights:>8,}{predictions:>13,}{never_arrived:>15,}{late:>7.0%}{expected:>11.0%}"
            f"{late_of_tenth:>28.0%}"
        )
    incomplete = [str(day) for day, flights, predictions, *_ in days if flights != predictions]
    if incomplete or len(days) != SCORE["runs"]:
        raise DagFailed("\n".join([*lines, f"Not one prediction per flight on: {incomplete or 'all days'}"]))
    lines += clean_up_lines(connection, events)
    lines += monitor_lines(connection, version)
    lines += service_lines(connection, compared)
    lines += ["", "Wall time"]
    lines += [f"  {name:64}{seconds:>6.0f} s" for name, seconds in progress.parts.items()]
    lines.append(f"  {'all':64}{time.monotonic() - progress.started:>6.0f} s")
    return lines


def run(directory: Path, progress: Progress) -> list[str]:
    with contextlib.ExitStack() as stack:
        with progress.part("Starting a local Snowflake"):
            local = stack.enter_context(LocalSnowflake(data_dir=directory / "snowflake"))
        connection = stack.enter_context(
            contextlib.closing(snowflake.connector.connect(**local.connection_parameters))
        )
        with contextlib.ExitStack() as airflow_stack:
            with progress.part("Starting Airflow: API server, scheduler, DAG processor, triggerer"):
                (directory / "airflow").mkdir()
                running = airflow_stack.enter_context(
                    airflow(
                        directory / "airflow",
                        DAGS,
                        parallelism=4,
                        environment={"AIRFLOW_CONN_SNOWFLAKE_DEFAULT": local.airflow_connection_uri},
                        preload=["snowflake.connector", "airflow_provider_snowml.operators.inference"],
                    )
                )
                running.wait_for_dags(DAG_IDS, timeout=180)

            with progress.part("Loading 336,776 flights, the weather and the planes"):
                running.post("dags/flight_delays_load/dagRuns", {"logical_date": None})
                follow(running, "flight_delays_load", 1, progress)

            with progress.part("Retraining for two successive weeks"):
                backfill(running, "flight_delays_retrain", RETRAIN, max_active_runs=1)
                follow(running, "flight_delays_retrain", int(RETRAIN["runs"]), progress)

            version = champion_version(connection)
            with progress.part(f"Scoring seven days with {version}, through the triggerer"):
                conf = json.dumps({"version": version})
                backfill(running, "flight_delays_score", SCORE, "--dag-run-conf", conf, max_active_runs=4)
                follow(running, "flight_delays_score", int(SCORE["runs"]), progress)
                events = running.get("assets/events?source_dag_id=flight_delays_score")["asset_events"]

            with progress.part(f"Serving {version}, and comparing its answers with the warehouse's"):
                run = running.post("dags/flight_delays_serve/dagRuns", {"logical_date": None})
                follow(running, "flight_delays_serve", 1, progress)
                tasks = f"dags/flight_delays_serve/dagRuns/{quote(run['dag_run_id'])}/taskInstances"
                compared = running.get(f"{tasks}/compare/xcomEntries/return_value")["value"]
            progress.say("Stopping Airflow")
        lines = summary(connection, version, events, compared, progress)
        progress.say("Stopping the local Snowflake")
    return lines


def backfill(
    running: Airflow, dag_id: str, period: dict[str, Any], *options: str, max_active_runs: int
) -> None:
    arguments = ["--dag-id", dag_id, "--from-date", period["from"], "--to-date", period["to"], *options]
    running.command("backfill", "create", *arguments, "--max-active-runs", str(max_active_runs))


def main() -> int:
    # A terminated demo stops what it started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    progress = Progress()
    directory = Path(tempfile.mkdtemp(prefix="snowml-demo-"))
    try:
        lines = run(directory, progress)
    except (DagFailed, AirflowFailed) as failure:
        progress.say(f"FAILED. {failure}")
        print(f"All logs are in {directory}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit):
        progress.say("Interrupted; everything is stopped.")
        shutil.rmtree(directory, ignore_errors=True)
        return 130
    print("\n".join(lines))
    shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
