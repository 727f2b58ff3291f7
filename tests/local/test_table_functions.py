"""Table functions of models: through ``mv.run`` and in plain SQL; partitioned, row by row, wide."""

# No postponed annotations here: CustomModel reads those of its methods.
# ruff: noqa: I002
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from snowflake.snowpark.exceptions import SnowparkSQLException

SCHEMA = "SNOWML.TABLE_FUNCTIONS"
M = f"MODEL({SCHEMA}.TABLES, V1)"


@pytest.fixture(scope="module")
def tables(local_snowflake, rows) -> Iterator[SimpleNamespace]:
    """``session`` and ``registry`` of a schema with the table FLIGHTS and the models TABLES and WIDE."""
    from snowflake.ml.registry import Registry
    from snowflake.snowpark import Session

    parameters = {**local_snowflake.connection_parameters, "schema": None}
    session = Session.builder.configs(parameters).create()
    session.sql(f"CREATE OR REPLACE SCHEMA {SCHEMA}").collect()
    session.sql(f"USE SCHEMA {SCHEMA}").collect()
    registry = Registry(session, database_name="SNOWML", schema_name="TABLE_FUNCTIONS")
    _log_tables(registry)
    flights = rows.assign(DAY=["MON", "TUE", "WED", None] * 10)
    session.create_dataframe(flights).write.save_as_table("FLIGHTS")
    yield SimpleNamespace(session=session, registry=registry, flights=flights)
    session.sql(f"DROP SCHEMA {SCHEMA}").collect()
    session.close()


def _log_tables(registry) -> None:
    import pandas as pd
    from snowflake.ml.model import custom_model
    from snowflake.ml.model.model_signature import DataType, FeatureSpec, ModelSignature, ParamSpec

    class Tables(custom_model.CustomModel):
        @custom_model.partitioned_api
        def total(self, X: pd.DataFrame, *, times: float = 1.0) -> pd.DataFrame:
            return pd.DataFrame({"TOTAL": [X["F1"].sum() * times], "N": [len(X)]})

        @custom_model.partitioned_api
        def ranked(self, X: pd.DataFrame) -> pd.DataFrame:
            first = X["F1"].iloc[0]
            return pd.DataFrame({"F": X["F1"], "PLACE": X["F1"].rank(), "FIRST": first})

        @custom_model.partitioned_api
        def fail(self, X: pd.DataFrame) -> pd.DataFrame:
            raise ValueError(f"no good: {len(X)} rows")

        @custom_model.inference_api
        def shifted(self, X: pd.DataFrame, *, by: float = 100.0) -> pd.DataFrame:
            return pd.DataFrame({"SHIFTED": X["F1"] + by, "BOTH": [list(r) for r in X.to_numpy()]})

        @custom_model.inference_api
        def short(self, X: pd.DataFrame) -> pd.DataFrame:
            return X[["F1"]].rename(columns={"F1": "S"}).head(1)

    def features(**types: DataType) -> list[FeatureSpec]:
        return [FeatureSpec(name, type_) for name, type_ in types.items()]

    def signature(params=(), **outputs: DataType) -> ModelSignature:
        inputs = features(F1=double, F2=double)
        return ModelSignature(inputs=inputs, outputs=features(**outputs), params=list(params))

    def parameter(name: str, default: float) -> ParamSpec:
        return ParamSpec(name=name, dtype=double, default_value=default)

    double = DataType.DOUBLE
    shifted = signature([parameter("by", 100.0)], SHIFTED=double)
    shifted.outputs.append(FeatureSpec("BOTH", double, shape=(2,)))
    registry.log_model(
        Tables(custom_model.ModelContext()),
        model_name="TABLES",
        version_name="V1",
        signatures={
            "total": signature([parameter("times", 1.0)], TOTAL=double, N=DataType.INT64),
            "ranked": signature(F=double, PLACE=double, FIRST=double),
            "fail": signature(FAILED=double),
            "shifted": shifted,
            "short": signature(S=double),
        },
        options={"function_type": "TABLE_FUNCTION"},
    )


