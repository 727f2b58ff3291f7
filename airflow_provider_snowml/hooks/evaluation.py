"""Evaluating a model version: its predictions and what is computed of them, in one statement."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.model_evaluation import Evaluation
from airflow_provider_snowml.core.model_ref import ModelFunction, ModelVersionRef
from airflow_provider_snowml.exceptions import EvaluationError, InvalidArgumentError
from airflow_provider_snowml.hooks.inference import predictions
from airflow_provider_snowml.hooks.snowml import SnowMLHook

if TYPE_CHECKING:
    from snowflake.snowpark import Column, Session

    MetricCallable = Callable[[Column, Column], Column]


def predictions_query(
    hook: SnowMLHook,
    session: Session,
    ref: ModelVersionRef,
    function: ModelFunction,
    query: str,
    inference_params: Mapping[str, Any] | None = None,
) -> str:
    """The query that gives a version's predictions beside the rows of another query. It runs nothing.

    :param hook: the hook that the session is of.
    :param session: an open session.
    :param ref: the version.
    :param function: its function.
    :param query: the rows.
    :param inference_params: parameters of the method.
    :raises InvalidArgumentError: for a table function, whose rows are not those of the query.
    """
    if not function.keeps_row_count:
        raise InvalidArgumentError(
            f"{function.target_method} is a {function.type}; what it gives does not stand beside the labels. "
            "Name a function that gives one row for each."
        )
    found = predictions(hook, session, ref, function, query, params=inference_params)
    return str(found.queries["queries"][-1])


def metric_sql(session: Session, metric: MetricCallable) -> str:
    """The SQL of a metric that is written with Snowpark. It runs nothing.

    :param session: an open session.
    :param metric: makes an aggregate of ``LABEL`` and ``PREDICTION``.
    """
    from snowflake.snowpark.functions import col

    rows = session.sql("SELECT * FROM LABELLED")  # as the one statement calls them
    made = rows.agg(metric(col("LABEL"), col("PREDICTION")))
    return f"({made.queries['queries'][-1]})"


def evaluate(hook: SnowMLHook, evaluation: Evaluation, predictions: str) -> dict[str, Any]:
    """Compute it.

    :param hook: the hook, with a connection open.
    :param evaluation: what.
    :param predictions: the query with labels and predictions.
    :return: ``{"rows", "unlabelled_rows", "metrics": {name: number or None}, "confusion_matrix",
        "calibration"}``; the last two as lists of objects, and only where there are any.
    :raises EvaluationError: if no row has a label, or some rows have no prediction.
    """
    (row,) = hook.rows(evaluation.sql(predictions, hook.columns(predictions)))
    if not row["LABELLED_ROWS"]:
        raise EvaluationError(
            f"Of {row['UNLABELLED']} rows none has a label in {evaluation.label}: nothing can be compared."
        )
    if row["UNPREDICTED"]:
        raise EvaluationError(
            f"{row['UNPREDICTED']} of {row['LABELLED_ROWS']} rows have no prediction: leave out of the input "
            "what the model cannot predict."
        )
    names = {metric: metric.upper() for metric in evaluation.metrics}
    names.update({name: name for name, _ in evaluation.expressions})
    result: dict[str, Any] = {
        "rows": int(row["LABELLED_ROWS"]),
        "unlabelled_rows": int(row["UNLABELLED"]),
        "metrics": {
            name: None if row[column] is None else float(row[column]) for name, column in names.items()
        },
    }
    if not evaluation.is_regression:
        result["confusion_matrix"] = sorted(json.loads(row["CONFUSION"]), key=lambda cell: str(cell))
        if evaluation.bins:
            result["calibration"] = sorted(
                json.loads(row["CALIBRATION"]), key=lambda cell: float(cell["bin"])
            )
    return result


def metric_of_slice(hook: SnowMLHook, evaluation: Evaluation, metric: str, predictions: str) -> float | None:
    """A metric on a part of the rows; ``None`` if it cannot be computed, as of no rows.

    :param hook: the hook, with a connection open.
    :param evaluation: what is computed.
    :param metric: which of it is wanted.
    :param predictions: the query with the labels and predictions of the part.
    """
    try:
        value: float | None = evaluate(hook, evaluation, predictions)["metrics"][metric]
    except EvaluationError:
        # All rows have predictions: the whole was evaluated before. So this part has no labels.
        return None
    return value
