from __future__ import annotations

import pytest

from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.core.partition_load import NOW, PartitionLoad, Stamp, TableColumn
from airflow_provider_snowml.exceptions import PredictionColumnsError

TARGET, SOURCE = QualifiedName.parse("db.sc.predictions"), QualifiedName.parse("db.sc.temp")


def load(*columns: str, **stamps: object) -> PartitionLoad:
    made = tuple(Stamp(Identifier(name), value) for name, value in stamps.items())
    return PartitionLoad(TARGET, SOURCE, columns, Identifier.parse("day"), "2013-06-01", made)


def test_the_key_is_added_where_the_rows_lack_it() -> None:
    assert load("ID", "P").insert() == (
        "INSERT INTO DB.SC.PREDICTIONS (ID, P, DAY) SELECT ID, P, '2013-06-01' FROM DB.SC.TEMP"
    )
    assert load("ID").count_foreign_rows() is None
    assert "'2013-06-01'::VARCHAR AS DAY" in load("ID").create_target()


def test_rows_with_the_key_keep_it_and_are_checked() -> None:
    assert load("ID", "DAY").insert() == (
        "INSERT INTO DB.SC.PREDICTIONS (ID, DAY) SELECT ID, DAY FROM DB.SC.TEMP"
    )
    assert load("DAY").count_foreign_rows() == (
        "SELECT COUNT(*) FROM DB.SC.TEMP WHERE DAY IS DISTINCT FROM '2013-06-01'"
    )


def test_stamps_are_values_and_the_time_is_snowflakes() -> None:
    sql = load("ID", "DAY", MODEL="it's", LOADED_AT=NOW).insert()
    assert sql.endswith(r"SELECT ID, DAY, 'it\'s', SYSDATE() FROM DB.SC.TEMP")


def test_only_the_slice_is_deleted_and_a_null_slice_is_one() -> None:
    assert load("ID").delete() == "DELETE FROM DB.SC.PREDICTIONS WHERE DAY = '2013-06-01'"
    null = PartitionLoad(TARGET, SOURCE, ("ID",), Identifier.parse("day"), None)
    assert null.delete().endswith("WHERE DAY IS NULL")


def test_columns_that_differ_are_listed() -> None:
    load("ID", "P").check_target_columns(["P", "DAY", "ID"])
    with pytest.raises(PredictionColumnsError, match=r"no column P, and the rows have no SCORE"):
        load("ID", "P").check_target_columns(["ID", "SCORE", "DAY"])
    load("ID", "P").check_target_columns(["ID", "P", "SCORE", "DAY"], may_be_left_out=["SCORE"])


def test_a_column_must_not_come_twice() -> None:
    load("ID", "P", MODEL="M").check_own_columns()
    with pytest.raises(PredictionColumnsError, match="The rows have MODEL already"):
        load("ID", "MODEL", MODEL="M").check_own_columns()


def test_columns_that_are_added_have_the_sources_types_and_never_are_the_key() -> None:
    plan = load("ID", "a b", MODEL="M", LOADED_AT=NOW)
    assert plan.new_columns(["ID"]) == ["a b", "MODEL", "LOADED_AT"]
    types = {"ID": TableColumn("NUMBER(38,0)"), "a b": TableColumn("FLOAT")}
    start = "ALTER TABLE DB.SC.PREDICTIONS ADD COLUMN IF NOT EXISTS"
    assert [plan.add_column(column, types) for column in plan.new_columns(["ID"])] == [
        f'{start} "a b" FLOAT',
        f"{start} MODEL VARCHAR",
        f"{start} LOADED_AT TIMESTAMP_NTZ",
    ]
    with pytest.raises(PredictionColumnsError, match="it has no column DAY"):
        load("ID").check_target_columns(["ID"])
