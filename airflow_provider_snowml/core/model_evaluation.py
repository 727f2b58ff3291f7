"""How good predictions are, computed where they are: one statement over a query with labels and predictions.

No row leaves Snowflake. The definitions are scikit-learn's, also at the edges: a class that was never
predicted has precision 0, a ROC AUC over one class only is unknown (NULL), and a log loss keeps probabilities
away from 0 and 1 by the spacing of floating point numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_snowml.core.names import Identifier, value_sql

CLASSIFICATION_METRICS = ("accuracy", "precision", "recall", "f1", "log_loss", "roc_auc")
PROBABILITY_METRICS = ("log_loss", "roc_auc")
REGRESSION_METRICS = ("mae", "rmse", "mape", "r2")
_EPSILON = "2.220446049250313e-16::DOUBLE"

_REGRESSION = {
    "mae": "AVG(ABS(LABEL - PREDICTION))",
    "rmse": "SQRT(AVG(POWER(LABEL - PREDICTION, 2)))",
    "mape": f"AVG(ABS(LABEL - PREDICTION) / GREATEST(ABS(LABEL), {_EPSILON}))",
    "r2": "IFF(SUM(POWER(LABEL - MEAN_LABEL, 2)) = 0, IFF(SUM(POWER(LABEL - PREDICTION, 2)) = 0, 1, 0), "
    "1 - SUM(POWER(LABEL - PREDICTION, 2)) / NULLIF(SUM(POWER(LABEL - MEAN_LABEL, 2)), 0))",
}
# Over PER_CLASS; a class's own are true positives HITS, PREDICTED and ACTUAL rows.
_PER_CLASS = {
    "precision": "COALESCE(HITS / NULLIF(PREDICTED, 0), 0)",
    "recall": "COALESCE(HITS / NULLIF(ACTUAL, 0), 0)",
    "f1": "COALESCE(2 * HITS / NULLIF(PREDICTED + ACTUAL, 0), 0)",
}


@dataclass(frozen=True)
class Evaluation:
    """What is computed of predictions. Rows without a label are counted, and count for nothing else.

    :param label: the column with what was right.
    :param metrics: those of classification, or those of regression.
    :param prediction: the column with the predicted class or value. Where it is left out, the probabilities
        say: the likeliest class, or the positive one from ``threshold`` on.
    :param probabilities: the columns with the probabilities of the classes, by class; with ``positive``, that
        class's alone.
    :param positive: the class that is told from all others; ``None`` if each class counts alike (macro).
    :param threshold: from which probability on the positive class is predicted.
    :param expressions: one's own metrics, by name: SQL aggregates over ``LABEL`` and ``PREDICTION`` (truth
        values with ``positive``) and the columns of the input.
    :param bins: how many bins of equal width the calibration of the positive class has, 0 for none.
    """

    label: Identifier
    metrics: tuple[str, ...]
    prediction: Identifier | None = None
    probabilities: tuple[tuple[Any, Identifier], ...] = ()
    positive: Any = None
    threshold: float = 0.5
    expressions: tuple[tuple[str, str], ...] = ()
    bins: int = 0

    @property
    def is_regression(self) -> bool:
        """Whether values are compared, and not classes."""
        return bool(set(self.metrics) & set(REGRESSION_METRICS))

    def sql(self, predictions: str, columns: Sequence[str]) -> str:
        """The statement.

        Its one row has ``UNLABELLED``, ``LABELLED_ROWS``, ``UNPREDICTED``, a column for each metric and
        expression, and of a classification ``CONFUSION`` and ``CALIBRATION``: arrays of objects.

        :param predictions: a query with the labels and the predictions.
        :param columns: its columns, by their resolved names.
        """
        label = self.label.sql
        made = {"LABEL": self._label(), "PREDICTION": self._prediction()}
        if self.is_regression:
            made["MEAN_LABEL"] = f"AVG({label}::DOUBLE) OVER ()"
        made.update({f"SCORE_{i}": column.sql for i, (_, column) in enumerate(self.probabilities)})
        hidden = [name for name in made if name in columns]
        others = f"* EXCLUDE ({', '.join(hidden)})" if hidden else "*"
        results = [
            f"(SELECT COUNT_IF({label} IS NULL) FROM PREDICTIONS) AS UNLABELLED",
            "COUNT(*) AS LABELLED_ROWS",
            "COUNT_IF(PREDICTION IS NULL) AS UNPREDICTED",
        ]
        steps = {
            "PREDICTIONS": predictions,
            "LABELLED": f"SELECT {others}, {', '.join(f'{sql} AS {name}' for name, sql in made.items())} "
            f"FROM PREDICTIONS WHERE {label} IS NOT NULL",
        }
        if self.is_regression:
            results += [f"{_REGRESSION[metric]} AS {metric}" for metric in self.metrics]
        else:
            steps.update(self._classification_steps())
            results += [f"{self._classification(metric)} AS {metric}" for metric in self.metrics]
            results.append(
                "(SELECT ARRAY_AGG(OBJECT_CONSTRUCT('label', LABEL, 'prediction', PREDICTION, 'rows', N)) "
                "FROM CONFUSION) AS CONFUSION"
            )
            if self.bins:
                results.append(
                    "(SELECT ARRAY_AGG(OBJECT_CONSTRUCT('bin', BIN, 'rows', N, 'probability', PROBABILITY, "
                    "'positive', POSITIVE)) FROM CALIBRATION) AS CALIBRATION"
                )
        results += [f"{sql} AS {Identifier.of(name).sql}" for name, sql in self.expressions]
        with_ = ",\n".join(f"{name} AS (\n{query}\n)" for name, query in steps.items())
        selected = ",\n".join(results)
        return f"WITH {with_}\nSELECT {selected}\nFROM LABELLED"

    def _label(self) -> str:
        if self.is_regression:
            return f"{self.label.sql}::DOUBLE"
        if self.positive is not None:
            return f"({self.label.sql} = {value_sql(self.positive)})"
        return self.label.sql

    def _prediction(self) -> str:
        if self.prediction is not None:
            if self.is_regression:
                return f"{self.prediction.sql}::DOUBLE"
            if self.positive is not None:
                return f"({self.prediction.sql} = {value_sql(self.positive)})"
            return self.prediction.sql
        columns = [column.sql for _, column in self.probabilities]
        if self.positive is not None:
            return f"({columns[self._positive_index()]} >= {value_sql(self.threshold)})"
        likeliest = f"GREATEST({', '.join(columns)})"
        cases = " ".join(
            f"WHEN {column.sql} = {likeliest} THEN {value_sql(class_)}"
            for class_, column in self.probabilities
        )
        return f"CASE {cases} END"

    def _positive_index(self) -> int:
        return [class_ for class_, _ in self.probabilities].index(self.positive)

    def _classification_steps(self) -> dict[str, str]:
        steps = {
            "CONFUSION": "SELECT LABEL, PREDICTION, COUNT(*) AS N FROM LABELLED GROUP BY LABEL, PREDICTION",
            "CLASSES": "SELECT LABEL AS CLASS FROM CONFUSION UNION SELECT PREDICTION FROM CONFUSION",
            "PER_CLASS": "SELECT CLASS, SUM(IFF(LABEL = CLASS AND PREDICTION = CLASS, N, 0)) AS HITS, "
            "SUM(IFF(PREDICTION = CLASS, N, 0)) AS PREDICTED, SUM(IFF(LABEL = CLASS, N, 0)) AS ACTUAL "
            "FROM CLASSES CROSS JOIN CONFUSION GROUP BY CLASS",
        }
        if "roc_auc" in self.metrics:
            if self.positive is not None:
                score = f"SCORE_{self._positive_index()}"
                scores = f"SELECT TRUE AS CLASS, LABEL AS IS_IT, {score} AS SCORE FROM LABELLED"
            else:
                scores = " UNION ALL ".join(
                    f"SELECT {value_sql(class_)} AS CLASS, LABEL = {value_sql(class_)} AS IS_IT, "
                    f"SCORE_{i} AS SCORE FROM LABELLED"
                    for i, (class_, _) in enumerate(self.probabilities)
                )
            steps["SCORES"] = scores
            # The rank of equal scores is their mean rank.
            steps["RANKS"] = (
                "SELECT CLASS, IS_IT, RANK() OVER (PARTITION BY CLASS ORDER BY SCORE) "
                "+ (COUNT(*) OVER (PARTITION BY CLASS, SCORE) - 1) / 2 AS SCORE_RANK FROM SCORES"
            )
            steps["AREAS"] = (
                "SELECT CLASS, (SUM(IFF(IS_IT, SCORE_RANK, 0))::DOUBLE "
                "- COUNT_IF(IS_IT)::DOUBLE * (COUNT_IF(IS_IT) + 1) / 2) "
                "/ NULLIF(COUNT_IF(IS_IT)::DOUBLE * COUNT_IF(NOT IS_IT), 0) AS AREA FROM RANKS GROUP BY CLASS"
            )
        if self.bins:
            score = f"SCORE_{self._positive_index()}"
            steps["CALIBRATION"] = (
                f"SELECT LEAST(FLOOR({score} * {self.bins}), {self.bins - 1}) AS BIN, COUNT(*) AS N, "
                f"AVG({score}) AS PROBABILITY, AVG(IFF(LABEL, 1, 0)::DOUBLE) AS POSITIVE "
                "FROM LABELLED GROUP BY 1"
            )
        return steps

    def _classification(self, metric: str) -> str:
        if metric == "accuracy":
            return "AVG(IFF(LABEL = PREDICTION, 1, 0)::DOUBLE)"
        if metric in _PER_CLASS:
            where = " WHERE CLASS" if self.positive is not None else ""
            per_class = _PER_CLASS[metric].replace("HITS", "HITS::DOUBLE")
            return f"(SELECT COALESCE(AVG({per_class}), 0) FROM PER_CLASS{where})"
        if metric == "roc_auc":
            # One class without an area makes the whole unknown, as AVG would not.
            return "(SELECT IFF(COUNT_IF(AREA IS NULL) > 0, NULL, AVG(AREA)) FROM AREAS)"
        if self.positive is not None:
            score = f"SCORE_{self._positive_index()}"
            right = f"IFF(LABEL, {score}, 1 - {score})"
        else:
            cases = " ".join(
                f"WHEN LABEL = {value_sql(class_)} THEN SCORE_{i}"
                for i, (class_, _) in enumerate(self.probabilities)
            )
            right = f"CASE {cases} END"
        return f"-AVG(LN(LEAST(GREATEST({right}, {_EPSILON}), 1 - {_EPSILON})))"