def expected_totals(flights) -> dict:
    found = flights.groupby("DAY", dropna=False)["F1"].sum()
    return {None if day != day else day: total for day, total in found.items()}


@pytest.fixture
def version(tables):
    return tables.registry.get_model("TABLES").version("V1")


def test_what_the_registry_says(version):
    functions = {f["target_method"]: f for f in version.show_functions()}
    assert {f["target_method_function_type"] for f in functions.values()} == {"TABLE_FUNCTION"}
    assert functions["total"]["is_partitioned"]
    assert not functions["shifted"]["is_partitioned"]


def test_each_partition_gives_its_rows(tables, version):
    """NULL is a partition, too; of the input only the partition's column is there."""
    result = version.run(tables.session.table("FLIGHTS"), function_name="total", partition_column="DAY")
    assert sorted(result.columns) == ["DAY", "N", "TOTAL"]
    found = result.collect()
    assert {row.DAY: row.TOTAL for row in found} == expected_totals(tables.flights)
    assert {row.N for row in found} == {10}
    assert [field.datatype.simple_string() for field in result.select("N", "TOTAL").schema] == [
        "bigint",
        "double",
    ]


def test_without_a_column_all_rows_are_one_partition(tables, version):
    (row,) = version.run(tables.session.table("FLIGHTS"), function_name="total").collect()
    assert (row.TOTAL, row.N) == (780.0, 40)


def test_on_pandas(tables, version):
    result = version.run(tables.flights, function_name="total", partition_column="DAY")
    assert set(result["TOTAL"]) == set(expected_totals(tables.flights).values())


def test_parameters(tables, version):
    flights = tables.session.table("FLIGHTS")
    (row,) = version.run(flights, function_name="total", params={"times": 2.0}).collect()
    assert row.TOTAL == 1560.0
    found = version.run(flights, function_name="shifted", params={"by": 1.0}).collect()
    assert {row.F1: row.SHIFTED for row in found} == {f: f + 1 for f in tables.flights.F1}


def test_row_by_row_keeps_the_input(tables, version):
    """Also with a partition column, and more rows than are handled at once."""
    result = version.run(tables.session.table("FLIGHTS"), function_name="shifted")
    assert sorted(result.columns) == ["BOTH", "DAY", "F1", "F2", "SHIFTED"]
    assert {row.F1: (row.SHIFTED, row.DAY) for row in result.collect()} == {
        f: (f + 100, day) for f, day in zip(tables.flights.F1, tables.flights.DAY, strict=True)
    }
    result = version.run(tables.session.table("FLIGHTS"), function_name="shifted", partition_column="DAY")
    assert result.count() == 40
    many = "SELECT SEQ4()::FLOAT AS F1, 0::FLOAT AS F2 FROM TABLE(GENERATOR(ROWCOUNT => 50000))"
    sql = f"SELECT COUNT(*), COUNT_IF(SHIFTED = F1 + 100) FROM ({many}) AS X, TABLE({M}!SHIFTED(F1, F2))"
    assert tuple(tables.session.sql(sql).collect()[0]) == (50000, 50000)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELECT f.DAY, TOTAL, t.N FROM FLIGHTS f, "
            "TABLE({M}!TOTAL(f.F1, f.F2) OVER (PARTITION BY f.DAY)) AS t ORDER BY f.DAY",
            [("MON", 180.0, 10), ("TUE", 190.0, 10), ("WED", 200.0, 10), (None, 210.0, 10)],
        ),
        (
            "WITH mv AS MODEL TABLES VERSION V1, f AS (SELECT * FROM FLIGHTS WHERE DAY = 'MON') "
            "SELECT t.* FROM f, TABLE(mv!TOTAL(F1, F2, 10) OVER (PARTITION BY DAY)) t",
            [(1800.0, 10)],
        ),
        (
            "SELECT f.* FROM FLIGHTS f, TABLE({M}!TOTAL(F1, F2) OVER (PARTITION BY DAY)) WHERE DAY = 'TUE'",
            [(None, None, "TUE")],
        ),
        (
            "SELECT DISTINCT FIRST FROM FLIGHTS, "
            "TABLE({M}!RANKED(F1, F2) OVER (PARTITION BY F2 > 3 ORDER BY F1 DESC)) ORDER BY 1",
            [(38.0,), (39.0,)],
        ),
        (
            "WITH t AS (SELECT DAY, F AS F1, PLACE AS F2 FROM FLIGHTS, "
            "TABLE({M}!RANKED(F1, F2) OVER (PARTITION BY DAY))) "
            "SELECT t.DAY, TOTAL FROM t, TABLE({M}!TOTAL(F1, F2) OVER (PARTITION BY DAY)) WHERE t.DAY < 'N'",
            [("MON", 180.0)],
        ),
        ("SELECT * FROM TABLE({M}!TOTAL(1, 2, 3) OVER (PARTITION BY 1))", [(3.0, 1)]),
        ("SELECT N FROM FLIGHTS, TABLE({M}!TOTAL(F1, F2) OVER (PARTITION BY DAY)) WHERE DAY = 'NEVER'", []),
        (
            "SELECT N FROM (SELECT * FROM FLIGHTS WHERE FALSE) f, "
            "TABLE({M}!TOTAL(F1, F2) OVER (PARTITION BY DAY))",
            [],
        ),
        (
            "SELECT SHIFTED, BOTH[1]::FLOAT FROM (SELECT 1 AS A, 2 AS B) x, TABLE({M}!SHIFTED(x.A, x.B))",
            [(101.0, 2.0)],
        ),
    ],
)
def test_call_forms(tables, sql, expected):
    found = tables.session.sql(sql.format(M=M)).collect()
    assert [tuple(row) for row in found] == expected


