"""Train a fraud model every day, on the seven days before, and mark it live only if it is better.

The data interval is the day that has just ended, and is held out. The challenger learns from the seven days
before it; the model in production learned from days before those, so neither has seen the rows that both are
judged on::

    make_run_schema > load > split > train > contest

    contest > mark_live       > prune > drop_run_schema
            > keep_production > prune > drop_run_schema

The customers, their accounts and what they pay come from a generator with a seed: a day's transactions are
the same whoever makes them, and however often. On which merchants the fraudsters are keen drifts from day to
day, so a model ages, and there is a reason to train daily.

Every run has a schema of its own, dropped when the run has succeeded and kept when it has failed. The same
date again replaces its tables, trains nothing, and changes nothing. An older date never takes the place of a
model that has learned from later days (``trained_until``): if that one has even learned from the day that is
to be judged on, it has an advantage as well.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import CronDataIntervalTimetable, dag, task

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.champion_challenger import SnowMLChampionChallengerOperator
from airflow_provider_snowml.operators.model_retention import SnowMLPruneModelVersionsOperator
from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator
from airflow_provider_snowml.operators.run_schema import SnowMLRunSchemaOperator
from airflow_provider_snowml.retry_policy import SNOWML_RETRY_POLICY

if TYPE_CHECKING:
    import pandas as pd
    from snowflake.snowpark import Session

MODEL = "FRAUD"
TRAINING_DAYS = 7
KEEP_VERSIONS = 30
FLOOR = 0.7  # area under the ROC curve: a model below this is of no use, whatever production does

RUN_SCHEMA_PREFIX = "RUN_FRAUD"
RUN_SCHEMA = "{{ ti.xcom_pull('make_run_schema')['schema'] }}"

# -- the bank ---------------------------------------------------------------------------------------------

SEED = 13
CUSTOMERS, ACCOUNTS, TRANSACTIONS_A_DAY, FRAUD_SHARE = 400, 600, 1500, 0.08
MERCHANTS = ["GROCERIES", "FUEL", "TRAVEL", "ELECTRONICS", "GAMES"]
DRIFT_DAYS = 40  # after which the fraudsters are back at the merchants that they were at

# The first column of each is its key.
TABLES = {
    "FINANCIAL_CUSTOMERS": "CUSTOMER_ID NUMBER, BIRTH_YEAR NUMBER, CUSTOMER_SINCE DATE",
    "FINANCIAL_ACCOUNTS": "ACCOUNT_ID NUMBER, CUSTOMER_ID NUMBER, OPENED_ON DATE, CREDIT_LIMIT FLOAT",
    "FINANCIAL_TRANSACTIONS": """
        TRANSACTION_ID NUMBER, ACCOUNT_ID NUMBER, TRANSACTION_DATE DATE, MINUTE_OF_DAY NUMBER,
        AMOUNT FLOAT, MERCHANT VARCHAR, IS_ABROAD BOOLEAN, IS_FRAUD BOOLEAN
    """,
}

CATEGORIES = ["MERCHANT"]
NUMBERS = ["AMOUNT", "LIMIT_SHARE", "MINUTE_OF_DAY", "ABROAD", "ACCOUNT_AGE", "CUSTOMER_AGE"]

# What a model may know when somebody pays, from inner joins: nobody pays from an account that isn't there.
# Numbers are FLOAT, because that is what a NULL of a model's input becomes.
FRAUD_FEATURES = """
CREATE OR REPLACE VIEW FRAUD_FEATURES AS
SELECT
    T.TRANSACTION_ID,
    T.TRANSACTION_DATE,
    T.MERCHANT,
    T.AMOUNT,
    T.AMOUNT / A.CREDIT_LIMIT AS LIMIT_SHARE,
    T.MINUTE_OF_DAY::FLOAT AS MINUTE_OF_DAY,
    IFF(T.IS_ABROAD, 1, 0)::FLOAT AS ABROAD,
    DATEDIFF(DAY, A.OPENED_ON, T.TRANSACTION_DATE)::FLOAT AS ACCOUNT_AGE,
    (YEAR(T.TRANSACTION_DATE) - C.BIRTH_YEAR)::FLOAT AS CUSTOMER_AGE,
    T.IS_FRAUD
