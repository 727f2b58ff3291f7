"""Names and privileges as SHOW GRANTS prints them, and what one privilege makes of another."""

from __future__ import annotations

import pytest

from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.core.preflight import Account, costs, examine
from airflow_provider_snowml.core.preflight_steps import Query, RunBatch, RunModel
from airflow_provider_snowml.core.privileges import Grants, Need, grant_statement, object_name, resolved

TABLE = QualifiedName.parse('DB.SC."my ""table"""')
SC = SchemaName.of("DB", "SC")


def row(privilege: str, granted_on: str, name: str) -> dict[str, str]:
    return {"privilege": privilege, "granted_on": granted_on, "name": name}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('DB.SC."my ""table"""', TABLE),
        ("DB.SC", SC),
        ('DB."a.b"', SchemaName(Identifier("DB"), Identifier("a.b"))),
        ("ML_WH", Identifier("ML_WH")),
        ("lower", Identifier("lower")),  # as it is, not as one would write it
        ("DB.SC.F(INT):INT", QualifiedName(SC.database, SC.schema, Identifier("F(INT):INT"))),
        ("a.b.c.d", Identifier("a.b.c.d")),
    ],
)
def test_names_as_they_are_shown(text, name) -> None:
    assert object_name(text) == name


def test_grants_by_object_and_the_roles_among_them() -> None:
    grants = Grants()
    roles = grants.add(
        [
            row("SELECT", "VIEW", 'DB.SC."my ""table"""'),
            row("USAGE", "COMPUTE_POOL", "POOL"),
            row("BIND SERVICE ENDPOINT", "ACCOUNT", "XY12345"),
            row("USAGE", "ROLE", "INNER"),
            row("OWNERSHIP", "ROLE", "MERELY_OWNED"),
            row("USAGE", "DATABASE_ROLE", "DB.READER"),
        ]
    )
    assert grants.on("TABLE", TABLE) == {"SELECT"}  # a view's name is a table's
    assert grants.on("COMPUTE POOL", Identifier("POOL")) == {"USAGE"}
    assert grants.on("ACCOUNT", None) == {"BIND SERVICE ENDPOINT"}
    assert roles == [("ROLE", Identifier("INNER")), ("DATABASE ROLE", SchemaName.of("DB", "READER"))]


@pytest.mark.parametrize(
    ("need", "held", "missing"),
    [
        (Need("TABLE", TABLE, ("INSERT", "DELETE")), {"INSERT"}, ("DELETE",)),
        (Need("TABLE", TABLE, ("INSERT", "DELETE")), {"OWNERSHIP"}, ()),
        (Need("SCHEMA", SC, ("USAGE",)), {"CREATE MODEL"}, ()),  # any will do to work in it
        (Need("SCHEMA", SC, ("CREATE MODEL",)), {"USAGE"}, ("CREATE MODEL",)),
        (Need("WAREHOUSE", Identifier("W"), ("USAGE",)), {"MONITOR"}, ("USAGE",)),
    ],
)
def test_what_is_missing(need, held, missing) -> None:
    assert need.missing_of(held) == missing


def test_the_need_of_what_is_to_be_made_is_that_of_its_schema() -> None:
    need = Need("MODEL", TABLE, ("OWNERSHIP",), creates="CREATE MODEL")
    assert resolved(need, is_there=True) == need
    assert resolved(need, is_there=False) == Need("SCHEMA", SC, ("CREATE MODEL",))


def test_grant_statements() -> None:
    assert grant_statement(["READ", "WRITE"], "STAGE", TABLE, "R") == (
        'GRANT READ, WRITE ON STAGE DB.SC."my ""table""" TO ROLE R'
    )
    assert grant_statement(["BIND SERVICE ENDPOINT"], "ACCOUNT", None, "R") == (
        "GRANT BIND SERVICE ENDPOINT ON ACCOUNT TO ROLE R"
    )
    # Without it the new owner's first act would be to take from others what they had.
    assert grant_statement(["OWNERSHIP"], "TABLE", TABLE, "R").endswith("TO ROLE R COPY CURRENT GRANTS")


def account(**seen) -> Account:
    return Account(Identifier("R"), Identifier("W"), **seen)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"size": "2X-Large", "type": "STANDARD"}, "warehouse W (2X-Large), at most 32 credits per hour"),
        (
            {"size": "Small", "type": "STANDARD", "max_cluster_count": 3},
            "warehouse W (Small, up to 3 clusters), at most 6 credits per hour",
        ),
        # Of these Snowflake's documentation has no figures: none are made up.
        (
            {"size": "Small", "type": "SNOWPARK-OPTIMIZED"},
            "warehouse W (Small) while its queries run; credits",
        ),
        (
            {"size": "Small", "type": "STANDARD", "resource_constraint": "STANDARD_GEN_2"},
            "warehouse W (Small) while its queries run; credits",
        ),
        (
            {"size": "Small", "type": "STANDARD", "generation": "2"},
            "warehouse W (Small) while its queries run",
        ),
    ],
)
def test_a_warehouses_cost(row, text) -> None:
    (line,) = costs([RunModel(model_name="M")], account(warehouses={"W": row}))
    assert line.startswith(f"RunModel M: {text}")


def test_a_pool_that_is_not_there_has_no_price() -> None:
    step = RunBatch(model_name="M", compute_pool="P", output_stage_location="@S/x")
    assert costs([step], Account(Identifier("R")))[0] == (
        "RunBatch M: the job in compute pool P, whose nodes are not known"
    )


def test_a_warehouse_is_wanted_only_by_what_uses_one() -> None:
    (finding,) = [f for f in examine([Query()], SC, Account(Identifier("R"))) if f.grant is None]
    assert str(finding) == "There is no warehouse: neither the connection nor the operator names one"
