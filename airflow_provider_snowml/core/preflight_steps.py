"""What a DAG will do, in the operators' own terms, and what each step needs and costs.

Each step stands for one operator and takes its arguments by the same names, as far as privileges and costs
depend on them. What a run makes for itself, such as tables in a run's schema, need not be named: its role
owns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, StageLocation
from airflow_provider_snowml.core.privileges import OWNERSHIP, Need


@dataclass(frozen=True)
class Use:
    """Something that a step lets run and that costs: nodes of a compute pool.

    :param compute_pool: where.
    :param what: what runs there.
    :param nodes: on how many nodes at most; ``None`` for as many as the pool has.
    :param seconds: for how long at most; ``None`` if nothing ends it.
    """

    compute_pool: Identifier
    what: str
    nodes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a DAG. Each argument that is a name may be templated."""

    uses_warehouse: ClassVar[bool] = True

    def needs(self, default: SchemaName) -> list[Need]:
        """What the role needs, on what.

        :param default: where unqualified names are.
        :raises InvalidNameError: for a name that is none.
        """
        raise NotImplementedError

    def makes(self, default: SchemaName) -> list[tuple[str, QualifiedName]]:
        """What need not be there for later steps, because this one makes it: kinds and names."""
        return [
            (need.kind, need.name)
            for need in self.needs(default)
            if need.creates is not None and isinstance(need.name, QualifiedName)
        ]

    def uses(self) -> list[Use]:
        """What it lets run besides the warehouse."""
        return []

    def __str__(self) -> str:
        subject = next((getattr(self, field.name) for field in fields(self)), "")
        return f"{type(self).__name__} {subject}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Register(Step):
    """:class:`.SnowMLRegisterModelOperator`.

    :param model_name: the model.
    :param source_model: the model that a version is copied from.
    :param compute_pool_for_log: the compute pool in which Snowflake fetches the model.
    :param tags: the tags that it gets.
    """

    model_name: str
    source_model: str | None = None
    compute_pool_for_log: str | None = None
    tags: Sequence[str] | Mapping[str, str] = ()

    def needs(self, default: SchemaName) -> list[Need]:
        """CREATE MODEL, or OWNERSHIP of the one that is there."""
        # Of its stage nothing: CREATE STAGE is for permanent ones.
        return [
            Need("MODEL", _name(self.model_name, default), (OWNERSHIP,), creates="CREATE MODEL"),
            *_on("MODEL", self.source_model, default, "READ"),
            *_pool(self.compute_pool_for_log),
            *(need for tag in self.tags for need in _on("TAG", tag, default, "APPLY")),
        ]

    def uses(self) -> list[Use]:
        """The job that fetches the model."""
        pool = self.compute_pool_for_log
        return [Use(_identifier(pool), "fetching the model", nodes=1)] if pool else []


@dataclass(frozen=True, kw_only=True)
class Evaluate(Step):
    """:class:`.SnowMLEvaluateModelOperator` or :class:`.SnowMLChampionChallengerOperator`.

    :param model_name: the model.
    :param input_table: the table or view, or several, that the rows come from.
    :param stored_as: under which name the result is kept on the version; ``None`` if it is not.
    """

    model_name: str
    input_table: str | Sequence[str] = ()
    stored_as: str | None = "evaluation"

    def needs(self, default: SchemaName) -> list[Need]:
        """USAGE of the model and SELECT on the rows; OWNERSHIP to keep the result."""
        privilege = OWNERSHIP if self.stored_as else "USAGE"
        return [*_on("MODEL", self.model_name, default, privilege), *_selects(self.input_table, default)]


