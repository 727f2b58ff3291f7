"""Promotion and rollback, by operators that know only what the catalog says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, Asset

from airflow_provider_snowml.assets.models import ModelRef
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    ModelNotFoundError,
    ModelVersionExistsError,
    ModelVersionNotFoundError,
    NothingToRollBackError,
    OlderModelError,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.promotion import (
    SnowMLPromoteModelOperator,
    SnowMLRollbackModelOperator,
)

NUMBERS = itertools.count(1)
VERSIONS = ("V1", "V2", "V3")


class Contested:
    """A model of its own, of three versions that are copies of one, in the schema of ``scoring``."""

    def __init__(self, hook: SnowMLHook, schema: str, task_context: Any) -> None:
        self.hook, self.schema, self.context = hook, schema, task_context
        self.name = f"CONTESTED_{next(NUMBERS)}"
        self.model = f"{schema}.{self.name}"
        self.create(self.name)
        for version in VERSIONS[1:]:
            self.hook.rows(f"ALTER MODEL {self.name} ADD VERSION {version} FROM MODEL M VERSION V1")

    def create(self, name: str) -> None:
        self.hook.rows(f"CREATE MODEL {name} WITH VERSION V1 FROM MODEL M VERSION V1")

    def promote(self, version: str, *, store: Any = None, **arguments: Any) -> dict[str, Any]:
        operator = SnowMLPromoteModelOperator(
            task_id="promote", version_name=version, **{"model_name": self.name, **arguments}
        )
        return operator.execute(self.context("promote", store=store))

    def roll_back(
        self, *, store: Any = None, run_id: str = "run", clear_number: int = 0, **arguments: Any
    ) -> dict[str, Any]:
        operator = SnowMLRollbackModelOperator(task_id="roll_back", **{"model_name": self.name, **arguments})
        return operator.execute(
            self.context("roll_back", store=store, run_id=run_id, clear_number=clear_number)
        )

    def aliases(self, model: str | None = None) -> dict[str, str]:
        """The version of each alias but Snowflake's FIRST and LAST."""
        rows = self.hook.rows(f"SHOW VERSIONS IN MODEL {model or self.name}")
        held = {alias: row["name"] for row in rows for alias in json.loads(row["aliases"])}
        return {alias: name for alias, name in held.items() if alias not in ("FIRST", "LAST")}

    def record(self, version: str, model: str | None = None) -> dict[str, Any] | None:
        rows = self.hook.rows(f"SHOW VERSIONS IN MODEL {model or self.name}")
        (metadata,) = (json.loads(row["metadata"]) for row in rows if row["name"] == version)
        return metadata.get("metrics", {}).get("promotion")

    def tag(self, tag: str = "LIVE_VERSION") -> str | None:
        return self.hook.value(f"SELECT SYSTEM$GET_TAG('{tag}', '{self.name}', 'MODULE')")

    def comment(self) -> str:
        return self.hook.rows(f"SHOW MODELS LIKE '{self.name}'")[0]["comment"]


@pytest.fixture
def contested(scoring, task_context, monkeypatch) -> Iterator[Contested]:
    """All over one connection: the operators are given the hook that has it open."""
    hook = scoring.hook()
    for operator in (SnowMLPromoteModelOperator, SnowMLRollbackModelOperator):
        monkeypatch.setattr(operator, "get_hook", lambda _: hook)
    with hook.open_connection():
        yield Contested(hook, scoring.schema, task_context)


@pytest.fixture
def changes(monkeypatch) -> list[str]:
    """The statements that change something."""
    sent: list[str] = []
    rows = SnowMLHook.rows

    def noting(self: SnowMLHook, sql: str, **arguments: Any) -> Any:
        if sql.startswith(("ALTER MODEL", "CREATE")):
            sent.append(sql)
        return rows(self, sql, **arguments)

    monkeypatch.setattr(SnowMLHook, "rows", noting)
    return sent


