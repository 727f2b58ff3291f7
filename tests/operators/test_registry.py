from __future__ import annotations

from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    ModelVersionExistsError,
    PersonalDatabaseError,
)
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator

CALLS: list[dict[str, Any]] = []


def train(session: Any, auc: float, ti: Any = None, comment: str | None = None, **more: Any) -> ModelArtifact:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    rows = session.sql("SELECT SEQ4()::FLOAT AS A FROM TABLE(GENERATOR(ROWCOUNT => 20))").to_pandas()
    CALLS.append({"rows": len(rows), "task": ti.task_id, **{k: more[k] for k in ("mine",) if k in more}})
    model = LogisticRegression().fit(rows[["A"]], rows["A"] > 5)
    return ModelArtifact(
        model,
        sample_input_data=pd.DataFrame({"A": [1.0, 2.0]}),
        metrics={"auc": auc},
        comment=comment,
        options={"enable_explainability": False},
    )


def register(**arguments: Any) -> SnowMLRegisterModelOperator:
    defaults: dict[str, Any] = {
        "model_name": "TRAINED",
        "version_name": "v1",
        "python_callable": train,
        "op_kwargs": {"auc": 0.9},
    }
    return SnowMLRegisterModelOperator(task_id="register", **{**defaults, **arguments})


@pytest.fixture
def hook(airflow_conn, schema):
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    CALLS.clear()
    return SnowMLHook()


def versions(hook: Any, schema: str) -> dict[str, float]:
    """The metric of each version."""
    with hook.session() as session:
        from airflow_provider_snowml.core.names import SchemaName

        model = hook.registry(session, SchemaName.of(*schema.split("."))).get_model("TRAINED")
        return {version.version_name: version.show_metrics().get("auc") for version in model.versions()}


def test_in_a_dag(hook, schema, run_dag) -> None:
    with DAG("register", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        register(version_name="v_{{ dag.dag_id }}", op_kwargs={"auc": 0.75, "mine": "{{ run_id }}"})
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["register"] == {
        "model": f"{schema}.TRAINED",
        "version": "V_REGISTER",
        "functions": ["decision_function", "predict", "predict_log_proba", "predict_proba"],
        "metrics": {"auc": 0.75},
    }
    assert [{"rows": 20, "task": "register", "mine": run.run_id}] == CALLS
    assert versions(hook, schema) == {"V_REGISTER": 0.75}


def test_if_exists(hook, schema, task_context) -> None:
    register(op_kwargs={"auc": 0.1}).execute(task_context("register"))
    assert len(CALLS) == 1

    with pytest.raises(ModelVersionExistsError, match="has a version V1 already"):
        register().execute(task_context("register"))
    assert len(CALLS) == 1, "it is refused before anything is trained"

    reused = register(if_exists="reuse").execute(task_context("register"))
    assert (reused["version"], reused["metrics"], len(CALLS)) == ("V1", {"auc": 0.1}, 1)

    replaced = register(if_exists="replace").execute(task_context("register"))
    assert replaced["version"] == "V1"
    assert versions(hook, schema) == {"V1": 0.9}

    assert register(if_exists="next").execute(task_context("register"))["version"] == "V1_2"
    with pytest.raises(ModelVersionExistsError, match="V1 is the default version"):
        register(if_exists="replace").execute(task_context("register"))
    again = register(version_name="v1_2", if_exists="replace", op_kwargs={"auc": 0.5})
    again.execute(task_context("register"))
    assert versions(hook, schema) == {"V1": 0.9, "V1_2": 0.5}


@pytest.mark.parametrize("if_exists", ["fail", "next"])
def test_a_retry_after_a_crash_completes_its_own_version(
    hook, schema, task_context, monkeypatch, if_exists
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: Any, **__: Any) -> Any:
        raise Crash

    store = task_context.store()
    task = register(if_exists=if_exists, op_kwargs={"auc": 0.9, "comment": "weekly"})
    with monkeypatch.context() as patch, pytest.raises(Crash):
        # The version is made; its comment and metrics would be statements after that.
        from snowflake.ml.model._client.ops.model_ops import ModelOperator

        patch.setattr(ModelOperator, "set_comment", crash)
        task.execute(task_context("register", store=store))
    assert versions(hook, schema) == {"V1": None}
    result = task.execute(task_context("register", store=store))
    assert (result["version"], result["metrics"]) == ("V1", {"auc": 0.9})
    assert versions(hook, schema) == {"V1": 0.9}
    assert len(CALLS) == 1, "it is not trained again"

    # A cleared task is new work.
    cleared = task_context("register", store=store, clear_number=1)
    if if_exists == "fail":
        with pytest.raises(ModelVersionExistsError):
            task.execute(cleared)
    else:
        assert task.execute(cleared)["version"] == "V1_2"


def test_bad_input(hook, schema, task_context) -> None:
    def run(**arguments: Any) -> None:
        register(**arguments).execute(task_context("register"))

    with pytest.raises(InvalidNameError, match="no valid version name"):
        run(version_name="v 1")
    with pytest.raises(InvalidNameError, match="no valid model name"):
        run(model_name="a.b.c.d")
    with pytest.raises(PersonalDatabaseError):
        run(model_name="USER$ME.PUBLIC.M")
    with pytest.raises(InvalidArgumentError, match="if_exists is 'overwrite'"):
        run(if_exists="overwrite")
    with pytest.raises(InvalidArgumentError, match="returned a int"):
        run(python_callable=lambda: 1, op_kwargs={})
    with pytest.raises(InvalidNameError, match=r"comment holds \$\$"):
        run(op_kwargs={"auc": 1, "comment": "$$; DROP"})
    with pytest.raises(InvalidArgumentError, match="no plain JSON"):
        run(op_kwargs={"auc": float("nan")})
    assert hook.rows(f"SHOW MODELS IN SCHEMA {schema}") == []
