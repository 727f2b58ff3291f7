"""Load, retrain and score: run whole with ``dag.test()`` on the real flights and the local Snowflake."""

from __future__ import annotations

import json

import pendulum
import pytest

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_conn")


@pytest.fixture
def run(run_dag, monkeypatch):
    """Run a DAG in this process, as of a day in New York, and return its tasks' states."""

    def run(dag, day: str | None = None, conf: dict | None = None) -> dict[str, str]:
        logical_date = pendulum.parse(day, tz="America/New_York").add(hours=12) if day else None
        # Airflow 3.3.2 cannot end dag.test() of a DAG that has one, though all its tasks have run.
        monkeypatch.setattr(dag, "deadline", None)
        dag_run, _ = run_dag(dag, logical_date=logical_date, run_conf=conf)
        states = {ti.task_id: ti.state for ti in dag_run.get_task_instances()}
        assert dag_run.state == "success", states
        return states

    return run


def one(cursor, query: str) -> tuple:
    return cursor.execute(query).fetchone()


def shown(cursor, statement: str) -> list[dict]:
    cursor.execute(statement)
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def versions(cursor) -> dict[str, list[str]]:
    rows = shown(cursor, "SHOW VERSIONS IN MODEL FLIGHT_DELAYS")
    return {row["name"]: json.loads(row["aliases"]) for row in rows}


def test_load_retrain_twice_and_score_a_day_twice(dags, run, connection):
    cursor = connection.cursor()

    run(dags["flight_delays_load"])
    assert one(cursor, "SELECT COUNT(*) FROM FLIGHTS") == (336_776,)
    keys = "COUNT(DISTINCT FLIGHT_DATE::VARCHAR || FLIGHT_ID)"
    assert one(cursor, f"SELECT COUNT(*), {keys} FROM FLIGHT_FEATURES") == (336_776, 336_776)

    first = run(dags["flight_delays_retrain"], "2013-01-21")
    assert (first["promote"], first["keep_champion"]) == ("success", "skipped")
    assert first["monitor"] == "success"
    assert {"CHAMPION", "DEFAULT"} <= set(versions(cursor)["V20130121"])

    second = run(dags["flight_delays_retrain"], "2013-01-28")
    assert second["promote"] == "success"
    assert {"CHAMPION", "DEFAULT"} <= set(versions(cursor)["V20130128"])
    assert "CHAMPION" not in versions(cursor)["V20130121"]
    assert not cursor.execute("SHOW SCHEMAS LIKE 'RUN_FLIGHT_DELAYS_%'").fetchall()

    for version in ("V20130121", "default"):
        run(dags["flight_delays_score"], conf={"day": "2013-01-30", "version": version})
    (flights,) = one(cursor, "SELECT COUNT(*) FROM FLIGHTS WHERE MONTH = 1 AND DAY = 30")
    found = one(
        cursor,
        "SELECT COUNT(*), COUNT(DISTINCT FLIGHT_ID), MIN(VERSION), MAX(VERSION), "
        "COUNT_IF(P_LATE BETWEEN 0 AND 1) FROM FLIGHT_DELAY_PREDICTIONS",
    )
    assert found == (flights, flights, "V20130128", "V20130128", flights)
    check_monitors(cursor)


def check_monitors(cursor) -> None:
    """Each promoted version has a monitor; the one that has scored has numbers, and they are right."""
    from sklearn.metrics import accuracy_score, roc_auc_score

    # The run's schema is gone, and the baseline with it: the monitor has a snapshot.
    monitors = shown(cursor, "SHOW MODEL MONITORS LIKE 'FLIGHT_DELAYS%'")
    assert [(row["name"], json.loads(row["baseline"])) for row in monitors] == [
        (
            f"FLIGHT_DELAYS_MONITOR_V{day}",
            {
                "name": "BASELINE",
                "database_name": "SNOWML",
                "schema_name": f"RUN_FLIGHT_DELAYS_{start}T110000",
                "status": "DELETED",
            },
        )
        for start, day in (("20130114", "20130121"), ("20130121", "20130128"))
    ]

    def metric(function: str, *arguments: str, version: str = "V20130128") -> list[dict]:
        listed = ", ".join(f"'{a}'" for a in (f"FLIGHT_DELAYS_MONITOR_{version}", *arguments))
        period = "'2013-01-28'::TIMESTAMP_NTZ, '2013-02-04'::TIMESTAMP_NTZ"
        return shown(cursor, f"SELECT * FROM TABLE(MODEL_MONITOR_{function}_METRIC({listed}, {period}))")

    cursor.execute(
        "SELECT P_LATE, LATE FROM FLIGHT_DELAY_PREDICTIONS P JOIN FLIGHT_OUTCOMES O "
        "ON O.FLIGHT_DATE = P.FLIGHT_DATE AND O.FLIGHT_ID = P.FLIGHT_ID WHERE LATE IS NOT NULL"
    )
    predicted, late = zip(*cursor.fetchall(), strict=True)
    (auc,) = metric("PERFORMANCE", "ROC_AUC", "1 DAY")
    assert str(auc["EVENT_TIMESTAMP"]) == "2013-01-30 00:00:00"
    assert auc["METRIC_VALUE"] == pytest.approx(roc_auc_score(late, predicted), abs=1e-9)
    (accuracy,) = metric("PERFORMANCE", "CLASSIFICATION_ACCURACY", "ALL")
    expected = accuracy_score(late, [p >= 0.5 for p in predicted])
    assert accuracy["METRIC_VALUE"] == pytest.approx(expected, abs=1e-9)
    (count,) = metric("STAT", "COUNT", "P_LATE", "1 DAY")
    assert count["METRIC_VALUE"] == len(late)

    # The baseline is what the model learned from: the flights of three weeks, but those that never arrived.
    (drift,) = metric("DRIFT", "POPULATION_STABILITY_INDEX", "P_LATE", "1 DAY")
    assert drift["METRIC_VALUE"] > 0
    (arrived,) = one(
        cursor,
        "SELECT COUNT(*) FROM FLIGHT_OUTCOMES WHERE LATE IS NOT NULL "
        "AND FLIGHT_DATE >= '2012-12-31' AND FLIGHT_DATE < '2013-01-21'",
    )
    (version,) = shown(cursor, "SHOW VERSIONS LIKE 'V20130128' IN MODEL FLIGHT_DELAYS")
    learned = json.loads(version["metadata"])["metrics"]["training_flights"]
    assert drift["BASELINE_COL_COUNT_USED"] == learned == arrived
    assert drift["BASELINE_COL_COUNT_UNUSED"] == 0
    assert metric("PERFORMANCE", "ROC_AUC", "1 DAY", version="V20130121") == []
