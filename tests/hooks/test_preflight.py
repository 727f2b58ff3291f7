"""What is missing, and what it may cost, found out of the local Snowflake."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.core.preflight_steps import (
    Deploy,
    Evaluate,
    Load,
    Monitor,
    Promote,
    Query,
    Register,
    Retire,
    RunBatch,
    RunModel,
    RunSchema,
    SuspendIdle,
)
from airflow_provider_snowml.core.privileges import Need
from airflow_provider_snowml.exceptions import InsufficientPrivilegesError, InvalidNameError
from airflow_provider_snowml.hooks import preflight
from airflow_provider_snowml.hooks.snowml import SnowMLHook

WAREHOUSE = "GRANT USAGE ON WAREHOUSE SNOWML_WH"


class Pipeline:
    """A role that can do nothing yet, in the schema of ``scoring``."""

    def __init__(self, scoring) -> None:
        self.scoring = scoring
        self.role = f"PIPELINE_{uuid.uuid4().hex[:8].upper()}"
        self.admin = scoring.hook()
        self.admin.rows(f"CREATE ROLE {self.role}")

    @property
    def hook(self) -> SnowMLHook:
        return SnowMLHook(database=self.scoring.database, schema=self.scoring.name, role=self.role)

    def grant(self, *what: str, role: str | None = None) -> None:
        for text in what:
            self.admin.rows(f"{text} TO ROLE {role or self.role}")

    def grant_places(self) -> None:
        """The warehouse, the database and the schema, which everything needs."""
        database, schema = self.scoring.database, self.scoring.schema
        self.grant(WAREHOUSE, f"GRANT USAGE ON DATABASE {database}", f"GRANT USAGE ON SCHEMA {schema}")


@pytest.fixture
def pipeline(scoring) -> Iterator[Pipeline]:
    made = Pipeline(scoring)
    yield made
    made.admin.rows(f"DROP ROLE {made.role}")


def steps(scoring) -> list:
    return [
        Register(model_name="M"),
        RunBatch(model_name="M", compute_pool=scoring.pool, output_stage_location="@ST/out", input_table="X"),
        Load(output_table="PREFLIGHT_LOADED", stage="ST"),
    ]


def test_all_that_is_missing_is_said_at_once_and_its_grants_are_enough(pipeline, scoring) -> None:
    report = pipeline.hook.preflight(steps(scoring))
    schema, to = scoring.schema, f"TO ROLE {pipeline.role}"
    assert report.grants == [
        f"GRANT USAGE ON DATABASE SNOWML {to}",
        # Whoever may create in a schema may work in it.
        f"GRANT USAGE, CREATE SERVICE, CREATE FILE FORMAT, CREATE TABLE ON SCHEMA {schema} {to}",
        f"GRANT OWNERSHIP ON MODEL {schema}.M {to} COPY CURRENT GRANTS",
        f"GRANT USAGE ON WAREHOUSE SNOWML_WH {to}",
        f"GRANT USAGE ON COMPUTE POOL TEST_POOL {to}",
        f"GRANT READ, WRITE ON STAGE {schema}.ST {to}",
        f"GRANT SELECT ON TABLE {schema}.X {to}",
    ]
    assert not report.of("object")
    assert not report.of("unknown")
    text = str(report)
    assert all(f"{grant};" in text for grant in report.grants)
    assert f"GRANT SELECT ON TABLE {schema}.X {to};  -- RunBatch M" in text

    for grant in report.grants:
        pipeline.admin.rows(grant)
    again = pipeline.hook.preflight(steps(scoring))
    assert not again.findings
    assert "Nothing is missing." in str(again)


def test_missing_objects_are_told_from_missing_privileges(pipeline, scoring) -> None:
    pipeline.grant_places()
    report = pipeline.hook.preflight(
        [
            Evaluate(model_name="NO_MODEL", input_table=["X", "NO_TABLE"]),
            RunBatch(model_name="M", compute_pool="NO_POOL", output_stage_location="@NO_STAGE/x"),
            Promote(model_name="M", tag="NO_TAG"),
        ]
    )
    schema = scoring.schema
    assert [finding.text.split(",")[0] for finding in report.of("object")] == [
        f"model {schema}.NO_MODEL",
        f"table {schema}.NO_TABLE",
        "compute pool NO_POOL",
        f"stage {schema}.NO_STAGE",
        f"tag {schema}.NO_TAG",
    ]
    assert f"GRANT READ, WRITE ON STAGE {schema}.NO_STAGE TO ROLE {pipeline.role};" in report.missing()
    assert {finding.text.rpartition(" ")[2] for finding in report.of("privilege")} == {
        f"{schema}.X",
        f"{schema}.M",
        schema,
    }


def test_a_place_that_the_session_does_not_have_is_missing(scoring, pipeline) -> None:
    hook = SnowMLHook(database="SNOWML", schema="NOT_THERE", role=pipeline.role, warehouse="NO_WH")
    report = hook.preflight([Query(reads="X")])
    assert [finding.text.split(",")[0] for finding in report.of("object")] == [
        "schema SNOWML.NOT_THERE",
        "table SNOWML.NOT_THERE.X",
        "warehouse NO_WH",
    ]
    assert report.grants == [f"GRANT USAGE ON DATABASE SNOWML TO ROLE {pipeline.role}"]


def test_what_another_role_owns(scoring, pipeline) -> None:
    """Its owner keeps it: the role is granted, unless it is one of the system's."""
    pipeline.grant_places()
    owner = Pipeline(scoring)
    admin = pipeline.admin
    try:
        admin.rows("CREATE VIEW PREFLIGHT_VIEW AS SELECT * FROM X")
        admin.rows(f"GRANT OWNERSHIP ON MODEL SLOW TO ROLE {owner.role}")
        plan = [Promote(model_name="SLOW"), Query(reads="PREFLIGHT_VIEW")]
        report = pipeline.hook.preflight(plan)
        assert report.grants == [
            f"GRANT ROLE {owner.role} TO ROLE {pipeline.role}",
            f"GRANT SELECT ON VIEW {scoring.schema}.PREFLIGHT_VIEW TO ROLE {pipeline.role}",
        ]
        pipeline.grant(*(grant.partition(" TO ROLE")[0] for grant in report.grants))
        assert not pipeline.hook.preflight(
            [Promote(model_name="SLOW"), Query(reads="PREFLIGHT_VIEW")]
        ).findings
    finally:
        admin.rows("DROP VIEW PREFLIGHT_VIEW")
        admin.rows(f"DROP ROLE {owner.role}")  # what it owned goes to the one who drops it


