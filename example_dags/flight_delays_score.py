"""Score one day's flights, as of an hour before each was to leave; keep one set of predictions per day.

A run is for a partition, the day: ``CronPartitionTimetable`` gives scheduled and backfilled runs a partition
key and no logical date. So any stretch of days is scored, or scored again, by::

    airflow backfill create --dag-id flight_delays_score --from-date 2013-01-28 --to-date 2013-02-03T23:00 \\
        --max-active-runs 3 --dag-run-conf '{"version": "V20130128"}'

It is well to name the version in a backfill: ``default`` may move while the backfill runs. With
``--reprocess-behavior completed`` days that have been scored are scored again, and replaced. One day by
hand::

    airflow dags trigger flight_delays_score --conf '{"day": "2013-01-28"}'

With ``test`` for ``trigger`` it runs in one process and without a scheduler. (Airflow 3.3.2 ends that with an
error of its own after the last task, as for any DAG with a deadline.)

Cancelled flights are scored as well: an hour before departure nobody knows. They never arrive, so nothing
says later whether the prediction was right, and no measure counts them.

``flight_delays_load`` has to have run, and ``flight_delays_retrain`` once.
"""

from __future__ import annotations

import logging
from datetime import date, datetime, timedelta
from typing import Any

from airflow.sdk import (
    Asset,
    CronPartitionTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    SyncCallback,
    dag,
    task,
)
from pendulum import timezone

from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLCleanUpBatchOperator,
    SnowMLLoadPredictionsOperator,
)
from airflow_provider_snowml.retry_policy import SNOWML_RETRY_POLICY

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

# Each loaded day is an event of this asset, with the day as its partition key: a DAG that is scheduled on it
# knows which day has come, or come anew.
predictions = Asset("flight_delay_predictions")


def say_that_it_is_late(context: dict[str, Any]) -> None:
    """What happens when a run misses its deadline: yours would call somebody, with a notifier."""
    run, deadline = context["dag_run"], context["deadline"]
    logging.getLogger(__name__).warning(
        "%s is not done by %s.", run["partition_key"] or run["dag_run_id"], deadline["deadline_time"]
    )


def describe_event(context: Any, result: dict[str, Any]) -> None:
    """What the asset's event says besides the day."""
    context["outlet_events"][predictions].extra = {key: result[key] for key in ("rows", "model", "version")}


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
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10), "retry_policy": SNOWML_RETRY_POLICY},
    # A partition has no logical date: the clock starts when the run is queued, in a backfill all at once.
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=3),
        callback=SyncCallback(say_that_it_is_late),
    ),
    tags=["example", "snowml"],
)
def flight_delays_score():
    @task
    def prepare(day: str) -> str:
        """Check the day, and make sure of what the run needs."""
        try:
            date.fromisoformat(day)
        except ValueError:
            raise InvalidArgumentError(
                f"{day!r} is no day: give the run a partition key or the Param day."
            ) from None
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

    # The table has the query's columns, the predictions, and where each row came from.
    load = SnowMLLoadPredictionsOperator(
        task_id="load",
        job_output_location=score.output["job_output_location"],
        output_table=PREDICTIONS,
        replace_column="FLIGHT_DATE",
        replace_value=DAY,
        expected_rows=score.output["output_rows"],
        outlets=[predictions],
        post_execute=describe_event,
    )

    # What lies in the stage is not needed any more once it is loaded.
    clean_up = SnowMLCleanUpBatchOperator(
        task_id="clean_up", job_output_location=score.output["job_output_location"]
    )

    prepare(DAY) >> score >> load >> clean_up.as_teardown(setups=score)


flight_delays_score()
