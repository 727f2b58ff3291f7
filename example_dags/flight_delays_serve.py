"""Serve the champion for as long as it takes to see that it answers right.

A service answers at once, and costs for as long as it runs. This one is a rehearsal: deploy the champion,
wait until every instance is ready, ask it about some flights, compare with what the same version says in the
warehouse, and drop it, whatever happened before::

    prepare > serve > ready > compare > drop

``prepare`` and ``drop`` are a setup and its teardown: once there is a compute pool, the service is dropped at
the end, even when it could not be deployed or answered wrong; the run fails all the same. Runs by hand only::

    airflow dags trigger flight_delays_serve

``flight_delays_load`` has to have run, and ``flight_delays_retrain`` until a version was promoted.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.services import (
    SnowMLCreateServiceOperator,
    SnowMLDropServiceOperator,
)
from airflow_provider_snowml.sensors.services import SnowMLServiceReadySensor

MODEL = "FLIGHT_DELAYS"
SERVICE = "FLIGHT_DELAYS_SERVICE"
COMPUTE_POOL = "FLIGHT_DELAYS_SERVICE_POOL"
FLIGHTS = 500
TOLERANCE = 1e-9  # numbers travel to a service and back as text


@dag(
    schedule=None,
    max_active_runs=1,  # the service has one name
    params={"version": Param("CHAMPION", type="string", description="Model version or alias")},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["example", "snowml"],
)
def flight_delays_serve():
    @task
    def prepare() -> None:
        SnowMLHook().run(
            f"CREATE COMPUTE POOL IF NOT EXISTS {COMPUTE_POOL} "
            "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS AUTO_SUSPEND_SECS = 300"
        )

    # Ends when the image is built and the service exists. With wait_until_ready, which is the default, it
    # would wait for the instances as well; here the sensor does, as it would for a service of another DAG.
    serve = SnowMLCreateServiceOperator(
        task_id="serve",
        model_name=MODEL,
        version_name="{{ params.version }}",
        service_name=SERVICE,
        service_compute_pool=COMPUTE_POOL,
        min_instances=1,
        if_exists="replace",  # what a run left that was ended by force
        wait_until_ready=False,
        deferrable=True,
        poll_interval=5,
        timeout=1800,
    )

    ready = SnowMLServiceReadySensor(
        task_id="ready",
        service_name=serve.output["service_name"],
        deferrable=True,
        poke_interval=5,
        timeout=1800,
    )

    @task
    def compare(service: str, version: str) -> dict[str, Any]:
        """Ask the service and the warehouse about the same flights."""
        hook = SnowMLHook()
        with hook.session() as session:
            model_version = hook.registry(session).get_model(MODEL).version(version)
            flights = session.sql(
                f"SELECT * FROM FLIGHT_FEATURES ORDER BY FLIGHT_DATE, FLIGHT_ID LIMIT {FLIGHTS}"
            ).cache_result()
            for table, where in (("SERVED", {"service_name": service}), ("IN_WAREHOUSE", {})):
                predictions = model_version.run(flights, function_name="predict_proba", **where)
                predictions.write.save_as_table(table, mode="overwrite", table_type="temporary")
            found = session.sql("""
                SELECT COUNT(*) AS N, COUNT(S.P_LATE) AS ANSWERED, MAX(ABS(S.P_LATE - W.P_LATE)) AS DIFFERENCE
                FROM IN_WAREHOUSE W
                LEFT JOIN SERVED S ON S.FLIGHT_DATE = W.FLIGHT_DATE AND S.FLIGHT_ID = W.FLIGHT_ID
            """).collect()[0]
        if not found.N or found.ANSWERED != found.N or found.DIFFERENCE > TOLERANCE:
            raise ValueError(f"The service answers otherwise than the warehouse: {found}")
        return {"version": version, "flights": found.N, "largest_difference": found.DIFFERENCE}

    drop = SnowMLDropServiceOperator(task_id="drop", service_name=SERVICE)

    setup = prepare().as_setup()
    compared = compare(serve.output["service_name"], serve.output["version"])
    setup >> serve >> ready >> compared >> drop.as_teardown(setups=setup)


flight_delays_serve()
