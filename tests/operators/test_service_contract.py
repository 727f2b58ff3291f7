"""What the operator sends against what the installed SDK's ``create_service`` sends, as Snowflake sees both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.services import SnowMLCreateServiceOperator

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {
        "min_instances": 1,
        "max_instances": 2,
        "num_workers": 2,
        "max_batch_rows": 16,
        "cpu_requests": "1",
        "memory_requests": "1Gi",
        "ingress_enabled": True,
    },
    "image": {"image_build_compute_pool": "TEST_POOL", "image_repo": "IMAGES", "force_rebuild": True},
}
# From which version of snowflake-ml on the account takes the specification inside the statement.
INLINE = {"ENABLE_INLINE_DEPLOYMENT_SPEC_FROM_CLIENT_VERSION": "1.8.0"}


def specification(sql: str) -> Any:
    (text,) = re.fullmatch(r"CALL SYSTEM\$DEPLOY_MODEL\('(.*)'\)", sql, re.DOTALL).groups()
    return yaml.safe_load(text.replace("\\'", "'").replace("''", "'"))


def sdk_specification(session: Any, sql: str, directory: Path) -> Any:
    """The specification in the statement, or in the file on a stage that the statement names."""
    found = re.fullmatch(r"CALL SYSTEM\$DEPLOY_MODEL\('(@.*)'\)", sql)
    if found is None:
        return specification(sql)
    session.file.get(found.group(1), str(directory))
    return yaml.safe_load((directory / "deploy.yml").read_text())


@pytest.mark.parametrize("features", [{}, INLINE], ids=["staged", "inline"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_operator_sends_what_create_service_sends(
    serving, task_context, monkeypatch, tmp_path, case, features
) -> None:
    from snowflake.ml._internal.platform_capabilities import PlatformCapabilities

    hook = serving.hook()
    hook.rows(f"CREATE IMAGE REPOSITORY IF NOT EXISTS {serving.schema}.IMAGES")
    sent: list[str] = []
    real = SnowMLHook.submit
    monkeypatch.setattr(SnowMLHook, "submit", lambda self, sql: (sent.append(sql), real(self, sql))[1])
    SnowMLCreateServiceOperator(
        task_id="serve",
        model_name="M",
        service_name="CONTRACT",
        service_compute_pool=serving.pool,
        poll_interval=0.2,
        **case,
    ).execute(task_context("serve"))
    hook.rows(f"DROP SERVICE {serving.schema}.CONTRACT")

    with PlatformCapabilities.mock_features(features), hook.session() as session:
        version = hook.registry(session, hook.default_schema()).get_model("M").version("V1")
        with session.query_history() as history:
            version.create_service(service_name="CONTRACT", service_compute_pool=serving.pool, **case)
        theirs = [query.sql_text for query in history.queries if "DEPLOY_MODEL" in query.sql_text]
        assert len(theirs) == len(sent) == 1
        assert ("deploy.yml" in theirs[0]) == (not features)
        assert specification(sent[0]) == sdk_specification(session, theirs[0], tmp_path)
