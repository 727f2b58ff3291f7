"""How many rows a model's function gets at once in SQL."""

# No postponed annotations here: CustomModel reads those of its methods.
# ruff: noqa: I002
import pandas as pd
import pytest
from snowflake.ml.model import custom_model, model_signature

VECTOR = 2048  # the engine's
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
    assert found["MOST"] > VECTOR


def test_max_batch_size_is_kept(session, run) -> None:
    found = run(numbers(session, 5000), max_batch_size=100)
    assert (found["ROWS"], found["WRONG"], found["MOST"]) == (5000, 0, 100)


def test_what_fails_in_one_fails_the_statement(session, run) -> None:
    with pytest.raises(Exception, match="a negative row"):
        numbers(session, ROWS)
        run(f"SELECT IFF(N = {ROWS - 1}, -1, N)::INT AS N FROM NUMBERS")
    assert session.sql("SELECT COUNT(*) FROM NUMBERS").collect()[0][0] == ROWS
