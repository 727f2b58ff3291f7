"""The deployment against the installed SDK's own builder: the two cannot part unnoticed."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.core.service_deployment import (
    ServiceDeployment,
    check_requests,
    image_build_job,
    name_clause,
)
from airflow_provider_snowml.exceptions import InvalidArgumentError

BASE: dict[str, Any] = {
    "name": QualifiedName.parse("db.sc.svc"),
    "model": QualifiedName.parse("db.sc.m"),
    "version": "V1",
    "service_compute_pool": Identifier.parse("pool"),
}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "quoted": {
        "name": QualifiedName.parse('"my db".sc.svc'),
        "model": QualifiedName.parse('db."s c"."It\'s ""mine"""'),
        "version": "v 1",
        "service_compute_pool": Identifier.parse('"a pool"'),
    },
    "scaled": {
        "min_instances": 1,
        "max_instances": 3,
        "num_workers": 4,
        "max_batch_rows": 1000,
        "cpu_requests": "2",
        "memory_requests": "8Gi",
    },
    "gpu": {"gpu_requests": "1"},
    "ingress": {"ingress_enabled": True, "autocapture": True},
    "image": {
        "image_build_compute_pool": Identifier.parse("builders"),
        "image_repo": QualifiedName.parse("db.sc.repo"),
        "force_rebuild": True,
        "build_external_access_integrations": (Identifier.parse("pypi"), Identifier.parse('"Hub"')),
    },
}


def sdk_specification(deployment: ServiceDeployment) -> str:
    """What ``ModelVersion.create_service`` builds for the same arguments."""
    from snowflake.ml._internal.utils.sql_identifier import SqlIdentifier
    from snowflake.ml.model._client.service.model_deployment_spec import ModelDeploymentSpec

    def identifier(part: Identifier) -> SqlIdentifier:
        return SqlIdentifier(part.name, case_sensitive=True)

    d = deployment
    spec = ModelDeploymentSpec()
    spec.add_model_spec(
        database_name=identifier(d.model.database),
        schema_name=identifier(d.model.schema),
        model_name=identifier(d.model.name),
        version_name=SqlIdentifier(d.version, case_sensitive=True),
    )
    spec.add_image_build_spec(
        image_build_compute_pool_name=identifier(d.image_build_compute_pool or d.service_compute_pool),
        fully_qualified_image_repo_name=d.image_repo.sql if d.image_repo else None,
        force_rebuild=d.force_rebuild,
        external_access_integrations=[identifier(i) for i in d.build_external_access_integrations] or None,
    )
    spec.add_service_spec(
        service_database_name=identifier(d.name.database),
        service_schema_name=identifier(d.name.schema),
        service_name=identifier(d.name.name),
        inference_compute_pool_name=identifier(d.service_compute_pool),
        ingress_enabled=d.ingress_enabled,
        min_instances=d.min_instances,
        max_instances=d.max_instances,
        cpu=d.cpu_requests,
        memory=d.memory_requests,
        gpu=d.gpu_requests,
        num_workers=d.num_workers,
        max_batch_rows=d.max_batch_rows,
        autocapture=d.autocapture,
    )
    return spec.save()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_specification_is_the_sdks(case: dict[str, Any]) -> None:
    deployment = ServiceDeployment(**{**BASE, **case})
    assert deployment.specification() == sdk_specification(deployment)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_statement_carries_the_specification_whole(case: dict[str, Any]) -> None:
    deployment = ServiceDeployment(**{**BASE, **case})
    sql = deployment.sql()
    assert sql.startswith("CALL SYSTEM$DEPLOY_MODEL('")
    assert sql.endswith("')")
    text = sql.removeprefix("CALL SYSTEM$DEPLOY_MODEL('").removesuffix("')")
    assert yaml.safe_load(text.replace("\\'", "'").replace("\\\\", "\\")) == yaml.safe_load(
        deployment.specification()
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_statement_is_found_by_its_service(case: dict[str, Any]) -> None:
    deployment = ServiceDeployment(**{**BASE, **case})
    assert name_clause(deployment.name) in deployment.sql()
    longer = Identifier(deployment.name.name.name + "_2")
    other = QualifiedName(deployment.name.database, deployment.name.schema, longer)
    assert name_clause(deployment.name) not in ServiceDeployment(**{**BASE, **case, "name": other}).sql()


def test_a_service_named_like_its_model_is_found_by_the_service() -> None:
    deployment = ServiceDeployment(**{**BASE, "model": BASE["name"], "name": QualifiedName.parse("db.sc.x")})
    assert name_clause(BASE["name"]) not in deployment.sql()


@pytest.mark.parametrize(
    "query_id", ["01b2c3d4-0000-1111-2222-333344445555", "b5f0c8a2-78d1-4c70-8f41-0a2c9d3e4f50"]
)
def test_the_image_build_has_the_name_that_the_sdk_looks_for(query_id: str) -> None:
    from snowflake.ml.model._client.ops import deployment_step

    step = deployment_step.DeploymentStep.MODEL_BUILD
    theirs = deployment_step.get_service_id_from_deployment_step(query_id, step)
    assert image_build_job(query_id).sql == theirs


def test_the_fingerprint_tells_deployments_apart() -> None:
    prints = {ServiceDeployment(**{**BASE, **case}).fingerprint for case in CASES.values()}
    assert len(prints) == len(CASES)
    assert ServiceDeployment(**BASE).fingerprint == ServiceDeployment(**BASE).fingerprint


@pytest.mark.parametrize(
    "requests",
    [
        {"cpu_requests": "2"},
        {"cpu_requests": "0.5"},
        {"cpu_requests": "500m"},
        {"memory_requests": "8Gi"},
        {"memory_requests": "1.5G"},
        {"gpu_requests": "1"},
    ],
    ids=str,
)
def test_requests(requests: dict[str, str]) -> None:
    check_requests(**{"cpu_requests": None, "memory_requests": None, "gpu_requests": None, **requests})


@pytest.mark.parametrize(
    "requests",
    [
        {"cpu_requests": "two"},
        {"cpu_requests": "2 "},
        {"memory_requests": "8"},
        {"memory_requests": "8GB"},
        {"gpu_requests": "0.5"},
        {"gpu_requests": "1\n"},
    ],
    ids=str,
)
def test_requests_that_are_none_are_named(requests: dict[str, str]) -> None:
    ((what, value),) = requests.items()
    with pytest.raises(InvalidArgumentError, match=what) as raised:
        check_requests(**{"cpu_requests": None, "memory_requests": None, "gpu_requests": None, **requests})
    assert repr(value) in str(raised.value)
