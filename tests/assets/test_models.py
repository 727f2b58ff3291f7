from __future__ import annotations

import os

import pytest
from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset
from airflow.providers.openlineage.sqlparser import SQLParser
from airflow.sdk import Asset
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.assets.models import ModelRef, create_asset
from airflow_provider_snowml.core.model_uri import model_uri, parse_model_path
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError
from airflow_provider_snowml.hooks.snowml import SnowMLHook


def test_one_model_has_one_uri() -> None:
    asset = ModelRef("ml.public.churn").asset
    assert asset.uri == "snowml://snowflake/ML/PUBLIC/model/CHURN"
    assert ModelRef('ML."PUBLIC".Churn').asset == asset
    assert Asset("snowml://Snowflake/ml/public/model/churn/").uri == asset.uri
    assert create_asset(account="snowflake", database="ml", schema="public", model="churn") == asset
    assert ModelRef('ml.public."churn"').uri != asset.uri


def test_its_dataset_of_openlineage_is_the_operators(monkeypatch) -> None:
    monkeypatch.setitem(os.environ, "AIRFLOW__SNOWML__ACCOUNT", "MyOrg-prod")
    dataset = translate_airflow_asset(ModelRef('ml.public."churn"').asset, None)
    assert (dataset.namespace, dataset.name) == ("snowflake://myorg-prod", "model/ML.PUBLIC.churn")
    hook = SnowMLHook()
    monkeypatch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", "snowflake://u:p@/?account=MyOrg-prod")
    database = hook.get_openlineage_database_info(None)
    assert SQLParser.create_namespace(database) == dataset.namespace


def test_the_account_is_of_airflows_configuration(monkeypatch) -> None:
    monkeypatch.setitem(os.environ, "AIRFLOW__SNOWML__ACCOUNT", "MyOrg-prod")
    assert ModelRef("a.b.c").uri == "snowml://myorg-prod/A/B/model/C"
    monkeypatch.setitem(os.environ, "AIRFLOW__SNOWML__ACCOUNT", "no/account")
    with pytest.raises(InvalidNameError, match="no/account"):
        _ = ModelRef("a.b.c").asset


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("churn", "not fully qualified"),
        ("b.churn", "not fully qualified"),
        ("{{ params.database }}.b.churn", "when the DAG is parsed"),
        ('a.b."{% x %}"', "when the DAG is parsed"),
        ("USER$ME.b.churn", "personal database"),
        ("a b.c.d", "no valid model name"),
    ],
)
def test_what_is_no_name_is_refused(name, text) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        ModelRef(name)


@pytest.mark.parametrize(
    "uri", ["snowml:///a/b/model/c", "snowml://x/a/b/c", "snowml://x/a/b/table/c", "snowml://x/a b/b/model/c"]
)
def test_what_is_no_models_uri_is_refused(uri) -> None:
    with pytest.raises(InvalidArgumentError):
        Asset(uri)


PARTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(PARTS, PARTS, PARTS)
def test_a_uri_keeps_the_name_whatever_it_is(database, schema, name) -> None:
    model = QualifiedName(Identifier.of(database), Identifier.of(schema), Identifier.of(name))
    uri = model_uri("snowflake", model)
    assert uri.isascii()
    assert parse_model_path(uri.removeprefix("snowml://snowflake")) == model
