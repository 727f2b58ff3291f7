"""A contest every Monday, with a person between the verdict and the promotion, and a look afterwards.

The challenger learns from the three weeks before the one that has just been flown; both versions are judged
on that one. A challenger that is better is proposed, not promoted: whoever answers the approval under
"Required Actions" in Airflow's UI, or over its API, reads the contest's report there. Without an answer in
two days it counts as rejected. That is no failure: nothing is promoted, and the run ends in green. ::

    make_run_schema > split_flights > train > contest

    contest > approve > promote > ask > smoke_test > announce  > drop_run_schema
                                      >            > roll_back > drop_run_schema
            > keep_champion                                    > drop_run_schema

What was promoted is asked about flights at once, by the name that readers use, the default. If it fails, or
answers nonsense, the champion before it is the champion again a moment later; the run ends in red, because
``announce`` did not come to its turn.

``flight_delays_load`` has to have run. The DAG ends in January 2014, as the flights do.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import CronDataIntervalTimetable, dag, task
from pendulum import timezone

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.champion_challenger import SnowMLChampionChallengerOperator
from airflow_provider_snowml.operators.promotion import (
    SnowMLPromoteModelOperator,
    SnowMLRollbackModelOperator,
)
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator
from airflow_provider_snowml.operators.run_model import SnowMLRunModelOperator
from airflow_provider_snowml.operators.run_schema import SnowMLRunSchemaOperator
from airflow_provider_snowml.retry_policy import SNOWML_RETRY_POLICY

if TYPE_CHECKING:
    from snowflake.snowpark import Session

NEW_YORK = timezone("America/New_York")
TRAINING_WEEKS = 3

MODEL = "FLIGHT_DELAYS_CONTEST"
FEATURES = ["DISTANCE", "SCHED_DEP_MINUTE", "DAY_OF_WEEK", "WIND_SPEED", "PRECIPITATION", "VISIBILITY"]
FLOOR, MARGIN = 0.55, 0.002  # area under the ROC curve

RUN_SCHEMA_PREFIX = "RUN_CONTEST"
RUN_SCHEMA = "{{ ti.xcom_pull('make_run_schema')['schema'] }}"


def fit(session: Session, training_table: str) -> ModelArtifact:
    """Train the challenger, in the worker."""
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from snowflake.ml.model.model_signature import infer_signature

    flights = session.table(training_table).to_pandas()
    inputs, late = flights[FEATURES], flights["LATE"].astype(bool)
    pipeline = make_pipeline(
        # Snowflake hands a model pandas' nullable types, which scikit-learn does not take.
        FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "float64"}),
        HistGradientBoostingClassifier(max_iter=50, min_samples_leaf=50, random_state=13),
    )
    pipeline.fit(inputs, late)
    sample = inputs.dropna().head(100)
    probabilities = pd.DataFrame(pipeline.predict_proba(sample), columns=["P_PUNCTUAL", "P_LATE"])
    return ModelArtifact(
        model=pipeline,
        signatures={"predict_proba": infer_signature(sample, probabilities)},
        comment="Will it arrive more than 15 minutes late?",
    )


@dag(
    schedule=CronDataIntervalTimetable("0 6 * * MON", timezone=NEW_YORK),
    start_date=datetime(2013, 1, 7, tzinfo=NEW_YORK),
    end_date=datetime(2014, 1, 7, tzinfo=NEW_YORK),
    catchup=False,
    max_active_runs=1,  # what waits for an answer was judged against this champion, and no other
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10), "retry_policy": SNOWML_RETRY_POLICY},
    tags=["example", "snowml"],
)
def champion_challenger():
    make_run_schema = SnowMLRunSchemaOperator(task_id="make_run_schema", prefix=RUN_SCHEMA_PREFIX)

    @task
    def split_flights(
        run_schema: str, data_interval_start: Any = None, data_interval_end: Any = None
    ) -> None:
        """Split by time, as in ``flight_delays_retrain``."""
        held_out_from = data_interval_start.in_timezone(NEW_YORK).date()
        held_out_until = data_interval_end.in_timezone(NEW_YORK).date()
        periods = {
            "TRAINING": (held_out_from - timedelta(weeks=TRAINING_WEEKS), held_out_from),
            "HELD_OUT": (held_out_from, held_out_until),
        }
        for table, (first, until) in periods.items():
            SnowMLHook().run(f"""
                CREATE OR REPLACE TABLE {run_schema}.{table} AS
                SELECT F.*, O.LATE
                FROM FLIGHT_FEATURES F
                JOIN FLIGHT_OUTCOMES O ON O.FLIGHT_DATE = F.FLIGHT_DATE AND O.FLIGHT_ID = F.FLIGHT_ID
                WHERE F.FLIGHT_DATE >= '{first}' AND F.FLIGHT_DATE < '{until}' AND O.LATE IS NOT NULL
            """)

    train = SnowMLRegisterModelOperator(
        task_id="train",
        model_name=MODEL,
        version_name="V{{ data_interval_end | ds_nodash }}",
        python_callable=fit,
        op_kwargs={"training_table": f"{RUN_SCHEMA}.TRAINING"},
        if_exists="reuse",  # the week's run again: the version is there
    )

    challenger = train.output["version"]

    contest = SnowMLChampionChallengerOperator(
        task_id="contest",
        model_name=MODEL,
        challenger_version=challenger,
        champion_version="champion",
        function_name="predict_proba",
        input_table=f"{RUN_SCHEMA}.HELD_OUT",
        label_column="LATE",
        task="binary_classification",
        positive_class=True,
        probability_columns={False: "P_PUNCTUAL", True: "P_LATE"},
        metric="roc_auc",
        floor=FLOOR,
        min_margin=MARGIN,
        min_rows=1000,
        slices={"JFK": "ORIGIN = 'JFK'", "EWR": "ORIGIN = 'EWR'", "LGA": "ORIGIN = 'LGA'"},
        max_slice_loss=0.05,
        follow_task_ids_if_better="approve",
        follow_task_ids_if_not_better="keep_champion",
    )

    @task
    def keep_champion(report: str) -> None:
        """Say why nothing is proposed."""
        print(report)

    approve = ApprovalOperator(
        task_id="approve",
        subject="Shall {{ ti.xcom_pull('contest', key='version') }} be the champion of " + MODEL + "?",
        body=contest.output["report"],
        defaults="Reject",  # silence is no consent
        response_timeout=timedelta(days=2),
    )

    promote = SnowMLPromoteModelOperator(
        task_id="promote",
        model_name=MODEL,
        version_name=challenger,
        trained_until="{{ data_interval_start }}",
        on_older="fail",  # somebody has said yes: it must not pass for done
    )

    ask = SnowMLRunModelOperator(
        task_id="ask",
        model_name=MODEL,
        version_name="default",  # as readers do
        function_name="predict_proba",
        input_query=(
            "SELECT * FROM FLIGHT_FEATURES WHERE FLIGHT_DATE = '{{ data_interval_start | ds }}' "
            "ORDER BY FLIGHT_ID LIMIT 100"
        ),
        output_table=f"{RUN_SCHEMA}.SMOKE_TEST",
        write_mode="replace",
    )

    @task
    def smoke_test(table: str, asked: str, promoted: str) -> int:
        """Readers get the new version, it answers, and not the same to everything."""
        rows, probabilities, answers = SnowMLHook().get_first(
            f"SELECT COUNT(*), COUNT_IF(P_LATE BETWEEN 0 AND 1), COUNT(DISTINCT P_LATE) FROM {table}"
        )
        if asked != promoted or not rows or probabilities != rows or answers == 1:
            raise ValueError(
                f"{promoted} was promoted, and {asked} was asked about {rows} flights. It gave "
                f"{probabilities} probabilities, of which {answers} are different."
            )
        return rows

    @task
    def announce(version: str) -> None:
        """Say who is the champion now."""
        print(f"{version} is the champion of {MODEL}, and answers.")

    # The version that this run has promoted, and no other: if the promotion itself has failed there is none,
    # and nothing is taken back.
    roll_back = SnowMLRollbackModelOperator(
        task_id="roll_back",
        model_name=MODEL,
        version_name=promote.output["version"],
        trigger_rule="one_failed",
    )

    drop_run_schema = SnowMLRunSchemaOperator(
        task_id="drop_run_schema", prefix=RUN_SCHEMA_PREFIX
    ).as_teardown(setups=make_run_schema)

    promoted = promote.output["version"]
    tested = smoke_test(ask.output["table"], ask.output["version"], promoted)
    announced = announce(promoted)

    make_run_schema >> split_flights(RUN_SCHEMA) >> train >> contest
    contest >> approve >> promote >> ask >> tested >> announced >> drop_run_schema
    [ask, tested] >> roll_back >> drop_run_schema
    contest >> keep_champion(contest.output["report"]) >> drop_run_schema


champion_challenger()
