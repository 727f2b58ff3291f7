"""EXECUTE INFERENCE JOB SERVICE: a model on many rows, in a process of its own."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from . import compute_pools, image_builds, images, job_worker, models, services
from .catalog import Object, Qualified
from .containers import CANCELLED, DONE, ENDED
from .errors import SnowflakeError, already_exists, compilation_error, invalid_value, unsupported
from .faults import STATEMENT_KINDS
from .grammar import Reader
from .job_input import ENCODINGS
from .models import Method, Model, Version
from .parquet import dictionary_columns
from .results import Result, rows
from .statements import statement

if TYPE_CHECKING:
    from .session import Session

RESERVED_INPUT = "_snowflake_temporary/"
_SPECIFICATION: dict[str, set[str]] = {
    "input": {"params", "column_handling", "partition_column", "layout"},
    "output": {"stage_location", "mode"},
    "resources": {"cpu_requests", "memory_requests", "gpu_requests"},
    "inference": {"num_workers", "max_batch_rows", "engine_options", "adapters"},
    "image_build": {"image_repo", "force_rebuild"},
}
_NOT_HERE = ("layout", "adapters")
_ENGINES = ("VLLM", "PYTHON_GENERIC")


@statement("EXECUTE INFERENCE JOB SERVICE")
def execute_inference_job_service(session: Session, reader: Reader) -> Result:
    """Everything is checked before anything starts; the order of the clauses is fixed."""
    reader.expect("EXECUTE", "INFERENCE", "JOB", "SERVICE")
    reader.expect("IN", "COMPUTE", "POOL")
    pool = compute_pools.find(session, reader)
    reader.expect("WITH", "SPECIFICATION")
    spec = read_specification(reader.string())
    reader.expect("FROM")
    source = _read_source(reader)
    reader.expect("MODEL")
    reader.accept_symbol("=")
    model = models.get(session, session.resolve(reader.name()))
    options = _read_options(reader)
    version = model.version(options.get("VERSION"))
    method = _method(model, version, options.get("FUNCTION"))
    name = options.get("NAME") or Qualified(
        model.name.database, model.name.schema, f"BATCH_INFERENCE_{uuid.uuid4().hex}".upper()
    )
    if not isinstance(name, Qualified):
        name = session.resolve(name)
    if not re.fullmatch(r"[A-Z_][A-Z0-9_$]*", name.name):
        raise compilation_error(f"invalid job name '{name.name}': an unquoted identifier is needed.")
    if session.account.catalog.find("SERVICE", name):
        raise already_exists(str(name))
    replicas = options.get("REPLICAS", 1)
    _check_resources(spec, pool, replicas)
    engine = (spec["inference"].get("engine_options") or {}).get("engine")
    if engine == "VLLM" and "messages" not in (name.strip('"').lower() for name in method.plain_inputs):
        raise compilation_error(
            f"Engine VLLM needs a function with OpenAI's chat signature; {method.target_method} of model"
            f" {model.name} has no messages."
        )
    build = spec["image_build"]
    image_builds.ensure(
        session,
        name,
        pool=pool,
        image=images.image_name(session, build.get("image_repo"), version, "batch-inference"),
        model=model,
        version=version,
        force=bool(build.get("force_rebuild")),
    )
    if fault := session.account.faults.for_job(name.name, session.user, STATEMENT_KINDS):
        services.pause(fault["seconds"])
    service = _create(session, name, pool, spec, source, model, version, method, options)
    if options.get("ASYNC", True):
        message = f"Batch inference job {name} started successfully."
        return rows(["status"], [[message]])
    return _wait(session, service)


def read_specification(text: str) -> dict[str, dict[str, Any]]:
    """Parse the YAML and refuse what is not known, by name."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise _bad_specification(f"not valid YAML: {e}") from None
    if not isinstance(found, dict):
        raise _bad_specification("not a YAML mapping")
    for block, values in found.items():
        if block not in _SPECIFICATION:
            raise _bad_specification(f"unknown key '{block}'")
        if not isinstance(values, dict):
            raise _bad_specification(f"'{block}' is not a mapping")
        for key in values:
            if key not in _SPECIFICATION[block]:
                raise _bad_specification(f"unknown key '{block}.{key}'")
            if key in _NOT_HERE and values[key]:
                raise unsupported(f"{block}.{key} of a batch inference job")
    spec = {block: found.get(block) or {} for block in _SPECIFICATION}
    location = spec["output"].get("stage_location")
    if not isinstance(location, str) or not location.startswith("@"):
        raise _bad_specification("'output.stage_location' is missing or does not start with '@'")
    if spec["output"].get("mode", "error") not in ("error", "overwrite"):
        raise _bad_specification(f"'output.mode' is {spec['output']['mode']!r}, not error or overwrite")
    for block, key in (("inference", "num_workers"), ("inference", "max_batch_rows")):
        value = spec[block].get(key)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise _bad_specification(f"'{block}.{key}' is {value!r}, not a number above 0")
    if not isinstance(spec["input"].get("params") or {}, dict):
        raise _bad_specification("'input.params' is not a mapping")
    _check_column_handling(spec["input"].get("column_handling") or {})
    _check_engine(spec["inference"].get("engine_options") or {})
    return spec


