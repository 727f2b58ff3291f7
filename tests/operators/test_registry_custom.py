"""Models that are classes of one's own, with the code and the files that they bring along."""

# No postponed annotations here: CustomModel reads those of its methods.
# ruff: noqa: I002
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.registry import ModelArtifact, SnowMLRegisterModelOperator


def result_of(model: Any, task_context: Any, **arguments: Any) -> list[Any]:
    """Register it, and have it predict for 3."""
    import pandas as pd

    def make() -> ModelArtifact:
        return ModelArtifact(model, sample_input_data=pd.DataFrame({"A": [1.0, 2.0]}))

    SnowMLRegisterModelOperator(
        task_id="register", model_name="OWN", version_name="V1", python_callable=make, **arguments
    ).execute(task_context("register"))
    (row,) = SnowMLHook().rows("SELECT MODEL(OWN, V1)!PREDICT(3) AS R")
    return list(json.loads(row["R"]).values())


def test_code_paths(airflow_conn, task_context, tmp_path, monkeypatch) -> None:
    import pandas as pd
    from snowflake.ml.model import custom_model

    package = tmp_path / "of_its_own"
    package.mkdir()
    (package / "__init__.py").write_text("def tripled(values):\n    return values * 3\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Tripling(custom_model.CustomModel):
        @custom_model.inference_api
        def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
            from of_its_own import tripled

            return pd.DataFrame({"TRIPLED": tripled(rows["A"])})

    assert result_of(Tripling(), task_context, code_paths=[str(package)]) == [9.0]


def save_onnx(file: Path) -> str:
    """A graph that doubles."""
    onnx = pytest.importorskip("onnx")
    made, kind = onnx.helper, onnx.TensorProto.DOUBLE
    graph = made.make_graph(
        [made.make_node("Add", ["a", "a"], ["b"])],
        "doubling",
        [made.make_tensor_value_info("a", kind, [None])],
        [made.make_tensor_value_info("b", kind, [None])],
    )
    opset = [made.make_opsetid("", 18)]
    onnx.save(made.make_model(graph, opset_imports=opset, ir_version=9), str(file))
    return str(file)


def test_onnx_in_a_custom_model(airflow_conn, task_context, tmp_path) -> None:
    """As the documentation advises, since snowflake-ml takes no ONNX model."""
    pytest.importorskip("onnxruntime")
    import pandas as pd
    from snowflake.ml.model import custom_model

    class Onnx(custom_model.CustomModel):
        def __init__(self, context: custom_model.ModelContext) -> None:
            super().__init__(context)
            from onnxruntime import InferenceSession

            self.session = InferenceSession(context.path("graph"), providers=["CPUExecutionProvider"])

        @custom_model.inference_api
        def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
            (doubled,) = self.session.run(None, {"a": rows["A"].to_numpy()})
            return pd.DataFrame({"DOUBLED": doubled})

    graph = save_onnx(tmp_path / "graph.onnx")
    model = Onnx(custom_model.ModelContext(artifacts={"graph": graph}))
    assert result_of(model, task_context, pip_requirements=["onnxruntime"], verify=False) == [6.0]
