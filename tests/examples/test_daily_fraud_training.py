"""Daily fraud training, run whole with ``dag.test()``: a date, the same date again, and an older one."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pendulum
import pytest

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_conn")

DAG_ID = "daily_fraud_training"


@pytest.fixture
def train(dags, run_dag):
    """Run the DAG for a day's interval; gives the tasks' states and XComs."""

    def train(day: str) -> tuple[dict[str, str], dict[str, Any]]:
        run, xcoms = run_dag(dags[DAG_ID], logical_date=pendulum.parse(day).add(days=1, hours=12))
        states = {ti.task_id: ti.state for ti in run.get_task_instances()}
        assert run.state == "success", states
        return states, xcoms

    return train


@pytest.fixture
def catalog(connection):
    """All that a run may leave: the versions with their metrics, the live version, tables and schemas."""

    def shown(statement: str) -> list[dict[str, Any]]:
        cursor = connection.cursor()
        cursor.execute(statement)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def look() -> dict[str, Any]:
        versions = shown("SHOW VERSIONS IN MODEL FRAUD")
        metrics = {row["name"]: json.loads(row["metadata"])["metrics"] for row in versions}
        (sums,) = shown(
            "SELECT COUNT(*) AS N, COUNT(DISTINCT TRANSACTION_ID) AS DIFFERENT, "
            "COUNT_IF(IS_FRAUD) AS FRAUDS, SUM(AMOUNT)::NUMBER(20, 2) AS PAID FROM FINANCIAL_TRANSACTIONS"
        )
        return {
            "aliases": {row["name"]: set(json.loads(row["aliases"])) - {"FIRST", "LAST"} for row in versions},
            "verdicts": {version: found.pop("held_out") for version, found in metrics.items()},
            "metrics": metrics,
            "made": {row["name"]: row["created_on"] for row in versions},
            "live": shown("SELECT SYSTEM$GET_TAG('LIVE_VERSION', 'FRAUD', 'MODULE') AS V")[0]["V"],
            "transactions": sums,
            "features": shown("SELECT COUNT(*) AS N FROM FRAUD_FEATURES")[0]["N"],
            "run_schemas": [row["name"] for row in shown("SHOW SCHEMAS LIKE 'RUN_FRAUD_%'")],
        }

    return look


def test_a_day_the_same_day_and_an_older_one(train, catalog, example):
    module = example(DAG_ID)
    a_day = module.TRANSACTIONS_A_DAY

    states, first = train("2026-02-20")
    assert (states["mark_live"], states["keep_production"]) == ("success", "skipped")
    assert first["split"] == {"TRAINING": 7 * a_day, "HELD_OUT": a_day}
    assert first["mark_live"]["previous_version"] is None
    once = catalog()
    live = {"V20260220": {"CHAMPION", "DEFAULT"}}
    assert (once["aliases"], once["live"], once["run_schemas"]) == (live, "V20260220", [])
    assert once["transactions"]["N"] == once["transactions"]["DIFFERENT"] == once["features"] == 8 * a_day
    assert once["metrics"]["V20260220"]["training_transactions"] == 7 * a_day

    states, again = train("2026-02-20")
    assert set(again["load"].values()) == {0}
    assert again["split"] == first["split"]
    assert again["mark_live"]["version"] == "V20260220"
    twice = catalog()
    before, judged = once["verdicts"].pop("V20260220"), twice["verdicts"].pop("V20260220")
    # Nothing is different but the verdict: this time there is a champion, which is itself.
    assert (before["outcome"], judged["outcome"]) == ("no_champion", "better")
    assert judged["challenger"] == before["challenger"]
    assert twice == once

    # Better on its own day, which the champion has not learned from; and all the same not the newer model.
    states, older = train("2026-02-06")
    assert older["train"]["version"] == "V20260206"
    assert states["mark_live"] == "success"
    assert older["mark_live"]["version"] == "V20260220"
    then = catalog()
    verdict = then["verdicts"]["V20260206"]
    assert verdict["outcome"] == "better"
    assert verdict["champion"]["version"] == "V20260220"
    assert then["aliases"] == live | {"V20260206": set()}
    assert (then["live"], then["run_schemas"]) == ("V20260220", [])
    assert then["metrics"]["V20260220"] == once["metrics"]["V20260220"]
    assert then["transactions"]["N"] == then["transactions"]["DIFFERENT"] == 16 * a_day


def test_a_day_is_the_same_whoever_makes_it(example):
    module = example(DAG_ID)
    day = date(2026, 2, 20)
    assert module.transactions(day).equals(module.transactions(day))
    assert not module.transactions(day).equals(module.transactions(date(2026, 2, 21)))
    for one, other in zip(module.customers_and_accounts(), module.customers_and_accounts(), strict=True):
        assert one.equals(other)
