"""Evaluating a model version where its rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from airflow.sdk import Context

from airflow_provider_snowml.core.model_evaluation import (
    CLASSIFICATION_METRICS,
    PROBABILITY_METRICS,
    REGRESSION_METRICS,
    Evaluation,
)
from airflow_provider_snowml.core.model_ref import check_columns
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import InputColumnsError, InvalidArgumentError
from airflow_provider_snowml.hooks.evaluation import evaluate, predictions_query
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    as_text,
    exactly_one,
    one_of,
    plain_metrics,
    rows_query,
)

TASKS = ("binary_classification", "multiclass_classification", "regression")


class SnowMLEvaluateModelOperator(SnowMLOperator):
    """Say how good a model version is on rows whose outcome is known.

    One statement runs the model and computes the metrics, so that no row passes through the worker. They are
    scikit-learn's, by name and definition: ``accuracy``, ``precision``, ``recall``, ``f1``, ``log_loss`` and
    ``roc_auc`` (for more than two classes the mean over them; ROC AUC each against the rest), or ``mae``,
    ``rmse``, ``mape`` and ``r2``. Rows without a label are counted and left out.

    The result is stored on the version, as a metric of the name ``stored_as``; a second run overwrites it.
    Tasks that write metrics of one version at the same time can lose each other's.

    XCom: ``{"model", "version", "rows", "unlabelled_rows", "metrics": {name: number}, "confusion_matrix":
    [{"label", "prediction", "rows"}], "calibration": [{"bin", "rows", "probability", "positive"}]}``. With
    ``positive_class``, labels and predictions are ``true`` (that class) or ``false``. A metric that cannot be
    computed, such as the ROC AUC of one class, is ``None``.

    Privileges: USAGE on the model and on a warehouse, SELECT on the input; OWNERSHIP of the model to store
    the result. See https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/overview.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: a version, an alias, ``default``, ``first`` or ``last``.
    :param function_name: the model's method, such as ``predict_proba``; may be left out if it has only one.
    :param input_table: a table or view with the features and the labels; or
    :param input_query: a query (it is code: never build it from a run's configuration).
    :param label_column: the column with what was right.
    :param task: ``"binary_classification"``, ``"multiclass_classification"`` or ``"regression"``.
    :param metrics: which metrics; all that the columns allow if it is left out.
    :param prediction_column: the method's output with the predicted class or value. Of a classification with
        ``probability_columns`` it may be left out: the likeliest class is then the predicted one.
    :param probability_columns: the method's outputs with the probabilities, by class, such as
        ``{0: "output_feature_0", 1: "output_feature_1"}``.
    :param positive_class: the class that a binary classification is about.
    :param threshold: from which probability on it is predicted, where there is no ``prediction_column``.
    :param expressions: metrics of your own, by name: SQL aggregates over ``LABEL``, ``PREDICTION`` and the
        input's columns (they are code).
    :param inference_params: parameters of the method.
    :param calibration_bins: how many bins of equal width the probabilities of the positive class are put in,
        0 for none.
    :param stored_as: the name of the version's metric; ``None`` stores nothing.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a model, version or function that isn't there.
    :raises EvaluationError: if no row has a label, or a row has no prediction.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "function_name",
        "input_table",
        "input_query",
        "label_column",
        "metrics",
        "prediction_column",
        "probability_columns",
        "positive_class",
        "threshold",
        "expressions",
        "inference_params",
        "stored_as",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"input_query": "sql", "inference_params": "json"}

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str = "default",
        function_name: str | None = None,
        input_table: str | None = None,
        input_query: str | None = None,
        label_column: str,
        task: Literal["binary_classification", "multiclass_classification", "regression"],
        metrics: Sequence[str] | None = None,
        prediction_column: str | None = None,
        probability_columns: Mapping[Any, str] | None = None,
        positive_class: Any = None,
        threshold: float | str = 0.5,
        expressions: Mapping[str, str] | None = None,
        inference_params: Mapping[str, Any] | None = None,
        calibration_bins: int = 10,
        stored_as: str | None = "evaluation",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.function_name = function_name
        self.input_table = input_table
        self.input_query = input_query
        self.label_column = label_column
        self.task = task
        self.metrics = metrics
        self.prediction_column = prediction_column
        self.probability_columns = probability_columns
        self.positive_class = positive_class
        self.threshold = threshold
        self.expressions = expressions
        self.inference_params = inference_params
        self.calibration_bins = calibration_bins
        self.stored_as = stored_as

    def execute(self, context: Context) -> dict[str, Any]:
        """Evaluate, and store the result."""
        source = exactly_one(input_table=self.input_table, input_query=self.input_query)
        metrics = self._chosen_metrics()
        hook = self.get_hook()
        with hook.session() as session:
            default = hook.default_schema()
            model = QualifiedName.parse(self.model_name, default, what="model name")
            query = rows_query(source, getattr(self, source), default)
            ref = hook.resolve_version(model, self.version_name)
            function = ref.function(self.function_name)
            check_columns(function, hook.columns(query), source=source)
            predictions = predictions_query(hook, session, ref, function, query, self.inference_params)
            evaluation = self._evaluation(metrics, hook.columns(predictions))
            result = evaluate(hook, evaluation, predictions)
            stored_as = as_text(self.stored_as)
            if stored_as:
                # The labels in it are the table's.
                ((name, value),) = plain_metrics({stored_as: result}).items()
                registry = hook.registry(session, model.parent)
                registry.get_model(model.name.sql).version(ref.version_sql).set_metric(name, value)
        self.log.info("%s %s on %d rows: %s", model, ref.version, result["rows"], result["metrics"])
        return {"model": model.sql, "version": ref.version, **result}

    def _chosen_metrics(self) -> tuple[str, ...]:
        """Check what needs no Snowflake; which metrics there will be."""
        one_of("task", self.task, TASKS)
        possible: tuple[str, ...]
        if self.task == "regression":
            possible = REGRESSION_METRICS
        elif self.probability_columns:
            possible = CLASSIFICATION_METRICS
        else:
            possible = tuple(name for name in CLASSIFICATION_METRICS if name not in PROBABILITY_METRICS)
        metrics = tuple(self.metrics) if self.metrics is not None else possible
        if unknown := [name for name in metrics if name not in possible]:
            needed = " (without probability_columns)" if set(unknown) & set(PROBABILITY_METRICS) else ""
            raise InvalidArgumentError(
                f"{', '.join(unknown)} is no metric of a {self.task}{needed}. "
                f"There are: {', '.join(possible)}."
            )
        if (self.task == "binary_classification") != (self.positive_class is not None):
            raise InvalidArgumentError(
                f"task is {self.task!r} and positive_class is {self.positive_class!r}: positive_class goes "
                "with 'binary_classification', and only with it."
            )
        if not self.prediction_column and (self.task == "regression" or not self.probability_columns):
            raise InvalidArgumentError(
                f"A {self.task} without prediction_column"
                + ("" if self.task == "regression" else " and probability_columns")
                + " has nothing to compare: name the method's output."
            )
        classes = list(self.probability_columns or {})
        if self.positive_class is not None and classes and self.positive_class not in classes:
            raise InvalidArgumentError(
                f"positive_class is {self.positive_class!r}; probability_columns has {classes}."
            )
        return metrics

    def _evaluation(self, metrics: tuple[str, ...], columns: Sequence[str]) -> Evaluation:
        try:
            threshold = float(self.threshold)
        except (TypeError, ValueError):
            raise InvalidArgumentError(f"threshold is {self.threshold!r}; it must be a number.") from None
        is_binary = self.task == "binary_classification"
        return Evaluation(
            label=find_column(self.label_column, columns, what="label_column"),
            metrics=metrics,
            prediction=find_column(self.prediction_column, columns, what="prediction_column")
            if self.prediction_column
            else None,
            probabilities=tuple(
                (class_, find_column(name, columns, what="probability_columns"))
                for class_, name in (self.probability_columns or {}).items()
            ),
            positive=self.positive_class,
            threshold=threshold,
            expressions=tuple((self.expressions or {}).items()),
            bins=self.calibration_bins if is_binary and self.probability_columns else 0,
        )


def find_column(name: str, columns: Sequence[str], *, what: str) -> Identifier:
    """The column of that name: as it is written, else as Snowflake reads it without quotes.

    Models' outputs are in lower case as often as tables' columns are in upper case.

    :param name: the name.
    :param columns: the columns that there are, by their resolved names.
    :param what: the argument, for the error.
    :raises InputColumnsError: if there is none; the message lists those that there are.
    """
    if name in columns:
        return Identifier.of(name)
    column = Identifier.parse(name, what=what)
    if column.name not in columns:
        raise InputColumnsError(
            f"{what} is {name!r}, and there is no such column. There are: {', '.join(columns)}."
        )
    return column
