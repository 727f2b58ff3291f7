"""Whatever text stands in a template field: what is accepted arrives as it is, and nothing else changes.

A bounded number of texts for each operator; ``make fuzz`` tries 10,000.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
from typing import Any

import pytest
import snowflake.connector
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSensorTimeout
from fuzz_fields import ARGUMENTS, CONNECTIONS, FIELDS, Field
from fuzz_texts import NASTY, NASTY_NAME, names, resolved, resolved_part, texts
from fuzz_world import SLEEPING, World
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from airflow_provider_snowml.exceptions import (
    InsufficientPrivilegesError,
    InvalidArgumentError,
    NotFoundError,
    ObjectExistsError,
    SnowMLError,
    StatementError,
)
from airflow_provider_snowml.get_provider_info import get_provider_info


def operators() -> dict[str, type]:
    """Every operator and sensor by its name."""
    found = {}
    for kind in ("operators", "sensors"):
        for entry in get_provider_info()[kind]:
            for module in map(importlib.import_module, entry["python-modules"]):
                for name, value in vars(module).items():
                    if re.fullmatch(r"SnowML\w+(Operator|Sensor)", name) and value.template_fields:
                        found[name] = value
    found.pop("SnowMLOperator", None)
    return found


OPERATORS = operators()
RESET = (
    *("SnowMLPromoteModelOperator", "SnowMLUpdateModelOperator"),
    *("SnowMLEvaluateModelOperator", "SnowMLChampionChallengerOperator"),
)
KNOWN = (ObjectExistsError, InsufficientPrivilegesError)
OF_VALUES = (100038,)  # a text that is compared with numbers
WHOLE = int(os.environ.get("FUZZ_TEXTS", "0"))  # for each operator
SIZE = settings(
    max_examples=WHOLE or 4,
    derandomize=not WHOLE,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a try takes too long for many of them to make a text shorter
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def world(scoring_schema, local_snowflake):
    name = f"{scoring_schema.name}_FUZZ"
    with (
        snowflake.connector.connect(**local_snowflake.connection_parameters) as connection,
        pytest.MonkeyPatch.context() as patch,
    ):
        uri = local_snowflake.airflow_connection_into(name)
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", uri)
        connection.cursor().execute(f"CREATE SCHEMA {scoring_schema.database}.{name}")
        world = World(connection, f"{scoring_schema.database}.{name}", scoring_schema)
        logging.disable(logging.WARNING)
        with world.hook.open_connection():
            yield world
            world.hook.end()
        logging.disable(logging.NOTSET)
        connection.cursor().execute(f"DROP SCHEMA {world.schema}")


def test_no_template_field_is_forgotten() -> None:
    assert {name: sorted(operator.template_fields) for name, operator in OPERATORS.items()} == {
        name: sorted({**fields, **CONNECTIONS}) for name, fields in FIELDS.items()
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What is not as it was."""
    names = {*before, *after}
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}


@pytest.mark.parametrize("operator", FIELDS)
def test_what_is_accepted_arrives_and_nothing_else_changes(world, operator, tried) -> None:
    fields = [name for name, field in FIELDS[operator].items() if field.is_let_loose]

    @SIZE
    @given(st.data())
    def let_loose(data: Any) -> None:
        name = data.draw(st.sampled_from(fields), label="field")
        field = FIELDS[operator][name]
        text = data.draw(names if field.kind != "text" else texts, label="text")
        attempt(name, field, text)

    def attempt(name: str, field: Field, text: str) -> None:
        tried["tried"] += 1
        tried["accepted"] += Attempt(world, operator, name, field, text).check()

    world.reset()
    before = world.snapshot()
    for name in fields:
        for text in (NASTY, NASTY_NAME):
            attempt(name, FIELDS[operator][name], text)
    let_loose()
    world.reset()
    assert differences(before, world.snapshot()) == {}


def test_the_names_of_a_connection(world, tried) -> None:
    """All operators have them from one place, and they go into the login and no statement."""

    @SIZE
    @given(st.sampled_from(sorted(CONNECTIONS)), names)
    def log_in(name: str, text: str) -> None:
        tried["tried"] += 1
        arguments = {"model_name": "NONE", "version_name": "V1", name: text}
        task = OPERATORS["SnowMLDeleteModelOperator"](task_id="task", **arguments)
        with contextlib.suppress(SnowMLError, AirflowNotFoundException):
            assert not task.execute({})["deleted"]
            tried["accepted"] += 1

    before = world.snapshot()
    log_in()
    assert differences(before, world.snapshot()) == {}


