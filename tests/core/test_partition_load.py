from __future__ import annotations

import pytest

from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.core.partition_load import NOW, PartitionLoad
from airflow_provider_snowml.exceptions import PredictionColumnsError

TARGET, SOURCE = QualifiedName.parse("db.sc.predictions"), QualifiedName.parse("db.sc.temp")


def load(*columns: str, **stamps: object) -> PartitionLoad:
    return PartitionLoad(TARGET, SOURCE, columns, Identifier.parse("day"), "2013-06-01", stamps)


def test_the_key_is_added_where_the_rows_lack_it() -> None:
    sql, values = load("ID", "P").insert()
    assert sql == "INSERT INTO DB.SC.PREDICTIONS (ID, P, DAY) SELECT ID, P, %(key)s FROM DB.SC.TEMP"
    assert values == {"key": "2013-06-01"}
    assert load("ID").count_foreign_rows() is None


def test_rows_with_the_key_keep_it_and_are_checked() -> None:
    sql, values = load("ID", "DAY").insert()
    assert sql == "INSERT INTO DB.SC.PREDICTIONS (ID, DAY) SELECT ID, DAY FROM DB.SC.TEMP"
    assert values == {}
    counting = load("DAY").count_foreign_rows()
    assert counting is not None and "IS DISTINCT FROM %(key)s" in counting[0]


def test_stamps_are_bound_and_the_time_is_snowflakes() -> None:
    sql, values = load("ID", "DAY", MODEL="m", LOADED_AT=NOW).insert()
    assert sql.endswith("SELECT ID, DAY, %(model)s, CURRENT_TIMESTAMP()::TIMESTAMP_NTZ FROM DB.SC.TEMP")
    assert values == {"model": "m"}


def test_only_the_slice_is_deleted_and_a_null_slice_is_one() -> None:
    sql, values = load("ID").delete()
    assert sql == "DELETE FROM DB.SC.PREDICTIONS WHERE DAY IS NOT DISTINCT FROM %(key)s"
    assert values == {"key": "2013-06-01"}


def test_percent_signs_in_names_survive_the_connectors_formatting() -> None:
    sql, values = load("a%b").insert()
    assert sql % values == (
        'INSERT INTO DB.SC.PREDICTIONS ("a%b", DAY) SELECT "a%b", 2013-06-01 FROM DB.SC.TEMP'
    )
    sql, values = load("a%b", "DAY").insert()
    assert values == {} and '"a%b"' in sql


def test_columns_that_differ_are_listed() -> None:
    load("ID", "P").check_target_columns(["P", "DAY", "ID"])
    with pytest.raises(PredictionColumnsError, match=r"no column P, and the rows have no SCORE"):
        load("ID", "P").check_target_columns(["ID", "SCORE", "DAY"])