def test_what_an_earlier_step_makes_need_not_be_there(pipeline, scoring) -> None:
    pipeline.grant_places()
    schema = scoring.schema
    plan = [
        Register(model_name="PREFLIGHT_NEW"),
        RunModel(model_name="PREFLIGHT_NEW", output_table="PREFLIGHT_OUT"),
        Evaluate(model_name="PREFLIGHT_NEW", input_table="PREFLIGHT_OUT"),
        Promote(model_name="PREFLIGHT_NEW", tag="PREFLIGHT_TAG", create_tag=True),
        Retire(model_name="PREFLIGHT_NEW"),
    ]
    report = pipeline.hook.preflight(plan)
    assert report.grants == [
        f"GRANT CREATE MODEL, CREATE TABLE, CREATE TAG ON SCHEMA {schema} TO ROLE {pipeline.role}"
    ]
    assert not report.of("object")
    missing = pipeline.hook.preflight(plan[1:])
    assert [finding.text.split(",")[0] for finding in missing.of("object")] == [
        f"model {schema}.PREFLIGHT_NEW"
    ]


def test_suspending_what_is_idle(pipeline, scoring) -> None:
    pipeline.grant_places()
    plan = [SuspendIdle(compute_pools=scoring.pool, service_names=["NO_SERVICE"])]
    report = pipeline.hook.preflight(plan)
    assert report.grants == [f"GRANT OPERATE ON COMPUTE POOL {scoring.pool} TO ROLE {pipeline.role}"]
    assert [finding.text.split(",")[0] for finding in report.of("object")] == [
        f"service {scoring.schema}.NO_SERVICE"
    ]
    pipeline.grant(f"GRANT OPERATE ON COMPUTE POOL {scoring.pool}")
    assert not pipeline.hook.preflight([SuspendIdle(compute_pools=scoring.pool)]).findings


