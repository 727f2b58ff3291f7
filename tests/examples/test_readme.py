"""The DAG of the README is copied, its names are changed, and it runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
OUR_NAMES = {
    "CHURN_SCORES": "README_SCORES",
    "CHURN": "M",
    "CUSTOMERS": "X",
    "SNAPSHOT_DATE": "DAY",
    "SCORING_POOL": "TEST_POOL",
    "@SCORES": "@ST",
    "2026": "2013",
}


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_dag_runs_and_runs_again(scoring, run_dag):
    source = python_blocks()[0]
    for theirs, ours in OUR_NAMES.items():
        assert theirs in source
        source = source.replace(theirs, ours)
    namespace: dict = {}
    exec(source.replace("):\n", ") as dag:\n", 1), namespace)
    for _ in range(2):
        run, values = run_dag(namespace["dag"], logical_date=datetime(2013, 6, 1, tzinfo=UTC))
        assert run.state == "success"
        assert values["load"]["rows"] == 30
    assert scoring.hook().get_first("SELECT COUNT(*), COUNT(DISTINCT ID) FROM README_SCORES") == (30, 30)


def test_the_local_snowflake_from_python(capsys):
    exec(python_blocks()[1], {})
    assert capsys.readouterr().out.startswith("('")


def test_what_the_readme_names_is_there():
    text = README.read_text()
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", text) + re.findall(
        r"`((?:tests|scripts)/[\w/]+\.py)", text
    )
    assert len(links) > 15
    assert [link for link in links if not (README.parent / link.partition("#")[0]).exists()] == []
