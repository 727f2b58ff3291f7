"""Metrics that are computed in Snowflake, against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pendulum
import pytest
from airflow.sdk import DAG
from sklearn import metrics as scikit
from sklearn.linear_model import LinearRegression, LogisticRegression

from airflow_provider_snowml.core.model_evaluation import Evaluation
from airflow_provider_snowml.core.names import Identifier
from airflow_provider_snowml.exceptions import (
    EvaluationError,
    InputColumnsError,
    InvalidArgumentError,
    InvalidNameError,
)
from airflow_provider_snowml.hooks.evaluation import evaluate
from airflow_provider_snowml.operators.evaluation import SnowMLEvaluateModelOperator

CLOSE = 1e-9
FEATURES = ["F1", "F2"]


class Models:
    """Three models and the rows that they are evaluated on; what they predict here is what is right."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook
        random = np.random.default_rng(7)
        rows = pd.DataFrame({"F1": random.normal(size=400), "F2": random.normal(size=400).round(1)})
        noisy = rows.F1 + rows.F2 + random.normal(size=400)
        rows["LATE"] = (noisy > 0.5).astype(int)
        rows["KIND"] = np.array(["on time", "a 'late' one", "lost"])[np.digitize(noisy, [-0.5, 0.5])]
        rows["MINUTES"] = noisy * 10
        self.rows = rows
        self.binary = LogisticRegression().fit(rows[FEATURES], rows.LATE)
        self.kinds = LogisticRegression().fit(rows[FEATURES], rows.KIND)
        self.minutes = LinearRegression().fit(rows[FEATURES], rows.MINUTES)
        from snowflake.snowpark import functions

        with hook.session() as session:
            registry = hook.registry(session, hook.default_schema())
            for name in ("binary", "kinds", "minutes"):
                registry.log_model(
                    getattr(self, name),
                    model_name=f"EVAL_{name.upper()}",
                    version_name="V1",
                    sample_input_data=rows[FEATURES].head(),
                )
            frame = session.create_dataframe(rows)
            unknown = frame.limit(7).with_columns(
                ["LATE", "KIND", "MINUTES"],
                [functions.lit(None).cast(t) for t in ("int", "string", "double")],
            )
            frame.union_all(unknown).write.save_as_table("EVALUATED", mode="overwrite")


@pytest.fixture(scope="module")
def models(scoring_schema, local_snowflake) -> Models:
    with pytest.MonkeyPatch.context() as patch:
        uri = local_snowflake.airflow_connection_into(scoring_schema.name)
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", uri)
        return Models(scoring_schema.hook())


def evaluation(model: str, **arguments: Any) -> SnowMLEvaluateModelOperator:
    if "input_query" not in arguments:
        arguments["input_table"] = "EVALUATED"
    return SnowMLEvaluateModelOperator(task_id="evaluate", model_name=f"EVAL_{model}", **arguments)


LATE: dict[str, Any] = {
    "function_name": "predict_proba",
    "label_column": "LATE",
    "task": "binary_classification",
    "positive_class": 1,
    "probability_columns": {0: "output_feature_0", 1: "output_feature_1"},
}


