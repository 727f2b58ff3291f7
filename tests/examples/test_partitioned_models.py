"""One model per carrier, run whole with ``dag.test()`` on a few weeks of flights of three carriers."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_conn")


@pytest.fixture
def flights(example, connection):
    """AA is late in bad weather, UA in good; NEW has flights on the scored day only."""
    features = example("partitioned_models").FEATURES
    cursor = connection.cursor()
    numbers = ", ".join(
        f"{'MOD(N, 2)' if name == 'VISIBILITY' else '1'}::FLOAT AS {name}" for name in features
    )
    cursor.execute(
        "CREATE TABLE FLIGHTS AS SELECT DATEADD(DAY, FLOOR(N / 20)::INT, '2013-01-25'::DATE) AS FLIGHT_DATE, "
        "CARRIER || N AS FLIGHT_ID, CARRIER, "
        f"IFF(CARRIER = 'UA', MOD(N, 2) = 1, MOD(N, 2) = 0) AS LATE, {numbers} "
        "FROM (SELECT SEQ4() AS N FROM TABLE(GENERATOR(ROWCOUNT => 120))) AS NUMBERS "
        "CROSS JOIN (SELECT 'AA' AS CARRIER UNION ALL SELECT 'UA' UNION ALL SELECT 'NEW') AS CARRIERS "
        "WHERE CARRIER <> 'NEW' OR N >= 100"
    )
    cursor.execute("CREATE VIEW FLIGHT_OUTCOMES AS SELECT FLIGHT_DATE, FLIGHT_ID, LATE FROM FLIGHTS")
    known = ", ".join(["FLIGHT_DATE", "FLIGHT_ID", "CARRIER", *features])
    cursor.execute(f"CREATE VIEW FLIGHT_FEATURES AS SELECT {known} FROM FLIGHTS")
    return cursor


def test_each_carrier_is_scored_by_its_own_model(dags, run_dag, flights):
    run, xcoms = run_dag(dags["partitioned_models"], run_conf={"day": "2013-01-30"})
    assert run.state == "success", {ti.task_id: ti.state for ti in run.get_task_instances()}
    assert xcoms["train"]["metrics"] == {"carriers": 2, "training_flights": 200}
    assert (xcoms["score"]["rows"], xcoms["score"]["function"], xcoms["check"]) == (60, "predict", 60)
    flights.execute(
        "SELECT P.CARRIER, F.VISIBILITY, COUNT(*), MIN(P_LATE), MAX(P_LATE) "
        "FROM FLIGHT_DELAY_PREDICTIONS_BY_CARRIER P JOIN FLIGHT_FEATURES F ON F.FLIGHT_ID = P.FLIGHT_ID "
        "GROUP BY 1, 2 ORDER BY 1, 2"
    )
    found = {(carrier, bool(clear)): rest for carrier, clear, *rest in flights.fetchall()}
    assert {key: count for key, (count, _, _) in found.items()} == dict.fromkeys(found, 10)
    least, most = ({key: rest[i] for key, rest in found.items()} for i in (1, 2))
    assert least["AA", False] > 0.9 > 0.1 > most["AA", True]
    assert least["UA", True] > 0.9 > 0.1 > most["UA", False]
    assert least["NEW", True] == most["NEW", False] == 0.5


def test_the_parts(dags):
    dag = dags["partitioned_models"]
    assert [task.task_id for task in dag.topological_sort()] == ["prepare", "train", "score", "check"]
    assert dag.get_task("score").partition_column == "CARRIER"
    assert dag.schedule is None
