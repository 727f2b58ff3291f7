from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.sdk import task as airflow_task

from airflow_provider_snowml.core.model_artifact import LOG_MODEL_ARGUMENTS
from airflow_provider_snowml.core.names import SchemaName
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    ModelLimitError,
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


def model() -> Any:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    rows = pd.DataFrame({"A": [1.0, 2.0, 3.0, 4.0]})
    return LogisticRegression().fit(rows, rows["A"] > 2)


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
        model = hook.registry(session, SchemaName.of(*schema.split("."))).get_model("TRAINED")
        return {version.version_name: version.show_metrics().get("auc") for version in model.versions()}


def test_in_a_dag(hook, schema, run_dag) -> None:
    with DAG("register", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        register(version_name="v_{{ dag.dag_id }}", op_kwargs={"auc": 0.75, "mine": "{{ run_id }}"})

        @airflow_task.snowml_model(
            model_name="DECORATED", version_name="V_{{ dag.dag_id }}", comment="by hand"
        )
        def fit(session: Any, auc: float) -> ModelArtifact:
            assert session.sql("SELECT 1").collect()
            return ModelArtifact(model(), sample_input_data=[{"A": 1.0}], metrics={"auc": auc})

        @airflow_task
        def tell(version: str) -> str:
            return version

        tell(fit(auc=0.5)["version"])
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["register"] == {
        "model": f"{schema}.TRAINED",
        "version": "V_REGISTER",
        "functions": ["decision_function", "predict", "predict_log_proba", "predict_proba"],
        "metrics": {"auc": 0.75},
    }
    assert [{"rows": 20, "task": "register", "mine": run.run_id}] == CALLS
    assert (xcoms["fit"]["model"], xcoms["fit"]["metrics"]) == (f"{schema}.DECORATED", {"auc": 0.5})
    assert xcoms["tell"] == "V_REGISTER"
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


class Crash(BaseException):
    """What no code of ours catches, as it would not a kill."""


@contextmanager
def crash(statement: str, *, after: bool, skip: int = 0) -> Iterator[None]:
    """Die before, or after, the first statement that starts like this, or the first after some more."""
    from snowflake.connector.cursor import SnowflakeCursor

    execute, seen = SnowflakeCursor.execute, []

    def dying(self: Any, command: str, *args: Any, **kwargs: Any) -> Any:
        if command.lstrip().startswith(statement):
            seen.append(command)
            if len(seen) > skip and not after:
                raise Crash
        result = execute(self, command, *args, **kwargs)
        if len(seen) > skip:
            raise Crash
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SnowflakeCursor, "execute", dying)
        with pytest.raises(Crash):
            yield


def whole(**arguments: Any) -> SnowMLRegisterModelOperator:
    """A registration with everything that takes a statement of its own."""
    return register(op_kwargs={"auc": 0.9, "comment": "weekly"}, tags={"PURPOSE": "it's a test"}, **arguments)


def test_a_retry_after_a_crash_at_any_statement_ends_as_one_clean_run(hook, schema, task_context) -> None:
    hook.rows("CREATE TAG PURPOSE")
    moments = [
        ("PUT", False, 0, 2),
        ("CREATE MODEL", False, 0, 2),
        ("CREATE MODEL", True, 0, 1),
        ("ALTER MODEL", True, 0, 1),  # the comment
        ("ALTER MODEL", True, 1, 1),  # the metrics
        ("ALTER MODEL", False, 2, 1),  # the tag
    ]
    for number, (statement, after, skip, trainings) in enumerate(moments):
        store, name = task_context.store(), f"TRAINED_{number}"
        task = whole(model_name=name, if_exists=("fail", "next", "replace", "reuse")[number % 4])
        CALLS.clear()
        with crash(statement, after=after, skip=skip):
            task.execute(task_context("register", store=store))
        result = task.execute(task_context("register", store=store))

        assert (result["version"], result["metrics"]) == ("V1", {"auc": 0.9}), number
        assert len(CALLS) == trainings, (number, "what was made is not trained again")
        with hook.session() as session:
            (version,) = hook.registry(session, SchemaName.of(*schema.split("."))).get_model(name).versions()
            assert (version.comment, version.show_metrics()) == ("weekly", {"auc": 0.9}), number
        tags = hook.rows(
            "SELECT TAG_VALUE FROM TABLE(SNOWML.INFORMATION_SCHEMA.TAG_REFERENCES("
            f"'{schema}.{name}', 'MODULE'))"
        )
        assert [tag["TAG_VALUE"] for tag in tags] == ["it's a test"], number


def test_a_retry_of_next_is_the_version_that_it_made_and_a_clear_is_new_work(
    hook, schema, task_context
) -> None:
    register().execute(task_context("register"))
    store, task = task_context.store(), register(if_exists="next")
    with crash("ALTER MODEL", after=True):
        task.execute(task_context("register", store=store))
    assert task.execute(task_context("register", store=store))["version"] == "V1_2"
    assert set(versions(hook, schema)) == {"V1", "V1_2"}
    again = task.execute(task_context("register", store=store, clear_number=1))
    assert again["version"] == "V1_3"
    assert len(CALLS) == 3


