"""Services and job services: what becomes of them, and the processes that run them.

A job service has one process. A service of a model has one for each instance, kept running until
the service is suspended or dropped.
"""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

from . import build_worker, job_worker, queries, service_worker
from .catalog import Object, Qualified
from .containers import CANCELLED, FAILED, PENDING, RUNNING
from .errors import SnowflakeError, does_not_exist
from .results import now

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

LIVE = (PENDING, RUNNING)
SUSPENDED = "SUSPENDED"
JOB_CONTAINER, BUILD_CONTAINER, CONTAINER = "main", "model-build", "model-inference"
_WAITS = "Waiting for compute pool {} to be resumed"
_MAINS = {JOB_CONTAINER: job_worker.main, BUILD_CONTAINER: build_worker.main}


def get(session: Session, name: Qualified) -> Object:
    found = session.account.catalog.find("SERVICE", name)
    if found is None:
        raise does_not_exist("Service", str(name))
    return found


def is_job(service: Object) -> bool:
    return container_name(service) != CONTAINER


def container_name(service: Object) -> str:
    return str(service.data.get("container", JOB_CONTAINER))


def target_instances(service: Object) -> int:
    """A service that may go down to no instance at all starts with one."""
    if is_job(service):
        return int(service.data["replicas"])
    return max(1, int(service.data["min_instances"]))


def instance_ids(service: Object) -> list[str]:
    """The containers of a service, the first instance's first; a job has a single one."""
    if is_job(service):
        return [service.data["id"]]
    return [f"{service.data['id']}-{i}" for i in range(target_instances(service))]


def state(account: Account, service: Object) -> dict[str, Any]:
    """``status``, ``message`` and the ``time`` of the last change."""
    if is_job(service):
        return account.containers.state(service.data["id"])
    changed = service.data["changed"]
    if service.data["suspended"]:
        return {"status": SUSPENDED, "message": "The service is suspended", "time": changed}
    if service.data["waits_for_pool"]:
        waits = _WAITS.format(service.data["compute_pool"])
        return {"status": PENDING, "message": waits, "time": changed}
    found = [instance_state(account, id_) for id_ in instance_ids(service)]
    for status in (FAILED, PENDING):
        for instance in found:
            if instance["status"] == status:
                return instance
    return max(found, key=lambda instance: float(instance["time"]))


def instance_state(account: Account, id_: str) -> dict[str, Any]:
    """As of a container; one that died, or is still to be started, is PENDING."""
    containers = account.containers
    # The directory is there a moment before the state is.
    if not (containers.directory(id_) / "state.json").exists():
        return {"status": PENDING, "message": "Waiting to be scheduled", "time": time.time()}
    alive = containers.alive(id_)
    found = containers.written(id_)
    if found["status"] == RUNNING and not alive:
        return {**found, "status": PENDING, "message": "The container has died, restarting"}
    return {**found, "status": PENDING} if found["status"] == CANCELLED else found


def start(account: Account, service: Object) -> None:
    """Start the processes of a service whose pool is there."""
    if is_job(service):
        account.containers.start(service.data["id"], _MAINS[container_name(service)])
        return
    for id_ in instance_ids(service):
        account.containers.renew(id_, service.data["worker"], service_worker.main)
    _stop_unless_wanted(account, service)


def _stop_unless_wanted(account: Account, service: Object) -> None:
    """End what was started for a service that was dropped or suspended while it was started."""
    current = account.catalog.find("SERVICE", service.name)
    gone = current is None or current.data["id"] != service.data["id"]
    if current is None or gone or current.data["suspended"]:
        stop(account, service, "The service was dropped or suspended meanwhile")
    if gone:
        _remove(account, service)


def start_waiting(account: Account, pool: str) -> None:
    """Start what waits for a pool that was suspended."""
    for service in account.catalog.list("SERVICE"):
        if service.data["compute_pool"] == pool and service.data["waits_for_pool"]:
            with account.catalog.change("SERVICE", service.name) as changed:
                changed.data["waits_for_pool"] = False
            if state(account, changed)["status"] == PENDING:
                start(account, changed)


def stop(account: Account, service: Object, message: str) -> None:
    for id_ in instance_ids(service):
        account.containers.end(id_, CANCELLED, message)


