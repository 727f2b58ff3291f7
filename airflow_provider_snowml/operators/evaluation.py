"""Evaluating a model version where its rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from airflow.sdk import Context

from airflow_provider_snowml.core.lineage import Lineage, model_version, tables
from airflow_provider_snowml.core.model_evaluation import (
    CLASSIFICATION_METRICS,
    PROBABILITY_METRICS,
    REGRESSION_METRICS,
    Evaluation,
)
from airflow_provider_snowml.core.model_ref import check_columns
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.core.registration import plain_metrics
from airflow_provider_snowml.exceptions import InputColumnsError, InvalidArgumentError
from airflow_provider_snowml.hooks.evaluation import evaluate, metric_sql, predictions_query
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    as_text,
    exactly_one,
    number,
    one_of,
    rows_query,
)

if TYPE_CHECKING:
    from snowflake.snowpark import Session

    from airflow_provider_snowml.hooks.evaluation import MetricCallable

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
        input's columns (they are code), or callables that make one of Snowpark's columns of the two,
        ``lambda label, prediction: functions.avg(functions.abs(label - prediction))``.
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
        expressions: Mapping[str, str | MetricCallable] | None = None,
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
        metrics = chosen_metrics(self)
        hook = self.get_hook()
        with hook.session() as session:
            default = hook.default_schema()
            model = QualifiedName.parse(self.model_name, default, what="model name")
            query = rows_query(source, getattr(self, source), default)
            ref = hook.resolve_version(model, self.version_name)
            function = ref.function(self.function_name)
            check_columns(function, hook.columns(query), source=source)
            stored_as = as_text(self.stored_as)
            version = hook.model_version(session, model, ref.version) if stored_as else None
            predictions = predictions_query(hook, session, ref, function, query, self.inference_params)
            columns = hook.columns(predictions)
            evaluation = evaluation_of(self, session, metrics, columns, bins=self.calibration_bins)
            result = evaluate(hook, evaluation, predictions)
            query_id = hook.query_id
            if version is not None and stored_as:
                # The labels in it are the table's.
                ((name, value),) = plain_metrics({stored_as: result}).items()
                version.set_metric(name, value)
        self.log.info("%s %s on %d rows: %s", model, ref.version, result["rows"], result["metrics"])
        return self.done(
            {"model": model.sql, "version": ref.version, **result},
            function=function.target_method,
            query_id=query_id,
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The rows and the version: measured, but not changed."""
        version = model_version(
            done.get("model", self.model_name),
            done.get("version"),
            default,
            function=done.get("function"),
            metrics=done.get("metrics"),
        )
        return Lineage(
            reads=[*tables(self.input_table, default=default, rows=done.get("rows")), version],
            query=self.input_query,
            query_id=done.get("query_id"),
        )


class EvaluationArguments(Protocol):
    """The arguments that say what is computed; see :class:`SnowMLEvaluateModelOperator`."""

    label_column: str
    task: Literal["binary_classification", "multiclass_classification", "regression"]
    metrics: Sequence[str] | None
    prediction_column: str | None
    probability_columns: Mapping[Any, str] | None
    positive_class: Any
    threshold: float | str
    expressions: Mapping[str, str | MetricCallable] | None


def chosen_metrics(task: EvaluationArguments) -> tuple[str, ...]:
    """Which metrics there will be. It checks all that needs no Snowflake.

    :param task: the operator.
    :raises InvalidArgumentError: for arguments that make no sense.
    """
    one_of("task", task.task, TASKS)
    possible: tuple[str, ...]
    if task.task == "regression":
        possible = REGRESSION_METRICS
    elif task.probability_columns:
        possible = CLASSIFICATION_METRICS
    else:
        possible = tuple(name for name in CLASSIFICATION_METRICS if name not in PROBABILITY_METRICS)
    metrics = tuple(task.metrics) if task.metrics is not None else possible
    if unknown := [name for name in metrics if name not in possible]:
        needed = " (without probability_columns)" if set(unknown) & set(PROBABILITY_METRICS) else ""
        raise InvalidArgumentError(
            f"{', '.join(unknown)} is no metric of a {task.task}{needed}. There are: {', '.join(possible)}."
        )
    if twice := sorted(set(metrics) & set(task.expressions or {})):
        raise InvalidArgumentError(
            f"{', '.join(twice)} in expressions is a metric already: name it otherwise."
        )
    if (task.task == "binary_classification") != (task.positive_class is not None):
        raise InvalidArgumentError(
            f"task is {task.task!r} and positive_class is {task.positive_class!r}: positive_class goes "
            "with 'binary_classification', and only with it."
        )
    if not task.prediction_column and (task.task == "regression" or not task.probability_columns):
        raise InvalidArgumentError(
            f"A {task.task} without prediction_column"
            + ("" if task.task == "regression" else " and probability_columns")
            + " has nothing to compare: name the method's output."
        )
    classes = list(task.probability_columns or {})
    if task.positive_class is not None and classes and task.positive_class not in classes:
        raise InvalidArgumentError(
            f"positive_class is {task.positive_class!r}; probability_columns has {classes}."
        )
    return metrics


def evaluation_of(
    task: EvaluationArguments,
    session: Session,
    metrics: tuple[str, ...],
    columns: Sequence[str],
    *,
    bins: int = 0,
) -> Evaluation:
    """What is computed of predictions.

    :param task: the operator.
    :param session: an open session, which turns callables into SQL.
    :param metrics: which metrics.
    :param columns: the columns of the predictions, by their resolved names.
    :param bins: how many bins the calibration has, where there can be one.
    :raises InvalidArgumentError: (or a subclass) for a column that isn't there, or a bad threshold.
    """
    is_binary = task.task == "binary_classification"
    return Evaluation(
        label=find_column(task.label_column, columns, what="label_column"),
        metrics=metrics,
        prediction=find_column(task.prediction_column, columns, what="prediction_column")
        if task.prediction_column
        else None,
        probabilities=tuple(
            (class_, find_column(name, columns, what="probability_columns"))
            for class_, name in (task.probability_columns or {}).items()
        ),
        positive=task.positive_class,
        threshold=number("threshold", task.threshold),
        expressions=tuple(
            (name, metric if isinstance(metric, str) else metric_sql(session, metric))
            for name, metric in (task.expressions or {}).items()
        ),
        bins=bins if is_binary and task.probability_columns else 0,
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
