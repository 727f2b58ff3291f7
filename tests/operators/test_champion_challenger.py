"""A challenger and a champion on the same rows, and the branch that follows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped
from sklearn import metrics as scikit
from sklearn.linear_model import LogisticRegression

from airflow_provider_snowml.exceptions import (
    EvaluationError,
    InvalidArgumentError,
    InvalidNameError,
    ModelVersionNotFoundError,
)
from airflow_provider_snowml.operators.champion_challenger import SnowMLChampionChallengerOperator

FEATURES = ["F1", "F2"]
CONTEST: dict[str, Any] = {
    "task_id": "contest",
    "model_name": "CONTEST",
    "challenger_version": "GOOD",
    "function_name": "predict_proba",
    "label_column": "LATE",
    "task": "binary_classification",
    "positive_class": 1,
    "probability_columns": {0: "output_feature_0", 1: "output_feature_1"},
    "metric": "roc_auc",
    "follow_task_ids_if_better": "promote",
    "follow_task_ids_if_not_better": ["keep"],
    "follow_task_ids_if_no_champion": "first",
}


class Contest:
    """A model with versions GOOD and POOR (the champion), and rows to judge them on."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook
        random = np.random.default_rng(11)
        rows = pd.DataFrame({"F1": random.normal(size=300), "F2": random.normal(size=300)})
        rows["LATE"] = ((rows.F1 + rows.F2 + random.normal(size=300)) > 0).astype(int)
        rows["ORIGIN"] = np.where(rows.index % 3 == 0, "JFK", "EWR")
        self.rows = rows
        self.good = LogisticRegression().fit(rows[FEATURES], rows.LATE)
        self.poor = LogisticRegression().fit(rows[FEATURES], rows.F2 > 0)
        with hook.session() as session:
            registry = hook.registry(session, hook.default_schema())
            for name in ("poor", "good"):
                registry.log_model(
                    getattr(self, name),
                    model_name="CONTEST",
                    version_name=name.upper(),
                    sample_input_data=rows[FEATURES].head(),
                )
            registry.get_model("CONTEST").version("POOR").set_alias("CHAMPION")
            session.create_dataframe(rows).write.save_as_table("CONTESTED", mode="overwrite")

    def area(self, model: Any, origin: str | None = None) -> float:
        rows = self.rows if origin is None else self.rows[origin == self.rows.ORIGIN]
        return scikit.roc_auc_score(rows.LATE, model.predict_proba(rows[FEATURES])[:, 1])

    def stored(self, version: str = "GOOD") -> dict[str, Any]:
        with self.hook.session() as session:
            model = self.hook.registry(session, self.hook.default_schema()).get_model("CONTEST")
            return model.version(version).show_metrics()


@pytest.fixture(scope="module")
def contest(scoring_schema, local_snowflake) -> Contest:
    with pytest.MonkeyPatch.context() as patch:
        uri = local_snowflake.airflow_connection_into(scoring_schema.name)
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", uri)
        return Contest(scoring_schema.hook())