FROM FINANCIAL_TRANSACTIONS T
JOIN FINANCIAL_ACCOUNTS A ON A.ACCOUNT_ID = T.ACCOUNT_ID
JOIN FINANCIAL_CUSTOMERS C ON C.CUSTOMER_ID = A.CUSTOMER_ID
"""


def customers_and_accounts() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Who banks here; the same every time."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(SEED)
    since = np.datetime64("2015-01-01") + random.integers(0, 3000, CUSTOMERS)
    customers = pd.DataFrame(
        {
            "CUSTOMER_ID": np.arange(CUSTOMERS),
            "BIRTH_YEAR": random.integers(1940, 2005, CUSTOMERS),
            "CUSTOMER_SINCE": since.astype("O"),
        }
    )
    owners = random.integers(0, CUSTOMERS, ACCOUNTS)
    accounts = pd.DataFrame(
        {
            "ACCOUNT_ID": np.arange(ACCOUNTS),
            "CUSTOMER_ID": owners,
            "OPENED_ON": (since[owners] + random.integers(0, 700, ACCOUNTS)).astype("O"),
            "CREDIT_LIMIT": random.choice([1_000.0, 3_000.0, 10_000.0], ACCOUNTS),
        }
    )
    return customers, accounts


def transactions(day: date) -> pd.DataFrame:
    """What is paid on a day; the same every time."""
    import numpy as np
    import pandas as pd

    count, number = TRANSACTIONS_A_DAY, day.toordinal()
    random = np.random.default_rng([SEED, number])
    fraud = random.random(count) < FRAUD_SHARE
    turn = 2 * np.pi * (number / DRIFT_DAYS + np.arange(len(MERCHANTS)) / len(MERCHANTS))
    keen = np.exp(2.5 * np.cos(turn))
    return pd.DataFrame(
        {
            "TRANSACTION_ID": number * 1_000_000 + np.arange(count),
            "ACCOUNT_ID": random.integers(0, ACCOUNTS, count),
            "TRANSACTION_DATE": day,
            "MINUTE_OF_DAY": random.integers(0, 24 * 60, count),
            "AMOUNT": np.round(random.lognormal(np.where(fraud, 4.2, 3.5), 1.0), 2),
            "MERCHANT": np.where(
                fraud,
                random.choice(MERCHANTS, count, p=keen / keen.sum()),
                random.choice(MERCHANTS, count),
            ),
            "IS_ABROAD": random.random(count) < np.where(fraud, 0.2, 0.05),
            "IS_FRAUD": fraud,
        }
    )


# -- the model --------------------------------------------------------------------------------------------


def fit(session: Session, training_table: str) -> ModelArtifact:
    """Train the challenger, in the worker. What is fitted, the encoder too, sees the training days only."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
    from snowflake.ml.model.model_signature import infer_signature

    rows = session.table(training_table).to_pandas()
    inputs, fraud = rows[CATEGORIES + NUMBERS], rows["IS_FRAUD"].astype(bool)
    # Snowflake hands a model pandas' nullable types, which scikit-learn does not take.
    as_floats = FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "float64"})
    pipeline = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
            (make_pipeline(as_floats, StandardScaler()), NUMBERS),
        ),
        LogisticRegression(max_iter=1000),
    )
    pipeline.fit(inputs, fraud)
    # Signed by hand for the sake of the output's names: P_FRAUD reads better than output_feature_1.
    sample = inputs.head(100)
    probabilities = pd.DataFrame(pipeline.predict_proba(sample), columns=["P_HONEST", "P_FRAUD"])
    return ModelArtifact(
        model=pipeline,
        signatures={"predict_proba": infer_signature(sample, probabilities)},
        metrics={"training_transactions": len(rows), "training_fraud_share": float(fraud.mean())},
        comment="Is this payment a fraud?",
    )


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # today's production model is tomorrow's opponent
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10), "retry_policy": SNOWML_RETRY_POLICY},
    tags=["example", "snowml"],
)
def daily_fraud_training():
    make_run_schema = SnowMLRunSchemaOperator(task_id="make_run_schema", prefix=RUN_SCHEMA_PREFIX)

    @task
    def load(data_interval_start: Any = None) -> dict[str, int]:
        """Stand in for the bank: bring what has come in since. What is there already stays as it is."""
        import pandas as pd

        day = data_interval_start.date()
        customers, accounts = customers_and_accounts()
        days = [day - timedelta(days=ago) for ago in range(TRAINING_DAYS + 1)]
        arrived = [customers, accounts, pd.concat([transactions(day) for day in days], ignore_index=True)]
        added = {}
        with SnowMLHook().session() as session:
            for (table, columns), rows in zip(TABLES.items(), arrived, strict=True):
                key = columns.split()[0]
                session.sql(f"CREATE TABLE IF NOT EXISTS {table} ({columns})").collect()
                session.sql(f"CREATE OR REPLACE TEMPORARY TABLE ARRIVED ({columns})").collect()
                session.write_pandas(rows, "ARRIVED", use_logical_type=True)
                (result,) = session.sql(
                    f"INSERT INTO {table} "
                    f"SELECT * FROM ARRIVED WHERE {key} NOT IN (SELECT {key} FROM {table})"
                ).collect()
                added[table] = result[0]
            session.sql(FRAUD_FEATURES).collect()
        return added

    @task
    def split(run_schema: str, data_interval_start: Any = None) -> dict[str, int]:
        """Split by time: seven days to learn from, and the day after them to be judged on."""
        day = data_interval_start.date()
        periods = {
            "TRAINING": (day - timedelta(days=TRAINING_DAYS), day),
            "HELD_OUT": (day, day + timedelta(days=1)),
        }
        hook, rows = SnowMLHook(), {}
        for table, (first, until) in periods.items():
            hook.run(f"""
                CREATE OR REPLACE TABLE {run_schema}.{table} AS
                SELECT * FROM FRAUD_FEATURES
                WHERE TRANSACTION_DATE >= '{first}' AND TRANSACTION_DATE < '{until}'
            """)
            rows[table] = hook.value(f"SELECT COUNT(*) FROM {run_schema}.{table}")
        return rows

    train = SnowMLRegisterModelOperator(
        task_id="train",
        model_name=MODEL,
        version_name="V{{ data_interval_start | ds_nodash }}",
        python_callable=fit,
        op_kwargs={"training_table": f"{RUN_SCHEMA}.TRAINING"},
        if_exists="reuse",  # the same date again: the version is there
    )

    challenger = train.output["version"]

    contest = SnowMLChampionChallengerOperator(
        task_id="contest",
        model_name=MODEL,
        challenger_version=challenger,
        champion_version="champion",  # whoever has the alias; Snowflake makes the first version the default
        function_name="predict_proba",
        input_table=f"{RUN_SCHEMA}.HELD_OUT",
        label_column="IS_FRAUD",
        task="binary_classification",
        positive_class=True,
        probability_columns={False: "P_HONEST", True: "P_FRAUD"},
        expressions={"stolen": "SUM(IFF(LABEL AND P_FRAUD < 0.2, AMOUNT, 0))"},  # what would go unseen
        metric="roc_auc",
        floor=FLOOR,
        min_rows=1000,
        stored_as="held_out",
        follow_task_ids_if_better="mark_live",
        follow_task_ids_if_not_better="keep_production",
    )

    # Readers use the default, which is set first. The tag is for people and other tools.
    mark_live = SnowMLPromoteModelOperator(
        task_id="mark_live",
        model_name=MODEL,
        version_name=challenger,
        tag="live_version",
        create_tag=True,
        trained_until="{{ data_interval_start }}",
        on_older="keep",
    )

    @task
    def keep_production(report: str) -> None:
        """Say why nothing is promoted."""
        print(report)

    # A day that lost stays a while, to be looked at. What is live, and what a rollback would need, stay.
    prune = SnowMLPruneModelVersionsOperator(
        task_id="prune",
        model_name=MODEL,
        keep_last=KEEP_VERSIONS,
        plan_only=False,
        trigger_rule="none_failed_min_one_success",
    )

    drop_run_schema = SnowMLRunSchemaOperator(
        task_id="drop_run_schema", prefix=RUN_SCHEMA_PREFIX
    ).as_teardown(setups=make_run_schema)

    make_run_schema >> load() >> split(RUN_SCHEMA) >> train >> contest
    contest >> [mark_live, keep_production(contest.output["report"])] >> prune >> drop_run_schema


daily_fraud_training()
