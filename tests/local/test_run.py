"""Models in SQL: ``mv.run`` and the ``MODEL(...)!METHOD(...)`` that it sends."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from snowflake.connector.errors import DatabaseError, ProgrammingError
from snowflake.snowpark.exceptions import SnowparkSQLException

CLASSIFIER = "SNOWML.SHARED_MODELS.CLASSIFIER"
CUSTOM = "SNOWML.SHARED_MODELS.CUSTOM"


def test_run_on_pandas(models, rows):
    version = models.registry.get_model("CLASSIFIER").version("V1")
    result = version.run(rows, function_name="predict")
    assert list(result["output_feature_0"]) == list(models.classifier.predict(rows))
    result = version.run(rows, function_name="predict_proba")
    expected = models.classifier.predict_proba(rows)
    assert result.to_numpy() == pytest.approx(expected)


def test_run_on_a_snowpark_dataframe(models, rows):
    models.session.create_dataframe(rows).write.save_as_table("RUN_INPUT", mode="overwrite")
    version = models.registry.get_model("CLASSIFIER").version("V1")
    result = version.run(models.session.table("RUN_INPUT"), function_name="predict")
    result.write.save_as_table("RUN_OUTPUT", mode="overwrite")
    found = models.session.table("RUN_OUTPUT").sort("F1").to_pandas()
    assert list(found.columns) == ["F1", "F2", "output_feature_0"]
    assert list(found["output_feature_0"]) == list(models.classifier.predict(rows))


def test_custom_model_with_code_and_a_parameter(models, rows):
    version = models.registry.get_model("CUSTOM").version("V1")
    result = version.run(rows, function_name="predict")
    assert list(result["SHIFTED"]) == list(rows["F1"] + 100)
    result = version.run(rows, function_name="predict", params={"by": 1})
    assert list(result["SHIFTED"]) == list(rows["F1"] + 1)


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT MODEL({CLASSIFIER}, V1)!PREDICT(39, 1) AS R",
        f"SELECT MODEL({CLASSIFIER}, last)!predict(39.0, 1::NUMBER(3,1)) AS R",
        f"SELECT MODEL({CLASSIFIER})!PREDICT(a, b) AS R FROM (SELECT 39 AS a, '1' AS b)",
        f"SELECT {CLASSIFIER}!PREDICT(39, 1) AS R",
        f"WITH mv AS MODEL {CLASSIFIER} VERSION FIRST SELECT mv!PREDICT(39, 1) AS R",
        f"WITH mv AS MODEL {CLASSIFIER}"
        " SELECT mv!PREDICT(38 + mv!PREDICT_PROBA(39, 1):output_feature_0::FLOAT, 1) AS R",
        f"WITH t AS (SELECT 39 AS a), mv AS MODEL {CLASSIFIER} SELECT mv!PREDICT(t.a, 1) AS R FROM t",
    ],
)
def test_call_forms(models, sql):
    (row,) = models.session.sql(sql).collect()
    assert json.loads(row["R"]) == {"output_feature_0": "late"}


def test_fields_of_the_result(models):
    (row,) = models.session.sql(
        f"SELECT MODEL({CLASSIFIER}, V1)!PREDICT(39, 1):output_feature_0::VARCHAR AS A,"
        f" MODEL({CLASSIFIER}, V1)!PREDICT_PROBA(39, 1)['output_feature_0']::FLOAT AS B"
    ).collect()
    assert row["A"] == "late"
    assert row["B"] > 0.9


def test_what_the_model_raises_is_the_error(models, rows):
    with pytest.raises(SnowparkSQLException, match="ValueError: no good: 1 rows") as e:
        models.session.sql(f"SELECT MODEL({CUSTOM}, V1)!FAIL(1, 2)").collect()
    assert e.value.sql_error_code == 100357
    with pytest.raises(SnowparkSQLException, match="process of the model ended"):
        models.session.sql(f"SELECT MODEL({CUSTOM}, V1)!QUIT(1, 2)").collect()
    (row,) = models.session.sql(f"SELECT MODEL({CUSTOM}, V1)!PREDICT(1, 2, 5) AS R").collect()
    assert json.loads(row["R"]) == {"SHIFTED": 6.0}


def test_a_cancelled_statement_ends_its_model(models, connection, local_snowflake):
    """A model that does not come back is ended, and the next statement has a new process."""
    log = Path(local_snowflake.data_dir, "logs", "models.log")
    slept = log.read_text().count("going to sleep") if log.exists() else 0
    cursor = connection.cursor()
    cursor.execute_async(f"SELECT MODEL({CUSTOM}, V1)!SLEEP(F1, 2) FROM (SELECT 1 AS F1)")
    deadline = time.monotonic() + 180
    while not (log.exists() and log.read_text().count("going to sleep") > slept):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (said,) = connection.cursor().execute(f"SELECT SYSTEM$CANCEL_QUERY('{cursor.sfqid}')").fetchone()
    assert "terminated" in said
    with pytest.raises(DatabaseError) as e:
        cursor.get_results_from_sfqid(cursor.sfqid)
        cursor.fetchall()
    assert e.value.errno == 604
    (found,) = connection.cursor().execute(f"SELECT MODEL({CUSTOM}, V1)!PREDICT(1, 2, 5)").fetchone()
    assert json.loads(found) == {"SHIFTED": 6.0}


@pytest.mark.parametrize(
    ("sql", "errno"),
    [
        (f"SELECT MODEL({CLASSIFIER}, V1)!NOPE(1, 2)", 2143),
        (f"SELECT MODEL({CLASSIFIER}, V1)!PREDICT(1)", 1044),
        (f"SELECT MODEL({CLASSIFIER}, V9)!PREDICT(1, 2)", 2003),
        ("SELECT MODEL(SNOWML.SHARED_MODELS.NOPE)!PREDICT(1, 2)", 2003),
        ("SELECT MODEL(SNOWML.SHARED_MODELS.PARTITIONED)!TOTAL(1, 2)", 1003),  # not for warehouses
    ],
)
def test_errors_before_anything_runs(models, connection, sql, errno):
    with pytest.raises(ProgrammingError) as e:
        connection.cursor().execute(sql)
    assert e.value.errno == errno


def test_a_dropped_model_is_gone_and_its_name_free(models, session, model):
    session.sql(f"SELECT MODEL({model}, V2)!PREDICT(1, 2)").collect()
    session.sql(f"DROP MODEL {model}").collect()
    with pytest.raises(SnowparkSQLException):
        session.sql(f"SELECT MODEL({model}, V2)!PREDICT(1, 2)").collect()
    session.sql(f"CREATE MODEL {model} WITH VERSION V2 FROM MODEL {CUSTOM}").collect()
    (row,) = session.sql(f"SELECT MODEL({model}, V2)!PREDICT(1, 2, 5) AS R").collect()
    assert json.loads(row["R"]) == {"SHIFTED": 6.0}
