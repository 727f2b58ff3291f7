"""What nobody uses goes; what somebody does stays, and says who."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    ModelInUseError,
    ModelNotFoundError,
)
from airflow_provider_snowml.hooks.model_retention import versions_in_use
from airflow_provider_snowml.operators import model_retention
from airflow_provider_snowml.operators.model_retention import (
    SnowMLDeleteModelOperator,
    SnowMLPruneModelVersionsOperator,
)


@pytest.fixture
def hook(scoring):
    """The hook of a schema with two models that grow old: copies of M, on the server."""
    hook = scoring.hook()
    for model in ("OLD", "OTHER"):
        hook.rows(f"CREATE OR REPLACE MODEL {model} WITH VERSION V1 FROM MODEL M VERSION V1")
        for version in ("V2", "V3", "V4"):
            hook.rows(f"ALTER MODEL {model} ADD VERSION {version} FROM MODEL M VERSION V1")
    yield hook
    for model in ("OLD", "OTHER"):
        hook.rows(f"DROP MODEL IF EXISTS {model}")


def prune(**arguments: Any) -> dict[str, Any]:
    given = {"model_name": "OLD", "plan_only": False, **arguments}
    return SnowMLPruneModelVersionsOperator(task_id="prune", **given).execute({})


def delete(**arguments: Any) -> dict[str, Any]:
    return SnowMLDeleteModelOperator(task_id="delete", model_name="OLD", **arguments).execute({})


def versions(hook, model: str = "OLD") -> set[str]:
    return {row["name"] for row in hook.rows(f"SHOW VERSIONS IN MODEL {model}")}


def test_pruning_keeps_what_is_used_and_the_newest(scoring, hook) -> None:
    hook.rows("ALTER MODEL OLD VERSION V2 SET ALIAS = KEPT")
    assert prune(keep_last=1, plan_only=True)["versions_dropped"] == 0
    assert versions(hook) == {"V1", "V2", "V3", "V4"}
    result = prune(keep_last="1")
    assert result == {
        "models": {
            f"{scoring.schema}.OLD": {
                "dropped": ["V3"],
                "kept": {"V1": "the default", "V2": "has the alias KEPT", "V4": "one of the 1 newest"},
            }
        },
        "versions_dropped": 1,
    }
    assert versions(hook) == {"V1", "V2", "V4"}
    assert prune(keep_last=1)["versions_dropped"] == 0


def test_by_age(scoring, hook) -> None:
    assert prune(older_than=3600)["versions_dropped"] == 0
    assert prune(older_than=0)["models"][f"{scoring.schema}.OLD"]["dropped"] == ["V2", "V3", "V4"]


def test_without_a_name_all_models_of_the_schema(scoring, hook) -> None:
    planned = prune(model_name=None, keep_last=2, plan_only=True)["models"]
    assert planned[f"{scoring.schema}.OLD"]["dropped"] == ["V2"]
    assert planned[f"{scoring.schema}.OTHER"]["dropped"] == ["V2"]
    assert f"{scoring.schema}.M" in planned


def test_models_of_cortex_fine_tuning_are_left_alone_unless_they_are_named(scoring, hook, finetuned) -> None:
    full = f"{scoring.schema}.{finetuned}"
    assert full not in prune(model_name=None, keep_last=1, plan_only=True)["models"]
    assert prune(model_name=finetuned, keep_last=1)["models"][full]["kept"] == {"V1": "the default"}
    with pytest.raises(InvalidArgumentError, match="say that all of them go"):
        SnowMLDeleteModelOperator(task_id="delete", model_name=finetuned).execute({})
    task = SnowMLDeleteModelOperator(task_id="delete", model_name=finetuned, delete_all_versions=True)
    assert task.execute({})["deleted"] is True


def test_what_is_promoted_in_between_stays(scoring, hook, monkeypatch) -> None:
    """Between the plan and the drop of that very version."""
    real = model_retention.versions_in_use

    def promote_first(hook_: Any, model: Any, version: str | None = None) -> Any:
        if version == "V3":
            hook.rows("ALTER MODEL OLD VERSION V3 SET ALIAS = CHAMPION")
        return real(hook_, model, version)

    monkeypatch.setattr(model_retention, "versions_in_use", promote_first)
    result = prune(keep_last=1)["models"][f"{scoring.schema}.OLD"]
    assert (result["dropped"], result["kept"]["V3"]) == (["V2"], "has the alias CHAMPION")
    assert versions(hook) == {"V1", "V3", "V4"}


def test_monitored_versions_are_seen(scoring, hook) -> None:
    """The copy has M's task, so that it can be watched."""
    hook.rows(
        "CREATE OR REPLACE TABLE WATCHED_OLD AS SELECT 1 AS ID, 1.0::FLOAT AS P, 1.0::FLOAT AS A, "
        "'2013-01-01'::TIMESTAMP_NTZ AS T"
    )
    hook.rows(
        "CREATE MODEL MONITOR OLD_WATCH WITH MODEL = OLD VERSION = 'V3' FUNCTION = 'predict_proba' "
        "SOURCE = WATCHED_OLD TIMESTAMP_COLUMN = T ID_COLUMNS = (ID) PREDICTION_SCORE_COLUMNS = (P) "
        "ACTUAL_CLASS_COLUMNS = (A) WAREHOUSE = SNOWML_WH REFRESH_INTERVAL = '1 day' "
        "AGGREGATION_WINDOW = '1 day'"
    )
    try:
        with pytest.raises(ModelInUseError, match=r"V3 of .*OLD was not deleted \(watched by OLD_WATCH\)"):
            delete(version_name="V3")
        with pytest.raises(ModelInUseError, match=r"V3 is watched by OLD_WATCH\. Drop those first"):
            delete(delete_all_versions=True)
    finally:
        hook.rows("DROP MODEL MONITOR OLD_WATCH")
    assert delete(version_name="V3")["deleted"] is True


def test_a_version_is_deleted_once(scoring, hook) -> None:
    with pytest.raises(ModelInUseError, match=r"the default"):
        delete(version_name="v1")
    name = f"{scoring.schema}.OLD"
    assert delete(version_name="v2") == {"model": name, "version": "V2", "deleted": True}
    assert delete(version_name="v2") == {"model": name, "version": "V2", "deleted": False}
    assert versions(hook) == {"V1", "V3", "V4"}


def test_a_model_is_deleted_once_and_on_demand(scoring, hook) -> None:
    for arguments in ({}, {"version_name": ""}, {"version_name": "V2", "delete_all_versions": True}):
        with pytest.raises(InvalidArgumentError, match="name a version, or say that all of them go"):
            delete(**arguments)
    assert delete(delete_all_versions=True)["deleted"] is True
    assert delete(delete_all_versions=True)["deleted"] is False
    assert delete(version_name="V1")["deleted"] is False
    with hook.open_connection():
        assert versions_in_use(hook, QualifiedName.parse("OLD", hook.default_schema())) is None


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, InvalidArgumentError, "Give keep_last, older_than, or both"),
        ({"keep_last": 0}, InvalidArgumentError, "keep_last is 0"),
        ({"older_than": "a week"}, InvalidArgumentError, "older_than is 'a week'"),
        ({"model_name": "a b", "keep_last": 1}, InvalidNameError, "a b"),
        ({"model_name": "NOPE", "keep_last": 1}, ModelNotFoundError, r"There is no model .*NOPE.* has: \w"),
    ],
)
def test_what_makes_no_sense_drops_nothing(hook, arguments, error, says) -> None:
    with pytest.raises(error, match=says):
        prune(**arguments)
    assert len(versions(hook)) == 4
