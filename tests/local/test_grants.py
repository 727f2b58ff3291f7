"""Roles and privileges of the local Snowflake: what is kept, shown, and refused."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import snowflake.connector


@pytest.fixture
def role(connection) -> Iterator[str]:
    """A role of its own."""
    name = f"ROLE_{uuid.uuid4().hex[:8].upper()}"
    connection.cursor().execute(f"CREATE ROLE {name}")
    yield name
    connection.cursor().execute(f"DROP ROLE IF EXISTS {name}")


@pytest.fixture
def run(connection):
    def run(sql: str) -> list[dict[str, Any]]:
        return connection.cursor(snowflake.connector.DictCursor).execute(sql).fetchall()

    return run


@pytest.fixture
def as_role(parameters, role):
    """The same in a session of that role."""

    def run(sql: str) -> list[dict[str, Any]]:
        with snowflake.connector.connect(**{**parameters, "role": role}) as connection:
            return connection.cursor(snowflake.connector.DictCursor).execute(sql).fetchall()

    return run


def shown(run, to: str) -> set[tuple[str, str, str]]:
    return {(r["privilege"], r["granted_on"], r["name"]) for r in run(f"SHOW GRANTS TO ROLE {to}")}


def test_what_is_granted_is_shown_and_what_is_revoked_is_not(run, role, schema) -> None:
    run("CREATE TABLE T (A INT)")
    run('CREATE STAGE "my stage"')
    run(f"GRANT SELECT, INSERT ON TABLE T TO ROLE {role}")
    run(f'GRANT READ ON STAGE "my stage" TO {role} WITH GRANT OPTION')
    run(f"GRANT CREATE MODEL, CREATE STAGE ON SCHEMA {schema} TO ROLE {role}")
    run(f"GRANT BIND SERVICE ENDPOINT ON ACCOUNT TO ROLE {role}")
    assert shown(run, role) == {
        ("SELECT", "TABLE", f"{schema}.T"),
        ("INSERT", "TABLE", f"{schema}.T"),
        ("READ", "STAGE", f'{schema}."my stage"'),
        ("CREATE MODEL", "SCHEMA", schema),
        ("CREATE STAGE", "SCHEMA", schema),
        ("BIND SERVICE ENDPOINT", "ACCOUNT", "LOCAL"),
    }
    (first,) = [r for r in run(f"SHOW GRANTS TO ROLE {role}") if r["privilege"] == "READ"]
    assert list(first) == [
        *["created_on", "privilege", "granted_on", "name", "granted_to", "grantee_name", "grant_option"],
        "granted_by",
    ]
    assert (first["granted_to"], first["grantee_name"], first["grant_option"]) == ("ROLE", role, "true")
    run(f"REVOKE INSERT ON TABLE T FROM ROLE {role}")
    assert ("INSERT", "TABLE", f"{schema}.T") not in shown(run, role)
    on = {(r["privilege"], r["grantee_name"]) for r in run("SHOW GRANTS ON TABLE T")}
    assert on == {("OWNERSHIP", "SYSADMIN"), ("SELECT", role)}


def test_a_grant_goes_with_what_it_is_on(run, role, schema) -> None:
    run("CREATE TABLE T (A INT)")
    run("CREATE STAGE S")
    for _ in range(2):
        run(f"GRANT ALL ON TABLE T TO ROLE {role}")
        run(f"GRANT ALL PRIVILEGES ON STAGE S TO ROLE {role}")
        assert ("DELETE", "TABLE", f"{schema}.T") in shown(run, role)
        assert ("WRITE", "STAGE", f"{schema}.S") in shown(run, role)
        run("CREATE OR REPLACE TABLE T (A INT)")
        run("CREATE OR REPLACE STAGE S")
        assert shown(run, role) == set()
    run(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO ROLE {role}")
    run("CREATE TABLE IF NOT EXISTS T (A INT)")
    assert shown(run, role) == {("SELECT", "TABLE", f"{schema}.T")}
    run("DROP TABLE T")
    assert shown(run, role) == set()


def test_roles_of_roles_and_of_users(run, as_role, role, connection) -> None:
    inner = f"{role}_INNER"
    run(f"CREATE ROLE {inner}")
    try:
        run(f"GRANT ROLE {inner} TO ROLE {role}")
        run(f"GRANT ROLE {inner} TO USER {connection.user}")
        assert shown(run, role) == {("USAGE", "ROLE", inner)}
        of = {(r["role"], r["granted_to"], r["grantee_name"]) for r in run(f"SHOW GRANTS OF ROLE {inner}")}
        assert of == {(inner, "ROLE", role), (inner, "USER", connection.user.upper())}
        assert inner in {r["role"] for r in run("SHOW GRANTS")}
        with pytest.raises(snowflake.connector.errors.ProgrammingError, match="circular"):
            run(f"GRANT ROLE {role} TO ROLE {inner}")
        assert inner in {r["name"] for r in run("SHOW ROLES")}
    finally:
        run(f"DROP ROLE {inner}")
    assert shown(run, role) == set()


def test_what_a_role_makes_is_its_own(run, as_role, role, schema) -> None:
    run(f"GRANT CREATE TABLE, CREATE STAGE ON SCHEMA {schema} TO ROLE {role}")
    as_role("CREATE TABLE T (A INT)")
    as_role("CREATE STAGE S")
    assert {("OWNERSHIP", "TABLE", f"{schema}.T"), ("OWNERSHIP", "STAGE", f"{schema}.S")} <= shown(run, role)
    run("GRANT OWNERSHIP ON STAGE S TO ROLE SYSADMIN COPY CURRENT GRANTS")
    assert ("OWNERSHIP", "STAGE", f"{schema}.S") not in shown(run, role)
    assert ("OWNERSHIP", "STAGE", f"{schema}.S") in shown(run, "SYSADMIN")


@pytest.mark.parametrize(
    ("statement", "privilege", "on"),
    [
        ("CREATE TABLE T (A INT)", "CREATE TABLE", "schema"),
        ("CREATE STAGE S", "CREATE STAGE", "schema"),
        ("CREATE TAG G", "CREATE TAG", "schema"),
    ],
)
def test_a_role_needs_what_it_was_not_granted(run, as_role, role, schema, statement, privilege, on) -> None:
    with pytest.raises(snowflake.connector.errors.ProgrammingError) as refused:
        as_role(statement)
    assert (refused.value.errno, refused.value.sqlstate) == (3001, "42501")
    name = schema.split(".")[1]
    assert f"Insufficient privileges to operate on {on} '{name}'" in str(refused.value)
    as_role(statement.replace("CREATE TABLE", "CREATE TEMPORARY TABLE")) if "TABLE" in statement else None
    run(f"GRANT {privilege} ON SCHEMA {schema} TO ROLE {role}")
    as_role(statement)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("GRANT SELECT ON STAGE S TO ROLE {role}", "Invalid privilege SELECT"),
        ("GRANT SELECT ON TABLE NOT_THERE TO ROLE {role}", "does not exist"),
        ("GRANT USAGE ON WAREHOUSE SNOWML_WH TO ROLE NOT_THERE", "'NOT_THERE' does not exist"),
        ("SHOW GRANTS TO ROLE NOT_THERE", "'NOT_THERE' does not exist"),
        ("GRANT SELECT ON FUTURE TABLES IN SCHEMA PUBLIC TO ROLE {role}", "Unsupported.*FUTURE"),
        ("SHOW GRANTS TO DATABASE ROLE SNOWML.R", "Unsupported.*DATABASE ROLE"),
        ("USE SECONDARY ROLES OTHER", "Unsupported.*SECONDARY"),
    ],
)
def test_what_makes_no_sense_is_refused(run, role, statement, message) -> None:
    run("CREATE STAGE S")
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match=re.compile(message, re.DOTALL)):
        run(statement.format(role=role))
