"""The model registry through snowflake-ml-python and through SQL."""

from __future__ import annotations

import json

import pytest
from snowflake.connector.errors import ProgrammingError
from snowflake.snowpark.exceptions import SnowparkSQLException


def test_log_model_and_find_it_again(models):
    found = models.registry.get_model("CLASSIFIER")
    assert found.fully_qualified_name == "SNOWML.SHARED_MODELS.CLASSIFIER"
    version = found.version("V1")
    assert version.comment == "says late or on time"
    assert version.show_metrics() == {"accuracy": 0.75}
    assert [m.name for m in models.registry.models()] == ["CLASSIFIER", "CUSTOM", "PARTITIONED"]
    shown = models.registry.show_models().set_index("name").loc["CLASSIFIER"]
    assert shown["default_version_name"] == "V1"
    assert json.loads(shown["aliases"]) == {"DEFAULT": "V1", "FIRST": "V1", "LAST": "V1"}


def test_unknown_model_and_version(models, registry):
    with pytest.raises(ValueError, match="Unable to find model NOPE"):
        registry.get_model("NOPE")
    with pytest.raises(ValueError, match="Unable to find version or alias with name V9"):
        models.registry.get_model("CLASSIFIER").version("V9")


def test_log_model_again_is_refused(models, rows):
    with pytest.raises(ValueError, match="already existed"):
        models.registry.log_model(
            models.classifier, model_name="CLASSIFIER", version_name="V1", sample_input_data=rows
        )


def test_log_another_version(models, registry, model, rows):
    version = registry.log_model(
        models.classifier, model_name="FLIGHTS", version_name="V3", sample_input_data=rows
    )
    assert version.version_name == "V3"
    found = registry.get_model("FLIGHTS")
    assert found.last().version_name == "V3"
    assert found.default.version_name == "V1"


def test_log_a_copy_of_a_version(models, registry, session, rows):
    from snowflake.ml.registry import Registry

    source = Registry(session, database_name="SNOWML", schema_name="SHARED_MODELS")
    version = source.get_model("CLASSIFIER").version("V1")
    copied = registry.log_model(version, model_name="COPIED", version_name="C1")
    assert registry.get_model("COPIED").default.version_name == "C1"
    result = copied.run(rows, function_name="predict")
    assert list(result["output_feature_0"]) == list(models.classifier.predict(rows))


def test_show_functions(models):
    functions = models.registry.get_model("CLASSIFIER").version("V1").show_functions()
    assert {f["name"]: f["target_method"] for f in functions} == {
        "PREDICT": "predict",
        "PREDICT_PROBA": "predict_proba",
    }
    assert [i.name for i in functions[0]["signature"].inputs] == ["F1", "F2"]


def test_versions(registry, model):
    found = registry.get_model("FLIGHTS")
    assert [v.version_name for v in found.versions()] == ["V1", "V2"]
    shown = found.show_versions().set_index("name")
    assert list(shown["is_default_version"]) == ["true", "false"]
    assert json.loads(shown.loc["V1", "functions"]) == ["PREDICT", "PREDICT_PROBA"]
    assert found.first().version_name == "V1"
    assert found.last().version_name == "V2"


def test_default_version(registry, model):
    found = registry.get_model("FLIGHTS")
    assert found.default.version_name == "V1"
    found.default = "V2"
    assert registry.get_model("FLIGHTS").default.version_name == "V2"
    with pytest.raises(ValueError):
        found.default = "V9"


def test_aliases(registry, model, session):
    found = registry.get_model("FLIGHTS")
    found.version("V1").set_alias("CHAMPION")
    assert found.version("champion").version_name == "V1"
    shown = found.show_versions().set_index("name")
    assert json.loads(shown.loc["V1", "aliases"]) == ["CHAMPION", "DEFAULT", "FIRST"]
    with pytest.raises(SnowparkSQLException, match="CHAMPION"):
        found.version("V2").set_alias("CHAMPION")
    found.version("V1").unset_alias("CHAMPION")
    found.version("V2").set_alias("CHAMPION")
    assert found.version("CHAMPION").version_name == "V2"
    with pytest.raises(SnowparkSQLException, match="system alias"):
        session.sql(f"ALTER MODEL {model} VERSION V1 SET ALIAS = LAST").collect()


def test_comments(registry, model):
    found = registry.get_model("FLIGHTS")
    found.comment = "it's the model"
    found.version("V2").comment = "it's the version"
    assert registry.get_model("FLIGHTS").comment == "it's the model"
    assert registry.get_model("FLIGHTS").version("V2").comment == "it's the version"


