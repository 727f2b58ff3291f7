from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.lineage import (
    directory,
    job_output,
    model_monitor,
    model_service,
    model_version,
    table,
    tables,
)
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.exceptions import InvalidNameError

HERE = SchemaName(Identifier("ML"), Identifier("PUBLIC"))


def test_a_name_is_what_snowflake_resolves_it_to() -> None:
    assert (
        table("x", HERE).name == table("ml.Public.X").name == table('"ML".PUBLIC."X"').name == "ML.PUBLIC.X"
    )
    assert table('"x y"', HERE).name == "ML.PUBLIC.x y"
    assert model_version("churn", "V1", HERE).name == "model/ML.PUBLIC.CHURN"
    assert model_service("churn", HERE).name == "service/ML.PUBLIC.CHURN"
    assert model_monitor("a.b.churn").name == "model_monitor/A.B.CHURN"
    with pytest.raises(InvalidNameError, match="not fully qualified"):
        table("x")


def test_an_argument_that_is_left_out_is_no_table() -> None:
    assert [one.name for one in tables("x", None, "", default=HERE, rows=3)] == ["ML.PUBLIC.X"]


def test_a_version_is_no_part_of_the_name() -> None:
    first, second = (
        model_version("churn", "V1", HERE, alias=None),
        model_version("churn", "V2", HERE, alias="A"),
    )
    assert first.name == second.name
    assert (first.version, first.model) == ("V1", {})
    assert second.model == {"alias": "A"}


def test_a_url_is_called_as_openlineage_calls_it() -> None:
    found = directory("s3://aws_default@bucket/models/churn/")
    assert (found.namespace, found.name) == ("s3://bucket", "models/churn")
    found = directory("file:///models/churn.json")
    assert (found.namespace, found.name) == ("file", "/models/churn.json")


def test_all_jobs_of_a_directory_write_to_one_dataset() -> None:
    first, second = job_output("@st/scores/JOB_1/", HERE, rows=3), job_output("@ml.public.st/scores/JOB_2")
    assert first.name == second.name == directory("@ST/scores/", HERE).name == "@ML.PUBLIC.ST/scores"
    assert (first.version, second.version) == ("JOB_1", "JOB_2")
    at_the_root = job_output("@st/JOB_1/", HERE)
    assert (at_the_root.name, at_the_root.version) == ("@ML.PUBLIC.ST", "JOB_1")
    assert job_output("@st", HERE).version is None


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_categories=["Cc"]), min_size=1))
def test_what_has_one_name_in_snowflake_is_told_apart(name: str) -> None:
    found = QualifiedName(Identifier("ML"), Identifier("PUBLIC"), Identifier.of(name))
    names = {
        table(found).name,
        model_version(found).name,
        model_service(found.sql).name,
        model_monitor(found.sql).name,
        directory(f"@{found.sql}").name,
    }
    assert len(names) == 5
    assert table(found.sql).name == table(found).name == f"ML.PUBLIC.{name}"
