"""Services of models as a task handles them: checked, deployed, watched, ended."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_snowml.core.batch_poller import Limits, Statement
from airflow_provider_snowml.core.model_ref import ModelVersionRef
from airflow_provider_snowml.core.model_service import GOING, SUSPENDED, DeploymentIntent, FoundService
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName, literal
from airflow_provider_snowml.core.service_poller import (
    ServiceContainer,
    ServiceObservation,
    ServiceOutcome,
    ServicePoller,
    ServiceVerdict,
)
from airflow_provider_snowml.exceptions import (
    ImageRepositoryNotFoundError,
    InvalidNameError,
    ModelNotServableError,
    ObjectNotFoundError,
    ServiceConflictError,
    SnowMLError,
    StatementError,
)
from airflow_provider_snowml.hooks.batch_jobs import build_job, cancel_start
from airflow_provider_snowml.hooks.snowml import Row, SnowMLHook
from airflow_provider_snowml.hooks.watching import KeptConnection, in_short, log_change

log = logging.getLogger(__name__)

PLATFORM = "SNOWPARK_CONTAINER_SERVICES"
ENDPOINT = "inference"
DROP_TIMEOUT = 300.0
_CANCEL_TIMEOUT = 3.0
# What SHOW ENDPOINTS says in the place of a URL until there is one ends otherwise; so does snowflake-ml tell.
_URL_ENDINGS = ("snowflakecomputing.app", "snowflake.app")


@dataclass(frozen=True)
class ServiceEndpoint:
    """Where a service answers.

    :param ingress_url: its host from outside Snowflake, ``None`` if it has none (yet).
    :param port: its port inside.
    """

    ingress_url: str | None
    port: int | None


# -- before a deployment ------------------------------------------------------------------------------------


def service_name(text: str, default: SchemaName) -> QualifiedName:
    """A service's full name.

    :param text: the name as a user writes it.
    :param default: where an unqualified name is.
    :raises InvalidNameError: if it is none; services take no names that need quotes.
    """
    name = QualifiedName.parse(text, default, what="service name")
    if Identifier.of(name.name.name).quoted:
        raise InvalidNameError(
            f"{text!r} is no service name: services have no names that need double quotes. Write letters, "
            "digits, _ and $; Snowflake makes them upper case."
        )
    return QualifiedName(*(Identifier.of(part.name) for part in (name.database, name.schema, name.name)))


def check_servable(hook: SnowMLHook, ref: ModelVersionRef) -> None:
    """Check that a version can be served.

    :raises ModelNotServableError: if it has only table functions, or its target platforms are others.
    """
    if ref.functions and not any(function.keeps_row_count for function in ref.functions):
        names = ", ".join(function.target_method for function in ref.functions)
        raise ModelNotServableError(
            f"{ref.model} version {ref.version} has table functions only ({names}), which a service does not "
            "offer: use batch inference, or register it with a function of type FUNCTION."
        )
    rows = hook.rows(f"SHOW VERSIONS LIKE {literal(ref.version)} IN MODEL {ref.model.sql}")
    row = next((row for row in rows if row["name"] == ref.version), {})
    platforms = json.loads(row.get("runnable_in") or "[]")
    if platforms and PLATFORM not in platforms:
        raise ModelNotServableError(
            f"{ref.model} version {ref.version} runs in {', '.join(platforms)} only: register it with "
            f"target_platforms that include {PLATFORM}."
        )


def check_image_repository(hook: SnowMLHook, repository: QualifiedName) -> None:
    """Check that an image repository is there.

    :raises ImageRepositoryNotFoundError: if it isn't.
    """
    name = repository.name.name
    show = f"SHOW IMAGE REPOSITORIES LIKE {literal(name)} IN SCHEMA {repository.parent.sql}"
    try:
        found = any(row["name"] == name for row in hook.rows(show))
    except ObjectNotFoundError:
        found = False
    if not found:
        raise ImageRepositoryNotFoundError(
            f"There is no image repository {repository}, or the role may not see it: CREATE IMAGE REPOSITORY "
            f"{repository.sql}, or leave image_repo out for Snowflake's own."
        )


def version_served(hook: SnowMLHook, model: QualifiedName, service: QualifiedName) -> str | None:
    """The version of a model that a service serves; ``None`` if it serves none of them."""
    try:
        rows = hook.rows(f"SHOW VERSIONS IN MODEL {model.sql}")
    except ObjectNotFoundError:
        return None
    for row in rows:
        for name in json.loads(row.get("inference_services") or "[]"):
            try:
                if QualifiedName.parse(name) == service:
                    return str(row["name"])
            except SnowMLError:  # of a personal database, say; none of ours
                continue
    return None


def snowflake_time(hook: SnowMLHook) -> datetime:
    """Snowflake's clock, by which services are made and files are written."""
    found: datetime = hook.value("SELECT CURRENT_TIMESTAMP()")
    return found


# -- looking ------------------------------------------------------------------------------------------------


