"""The preflight as a task, and the look at privileges before a model is trained."""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pendulum
import pytest
from airflow.sdk import DAG

from airflow_provider_snowml.core import preflight_steps
from airflow_provider_snowml.core.names import SchemaName
from airflow_provider_snowml.core.preflight_steps import Evaluate, Load, Register, RunBatch, Step
from airflow_provider_snowml.exceptions import (
    InsufficientPrivilegesError,
    InvalidArgumentError,
    ObjectNotFoundError,
    PreflightError,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.preflight import SnowMLPreflightOperator
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator

OPERATORS = Path(inspect.getfile(SnowMLPreflightOperator)).parent


@pytest.fixture
def role(scoring) -> Iterator[str]:
    """A role that may use the warehouse, the database and the schema, and nothing else."""
    name = f"MAY_LITTLE_{uuid.uuid4().hex[:8].upper()}"
    hook = scoring.hook()
    hook.rows(f"CREATE ROLE {name}")
    for what in ("WAREHOUSE SNOWML_WH", "DATABASE SNOWML", f"SCHEMA {scoring.schema}"):
        hook.rows(f"GRANT USAGE ON {what} TO ROLE {name}")
    yield name
    hook.rows(f"DROP ROLE {name}")


def test_a_dag_fails_with_all_that_is_missing_before_anything_runs(scoring, role, run_dag) -> None:
    with DAG("preflight_fails", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        look = SnowMLPreflightOperator(
            task_id="look",
            role=role,
            steps=[
                Register(model_name="PREFLIGHT_{{ 'new' | upper }}"),
                RunBatch(
                    model_name="M",
                    compute_pool="{{ params.pool }}",
                    output_stage_location="@NOT_THERE/{{ ds_nodash }}",
                    input_table=["X", "{{ 'X' }}2"],
                ),
            ],
            params={"pool": scoring.pool},
        )
        register = SnowMLRegisterModelOperator(
            task_id="register",
            role=role,
            model_name="PREFLIGHT_NEW",
            version_name="V1",
            python_callable=_train,
        )
        look >> register
    dag_run, _ = run_dag(dag)
    states = {ti.task_id: ti.state for ti in dag_run.get_task_instances()}
    assert states == {"look": "failed", "register": "upstream_failed"}

    task = look.prepare_for_execution()
    context = {"params": {"pool": scoring.pool}, "ds_nodash": "20130601"}
    task.render_template_fields(context)
    with pytest.raises(PreflightError) as missing:
        task.execute(context)
    text, schema = str(missing.value), scoring.schema
    for grant in (
        f"GRANT CREATE MODEL, CREATE SERVICE, CREATE FILE FORMAT ON SCHEMA {schema} TO ROLE {role};",
        f"GRANT READ ON MODEL {schema}.M TO ROLE {role};",
        f"GRANT USAGE ON COMPUTE POOL {scoring.pool} TO ROLE {role};",
        f"GRANT SELECT ON TABLE {schema}.X TO ROLE {role};",
    ):
        assert grant in text
    assert f"There is no stage {schema}.NOT_THERE, or role {role} may not see it" in text
    assert f"table {schema}.X2, or role" in text
    assert text.endswith("A retry fails the same way until it is there; nothing was started.")


def test_a_dag_goes_on_if_nothing_is_missing_or_nobody_minds(scoring, role, run_dag) -> None:
    with DAG("preflight_passes", schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as dag:
        steps = [Evaluate(model_name="M", input_table="X"), Load(output_table="PREFLIGHT_NO_TABLE")]
        SnowMLPreflightOperator(task_id="may", steps=steps)
        SnowMLPreflightOperator(task_id="nobody_minds", steps=steps, role=role, fail=False)
    dag_run, found = run_dag(dag)
    assert dag_run.state == "success"
    assert (found["may"]["role"], found["may"]["grants"], found["may"]["missing"]) == ("SYSADMIN", [], [])
    assert found["may"]["costs"][0].startswith("Evaluate M: warehouse SNOWML_WH (X-Small), at most 1 credit")
    assert f"GRANT SELECT ON TABLE {scoring.schema}.X TO ROLE {role}" in found["nobody_minds"]["grants"]
    assert found["nobody_minds"]["report"].startswith(f"Preflight of 2 steps as role {role}")


def test_a_step_that_is_none_is_refused(scoring) -> None:
    with pytest.raises(InvalidArgumentError, match=r"steps has 'register'.*Register\(model_name"):
        SnowMLPreflightOperator(task_id="look", steps=["register"]).execute({})


# -- before a model is trained ----------------------------------------------------------------------------


def _train() -> ModelArtifact:
    raise AssertionError("it was trained")


def _fit() -> ModelArtifact:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    rows = pd.DataFrame({"A": [1.0, 2.0, 3.0, 4.0]})
    return ModelArtifact(LogisticRegression().fit(rows, rows["A"] > 2), sample_input_data=rows)


def register(**arguments) -> SnowMLRegisterModelOperator:
    defaults = {"model_name": "PREFLIGHT_REGISTERED", "version_name": "V1", "python_callable": _train}
    return SnowMLRegisterModelOperator(task_id="register", **{**defaults, **arguments})


def test_what_the_role_lacks_is_said_before_it_is_trained(scoring, role, task_context) -> None:
    admin = scoring.hook()
    with pytest.raises(InsufficientPrivilegesError) as missing:
        register(role=role).execute(task_context("register"))
    grant = f"GRANT CREATE MODEL ON SCHEMA {scoring.schema} TO ROLE {role}"
    assert f"Role {role} lacks what version V1 of" in str(missing.value)
    assert grant in str(missing.value)

    admin.rows(grant)
    made = register(role=role, python_callable=_fit, verify=False).execute(task_context("register"))
    try:
        assert made["version"] == "V1"
        (shown,) = admin.rows("SHOW MODELS LIKE 'PREFLIGHT_REGISTERED'")
        assert shown["owner"] == role
        # Its own model: nothing more is needed for a further version. Of another role's it is.
        register(role=role, version_name="V2", python_callable=_fit, verify=False).execute(
            task_context("register")
        )
        with pytest.raises(
            InsufficientPrivilegesError, match=rf"GRANT OWNERSHIP ON MODEL {scoring.schema}\.M "
        ):
            register(role=role, model_name="M", version_name="V9").execute(task_context("register"))
    finally:
        admin.rows("DROP MODEL PREFLIGHT_REGISTERED")


def test_snowflake_refuses_what_the_check_would_have_found(scoring, role) -> None:
    """The check is no stricter than the local Snowflake, nor laxer."""
    hook = SnowMLHook(database=scoring.database, schema=scoring.name, role=role)
    for statement in ("ALTER MODEL M SET COMMENT = 'x'", "DROP MODEL M", "CREATE SCHEMA SNOWML.NOT_MINE"):
        with pytest.raises(InsufficientPrivilegesError, match="Insufficient privileges to operate on"):
            hook.rows(statement)


def test_tags_are_looked_at_too(scoring, role, task_context) -> None:
    admin = scoring.hook()
    admin.rows(f"GRANT CREATE MODEL ON SCHEMA {scoring.schema} TO ROLE {role}")
    with pytest.raises(ObjectNotFoundError, match=r"There is no tag \S+\.PREFLIGHT_TAG, or role"):
        register(role=role, tags={"PREFLIGHT_TAG": "x"}).execute(task_context("register"))
    admin.rows("CREATE TAG PREFLIGHT_TAG")
    try:
        with pytest.raises(
            InsufficientPrivilegesError, match=r"GRANT APPLY ON TAG \S+\.PREFLIGHT_TAG TO ROLE"
        ):
            register(role=role, tags={"PREFLIGHT_TAG": "x"}).execute(task_context("register"))
    finally:
        admin.rows("DROP TAG PREFLIGHT_TAG")


# -- one source -------------------------------------------------------------------------------------------

PLAN = {
    "Register": ({"model_name": "M", "tags": ["T"]}, ["SnowMLRegisterModelOperator"]),
    "Evaluate": (
        {"model_name": "M", "input_table": "X"},
        ["SnowMLEvaluateModelOperator", "SnowMLChampionChallengerOperator"],
    ),
    "Promote": (
        {"model_name": "M", "tag": "T"},
        ["SnowMLPromoteModelOperator", "SnowMLRollbackModelOperator"],
    ),
    "RunModel": (
        {"model_name": "M", "input_table": "X", "output_table": "Y", "write_mode": "replace_where"},
        ["SnowMLRunModelOperator"],
    ),
    "RunBatch": (
        {"model_name": "M", "compute_pool": "P", "output_stage_location": "@S/x", "input_table": "X"},
        ["SnowMLBatchInferenceOperator"],
    ),
    "Load": ({"output_table": "Y", "stage": "S"}, ["SnowMLLoadPredictionsOperator"]),
    "Deploy": (
        {
            "model_name": "M",
            "service_name": "V",
            "service_compute_pool": "P",
            "image_repo": "I",
            "ingress_enabled": True,
        },
        ["SnowMLCreateServiceOperator"],
    ),
    "Monitor": ({"model_name": "M", "source": "X"}, ["SnowMLCreateMonitorOperator"]),
    "RunSchema": ({}, ["SnowMLRunSchemaOperator"]),
    "Retire": ({"model_name": "M"}, ["SnowMLPruneModelVersionsOperator", "SnowMLDeleteModelOperator"]),
    "Update": ({"model_name": "M", "tags": {"T": "x"}}, ["SnowMLUpdateModelOperator"]),
    "Export": ({"model_name": "M", "path": "@S/x"}, ["SnowMLExportModelOperator"]),
    "SuspendIdle": ({"compute_pools": "P", "service_names": ["V"]}, ["SnowMLSuspendIdleOperator"]),
    "Query": ({}, []),
}


def test_the_operators_docstrings_name_what_the_steps_need() -> None:
    steps = {name for name, value in vars(preflight_steps).items() if isinstance(value, type)}
    assert {name for name in steps if issubclass(getattr(preflight_steps, name), Step)} - {
        "Step"
    } == PLAN.keys()
    source = "\n".join(path.read_text() for path in sorted(OPERATORS.glob("*.py")))
    for name, (arguments, operators) in PLAN.items():
        needs = getattr(preflight_steps, name)(**arguments).needs(SchemaName.of("DB", "SC"))
        wanted = {privilege for need in needs for privilege in (*need.privileges, need.creates) if privilege}
        for operator in operators:
            (text,) = re.findall(rf"class {operator}\(.*?\n    Privileges: (.+?)\n\n", source, re.DOTALL)
            missing = {privilege for privilege in wanted if privilege not in " ".join(text.split())}
            assert not missing, operator