@dataclass(frozen=True, kw_only=True)
class Promote(Step):
    """:class:`.SnowMLPromoteModelOperator` or :class:`.SnowMLRollbackModelOperator`.

    :param model_name: the model.
    :param tag: the tag that says which version is live.
    :param create_tag: whether it is made if it is missing.
    :param copy_to: the model that the version is copied to.
    """

    uses_warehouse = False

    model_name: str
    tag: str | None = None
    create_tag: bool = False
    copy_to: str | None = None

    def needs(self, default: SchemaName) -> list[Need]:
        """OWNERSHIP of the model, APPLY on the tag."""
        creates = "CREATE TAG" if self.create_tag else None
        needs = [
            *_on("MODEL", self.model_name, default, OWNERSHIP),
            *_on("TAG", self.tag, default, "APPLY", creates=creates),
        ]
        return needs + _on("MODEL", self.copy_to, default, OWNERSHIP, creates="CREATE MODEL")


@dataclass(frozen=True, kw_only=True)
class Update(Step):
    """:class:`.SnowMLUpdateModelOperator`.

    :param model_name: the model.
    :param tags: the tags that it gets.
    """

    uses_warehouse = False

    model_name: str
    tags: Sequence[str] | Mapping[str, str] = ()

    def needs(self, default: SchemaName) -> list[Need]:
        """OWNERSHIP of the model, APPLY on the tags."""
        tags = [need for tag in self.tags for need in _on("TAG", tag, default, "APPLY")]
        return _on("MODEL", self.model_name, default, OWNERSHIP) + tags


@dataclass(frozen=True, kw_only=True)
class Export(Step):
    """:class:`.SnowMLExportModelOperator`.

    :param model_name: the model.
    :param path: where it goes; only a stage's ``@stage/path`` needs a privilege.
    """

    uses_warehouse = False

    model_name: str
    path: str

    def needs(self, default: SchemaName) -> list[Need]:
        """READ and USAGE of the model, READ and WRITE on the stage."""
        stage = self.path if self.path.startswith("@") else None
        return [
            *_on("MODEL", self.model_name, default, "READ", "USAGE"),
            *_stage(stage, default, "READ", "WRITE"),
        ]


@dataclass(frozen=True, kw_only=True)
class RunModel(Step):
    """:class:`.SnowMLRunModelOperator`.

    :param model_name: the model.
    :param input_table: the table or view, or several, that the rows come from.
    :param output_table: the table that is written.
    :param write_mode: how: ``"replace"``, ``"replace_where"`` or ``"append"``.
    """

    model_name: str
    input_table: str | Sequence[str] = ()
    output_table: str | None = None
    write_mode: str = "replace"

    def needs(self, default: SchemaName) -> list[Need]:
        """USAGE of the model, SELECT on the rows, and what the table is written with."""
        return [
            *_on("MODEL", self.model_name, default, "USAGE"),
            *_selects(self.input_table, default),
            *_writes(self.output_table, default, self.write_mode),
        ]


@dataclass(frozen=True, kw_only=True)
class RunBatch(Step):
    """:class:`.SnowMLBatchInferenceOperator`.

    :param model_name: the model.
    :param compute_pool: the compute pool in which the job runs.
    :param output_stage_location: the directory that it writes into.
    :param input_table: the table or view, or several, that the rows come from.
    :param input_stage_location: the directory that they come from, instead.
    :param image_repo: the image repository.
    :param replicas: instances of the job.
    :param timeout: seconds after which the operator cancels it.
    """

    model_name: str
    compute_pool: str
    output_stage_location: str
    input_table: str | Sequence[str] = ()
    input_stage_location: str | None = None
    image_repo: str | None = None
    replicas: int | None = None
    timeout: float = 24 * 3600.0

    def needs(self, default: SchemaName) -> list[Need]:
        """CREATE SERVICE, the compute pool, the model's files and the stages."""
        return [
            Need("SCHEMA", default, ("CREATE SERVICE", "CREATE FILE FORMAT")),
            *_on("MODEL", self.model_name, default, "READ"),
            *_pool(self.compute_pool),
            *_stage(self.output_stage_location, default, "READ", "WRITE"),
            *_stage(self.input_stage_location, default, "READ"),
            *_selects(self.input_table, default),
            *_on("IMAGE REPOSITORY", self.image_repo, default, "READ", "WRITE"),
        ]

    def uses(self) -> list[Use]:
        """The job, and the image of a version that has none yet."""
        pool = _identifier(self.compute_pool)
        nodes = int(self.replicas) if self.replicas else None
        return [Use(pool, "the job", nodes, float(self.timeout)), Use(pool, "an image build", 1)]


