"""Retrain every Monday, and promote only what is better: will a flight arrive more than 15 minutes late?

The data interval is the week that has just been flown (hence ``CronDataIntervalTimetable``: a plain cron
string gives an empty interval). That week is held out. The challenger learns from the three weeks before it,
the champion learned from weeks before that, and both are judged on the same held-out flights. The promoted
version gets a monitor: how does it do in use, day by day, compared with the weeks that it learned from? ::

    create_run_schema > split_flights > train > evaluate > decide

    decide > promote_first_champion > watch > monitor > drop_run_schema
           > promote_challenger     >
           > keep_champion                            > drop_run_schema
           > reject_challenger                        >

What a run computes lies in a schema of its own. It is dropped when the run has succeeded and kept when it has
failed: that is when somebody wants to look. Every task can be run again: tables are replaced, the version's
name comes from the week, and promoting twice changes nothing.

``flight_delays_load`` has to have run. The DAG ends in January 2014, as the flights do.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import CronDataIntervalTimetable, TriggerRule, dag, task
from pendulum import timezone

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.monitors import SnowMLCreateMonitorOperator
from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator

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

RUN_SCHEMA = "RUN_FLIGHT_DELAYS_{{ data_interval_end | ds_nodash }}"

# A rank that ties share, so that a constant prediction has an area of one half.
METRICS = """
SELECT
    COUNT(*) AS FLIGHTS,
    AVG(POWER(P_LATE - IFF(LATE, 1, 0), 2)) AS BRIER,
    (SUM(IFF(LATE, SHARED_RANK, 0)) - COUNT_IF(LATE) * (COUNT_IF(LATE) + 1) / 2)
        / NULLIF(COUNT_IF(LATE) * COUNT_IF(NOT LATE), 0) AS AUC
FROM (
    SELECT
        LATE,
        P_LATE,
        RANK() OVER (ORDER BY P_LATE) + (COUNT(*) OVER (PARTITION BY P_LATE) - 1) / 2 AS SHARED_RANK
    FROM {predictions}
) AS RANKED
"""

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


def find_champion(hook: SnowMLHook) -> str | None:
    """The version that has the alias CHAMPION; ``None`` before the first promotion.

    The default says less: Snowflake makes a model's first version the default by itself, be it good or not.
    """
    versions = hook.model_versions(MODEL) or []
    return next((version.name for version in versions if "CHAMPION" in version.aliases), None)


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
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["example", "snowml"],
)
def flight_delays_retrain():
    @task
    def create_run_schema(run_schema: str) -> str:
        SnowMLHook().run(f"CREATE SCHEMA IF NOT EXISTS {run_schema}")
        return run_schema

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
        if_exists="reuse",  # the week's run again: the version is there
    )

    @task
    def evaluate(run_schema: str, challenger: str) -> dict[str, dict[str, Any]]:
        """Judge the challenger and the champion, if there is one, on the same held-out flights.

        The challenger also predicts the weeks it learned from: what its monitor will compare with.
        """
        hook = SnowMLHook()
        versions = {"challenger": challenger}
        if champion := find_champion(hook):
            versions["champion"] = champion
        results = {}
        with hook.session() as session:
            model = hook.registry(session).get_model(MODEL)

            def predict(version: str, flights: str, predictions: str) -> None:
                scored = model.version(version).run(session.table(flights), function_name="predict_proba")
                scored.write.save_as_table(predictions, mode="overwrite")

            predict(challenger, f"{run_schema}.TRAINING", f"{run_schema}.TRAINING_PREDICTIONS")
            for role, version in versions.items():
                predictions = f"{run_schema}.{role.upper()}_PREDICTIONS"
                predict(version, f"{run_schema}.HELD_OUT", predictions)
                metrics = session.sql(METRICS.format(predictions=predictions)).collect()[0]
                results[role] = {"version": version, "auc": float(metrics.AUC), "brier": float(metrics.BRIER)}
                print(f"{role} {version}: {metrics}")
            for name in ("auc", "brier"):
                model.version(challenger).set_metric(f"held_out_{name}", results["challenger"][name])
        return results

    @task.branch
    def decide(results: dict[str, dict[str, Any]]) -> str:
        """Good enough at all? Then: is there a champion to beat, and is it beaten by enough?"""
        challenger, champion = results["challenger"], results.get("champion")
        if challenger["auc"] < FLOOR:
            return "reject_challenger"
        if champion is None:
            return "promote_first_champion"
        if champion["version"] == challenger["version"]:
            return "keep_champion"  # this week's run again, after it was promoted
        return "promote_challenger" if challenger["auc"] >= champion["auc"] + MARGIN else "keep_champion"

    def promote(task_id: str, version: str) -> SnowMLPromoteModelOperator:
        """Make the version the champion: the default, which scoring reads, and then the alias."""
        return SnowMLPromoteModelOperator(
            task_id=task_id,
            model_name=MODEL,
            version_name=version,
            trained_until="{{ data_interval_start }}",  # the week after that was held out
        )

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
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

    @task
    def report(results: dict[str, dict[str, Any]]) -> None:
        """Say why nothing is promoted."""
        print(f"Floor {FLOOR}, margin {MARGIN}: {results}")

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def drop_run_schema(run_schema: str) -> None:
        SnowMLHook().run(f"DROP SCHEMA IF EXISTS {run_schema}")

    run_schema = create_run_schema(RUN_SCHEMA)
    challenger = train.output["version"]
    results = evaluate(run_schema, challenger)
    split_flights(run_schema) >> train
    promoted = [
        promote("promote_first_champion", challenger),
        promote("promote_challenger", challenger),
    ]
    kept = [
        report.override(task_id="keep_champion")(results),
        report.override(task_id="reject_challenger")(results),
    ]
    watched = watch(RUN_SCHEMA, challenger)
    monitor = SnowMLCreateMonitorOperator(
        task_id="monitor",
        monitor_name=watched["monitor"],
        model_name=MODEL,
        version_name=challenger,
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
    drop = drop_run_schema(RUN_SCHEMA)
    decide(results) >> [*promoted, *kept]
    promoted >> watched >> monitor >> drop
    kept >> drop


flight_delays_retrain()
