"""Score one day's flights airport by airport: a timetable with data intervals, mapped tasks, one warm-up.

The day is the run's data interval (``CronDataIntervalTimetable``: a plain cron string gives an empty one).
EWR, JFK and LGA are scored, loaded and cleaned up beside each other, each with a job and a slice of the
table of its own, so one airport can be cleared and run again without the others. ::

    prepare > warm_up > airport [EWR, JFK, LGA]: slice_of > score > load > clean_up > sweep

**The first job of a version waits for its image**, which takes minutes. A backfill that began with the real
work would build the same image in every job that starts meanwhile. ``warm_up`` lets one job of one row build
it, while the other runs wait; as soon as there are predictions of the version, it finds nothing to do and is
skipped. ::

    airflow backfill create --dag-id flight_delays_score_by_airport \\
        --from-date 2013-01-28 --to-date 2013-02-03 --max-active-runs 3 \\
        --dag-run-conf '{"version": "V20130128"}'

``flight_delays_load`` has to have run, ``flight_delays_retrain`` once, and ``flight_delays_score`` once: this
table takes its columns from that one's.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, Param, TriggerRule, dag, task, task_group
from pendulum import timezone

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.inference import (
    SnowMLBatchInferenceOperator,
    SnowMLCleanUpBatchOperator,
    SnowMLLoadPredictionsOperator,
)

NEW_YORK = timezone("America/New_York")
AIRPORTS = ["EWR", "JFK", "LGA"]

MODEL = "FLIGHT_DELAYS"
COMPUTE_POOL = "FLIGHT_DELAYS_POOL"
STAGE = "FLIGHT_DELAYS_SCORES"
PREDICTIONS = "FLIGHT_DELAY_PREDICTIONS_BY_AIRPORT"

SETUP = [
    f"CREATE COMPUTE POOL IF NOT EXISTS {COMPUTE_POOL} "
    "MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS AUTO_SUSPEND_SECS = 300",
    f"CREATE STAGE IF NOT EXISTS {STAGE} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
    f"CREATE TABLE IF NOT EXISTS {PREDICTIONS} AS "
    "SELECT *, NULL::VARCHAR AS AIRPORT_DAY FROM FLIGHT_DELAY_PREDICTIONS WHERE FALSE",
]

DAY = "{{ data_interval_start.in_timezone('America/New_York') | ds }}"
VERSION = "{{ ti.xcom_pull(task_ids='prepare') }}"

# What the warm-up and the airports have in common.
JOB: dict[str, Any] = {
    "model_name": MODEL,
    "version_name": VERSION,
    "function_name": "predict_proba",
    "compute_pool": COMPUTE_POOL,
    "deferrable": True,
    "poll_interval": 5,
    "timeout": 3600,
}


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone=NEW_YORK),
    start_date=datetime(2013, 1, 1, tzinfo=NEW_YORK),
    end_date=datetime(2014, 1, 1, tzinfo=NEW_YORK),
    catchup=False,
    params={"version": Param("default", type="string", description="Model version or alias")},
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
    tags=["example", "snowml"],
)
def flight_delays_score_by_airport():
    @task
    def prepare(version: str) -> str:
        """Make sure of what the run needs; resolve the version once: all jobs of the run have the same."""
        hook = SnowMLHook()
        hook.run(SETUP)
        return hook.resolve_version(MODEL, version).version

    warm_up = SnowMLBatchInferenceOperator(
        task_id="warm_up",
        input_query=f"SELECT * FROM FLIGHT_FEATURES "
        f"WHERE NOT EXISTS (SELECT * FROM {PREDICTIONS} WHERE VERSION = '{VERSION}') LIMIT 1",
        on_empty="skip",
        output_stage_location=f"@{STAGE}/warm_up/",
        max_active_tis_per_dag=1,  # of all runs, also while it is deferred
        **JOB,
    )

    @task_group
    def airport(origin: str):
        @task(trigger_rule=TriggerRule.NONE_FAILED)
        def slice_of(origin: str, day: str) -> dict[str, str]:
            """The airport's flights of the day, and the slice of the table that they fill."""
            where = f"FLIGHT_DATE = '{day}' AND ORIGIN = '{origin}'"
            return {"query": f"SELECT * FROM FLIGHT_FEATURES WHERE {where}", "airport_day": f"{origin} {day}"}

        part = slice_of(origin, DAY)
        score = SnowMLBatchInferenceOperator(
            task_id="score",
            input_query=part["query"],
            output_stage_location=f"@{STAGE}/by_airport/",
            on_empty="replace",  # a day on which none of its flights left
            max_active_tis_per_dag=4,
            **JOB,
        )
        load = SnowMLLoadPredictionsOperator(
            task_id="load",
            job_output_location=score.output["job_output_location"],
            output_table=PREDICTIONS,
            replace_column="AIRPORT_DAY",
            replace_value=part["airport_day"],
            expected_rows=score.output["output_rows"],
        )
        clean_up = SnowMLCleanUpBatchOperator(
            task_id="clean_up", job_output_location=score.output["job_output_location"]
        )
        load >> clean_up.as_teardown(setups=score)

    # What the runs before have left: warm-ups, and the airports that failed and nobody came back to.
    sweep = SnowMLCleanUpBatchOperator.partial(task_id="sweep", older_than=timedelta(days=7)).expand(
        output_stage_location=[f"@{STAGE}/warm_up/", f"@{STAGE}/by_airport/"]
    )

    prepare("{{ params.version }}") >> warm_up >> airport.expand(origin=AIRPORTS) >> sweep


flight_delays_score_by_airport()