def find_service(hook: SnowMLHook, service: QualifiedName) -> FoundService | None:
    """Describe a service; ``None`` if there is none. Needs MONITOR or USAGE on it."""
    try:
        rows = hook.rows(f"DESCRIBE SERVICE {service.sql}")
    except ObjectNotFoundError:
        return None
    return found_service(rows[0]) if rows else None


def list_services(hook: SnowMLHook, schema: SchemaName) -> dict[str, FoundService]:
    """A schema's services by their bare names; jobs are left out."""
    rows = hook.rows(f"SHOW SERVICES EXCLUDE JOBS IN SCHEMA {schema.sql}")
    return {str(row["name"]): found_service(row) for row in rows}


def found_service(row: Row) -> FoundService:
    """A service as SHOW or DESCRIBE describes it."""
    name = QualifiedName(*(Identifier.of(row[key]) for key in ("database_name", "schema_name", "name")))
    return FoundService(
        name=name,
        status=str(row["status"]),
        created_on=row["created_on"],
        is_job=str(row.get("is_job")).lower() == "true",
        managing_object_domain=row.get("managing_object_domain"),
        managing_object_name=row.get("managing_object_name"),
        dns_name=row.get("dns_name"),
        target_instances=int(row.get("target_instances") or 0),
    )


def service_containers(hook: SnowMLHook, service: QualifiedName) -> tuple[ServiceContainer, ...]:
    """The containers of a service's instances; none while it is suspended. Needs MONITOR on it."""
    rows = hook.rows(f"SHOW SERVICE CONTAINERS IN SERVICE {service.sql}")
    return tuple(
        ServiceContainer(
            instance_id=str(row["instance_id"]),
            instance_status=str(row["instance_status"]),
            name=str(row["container_name"]),
            status=str(row["status"]),
            message=str(row["message"] or ""),
        )
        for row in rows
        if row["instance_id"] is not None
    )


def observe(hook: SnowMLHook, found: FoundService | None) -> ServiceObservation:
    """What a service that was found, or not, looks like inside."""
    if found is None:
        return ServiceObservation()
    containers: tuple[ServiceContainer, ...] = ()
    if found.status not in GOING | {SUSPENDED}:
        try:
            containers = service_containers(hook, found.name)
        except ObjectNotFoundError:
            return ServiceObservation()
    return ServiceObservation(found.status, found.created_on.isoformat(), found.target_instances, containers)


def observe_deployment(
    hook: SnowMLHook, service: QualifiedName, query_id: str | None = None
) -> ServiceObservation:
    """One look at a service: two statements, or three while there is none.

    :param hook: the hook.
    :param service: the service.
    :param query_id: the statement that deploys it, if known.
    """
    with hook.open_connection():
        # First: if it has ended before we look for the service, we do not miss what it made.
        statement, error = hook.statement(query_id) if query_id else (Statement.UNKNOWN, "")
        found = find_service(hook, service)
        if found is not None or query_id is None:
            return observe(hook, found)
        build = hook.job_status(build_job(service, query_id)) if statement is Statement.RUNNING else None
        return ServiceObservation(statement=statement, statement_error=error, build=build)


def endpoint(hook: SnowMLHook, service: QualifiedName) -> ServiceEndpoint:
    """Where a service answers predictions."""
    for row in hook.rows(f"SHOW ENDPOINTS IN SERVICE {service.sql}"):
        if row["name"] == ENDPOINT:
            url, port = str(row["ingress_url"] or ""), row["port"]
            return ServiceEndpoint(
                url if url.endswith(_URL_ENDINGS) else None, int(port) if port is not None else None
            )
    return ServiceEndpoint(None, None)


# -- changing -----------------------------------------------------------------------------------------------


def suspend_service(hook: SnowMLHook, service: QualifiedName) -> None:
    """Suspend a service: its instances end. Needs OPERATE on it."""
    hook.rows(f"ALTER SERVICE {service.sql} SUSPEND")


def resume_service(hook: SnowMLHook, service: QualifiedName) -> None:
    """Resume a suspended service. Needs OPERATE on it."""
    hook.rows(f"ALTER SERVICE {service.sql} RESUME")


def drop_service(hook: SnowMLHook, service: QualifiedName, *, wait: float = DROP_TIMEOUT) -> None:
    """Drop a service, and its logs with it, and wait until it is gone. Needs OWNERSHIP of it.

    :param hook: the hook.
    :param service: the service.
    :param wait: seconds to wait, 0 to only ask for it.
    :raises ServiceConflictError: if it is still there by then.
    """
    with hook.open_connection():
        hook.rows(f"DROP SERVICE IF EXISTS {service.sql}")
        deadline = time.monotonic() + wait
        while wait and (found := find_service(hook, service)) is not None:
            if time.monotonic() > deadline:
                raise ServiceConflictError(
                    f"Service {service} is still {found.status} {wait:g} s after it was dropped."
                )
            time.sleep(1)