# -- promoting --------------------------------------------------------------------------------------------


def test_a_first_champion_has_the_default_the_alias_the_tag_and_the_comment(contested) -> None:
    found = contested.promote(
        "v2", alias="champion", tag="live_version", create_tag=True, comment="it's good \\ 100 %"
    )
    assert found == {
        "model": contested.model,
        "version": "V2",
        "previous_version": None,  # V1 was the default by itself
        "alias": "CHAMPION",
        "metrics": {},
    }
    assert contested.aliases() == {"DEFAULT": "V2", "CHAMPION": "V2"}
    assert contested.tag() == "V2"
    assert contested.comment() == "it's good \\ 100 %"


def test_what_readers_get_comes_first_and_is_recorded_before(contested, changes) -> None:
    contested.promote("V1")
    changes.clear()
    contested.promote("V2", tag="live_version", create_tag=True, comment="better")
    alter = f"ALTER MODEL {contested.model}"
    assert [text.removeprefix(alter).split(" SET METADATA")[0] for text in changes] == [
        f"CREATE TAG IF NOT EXISTS {contested.schema}.LIVE_VERSION",
        " MODIFY VERSION V2",
        " SET DEFAULT_VERSION = V2",
        " VERSION CHAMPION UNSET ALIAS",
        " VERSION V2 SET ALIAS = CHAMPION",
        f" SET TAG {contested.schema}.LIVE_VERSION = 'V2'",
        " SET COMMENT = 'better'",
    ][1 if "CREATE TAG" not in changes[0] else 0 :]


def test_a_second_run_changes_nothing(contested, changes) -> None:
    arguments = {"tag": "live_version", "create_tag": True, "comment": "c", "trained_until": "2013-06-03"}
    first = contested.promote("V2", **arguments)
    changes.clear()
    assert contested.promote("V2", **arguments) == first
    assert changes == []


def test_the_next_champion_says_whom_it_followed(contested) -> None:
    contested.promote("V1")
    assert contested.promote("V3")["previous_version"] == "V1"
    assert contested.promote("V3")["previous_version"] == "V1"
    assert contested.aliases() == {"DEFAULT": "V3", "CHAMPION": "V3"}


def test_the_former_champion_gets_an_alias_of_its_own_and_a_challengers_is_taken(contested) -> None:
    contested.promote("V1", previous_alias="FORMER")
    assert contested.aliases() == {"DEFAULT": "V1", "CHAMPION": "V1"}
    contested.promote("V2", previous_alias="FORMER")
    contested.hook.rows(f"ALTER MODEL {contested.name} VERSION V3 SET ALIAS = CHALLENGER")
    contested.promote("V3", previous_alias="FORMER")
    assert contested.aliases() == {"DEFAULT": "V3", "CHAMPION": "V3", "FORMER": "V2"}


def test_a_champion_that_somebody_else_made_is_one(contested) -> None:
    contested.hook.rows(f"ALTER MODEL {contested.name} VERSION V1 SET ALIAS = CHAMPION")
    assert contested.promote("V2")["previous_version"] == "V1"


def test_a_default_that_somebody_else_set_is_one_too_unless_it_is_snowflakes_own(contested) -> None:
    assert contested.promote("V2", alias=None)["previous_version"] is None
    contested.create("BY_HAND")
    try:
        contested.hook.rows("ALTER MODEL BY_HAND ADD VERSION V2 FROM MODEL M VERSION V1")
        contested.hook.rows("ALTER MODEL BY_HAND ADD VERSION V3 FROM MODEL M VERSION V1")
        contested.hook.rows("ALTER MODEL BY_HAND SET DEFAULT_VERSION = V2")
        found = contested.promote("V3", model_name="BY_HAND", alias=None)
        assert found["previous_version"] == "V2"
    finally:
        contested.hook.rows("DROP MODEL BY_HAND")


