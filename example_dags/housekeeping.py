"""Housekeeping: what the other examples leave behind, and what costs and does nothing.

Once a week, four things that need not wait for each other::

    prune_versions        old versions of the schema's models that nobody uses
    sweep_run_schemas     schemas that failed runs left
    clean_up_batches      the output of old batch jobs, with the jobs, mapped over who wrote where
    suspend_idle          services of versions that were replaced, and the compute pool if it has no work

``flight_delays_score`` has to have run, so that the stage and the pool are there. Until ``plan_only`` is
false nothing is done, and logs and XComs say what would be::

    airflow dags trigger housekeeping --conf '{"plan_only": false}'

Nothing that is in use is touched, whatever the numbers below say: the operators look themselves. A champion,
what is served or monitored, a job that lives, a pool that somebody's job runs in stay.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag

from airflow_provider_snowml.operators.inference import SnowMLCleanUpBatchOperator
from airflow_provider_snowml.operators.model_retention import SnowMLPruneModelVersionsOperator
from airflow_provider_snowml.operators.run_schema import SnowMLDropStaleRunSchemasOperator
from airflow_provider_snowml.operators.suspend_idle import SnowMLSuspendIdleOperator
from airflow_provider_snowml.retry_policy import SNOWML_RETRY_POLICY

# Which DAG's batch jobs write where. The output of other DAGs is left alone.
BATCH_RESULTS = [
    {"job_dag_id": "flight_delays_score", "output_stage_location": "@FLIGHT_DELAYS_SCORES/daily"},
    {
        "job_dag_id": "flight_delays_score_by_airport",
        "output_stage_location": "@FLIGHT_DELAYS_SCORES/by_airport",
    },
]
DAY = 24 * 60 * 60
PLAN_ONLY = "{{ params.plan_only }}"


@dag(
    schedule="@weekly",
    start_date=pendulum.datetime(2013, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_policy": SNOWML_RETRY_POLICY},
    params={
        "plan_only": Param(True, type="boolean", description="Say what would be done, and do nothing"),
        "keep_last": Param(10, type="integer", minimum=1, description="Versions of each model to keep"),
        "older_than_days": Param(30, type="number", minimum=0, description="How old what goes must be"),
        "compute_pool": Param(
            "FLIGHT_DELAYS_POOL", type="string", description="The pool to suspend when idle"
        ),
        "idle_minutes": Param(30, type="number", minimum=0, description="How long it must have run"),
    },
    tags=["example", "snowml"],
)
def housekeeping():
    older_than = f"{{{{ params.older_than_days * {DAY} }}}}"
    SnowMLPruneModelVersionsOperator(
        task_id="prune_versions",
        keep_last="{{ params.keep_last }}",
        older_than=older_than,
        plan_only=PLAN_ONLY,
    )
    SnowMLDropStaleRunSchemasOperator(
        task_id="sweep_run_schemas", prefix="RUN", older_than=older_than, plan_only=PLAN_ONLY
    )
    SnowMLCleanUpBatchOperator.partial(
        task_id="clean_up_batches", older_than=older_than, plan_only=PLAN_ONLY
    ).expand_kwargs(BATCH_RESULTS)
    SnowMLSuspendIdleOperator(
        task_id="suspend_idle",
        compute_pools=["{{ params.compute_pool }}"],
        idle_for="{{ params.idle_minutes * 60 }}",
        plan_only=PLAN_ONLY,
    )


housekeeping()
