"""Services of models: deploy one, drop one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, Literal, NoReturn

from airflow.sdk import Context, conf

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.hints import explain_error
from airflow_provider_snowml.core.lineage import Lineage, model_service, model_version
from airflow_provider_snowml.core.model_service import DeploymentIntent
from airflow_provider_snowml.core.names import QualifiedName, SchemaName
from airflow_provider_snowml.core.service_poller import ServiceOutcome, ServicePoller, ServiceVerdict
from airflow_provider_snowml.exceptions import (
    NotAModelServiceError,
    ServiceCancelledError,
    ServiceConflictError,
    ServiceFailedError,
    ServiceLostError,
    ServiceNotFoundError,
    ServicePollingError,
    ServiceSuspendedError,
    ServiceTimeoutError,
    SnowMLError,
)
from airflow_provider_snowml.hooks.batch_jobs import build_job, log_tail
from airflow_provider_snowml.hooks.services import (
    ServiceWatch,
    cancel_deployment,
    drop_service,
    end_deployment,
    endpoint,
    find_service,
    is_over,
    service_name,
    version_served,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, one_of
from airflow_provider_snowml.operators.service_submission import deploy_or_attach, remember, running_statement
from airflow_provider_snowml.triggers.services import SnowMLServiceDeploymentTrigger

GRACE = 60.0


class SnowMLCreateServiceOperator(SnowMLOperator):
    """Serve a version of a model as a service in a compute pool.

    The statement that deploys it is sent without waiting for it; then it is followed, while it builds the
    model's image, and the service, until every instance is ready. A retry finds what an earlier try of the
    same run has started, and goes on waiting for it. A service that fails is kept, with its logs, until it is
    dropped or a retry replaces it; so does a cleared run replace what it had not finished. For any other
    service of the name, one that was ready when its run was cleared too, ``if_exists`` decides.

    XCom: ``{"service_name", "model", "version", "status", "instances", "ingress_url", "dns_name",
    "query_id", "reused"}``. ``ingress_url`` is ``None`` without ingress, and until Snowflake has one.

    Privileges: CREATE SERVICE on the schema, USAGE on the compute pools, READ on the model, READ and WRITE on
    the image repository; BIND SERVICE ENDPOINT on the account for ingress. Owning the service is enough for
    the rest; for one of another role ``"reuse"`` wants MONITOR and OPERATE, ``"replace"`` OWNERSHIP. See
    https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/container.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: a version, an alias, ``default``, ``first`` or ``last``; resolved once, and kept for
        retries.
    :param service_name: the service, ``[[database.]schema.]name``; the same for all runs, as a rule.
    :param service_compute_pool: the compute pool that it runs in.
    :param image_build_compute_pool: the compute pool that its image is built in; the same if it is left out.
    :param image_repo: the image repository to build the model's image into; Snowflake's own if it is left
        out.
    :param force_rebuild: whether to build the image even if there is one.
    :param build_external_access_integrations: what the build may reach, for packages from elsewhere.
    :param if_exists: what to do about another service of the name: ``"fail"``; ``"reuse"`` it if it serves
        the same version of the model (it is resumed if it is suspended, and waited for; its size is left as
        it is); ``"replace"`` it, dropped first: it is away for a while, and its host name changes.
    :param min_instances: instances, at least. With 0, Snowflake suspends a service that is idle.
    :param max_instances: instances, at most.
    :param num_workers: worker processes per instance.
    :param max_batch_rows: rows per call of the method.
    :param cpu_requests: CPUs per instance, such as ``"2"``.
    :param memory_requests: memory per instance, such as ``"8Gi"``.
    :param gpu_requests: GPUs per instance, such as ``"1"``.
    :param ingress_enabled: whether it can be called from outside Snowflake.
    :param autocapture: whether requests and predictions are kept in the model's inference table.
    :param wait_until_ready: whether to wait until it is ready; else the task ends when the service exists
        and its instances are starting. (Its image is built by then; a sensor can wait for the rest.)
    :param deferrable: whether the wait is the triggerer's; Airflow's ``default_deferrable`` says so if it is
        left out.
    :param poll_interval: seconds between polls.
    :param timeout: seconds, with the image build, until the deployment is ended and the task fails.
    :param cancel_on_kill: whether killing the task ends the deployment: the statement and the image build are
        cancelled, and the service is dropped unless it is ready. A service that is reused is never touched.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a model, version, pool or repository that isn't there.
    :raises ServiceExistsError: if another service has the name.
    :raises ServiceError: (a subclass) if the service doesn't get ready.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "service_name",
        "service_compute_pool",
        "image_build_compute_pool",
        "image_repo",
        "build_external_access_integrations",
        "if_exists",
        "min_instances",
        "max_instances",
        "num_workers",
        "max_batch_rows",
        "cpu_requests",
        "memory_requests",
        "gpu_requests",
    )

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str = "default",
        service_name: str,
        service_compute_pool: str,
        image_build_compute_pool: str | None = None,
        image_repo: str | None = None,
        force_rebuild: bool = False,
        build_external_access_integrations: Sequence[str] | None = None,
        if_exists: Literal["fail", "reuse", "replace"] = "fail",
        min_instances: int | str = 0,
        max_instances: int | str = 1,
        num_workers: int | str | None = None,
        max_batch_rows: int | str | None = None,
        cpu_requests: str | None = None,
        memory_requests: str | None = None,
        gpu_requests: str | None = None,
        ingress_enabled: bool = False,
        autocapture: bool | None = None,
        wait_until_ready: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 10.0,
        timeout: float = 3600.0,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.service_name = service_name
        self.service_compute_pool = service_compute_pool
        self.image_build_compute_pool = image_build_compute_pool
        self.image_repo = image_repo
        self.force_rebuild = force_rebuild
        self.build_external_access_integrations = build_external_access_integrations
        self.if_exists = if_exists
        self.min_instances = min_instances
        self.max_instances = max_instances
        self.num_workers = num_workers
        self.max_batch_rows = max_batch_rows
        self.cpu_requests = cpu_requests
        self.memory_requests = memory_requests
        self.gpu_requests = gpu_requests
        self.ingress_enabled = ingress_enabled
        self.autocapture = autocapture
        self.wait_until_ready = wait_until_ready
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        # What a kill would end, and the kill itself. Not kept across a deferral.
        self._live: DeploymentIntent | None = None
        self._killed = threading.Event()

    # -- what Airflow calls -----------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        """Deploy or attach, then wait."""
        hook = self.get_hook()
        with hook.open_connection():
            intent = deploy_or_attach(self, hook, context, self._goes_live)
        limits = self._limits()
        watch = ServiceWatch(
            self.get_hook(),
            ServicePoller(limits, until_ready=self.wait_until_ready),
            service_name=intent.service_name,
            query_id=intent.query_id,
        )
        try:
            # A service that is ready already needs no trigger. One that fires at once is a risk, too: Airflow
            # 3.3 can take the task for crashed.
            verdict = watch.look()
            intent = self._saw(intent, watch, context)
            # Airflow calls on_kill from a signal handler and lets the task go on.
            if self.deferrable and not is_over(verdict) and not self._killed.is_set():
                self._defer(intent, limits)
            while not is_over(verdict):
                if self._killed.wait(self.poll_interval):
                    raise self._was_killed(intent)
                verdict = watch.look()
                intent = self._saw(intent, watch, context)
        finally:
            watch.close()
        return self._complete(verdict, intent)

    def _defer(self, intent: DeploymentIntent, limits: Limits) -> NoReturn:
        self.defer(
            trigger=SnowMLServiceDeploymentTrigger(
                intent=intent.to_dict(),
                hook_arguments=self.hook_arguments(),
                poll_interval=self.poll_interval,
                limits=asdict(limits),
                until_ready=self.wait_until_ready,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            # The trigger keeps the time itself; this is for a trigger that can't.
            timeout=timedelta(seconds=self.timeout + 600),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume after the trigger's event."""
        # Not from defer's kwargs: dag.test() drops them.
        verdict = ServiceVerdict(
            ServiceOutcome(event["outcome"]), event["detail"], event["status"], event["instances"]
        )
        intent = DeploymentIntent(**event["intent"])
        remember(context, intent)
        return self._complete(verdict, intent)

    def on_kill(self) -> None:
        """End what this try has started or attached to, and nothing else."""
        self._killed.set()
        if self._live is not None and self.cancel_on_kill:
            self._end(self._live)

    def _goes_live(self, intent: DeploymentIntent) -> None:
        if self._killed.is_set() and intent.query_id is None and self.cancel_on_kill:
            raise ServiceCancelledError(f"The task was killed before it deployed {intent.service_name}.")
        self._live = intent

    def _saw(self, intent: DeploymentIntent, watch: ServiceWatch, context: Context) -> DeploymentIntent:
        """Note when the service was made, which tells it from the next one of its name."""
        if watch.created_on is None or watch.created_on == intent.created_on:
            return intent
        intent = replace(intent, created_on=watch.created_on)
        remember(context, intent)
        if self._live is not None:
            self._live = intent
        return intent

    def _was_killed(self, intent: DeploymentIntent) -> SnowMLError:
        message = f"The task was killed while it waited for service {intent.service_name}."
        if not self.cancel_on_kill:
            return ServicePollingError(message)
        # Once more: the kill may have come before the statement had arrived.
        self._end(intent)
        return ServiceCancelledError(message)

    def _end(self, intent: DeploymentIntent) -> None:
        # A hook of its own: the one in use may be in the middle of a request.
        hook = self.get_hook()
        with hook.open_connection():
            if intent.query_id is None and not intent.reused:
                query_id = running_statement(hook, QualifiedName.parse(intent.service_name))
                intent = replace(intent, query_id=query_id)
            self.log.info("Deployment of %s: %s.", intent.service_name, end_deployment(hook, intent))

    # -- wait and finish --------------------------------------------------------------------------------

    def _limits(self) -> Limits:
        timeout = self.timeout
        if self.execution_timeout is not None:
            # Airflow does not watch it while the task is deferred.
            timeout = min(timeout, self.execution_timeout.total_seconds())
        return Limits(deadline=time.time() + timeout, grace=GRACE)

    def _complete(self, verdict: ServiceVerdict, intent: DeploymentIntent) -> dict[str, Any]:
        """The XCom of a service that got ready, or the error of one that didn't."""
        hook, service = self.get_hook(), QualifiedName.parse(intent.service_name)
        with hook.open_connection():
            if verdict.outcome not in (ServiceOutcome.READY, ServiceOutcome.CREATED):
                raise self._error(hook, verdict, intent)
            found = find_service(hook, service)
            serves = version_served(hook, QualifiedName.parse(intent.model), service)
            if found is None or serves not in (intent.version, None) or not found.is_of_a_model:
                what = f"{found}, serving {serves or 'something else'}" if found else "gone"
                raise ServiceConflictError(
                    f"Service {service} was deployed with {intent.model} {intent.version}; now it is {what}."
                )
            where = endpoint(hook, service)
        return self.done(
            {
                "service_name": intent.service_name,
                "model": intent.model,
                "version": intent.version,
                "status": verdict.status,
                "instances": verdict.instances,
                "ingress_url": where.ingress_url,
                "dns_name": found.dns_name,
                "query_id": intent.query_id,
                "reused": intent.reused,
            }
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """From the version to the service."""
        read = model_version(done.get("model", self.model_name), done.get("version"), default)
        if not done:
            return Lineage(reads=[read])
        change = None if done["reused"] else "CREATE"
        return Lineage(
            reads=[read],
            writes=[model_service(done["service_name"], version=done["version"], change=change)],
            query_id=done["query_id"],
        )

    def _error(self, hook: SnowMLHook, verdict: ServiceVerdict, intent: DeploymentIntent) -> SnowMLError:
        service = QualifiedName.parse(intent.service_name)
        message = f"Service {service} ({intent.model} {intent.version}): {verdict.detail}."
        kinds: dict[ServiceOutcome, type[SnowMLError]] = {
            ServiceOutcome.FAILED: ServiceFailedError,
            ServiceOutcome.SUSPENDED: ServiceSuspendedError,
            ServiceOutcome.LOST: ServiceLostError,
            ServiceOutcome.TIMEOUT: ServiceTimeoutError,
            ServiceOutcome.POLL_ERRORS: ServicePollingError,
        }
        if verdict.outcome in (ServiceOutcome.FAILED, ServiceOutcome.TIMEOUT):
            logs = _logs(hook, service, intent.query_id)
            hint = explain_error(f"{message}\n{logs}")
            message += f" The end of its logs:\n{logs}\n" + (f"Probably: {hint}\n" if hint else "")
        if verdict.outcome is ServiceOutcome.TIMEOUT:
            message += f"What was done: {_ended(hook, intent)}."
        return kinds[verdict.outcome](message)


def _ended(hook: SnowMLHook, intent: DeploymentIntent) -> str:
    """End a deployment; what was done, or why it could not be."""
    try:
        return end_deployment(hook, intent)
    except SnowMLError as error:
        return f"nothing, it may still run ({error})"


def _logs(hook: SnowMLHook, service: QualifiedName, query_id: str | None) -> str:
    """The end of the service's logs, or of its image build's if there is no service."""
    if find_service(hook, service) is None and query_id:
        build = build_job(service, query_id)
        return log_tail(hook, build) if hook.job_status(build) is not None else "(no image build, no logs)"
    return log_tail(hook, service)


class SnowMLDropServiceOperator(SnowMLOperator):
    """Drop a model's service, and wait until it is gone.

    What is not a model's service is refused: a job, or a service that somebody has made by hand. If there is
    no service, but a statement of this user is still deploying it, that is cancelled, so that none comes
    later.

    XCom: ``{"service_name", "dropped"}``; ``dropped`` is whether there was one.

    Privileges: OWNERSHIP of the service. See https://docs.snowflake.com/en/sql-reference/sql/drop-service.

    :param service_name: the service, ``[[database.]schema.]name``.
    :param if_missing: what it means if there is none: ``"skip"`` (nothing is to be done, as a teardown wants
        it) or ``"fail"``.
    :param timeout: seconds to wait until it is gone.
    :raises NotAModelServiceError: if it is no model's service.
    :raises ServiceNotFoundError: if there is none, and ``if_missing`` is ``"fail"``.
    :raises ServiceConflictError: if it is still there after ``timeout``.
    """

    template_fields: Sequence[str] = (*SnowMLOperator.template_fields, "service_name")

    def __init__(
        self,
        *,
        service_name: str,
        if_missing: Literal["skip", "fail"] = "skip",
        timeout: float = 300.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.service_name = service_name
        self.if_missing = if_missing
        self.timeout = timeout

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, then drop."""
        one_of("if_missing", self.if_missing, ("skip", "fail"))
        hook = self.get_hook()
        with hook.open_connection():
            service = service_name(self.service_name, hook.default_schema())
            found = find_service(hook, service)
            if found is None:
                query_id = running_statement(hook, service)
                if query_id is not None:
                    done = cancel_deployment(hook, service, query_id)
                    self.log.info("There was no service %s yet: %s.", service, ", ".join(done))
                    found = find_service(hook, service)
            if found is None:
                if self.if_missing == "fail":
                    raise ServiceNotFoundError(
                        f"There is no service {service}, or the role may not see it; if_missing='skip' "
                        "allows that."
                    )
                self.log.info("There is no service %s (any more).", service)
                return self.done({"service_name": service.sql, "dropped": False})
            if not found.is_of_a_model:
                raise NotAModelServiceError(f"It is not dropped, being no model's service: {found}.")
            drop_service(hook, service, wait=self.timeout)
            self.log.info("Dropped %s.", found)
        return self.done({"service_name": service.sql, "dropped": True})

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The service that is no more."""
        gone = done.get("dropped")
        return Lineage(writes=[model_service(done["service_name"], change="DROP")] if gone else [])
