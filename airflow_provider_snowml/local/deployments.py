"""SYSTEM$DEPLOY_MODEL: the image of a model version, then a service that answers with it.

Simulated: the image (see build_worker), CPU and memory requests, and workers, which are threads of
one process. A service has ``min_instances`` instances, or one; it neither scales up to
``max_instances`` nor suspends itself when idle.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import yaml

from . import compute_pools, image_builds, images, models, services, services_sql
from .catalog import Object, Qualified, account_level
from .containers import FAILED, PENDING
from .errors import SnowflakeError, already_exists, compilation_error, unsupported
from .functions import system_function
from .grammar import Reader, parse_name
from .models import Model, Version
from .scope import require_schema

if TYPE_CHECKING:
    from .session import Session

_BLOCKS: dict[str, set[str]] = {
    "image_build": {"compute_pool", "image_repo", "force_rebuild", "external_access_integrations"},
    "service": {
        "name", "compute_pool", "ingress_enabled", "min_instances", "max_instances", "cpu", "memory",
        "gpu", "num_workers", "max_batch_rows", "autocapture", "inference_engine_spec",
        "feature_retrieval", "adapters",
    },
}  # fmt: skip
_NOT_HERE = ("autocapture", "inference_engine_spec", "feature_retrieval", "adapters")


@dataclass(frozen=True)
class Deployment:
    """What is asked for, checked."""

    model: Model
    version: Version
    name: Qualified
    pool: Object
    build_pool: Object
    image: str
    force_rebuild: bool
    service: dict[str, Any]


@system_function("SYSTEM$DEPLOY_MODEL")
def deploy_model(session: Session, specification: str) -> str:
    """Build the image unless there is one, create the service, and wait until it is ready.

    :param specification: the deployment in YAML, or the stage location of a file with it.
    """
    found = _check(session, read_specification(_text(session, specification)))
    image_builds.ensure(
        session,
        found.name,
        pool=found.build_pool,
        image=found.image,
        model=found.model,
        version=found.version,
        force=found.force_rebuild,
    )
    service = _create(session, found)
    _wait_until_ready(session, service)
    return f"Model {found.model.name} version {found.version.name} deployed as service {found.name}."


def _text(session: Session, specification: str) -> str:
    if not specification.startswith("@"):
        return specification
    file = session.account.stages.locate(session, specification).directory
    if not file.is_file():
        raise SnowflakeError(2003, "02000", f"Remote file '{specification}' was not found.")
    return file.read_text()


def read_specification(text: str) -> dict[str, Any]:
    """Parse the YAML and refuse what is not known, by name."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise _bad(f"not valid YAML: {e}") from None
    if not isinstance(found, dict):
        raise _bad("not a YAML mapping")
    if found.get("model_loggings"):
        raise unsupported("model_loggings of SYSTEM$DEPLOY_MODEL")
    for block in set(found) - {"models", "model_loggings", *_BLOCKS}:
        raise _bad(f"unknown key '{block}'")
    for block, known in _BLOCKS.items():
        values = found.setdefault(block, {})
        if not isinstance(values, dict):
            raise _bad(f"'{block}' is not a mapping")
        for key in values:
            if key not in known:
                raise _bad(f"unknown key '{block}.{key}'")
            if key in _NOT_HERE and values[key]:
                raise unsupported(f"{block}.{key} of SYSTEM$DEPLOY_MODEL")
    served = found.get("models")
    if not isinstance(served, list) or len(served) != 1 or not isinstance(served[0], dict):
        raise _bad("'models' is not a list of one model")
    for where, values, keys in (
        ("models[0]", served[0], ("name", "version")),
        ("service", found["service"], ("name", "compute_pool")),
    ):
        for key in keys:
            if not isinstance(values.get(key), str):
                raise _bad(f"'{where}.{key}' is missing or no text")
    return found


def _bad(why: str) -> SnowflakeError:
    return SnowflakeError(395018, "22023", f"Invalid model deployment specification: {why}.")


