"""The text of ``CALL SYSTEM$DEPLOY_MODEL``: a model version, to be served.

The specification is the one that snowflake-ml's ``create_service`` sends for the same arguments, written into
the statement: it lets Snowflake deploy without a file on a stage, and without the session that sent it. See
https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/container.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import yaml

from airflow_provider_snowml.core.batch_job import fingerprint
from airflow_provider_snowml.core.names import Identifier, QualifiedName, literal
from airflow_provider_snowml.exceptions import InvalidArgumentError

STATEMENT = "CALL SYSTEM$DEPLOY_MODEL("


@dataclass(frozen=True)
class ServiceDeployment:
    """A service to be deployed. ``None`` leaves the choice to Snowflake.

    :param name: the service's name.
    :param model: the model.
    :param version: the version's resolved name, never an alias.
    :param service_compute_pool: the compute pool it runs in.
    :param image_build_compute_pool: the one its image is built in; that of the service if it is left out.
    :param image_repo: the image repository that the image is built into.
    :param force_rebuild: whether the image is built even if it exists.
    :param build_external_access_integrations: what the build may reach.
    :param ingress_enabled: whether it can be called from outside Snowflake.
    :param min_instances: instances, at least; 0 lets Snowflake suspend an idle service.
    :param max_instances: instances, at most.
    :param cpu_requests: CPUs per instance, such as ``"2"``.
    :param memory_requests: memory per instance, such as ``"8Gi"``.
    :param gpu_requests: GPUs per instance.
    :param num_workers: worker processes per instance.
    :param max_batch_rows: rows per call of the method.
    :param autocapture: whether requests and predictions are kept in the model's inference table.
    """

    name: QualifiedName
    model: QualifiedName
    version: str
    service_compute_pool: Identifier
    image_build_compute_pool: Identifier | None = None
    image_repo: QualifiedName | None = None
    force_rebuild: bool = False
    build_external_access_integrations: tuple[Identifier, ...] = ()
    ingress_enabled: bool = False
    min_instances: int = 0
    max_instances: int = 1
    cpu_requests: str | None = None
    memory_requests: str | None = None
    gpu_requests: str | None = None
    num_workers: int | None = None
    max_batch_rows: int | None = None
    autocapture: bool | None = None

    def specification(self) -> str:
        """The YAML text."""
        pool = self.service_compute_pool
        integrations = [integration.sql for integration in self.build_external_access_integrations]
        blocks = {
            "models": [{"name": self.model.sql, "version": Identifier.of(self.version).sql}],
            "image_build": _without_none(
                compute_pool=(self.image_build_compute_pool or pool).sql,
                image_repo=self.image_repo.sql if self.image_repo else None,
                force_rebuild=self.force_rebuild,
                external_access_integrations=integrations or None,
            ),
            "service": _without_none(
                name=self.name.sql,
                compute_pool=pool.sql,
                ingress_enabled=self.ingress_enabled,
                min_instances=self.min_instances,
                max_instances=self.max_instances,
                cpu=self.cpu_requests,
                memory=self.memory_requests,
                gpu=self.gpu_requests,
                num_workers=self.num_workers,
                max_batch_rows=self.max_batch_rows,
                autocapture=self.autocapture,
            ),
        }
        text: str = yaml.safe_dump(blocks)
        return text

    def sql(self) -> str:
        """The statement."""
        return f"{STATEMENT}{literal(self.specification())})"

    @property
    def fingerprint(self) -> str:
        """What would make the service a different one."""
        return fingerprint({"specification": self.specification()})


def name_clause(name: QualifiedName) -> str:
    """What the statement that deploys a service contains, and no other one.

    :param name: the service's name.
    """
    return literal("  " + yaml.safe_dump({"name": name.sql}))[1:-1]


def check_requests(
    *, cpu_requests: str | None, memory_requests: str | None, gpu_requests: str | None
) -> None:
    """Check how resources are written, see
    https://docs.snowflake.com/en/developer-guide/snowpark-container-services/specification-reference.

    :raises InvalidArgumentError: if one is none.
    """
    for what, value, pattern, example in (
        ("cpu_requests", cpu_requests, r"\d+(\.\d+)?|\d+m", "'2', '0.5' or '500m'"),
        ("memory_requests", memory_requests, r"\d+(\.\d+)?[KMGT]i?", "'8Gi' or '512Mi'"),
        ("gpu_requests", gpu_requests, r"\d+", "'1'"),
    ):
        if value is not None and not re.fullmatch(pattern, value):
            raise InvalidArgumentError(f"{what} is {value!r}; write {example}.")


def image_build_job(query_id: str) -> Identifier:
    """The name of the job, in the service's schema, that builds the image for a deployment's statement.

    :param query_id: the statement.
    """
    number = str(int(query_id.replace("-", ""), 16))
    digest = hashlib.md5(number.encode(), usedforsecurity=False).hexdigest()
    return Identifier(f"MODEL_BUILD_{digest[:8].upper()}")


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
