"""What the operator sends against what the SDK's ``create_service`` sends, as Snowflake sees both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.services import SnowMLCreateServiceOperator

CASES: dict[str, dict[str, Any]] = {
    "staged": {},
    "inline": {
        "image_build_compute_pool": "TEST_POOL",
        "image_repo": "IMAGES",
        "force_rebuild": True,
        "min_instances": 1,
        "max_instances": 2,
        "num_workers": 2,
        "max_batch_rows": 16,
        "cpu_requests": "1",
        "memory_requests": "1Gi",
        "ingress_enabled": True,
    },
}
# On such an account the SDK puts the specification into the statement, else into a file on a stage.
INLINE = {"ENABLE_INLINE_DEPLOYMENT_SPEC_FROM_CLIENT_VERSION": "1.8.0"}


class Sent(BaseException):
    """What would have been sent."""


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


@pytest.mark.parametrize("case", CASES)
def test_the_operator_sends_what_create_service_sends(
    serving, task_context, monkeypatch, tmp_path, case
) -> None:
    from snowflake.ml._internal.platform_capabilities import PlatformCapabilities

    def send(self: SnowMLHook, sql: str) -> str:
        raise Sent(sql)

    hook = serving.hook()
    hook.rows(f"CREATE IMAGE REPOSITORY IF NOT EXISTS {serving.schema}.IMAGES")
    arguments = {"service_name": "CONTRACT", "service_compute_pool": serving.pool, **CASES[case]}
    with monkeypatch.context() as patch, pytest.raises(Sent) as ours:
        patch.setattr(SnowMLHook, "submit", send)
        SnowMLCreateServiceOperator(task_id="serve", model_name="M", **arguments).execute(
            task_context("serve")
        )

    features = INLINE if case == "inline" else {}
    with PlatformCapabilities.mock_features(features), hook.session() as session:
        version = hook.registry(session, hook.default_schema()).get_model("M").version("V1")
        with session.query_history() as history:
            version.create_service(**arguments)
        (theirs,) = [query.sql_text for query in history.queries if "DEPLOY_MODEL" in query.sql_text]
        assert ("deploy.yml" in theirs) == (case == "staged")
        assert specification(str(ours.value)) == sdk_specification(session, theirs, tmp_path)