def _check(session: Session, spec: dict[str, Any]) -> Deployment:
    """Everything is checked before anything starts."""
    model = models.get(session, session.resolve(parse_name(spec["models"][0]["name"])))
    version = model.version(Reader(spec["models"][0]["version"]).identifier())
    service, build = spec["service"], spec["image_build"]
    name = session.resolve(parse_name(service["name"]))
    if not re.fullmatch(r"[A-Z_][A-Z0-9_$]*", name.name):
        raise compilation_error(f"invalid service name '{name.name}': an unquoted identifier is needed.")
    require_schema(session, name.database, name.schema)
    if session.account.catalog.find("SERVICE", name):
        raise already_exists(str(name))
    if "SNOWPARK_CONTAINER_SERVICES" not in version.runnable_in:
        raise compilation_error(
            f"Model {model.name} version {version.name} cannot run in Snowpark Container Services;"
            f" its target platforms are {', '.join(version.runnable_in)}."
        )
    if all(m.type == "TABLE_FUNCTION" for m in version.methods):
        raise compilation_error(
            f"Model {model.name} version {version.name} has table functions only, which a"
            " service does not offer."
        )
    pool = _pool(session, service["compute_pool"])
    checked = {
        "ingress_enabled": bool(service.get("ingress_enabled", False)),
        "min_instances": _number(service, "min_instances", 0),
        "max_instances": _number(service, "max_instances", 1),
        "num_workers": _number(service, "num_workers", 1) or 1,
        "max_batch_rows": _number(service, "max_batch_rows", None),
        "requests": {k: service[k] for k in ("cpu", "memory", "gpu") if service.get(k)},
    }
    services_sql.check_instances(checked["min_instances"], checked["max_instances"])
    gpus = service.get("gpu")
    if gpus not in (None, "0", 0) and not pool.data["instance_family"].startswith("GPU"):
        raise compilation_error(
            f"The service requests {gpus} GPU(s), but compute pool {pool.name} of instance family"
            f" {pool.data['instance_family']} has none."
        )
    return Deployment(
        model,
        version,
        name,
        pool,
        _pool(session, build.get("compute_pool") or service["compute_pool"]),
        images.image_name(session, build.get("image_repo"), version),
        bool(build.get("force_rebuild", False)),
        checked,
    )


def _pool(session: Session, name: str) -> Object:
    return session.account.catalog.get("COMPUTE POOL", account_level(parse_name(name)))


def _number(values: dict[str, Any], key: str, default: int | None) -> Any:
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or value < 0:
        raise _bad(f"'service.{key}' is {value!r}, not a number")
    return value


def _create(session: Session, found: Deployment) -> Object:
    account = session.account
    directory = models.directory(session, found.model, found.version)
    offered = [m for m in found.version.methods if m.type != "TABLE_FUNCTION"]
    functions = [
        {
            "path": "/" + m.target_method.replace("_", "-"),
            "handler": m.handler,
            "inputs": m.plain_inputs,
            "params": m.params,
            "output": m.outputs[0][0] or "output_feature_0",
        }
        for m in offered
    ]
    ready = compute_pools.is_ready(session.account, found.pool)
    service = found.service
    data = {
        "id": uuid.uuid4().hex,
        "container": services.CONTAINER,
        "compute_pool": found.pool.name.name,
        "warehouse": session.warehouse,
        "model": str(found.model.name),
        "version_id": found.version.id,
        "methods": [asdict(m) for m in offered],
        "image": found.image,
        "spec": _shown(services.CONTAINER, found, service["requests"], service["ingress_enabled"]),
        "waits_for_pool": not ready,
        "suspended": False,
        "auto_resume": True,
        "auto_suspend_secs": 0 if service["min_instances"] else 1800,
        "changed": time.time(),
        **{k: service[k] for k in ("ingress_enabled", "min_instances", "max_instances", "max_batch_rows")},
        "worker": {
            "model": str(found.model.name),
            "version": found.version.name,
            "package": str(directory),
            "functions": functions,
            "num_workers": service["num_workers"],
        },
    }
    created = account.catalog.create("SERVICE", found.name, session.role, data)
    if ready:
        services.start(account, created)
    return created


def _shown(container: str, found: Deployment, requests: dict[str, Any], public: bool | None) -> str:
    """What DESCRIBE SERVICE shows; clients read the container's environment from it."""
    environment = {
        "MODEL": str(found.model.name),
        "MODEL_VERSION": found.version.name,
        "SPCS_MODEL_INFERENCE_SERVER__AUTOCAPTURE_ENABLED": "false",
    }
    one = {
        "name": container,
        "image": found.image,
        "env": environment,
        "resources": {"requests": requests},
    }
    spec: dict[str, Any] = {"containers": [one]}
    if public is not None:
        spec["endpoints"] = [{"name": "inference", "port": services_sql.PORT, "public": public}]
    return str(yaml.safe_dump({"spec": spec}, sort_keys=False))


def _wait_until_ready(session: Session, service: Object) -> None:
    account = session.account
    while True:
        current = account.catalog.find("SERVICE", service.name)
        if current is None or current.data["id"] != service.data["id"]:
            raise SnowflakeError(395017, "P0000", f"Service {service.name} was dropped before it was ready.")
        became = services.state(account, current)
        if became["status"] == FAILED:
            raise SnowflakeError(395017, "P0000", f"Service {service.name} failed: {became['message']}")
        if became["status"] != PENDING:
            return
        services.pause(0.1)