def test_metrics_are_kept_and_snowflake_ml_reads_the_record(contested) -> None:
    with contested.hook.session() as session:
        registry = contested.hook.registry(session)
        registry.get_model(contested.name).version("V2").set_metric("auc", 0.9)
        assert contested.promote("V2", trained_until="2013-06-03")["metrics"] == {"auc": 0.9}
        version = registry.get_model(contested.name).version("V2")
        assert version.get_metric("promotion")["trained_until"] == "2013-06-03T00:00:00+00:00"
        version.set_metric("brier", 0.1)
    assert contested.promote("V2", trained_until="2013-06-03")["metrics"] == {"auc": 0.9, "brier": 0.1}


def test_quoted_names(contested) -> None:
    name = '"my ""Model"""'
    contested.hook.rows(f'CREATE MODEL {name} WITH VERSION "v \'1" FROM MODEL M VERSION V1')
    try:
        contested.hook.rows(f'ALTER MODEL {name} ADD VERSION "v 2" FROM MODEL M VERSION V1')
        contested.promote('"v \'1"', model_name=name, tag='"a tag"', create_tag=True)
        found = contested.promote('"v 2"', model_name=name, tag='"a tag"', comment="é 'quoted'\n")
        assert (found["version"], found["previous_version"]) == ("v 2", "v '1")
        assert contested.aliases(name) == {"DEFAULT": "v 2", "CHAMPION": "v 2"}
        assert contested.roll_back(model_name=name)["version"] == "v '1"
        assert contested.aliases(name) == {"DEFAULT": "v '1", "CHAMPION": "v '1"}
    finally:
        contested.hook.rows(f"DROP MODEL {name}")


# -- what is refused --------------------------------------------------------------------------------------


def test_an_older_model_does_not_follow_a_newer_one(contested, changes) -> None:
    contested.promote("V2", trained_until="2013-06-10")
    changes.clear()
    with pytest.raises(OlderModelError, match=r"V1 was trained until 2013-06-03.*V2 .*2013-06-10"):
        contested.promote("V1", trained_until="2013-06-03")
    with pytest.raises(OlderModelError, match="not said until when V1 was"):
        contested.promote("V1")
    kept = contested.promote("V1", trained_until="2013-06-03", on_older="keep")
    assert (kept["version"], changes) == ("V2", [])
    contested.promote("V3", trained_until="2013-06-10T00:00:00Z")  # the same week again is not older
    assert contested.promote("V1", trained_until="2013-06-03", on_older="promote")["version"] == "V1"