def test_into_a_table_and_a_temporary_one(tables):
    query = f"SELECT DAY, TOTAL FROM FLIGHTS, TABLE({M}!TOTAL(F1, F2) OVER (PARTITION BY DAY))"
    execute = tables.session.sql
    execute(f"CREATE TEMPORARY TABLE TOTALS AS {query}").collect()
    execute(f"INSERT INTO TOTALS {query}").collect()
    assert execute("SELECT COUNT(*), COUNT(DISTINCT TOTAL) FROM TOTALS").collect()[0][:] == (8, 4)
    execute("CREATE TEMPORARY TABLE READ_FROM AS SELECT * FROM FLIGHTS").collect()
    found = execute(query.replace("FLIGHTS", "READ_FROM")).collect()
    assert {row.DAY: row.TOTAL for row in found} == expected_totals(tables.flights)


@pytest.mark.parametrize(
    ("sql", "errno", "words"),
    [
        (
            "SELECT * FROM FLIGHTS, TABLE({M}!FAIL(F1, F2) OVER (PARTITION BY DAY))",
            100357,
            "no good: 10 rows",
        ),
        ("SELECT * FROM FLIGHTS, TABLE({M}!SHORT(F1, F2))", 100357, "returned 1 rows for 40"),
        ("SELECT {M}!TOTAL(F1, F2) FROM FLIGHTS", 1003, "TABLE"),
        ("SELECT * FROM FLIGHTS, TABLE({M}!TOTAL(F1))", 1044, "expected 3"),
        ("SELECT * FROM FLIGHTS, TABLE({M}!TOTAL(F1, NOPE))", 904, "NOPE"),
        ("SELECT * FROM FLIGHTS a, FLIGHTS b, TABLE({M}!TOTAL(a.F1, b.F2))", 2, "more than one table"),
        ("SELECT * FROM (SELECT *, 1 AS N FROM FLIGHTS), TABLE({M}!TOTAL(F1, F2))", 2028, "'N'"),
    ],
)
def test_errors(tables, sql, errno, words):
    with pytest.raises(SnowparkSQLException, match=words) as e:
        tables.session.sql(sql.format(M=M)).collect()
    assert e.value.sql_error_code == errno


def test_asking_for_the_columns_runs_nothing(tables):
    sql = f"SELECT * FROM FLIGHTS, TABLE({M}!FAIL(F1, F2) OVER (PARTITION BY DAY))"
    described = tables.session.connection.cursor().describe(sql)
    assert [column.name for column in described] == ["F1", "F2", "DAY", "FAILED"]
