"""Looking before anything runs: which privileges the role has, what is there, what it costs."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, literal
from airflow_provider_snowml.core.preflight import (
    Account,
    PreflightReport,
    all_needs,
    costs,
    examine,
    finding_of,
    unseen,
)
from airflow_provider_snowml.core.preflight_steps import Step
from airflow_provider_snowml.core.privileges import (
    Grants,
    Need,
    ObjectName,
    Role,
    last_part,
    object_name,
)
from airflow_provider_snowml.exceptions import (
    InsufficientPrivilegesError,
    ObjectNotFoundError,
    StatementError,
    UnavailableError,
)

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from airflow_provider_snowml.hooks.snowml import SnowMLHook

log = logging.getLogger(__name__)

# No role hierarchy of people is that large; one that is costs this many statements and is then "not known".
MAX_ROLES = 50
# What a SHOW gives at most, see https://docs.snowflake.com/en/sql-reference/sql/show-grants.
MAX_ROWS = 10_000

PUBLIC = Identifier("PUBLIC")

_PLURALS = {
    "DATABASE": "DATABASES",
    "SCHEMA": "SCHEMAS",
    "TABLE": "OBJECTS",  # tables and views
    "MODEL": "MODELS",
    "STAGE": "STAGES",
    "TAG": "TAGS",
    "SERVICE": "SERVICES",
    "IMAGE REPOSITORY": "IMAGE REPOSITORIES",
    "COMPUTE POOL": "COMPUTE POOLS",
    "WAREHOUSE": "WAREHOUSES",
}


def preflight(hook: SnowMLHook, steps: Sequence[Step]) -> PreflightReport:
    """Look what steps need, what of it is missing, and what they may cost. Nothing is changed.

    It sends a SHOW GRANTS for the role, one for each role that was granted to it (50 at most) as long as
    something is missing, and a SHOW for each sort of object that the role has no privilege on.

    :param hook: the hook.
    :param steps: what will be done.
    :raises InvalidNameError: for a name that is none.
    """
    with hook.open_connection() as connection:
        default, warehouse = _places(hook, connection)
        needs = all_needs(steps, default, warehouse)
        account = _read_grants(hook, needs)
        account.warehouse = warehouse
        _look_at_costs(hook, account, steps)
        _look_for(hook, account, unseen(needs, account))
        findings, found = examine(steps, default, account), costs(steps, account)
    return PreflightReport(str(account.role), len(steps), tuple(findings), tuple(found))


def check_privileges(hook: SnowMLHook, needs: Sequence[Need], *, what: str) -> None:
    """Check that the role has what something needs.

    It sends one SHOW GRANTS if the role itself has it. What is not known for certain passes: Snowflake will
    say.

    :param hook: the hook, with an open connection.
    :param needs: the privileges.
    :param what: what they are for.
    :raises InsufficientPrivilegesError: if some are missing; the message has a GRANT for each.
    :raises ObjectNotFoundError: if only objects are missing.
    """
    account = _read_grants(hook, needs)
    lacking = [
        replace(need, privileges=privileges)
        for need in needs
        if (privileges := need.missing_of(account.held(need)))
    ]
    _look_for(hook, account, unseen(lacking, account))
    findings = [finding_of(need, account) for need in lacking]
    if unknown := [str(finding) for finding in findings if finding.what == "unknown"]:
        log.warning("Whether role %s may do it is not known: %s.", account.role, "; ".join(unknown))
    if missing := [finding for finding in findings if finding.what != "unknown"]:
        is_privilege = any(finding.what == "privilege" for finding in missing)
        error = InsufficientPrivilegesError if is_privilege else ObjectNotFoundError
        listed = "; ".join(map(str, missing))
        raise error(f"Role {account.role} lacks what {what} needs. {listed}.")


def _places(hook: SnowMLHook, connection: SnowflakeConnection) -> tuple[SchemaName, Identifier | None]:
    """Where unqualified names are, and the warehouse.

    A session does not have what its role may not use: then it is what the connection asked for.
    """
    asked = hook._get_conn_params()
    warehouse = Identifier.of(connection.warehouse) if connection.warehouse else None
    if warehouse is None and asked.get("warehouse"):
        warehouse = Identifier.parse(asked["warehouse"], what="warehouse")
    if (not connection.database or not connection.schema) and asked.get("database") and asked.get("schema"):
        database = Identifier.parse(asked["database"], what="database")
        return SchemaName(database, Identifier.parse(asked["schema"], what="schema")), warehouse
    return hook.default_schema(), warehouse


def _read_grants(hook: SnowMLHook, needs: Sequence[Need]) -> Account:
    """What the role has, and the roles that were granted to it, as far as something is missing."""
    with hook.open_connection() as connection:
        role = Identifier.of(str(connection.role or hook.value("SELECT CURRENT_ROLE()")))
    account = Account(role)
    seen: set[Role] = set()
    # Whoever made it has it, and every role is in PUBLIC.
    _walk(hook, account, account.primary, [("ROLE", role), ("ROLE", PUBLIC)], needs, seen)
    account.all = account.primary.copy()
    if any(need.missing_of(account.held(need)) for need in needs if not need.is_to_create):
        others = json.loads(str(hook.value("SELECT CURRENT_SECONDARY_ROLES()") or "{}")).get("roles") or ""
        secondary: list[Role] = [("ROLE", object_name(name)) for name in others.split(",") if name]
        _walk(hook, account, account.all, secondary, [n for n in needs if not n.is_to_create], seen)
    return account


def _walk(
    hook: SnowMLHook,
    account: Account,
    grants: Grants,
    waiting: list[Role],
    needs: Sequence[Need],
    seen: set[Role],
) -> None:
    while waiting and any(need.missing_of(grants.on(need.kind, need.name)) for need in needs):
        kind, name = role = waiting.pop(0)
        if role in seen:
            continue
        if len(seen) == MAX_ROLES:
            account.unread.append(f"only {MAX_ROLES} of the roles were looked at")
            return
        seen.add(role)
        try:
            rows = hook.rows(f"SHOW GRANTS TO {kind} {name}")
        except UnavailableError:
            raise
        except StatementError as error:
            account.unread.append(f"what {name} may do could not be read: {_last_line(error)}")
            continue
        if len(rows) >= MAX_ROWS:
            account.unread.append(f"{name} has more privileges than Snowflake shows")
        waiting += grants.add(rows)


def _look_for(hook: SnowMLHook, account: Account, needs: Sequence[Need]) -> None:
    """List objects that nothing is known of, one SHOW for each kind and place."""
    places: dict[tuple[str, str], set[ObjectName]] = {}
    for need in needs:
        places.setdefault((need.kind, _place(need.name)), set()).add(need.name)
    for (kind, place), names in places.items():
        try:
            account.note(kind, names, _listed(hook, kind, names, place))
        except ObjectNotFoundError:
            account.note(kind, names, {})  # its database or schema is not there
        except UnavailableError:
            raise
        except StatementError as error:
            account.unlisted.update(dict.fromkeys(((kind, name) for name in names), _last_line(error)))


def _look_at_costs(hook: SnowMLHook, account: Account, steps: Sequence[Step]) -> None:
    """Look how large the warehouse and the compute pools are."""
    if account.warehouse is not None and any(step.uses_warehouse for step in steps):
        account.warehouses = _listed(hook, "WAREHOUSE", {account.warehouse})
        account.note("WAREHOUSE", {account.warehouse}, account.warehouses)
    pools: set[ObjectName] = {use.compute_pool for step in steps for use in step.uses()}
    if pools:
        account.compute_pools = _listed(hook, "COMPUTE POOL", pools)
        account.note("COMPUTE POOL", pools, account.compute_pools)


def _listed(
    hook: SnowMLHook, kind: str, names: Collection[ObjectName], place: str = ""
) -> dict[str, Mapping[str, Any]]:
    """The rows of a SHOW, by name; of one object if only that is looked for."""
    like = f" LIKE {literal(last_part(next(iter(names))))}" if len(names) == 1 else ""
    return {str(row["name"]): row for row in hook.rows(f"SHOW {_PLURALS[kind]}{like}{place}")}


def _place(name: ObjectName) -> str:
    match name:
        case QualifiedName():
            return f" IN SCHEMA {name.parent}"
        case SchemaName():
            return f" IN DATABASE {name.database}"
    return ""


def _last_line(error: StatementError) -> str:
    return str(error).splitlines()[-1]
