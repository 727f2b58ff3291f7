"""What is simulated of Cortex fine-tuning: jobs, and models of a type of their own."""

from __future__ import annotations

import json

import pytest
import snowflake.connector

TRAINING = "SELECT 'why?' AS prompt, 'because' AS completion"


def finetune(cursor, *arguments: str) -> str:
    literals = ", ".join("'" + argument.replace("'", "''") + "'" for argument in arguments)
    return cursor.execute(f"SELECT SNOWFLAKE.CORTEX.FINETUNE({literals})").fetchone()[0]


def test_a_job_and_its_model(connection):
    cursor = connection.cursor(snowflake.connector.DictCursor)
    plain = connection.cursor()
    id_ = finetune(plain, "CREATE", "ANSWERS", "mistral-7b", TRAINING)
    assert id_.startswith("ft_")
    job = json.loads(finetune(plain, "DESCRIBE", id_))
    assert (job["status"], job["base_model"], job["model"].rpartition(".")[2]) == (
        "SUCCESS",
        "mistral-7b",
        "ANSWERS",
    )
    assert "Simulated" in job["training_result"]["note"]
    assert id_ in [job["id"] for job in json.loads(finetune(plain, "SHOW"))]
    (model,) = cursor.execute("SHOW MODELS").fetchall()
    assert (model["name"], model["model_type"], json.loads(model["versions"])) == (
        "ANSWERS",
        "CORTEX_FINETUNED",
        ["V1"],
    )
    (version,) = cursor.execute("SHOW VERSIONS IN MODEL ANSWERS").fetchall()
    assert version["functions"] == "[]"
    cursor.execute("ALTER MODEL ANSWERS RENAME TO REPLIES")
    assert cursor.execute("SHOW MODELS").fetchone()["model_type"] == "CORTEX_FINETUNED"
    cursor.execute("DROP MODEL REPLIES")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("CREATE", "M", "gpt-1", TRAINING), "'gpt-1' can't be fine-tuned"),
        (("CREATE", "M", "mistral-7b", "SELECT 1 AS prompt"), "no column completion"),
        (("CREATE", "M"), "number of arguments"),
        (("DESCRIBE", "ft_1"), "no fine-tuning job"),
        (("TRAIN",), "invalid operation 'TRAIN'"),
    ],
)
def test_what_is_refused(connection, arguments, says):
    with pytest.raises(snowflake.connector.errors.ProgrammingError, match=says):
        finetune(connection.cursor(), *arguments)
    assert connection.cursor().execute("SHOW MODELS").fetchall() == []