def suspend(account: Account, service: Object) -> None:
    """End the instances of a service until it is resumed."""
    with account.catalog.change("SERVICE", service.name) as changed:
        if changed.data["suspended"]:
            return
        suspended = {"suspended": True, "waits_for_pool": False, "suspended_on": now().isoformat()}
        changed.data.update(suspended, changed=time.time())
    stop(account, changed, "The service was suspended")


def resume(account: Account, service: Object, *, pool_is_ready: bool) -> None:
    """Start the instances of a service that is suspended."""
    with account.catalog.change("SERVICE", service.name) as changed:
        if not changed.data["suspended"]:
            return
        resumed = {"suspended": False, "waits_for_pool": not pool_is_ready, "resumed_on": now().isoformat()}
        changed.data.update(resumed, changed=time.time())
        _forget_failures(account, changed)
    if pool_is_ready:
        start(account, changed)


def suspend_in(account: Account, pool: str) -> None:
    """What a pool that is suspended takes with it: services, but not the jobs."""
    for service in account.catalog.list("SERVICE"):
        if service.data["compute_pool"] == pool and not is_job(service):
            suspend(account, service)


def recover(account: Account) -> None:
    """After a restart: a job that was accepted but not started has failed; services go on."""
    services = account.catalog.list("SERVICE")
    for service in services:
        id_ = service.data["id"]
        if not is_job(service):
            _forget_failures(account, service)
        elif not (service.data["waits_for_pool"] or (account.containers.directory(id_) / "alive").exists()):
            account.containers.end(id_, FAILED, "The server ended before the job was started")
    threading.Thread(target=_start_again, args=(account, services), daemon=True).start()


def _forget_failures(account: Account, service: Object) -> None:
    """What is started anew is PENDING until then, whatever it ended with before."""
    for id_ in instance_ids(service):
        account.containers.reset(id_)


def _start_again(account: Account, services: list[Object]) -> None:
    """The instances that have outlived the server are kept, the others started.

    Each is looked up anew: it can have been dropped or suspended since the server answers again.
    """
    for known in services:
        service = account.catalog.find("SERVICE", known.name)
        if service is None or service.data["id"] != known.data["id"]:
            continue
        if is_job(service) or service.data["suspended"] or service.data["waits_for_pool"]:
            continue
        for id_ in instance_ids(service):
            if account.containers.alive(id_):
                account.containers.keep(id_, service_worker.main)
            else:
                account.containers.renew(id_, service.data["worker"], service_worker.main)
        _stop_unless_wanted(account, service)


def drop_in(account: Account, database: str, schema: str | None) -> None:
    """What a dropped database or schema takes with it: no process outlives its service."""
    for service in account.catalog.list("SERVICE", database, schema):
        if not is_job(service):
            account.catalog.drop("SERVICE", service.name)  # first: who starts it sees that it is gone
        stop(account, service, "The service was dropped")
        if not is_job(service):
            _remove(account, service)


def drop(session: Session, service: Object) -> None:
    """Its processes end at once; what became of a job stays in the job history."""
    account = session.account
    if not is_job(service):
        account.catalog.drop("SERVICE", service.name)  # first: who starts it sees that it is gone
        stop(account, service, "The service was dropped")
        _remove(account, service)
        return
    stop(account, service, "The service was dropped")
    gone = Qualified(service.name.database, service.name.schema, service.data["id"])
    data = {
        **service.data,
        "name": service.name.name,
        "created_on": service.created_on.isoformat(),
        "deleted_on": now().isoformat(),
    }
    account.catalog.create("DROPPED SERVICE", gone, service.owner, data)
    account.catalog.drop("SERVICE", service.name)
    shutil.rmtree(account.containers.directory(service.data["id"]) / "input", ignore_errors=True)


def _remove(account: Account, service: Object) -> None:
    for id_ in instance_ids(service):
        account.containers.remove(id_)


def of_version(account: Account, version_id: str) -> list[Object]:
    """The services that serve a version of a model."""
    found = account.catalog.list("SERVICE")
    return [s for s in found if not is_job(s) and s.data["version_id"] == version_id]


def pause(seconds: float) -> None:
    """Sleep in a statement that waits; ends early, as an error, when the query is cancelled."""
    query = queries.current()
    if query is None:
        time.sleep(seconds)
    elif query.cancelled.wait(seconds):
        raise SnowflakeError(604, "57014", "SQL execution canceled")
