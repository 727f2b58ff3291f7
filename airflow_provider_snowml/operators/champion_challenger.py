"""The gate before a promotion: is the challenger better than the champion?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import Context
from airflow.sdk.bases.branch import BranchMixIn

from airflow_provider_snowml.core.champion_challenger import (
    LESS_IS_BETTER,
    ContestRule,
    Outcome,
    Score,
    Verdict,
    judge,
    report,
)
from airflow_provider_snowml.core.lineage import Lineage, model_version, tables
from airflow_provider_snowml.core.model_ref import ModelVersionRef, check_columns
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, refuse_single_quotes
from airflow_provider_snowml.core.registration import plain_metrics
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelVersionNotFoundError
from airflow_provider_snowml.hooks.evaluation import evaluate, metric_of_slice, predictions_query
from airflow_provider_snowml.hooks.loading import temporary_name
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    as_text,
    exactly_one,
    number,
    rows_query,
    whole_number,
)
from airflow_provider_snowml.operators.evaluation import chosen_metrics, evaluation_of

if TYPE_CHECKING:
    from snowflake.snowpark import Session

    from airflow_provider_snowml.hooks.evaluation import MetricCallable


class SnowMLChampionChallengerOperator(SnowMLOperator, BranchMixIn):
    """Judge two versions on the same rows and by the same metrics, and follow one branch or another.

    The rows are copied into a temporary table first, so that both versions see the very same ones. The
    challenger wins if its ``metric`` reaches ``floor``, is better than the champion's by ``min_margin``, was
    computed of ``min_rows`` rows, and on no slice is worse by more than ``max_slice_loss``. What is unknown
    never speaks for it. A challenger that is the champion already, in a run that comes again after its
    promotion, wins: promoting twice changes nothing.

    That the tasks to follow are there, and directly downstream, is checked when the DAG is parsed.

    XCom, by key: ``outcome`` (``"better"``, ``"not_better"`` or ``"no_champion"``), ``report`` (Markdown),
    ``model``, ``version`` (the challenger's), ``champion`` (a version or ``None``), ``metrics`` (the
    challenger's) and ``champion_metrics``. The outcome with its numbers and reasons is stored on the
    challenger, too, as the metric ``stored_as``.

    Privileges: USAGE on the model and on a warehouse, SELECT on the input; OWNERSHIP of the model to store
    the result. See
    https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/overview.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param challenger_version: a version or an alias.
    :param champion_version: what it has to beat: an alias, or ``default``. That no version has the alias is
        an outcome of its own. Snowflake makes a model's first version the default by itself, good or not.
    :param function_name: the models' method, such as ``predict_proba``; may be left out if there is only one.
    :param input_table: a table or view with the features and the labels, which neither version has learned
        from; or
    :param input_query: a query (it is code: never build it from a run's configuration).
    :param label_column: as of :class:`.SnowMLEvaluateModelOperator`.
    :param task: as there.
    :param metrics: as there. ``metric`` must be one of them, or of the expressions.
    :param prediction_column: as there.
    :param probability_columns: as there.
    :param positive_class: as there.
    :param threshold: as there.
    :param expressions: as there.
    :param inference_params: as there.
    :param metric: the metric that decides.
    :param less_is_better: whether a smaller ``metric`` is the better one; known for all but expressions.
    :param floor: what the challenger's has to reach at least; where less is better, must not exceed.
    :param min_margin: by how much it has to be better than the champion's.
    :param min_rows: how many rows with a label there have to be.
    :param slices: parts of the rows to look at one by one: SQL conditions over the input's columns, by the
        slice's name (they are code).
    :param max_slice_loss: by how much the challenger may be worse on a slice; one number, or by its name.
    :param follow_task_ids_if_better: the task, the task group, or several, that follow when it wins.
    :param follow_task_ids_if_not_better: those that follow when it does not.
    :param follow_task_ids_if_no_champion: those that follow when there is no champion and it is good enough;
        if left out, as if it had won.
    :param stored_as: the name of the metric on the challenger; ``None`` stores nothing.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a model, challenger or function that isn't there.
    :raises EvaluationError: if no row has a label, or a row has no prediction.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "challenger_version",
        "champion_version",
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
        "metric",
        "floor",
        "min_margin",
        "min_rows",
        "slices",
        "max_slice_loss",
        "stored_as",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"input_query": "sql", "inference_params": "json"}
    # Airflow skips what a branch did not take also when that is cleared alone.
    inherits_from_skipmixin = True

    def __init__(
        self,
        *,
        model_name: str,
        challenger_version: str,
        champion_version: str = "champion",
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
        metric: str,
        less_is_better: bool | None = None,
        floor: float | str | None = None,
        min_margin: float | str = 0.0,
        min_rows: int | str = 1,
        slices: Mapping[str, str] | None = None,
        max_slice_loss: float | str | Mapping[str, float | str] = 0.0,
        follow_task_ids_if_better: str | Sequence[str],
        follow_task_ids_if_not_better: str | Sequence[str],
        follow_task_ids_if_no_champion: str | Sequence[str] | None = None,
        stored_as: str | None = "champion_challenger",
        **kwargs: Any,
    ) -> None:
        # The keys are pushed by hand; what is returned, if no task is skipped, is a list.
        super().__init__(**{**kwargs, "multiple_outputs": False})
        self.model_name = model_name
        self.challenger_version = challenger_version
        self.champion_version = champion_version
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
        self.metric = metric
        self.less_is_better = less_is_better
        self.floor = floor
        self.min_margin = min_margin
        self.min_rows = min_rows
        self.slices = slices
        self.max_slice_loss = max_slice_loss
        self.follow_task_ids_if_better = follow_task_ids_if_better
        self.follow_task_ids_if_not_better = follow_task_ids_if_not_better
        self.follow_task_ids_if_no_champion = follow_task_ids_if_no_champion
        self.stored_as = stored_as

    def resolve_template_files(self) -> None:
        """Airflow calls this for every task when it has parsed a whole DAG: the moment to check the branches.

        :raises InvalidArgumentError: for a task to follow that isn't there, or not directly downstream.
        """
        super().resolve_template_files()
        groups = self.dag.task_group_dict if self.dag else {}
        for argument in (
            "follow_task_ids_if_better",
            "follow_task_ids_if_not_better",
            "follow_task_ids_if_no_champion",
        ):
            for name in _listed(getattr(self, argument)):
                tasks = {task.task_id for task in groups[name].roots} if name in groups else {name}
                if not tasks <= self.downstream_task_ids:
                    there = ", ".join(sorted(self.downstream_task_ids)) or "none"
                    raise InvalidArgumentError(
                        f"{argument} of {self.task_id} names {name!r}, which is no task directly downstream. "
                        f"There are: {there}."
                    )

    def execute(self, context: Context) -> str | Iterable[str] | None:
        """Judge, write down why, and branch."""
        source = exactly_one(input_table=self.input_table, input_query=self.input_query)
        metrics = chosen_metrics(self)
        rule = self._rule(metrics)
        hook = self.get_hook()
        with hook.session() as session:
            default = hook.default_schema()
            model = QualifiedName.parse(self.model_name, default, what="model name")
            query = rows_query(source, getattr(self, source), default)
            challenger = hook.resolve_version(model, self.challenger_version)
            champion = self._champion(hook, model)
            columns = hook.columns(query)
            contestants = [challenger]
            if champion is not None and champion.version != challenger.version:
                contestants.append(champion)
            for version in contestants:
                refuse_single_quotes(model.name.name, version.version)
                check_columns(version.function(self.function_name), columns, source=source)
            rows = temporary_name(default)
            hook.rows(f"CREATE TEMPORARY TABLE {rows.sql} AS {query}")
            scores = [self._score(hook, session, version, rows, metrics, rule) for version in contestants]
            own = scores[0]
            other = scores[-1] if champion is not None else None
            verdict = judge(rule, own, other)
            text = report(str(model), rule, own, other, verdict)
            self._store(hook, session, challenger, rule, own, other, verdict)
        self.log.info("%s", text)
        result = {
            "outcome": verdict.outcome.value,
            "report": text,
            "model": model.sql,
            "version": own.version,
            "champion": other.version if other else None,
            "metrics": dict(own.metrics),
            "champion_metrics": dict(other.metrics) if other else None,
        }
        # By hand: a branch ends in an exception of Airflow's, which pushes no result.
        for key, value in result.items():
            context["ti"].xcom_push(key=key, value=value)
        self.done(result, function=challenger.function(self.function_name).target_method)
        return self.do_branch(context, self._branch(verdict.outcome))

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The rows and the challenger, with what the champion's numbers were."""
        names = ("function", "metrics", "outcome", "champion", "champion_metrics")
        version = model_version(
            done.get("model", self.model_name),
            done.get("version"),
            default,
            **{name: done.get(name) for name in names},
        )
        return Lineage(reads=[*tables(self.input_table, default=default), version], query=self.input_query)

    def _rule(self, metrics: Sequence[str]) -> ContestRule:
        expressions = self.expressions or {}
        if self.metric not in (*metrics, *expressions):
            there = ", ".join((*metrics, *expressions))
            raise InvalidArgumentError(
                f"metric is {self.metric!r}, which is not computed. There are: {there}."
            )
        less = self.less_is_better
        if less is None:
            if self.metric in expressions:
                raise InvalidArgumentError(
                    f"metric is {self.metric!r}, an expression: say with less_is_better which is better."
                )
            less = self.metric in LESS_IS_BETTER
        slices = dict(self.slices or {})
        losses = self.max_slice_loss
        by_name = losses if isinstance(losses, Mapping) else dict.fromkeys(slices, losses)
        if set(by_name) != set(slices):
            raise InvalidArgumentError(
                f"max_slice_loss names {sorted(by_name)} and slices names {sorted(slices)}: "
                "give one number, or one for each slice."
            )
        return ContestRule(
            metric=self.metric,
            less_is_better=less,
            floor=None if as_text(self.floor) is None else number("floor", self.floor),
            min_margin=_at_least_0("min_margin", self.min_margin),
            min_rows=whole_number("min_rows", self.min_rows) or 1,
            max_slice_loss={name: _at_least_0("max_slice_loss", loss) for name, loss in by_name.items()},
        )

    def _champion(self, hook: SnowMLHook, model: QualifiedName) -> ModelVersionRef | None:
        try:
            return hook.resolve_version(model, self.champion_version)
        except ModelVersionNotFoundError:
            self.log.info("%s has no version %s: there is no champion.", model, self.champion_version)
            return None

    def _score(
        self,
        hook: SnowMLHook,
        session: Session,
        version: ModelVersionRef,
        rows: QualifiedName,
        metrics: tuple[str, ...],
        rule: ContestRule,
    ) -> Score:
        function = version.function(self.function_name)
        predictions = predictions_query(
            hook, session, version, function, f"SELECT * FROM {rows.sql}", self.inference_params
        )
        # Once: the slices are looked at without running the model again.
        predicted = temporary_name(rows.parent)
        hook.rows(f"CREATE TEMPORARY TABLE {predicted.sql} AS {predictions}")
        query = f"SELECT * FROM {predicted.sql}"
        evaluation = evaluation_of(self, session, metrics, hook.columns(query))
        found = evaluate(hook, evaluation, query)
        slices = {
            name: metric_of_slice(hook, evaluation, rule.metric, f"{query} WHERE ({condition})")
            for name, condition in (self.slices or {}).items()
        }
        return Score(version.version, found["rows"], found["metrics"], slices)

    def _store(
        self,
        hook: SnowMLHook,
        session: Session,
        challenger: ModelVersionRef,
        rule: ContestRule,
        own: Score,
        other: Score | None,
        verdict: Verdict,
    ) -> None:
        name = as_text(self.stored_as)
        if not name:
            return
        value = {
            "outcome": verdict.outcome.value,
            "reasons": list(verdict.reasons),
            "metric": rule.metric,
            "challenger": asdict(own),
            "champion": asdict(other) if other else None,
        }
        version = hook.model_version(session, challenger.model, challenger.version)
        for key, plain in plain_metrics({name: value}).items():
            version.set_metric(key, plain)

    def _branch(self, outcome: Outcome) -> list[str]:
        if outcome is Outcome.NOT_BETTER:
            return _listed(self.follow_task_ids_if_not_better)
        if outcome is Outcome.NO_CHAMPION and self.follow_task_ids_if_no_champion is not None:
            return _listed(self.follow_task_ids_if_no_champion)
        return _listed(self.follow_task_ids_if_better)


def _listed(task_ids: str | Sequence[str] | None) -> list[str]:
    if task_ids is None:
        return []
    return [task_ids] if isinstance(task_ids, str) else list(task_ids)


def _at_least_0(name: str, value: Any) -> float:
    found = number(name, value)
    if not found >= 0:
        raise InvalidArgumentError(f"{name} is {value!r}; it must be a number of at least 0.")
    return found
