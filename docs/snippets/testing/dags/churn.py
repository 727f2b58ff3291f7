from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag

from airflow_provider_snowml.operators.inference import SnowMLRunModelOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator


def fit(session) -> ModelArtifact:
    from sklearn.linear_model import LogisticRegression

    customers = session.table("CUSTOMERS").to_pandas()
    visits = customers[["VISITS"]]
    return ModelArtifact(LogisticRegression().fit(visits, customers["LEFT_US"]), sample_input_data=visits)


@dag(schedule="@weekly", start_date=datetime(2026, 1, 1), catchup=False)
def churn():
    train = SnowMLRegisterModelOperator(
        task_id="train",
        model_name="CHURN",
        version_name="V{{ ts_nodash }}",
        python_callable=fit,
    )
    score = SnowMLRunModelOperator(
        task_id="score",
        model_name="CHURN",
        version_name=train.output["version"],
        function_name="predict",
        input_table="CUSTOMERS",
        output_table="CHURN_SCORES",
        write_mode="replace",
    )
    train >> score


churn()
