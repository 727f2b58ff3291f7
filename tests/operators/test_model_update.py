"""What is read about a model changes once, whatever dies in between, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    ModelExistsError,
    ModelLimitError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.model_update import SnowMLUpdateModelOperator
from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator

NAMES = ("UPDATED", "RENAMED", '"renamed again"')


class Crash(BaseException):
    """The worker is gone."""


@pytest.fixture
def hook(scoring):
    """The hook of a schema with a model of two versions, copies of M, and a tag."""
    hook = scoring.hook()
    hook.rows("CREATE OR REPLACE MODEL UPDATED WITH VERSION V1 FROM MODEL M VERSION V1")
    hook.rows("ALTER MODEL UPDATED ADD VERSION V2 FROM MODEL M VERSION V1")
    hook.rows("CREATE TAG IF NOT EXISTS COST_CENTER")
    yield hook
    for name in NAMES:
        hook.rows(f"DROP MODEL IF EXISTS {name}")


@pytest.fixture
def update(task_context):
    """Run the operator as one try of one task instance of this test."""
    store = task_context.store()

    def run(*, clear_number: int = 0, new_task: bool = False, **arguments: Any) -> dict[str, Any]:
        context = task_context(
            "update", clear_number=clear_number, store=task_context.store() if new_task else store
        )
        given = {"model_name": "UPDATED", **arguments}
        return SnowMLUpdateModelOperator(task_id="update", **given).execute(context)

    return run


def seen(hook: SnowMLHook, name: str = "UPDATED") -> dict[str, Any]:
    """All that there is to see of the model."""
    with hook.open_connection():
        (model,) = hook.rows(f"SHOW MODELS LIKE '{name}'")
        versions = hook.rows(f"SHOW VERSIONS IN MODEL {name}")
        tags = hook.rows(f"SELECT * FROM TABLE(INFORMATION_SCHEMA.TAG_REFERENCES('{name}', 'MODULE'))")
    return {
        "comment": model["comment"],
        "tags": {row["TAG_NAME"]: row["TAG_VALUE"] for row in tags},
        "default": model["default_version_name"],
        "versions": {
            row["name"]: (row["comment"], json.loads(row["metadata"]).get("metrics", {})) for row in versions
        },
        "aliases": {row["name"]: row["aliases"] for row in versions},
    }


ALL = {
    "version_name": "v2",
    "metrics": {"auc": 0.9, "matrix": {"tp": [1, 2]}, "old": None},
    "version_comment": "it's 50% \\ of 'x'",
    "alias": "candidate",
    "tags": {"cost_center": "ml; -- 'x'"},
    "comment": "who: $$ü\n",
    "rename_to": "renamed",
}


def prepare(hook: SnowMLHook) -> None:
    hook.rows("ALTER MODEL UPDATED VERSION V1 SET ALIAS = CANDIDATE")
    hook.rows("""ALTER MODEL UPDATED MODIFY VERSION V2 SET METADATA = '{"metrics": {"old": 1, "kept": 2}}'""")
    hook.rows("ALTER MODEL UPDATED SET TAG COST_CENTER = 'before'")


def expected(scoring) -> dict[str, Any]:
    return {
        "model": f"{scoring.schema}.RENAMED",
        "version": "V2",
        "changes": {
            "metric auc": {"from": None, "to": 0.9},
            "metric matrix": {"from": None, "to": {"tp": [1, 2]}},
            "metric old": {"from": 1, "to": None},
            "version comment": {"from": "", "to": "it's 50% \\ of 'x'"},
            "alias CANDIDATE": {"from": "V1", "to": "V2"},
            f"tag {scoring.schema}.COST_CENTER": {"from": "before", "to": "ml; -- 'x'"},
            "comment": {"from": "", "to": "who: $$ü\n"},
            "name": {"from": f"{scoring.schema}.UPDATED", "to": f"{scoring.schema}.RENAMED"},
        },
    }


def test_all_at_once_and_then_nothing(scoring, hook, update) -> None:
    prepare(hook)
    assert update(**ALL) == expected(scoring)
    found = seen(hook, "RENAMED")
    assert found["comment"] == "who: $$ü\n"
    assert found["tags"] == {"COST_CENTER": "ml; -- 'x'"}
    assert found["versions"] == {
        "V1": ("", {}),
        "V2": ("it's 50% \\ of 'x'", {"kept": 2, "auc": 0.9, "matrix": {"tp": [1, 2]}}),
    }
    assert found["aliases"] == {"V1": '["DEFAULT", "FIRST"]', "V2": '["CANDIDATE", "LAST"]'}
    # snowflake-ml reads what was written.
    with hook.session() as session:
        model = hook.registry(session).get_model("RENAMED")
        version = model.version("CANDIDATE")
        assert (version.version_name, version.show_metrics()) == ("V2", found["versions"]["V2"][1])
        assert (model.comment, list(model.show_tags().values())) == (found["comment"], ["ml; -- 'x'"])
    # The same try again, as after a lost reply, says the same; a run that is cleared finds nothing to do.
    assert update(**ALL) == expected(scoring)
    again = update(clear_number=1, **ALL)
    assert (again["model"], again["changes"]) == (f"{scoring.schema}.RENAMED", {})
    assert seen(hook, "RENAMED") == found


def test_a_crash_before_or_after_any_statement_ends_as_one_clean_run(
    scoring, hook, update, monkeypatch
) -> None:
    prepare(hook)
    real, sent = SnowMLHook.rows, []

    def crashing(after: bool) -> Any:
        def rows(self: SnowMLHook, sql: str, **options: Any) -> Any:
            if not sql.startswith("ALTER MODEL"):
                return real(self, sql, **options)
            if after:
                real(self, sql, **options)
                sent.append(sql)
            raise Crash

        return rows

    for _ in range(20):
        ended = None
        for after in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(SnowMLHook, "rows", crashing(after))
                try:
                    ended = update(**ALL)
                except Crash:
                    ended = None
        if ended is not None:
            break
    assert ended == expected(scoring)
    kinds = [sql.split(" ", 3)[3].partition(" = ")[0] for sql in sent]
    name = f"{scoring.schema}."
    assert [kind.replace(name, "") for kind in kinds] == [
        "MODIFY VERSION V2 SET METADATA",
        "MODIFY VERSION V2 SET COMMENT",
        "VERSION CANDIDATE UNSET ALIAS",
        "VERSION V2 SET ALIAS",
        "SET TAG COST_CENTER",
        "SET COMMENT",
        "RENAME TO RENAMED",
    ]
    assert seen(hook, "RENAMED")["versions"]["V2"][1]["auc"] == 0.9


def test_a_rename_of_somebody_else_is_not_taken_for_ones_own(scoring, hook, update) -> None:
    hook.rows("ALTER MODEL UPDATED RENAME TO RENAMED")
    says = (
        r"There is no model .*UPDATED.*RENAMED is there, but this task has not noted that it was its rename"
    )
    with pytest.raises(ModelNotFoundError, match=says):
        update(rename_to="RENAMED")
    hook.rows("CREATE MODEL UPDATED WITH VERSION V1 FROM MODEL M VERSION V1")
    with pytest.raises(ModelExistsError, match=r"can't be renamed to .*RENAMED: there is such a model"):
        update(rename_to="RENAMED", comment="x")
    assert seen(hook)["comment"] == ""


def test_after_its_own_rename_another_model_of_the_old_name_is_left_alone(scoring, hook, update) -> None:
    update(rename_to="RENAMED")
    hook.rows("CREATE MODEL UPDATED WITH VERSION V1 FROM MODEL M VERSION V1")
    assert update(rename_to="RENAMED", comment="mine", clear_number=1)["changes"] == {
        "comment": {"from": "", "to": "mine"}
    }
    assert (seen(hook)["comment"], seen(hook, "RENAMED")["comment"]) == ("", "mine")
    # Another task has not renamed it.
    with pytest.raises(ModelExistsError):
        update(rename_to="RENAMED", new_task=True)


def test_a_quoted_name(scoring, hook, update) -> None:
    assert update(rename_to='"renamed again"')["model"] == f'{scoring.schema}."renamed again"'
    assert update(model_name='"renamed again"', rename_to="UPDATED")["changes"]["name"]["to"].endswith(
        "UPDATED"
    )


def test_tags_come_and_go(scoring, hook, update) -> None:
    with pytest.raises(InvalidArgumentError, match=r"There is no tag .*STAGE_OF_LIFE.*: CREATE TAG"):
        update(tags={"STAGE_OF_LIFE": "new"})
    update(tags={"STAGE_OF_LIFE": "new", "COST_CENTER": "1"}, create_tags=True)
    tag = f"{scoring.schema}.STAGE_OF_LIFE"
    assert update(tags={"stage_of_life": None}, clear_number=1)["changes"] == {
        f"tag {tag}": {"from": "new", "to": None}
    }
    assert list(seen(hook)["tags"]) == ["COST_CENTER"]


def test_the_champion_is_the_promotions_to_say(scoring, hook, update, task_context) -> None:
    promote = SnowMLPromoteModelOperator(task_id="promote", model_name="UPDATED", version_name="V2")
    promote.execute({**task_context("promote"), "outlet_events": {}})
    before = seen(hook)
    for version, alias in (("V1", "CHAMPION"), ("V2", "SHADOW")):
        with pytest.raises(InvalidArgumentError, match="SnowMLPromoteModelOperator gives it and takes it"):
            update(version_name=version, alias=alias, metrics={"auc": 1})
    with pytest.raises(InvalidArgumentError, match="record of a promotion"):
        update(version_name="V1", metrics={"promotion": {}})
    assert seen(hook) == before
    update(version_name="V2", metrics={"auc": 1})
    assert seen(hook)["versions"]["V2"][1] == {**before["versions"]["V2"][1], "auc": 1}


def test_a_model_of_cortex_fine_tuning_is_changed_since_it_is_named(scoring, finetuned, update) -> None:
    assert update(model_name=finetuned, comment="tuned")["changes"]["comment"]["to"] == "tuned"
    (row,) = scoring.hook().rows(f"SHOW MODELS LIKE '{finetuned}'")
    assert (row["comment"], row["model_type"]) == ("tuned", "CORTEX_FINETUNED")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, InvalidArgumentError, "Nothing is to be changed: give one of metrics, version_comment"),
        ({"metrics": {"a": 1}}, InvalidArgumentError, "Name the version that metrics is for"),
        ({"alias": "A", "version_name": ""}, InvalidArgumentError, "Name the version that alias is for"),
        ({"model_name": "a b", "comment": "x"}, InvalidNameError, "a b"),
        ({"model_name": "NOPE", "comment": "x"}, ModelNotFoundError, r"There is no model .*NOPE"),
        ({"version_name": "V9", "metrics": {"a": 1}}, ModelVersionNotFoundError, "V9"),
        ({"version_name": "default", "metrics": {"a": 1}}, ModelVersionNotFoundError, "(?i)default"),
        ({"version_name": "V2", "metrics": {"a": float("nan")}}, InvalidArgumentError, "a is nan"),
        ({"version_name": "V2", "alias": "V1"}, InvalidNameError, "the name of a version"),
        ({"version_name": "V2", "alias": "LAST"}, InvalidNameError, "Snowflake's own"),
        ({"comment": "x", "tags": {"COST_CENTER": "x" * 257}}, ModelLimitError, "has 257 characters"),
        ({"comment": "x", "rename_to": "a b"}, InvalidNameError, "rename_to"),
        ({"comment": "x", "rename_to": "PUBLIC.X"}, InvalidArgumentError, "in another schema"),
    ],
)
def test_what_makes_no_sense_changes_nothing(hook, update, arguments, error, says) -> None:
    before = seen(hook)
    with pytest.raises(error, match=says):
        update(**arguments)
    assert seen(hook) == before
