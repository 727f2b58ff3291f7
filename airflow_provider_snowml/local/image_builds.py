"""Image builds: a job service of its own, which can be seen, followed and cancelled; see build_worker."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

import yaml

from . import compute_pools, images, queries, services
from .catalog import Object, Qualified
from .containers import DONE, ENDED
from .errors import SnowflakeError
from .faults import BUILD_KINDS
from .models import Model, Version

if TYPE_CHECKING:
    from .session import Session


def build_name(query_id: str) -> str:
    """Clients find the build of their statement under this name."""
    number = str(int(query_id.replace("-", ""), 16)).encode()
    return "MODEL_BUILD_" + hashlib.md5(number, usedforsecurity=False).hexdigest()[:8].upper()


def ensure(
    session: Session,
    made: Qualified,
    *,
    pool: Object,
    image: str,
    model: Model,
    version: Version,
    force: bool,
) -> None:
    """Build an image, unless there is one, and wait for it.

    :param made: the service or job that it is for; the build is in the same schema.
    :param pool: where it is built.
    :param force: whether to build it even if there is one.
    """
    if force or not images.is_built(session.account, version, image):
        _build(session, made, pool, image, model, version)
        images.remember(session.account, version, image)


def _build(
    session: Session, made: Qualified, pool: Object, image: str, model: Model, version: Version
) -> None:
    account = session.account
    query = queries.current()
    name = made._replace(name=build_name(query.id if query else str(uuid.uuid4())))
    id_ = uuid.uuid4().hex
    spec = {
        "model": str(model.name),
        "version": version.name,
        "image": image,
        "seconds": account.image_build_seconds,
        "fault": account.faults.for_job(name.name, session.user, BUILD_KINDS),
    }
    account.containers.create(id_, spec)
    ready = compute_pools.is_ready(account, pool)
    environment = {"MODEL": str(model.name), "MODEL_VERSION": version.name}
    container = {"name": services.BUILD_CONTAINER, "image": image, "env": environment}
    data = {
        "id": id_,
        "container": services.BUILD_CONTAINER,
        "compute_pool": pool.name.name,
        "replicas": 1,
        "warehouse": session.warehouse,
        "async": True,
        "model": str(model.name),
        "spec": yaml.safe_dump({"spec": {"containers": [container]}}, sort_keys=False),
        "waits_for_pool": not ready,
    }
    job = account.catalog.create("SERVICE", name, session.role, data)
    if ready:
        services.start(account, job)
    # A statement that is cancelled ends here; the job goes on, as SPCS_CANCEL_JOB is there to end it.
    while (became := services.state(account, job))["status"] not in ENDED:
        services.pause(0.1)
    if became["status"] != DONE:
        raise SnowflakeError(
            395017,
            "P0000",
            f"Image build {name} of model {model.name} version {version.name} ended with status"
            f" {became['status']}: {became['message']}",
        )
