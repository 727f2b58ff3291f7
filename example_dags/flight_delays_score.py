"""Score one day's flights, as of an hour before each was to leave; keep one set of predictions per day.

A run is for a partition, the day: ``CronPartitionTimetable`` gives scheduled and backfilled runs a partition
key and no logical date. So any stretch of days is scored, or scored again, by::

    airflow backfill create --dag-id flight_delays_score --from-date 2013-01-28 --to-date 2013-02-03T23:00 \\
        --max-active-runs 3 --dag-run-conf '{"version": "V20130128"}'

It is well to name the version in a backfill: ``default`` may move while the backfill runs. One day by hand,
in one process and without a scheduler::

    airflow dags test flight_delays_score --conf '{"day": "2013-01-28"}'

Cancelled flights are scored as well: an hour before departure nobody knows. They never arrive, so nothing
says later whether the prediction was right, and no measure counts them.

``flight_delays_load`` has to have run, and ``flight_delays_retrain`` once.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from airflow.sdk import CronPartitionTimetable, Param, dag, task
from pendulum import timezone

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLLoadPredictionsOperator,
)
from airflow_provider_snowml.sensors.inference import SnowMLBatchSuccessSensor

NEW_YORK = timezone("America/New_York")

COMPUTE_POOL = "FLIGHT_DELAYS_POOL"
STAGE = "FLIGHT_DELAYS_SCORES"
PREDICTIONS = "FLIGHT_DELAY_PREDICTIONS"

SETUP = [
    f"CREATE COMPUTE POOL IF NOT EXISTS {COMPUTE_POOL} "
    "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS AUTO_SUSPEND_SECS = 300",
    # Batch jobs read and write stages that Snowflake encrypts, not the client.
    f"CREATE STAGE IF NOT EXISTS {STAGE} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
]

# `airflow dags test` has no partition: there the day is the Param. It becomes part of a query, so the first
# task makes sure that it is a day and nothing else.
DAY = "{{ partition_key or params.day }}"


@dag(
    # Half past midnight in New York, for the day that has just ended: hence the offset.
    schedule=CronPartitionTimetable("30 0 * * *", timezone=NEW_YORK, run_offset=-1, key_format="%Y-%m-%d"),
    start_date=datetime(2013, 1, 1, tzinfo=NEW_YORK),
    end_date=datetime(2014, 1, 1, tzinfo=NEW_YORK),
    catchup=False,
    params={
        "day": Param(None, type=["null", "string"], format="date", description="If there is no partition"),
        "version": Param("default", type="string", description="Model version or alias"),
    },
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["example", "snowml"],
)
def flight_delays_score():
    @task
    def prepare(day: str) -> str:
        """Check the day, and make sure of what the run needs."""
        try:
            date.fromisoformat(day)
        except ValueError:
            raise ValueError(f"{day!r} is no day: give the run a partition key or the Param day.") from None
        SnowMLHook().run(SETUP)
        return day

    score = SnowMLBatchInferenceOperator(
        task_id="score",
        model_name="FLIGHT_DELAYS",
        version_name="{{ params.version }}",
        function_name="predict_proba",
        input_query=f"SELECT * FROM FLIGHT_FEATURES WHERE FLIGHT_DATE = '{DAY}'",
        compute_pool=COMPUTE_POOL,
        output_stage_location=f"@{STAGE}/daily/",
        deferrable=True,
        poll_interval=5,
        timeout=3600,
        max_active_tis_per_dag=2,  # the pool has one node: a backfill must not queue up thirty jobs in it
    )

    # The operator has waited for `_SUCCESS` already. The sensor is for whoever did not start the job; here it
    # shows how: it fails at once when the job has failed, instead of waiting for a file that won't come.
    scored = SnowMLBatchSuccessSensor(
        task_id="scored",
        job_output_location=score.output["job_output_location"],
        job_name=score.output["job_name"],
        deferrable=True,
        poke_interval=5,
        timeout=600,
    )

    # The table has the query's columns, the predictions, and where each row came from.
    load = SnowMLLoadPredictionsOperator(
        task_id="load",
        job_output_location=score.output["job_output_location"],
        output_table=PREDICTIONS,
        replace_column="FLIGHT_DATE",
        replace_value=DAY,
        expected_rows=score.output["output_rows"],
    )

    prepare(DAY) >> score >> scored >> load


flight_delays_score()