def test_metrics(registry, model):
    version = registry.get_model("FLIGHTS").version("V2")
    version.set_metric("auc", 0.5)
    version.set_metric("matrix", {"tp": [1, 2]})
    assert version.get_metric("auc") == 0.5
    version.delete_metric("auc")
    assert version.show_metrics() == {"accuracy": 0.75, "matrix": {"tp": [1, 2]}}
    with pytest.raises(KeyError):
        version.get_metric("auc")
    assert registry.get_model("FLIGHTS").version("V1").show_metrics() == {"accuracy": 0.75}


def test_tags(registry, model, session):
    session.sql("CREATE TAG STAGE_TAG ALLOWED_VALUES 'test', 'live'").collect()
    found = registry.get_model("FLIGHTS")
    found.set_tag("STAGE_TAG", "live")
    assert found.get_tag("STAGE_TAG") == "live"
    assert list(found.show_tags().values()) == ["live"]
    with pytest.raises(SnowparkSQLException, match="allowed"):
        found.set_tag("STAGE_TAG", "dead")
    found.unset_tag("STAGE_TAG")
    assert found.show_tags() == {}
    assert [r["name"] for r in session.sql("SHOW TAGS").collect()] == ["STAGE_TAG"]


def test_load_gives_the_model_back(models, rows):
    loaded = models.registry.get_model("CLASSIFIER").version("V1").load(force=True)
    assert list(loaded.predict(rows)) == list(models.classifier.predict(rows))


def test_export(models, tmp_path):
    from snowflake.ml.model._client.model.model_version_impl import ExportMode

    version = models.registry.get_model("CLASSIFIER").version("V1")
    version.export(str(tmp_path), export_mode=ExportMode.FULL)
    assert (tmp_path / "MANIFEST.yml").is_file()
    assert (tmp_path / "model" / "model.yaml").is_file()
    assert (tmp_path / "functions" / "predict.py").is_file()


def test_rename(registry, model):
    found = registry.get_model("FLIGHTS")
    found.rename("FLIGHTS_2013")
    assert [m.name for m in registry.models()] == ["FLIGHTS_2013"]
    assert registry.get_model("FLIGHTS_2013").last().version_name == "V2"


def test_delete_version(registry, model):
    found = registry.get_model("FLIGHTS")
    with pytest.raises(SnowparkSQLException, match="default version"):
        found.delete_version("V1")
    found.default = "V2"
    found.delete_version("V1")
    assert [v.version_name for v in found.versions()] == ["V2"]
    assert found.first().version_name == "V2"


def test_delete_model(registry, model, session):
    registry.delete_model("FLIGHTS")
    assert registry.models() == []
    with pytest.raises(SnowparkSQLException) as e:
        session.sql(f"DROP MODEL {model}").collect()
    assert e.value.sql_error_code == 2003
    session.sql(f"DROP MODEL IF EXISTS {model}").collect()


def test_names_that_need_quotes(models, session, schema):
    source = "FROM MODEL SNOWML.SHARED_MODELS.CLASSIFIER"
    session.sql(f'CREATE MODEL {schema}."my Model" WITH VERSION "v 1" {source}').collect()
    (shown,) = session.sql(f'SHOW VERSIONS IN MODEL {schema}."my Model"').collect()
    assert shown["name"] == "v 1"
    session.sql(f'ALTER MODEL {schema}."my Model" VERSION "v 1" SET ALIAS = GOOD').collect()
    rows = session.sql(f'SELECT MODEL({schema}."my Model", GOOD)!PREDICT(1, 2) AS R').collect()
    assert json.loads(rows[0]["R"]) == {"output_feature_0": "on time"}


@pytest.mark.parametrize(
    ("statement", "errno"),
    [
        ("CREATE MODEL {m} WITH VERSION V1 FROM MODEL {m}", 2002),
        ("ALTER MODEL {m} ADD VERSION V1 FROM MODEL {m}", 100132),
        ("ALTER MODEL {m} DROP VERSION V9", 2003),
        ("ALTER MODEL {m} FROBNICATE", 1003),
        ("ALTER MODEL {m} MODIFY VERSION V1 SET COLOUR = 'red'", 1003),
        ("ALTER MODEL {m} MODIFY VERSION V1 SET METADATA = 'not json'", 1008),
        ("CREATE MODEL {m}2 WITH VERSION V1 FROM @NO_SUCH_STAGE/model", 2003),
        ("SHOW VERSIONS IN MODEL {m}X", 2003),
    ],
)
def test_errors(connection, model, statement, errno):
    with pytest.raises(ProgrammingError) as e:
        connection.cursor().execute(statement.format(m=model))
    assert e.value.errno == errno


def test_a_stage_without_a_package_is_refused(connection, schema):
    connection.cursor().execute("CREATE STAGE EMPTY_STAGE")
    with pytest.raises(ProgrammingError, match=r"MANIFEST\.yml") as e:
        connection.cursor().execute("CREATE MODEL M WITH VERSION V1 FROM @EMPTY_STAGE/model")
    assert e.value.errno == 398507
