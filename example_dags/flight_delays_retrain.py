"""Retrain every Monday, and promote only what is better: will a flight arrive more than 15 minutes late?

The data interval is the week that has just been flown (hence ``CronDataIntervalTimetable``: a plain cron
string gives an empty interval). That week is held out. The challenger learns from the three weeks before it,
the champion learned from weeks before that, and both are judged on the same held-out flights. The promoted
version gets a monitor: how does it do in use, day by day, compared with the weeks that it learned from? ::

    preflight > make_run_schema > split_flights > train > contest

    contest > promote > score_training > watch > monitor > drop_run_schema
            > keep_champion                              > drop_run_schema

The first task looks whether the role may do all of that: it is better known before the training than after it
that the monitor lacks a privilege.

What a run computes lies in a schema of its own. It is dropped when the run has succeeded and kept when it has
failed: that is when somebody wants to look. Every task can be run again: tables are replaced, the version's
name comes from the week, and promoting twice changes nothing.

``flight_delays_load`` has to have run. The DAG ends in January 2014, as the flights do.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow.sdk import CronDataIntervalTimetable, dag, task
from pendulum import timezone

from airflow_provider_snowml.core.preflight_steps import (
    Evaluate,
    Monitor,
    Promote,
    Query,
    Register,
    RunModel,
    RunSchema,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.champion_challenger import SnowMLChampionChallengerOperator
from airflow_provider_snowml.operators.monitors import SnowMLCreateMonitorOperator
from airflow_provider_snowml.operators.preflight import SnowMLPreflightOperator
from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator
from airflow_provider_snowml.operators.run_model import SnowMLRunModelOperator
from airflow_provider_snowml.operators.run_schema import SnowMLRunSchemaOperator
from airflow_provider_snowml.retry_policy import SNOWML_RETRY_POLICY

if TYPE_CHECKING:
    from snowflake.snowpark import Session

NEW_YORK = timezone("America/New_York")
TRAINING_WEEKS = 3

MODEL = "FLIGHT_DELAYS"
CATEGORIES = ["CARRIER", "ORIGIN", "DEST"]
NUMBERS = [
    *["DISTANCE", "SCHED_DEP_MINUTE", "SCHED_ARR_MINUTE", "DAY_OF_WEEK", "PLANE_AGE", "PLANE_SEATS"],
    *["TEMPERATURE", "HUMIDITY", "WIND_SPEED", "PRECIPITATION", "PRESSURE", "VISIBILITY"],
]
FEATURES = CATEGORIES + NUMBERS

# Area under the ROC curve: how often a late flight is given a higher probability than a punctual one.
FLOOR = 0.58  # a model below this is of no use, whatever the champion does
MARGIN = 0.005  # what a challenger has to be better by: less is chance, and a promotion has a price

RUN_SCHEMA_PREFIX = "RUN_FLIGHT_DELAYS"
RUN_SCHEMA = "{{ ti.xcom_pull('make_run_schema')['schema'] }}"

# What a monitor watches: one row per flight that one version has scored, with what happened. A flight that
# never arrived says nothing about the model, and Snowflake's monitors want no NULLs, so those features stay
# out that are missing now and then.
WATCHED = """
SELECT
    FLIGHT_DATE,
    FLIGHT_ID,
    DATEADD(MINUTE, SCHED_DEP_MINUTE::INT, FLIGHT_DATE::TIMESTAMP_NTZ) AS SCHEDULED_DEPARTURE,
    CARRIER,
    ORIGIN,
    DEST,
    DISTANCE,
    SCHED_DEP_MINUTE,
    P_LATE,
    IFF(P_LATE >= 0.5, 1, 0) AS PREDICTED_LATE,
    IFF(LATE, 1, 0) AS ACTUALLY_LATE
