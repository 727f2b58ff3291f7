"""What of a plan is missing, and what it may cost: decided from what was seen of the account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.core.preflight_steps import Step, Use
from airflow_provider_snowml.core.privileges import (
    OWNERSHIP,
    SYSTEM_ROLES,
    Grants,
    Need,
    ObjectName,
    described,
    grant_statement,
    last_part,
    resolved,
)

CREDITS = "https://docs.snowflake.com/en/user-guide/warehouses-overview"
CONSUMPTION = "Snowflake's Service Consumption Table"

# Credits per hour of a cluster of a standard warehouse of the first generation; by CREDITS.
CREDITS_PER_HOUR = {
    "X-Small": 1,
    "Small": 2,
    "Medium": 4,
    "Large": 8,
    "X-Large": 16,
    "2X-Large": 32,
    "3X-Large": 64,
    "4X-Large": 128,
    "5X-Large": 256,
    "6X-Large": 512,
}


@dataclass
class Account:
    """What was seen of an account.

    :param role: the session's role.
    :param warehouse: its warehouse, if it has one.
    :param primary: what this role has, with the roles that were granted to it.
    :param all: the same and what the secondary roles have, which counts for all but CREATE.
    :param unread: why the privileges of some roles are not known; empty if all are.
    :param listed: the objects that were looked for, as SHOW lists them: ``None`` for one that it does not.
    :param unlisted: why it is not known whether an object is there.
    :param warehouses: the rows of SHOW WAREHOUSES, by name.
    :param compute_pools: the rows of SHOW COMPUTE POOLS, by name.
    """

    role: Identifier
    warehouse: Identifier | None = None
    primary: Grants = field(default_factory=Grants)
    all: Grants = field(default_factory=Grants)
    unread: list[str] = field(default_factory=list)
    listed: dict[tuple[str, ObjectName], Mapping[str, Any] | None] = field(default_factory=dict)
    unlisted: dict[tuple[str, ObjectName], str] = field(default_factory=dict)
    warehouses: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    compute_pools: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def note(self, kind: str, names: Iterable[ObjectName], rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Note which objects a SHOW has listed.

        :param kind: what they are.
        :param names: those that were looked for.
        :param rows: its rows, by name.
        """
        self.listed.update({(kind, name): rows.get(last_part(name)) for name in names})

    def held(self, need: Need) -> set[str]:
        """The privileges on what is needed: to create, only those of the primary role count."""
        return (self.primary if need.is_to_create else self.all).on(need.kind, need.name)

    def is_there(self, kind: str, name: ObjectName) -> bool | None:
        """Whether an object is there, as far as the role may see; ``None`` if that is not known."""
        if name is None or self.all.on(kind, name):
            return True
        if (kind, name) in self.listed:
            return self.listed[kind, name] is not None
        return None

    def kind(self, kind: str, name: ObjectName) -> str:
        """What it is, if it is a table or a view: GRANT wants to know."""
        row = self.listed.get((kind, name))
        if kind != "TABLE":
            return kind
        return self.all.tables.get(name) or str((row or {}).get("kind") or kind)


@dataclass(frozen=True)
class Finding:
    """Something that is not as a step needs it.

    :param what: what: ``privilege`` or ``object`` is missing, or it is ``unknown``.
    :param text: what in words.
    :param grant: the GRANT that would help.
    :param steps: for which steps.
    """

    what: str
    text: str
    grant: str | None = None
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.what == "privilege":
            return f"{self.grant}"
        text = self.text if self.what == "unknown" else f"There is no {self.text}"
        return text if self.grant is None else f"{text}: if it is there, {self.grant}"


def unseen(needs: Iterable[Need], account: Account) -> list[Need]:
    """The needs whose object nothing is known of: it has to be looked for."""
    return [need for need in needs if account.is_there(need.kind, need.name) is None]


def parents(needs: Iterable[Need]) -> list[Need]:
    """The databases and schemas that the objects are in: any privilege on each is enough, and is needed."""
    found: dict[tuple[str, ObjectName], Need] = {}
    for need in needs:
        names: list[tuple[str, ObjectName]] = []
        match need.name:
            case QualifiedName(database=database):
                names = [("DATABASE", database), ("SCHEMA", need.name.parent)]
            case SchemaName(database=database, schema=_):
                names = [("DATABASE", database), ("SCHEMA", need.name)]
        for kind, name in names:
            found[kind, name] = Need(kind, name, ("USAGE",))
    return list(found.values())


def all_needs(steps: Sequence[Step], default: SchemaName, warehouse: Identifier | None) -> list[Need]:
    """What the steps need, and what that needs: databases, schemas and the warehouse."""
    needs = [need for step in steps for need in step.needs(default)]
    if warehouse is not None and any(step.uses_warehouse for step in steps):
        needs.append(Need("WAREHOUSE", warehouse, ("USAGE",)))
    return [*parents(needs), *needs]


def examine(steps: Sequence[Step], default: SchemaName, account: Account) -> list[Finding]:
    """What is missing, and what is not known, in the order of the steps; each once.

    :param steps: what will be done.
    :param default: where unqualified names are.
    :param account: what was seen.
    """
    made: set[tuple[str, ObjectName]] = set()
    wanted: dict[tuple[str, ObjectName], tuple[dict[str, None], list[str]]] = {}
    for step in steps:
        for need in all_needs([step], default, account.warehouse):
            key = (need.kind, need.name)
            if account.is_there(*key) is False:
                if key in made:
                    continue
                need = resolved(need, is_there=False)
            if missing := need.missing_of(account.held(need)):
                privileges, of = wanted.setdefault((need.kind, need.name), ({}, []))
                privileges.update(dict.fromkeys(missing))
                if str(step) not in of:
                    of.append(str(step))
        made.update(step.makes(default))
    findings = [
        finding_of(Need(kind, name, tuple(privileges)), account, tuple(of))
        for (kind, name), (privileges, of) in wanted.items()
    ]
    if account.warehouse is None and (needing := [str(step) for step in steps if step.uses_warehouse]):
        text = "warehouse: neither the connection nor the operator names one"
        findings.append(Finding("object", text, steps=tuple(needing)))
    return findings