def train(told: str) -> Any:
    """A small model whose metrics say what it was told."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    from airflow_provider_snowml.operators.registry import ModelArtifact

    rows = pd.DataFrame({"A": [1.0, 2.0, 3.0]})
    return ModelArtifact(
        LogisticRegression().fit(rows, [0, 1, 1]), sample_input_data=rows, metrics={"told": told, told: 1}
    )


def test_the_texts_of_what_is_uploaded(world, tried) -> None:
    """Comment and metrics of a new version are written by snowflake-ml, which quotes them its own way."""
    arguments = {
        "model_name": "M",
        "version_name": "NEW",
        "python_callable": train,
        "options": {"target_methods": ["predict"], "enable_explainability": False},
        "verify": False,
    }

    @settings(SIZE, max_examples=max(1, WHOLE // 20))
    @given(texts, texts)
    def upload(comment: str, told: str) -> None:
        attempt(comment, told)

    def attempt(comment: str, told: str) -> None:
        tried["tried"] += 2
        texts = {**arguments, "comment": comment, "op_kwargs": {"told": told}}
        with contextlib.suppress(InvalidArgumentError):
            world.run(OPERATORS["SnowMLRegisterModelOperator"], texts)
            tried["accepted"] += 2
            assert world.versions()["NEW"]["comment"] == comment
            assert world.metrics("NEW") == {"told": told, told: 1}
        world.drop_version("NEW")

    before = world.snapshot()
    attempt(NASTY.replace("$$", ""), NASTY.replace("$$", ""))
    upload()
    assert differences(before, world.snapshot()) == {}


class Attempt:
    """One text in one field.

    :param world: where.
    :param operator: the operator's name.
    :param name: the field's.
    :param field: what it is.
    :param text: the text.
    """

    def __init__(self, world: World, operator: str, name: str, field: Field, text: str) -> None:
        self.world, self.operator, self.name, self.field, self.text = world, operator, name, field, text

    def check(self) -> bool:
        """Try it; whether it was accepted."""
        if self._differs_in_case():
            return False
        if self.field.kind in ("model", "version", "table"):
            return self._of_what_is_there()
        if self.field.kind == "made":
            return self._of_what_is_made()
        result = self._run()
        if result is not None and self.field.kind == "text":
            assert self.field.found(self.world, result) == self.text
        if result is not None:
            self._tidy()
        return result is not None

    def _differs_in_case(self) -> bool:
        """The local Snowflake's engine takes such a table for another one."""
        name, there = resolved(self.text), self.world.named("TABLES")
        return name is not None and name.name not in there and name.name.upper() in there

    def _of_what_is_there(self) -> bool:
        name = resolved_part(self.text)
        kind = self.field.kind
        is_free = name is not None and name not in self._all(kind)
        if is_free:
            try:
                getattr(self.world, f"make_{kind}")(name)
            except snowflake.connector.errors.Error as error:
                note(f"{name!r} cannot be made: {error}")
                is_free = False
        try:
            result = self._run(must_be_found=is_free)
            is_named = kind in ("model", "version") and not self.name.startswith("source_")
            if result is not None and is_named and kind in result and is_free:
                found = resolved(result[kind]) if kind == "model" else None
                assert (found.name if found else result[kind]) == name
        finally:
            if is_free:
                getattr(self.world, f"drop_{kind}")(name)
        if result is not None:
            self._tidy()
        return result is not None

    def _of_what_is_made(self) -> bool:
        before = self.field.found(self.world, {})
        result = self._run()
        made = self.field.found(self.world, result or {}) - before
        try:
            if result is None or not self.text:  # nothing is the same as left out
                assert not made
            else:
                name = resolved(self.text)
                assert name is not None
                assert made <= {name.name}
                assert name.name in made | before
        finally:
            for one in made:
                self.field.drop(self.world, one)
        if result is not None:
            self._tidy()
        return result is not None

    def _run(self, *, must_be_found: bool = False) -> dict[str, Any] | None:
        """What it gave; None if it was refused, by an error of ours that is none of Snowflake's grammar."""
        given = {**self._defaults(), **ARGUMENTS[self.operator], self.name: self.field.value(self.text)}
        given.update(self.field.others)
        try:
            return self.world.run(OPERATORS[self.operator], given)
        except AirflowSensorTimeout:
            return None
        except SnowMLError as error:
            is_missing = isinstance(error, NotFoundError)
            if must_be_found and is_missing:
                raise
            is_ours = not isinstance(error, StatementError) or isinstance(error, KNOWN)
            if not (is_ours or is_missing or error.errno in OF_VALUES):
                raise
            return None

    def _defaults(self) -> dict[str, Any]:
        return {
            "SnowMLBatchInferenceOperator": {"compute_pool": self.world.pool},
            "SnowMLCreateServiceOperator": {"service_compute_pool": SLEEPING},
        }.get(self.operator, {})

    def _all(self, kind: str) -> set[str]:
        if kind == "version":
            return {*self.world.versions(), "DEFAULT", "FIRST", "LAST", "CHAMPION"}
        return self.world.named(f"{kind}S".upper())

    def _tidy(self) -> None:
        """What an operator makes under the name that it is given else."""
        if self.operator == "SnowMLRegisterModelOperator":
            self.world.drop_version("NEW")
        elif self.operator == "SnowMLCreateMonitorOperator":
            self.world.rows("DROP MODEL MONITOR IF EXISTS WATCH")
        elif self.operator == "SnowMLRunModelOperator":
            self.world.drop_table("PREDICTED")
        elif self.operator == "SnowMLLoadPredictionsOperator":
            self.world.drop_table("LOADED")
        elif self.operator == "SnowMLRunSchemaOperator":
            self.world.hook.rows(f"USE SCHEMA {self.world.schema}")  # CREATE SCHEMA uses the new one
        elif self.operator == "SnowMLExportModelOperator":
            self.world.rows("REMOVE @ST/exports/")
        elif self.operator in RESET:
            self.world.reset_model()
