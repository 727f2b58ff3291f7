"""How many rows a model's function gets at once in SQL."""

# No postponed annotations here: CustomModel reads those of its methods.
# ruff: noqa: I002
import pandas as pd
import pytest
from snowflake.ml.model import custom_model, model_signature

VECTORS = 8 * 2048  # what the engine's threads ask for at once
ROWS = 400_000


@pytest.fixture
def run(session, registry, schema):
    """Registers a model that says how many rows came with each, and runs it on a table of N."""

    class Counter(custom_model.CustomModel):
        @custom_model.inference_api
        def predict(self, X: pd.DataFrame) -> pd.DataFrame:
            if X["N"].min() < 0:
                raise ValueError("a negative row")
            return pd.DataFrame({"SAME": X["N"], "TOGETHER": [len(X)] * len(X)})

    number = model_signature.DataType.INT64
    signature = model_signature.ModelSignature(
        inputs=[model_signature.FeatureSpec("N", number)],
        outputs=[model_signature.FeatureSpec(name, number) for name in ("SAME", "TOGETHER")],
    )

    def run(query: str, **options):
        version = registry.log_model(
            Counter(custom_model.ModelContext()),
            model_name="COUNTER",
            signatures={"predict": signature},
            options={"method_options": {"predict": options}},
        )
        version.run(session.sql(query), function_name="predict").write.save_as_table("COUNTED")
        return session.sql(
            'SELECT COUNT(*) AS "ROWS", COUNT_IF(N <> SAME) AS WRONG, COUNT(DISTINCT N) AS DIFFERENT, '
            "MAX(TOGETHER) AS MOST FROM COUNTED"
        ).collect()[0]

    return run


def numbers(session, rows: int) -> str:
    session.sql(
        "CREATE OR REPLACE TABLE NUMBERS AS SELECT SEQ4()::INT AS N "
        f"FROM TABLE(GENERATOR(ROWCOUNT => {rows}))"
    ).collect()
    return "SELECT * FROM NUMBERS"


def test_many_rows_go_in_few_calls_and_come_back_to_their_own(session, run) -> None:
    found = run(numbers(session, ROWS))
    assert (found["ROWS"], found["WRONG"], found["DIFFERENT"]) == (ROWS, 0, ROWS)
    assert found["MOST"] > VECTORS


def test_max_batch_size_is_kept(session, run) -> None:
    found = run(numbers(session, 5000), max_batch_size=100)
    assert (found["ROWS"], found["WRONG"], found["MOST"]) == (5000, 0, 100)


def test_what_fails_in_one_fails_the_statement(session, run) -> None:
    with pytest.raises(Exception, match="a negative row"):
        numbers(session, ROWS)
        run(f"SELECT IFF(N = {ROWS - 1}, -1, N)::INT AS N FROM NUMBERS")
    assert session.sql("SELECT COUNT(*) FROM NUMBERS").collect()[0][0] == ROWS


CALL = "COUNTER!PREDICT(N)"


def test_wherever_the_call_stands_the_rows_are_the_same(session, run) -> None:
    run(numbers(session, 5000))
    few = f"SELECT N, {CALL} AS P FROM NUMBERS WHERE N < 3"
    for sql, expected in {
        f"SELECT N, P:SAME::INT FROM ({few})": [(0, 0), (1, 1), (2, 2)],
        f"SELECT N, P:SAME::INT FROM ({few}) WHERE N > 0": [(1, 1), (2, 2)],
        f"SELECT N, P:SAME::INT FROM ({few}) ORDER BY N DESC LIMIT 1": [(2, 2)],
        f"SELECT COUNT(*), SUM(P:SAME::INT) FROM ({few})": [(3, 3)],
        f"WITH T AS ({few}) SELECT N, P:SAME::INT FROM T WHERE N = 2": [(2, 2)],
        f"WITH T AS (SELECT 4 AS N) SELECT N, P:SAME::INT FROM (SELECT N, {CALL} AS P FROM T)": [(4, 4)],
        f"SELECT N, P:SAME::INT FROM ({few}) UNION ALL SELECT 7, 7": [(0, 0), (1, 1), (2, 2), (7, 7)],
        f"SELECT {CALL}:SAME::INT FROM NUMBERS WHERE N = 1": [(1,)],
        f"SELECT A.N, B.N, P:SAME::INT FROM (SELECT A.N, B.N AS M, {CALL.replace('N)', 'A.N)')} AS P "
        "FROM NUMBERS A LEFT JOIN NUMBERS B ON B.N = A.N + 4999 WHERE A.N < 2) A JOIN NUMBERS B "
        "ON B.N = A.N": [(0, 0, 0), (1, 1, 1)],
        f"SELECT M, P:SAME::INT FROM (SELECT B.N AS M, {CALL.replace('N)', 'A.N)')} AS P "
        "FROM NUMBERS A LEFT JOIN NUMBERS B ON B.N = A.N + 4999 WHERE A.N < 2)": [(None, 1), (4999, 0)],
        f"SELECT IFF(N < 1, NULL, Q:SAME::INT) FROM (SELECT P:SAME::INT AS N, {CALL} AS Q FROM ({few}))": [
            (None,), (1,), (2,),
        ],
        "SELECT CASE WHEN N > 0 THEN COUNTER!PREDICT(N - 1):SAME::INT END FROM NUMBERS WHERE N < 2": [
            (None,), (0,),
        ],
        f"SELECT N FROM (SELECT *, N AS \"n\", {CALL} AS P FROM NUMBERS WHERE N < 2)": [(0,), (1,)],
        f"SELECT N, P:SAME::INT FROM (SELECT N, {CALL} AS P FROM NUMBERS WHERE FALSE)": [],
    }.items():  # fmt: skip
        found = [tuple(row) for row in session.sql(sql).collect()]
        assert sorted(found, key=str) == sorted(expected, key=str), sql


def test_a_table_is_made_of_no_rows(session, run) -> None:
    run(numbers(session, 10))
    session.sql(f"CREATE TABLE NONE AS SELECT N, {CALL} AS P FROM NUMBERS WHERE FALSE").collect()
    session.sql(f"INSERT INTO NONE SELECT N, {CALL} AS P FROM NUMBERS WHERE N < 2").collect()
    assert sorted(row[0] for row in session.sql("SELECT P:SAME::INT FROM NONE").collect()) == [0, 1]


def test_only_the_rows_of_a_limit_are_asked_for(session, run) -> None:
    run(numbers(session, 100_000))
    every = f"SELECT N, {CALL} AS P FROM NUMBERS"
    session.sql(f"CREATE TABLE FIRST AS SELECT * FROM ({every}) LIMIT 5").collect()
    assert session.sql("SELECT MAX(P:TOGETHER::INT) FROM FIRST").collect()[0][0] <= VECTORS


def test_what_a_transaction_wrote_outlives_a_statement_that_fails(session, run) -> None:
    run(numbers(session, 10))
    session.sql("CREATE TABLE T (N INT, S INT)").collect()
    session.sql("BEGIN").collect()
    session.sql(f"INSERT INTO T SELECT N, P:SAME::INT FROM (SELECT N, {CALL} AS P FROM NUMBERS)").collect()
    with pytest.raises(
        Exception, match="not recognized"
    ):  # found while it runs, so what was written is undone
        session.sql("INSERT INTO T SELECT 'many'::INT, N FROM NUMBERS").collect()
    session.sql("COMMIT").collect()
    assert session.sql("SELECT COUNT_IF(N = S) FROM T").collect()[0][0] == 10
