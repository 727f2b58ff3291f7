"""Evaluating a model version: its predictions and what is computed of them, in one statement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_snowml.core.model_evaluation import Evaluation
from airflow_provider_snowml.core.model_ref import ModelFunction, ModelVersionRef
from airflow_provider_snowml.exceptions import EvaluationError
from airflow_provider_snowml.hooks.errors import mapped_errors
from airflow_provider_snowml.hooks.snowml import SnowMLHook


def predictions_query(
    hook: SnowMLHook,
    session: Any,
    ref: ModelVersionRef,
    function: ModelFunction,
    query: str,
    inference_params: Mapping[str, Any] | None = None,
) -> str:
    """The query that gives a version's predictions beside the rows of another query. It runs nothing.

    :param hook: the hook.
    :param session: a Snowpark session.
    :param ref: the version.
    :param function: its function, not a table function.
    :param query: the rows.
    :param inference_params: parameters of the method.
    """
    with mapped_errors():
        version = hook.registry(session, ref.model.parent).get_model(ref.model.name.sql)
        predictions = version.version(ref.version_sql).run(
            session.sql(query),
            function_name=function.target_method,
            params=dict(inference_params) if inference_params else None,
        )
        (sql,) = predictions.queries["queries"]
    return str(sql)


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
