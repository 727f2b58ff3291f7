"""Tasks of a model's life that are more than an operator and its arguments: a callable, a DAG around."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pendulum
from airflow.sdk import DAG, BaseOperator
from sklearn.linear_model import LogisticRegression

from airflow_provider_snowml.operators.champion_challenger import SnowMLChampionChallengerOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator
from airflow_provider_snowml.operators.run_schema import SnowMLRunSchemaOperator


def train(trainings: str) -> ModelArtifact:
    """Whether F1 is greater than 30. Each training is noted in a file."""
    with Path(trainings).open("a") as file:
        file.write("trained\n")
    rows = pd.DataFrame({"F1": np.arange(60.0)})
    return ModelArtifact(
        LogisticRegression(C=1e6).fit(rows, (rows.F1 > 30).astype(int)),
        sample_input_data=rows.head(),
        metrics={"auc": 0.9, "rows": 60},
        comment="it's new",
        options={"target_methods": ["predict"], "enable_explainability": False},
    )


def register(**arguments: Any) -> BaseOperator:
    """A registration of what is trained."""
    return SnowMLRegisterModelOperator(python_callable=train, **arguments)


def contest(**arguments: Any) -> BaseOperator:
    """A contest, and the two tasks of which one follows."""
    with DAG("chaos", schedule=None, start_date=pendulum.datetime(2013, 6, 1)):
        task = SnowMLChampionChallengerOperator(
            follow_task_ids_if_better="promote", follow_task_ids_if_not_better="keep", **arguments
        )
        task >> [BaseOperator(task_id="promote"), BaseOperator(task_id="keep")]
    return task


def drop_run_schema(**arguments: Any) -> BaseOperator:
    """The teardown of a run's schema."""
    return SnowMLRunSchemaOperator(**arguments).as_teardown()