@dataclass(frozen=True, kw_only=True)
class Load(Step):
    """:class:`.SnowMLLoadPredictionsOperator`.

    :param output_table: the table that is written.
    :param stage: the stage that the predictions lie in, ``[[database.]schema.]name``.
    :param create_table: whether it is made if it is missing.
    :param on_schema_change: ``"add_columns"`` if it may be altered.
    """

    output_table: str
    stage: str | None = None
    create_table: bool = True
    on_schema_change: str = "fail"

    def needs(self, default: SchemaName) -> list[Need]:
        """READ on the stage, and what the table is written with."""
        table = _name(self.output_table, default)
        privileges = (OWNERSHIP,) if self.on_schema_change == "add_columns" else ("INSERT", "DELETE")
        return [
            Need("TABLE", table, privileges, creates="CREATE TABLE" if self.create_table else None),
            Need("SCHEMA", table.parent, ("CREATE FILE FORMAT",)),
            *_on("STAGE", self.stage, default, "READ"),
        ]


@dataclass(frozen=True, kw_only=True)
class Deploy(Step):
    """:class:`.SnowMLCreateServiceOperator`.

    :param model_name: the model.
    :param service_name: the service.
    :param service_compute_pool: the compute pool it runs in.
    :param image_build_compute_pool: the one its image is built in; that of the service if it is left out.
    :param image_repo: the image repository.
    :param max_instances: instances, at most.
    :param ingress_enabled: whether it can be called from outside Snowflake.
    """

    uses_warehouse = False

    model_name: str
    service_name: str
    service_compute_pool: str
    image_build_compute_pool: str | None = None
    image_repo: str | None = None
    max_instances: int = 1
    ingress_enabled: bool = False

    def needs(self, default: SchemaName) -> list[Need]:
        """CREATE SERVICE, the compute pools, the model's files and the image repository."""
        service = _name(self.service_name, default)
        ingress = [Need("ACCOUNT", None, ("BIND SERVICE ENDPOINT",))] if self.ingress_enabled else []
        return [
            Need("SERVICE", service, ("MONITOR", "OPERATE"), creates="CREATE SERVICE"),
            *_on("MODEL", self.model_name, default, "READ"),
            *_pool(self.service_compute_pool),
            *_pool(self.image_build_compute_pool),
            *_on("IMAGE REPOSITORY", self.image_repo, default, "READ", "WRITE"),
            *ingress,
        ]

    def uses(self) -> list[Use]:
        """The instances, and the image of a version that has none yet."""
        pool = _identifier(self.service_compute_pool)
        build = _identifier(self.image_build_compute_pool or self.service_compute_pool)
        return [Use(pool, "the service", int(self.max_instances)), Use(build, "an image build", 1)]


@dataclass(frozen=True, kw_only=True)
class Monitor(Step):
    """:class:`.SnowMLCreateMonitorOperator`. Its warehouse goes on computing after the DAG has ended.

    :param model_name: the model, in whose schema it is made.
    :param source: the table or view that it watches, if it is there before the run.
    :param baseline: the one that it compares with, likewise.
    """

    model_name: str
    source: str | None = None
    baseline: str | None = None

    def needs(self, default: SchemaName) -> list[Need]:
        """CREATE MODEL MONITOR, USAGE of the model, SELECT on source and baseline."""
        model = _name(self.model_name, default)
        return [
            Need("SCHEMA", model.parent, ("CREATE MODEL MONITOR",)),
            Need("MODEL", model, ("USAGE",)),
            *_selects([table for table in (self.source, self.baseline) if table], default),
        ]


