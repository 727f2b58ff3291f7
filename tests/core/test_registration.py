from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_snowml.core.batch_job import JobOwner, RunRef
from airflow_provider_snowml.core.model_artifact import ModelArtifact
from airflow_provider_snowml.core.model_limits import (
    check_imports,
    check_metadata,
    check_methods,
    check_tag_value,
    check_version_count,
    check_warehouse_size,
    parse_version_name,
)
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.core.registration import (
    PredictionCheck,
    Registration,
    fingerprint,
    source_of,
)
from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError, ModelLimitError

MADE = Registration(
    JobOwner("dag", "task", "2013-06-01"),
    RunRef("run", 1),
    "f" * 64,
    "A.B.C",
    "V1",
    {"auc": 0.5, "matrix": [[1, 2]]},
    "weekly",
    ["predict"],
    PredictionCheck("predict", ["F1"], [[1.0]], [[0]]),
)


def test_a_registration_survives_its_file() -> None:
    assert Registration.from_json(MADE.to_json()) == MADE
    assert Registration.from_json(replace(MADE, check=None).to_json()) == replace(MADE, check=None)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"owner": {}}', b"\xff", MADE.to_json()[:-1]])
def test_anything_else_is_no_registration(text) -> None:
    assert Registration.from_json(text) is None


def test_what_makes_two_registrations_the_same_work() -> None:
    for other in (
        replace(MADE, owner=JobOwner("dag", "other", "2013-06-01")),
        replace(MADE, owner=JobOwner("dag", "task", "2013-06-02")),
        replace(MADE, run=RunRef("run", 2)),
        replace(MADE, run=RunRef("other", 1)),
        replace(MADE, fingerprint="0"),
        replace(MADE, version="V2"),
        replace(MADE, model="A.B.D"),
    ):
        assert other.identity != MADE.identity
    assert replace(MADE, metrics={}, comment="", check=None, functions=None).identity == MADE.identity


def test_the_fingerprint() -> None:
    base = fingerprint("def f(): ...", [[1], {"a": "b"}], "2013-06-01")
    assert base == fingerprint("def f(): ...", [(1,), {"a": "b"}], "2013-06-01")
    assert base != fingerprint("def g(): ...", [[1], {"a": "b"}], "2013-06-01")
    assert base != fingerprint("def f(): ...", [[2], {"a": "b"}], "2013-06-01")
    assert base != fingerprint("def f(): ...", [[1], {"a": "b"}], "2013-06-02")
    # Another object of the type, as in a retry's process, is the same; its address is not in it.
    assert fingerprint("", [object()], "") == fingerprint("", [object()], "")
    assert fingerprint("", [{1, 2}], "") == fingerprint("", [{2, 1}], "")


def test_source() -> None:
    assert "def test_source" in source_of(test_source)
    assert source_of(len) == "builtins.len"


def test_what_the_artifact_leaves_out_is_taken_from_the_operator() -> None:
    artifact = ModelArtifact(1, metrics={"auc": 1}, comment="mine").with_defaults(
        {"metrics": {"auc": 2, "rows": 3}, "comment": "yours", "task": "T", "code_paths": None}
    )
    assert (artifact.metrics, artifact.comment, artifact.task) == ({"auc": 1, "rows": 3}, "mine", "T")
    assert ModelArtifact(1, signatures={"predict": 1}).with_defaults({"sample_input_data": [1]}) == (
        ModelArtifact(1, signatures={"predict": 1})
    )
    assert ModelArtifact(1, sample_input_data=[1]).with_defaults({"signatures": {"predict": 1}}) == (
        ModelArtifact(1, sample_input_data=[1])
    )


@pytest.mark.parametrize("name", ["default", "First", '"LAST"'])
def test_a_version_cannot_have_the_name_of_a_system_alias(name) -> None:
    with pytest.raises(InvalidNameError, match="DEFAULT, FIRST, LAST are aliases"):
        parse_version_name(name)
    assert parse_version_name("v1") == "V1"


def test_limits() -> None:
    model = QualifiedName.parse("A.B.C")
    check_version_count(model, 999)
    check_imports(10)
    check_metadata({"a": "x" * 102_389})
    check_methods([f"m{n}" for n in range(10)], {f"m{n}": True for n in range(10)})
    check_warehouse_size(5 * 1024**3)
    check_warehouse_size(None)
    check_tag_value("T", "x" * 256)
    for message, check in (
        (r"A\.B\.C has 1001 versions.*limit is 1000", lambda: check_version_count(model, 1000)),
        ("11 imports.*limit is 10", lambda: check_imports(11)),
        ("102401 bytes of metadata.*limit is 102400", lambda: check_metadata({"a": "x" * 102_392})),
        (
            "11 methods.*limit is 10",
            lambda: check_methods([f"m{n}" for n in range(11)], {f"m{n}": True for n in range(11)}),
        ),
        ("5368709121 bytes in a warehouse.*5368709120", lambda: check_warehouse_size(5 * 1024**3 + 1)),
        ("tag T has 257 characters.*limit is 256", lambda: check_tag_value("T", "x" * 257)),
    ):
        with pytest.raises(ModelLimitError, match=message):
            check()
    with pytest.raises(InvalidArgumentError, match=r"no method transform.*Of those it has: predict"):
        check_methods(["predict", "transform"], {"predict": True, "transform": False})
