"""One model per carrier in one registered model, run partitioned: will a flight be more than 15 minutes late?

A carrier's flights say little about another's, so each carrier has a model of its own. The registry has one
model all the same: its method is a table function, which Snowflake calls once for each carrier, with all of
that carrier's rows, in parallel::

    prepare > train > score > check

What a partitioned function gives is all that comes out, beside the column it is partitioned by. So it gives
the flight's id back, under another name than the input has for it: two columns of one name could not be told
apart.

``flight_delays_load`` has to have run. A day that is run again is replaced. Runs by hand only::

    airflow dags trigger partitioned_models --conf '{"day": "2013-01-30"}'
"""

from __future__ import annotations

from datetime import date, timedelta

from airflow.sdk import Param, dag, task

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator
from airflow_provider_snowml.operators.run_model import SnowMLRunModelOperator

MODEL = "FLIGHT_DELAYS_BY_CARRIER"
PREDICTIONS = "FLIGHT_DELAY_PREDICTIONS_BY_CARRIER"
FEATURES = ["DISTANCE", "SCHED_DEP_MINUTE", "DAY_OF_WEEK", "WIND_SPEED", "PRECIPITATION", "VISIBILITY"]
TRAINING_WEEKS = 3
ENOUGH = 100  # flights; a carrier that has fewer gets the share of late flights among all carriers'


def fit_by_carrier(session, day: str) -> ModelArtifact:
    """Train a model for each carrier, in the worker."""
    import pandas as pd
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from snowflake.ml.model import custom_model
    from snowflake.ml.model.model_signature import DataType, FeatureSpec, ModelSignature

    until = date.fromisoformat(day)
    flights = session.sql(f"""
        SELECT F.*, O.LATE
        FROM FLIGHT_FEATURES F
        JOIN FLIGHT_OUTCOMES O ON O.FLIGHT_DATE = F.FLIGHT_DATE AND O.FLIGHT_ID = F.FLIGHT_ID
        WHERE F.FLIGHT_DATE >= '{until - timedelta(weeks=TRAINING_WEEKS)}' AND F.FLIGHT_DATE < '{until}'
            AND O.LATE IS NOT NULL
    """).to_pandas()
    if flights.empty:
        raise ValueError(f"No flights before {day}: has flight_delays_load run?")
    flights["LATE"] = flights["LATE"].astype(bool)
    models = {}
    for carrier, rows in flights.groupby("CARRIER"):
        if len(rows) >= ENOUGH and rows["LATE"].nunique() == 2:
            model = make_pipeline(
                SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression()
            )
            models[carrier] = model.fit(rows[FEATURES].to_numpy("float64"), rows["LATE"])

    # A class that is made in a function goes into the registry whole: no module has to come along.
    class ByCarrier(custom_model.CustomModel):
        def __init__(self, context: custom_model.ModelContext) -> None:
            super().__init__(context)
            self.features = FEATURES
            self.late_share = float(flights["LATE"].mean())

        def predict(self, rows):
            """All flights of one carrier."""
            carrier = rows["CARRIER"].iloc[0]
            p_late = self.late_share
            if carrier in self.context.model_refs:
                # Snowflake hands a model pandas' nullable types, which scikit-learn does not take.
                inputs = rows[self.features].to_numpy("float64", na_value=float("nan"))
                p_late = self.context.model_ref(carrier).predict_proba(inputs)[:, 1]
            return pd.DataFrame({"FLIGHT_ID": rows["ID"], "P_LATE": p_late})

        # snowflake-ml wants types here, and postponed annotations are texts.
        predict.__annotations__ = {"rows": pd.DataFrame, "return": pd.DataFrame}
        predict = custom_model.partitioned_api(predict)

    texts = [FeatureSpec(name, DataType.STRING) for name in ("ID", "CARRIER")]
    numbers = [FeatureSpec(name, DataType.DOUBLE) for name in FEATURES]
    outputs = [FeatureSpec("FLIGHT_ID", DataType.STRING), FeatureSpec("P_LATE", DataType.DOUBLE)]
    return ModelArtifact(
        model=ByCarrier(custom_model.ModelContext(models=models)),
        signatures={"predict": ModelSignature(inputs=texts + numbers, outputs=outputs)},
        options={"function_type": "TABLE_FUNCTION"},
        metrics={"carriers": len(models), "training_flights": len(flights)},
        comment="One model per carrier: will a flight arrive more than 15 minutes late?",
    )


@dag(
    schedule=None,
    max_active_runs=1,
    params={"day": Param("2013-01-30", type="string", format="date", description="The day to score")},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    tags=["example", "snowml"],
)
def partitioned_models():
    @task
    def prepare() -> None:
        SnowMLHook().run(
            f"CREATE TABLE IF NOT EXISTS {PREDICTIONS} "
            "(FLIGHT_DATE DATE, CARRIER VARCHAR, FLIGHT_ID VARCHAR, P_LATE FLOAT)"
        )

    train = SnowMLRegisterModelOperator(
        task_id="train",
        model_name=MODEL,
        version_name="V{{ params.day | replace('-', '') }}",
        python_callable=fit_by_carrier,
        op_kwargs={"day": "{{ params.day }}"},
        if_exists="reuse",  # the day's run again: the version is there
    )

    score = SnowMLRunModelOperator(
        task_id="score",
        model_name=MODEL,
        version_name=train.output["version"],
        function_name="predict",
        partition_column="CARRIER",
        input_query=(
            f"SELECT FLIGHT_ID AS ID, CARRIER, {', '.join(FEATURES)} "
            "FROM FLIGHT_FEATURES WHERE FLIGHT_DATE = '{{ params.day }}'"
        ),
        output_table=PREDICTIONS,
        write_mode="replace_where",
        replace_column="FLIGHT_DATE",
        replace_value="{{ params.day }}",
    )

    @task
    def check(day: str) -> int:
        """Every flight of the day has one prediction: nothing else counts what a table function gives."""
        flights, predicted = SnowMLHook().get_first(f"""
            SELECT COUNT(*), COUNT(P.P_LATE)
            FROM FLIGHT_FEATURES F
            LEFT JOIN {PREDICTIONS} P
                ON P.FLIGHT_DATE = F.FLIGHT_DATE AND P.FLIGHT_ID = F.FLIGHT_ID AND P.CARRIER = F.CARRIER
            WHERE F.FLIGHT_DATE = '{date.fromisoformat(day)}'
        """)
        if predicted != flights:
            raise ValueError(f"{predicted} of {flights} flights of {day} have a prediction.")
        return flights

    prepare() >> train
    score >> check("{{ params.day }}")


partitioned_models()