def test_what_was_granted_to_a_role_of_the_role_counts(pipeline, scoring) -> None:
    pipeline.grant_places()
    inner = Pipeline(scoring)
    try:
        pipeline.grant(f"GRANT ROLE {inner.role}")
        inner.grant("GRANT SELECT ON TABLE X")
        pipeline.grant("GRANT USAGE ON MODEL M", role="PUBLIC")
        plan = [Evaluate(model_name="M", input_table="X", stored_as=None)]
        assert not pipeline.hook.preflight(plan).findings
        pipeline.admin.rows(f"REVOKE ROLE {inner.role} FROM ROLE {pipeline.role}")
        (finding,) = pipeline.hook.preflight(plan).findings
        assert finding.grant == f"GRANT SELECT ON TABLE {scoring.schema}.X TO ROLE {pipeline.role}"
    finally:
        pipeline.admin.rows("REVOKE USAGE ON MODEL M FROM ROLE PUBLIC")
        inner.admin.rows(f"DROP ROLE {inner.role}")


def test_secondary_roles_read_but_do_not_create(pipeline, scoring) -> None:
    pipeline.grant_places()
    other = Pipeline(scoring)
    try:
        hook = pipeline.hook
        with hook.open_connection() as connection:
            other.admin.rows(f"GRANT ROLE {other.role} TO USER {connection.user}")
            other.grant("GRANT SELECT ON TABLE X", f"GRANT CREATE MODEL ON SCHEMA {scoring.schema}")
            plan = [Query(reads="X"), Register(model_name="PREFLIGHT_NEW")]
            assert len(hook.preflight(plan).findings) == 2
            hook.rows("USE SECONDARY ROLES ALL")
            (finding,) = hook.preflight(plan).findings
        assert finding.text == f"CREATE MODEL on schema {scoring.schema}"
    finally:
        other.admin.rows(f"DROP ROLE {other.role}")


def test_what_cannot_be_known_is_said_and_is_not_missing(pipeline, scoring, monkeypatch) -> None:
    hook = SnowMLHook(database=scoring.database, schema=scoring.name, role="NOBODY_MADE_IT")
    report = hook.preflight([Evaluate(model_name="M", input_table="X")])
    assert not report.missing()
    assert report.of("unknown")
    assert all("'NOBODY_MADE_IT' does not exist" in finding.text for finding in report.findings)
    assert "Not known:" in str(report)

    pipeline.grant_places()
    monkeypatch.setattr(preflight, "MAX_ROLES", 1)
    (finding,) = pipeline.hook.preflight([Query(reads="X")]).findings
    assert finding.what == "unknown"
    assert "only 1 of the roles" in finding.text
    monkeypatch.undo()
    monkeypatch.setattr(preflight, "MAX_ROWS", 2)
    (finding,) = pipeline.hook.preflight([Query(reads="X")]).findings
    assert (finding.what, "more privileges than Snowflake shows" in finding.text) == ("unknown", True)