def test_a_name_that_snowflake_ml_takes_for_anothers_is_refused_before_it_is_trained(
    hook, schema, task_context
) -> None:
    register(version_name="V1").execute(task_context("register"))
    CALLS.clear()
    with pytest.raises(InvalidNameError, match="There is 'V1', for which snowflake-ml takes 'V_'"):
        register(version_name="V_").execute(task_context("register"))
    with pytest.raises(InvalidNameError, match="There is 'TRAINED'"):
        register(model_name="TRAIN_D").execute(task_context("register"))
    assert CALLS == []
    register(model_name="TRAIN_ED").execute(task_context("register"))
    with pytest.raises(InvalidNameError, match="takes 'TRAI__D'"):
        register(
            model_name="TRAI__D", python_callable=None, source_model="TRAINED", source_version="V1"
        ).execute(task_context("copy"))
    hook.rows("ALTER MODEL TRAINED ADD VERSION V_ FROM MODEL TRAINED VERSION V1")
    with hook.session() as session, pytest.raises(InvalidNameError, match="_ is any character"):
        hook.model_version(session, hook._model("TRAINED"), "V_")


def test_another_version_of_the_noted_name_is_not_taken_for_ours(hook, schema, task_context) -> None:
    store = task_context.store()
    with crash("PUT", after=False):
        register().execute(task_context("register", store=store))
    # The name is noted, and somebody else is faster.
    register(op_kwargs={"auc": 0.1}).execute(task_context("other"))
    with pytest.raises(ModelVersionExistsError, match="has a version V1 already"):
        register().execute(task_context("register", store=store))
    assert versions(hook, schema) == {"V1": 0.1}

    # Nor is what this run made of other arguments, or under an alien hand with no registration at all.
    store = task_context.store()
    task = register(version_name="V2")
    task.execute(task_context("register", store=store))
    with pytest.raises(ModelVersionExistsError):
        register(version_name="V2", op_kwargs={"auc": 0.8}).execute(task_context("register", store=store))
    hook.rows("ALTER MODEL TRAINED DROP VERSION V2")
    hook.rows("ALTER MODEL TRAINED ADD VERSION V2 FROM MODEL TRAINED VERSION V1")
    with pytest.raises(ModelVersionExistsError):
        task.execute(task_context("register", store=store))


def test_bad_input(hook, schema, task_context) -> None:
    def run(**arguments: Any) -> None:
        register(**arguments).execute(task_context("register"))

    with pytest.raises(InvalidNameError, match="no valid version name"):
        run(version_name="v 1")
    with pytest.raises(InvalidNameError, match="aliases that Snowflake itself gives"):
        run(version_name="last")
    with pytest.raises(InvalidNameError, match="does not escape"):
        run(version_name='"V\'1"')
    with pytest.raises(InvalidNameError, match="does not escape"):
        run(model_name='"back\\slash"')
    with pytest.raises(InvalidNameError, match="does not escape"):
        run(model_name='"it\'s"', source_model="NOWHERE", python_callable=None)
    assert CALLS == []
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
    with pytest.raises(InvalidArgumentError, match="Neither signatures nor sample_input_data"):
        run(python_callable=lambda: ModelArtifact(model()), op_kwargs={})
    with pytest.raises(InvalidArgumentError, match="no method transform"):
        run(options={"target_methods": ["predict", "transform"]})
    with pytest.raises(ModelLimitError, match="limit is 102400"):
        run(metrics={"text": "x" * 102_400})
    with pytest.raises(ModelLimitError, match=r"11 imports.*limit is 10"):
        run(code_paths=[f"p{n}" for n in range(11)])
    with pytest.raises(ModelLimitError, match="T has 257 characters"):
        run(tags={"t": "x" * 257})
    with pytest.raises(InvalidArgumentError, match=r"task is 'forecast'; it can be .*TABULAR_REGRESSION"):
        run(task="forecast")
    assert hook.rows(f"SHOW MODELS IN SCHEMA {schema}") == []


def test_more_arguments_than_a_function_has_are_said(hook, task_context, caplog) -> None:
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    rows = pd.DataFrame([[float(n + row) for n in range(501)] for row in range(3)]).add_prefix("C")
    wide = ModelArtifact(LinearRegression().fit(rows, [1.0, 2.0, 3.0]), sample_input_data=rows)
    done = register(
        python_callable=lambda: wide, op_kwargs={}, options={"enable_explainability": False}
    ).execute(task_context("register"))
    assert done["functions"] == ["predict"]
    assert "The model has 501 arguments; Snowflake's limit is 500" in caplog.text


def test_the_parameters_are_those_of_log_model() -> None:
    from snowflake.ml.registry import Registry

    theirs = set(inspect.signature(Registry.log_model).parameters) - {"self", "model"}
    ours = set(inspect.signature(SnowMLRegisterModelOperator).parameters)
    assert theirs - ours == set()
    assert theirs - {"model_name", "version_name"} == set(LOG_MODEL_ARGUMENTS)