def cancel_deployment(hook: SnowMLHook, service: QualifiedName, query_id: str) -> list[str]:
    """Cancel a statement that deploys a service, and the job that builds its image.

    :return: what was done.
    """
    done = ["its statement was cancelled"]
    with hook.open_connection():
        # The build at once: a worker that is killed has a few seconds only.
        done += cancel_start(hook, service, query_id)
        # It may be making the service at this moment.
        deadline = time.monotonic() + _CANCEL_TIMEOUT
        while hook.statement(query_id)[0] is Statement.RUNNING and time.monotonic() < deadline:
            time.sleep(0.2)
    return done


def end_deployment(hook: SnowMLHook, intent: DeploymentIntent) -> str:
    """End what a try was deploying: its statement, the image build, and the service unless that is ready.

    Another service that has taken its name meanwhile is left alone, and so is one that is reused or ready.

    :param hook: the hook.
    :param intent: what the try was deploying.
    :return: what was done, in a few words.
    """
    if intent.reused:
        return "nothing to end, the service is not this task's"
    service, query_id = QualifiedName.parse(intent.service_name), intent.query_id
    done: list[str] = []
    with hook.open_connection():
        statement, error = hook.statement(query_id) if query_id else (Statement.UNKNOWN, "")
        if query_id and statement is Statement.RUNNING:
            done = cancel_deployment(hook, service, query_id)
        found = find_service(hook, service)
        # A statement that had failed already has made nothing that lives, if nothing was seen or if it failed
        # because of a service that was there before it.
        unseen = intent.created_on is None or "already exists" in error
        made_none = statement is Statement.FAILED and unseen
        if found is not None and found.is_of_a_model and intent.made(found) and not made_none:
            if is_ready(observe(hook, found)):
                done.append("the service is ready and was kept")
            elif found.status not in GOING:
                drop_service(hook, service, wait=0)
                done.append(f"the service, which was {found.status}, was dropped")
    return ", ".join(done) or "there was nothing to end"


def is_ready(seen: ServiceObservation) -> bool:
    """Whether every instance is ready."""
    return ServicePoller(Limits()).observed(seen, time.time()).outcome is ServiceOutcome.READY


# -- watching -----------------------------------------------------------------------------------------------


class ServiceWatch:
    """Looks at one service again and again, over one connection that it keeps and replaces when it breaks.

    :param hook: the hook, used by nobody else meanwhile.
    :param poller: judges what is seen.
    :param service_name: the service's full name.
    :param query_id: the statement that deploys it, if known.
    """

    def __init__(
        self, hook: SnowMLHook, poller: ServicePoller, *, service_name: str, query_id: str | None = None
    ) -> None:
        self.poller = poller
        self.service = QualifiedName.parse(service_name)
        self.query_id = query_id
        self.created_on: str | None = None
        self._connection = KeptConnection(hook)
        self._last_detail = ""

    def look(self) -> ServiceVerdict:
        """Look once. A look that fails is judged too, and never raised."""
        try:
            with self._connection.use() as hook:
                seen = observe_deployment(hook, self.service, self.query_id)
        except Exception as error:  # whatever it is, the service goes on and so does the wait
            verdict = self.poller.failed(in_short(error), time.time())
        else:
            self.created_on = seen.created_on or self.created_on
            verdict = self.poller.observed(seen, time.time())
        self._last_detail = log_change(self.service, verdict.detail, self._last_detail)
        return verdict

    def close(self) -> None:
        """Close its connection. What it looked at goes on."""
        self._connection.close()


class ServicesWatch:
    """Looks at many services of a schema at once, over one connection that it keeps.

    One statement lists them. Only into those that are waited for it looks one by one.

    :param hook: the hook, used by nobody else meanwhile.
    :param schema: the schema.
    """

    def __init__(self, hook: SnowMLHook, schema: SchemaName) -> None:
        self.schema = schema
        self._connection = KeptConnection(hook)

    def look(self, waited: Collection[str]) -> dict[str, ServiceObservation | str]:
        """What it saw of each, by full name, or why the look failed. Nothing is raised."""
        try:
            with self._connection.use() as hook:
                found = {service.name.sql: service for service in list_services(hook, self.schema).values()}
                return {name: self._look_into(hook, found.get(name)) for name in waited}
        except Exception as error:  # whatever it is, each that waits counts it
            return dict.fromkeys(waited, in_short(error))

    @staticmethod
    def _look_into(hook: SnowMLHook, service: FoundService | None) -> ServiceObservation | str:
        """A service that cannot be looked into is no reason for the others to wait."""
        try:
            return observe(hook, service)
        except StatementError as error:
            return str(error)

    def close(self) -> None:
        """Close its connection. What it looked at goes on."""
        self._connection.close()


def judge(poller: ServicePoller, seen: ServiceObservation | str) -> ServiceVerdict:
    """What a look means; a text is why it failed."""
    if isinstance(seen, str):
        return poller.failed(seen, time.time())
    return poller.observed(seen, time.time())


def is_over(verdict: ServiceVerdict) -> bool:
    """Whether there is nothing more to wait for."""
    return verdict.outcome is not ServiceOutcome.WAIT