def test_what_it_may_cost(pipeline, serving) -> None:
    pool = serving.pool  # four nodes at most
    plan = [
        RunModel(model_name="M", input_table="X", output_table="Y"),
        RunBatch(model_name="M", compute_pool=pool, output_stage_location="@ST/x", replicas=2, timeout=5400),
        Deploy(model_name="M", service_name="PREFLIGHT_S", service_compute_pool=pool, max_instances=9),
        RunSchema(),
    ]
    lines = serving.hook().preflight(plan).costs
    warehouse = "warehouse SNOWML_WH (X-Small), at most 1 credit per hour while its queries run, 60 seconds"
    one = f"an image build in compute pool {pool}, at most 1 node of CPU_X64_XS, if it is not there yet"
    nodes = f"compute pool {pool}, at most {{}} nodes of CPU_X64_XS".format
    assert lines == (
        f"RunModel M: {warehouse} at least",
        f"RunBatch M: {warehouse} at least",
        f"RunBatch M: the job in {nodes(2)} for 1.5 h: 3 node hours",
        f"RunBatch M: {one}",
        f"Deploy M: the service in {nodes(4)}, until it is dropped or suspended: 96 node hours a day",
        f"Deploy M: {one}",
    )


def test_a_plan_costs_few_statements(pipeline, scoring, local_snowflake) -> None:
    hook = scoring.hook()
    with hook.open_connection() as connection:
        hook.preflight(steps(scoring))
        rows = hook.rows(
            "SELECT QUERY_TEXT FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION(RESULT_LIMIT => 1000)) "
            f"WHERE SESSION_ID = {connection.session_id} ORDER BY START_TIME"
        )
    sent = [row["QUERY_TEXT"] for row in rows if "QUERY_HISTORY" not in row["QUERY_TEXT"]]
    assert [text.partition(" LIKE")[0] for text in sent if "QUERY_TAG" not in text] == [
        "SHOW GRANTS TO ROLE SYSADMIN",
        "SHOW GRANTS TO ROLE PUBLIC",  # the table that is not there yet may be granted by any role
        "SELECT CURRENT_SECONDARY_ROLES()",
        "SHOW WAREHOUSES",
        "SHOW COMPUTE POOLS",
        "SHOW OBJECTS",
    ]


def test_a_monitor_reads_its_source(pipeline, scoring) -> None:
    pipeline.grant_places()
    report = pipeline.hook.preflight([Monitor(model_name="M", source="X", baseline="X")])
    schema, to = scoring.schema, f"TO ROLE {pipeline.role}"
    assert report.grants == [
        f"GRANT CREATE MODEL MONITOR ON SCHEMA {schema} {to}",
        f"GRANT USAGE ON MODEL {schema}.M {to}",
        f"GRANT SELECT ON TABLE {schema}.X {to}",
    ]


def test_names_are_checked(pipeline) -> None:
    with pytest.raises(InvalidNameError, match="no valid name"):
        pipeline.hook.preflight([Query(reads="X; DROP TABLE X")])


def test_a_check_of_its_own_names_every_grant(pipeline, scoring) -> None:
    model = QualifiedName.parse(f"{scoring.schema}.M")
    needs = [Need("MODEL", model, ("READ",)), Need("SCHEMA", model.parent, ("CREATE MODEL",))]
    with pytest.raises(InsufficientPrivilegesError) as missing:
        preflight.check_privileges(pipeline.hook, needs, what="this")
    assert f"GRANT READ ON MODEL {model} TO ROLE {pipeline.role}" in str(missing.value)
    assert f"GRANT CREATE MODEL ON SCHEMA {model.parent} TO ROLE {pipeline.role}" in str(missing.value)


def test_a_check_lets_pass_what_it_cannot_know(scoring, caplog) -> None:
    hook = SnowMLHook(database=scoring.database, schema=scoring.name, role="NOBODY_MADE_IT")
    model = QualifiedName.parse(f"{scoring.schema}.M")
    preflight.check_privileges(hook, [Need("MODEL", model, ("READ",))], what="this")
    assert "Whether role NOBODY_MADE_IT may do it is not known: READ on model" in caplog.text


