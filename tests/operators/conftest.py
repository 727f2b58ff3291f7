"""A task's context without a scheduler, for what only the context decides: runs, clears, retries."""

# No postponed annotations here: CustomModel reads those of its methods.
# ruff: noqa: I002, RUF013
import copy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest


class StateStore:
    """What Airflow's ``task_state_store`` does: values by key that outlive a try."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return copy.deepcopy(self.values.get(key, default))

    def set(self, key: str, value: Any) -> None:
        self.values[key] = copy.deepcopy(value)


@pytest.fixture
def task_context():
    """Make the context of a try. The same ``store`` makes it another try of the same task instance."""

    def make(
        task_id: str,
        *,
        run_id: str = "scheduled__2013-06-01",
        clear_number: int = 0,
        partition_key: str | None = "2013-06-01",
        store: StateStore | None = None,
        started: datetime | None = None,
    ) -> dict[str, Any]:
        return {
            "ti": SimpleNamespace(
                dag_id="bad_day",
                task_id=task_id,
                run_id=run_id,
                map_index=-1,
                try_number=1,
                start_date=started or datetime.now(UTC),
            ),
            "dag_run": SimpleNamespace(clear_number=clear_number, run_type="scheduled"),
            "partition_key": partition_key,
            "task_state_store": store if store is not None else StateStore(),
        }

    make.store = StateStore
    return make


@pytest.fixture(scope="session")
def special_models(scoring_schema, local_snowflake) -> None:
    """Models that batch jobs run in other ways, in the schema of ``scoring``, each with a version V1.

    ``TOTALS`` is partitioned, ``FILES`` says how long a file is and how it begins, ``CHAT`` answers OpenAI's
    messages as an LLM engine would.
    """
    import pandas as pd
    from snowflake.ml.model import custom_model
    from snowflake.ml.model.model_signature import DataType, FeatureSpec, ModelSignature
    from snowflake.ml.model.openai_signatures import OPENAI_CHAT_WITH_PARAMS_SIGNATURE

    class Totals(custom_model.CustomModel):
        @custom_model.partitioned_api
        def total(self, rows: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"TOTAL": [rows["F1"].sum()]})

    class Files(custom_model.CustomModel):
        @custom_model.inference_api
        def measure(self, rows: pd.DataFrame) -> pd.DataFrame:
            photo = rows["PHOTO"]
            return pd.DataFrame({"BYTES": photo.map(len), "START": photo.map(lambda b: b[:4].hex())})

        @custom_model.inference_api
        def start(self, rows: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"START": rows["PHOTO"].str[:30]})

    class Chat(custom_model.CustomModel):
        @custom_model.inference_api
        def __call__(
            self,
            rows: pd.DataFrame,
            *,
            temperature: float = 1.0,
            max_completion_tokens: int = 250,
            stop: list[str] = None,
            n: int = 1,
            stream: bool = False,
            top_p: float = 1.0,
            frequency_penalty: float = 0.0,
            presence_penalty: float = 0.0,
            response_format: dict = None,
            model: str = None,
        ) -> pd.DataFrame:
            answers = []
            for messages in rows["messages"]:
                last = messages[-1]
                text = f"{last['role']} at {temperature}: {last['content'][0]['text']}"
                answers.append([{"index": 0, "message": {"role": "assistant", "content": text}}])
            return pd.DataFrame({"id": "1", "model": "chat", "choices": answers})

    def signature(output: dict[str, DataType], **inputs: DataType) -> ModelSignature:
        return ModelSignature(
            inputs=[FeatureSpec(name, type_) for name, type_ in inputs.items()],
            outputs=[FeatureSpec(name, type_) for name, type_ in output.items()],
        )

    totals = {"total": signature({"TOTAL": DataType.DOUBLE}, F1=DataType.DOUBLE)}
    measured = signature({"BYTES": DataType.INT64, "START": DataType.STRING}, PHOTO=DataType.BYTES)
    started = signature({"START": DataType.STRING}, PHOTO=DataType.STRING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", local_snowflake.airflow_connection_uri)
        hook = scoring_schema.hook()
        with hook.session() as session:
            registry = hook.registry(session, hook.default_schema())
            for name, model, signatures, options in (
                ("TOTALS", Totals(), totals, {"function_type": "TABLE_FUNCTION"}),
                ("FILES", Files(), {"measure": measured, "start": started}, {}),
                ("CHAT", Chat(), OPENAI_CHAT_WITH_PARAMS_SIGNATURE, {}),
            ):
                registry.log_model(
                    model,
                    model_name=name,
                    version_name="V1",
                    signatures=signatures,
                    options=options,
                    target_platforms=["SNOWPARK_CONTAINER_SERVICES"],
                )


@pytest.fixture
def finetuned(scoring):
    """The name of a model that Cortex fine-tuning made, in the schema of ``scoring``."""
    hook = scoring.hook()
    hook.rows(
        "SELECT SNOWFLAKE.CORTEX.FINETUNE('CREATE', 'FINETUNED', 'mistral-7b', "
        "'SELECT ''why?'' AS prompt, ''because'' AS completion')"
    )
    yield "FINETUNED"
    hook.rows("DROP MODEL IF EXISTS FINETUNED")