FROM ({flights}) AS FLIGHTS
WHERE LATE IS NOT NULL
"""

SCORED_IN_USE = """
SELECT P.*, O.LATE
FROM FLIGHT_DELAY_PREDICTIONS P
JOIN FLIGHT_OUTCOMES O ON O.FLIGHT_DATE = P.FLIGHT_DATE AND O.FLIGHT_ID = P.FLIGHT_ID
WHERE P.VERSION = '{version}'
"""


def fit(session: Session, training_table: str) -> ModelArtifact:
    """Train the challenger, in the worker."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
    from snowflake.ml.model.model_signature import infer_signature
    from snowflake.ml.model.task import Task

    flights = session.table(training_table).to_pandas()
    inputs, late = flights[FEATURES], flights["LATE"].astype(bool)
    pipeline = make_pipeline(
        make_column_transformer(
            # A destination that the training weeks did not see counts as missing, not as an error.
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), CATEGORIES),
            # Snowflake hands a model pandas' nullable types, which scikit-learn does not take.
            (FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "float64"}), NUMBERS),
        ),
        HistGradientBoostingClassifier(
            max_iter=80,
            learning_rate=0.05,
            min_samples_leaf=50,
            categorical_features=list(range(len(CATEGORIES))),
            random_state=13,
        ),
    )
    pipeline.fit(inputs, late)
    # Signed by hand for the sake of the output's names: P_LATE reads better than output_feature_1.
    sample = inputs.dropna().head(100)
    probabilities = pd.DataFrame(pipeline.predict_proba(sample), columns=["P_PUNCTUAL", "P_LATE"])
    return ModelArtifact(
        model=pipeline,
        signatures={"predict_proba": infer_signature(sample, probabilities)},
        task=Task.TABULAR_BINARY_CLASSIFICATION,  # a monitor has to know
        metrics={"training_flights": len(flights), "training_late_share": float(late.mean())},
        comment="Will it arrive more than 15 minutes late? As of one hour before scheduled departure",
    )