def test_times_are_compared_whatever_their_zone(contested) -> None:
    contested.promote("V2", trained_until=pendulum.datetime(2013, 6, 3, 2, tz="Europe/Zurich"))
    assert contested.promote("V3", trained_until="2013-06-03")["version"] == "V3"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"version": "V9"}, ModelVersionNotFoundError, "V1, V2, V3"),
        ({"version": "CHALLENGER"}, ModelVersionNotFoundError, "CHALLENGER"),
        ({"model_name": "NOBODY"}, ModelNotFoundError, "CONTESTED"),
        ({"alias": "last"}, InvalidNameError, "Snowflake's own"),
        ({"alias": "V1"}, InvalidNameError, "name of a version"),
        ({"alias": '"a b"'}, InvalidNameError, "without double quotes"),
        ({"previous_alias": "champion"}, InvalidArgumentError, "both CHAMPION"),
        ({"tag": "NO_SUCH_TAG"}, InvalidArgumentError, "CREATE TAG"),
        ({"trained_until": "last week"}, InvalidArgumentError, "ISO"),
        ({"on_older": "maybe"}, InvalidArgumentError, "'keep'"),
        ({"comment": "a $$ b"}, InvalidNameError, r"\$\$"),
        ({"tag": '"a$$b"', "create_tag": True}, InvalidNameError, r"\$\$"),
        ({"comment": "a $$ b", "copy_to": "NEVER_MADE"}, InvalidNameError, r"\$\$"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_changed(
    contested, changes, arguments, error, text
) -> None:
    contested.hook.rows(f"ALTER MODEL {contested.name} VERSION V2 SET ALIAS = CHALLENGER")
    changes.clear()
    with pytest.raises(error, match=text):
        contested.promote(**{"version": "V2", **arguments})
    assert changes == []


# -- rolling back -----------------------------------------------------------------------------------------


def test_a_rollback_needs_no_argument(contested) -> None:
    contested.promote("V1", tag="live_version", create_tag=True, comment="first", previous_alias="FORMER")
    contested.promote("V2", tag="live_version", comment="second", previous_alias="FORMER")
    found = contested.roll_back()
    assert (found["version"], found["rolled_back_from"], found["previous_version"]) == ("V1", "V2", None)
    assert contested.aliases() == {"DEFAULT": "V1", "CHAMPION": "V1"}
    assert (contested.tag(), contested.comment()) == ("V1", "first")
    assert contested.record("V2")["rolled_back_at"]


def test_a_session_in_another_time_zone_knows_the_former_champion(contested) -> None:
    contested.promote("V1")
    contested.promote("V2")
    contested.hook.rows("ALTER SESSION SET TIMEZONE = 'Asia/Tokyo'")
    assert contested.roll_back()["version"] == "V1"


def test_rolling_back_again_goes_further_back(contested) -> None:
    for version in VERSIONS:
        contested.promote(version, previous_alias="FORMER")
    assert contested.roll_back(run_id="one")["version"] == "V2"
    assert contested.aliases() == {"DEFAULT": "V2", "CHAMPION": "V2", "FORMER": "V1"}
    assert contested.roll_back(run_id="two")["version"] == "V1"
    with pytest.raises(NothingToRollBackError, match="V1 is the first champion"):
        contested.roll_back(run_id="three")
    assert contested.promote("V3")["previous_version"] == "V1"


def test_a_task_that_is_cleared_goes_back_once(contested, changes) -> None:
    for version in VERSIONS:
        contested.promote(version)
    store = contested.context.store()
    assert contested.roll_back(store=store)["version"] == "V2"
    changes.clear()
    assert contested.roll_back(store=store)["version"] == "V2"
    assert contested.roll_back(store=store, clear_number=1)["version"] == "V2"
    assert changes == []
    contested.promote("V3")  # the cleared run promotes again, and fails again
    assert contested.roll_back(store=store, clear_number=2)["version"] == "V2"


def test_only_what_was_meant_is_taken_back(contested, changes) -> None:
    for version in VERSIONS:
        contested.promote(version)
    changes.clear()
    found = contested.roll_back(version_name="V2")
    assert (found["version"], found["rolled_back_from"], changes) == ("V3", None, [])
    assert contested.roll_back(version_name="V3")["version"] == "V2"
    assert contested.roll_back(version_name="V3", run_id="again")["version"] == "V2"


def test_a_version_that_came_to_nothing_takes_no_champion_back(contested, changes) -> None:
    """What ``promote.output["version"]`` is if the promotion did not happen."""
    contested.promote("V1")
    contested.promote("V2")
    changes.clear()
    for nothing in (None, "", "None"):
        rollback = SnowMLRollbackModelOperator(
            task_id="roll_back", model_name=contested.name, version_name="{{ later }}"
        )
        rollback.version_name = nothing
        with pytest.raises(InvalidArgumentError, match="was not promoted"):
            rollback.execute(contested.context("roll_back"))
    assert changes == []


def test_there_must_be_something_to_go_back_to(contested) -> None:
    with pytest.raises(NothingToRollBackError, match="Nothing is recorded"):
        contested.roll_back()
    contested.promote("V1")
    contested.promote("V2")
    contested.hook.rows(f"ALTER MODEL {contested.name} DROP VERSION V1")
    with pytest.raises(NothingToRollBackError, match="is gone"):
        contested.roll_back()
    contested.hook.rows(f"ALTER MODEL {contested.name} ADD VERSION V1 FROM MODEL M VERSION V1")
    with pytest.raises(NothingToRollBackError, match="made anew"):
        contested.roll_back()
    assert contested.aliases() == {"DEFAULT": "V2", "CHAMPION": "V2"}


# -- from one schema to another ---------------------------------------------------------------------------


@pytest.fixture
def production(contested, schema) -> str:
    """The name of a model in another schema, which is not there yet."""
    return f"{schema}.PRODUCTION"


def test_a_version_is_copied_and_promoted_there(contested, production, changes) -> None:
    with contested.hook.session() as session:
        model = contested.hook.registry(session).get_model(contested.name)
        model.version("V2").set_metric("auc", 0.9)
    found = contested.promote("V2", copy_to=production, tag="live_version", create_tag=True)
    assert (found["model"], found["metrics"]) == (production, {"auc": 0.9})
    assert contested.aliases(production) == {"DEFAULT": "V2", "CHAMPION": "V2"}
    assert contested.record("V2", production)["copied_from"] == contested.model
    assert contested.record("V2") is None
    assert contested.promote("V3", copy_to=production)["previous_version"] == "V2"
    changes.clear()
    contested.promote("V3", copy_to=production)
    assert changes == []
    assert contested.aliases() == {"DEFAULT": "V1"}
    assert contested.roll_back(model_name=production)["version"] == "V2"


def test_an_older_version_is_not_even_copied(contested, production, changes) -> None:
    contested.promote("V2", copy_to=production, trained_until="2013-06-10")
    changes.clear()
    with pytest.raises(OlderModelError):
        contested.promote("V1", copy_to=production, trained_until="2013-06-03")
    assert changes == []


def test_another_version_of_that_name_is_no_copy(contested, production, changes) -> None:
    contested.promote("V1", copy_to=production)
    contested.hook.rows(f"ALTER MODEL {production} ADD VERSION V2 FROM MODEL SLOW VERSION V1")
    changes.clear()
    with pytest.raises(ModelVersionExistsError, match="no copy"):
        contested.promote("V2", copy_to=production)
    with pytest.raises(InvalidArgumentError, match="the model itself"):
        contested.promote("V2", copy_to=contested.name)
    assert changes == []


# -- crashes ----------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies: nothing handles it."""


class CrashAfter:
    """The process dies when it has made its n-th change; what comes before the next one is the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changes, self._last = 0, -1
        rows = SnowMLHook.rows

        def crashing(hook: SnowMLHook, sql: str, **arguments: Any) -> Any:
            is_change = sql.startswith(("ALTER MODEL", "CREATE"))
            if is_change and self.changes == self._last:
                raise Crash(sql)
            self.changes += is_change
            return rows(hook, sql, **arguments)

        monkeypatch.setattr(SnowMLHook, "rows", crashing)

    @contextmanager
    def after(self, changes: int) -> Iterator[Any]:
        self.changes, self._last = 0, changes
        try:
            with pytest.raises(Crash) as died:
                yield died
        finally:
            self._last = -1


def state(contested: Contested, model: str) -> Any:
    records = {}
    for row in contested.hook.rows(f"SHOW VERSIONS IN MODEL {model}"):
        metadata = json.loads(row["metadata"])
        record = dict(metadata.get("metrics", {}).get("promotion") or {})
        for volatile in ("at", "rolled_back_at", "previous_created_on"):
            if volatile in record:
                record[volatile] = "some time"
        records[row["name"]] = {**metadata, "metrics": {**metadata.get("metrics", {}), "promotion": record}}
    comment = contested.hook.rows(f"SHOW MODELS LIKE '{model}'")[0]["comment"]
    tag = contested.hook.value(f"SELECT SYSTEM$GET_TAG('LIVE_VERSION', '{model}', 'MODULE')")
    return contested.aliases(model), records, comment, tag


MARKS = {"previous_alias": "FORMER", "tag": "LIVE_VERSION"}
CRASHES = {
    "promote": lambda c, store: c.promote("V3", comment="third", **MARKS),
    "roll_back": lambda c, store: c.roll_back(store=store),
}


@pytest.mark.parametrize("what", CRASHES)
def test_a_crash_after_any_change_leaves_what_a_retry_puts_right(contested, monkeypatch, what) -> None:
    act = CRASHES[what]
    contested.hook.rows("CREATE TAG IF NOT EXISTS LIVE_VERSION")
    crash = CrashAfter(monkeypatch)

    def prepare() -> None:
        contested.hook.rows(f"DROP MODEL {contested.name}")
        contested.create(contested.name)
        for version in VERSIONS[1:]:
            contested.hook.rows(f"ALTER MODEL {contested.name} ADD VERSION {version} FROM MODEL M VERSION V1")
        contested.promote("V1", comment="first", **MARKS)
        contested.promote("V2", comment="second", **MARKS)

    prepare()
    crash.changes = 0
    act(contested, contested.context.store())
    changes, clean = crash.changes, state(contested, contested.name)
    assert changes > 5
    promoted = {"V1", "V2", "V3"} if what == "promote" else {"V1", "V2"}
    for number in range(changes):
        prepare()
        store = contested.context.store()
        with crash.after(number) as died:
            act(contested, store)
        held = contested.aliases()
        assert set(held.values()) <= promoted and "DEFAULT" in held, (died.value, held)
        act(contested, store)
        assert state(contested, contested.name) == clean, (number, died.value)


def test_a_crash_while_a_version_is_copied(contested, production, monkeypatch) -> None:
    crash = CrashAfter(monkeypatch)
    contested.promote("V2", copy_to=production)
    for number in range(crash.changes):
        contested.hook.rows(f"DROP MODEL {production}")
        with crash.after(number):
            contested.promote("V2", copy_to=production)
        assert contested.promote("V2", copy_to=production)["version"] == "V2"
        assert contested.aliases(production) == {"DEFAULT": "V2", "CHAMPION": "V2"}
        assert contested.record("V2", production)["copied_from"] == contested.model


# -- the asset --------------------------------------------------------------------------------------------


def test_the_assets_event_says_what_was_promoted(contested, run_dag) -> None:
    ref = ModelRef(contested.model)
    with DAG("promote", start_date=pendulum.datetime(2013, 6, 1), schedule=None) as dag:
        first = SnowMLPromoteModelOperator(task_id="first", model_name=ref, version_name="V1")
        second = SnowMLPromoteModelOperator(
            task_id="second", model_name=ref, version_name="{{ 'V2' }}", trained_until="{{ '2013-06-03' }}"
        )
        back = SnowMLRollbackModelOperator(
            task_id="back", model_name=contested.model, version_name="V2", outlets=[Asset(ref.uri)]
        )
        first >> second >> back
    run, xcoms = run_dag(dag)
    assert run.state == "success"
    assert xcoms["second"]["previous_version"] == "V1"
    events = {event["source_task_id"]: event["extra"] for event in _events(ref.uri)}
    assert events["second"] == {
        "version": "V2",
        "previous_version": "V1",
        "alias": "CHAMPION",
        "metrics": {},
    }
    assert (events["back"]["version"], events["back"]["rolled_back_from"]) == ("V1", "V2")


def _events(uri: str) -> list[dict[str, Any]]:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.uri == uri)
        ).all()
        return [{"source_task_id": event.source_task_id, "extra": event.extra} for event in found]


def test_an_outlet_that_is_another_model_is_refused(contested, changes) -> None:
    other = Asset("snowml://snowflake/snowml/prod/model/other")
    with pytest.raises(InvalidArgumentError, match="SNOWML/PROD/model/OTHER"):
        contested.promote("V2", outlets=[other])
    with pytest.raises(InvalidArgumentError, match="same ModelRef"):
        contested.roll_back(outlets=[other])
    assert changes == []
