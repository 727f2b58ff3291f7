"""How a task gets its service: resolve and check, look, decide, act."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context

from airflow_provider_snowml.core.batch_poller import Statement
from airflow_provider_snowml.core.model_service import (
    SUSPENDED,
    DeploymentIntent,
    FoundService,
    ServiceAction,
    ServiceDecision,
    decide,
)
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.core.service_deployment import (
    STATEMENT,
    ServiceDeployment,
    check_requests,
    name_clause,
)
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    NotAModelServiceError,
    ServiceConflictError,
    ServiceExistsError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.services import (
    cancel_deployment,
    check_image_repository,
    check_servable,
    drop_service,
    end_deployment,
    find_service,
    resume_service,
    service_name,
    snowflake_time,
    version_served,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import as_text, one_of, run_of, whole_number

if TYPE_CHECKING:
    from airflow_provider_snowml.operators.services import SnowMLCreateServiceOperator

log = logging.getLogger(__name__)

STATE_KEY = "snowml_service"


def deploy_or_attach(
    task: SnowMLCreateServiceOperator,
    hook: SnowMLHook,
    context: Context,
    on_live: Callable[[DeploymentIntent], None],
) -> DeploymentIntent:
    """Get the task its service.

    :param task: the operator, with its arguments rendered.
    :param hook: a hook with an open connection.
    :param context: the try's context.
    :param on_live: told what a kill should end, as soon as there may be something to end.
    :raises ServiceExistsError: if another service has the name.
    :raises NotAModelServiceError: if what has the name is a job, or no model's service.
    """
    one_of("if_exists", task.if_exists, ("fail", "reuse", "replace"))
    schema, run = hook.default_schema(), run_of(context)
    name = service_name(task.service_name, schema)
    store = context["task_state_store"]
    old = _remembered(hook, store.get(STATE_KEY, None), name)
    model = QualifiedName.parse(task.model_name, schema, what="model name")
    pinned = None
    if old is not None and (old.run, old.model, old.version_reference) == (run, model.sql, task.version_name):
        pinned = old.version
    deployment = _resolve(task, hook, schema, name, model, pinned)

    found = find_service(hook, name)
    serves = version_served(hook, model, name) if found is not None else None
    statement = hook.statement(old.query_id)[0] if old is not None and old.query_id else Statement.UNKNOWN
    decision = decide(
        run=run,
        deployment_fingerprint=deployment.fingerprint,
        version=deployment.version,
        intent=old,
        statement=statement,
        found=found,
        serves=serves,
        if_exists=task.if_exists,
    )
    log.info("%s %s: %s.", decision.action.value.capitalize(), name, decision.reason)
    if decision.action is ServiceAction.CONFLICT and found is not None:
        raise _conflict(found, decision, task.if_exists)
    if decision.action is ServiceAction.SUBMIT:
        _make_way(hook, name, task.if_exists)
    new = DeploymentIntent(
        **asdict(run),
        service_name=name.sql,
        fingerprint=deployment.fingerprint,
        model=model.sql,
        version_reference=task.version_name,
        version=deployment.version,
        since=snowflake_time(hook).isoformat(),
    )
    if decision.action is ServiceAction.ATTACH and old is not None:
        store.set(STATE_KEY, old.to_dict())
        on_live(old)
        _resume(hook, found)
        return old
    if decision.action is ServiceAction.REUSE:
        new = replace(new, reused=True)
        store.set(STATE_KEY, new.to_dict())
        _resume(hook, found)
        return new
    if decision.action is ServiceAction.REPLACE:
        if old is not None and statement is Statement.RUNNING:
            log.info("The earlier deployment: %s.", end_deployment(hook, old))
        drop_service(hook, name)
        new = replace(new, since=snowflake_time(hook).isoformat())
    # Before it is sent: a try that comes after a lost reply knows its own service again.
    store.set(STATE_KEY, new.to_dict())
    on_live(new)
    new = replace(new, query_id=hook.submit(deployment.sql()))
    on_live(new)
    store.set(STATE_KEY, new.to_dict())
    log.info("Deploying %s %s as %s (query id %s).", model, deployment.version, name, new.query_id)
    return new


def remember(context: Context, intent: DeploymentIntent) -> None:
    """Keep for later tries what this one deploys."""
    context["task_state_store"].set(STATE_KEY, intent.to_dict())


def running_statement(hook: SnowMLHook, service: QualifiedName, since: str | None = None) -> str | None:
    """The query id of a running statement that deploys a service.

    :param since: only if it is no older, in ISO format.
    """
    return hook.find_running_statement(STATEMENT, name_clause(service), since=since)


def _remembered(hook: SnowMLHook, stored: Any, name: QualifiedName) -> DeploymentIntent | None:
    """What an earlier try was about to deploy under this name."""
    intent = DeploymentIntent.from_dict(stored)
    if intent is None or intent.service_name != name.sql:
        return None
    if intent.query_id is None and not intent.reused:
        # Its worker may have died between sending the statement and noting its id.
        return replace(intent, query_id=running_statement(hook, name, intent.since))
    return intent


def _make_way(hook: SnowMLHook, name: QualifiedName, if_exists: str) -> None:
    """While its image is built a service cannot be seen, but the statement that deploys it can.

    :raises ServiceConflictError: if somebody else is deploying a service of the name.
    """
    query_id = running_statement(hook, name)
    if query_id is None:
        return
    if if_exists != "replace":
        raise ServiceConflictError(
            f"Another statement ({query_id}) is deploying service {name} at this moment: wait for it, use "
            "another service_name, or let if_exists be 'replace'."
        )
    done = cancel_deployment(hook, name, query_id)
    log.info("Another deployment of %s: %s.", name, ", ".join(done))
    drop_service(hook, name)


def _resume(hook: SnowMLHook, found: FoundService | None) -> None:
    if found is not None and found.status == SUSPENDED:
        log.info("Resuming %s, which is suspended.", found.name)
        resume_service(hook, found.name)


def _conflict(found: FoundService, decision: ServiceDecision, if_exists: str) -> SnowMLError:
    if not found.is_of_a_model:
        return NotAModelServiceError(f"The name is taken: {found}. Use another service_name.")
    advice = "drop it (SnowMLDropServiceOperator), use another service_name, or let if_exists be "
    advice += "'replace'" if if_exists == "reuse" else "'reuse' or 'replace' (its host name changes)"
    return ServiceExistsError(f"The name is taken: {found}; {decision.reason}. To go on, {advice}.")


def _resolve(
    task: SnowMLCreateServiceOperator,
    hook: SnowMLHook,
    schema: SchemaName,
    name: QualifiedName,
    model: QualifiedName,
    pinned: str | None,
) -> ServiceDeployment:
    """Resolve every name, and check that it is there and fits, before anything is made."""
    minimum = whole_number("min_instances", task.min_instances, at_least=0)
    maximum = whole_number("max_instances", task.max_instances)
    if minimum is None or maximum is None or minimum > maximum:
        raise InvalidArgumentError(
            f"min_instances is {task.min_instances!r} and max_instances is {task.max_instances!r}; the first "
            "must not be above the second."
        )
    requests = {
        what: as_text(getattr(task, what)) for what in ("cpu_requests", "memory_requests", "gpu_requests")
    }
    check_requests(**requests)
    workers = whole_number("num_workers", task.num_workers)
    batch_rows = whole_number("max_batch_rows", task.max_batch_rows)

    pool = Identifier.parse(task.service_compute_pool, what="compute pool")
    build_pool = None
    if text := as_text(task.image_build_compute_pool):
        build_pool = Identifier.parse(text, what="compute pool")
    for one in dict.fromkeys((pool, build_pool)):
        if one is not None:
            hook.check_compute_pool(one)
    ref = hook.resolve_version(model, Identifier.of(pinned).sql if pinned else task.version_name)
    check_servable(hook, ref)
    repository = None
    if text := as_text(task.image_repo):
        repository = QualifiedName.parse(text, schema, what="image_repo")
        check_image_repository(hook, repository)
    if isinstance(task.build_external_access_integrations, str):
        raise InvalidArgumentError(
            f"build_external_access_integrations is {task.build_external_access_integrations!r}; it must be "
            "a list of names."
        )
    integrations = tuple(
        Identifier.parse(integration, what="external access integration")
        for integration in task.build_external_access_integrations or ()
    )
    return ServiceDeployment(
        name=name,
        model=model,
        version=ref.version,
        service_compute_pool=pool,
        image_build_compute_pool=build_pool,
        image_repo=repository,
        force_rebuild=task.force_rebuild,
        build_external_access_integrations=integrations,
        ingress_enabled=task.ingress_enabled,
        min_instances=minimum,
        max_instances=maximum,
        num_workers=workers,
        max_batch_rows=batch_rows,
        autocapture=task.autocapture,
        **requests,
    )
