"""``make bench``: measure all, or what is named, against a local Snowflake of its own; write a page of it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "snippets" / "benchmarks.md"
NAMES = ("imports", "scoring", "waiting", "statements")


def main() -> None:
    """Measure, print, and write what ``docs/benchmarks.md`` includes."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", help="what is measured; all if nothing is said")
    parser.add_argument("--no-page", action="store_true", help="print only")
    arguments = parser.parse_args()
    wanted = arguments.only or NAMES
    with tempfile.TemporaryDirectory(prefix="snowml-bench-") as home:
        _configure(home)
        sections = _measure(wanted)
    if not arguments.no_page and set(wanted) == set(NAMES):
        RESULTS.write_text("\n".join(sections))
        print(f"Written: {RESULTS}")


def _configure(home: str) -> None:
    """An Airflow of its own, before anything imports it."""
    for key in [key for key in os.environ if key.startswith("AIRFLOW_")]:
        del os.environ[key]
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": f"{home}/dags",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _measure(wanted: list[str] | tuple[str, ...]) -> list[str]:
    from airflow_provider_snowml.local import LocalSnowflake
    from benchmarks import imports, report, scoring, statements, waiting

    def of_statements() -> list[report.Table]:
        from airflow.utils.db import initdb

        initdb()
        return statements.tables(statements.sent(local))

    sections = [report.machine().markdown()]
    with LocalSnowflake(image_build_seconds=0.1, faults=True) as local:
        os.environ["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"] = local.airflow_connection_uri
        measures: dict[str, Callable[[], list[report.Table]]] = {
            "imports": imports.measure,
            "scoring": scoring.measure,
            "waiting": lambda: waiting.measure(local),
            "statements": of_statements,
        }
        for name in wanted:
            started = time.monotonic()
            sections += [table.markdown() for table in measures[name]()]
            print(f"\n{name} took {time.monotonic() - started:.0f} s\n", file=sys.stderr)
    print("\n".join(sections), flush=True)
    return sections


if __name__ == "__main__":
    main()