@dag(
    schedule=CronDataIntervalTimetable("0 6 * * MON", timezone=NEW_YORK),
    start_date=datetime(2013, 1, 7, tzinfo=NEW_YORK),
    end_date=datetime(2014, 1, 7, tzinfo=NEW_YORK),
    catchup=False,
    max_active_runs=1,  # a week's champion is the next week's opponent
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10), "retry_policy": SNOWML_RETRY_POLICY},
    tags=["example", "snowml"],
)
def flight_delays_retrain():
    preflight = SnowMLPreflightOperator(
        task_id="preflight",
        # Of what a run makes in its own schema nothing need be said: its role owns it.
        steps=[
            RunSchema(),
            Query(reads=["FLIGHT_FEATURES", "FLIGHT_OUTCOMES"]),
            Register(model_name=MODEL),
            Evaluate(model_name=MODEL),
            Promote(model_name=MODEL),
            RunModel(model_name=MODEL),
            Query(
                reads="FLIGHT_DELAY_PREDICTIONS",
                views=MODEL + "_WATCHED_V{{ data_interval_end | ds_nodash }}",
            ),
            Monitor(model_name=MODEL),
        ],
    )

    make_run_schema = SnowMLRunSchemaOperator(task_id="make_run_schema", prefix=RUN_SCHEMA_PREFIX)

    @task
    def split_flights(run_schema: str, data_interval_start=None, data_interval_end=None) -> dict[str, int]:
        """Split by time: a random split would let the model see the very days it is judged on."""
        held_out_from = data_interval_start.in_timezone(NEW_YORK).date()
        held_out_until = data_interval_end.in_timezone(NEW_YORK).date()
        periods = {
            "TRAINING": (held_out_from - timedelta(weeks=TRAINING_WEEKS), held_out_from),
            "HELD_OUT": (held_out_from, held_out_until),
        }
        hook, rows = SnowMLHook(), {}
        for table, (first, until) in periods.items():
            hook.run(f"""
                CREATE OR REPLACE TABLE {run_schema}.{table} AS
                SELECT F.*, O.LATE
                FROM FLIGHT_FEATURES F
                JOIN FLIGHT_OUTCOMES O ON O.FLIGHT_DATE = F.FLIGHT_DATE AND O.FLIGHT_ID = F.FLIGHT_ID
                WHERE F.FLIGHT_DATE >= '{first}' AND F.FLIGHT_DATE < '{until}' AND O.LATE IS NOT NULL
            """)
            rows[table] = hook.value(f"SELECT COUNT(*) FROM {run_schema}.{table}")
            if not rows[table]:
                raise ValueError(f"No flights from {first} to {until}: has flight_delays_load run?")
        return rows

    train = SnowMLRegisterModelOperator(
        task_id="train",
        model_name=MODEL,
        version_name="V{{ data_interval_end | ds_nodash }}",
        python_callable=fit,
        op_kwargs={"training_table": f"{RUN_SCHEMA}.TRAINING"},
        training_tables=f"{RUN_SCHEMA}.TRAINING",  # for the lineage
        if_exists="reuse",  # the week's run again: the version is there
    )

    challenger = train.output["version"]

    contest = SnowMLChampionChallengerOperator(
        task_id="contest",
        model_name=MODEL,
        challenger_version=challenger,
        champion_version="champion",  # whoever has the alias; Snowflake makes the first version the default
        function_name="predict_proba",
        input_table=f"{RUN_SCHEMA}.HELD_OUT",
        label_column="LATE",
        task="binary_classification",
        positive_class=True,
        probability_columns={False: "P_PUNCTUAL", True: "P_LATE"},
        expressions={"brier": "AVG(POWER(P_LATE - IFF(LABEL, 1, 0), 2))"},
        metric="roc_auc",
        floor=FLOOR,
        min_margin=MARGIN,
        min_rows=1000,
        stored_as="held_out",
        follow_task_ids_if_better="promote",
        follow_task_ids_if_not_better="keep_champion",
    )

    @task
    def keep_champion(report: str) -> None:
        """Say why nothing is promoted."""
        print(report)

    promote = SnowMLPromoteModelOperator(
        task_id="promote",
        model_name=MODEL,
        version_name=challenger,
        trained_until="{{ data_interval_start }}",
        on_older="keep",  # a week of last month again: the champion has learned more since
    )
    promoted = promote.output["version"]

    # What the monitor compares with: the flights that the version learned from, as it scores them.
    score_training = SnowMLRunModelOperator(
        task_id="score_training",
        model_name=MODEL,
        version_name=promoted,
        function_name="predict_proba",
        input_table=f"{RUN_SCHEMA}.TRAINING",
        output_table=f"{RUN_SCHEMA}.TRAINING_PREDICTIONS",
        write_mode="replace",
    )

    @task
    def watch(run_schema: str, version: str) -> dict[str, str]:
        """Say what the promoted version's monitor watches, and what is normal.

        A view of this version only: rows of another one, or without what happened, would give wrong metrics.
        The monitor keeps a snapshot of the baseline, so that may go with the run's schema.
        """
        source, baseline = f"{MODEL}_WATCHED_{version}", f"{run_schema}.BASELINE"
        training = f"SELECT * FROM {run_schema}.TRAINING_PREDICTIONS"
        SnowMLHook().run(
            [
                f"CREATE OR REPLACE VIEW {source} AS "
                + WATCHED.format(flights=SCORED_IN_USE.format(version=version)),
                f"CREATE OR REPLACE VIEW {baseline} AS " + WATCHED.format(flights=training),
            ]
        )
        return {"monitor": f"{MODEL}_MONITOR_{version}", "source": source, "baseline": baseline}

    watched = watch(RUN_SCHEMA, promoted)
    monitor = SnowMLCreateMonitorOperator(
        task_id="monitor",
        monitor_name=watched["monitor"],
        model_name=MODEL,
        version_name=promoted,
        function_name="predict_proba",
        source=watched["source"],
        baseline=watched["baseline"],
        timestamp_column="SCHEDULED_DEPARTURE",
        id_columns=["FLIGHT_DATE", "FLIGHT_ID"],
        prediction_score_columns=["P_LATE"],
        prediction_class_columns=["PREDICTED_LATE"],
        actual_class_columns=["ACTUALLY_LATE"],
        segment_columns=["ORIGIN"],
        refresh_interval="1 day",  # scoring adds one day's flights at a time
        if_exists="reuse",  # the week's run again: the monitor is there
    )
    drop_run_schema = SnowMLRunSchemaOperator(
        task_id="drop_run_schema", prefix=RUN_SCHEMA_PREFIX
    ).as_teardown(setups=make_run_schema)

    preflight >> make_run_schema >> split_flights(RUN_SCHEMA) >> train >> contest
    contest >> promote >> score_training >> watched >> monitor >> drop_run_schema
    contest >> keep_champion(contest.output["report"]) >> drop_run_schema


flight_delays_retrain()
