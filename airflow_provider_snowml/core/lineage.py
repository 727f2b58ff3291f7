"""What a task reads and writes, and what OpenLineage calls it.

OpenLineage names the tables of Snowflake: ``<database>.<schema>.<table>``, as Snowflake resolves the names,
in a namespace of the account (https://openlineage.io/docs/spec/naming). It has no names for what else is in
a schema. A model can be called what a table is called, so what is no table has its kind in front, as in
Snowflake's own ``snow://model/...`` and ``@stage/...``.

A dataset stays while its versions come and go: a model is one dataset whatever its version, and so is the
directory that batch jobs write to, in which each makes a directory of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_snowml.core.names import QualifiedName, SchemaName, StageLocation


@dataclass(frozen=True)
class LineageDataset:
    """Something that is read or written.

    :param name: its name in its namespace.
    :param type: OpenLineage's ``datasetType``; ``None`` for a table, which may be a view.
    :param version: which version of it, if it has versions.
    :param rows: how many rows were read or written.
    :param change: what became of it: ``"CREATE"``, ``"ALTER"``, ``"OVERWRITE"`` or ``"DROP"``.
    :param model: of a model's version, what is known of it: functions, metrics, alias.
    :param namespace: where it is, if that is not the account.
    """

    name: str
    type: str | None = None
    version: str | None = None
    rows: int | None = None
    change: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    namespace: str | None = None


@dataclass(frozen=True)
class Lineage:
    """What a task reads and writes.

    :param reads: what it reads.
    :param writes: what it has written.
    :param query: a query whose tables it reads, too; without a default, its names are not known.
    :param query_id: the statement that does the work.
    """

    reads: Sequence[LineageDataset] = ()
    writes: Sequence[LineageDataset] = ()
    query: str | None = None
    query_id: str | None = None


def table(
    name: str | QualifiedName,
    default: SchemaName | None = None,
    *,
    rows: int | None = None,
    change: str | None = None,
) -> LineageDataset:
    """A table or view.

    :param name: its name.
    :param default: where an unqualified one is.
    :param rows: how many of its rows.
    :param change: what became of it.
    :raises InvalidNameError: if the name is none, or unqualified without a default.
    """
    return LineageDataset(_name(name, default), rows=rows, change=change)


def tables(
    *names: str | None, default: SchemaName | None = None, rows: int | None = None
) -> list[LineageDataset]:
    """Tables or views; an argument that is left out is none.

    :param names: their names.
    :param default: where unqualified ones are.
    :param rows: how many rows of each.
    :raises InvalidNameError: if a name is none, or unqualified without a default.
    """
    return [table(name, default, rows=rows) for name in names if name]


def model_version(
    model: str | QualifiedName,
    version: str | None = None,
    default: SchemaName | None = None,
    *,
    change: str | None = None,
    **known: Any,
) -> LineageDataset:
    """A version of a model.

    :param model: the model.
    :param version: the version, resolved; ``None`` if it is not known.
    :param default: where an unqualified model is.
    :param change: what became of it.
    :param known: what else is known of the version.
    :raises InvalidNameError: if the name is none, or unqualified without a default.
    """
    found = {name: value for name, value in known.items() if value is not None}
    return LineageDataset(
        f"model/{_name(model, default)}", "MODEL", version=version, change=change, model=found
    )


def model_service(
    name: str, default: SchemaName | None = None, *, version: str | None = None, change: str | None = None
) -> LineageDataset:
    """A model's service.

    :param name: the service.
    :param version: the model's version that it serves.
    :param default: where an unqualified one is.
    :param change: what became of it.
    """
    return LineageDataset(f"service/{_name(name, default)}", "SERVICE", version=version, change=change)


def model_monitor(name: str, *, change: str | None = None) -> LineageDataset:
    """A model monitor.

    :param name: its full name.
    :param change: what became of it.
    """
    return LineageDataset(f"model_monitor/{_name(name)}", "MODEL_MONITOR", change=change)


def directory(location: str, default: SchemaName | None = None) -> LineageDataset:
    """A directory of a stage, or what a URL names.

    :param location: the directory, or a URL, in which a connection may stand before the @.
    :param default: where an unqualified stage is.
    :raises InvalidNameError: if it is none, or unqualified without a default.
    """
    scheme, is_url, rest = location.partition("://")
    if not is_url:
        return _directory(StageLocation.parse(location, default))
    host, _, path = rest.partition("/")
    host = host.rpartition("@")[2]
    # OpenLineage's names: s3://bucket and a/b; file and /a/b.
    if not host:
        return LineageDataset(f"/{path}".rstrip("/"), "FILE", namespace=scheme)
    return LineageDataset(path.rstrip("/") or "/", "FILE", namespace=f"{scheme}://{host}")


def job_output(
    location: str, default: SchemaName | None = None, *, rows: int | None = None
) -> LineageDataset:
    """What a batch job wrote: the directory that holds its own, which is the version.

    :param location: the job's own directory.
    :param default: where an unqualified stage is.
    :param rows: how many rows it has.
    :raises InvalidNameError: if it is none, or unqualified without a default.
    """
    own = StageLocation.parse(location, default)
    base, _, job = own.path.rstrip("/").rpartition("/")
    return _directory(StageLocation(own.stage, f"{base}/" if base else ""), version=job or None, rows=rows)


def _directory(
    location: StageLocation, *, version: str | None = None, rows: int | None = None
) -> LineageDataset:
    path = location.path.rstrip("/")
    name = f"@{_name(location.stage)}" + (f"/{path}" if path else "")
    return LineageDataset(name, "FILE", version=version, rows=rows)


def _name(name: str | QualifiedName, default: SchemaName | None = None) -> str:
    if isinstance(name, str):
        name = QualifiedName.parse(name, default)
    return ".".join(part.name for part in (name.database, name.schema, name.name))