def test_two_classes(scoring, models, run_dag) -> None:
    with DAG("evaluate", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        evaluation("BINARY", **LATE, expressions={"Share late": "AVG(IFF(LABEL, 1, 0)::DOUBLE)"})
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    result, rows = xcoms["evaluate"], models.rows
    scores = models.binary.predict_proba(rows[FEATURES])[:, 1]
    said = (scores >= 0.5).astype(int)
    assert (result["rows"], result["unlabelled_rows"], result["version"]) == (400, 7, "V1")
    assert result["metrics"] == pytest.approx(
        {
            "accuracy": scikit.accuracy_score(rows.LATE, said),
            "precision": scikit.precision_score(rows.LATE, said),
            "recall": scikit.recall_score(rows.LATE, said),
            "f1": scikit.f1_score(rows.LATE, said),
            "log_loss": scikit.log_loss(rows.LATE, scores),
            "roc_auc": scikit.roc_auc_score(rows.LATE, scores),
            "Share late": rows.LATE.mean(),
        },
        abs=CLOSE,
    )
    cells = {(cell["label"], cell["prediction"]): cell["rows"] for cell in result["confusion_matrix"]}
    matrix = scikit.confusion_matrix(rows.LATE, said)
    assert cells == {(bool(i), bool(j)): matrix[i, j] for i in (0, 1) for j in (0, 1)}
    assert sum(bin_["rows"] for bin_ in result["calibration"]) == 400
    for bin_ in result["calibration"]:
        inside = np.floor(scores * 10) == bin_["bin"]
        assert bin_["rows"] == inside.sum()
        assert bin_["probability"] == pytest.approx(scores[inside].mean(), abs=CLOSE)
        assert bin_["positive"] == pytest.approx(rows.LATE[inside].mean(), abs=CLOSE)
    with models.hook.session() as session:
        registry = models.hook.registry(session, models.hook.default_schema())
        stored = registry.get_model("EVAL_BINARY").version("V1").get_metric("evaluation")
    assert stored == {key: value for key, value in result.items() if key not in ("model", "version")}


def test_three_classes(scoring, models, task_context) -> None:
    result = evaluation(
        "KINDS",
        function_name="predict_proba",
        label_column="kind",
        task="multiclass_classification",
        probability_columns={name: f"output_feature_{i}" for i, name in enumerate(models.kinds.classes_)},
    ).execute(task_context("evaluate"))
    rows = models.rows
    scores = models.kinds.predict_proba(rows[FEATURES])
    said = models.kinds.predict(rows[FEATURES])
    macro = {"average": "macro"}
    assert result["metrics"] == pytest.approx(
        {
            "accuracy": scikit.accuracy_score(rows.KIND, said),
            "precision": scikit.precision_score(rows.KIND, said, **macro),
            "recall": scikit.recall_score(rows.KIND, said, **macro),
            "f1": scikit.f1_score(rows.KIND, said, **macro),
            "log_loss": scikit.log_loss(rows.KIND, scores),
            "roc_auc": scikit.roc_auc_score(rows.KIND, scores, multi_class="ovr"),
        },
        abs=CLOSE,
    )
    assert "calibration" not in result


def test_predicted_classes_alone(scoring, models, task_context) -> None:
    result = evaluation(
        "KINDS",
        function_name="predict",
        label_column="KIND",
        task="multiclass_classification",
        prediction_column="output_feature_0",
        stored_as=None,
    ).execute(task_context("evaluate"))
    said = models.kinds.predict(models.rows[FEATURES])
    assert set(result["metrics"]) == {"accuracy", "precision", "recall", "f1"}
    assert result["metrics"]["f1"] == pytest.approx(
        scikit.f1_score(models.rows.KIND, said, average="macro"), abs=CLOSE
    )


def test_values(scoring, models, task_context) -> None:
    result = evaluation(
        "MINUTES",
        function_name="predict",
        label_column="MINUTES",
        task="regression",
        prediction_column="output_feature_0",
        expressions={"worst": "MAX(ABS(LABEL - PREDICTION))"},
    ).execute(task_context("evaluate"))
    right, said = models.rows.MINUTES, models.minutes.predict(models.rows[FEATURES])
    assert result["metrics"] == pytest.approx(
        {
            "mae": scikit.mean_absolute_error(right, said),
            "rmse": scikit.root_mean_squared_error(right, said),
            "mape": scikit.mean_absolute_percentage_error(right, said),
            "r2": scikit.r2_score(right, said),
            "worst": np.abs(right - said).max(),
        },
        abs=CLOSE,
    )


def pairs(*rows: tuple[Any, Any]) -> str:
    values = ", ".join(f"({label}::DOUBLE, {score}::DOUBLE)" for label, score in rows)
    return f"SELECT COLUMN1 AS LABEL, COLUMN2 AS PREDICTION FROM VALUES {values}"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, 0.9), (1, 0.2)], {"roc_auc": None, "recall": 0.5, "precision": 1.0}),
        ([(0, 0.1), (1, 0.2)], {"precision": 0.0, "recall": 0.0, "f1": 0.0, "roc_auc": 1.0}),
        ([(0, 0.5), (1, 0.5), (1, 0.5)], {"roc_auc": 0.5}),
        ([(1, 0.0), (0, 0.0)], {"log_loss": scikit.log_loss([1, 0], [0.0, 0.0])}),
    ],
    ids=["one class", "none predicted", "all tied", "certain and wrong"],
)
def test_the_edges_are_scikit_learns(scoring, rows, expected) -> None:
    wanted = Evaluation(
        label=Identifier("LABEL"),
        metrics=tuple(expected),
        probabilities=((1, Identifier("PREDICTION")),),
        positive=1,
    )
    hook = scoring.hook()
    with hook.open_connection():
        assert evaluate(hook, wanted, pairs(*rows))["metrics"] == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(("rows", "r2"), [([(2, 2), (2, 2)], 1.0), ([(2, 1), (2, 2)], 0.0)])
def test_the_r2_of_equal_values(scoring, rows, r2) -> None:
    wanted = Evaluation(label=Identifier("LABEL"), metrics=("r2",), prediction=Identifier("PREDICTION"))
    hook = scoring.hook()
    with hook.open_connection():
        assert evaluate(hook, wanted, pairs(*rows))["metrics"] == {"r2": r2}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({**LATE, "task": "ranking"}, InvalidArgumentError, "ranking"),
        ({**LATE, "metrics": ["auc"]}, InvalidArgumentError, "roc_auc"),
        ({**LATE, "positive_class": None}, InvalidArgumentError, "positive_class"),
        ({**LATE, "positive_class": 2}, InvalidArgumentError, r"\[0, 1\]"),
        ({**LATE, "probability_columns": None}, InvalidArgumentError, "nothing to compare"),
        ({**LATE, "threshold": "half"}, InvalidArgumentError, "half"),
        ({**LATE, "label_column": "TRUTH"}, InputColumnsError, "TRUTH.*LATE"),
        ({**LATE, "input_query": "SELECT * FROM EVALUATED WHERE LATE IS NULL"}, EvaluationError, "none has"),
        (
            {**LATE, "input_query": "SELECT * FROM EVALUATED", "label_column": "LATE", "stored_as": "$$"},
            InvalidArgumentError,
            r"\$\$",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(scoring, models, task_context, arguments, error, says) -> None:
    with pytest.raises(error, match=says):
        evaluation("BINARY", **arguments).execute(task_context("evaluate"))


def test_a_name_that_snowflake_ml_cannot_look_for_is_refused_first(scoring, models, task_context) -> None:
    models.hook.rows("""ALTER MODEL EVAL_BINARY ADD VERSION "V'1" FROM MODEL EVAL_BINARY VERSION V1""")
    arguments = {**LATE, "version_name": '"V\'1"'}
    with pytest.raises(InvalidNameError, match="does not escape"):
        evaluation("BINARY", **arguments, threshold="half").execute(task_context("evaluate"))
