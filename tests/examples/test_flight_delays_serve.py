"""The serving example with ``dag.test()``: a champion of a few made-up flights, a real service process."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_conn")


@pytest.fixture
def champion(example, session, connection) -> str:
    """A small FLIGHT_DELAYS with a champion, trained as the retraining example does."""
    import numpy as np
    import pandas as pd
    from snowflake.ml.registry import Registry

    retrain = example("flight_delays_retrain")
    rng = np.random.default_rng(13)
    count = 400
    flights = pd.DataFrame({name: rng.normal(size=count) for name in retrain.NUMBERS})
    for name in retrain.CATEGORIES:
        flights[name] = rng.choice(["A", "B", "C"], size=count)
    flights["LATE"] = flights[retrain.NUMBERS[0]] + rng.normal(size=count) > 0
    flights["FLIGHT_ID"] = [f"F{i}" for i in range(count)]
    flights["FLIGHT_DATE"] = pd.Timestamp("2013-01-01").date()
    session.create_dataframe(flights).write.save_as_table("FLIGHT_FEATURES")
    artifact = retrain.fit(session, "FLIGHT_FEATURES")
    registry = Registry(session)
    for version in ("V1", "V2"):
        registry.log_model(
            artifact.model, model_name=retrain.MODEL, version_name=version, signatures=artifact.signatures
        )
    registry.get_model(retrain.MODEL).version("V2").set_alias("CHAMPION")
    return "V2"


def services(connection) -> list:
    return connection.cursor().execute("SHOW SERVICES EXCLUDE JOBS").fetchall()


def test_the_champion_answers_as_in_the_warehouse_and_is_dropped_even_after_a_failure(
    dags, run_dag, champion, connection, schema, monkeypatch
) -> None:
    dag = dags["flight_delays_serve"]
    dag_run, results = run_dag(dag)
    states = {ti.task_id: ti.state for ti in dag_run.get_task_instances()}
    assert dag_run.state == "success", states
    assert results["compare"]["version"] == champion
    assert results["compare"]["flights"] == 400
    assert results["compare"]["largest_difference"] <= 1e-9
    assert results["ready"]["instances"] == 1
    assert results["drop"] == {"service_name": f"{schema}.FLIGHT_DELAYS_SERVICE", "dropped": True}
    assert not services(connection)

    compare = dag.get_task("compare")
    monkeypatch.setattr(compare, "retries", 0)
    monkeypatch.setitem(compare.python_callable.__globals__, "TOLERANCE", -1)
    dag_run, results = run_dag(dag)
    states = {ti.task_id: ti.state for ti in dag_run.get_task_instances()}
    assert dag_run.state == "failed"
    assert (states["ready"], states["compare"], states["drop"]) == ("success", "failed", "success")
    assert results["drop"]["dropped"]
    assert not services(connection)