@dataclass(frozen=True, kw_only=True)
class RunSchema(Step):
    """:class:`.SnowMLRunSchemaOperator`.

    :param database: where it is made; that of the connection if it is left out.
    """

    uses_warehouse = False

    database: str = ""

    def needs(self, default: SchemaName) -> list[Need]:
        """CREATE SCHEMA on the database."""
        database = _identifier(self.database) if self.database else default.database
        return [Need("DATABASE", database, ("CREATE SCHEMA",))]


@dataclass(frozen=True, kw_only=True)
class Retire(Step):
    """:class:`.SnowMLPruneModelVersionsOperator` or :class:`.SnowMLDeleteModelOperator`.

    :param model_name: the model.
    """

    uses_warehouse = False

    model_name: str

    def needs(self, default: SchemaName) -> list[Need]:
        """OWNERSHIP of the model."""
        return _on("MODEL", self.model_name, default, OWNERSHIP)


@dataclass(frozen=True, kw_only=True)
class SuspendIdle(Step):
    """:class:`.SnowMLSuspendIdleOperator`.

    :param compute_pools: the compute pools that may be suspended.
    :param service_names: the services that may be, as far as they are named.
    """

    uses_warehouse = False

    compute_pools: str | Sequence[str] = ()
    service_names: str | Sequence[str] = ()

    def needs(self, default: SchemaName) -> list[Need]:
        """OPERATE on each of them."""
        pools = [Need("COMPUTE POOL", _identifier(it), ("OPERATE",)) for it in _texts(self.compute_pools)]
        services = [
            need for it in _texts(self.service_names) for need in _on("SERVICE", it, default, "OPERATE")
        ]
        return pools + services


@dataclass(frozen=True, kw_only=True)
class Query(Step):
    """Any other SQL.

    :param reads: the tables and views that it reads.
    :param writes: the tables that it makes, or makes anew.
    :param views: the views that it makes, or makes anew.
    """

    reads: str | Sequence[str] = ()
    writes: str | Sequence[str] = ()
    views: str | Sequence[str] = ()

    def needs(self, default: SchemaName) -> list[Need]:
        """SELECT on what it reads, CREATE or OWNERSHIP for what it writes."""
        writes = [need for table in _texts(self.writes) for need in _writes(table, default, "replace")]
        for view in _texts(self.views):
            writes += _on("TABLE", view, default, OWNERSHIP, creates="CREATE VIEW")
        return _selects(self.reads, default) + writes

    def __str__(self) -> str:
        return f"Query {', '.join([*_texts(self.reads), *_texts(self.writes), *_texts(self.views)])}"


def _texts(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _identifier(text: str, what: str = "compute pool") -> Identifier:
    return Identifier.parse(text, what=what)


def _name(text: str, default: SchemaName) -> QualifiedName:
    return QualifiedName.parse(text, default)


def _on(
    kind: str, text: str | None, default: SchemaName, *privileges: str, creates: str | None = None
) -> list[Need]:
    return [Need(kind, _name(text, default), privileges, creates)] if text else []


def _selects(tables: str | Sequence[str], default: SchemaName) -> list[Need]:
    return [need for table in _texts(tables) for need in _on("TABLE", table, default, "SELECT")]


def _writes(table: str | None, default: SchemaName, write_mode: str) -> list[Need]:
    privileges = {"replace": (OWNERSHIP,), "append": ("INSERT",)}.get(write_mode, ("INSERT", "DELETE"))
    return _on("TABLE", table, default, *privileges, creates="CREATE TABLE")


def _pool(text: str | None) -> list[Need]:
    return [Need("COMPUTE POOL", _identifier(text), ("USAGE",))] if text else []


def _stage(text: str | None, default: SchemaName, *privileges: str) -> list[Need]:
    return [Need("STAGE", StageLocation.parse(text, default).stage, privileges)] if text else []