# -- the pages --------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_shows_what_is_printed(airflow_conn, schema) -> None:
    page = (DOCS / "operators" / "preflight.md").read_text()
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    admin = SnowMLHook()
    for sql in (
        "CREATE ROLE PAGE_ROLE",
        "CREATE TABLE CUSTOMERS (ID INT)",
        "CREATE COMPUTE POOL ML_POOL MIN_NODES = 1 MAX_NODES = 2 INSTANCE_FAMILY = CPU_X64_S",
        "GRANT USAGE ON DATABASE SNOWML TO ROLE PAGE_ROLE",
        f"GRANT USAGE, CREATE TABLE, CREATE SERVICE ON SCHEMA {schema} TO ROLE PAGE_ROLE",
        "GRANT USAGE ON WAREHOUSE SNOWML_WH TO ROLE PAGE_ROLE",
    ):
        admin.rows(sql)
    try:
        report = str(SnowMLHook(role="PAGE_ROLE").preflight(names["preflight"].steps))
    finally:
        admin.rows("DROP ROLE PAGE_ROLE")
        admin.rows("DROP COMPUTE POOL ML_POOL")
    for ours, theirs in ((schema, "ML.SCORING"), ("PAGE_ROLE", "ML_PIPELINE"), ("SNOWML_WH", "ML_WH")):
        report = report.replace(ours, theirs)
    assert re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)[0] == report


def test_the_grants_of_the_page_are_enough(local_snowflake, airflow_conn) -> None:
    """What docs/account.md has a new role granted, statement by statement."""
    admin = SnowMLHook()
    made = (
        *("WAREHOUSE ML_WH", "DATABASE ML", "SCHEMA ML.FEATURES", "SCHEMA ML.SCORING"),
        *("TABLE ML.FEATURES.CUSTOMERS (ID INT)", "STAGE ML.SCORING.SCORES"),
        "IMAGE REPOSITORY ML.SCORING.IMAGES",
        "COMPUTE POOL ML_POOL MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS",
    )
    try:
        for what in made:
            admin.rows(f"CREATE {what}")
        (sql,) = re.findall(r"```sql\n(.*?)```", (DOCS / "account.md").read_text(), re.DOTALL)
        for statement in re.sub(r"--[^\n]*", "", sql).split(";"):
            if statement.strip():
                admin.rows(statement)
        batch = {"compute_pool": "ML_POOL", "output_stage_location": "@SCORES/x", "image_repo": "IMAGES"}
        service = {"service_name": "S", "service_compute_pool": "ML_POOL", "image_repo": "IMAGES"}
        hook = SnowMLHook(database="ML", schema="SCORING", role="ML_PIPELINE", warehouse="ML_WH")
        report = hook.preflight(
            [
                RunSchema(),
                Query(reads="ML.FEATURES.CUSTOMERS", writes="TRAINING"),
                Register(model_name="CHURN"),
                Evaluate(model_name="CHURN", input_table="TRAINING"),
                Promote(model_name="CHURN"),
                RunModel(model_name="CHURN", input_table="TRAINING", output_table="SCORED"),
                RunBatch(model_name="CHURN", input_table="ML.FEATURES.CUSTOMERS", **batch),
                Load(output_table="CHURN_SCORES", stage="SCORES"),
                Deploy(model_name="CHURN", ingress_enabled=True, **service),
                Monitor(model_name="CHURN", source="CHURN_SCORES", baseline="SCORED"),
                Retire(model_name="CHURN"),
                SuspendIdle(compute_pools="ML_POOL"),
            ]
        )
        assert not report.findings, str(report)
    finally:
        for what in ("ROLE IF EXISTS ML_PIPELINE", "COMPUTE POOL IF EXISTS ML_POOL", "DATABASE IF EXISTS ML"):
            admin.rows(f"DROP {what}")
        admin.rows("DROP WAREHOUSE IF EXISTS ML_WH")