def make_dag(**arguments: Any) -> DAG:
    with DAG("contest", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        given = {**CONTEST, **arguments}
        if "input_query" not in given:
            given["input_table"] = "CONTESTED"
        judge = SnowMLChampionChallengerOperator(**given)
        judge >> [EmptyOperator(task_id=name) for name in ("promote", "keep", "first")]
    return dag


def run(**arguments: Any) -> tuple[set[str], dict[str, Any]]:
    """The tasks that are not skipped, and the XComs."""
    dag = make_dag(**arguments)
    task, pushed = dag.get_task("contest"), {}
    ti = SimpleNamespace(task=task, map_index=-1, xcom_push=lambda key, value: pushed.update({key: value}))
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        task.execute({"ti": ti, "task": task})
    return task.downstream_task_ids - {name for name, _ in skipped.value.tasks}, pushed


def test_in_a_dag(scoring, contest, run_dag) -> None:
    """The numbers are scikit-learn's, and only the branch of the outcome runs."""
    dag = make_dag(slices={"JFK": "ORIGIN = 'JFK'"}, min_margin=0.01, floor="0.6")
    dag_run, _ = run_dag(dag)
    instances = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    states = {name: ti.state for name, ti in instances.items()}
    assert states == {"contest": "success", "promote": "success", "keep": "skipped", "first": "skipped"}
    pulled = {
        key: instances["contest"].xcom_pull(task_ids="contest", key=key)
        for key in ("outcome", "champion", "metrics", "report")
    }
    assert (pulled["outcome"], pulled["champion"]) == ("better", "POOR")
    assert pulled["metrics"]["roc_auc"] == pytest.approx(contest.area(contest.good), abs=1e-9)
    assert "GOOD is to be the champion" in pulled["report"]
    stored = contest.stored()["champion_challenger"]
    assert stored["outcome"] == "better"
    for role, model in (("challenger", contest.good), ("champion", contest.poor)):
        assert stored[role]["metrics"]["roc_auc"] == pytest.approx(contest.area(model), abs=1e-9)
        assert stored[role]["slices"]["JFK"] == pytest.approx(contest.area(model, "JFK"), abs=1e-9)
        assert stored[role]["rows"] == 300
    assert stored["reasons"]


@pytest.mark.parametrize(
    ("arguments", "follows", "outcome"),
    [
        ({"min_margin": 0.9}, {"keep"}, "not_better"),
        ({"challenger_version": "champion"}, {"promote"}, "better"),
        ({"champion_version": "nobody"}, {"first"}, "no_champion"),
        ({"champion_version": "nobody", "follow_task_ids_if_no_champion": None}, {"promote"}, "no_champion"),
        ({"slices": {"none": "ORIGIN = 'LGA'"}, "max_slice_loss": 1}, {"keep"}, "not_better"),
    ],
)
def test_the_branch_follows_the_outcome(scoring, contest, arguments, follows, outcome) -> None:
    followed, pushed = run(**arguments, stored_as=None)
    assert (followed, pushed["outcome"]) == (follows, outcome)


def test_a_metric_of_ones_own(scoring, contest) -> None:
    """As SQL and as Snowpark's columns."""
    from snowflake.snowpark.functions import avg, iff, lit

    own = {
        "missed": "AVG(IFF(LABEL AND NOT PREDICTION, 1, 0))",
        "missed_too": lambda label, prediction: avg(iff(label & ~prediction, lit(1), lit(0))),
    }
    followed, pushed = run(expressions=own, metric="missed_too", less_is_better=True, stored_as=None)
    missed = ((contest.rows.LATE == 1) & (contest.good.predict(contest.rows[FEATURES]) == 0)).mean()
    assert pushed["metrics"]["missed"] == pytest.approx(missed, abs=1e-6)
    assert pushed["metrics"]["missed_too"] == pytest.approx(missed, abs=1e-6)
    better = missed < pushed["champion_metrics"]["missed"]
    assert followed == ({"promote"} if better else {"keep"})


def test_nothing_stays(scoring, contest) -> None:
    before = contest.hook.rows(f"SHOW TABLES IN SCHEMA {scoring.schema}")
    run()
    after = contest.hook.rows(f"SHOW TABLES IN SCHEMA {scoring.schema}")
    assert [row["name"] for row in after] == [row["name"] for row in before]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (
            {"metric": "mae"},
            InvalidArgumentError,
            "metric is 'mae', which is not computed. There are: accuracy",
        ),
        ({"metric": "own", "expressions": {"own": "1"}}, InvalidArgumentError, "less_is_better"),
        ({"expressions": {"f1": "1"}}, InvalidArgumentError, "f1 in expressions is a metric already"),
        ({"floor": "high"}, InvalidArgumentError, "floor is 'high'; it must be a number"),
        ({"min_margin": -1}, InvalidArgumentError, "min_margin is -1; it must be a number of at least 0"),
        ({"min_margin": float("nan")}, InvalidArgumentError, "min_margin is nan"),
        ({"min_rows": "0"}, InvalidArgumentError, "min_rows is '0'"),
        ({"max_slice_loss": {"JFK": 0}}, InvalidArgumentError, r"names \['JFK'\] and slices names \[\]"),
        ({"challenger_version": "V9"}, ModelVersionNotFoundError, "GOOD"),
        ({"input_query": "SELECT * FROM CONTESTED WHERE FALSE"}, EvaluationError, "none has a label"),
    ],
)
def test_what_makes_no_sense_is_refused(scoring, contest, arguments, error, says) -> None:
    dag = make_dag(**arguments)
    task = dag.get_task("contest")
    with pytest.raises(error, match=says):
        task.execute({"ti": SimpleNamespace(task=task, map_index=-1)})


def test_a_name_that_snowflake_ml_cannot_look_for_is_refused_first(scoring, contest) -> None:
    contest.hook.rows("""ALTER MODEL CONTEST ADD VERSION "V'1" FROM MODEL CONTEST VERSION GOOD""")
    for role in ("challenger_version", "champion_version"):
        task = make_dag(**{role: '"V\'1"', "input_query": "SELECT F1, F2, 1 / 0 AS LATE FROM CONTESTED"})
        with pytest.raises(InvalidNameError, match="does not escape"):
            task.get_task("contest").execute({"ti": SimpleNamespace(task=task, map_index=-1)})


DAG_FILE = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup
from airflow_provider_snowml.operators.champion_challenger import SnowMLChampionChallengerOperator

with DAG("gate", schedule=None) as dag:
    gate = SnowMLChampionChallengerOperator(
        task_id="gate", model_name="M", challenger_version="V2", input_table="T", label_column="Y",
        task="regression", prediction_column="P", metric="mae",
        follow_task_ids_if_better={better!r}, follow_task_ids_if_not_better="keep",
    )
    with TaskGroup("going_live") as going_live:
        EmptyOperator(task_id="promote") >> EmptyOperator(task_id="serve")
    gate >> [going_live, EmptyOperator(task_id="keep")]
"""


@pytest.mark.parametrize(
    ("better", "error"),
    [
        ("going_live", None),
        ("going_live.promote", None),
        (["going_live.promote", "keep"], None),
        (
            "promote",
            "names 'promote', which is no task directly downstream. There are: going_live.promote, keep",
        ),
        ("going_live.serve", "names 'going_live.serve'"),
    ],
)
def test_the_branches_are_checked_when_the_dag_is_parsed(tmp_path, airflow_db, better, error) -> None:
    (tmp_path / "gate.py").write_text(DAG_FILE.format(better=better))
    bag = DagBag(tmp_path)
    if error is None:
        assert (bag.import_errors, list(bag.dags)) == ({}, ["gate"])
    else:
        (said,) = bag.import_errors.values()
        assert error in said