def _check_column_handling(handling: Any) -> None:
    if not isinstance(handling, dict):
        raise _bad_specification("'input.column_handling' is not a mapping")
    for column, options in handling.items():
        if (
            not isinstance(options, dict)
            or options.keys() != {"input_format", "convert_to"}
            or options["input_format"] != "full_stage_path"
            or options["convert_to"] not in ENCODINGS
        ):
            raise _bad_specification(f"'input.column_handling.{column}' is {options!r}")


def _check_engine(options: Any) -> None:
    if not isinstance(options, dict) or options.keys() - {"engine", "engine_args_override"}:
        raise _bad_specification(f"'inference.engine_options' is {options!r}")
    if options.get("engine") not in (None, *_ENGINES):
        raise _bad_specification(f"'inference.engine_options.engine' is {options['engine']!r}")
    arguments = options.get("engine_args_override") or []
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        raise _bad_specification("'inference.engine_options.engine_args_override' is not a list of texts")


def _bad_specification(why: str) -> SnowflakeError:
    return SnowflakeError(395018, "22023", f"Invalid batch inference job specification: {why}.")


def _read_source(reader: Reader) -> str:
    """A stage location with its ``@``, or the text of a query."""
    token = reader.peek()
    if token.kind == "stage":
        return reader.next().text
    if token.kind == "string" and token.text.startswith("'@"):
        return reader.string()
    return reader.parenthesised()


def _read_options(reader: Reader) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key in ("VERSION", "FUNCTION", "NAME", "ASYNC", "REPLICAS", "COMMENT"):
        if not reader.accept(key):
            continue
        reader.accept_symbol("=")
        if key == "VERSION":
            options[key] = reader.string().upper() if reader.is_string() else reader.identifier()
        elif key == "NAME":
            options[key] = reader.name()
        elif key == "REPLICAS":
            options[key] = reader.integer()
        elif key == "ASYNC":
            options[key] = _boolean(reader)
        else:
            options[key] = reader.string()
    reader.done()
    return options


def _boolean(reader: Reader) -> bool:
    if reader.accept("TRUE"):
        return True
    reader.expect("FALSE")
    return False


def _method(model: Model, version: Version, name: str | None) -> Method:
    if "SNOWPARK_CONTAINER_SERVICES" not in version.runnable_in:
        raise compilation_error(
            f"Model {model.name} version {version.name} cannot run in Snowpark Container Services;"
            f" its target platforms are {', '.join(version.runnable_in)}."
        )
    known = ", ".join(m.target_method for m in version.methods)
    if name is None:
        if len(version.methods) != 1:
            raise compilation_error(
                f"Model {model.name} version {version.name} has several functions ({known});"
                " name one with FUNCTION = '...'."
            )
        return version.methods[0]
    found = version.method(name)
    if found is None:
        raise SnowflakeError(
            2143,
            "42601",
            f"SQL compilation error:\nUnknown function {name} in model {model.name} version"
            f" {version.name}; it has {known}.",
        )
    return found


def _check_resources(spec: dict[str, dict[str, Any]], pool: Object, replicas: int) -> None:
    gpus = spec["resources"].get("gpu_requests")
    if gpus not in (None, "0", 0) and not pool.data["instance_family"].startswith("GPU"):
        raise compilation_error(
            f"The job requests {gpus} GPU(s), but compute pool {pool.name} of instance family"
            f" {pool.data['instance_family']} has none."
        )
    if not 1 <= replicas <= pool.data["max_nodes"]:
        raise invalid_value(
            f"REPLICAS ({replicas}) must be between 1 and MAX_NODES ({pool.data['max_nodes']})"
            f" of compute pool {pool.name}."
        )