def finding_of(need: Need, account: Account, steps: tuple[str, ...] = ()) -> Finding:
    """What it means that privileges are missing.

    :param need: those that are missing.
    :param account: what was seen.
    :param steps: for which steps they are needed.
    """
    kind = account.kind(need.kind, need.name)
    grant = grant_statement(need.privileges, kind, need.name, account.role)
    is_there = account.is_there(need.kind, need.name)
    why = account.unlisted.get((need.kind, need.name))
    if account.unread or (is_there is None and why):
        reasons = [*account.unread, *([why] if why else [])]
        return Finding("unknown", f"{need} ({'; '.join(reasons)})", grant, steps)
    if not is_there:
        what = f"{described(need.kind, need.name)}, or role {account.role} may not see it"
        return Finding("object", what, grant, steps)
    owner = (account.listed.get((need.kind, need.name)) or {}).get("owner")
    if OWNERSHIP in need.privileges and owner and owner not in SYSTEM_ROLES:
        # The owner's role does it too, and leaves the object to its owner.
        grant = f"GRANT ROLE {Identifier.of(owner)} TO ROLE {account.role}"
    return Finding("privilege", str(need), grant, steps)


# -- costs ----------------------------------------------------------------------------------------------


def costs(steps: Sequence[Step], account: Account) -> list[str]:
    """What each step may cost, at most, in Snowflake's own terms; a line per thing that runs."""
    lines = []
    for step in steps:
        uses = [_pool_cost(use, account) for use in step.uses()]
        if step.uses_warehouse and account.warehouse is not None:
            uses.insert(0, _warehouse_cost(account))
        lines += [f"{step}: {text}" for text in uses]
    return lines


def _warehouse_cost(account: Account) -> str:
    assert account.warehouse is not None
    row = account.warehouses.get(account.warehouse.name)
    if row is None:
        return f"warehouse {account.warehouse} while its queries run; its size is not known"
    size, clusters = str(row.get("size")), int(row.get("max_cluster_count") or 1)
    named = f"warehouse {account.warehouse} ({size}{f', up to {clusters} clusters' if clusters > 1 else ''})"
    is_first = "GEN_2" not in str(row.get("resource_constraint")) and str(row.get("generation") or "1") == "1"
    per_hour = CREDITS_PER_HOUR.get(size)
    if per_hour is None or row.get("type") != "STANDARD" or not is_first:
        return f"{named} while its queries run; credits per hour: {CONSUMPTION}"
    most = per_hour * clusters
    rate = f"at most {most} credit{'s' * (most > 1)} per hour"
    return f"{named}, {rate} while its queries run, 60 seconds at least"


def _pool_cost(use: Use, account: Account) -> str:
    row = account.compute_pools.get(use.compute_pool.name)
    if row is None:
        return f"{use.what} in compute pool {use.compute_pool}, whose nodes are not known"
    most = int(row["max_nodes"])
    nodes = min(use.nodes or most, most)
    text = f"{use.what} in compute pool {use.compute_pool}, at most {_many(nodes, row['instance_family'])}"
    if use.seconds is not None:
        hours = f"{use.seconds / 3600:g}"
        return f"{text} for {hours} h: {nodes * use.seconds / 3600:g} node hours"
    if use.what == "the service":
        return f"{text}, until it is dropped or suspended: {nodes * 24} node hours a day"
    return f"{text}, if it is not there yet" if "image" in use.what else text


def _many(nodes: int, family: object) -> str:
    return f"{nodes} node{'s' if nodes > 1 else ''} of {family}"


# -- the report -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreflightReport:
    """What a preflight saw.

    :param role: the role that it looked for.
    :param steps: how many steps.
    :param findings: what is missing, or not known.
    :param costs: what the steps may cost.
    """

    role: str
    steps: int
    findings: tuple[Finding, ...]
    costs: tuple[str, ...]

    def of(self, what: str) -> list[Finding]:
        """The findings of one sort: ``privilege``, ``object`` or ``unknown``."""
        return [finding for finding in self.findings if finding.what == what]

    @property
    def grants(self) -> list[str]:
        """The statements that give the missing privileges."""
        return [finding.grant for finding in self.of("privilege") if finding.grant]

    def missing(self) -> str:
        """What is missing, a line each; empty if nothing is."""
        return "\n".join([*self._section("privilege"), *self._section("object")])

    def __str__(self) -> str:
        lines = [f"Preflight of {self.steps} step{'s' * (self.steps != 1)} as role {self.role}"]
        lines += [*self._section("privilege"), *self._section("object"), *self._section("unknown")]
        if not self.findings:
            lines.append("Nothing is missing.")
        if self.costs:
            lines += ["What it may cost:", *(f"  {line}" for line in self.costs)]
            lines.append(f"  (credits of warehouses: {CREDITS}; of nodes, by family: {CONSUMPTION})")
        return "\n".join(lines)

    def _section(self, what: str) -> list[str]:
        found = self.of(what)
        if not found:
            return []
        lines = [_TITLES[what]]
        for finding in found:
            end = ";" if finding.grant else ""
            lines.append(f"  {finding}{end}  -- {', '.join(finding.steps)}")
        return lines


_TITLES = {
    "privilege": "Missing privileges:",
    "object": "Missing objects:",
    "unknown": "Not known:",
}
