"""``make pictures``: run the examples, and take the pictures of them that README and documentation show."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from airflow_processes import Airflow
from browser import missing_programs, pages
from demo import DAG_IDS, RETRAIN, SCORE, Progress, backfill, follow
from up import COMPONENTS, ROOT, SNOWFLAKE, Settings, Up

IMAGES = ROOT / "docs" / "images"


def run_the_examples(airflow: Airflow) -> None:
    """In the demo's order, each to its end."""
    progress = Progress()
    for dag_id in DAG_IDS:
        airflow.command("dags", "unpause", "--yes", dag_id)
        if dag_id == "flight_delays_retrain":
            backfill(airflow, dag_id, RETRAIN, max_active_runs=1)
            follow(airflow, dag_id, int(RETRAIN["runs"]), progress)
        elif dag_id == "flight_delays_score":
            backfill(airflow, dag_id, SCORE, max_active_runs=3)
            follow(airflow, dag_id, int(SCORE["runs"]), progress)
        else:
            airflow.post(f"dags/{dag_id}/dagRuns", {"logical_date": None})
            follow(airflow, dag_id, 1, progress)


def take(airflow: Airflow, into: Path) -> None:
    """Log in, find the example DAGs, and take the list of them, a graph and a grid of runs.

    :param into: the directory of the pictures.
    """
    into.mkdir(exist_ok=True)
    runs = airflow.get("dags/flight_delays_retrain/dagRuns?order_by=run_after")["dag_runs"]
    graph = "dags/flight_delays_retrain" + "".join(f"/runs/{quote(run['dag_run_id'])}" for run in runs[:1])
    with pages(airflow.url, height=840) as browser:
        browser.log_in("admin", airflow.password or "")
        browser.dags(*DAG_IDS)
        browser.picture(into / "airflow_dags.png")
        browser.grid("dags/flight_delays_score", "score", "load")
        browser.picture(into / "airflow_flight_delays_score.png")
    with pages(airflow.url, height=600) as browser:
        browser.log_in("admin", airflow.password or "")
        browser.graph(graph, "train", "contest", "promote")
        browser.picture(into / "airflow_flight_delays_retrain.png")


def main() -> int:
    parser = argparse.ArgumentParser(description="Take the pictures of Airflow that the documentation shows.")
    parser.add_argument(
        "--of", type=Path, help="what runs in this directory, as it is; else the examples are run"
    )
    options = parser.parse_args()
    if missing := missing_programs():
        print(f"Install {' and '.join(missing)} first.", file=sys.stderr)
        return 1
    if options.of:
        settings = Settings.of(options.of)
        if settings is None:
            print(f"Nothing was ever started in {options.of}.", file=sys.stderr)
            return 1
        take(Up(options.of, settings).airflow(), IMAGES)
        return 0
    with tempfile.TemporaryDirectory(prefix="snowml-pictures-") as made:
        directory = Path(made)
        here = Up(directory, Settings.new())
        here.settings.write(directory)
        try:
            airflow = here.start([SNOWFLAKE, *COMPONENTS])
            run_the_examples(airflow)
            take(airflow, IMAGES)
        finally:
            here.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