def _create(
    session: Session,
    name: Qualified,
    pool: Object,
    spec: dict[str, dict[str, Any]],
    source: str,
    model: Model,
    version: Version,
    method: Method,
    options: dict[str, Any],
) -> Object:
    account = session.account
    id_ = uuid.uuid4().hex
    base = account.stages.locate(session, spec["output"]["stage_location"])
    output = base.directory / name.name
    if source.startswith("@"):
        where = account.stages.locate(session, source)
        reserved = where.directory.is_relative_to(base.directory / RESERVED_INPUT)
        if where.directory.is_relative_to(base.directory) and not reserved:
            raise _bad_specification(
                f"the input {source} lies inside the output location {spec['output']['stage_location']}"
            )
        read_from, rows_in = where.directory, None
    else:
        read_from, rows_in = account.containers.directory(id_) / "input", session.query(source)
    mode = spec["output"].get("mode", "error")
    if mode == "error" and output.exists() and any(output.iterdir()):
        raise SnowflakeError(
            395019,
            "22000",
            f"Output location {spec['output']['stage_location'].rstrip('/')}/{name.name}/ is not"
            " empty and the job's save mode is error.",
        )
    worker_spec = _worker_spec(session, model, version, method, spec, read_from, output)
    worker_spec["fault"] = account.faults.for_job(name.name, session.user)
    account.containers.create(id_, worker_spec)
    if rows_in is not None:
        write_input(read_from, rows_in)
    ready = compute_pools.is_ready(session.account, pool)
    try:
        service = account.catalog.create(
            "SERVICE",
            name,
            session.role,
            {
                "id": id_,
                "compute_pool": pool.name.name,
                "replicas": options.get("REPLICAS", 1),
                "warehouse": session.warehouse,
                "async": options.get("ASYNC", True),
                "model": str(model.name),
                "spec": _service_specification(spec, model, version),
                "waits_for_pool": not ready,
            },
            options.get("COMMENT", ""),
        )
    except SnowflakeError:  # another statement took the name meanwhile
        account.containers.remove(id_)
        raise
    if ready:
        account.containers.start(id_, job_worker.main)
    return service


def _worker_spec(
    session: Session,
    model: Model,
    version: Version,
    method: Method,
    spec: dict[str, dict[str, Any]],
    read_from: Path,
    output: Path,
) -> dict[str, Any]:
    return {
        "model": str(model.name),
        "version": version.name,
        "function": method.name,
        "method": method.target_method,
        "handler": method.handler,
        "type": method.type,
        "argument_names": [method.plain_inputs, method.params],
        "package": str(models.directory(session, model, version)),
        "input": str(read_from),
        "output": str(output),
        "mode": spec["output"].get("mode", "error"),
        "params": spec["input"].get("params") or {},
        "partition_column": spec["input"].get("partition_column"),
        "max_batch_rows": spec["inference"].get("max_batch_rows"),
        "column_handling": spec["input"].get("column_handling") or {},
        "stages": _readable_stages(session) if spec["input"].get("column_handling") else {},
        "engine": (spec["inference"].get("engine_options") or {}).get("engine"),
    }


def _readable_stages(session: Session) -> dict[str, str]:
    """The directories of the stages whose files a job can read; not those that the client encrypts."""
    account = session.account
    return {
        ".".join(stage.name): str(account.stages.root / stage.data["directory"])
        for stage in account.catalog.list("STAGE")
        if stage.data["encryption"] == "SNOWFLAKE_SSE"
        and not stage.data.get("url")
        and not stage.data.get("temporary")
    }


def write_input(directory: Path, table: pa.Table) -> None:
    """The rows of ``FROM (query)`` as Parquet, decimals as the numbers that models take."""
    directory.mkdir(parents=True)
    for i, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            plain = pa.int64() if field.type.scale == 0 else pa.float64()
            table = table.set_column(i, field.name, table.column(i).cast(plain))
    pq.write_table(table, directory / "data.parquet", use_dictionary=dictionary_columns(table.schema))


def _service_specification(spec: dict[str, dict[str, Any]], model: Model, version: Version) -> str:
    """What DESCRIBE SERVICE shows; clients read the containers and volumes from it."""
    requests = {k.removesuffix("_requests"): v for k, v in spec["resources"].items() if v}
    container = {
        "name": services.JOB_CONTAINER,
        "image": "local/model-inference",
        "env": {"MODEL": str(model.name), "MODEL_VERSION": version.name},
        "resources": {"requests": requests},
        "volumeMounts": [],
    }
    whole = {"spec": {"containers": [container], "volumes": []}}
    return str(yaml.safe_dump(whole, sort_keys=False))


def _wait(session: Session, service: Object) -> Result:
    """ASYNC = FALSE: until the job has ended."""
    while (found := services.state(session.account, service))["status"] not in ENDED:
        services.pause(0.1)
    if found["status"] == DONE:
        done = f"Batch inference job {service.name} completed successfully with status: DONE."
        return rows(["status"], [[done]])
    how = "was cancelled" if found["status"] == CANCELLED else "failed to complete"
    raise SnowflakeError(
        395017,
        "P0000",
        f"Job {service.name} {how}: {found['message']}. Exited with status: {found['status']}.",
    )
