"""Models from files, each format with the library that it is of, which is imported only then.

Loading a pickle runs whatever code is in it, and Keras' and TorchScript's formats have had holes; a text or
JSON format of XGBoost, LightGBM and CatBoost holds numbers. Imports no Airflow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_snowml.exceptions import InvalidArgumentError


def load_model_file(path: Path) -> Any:
    """The model in a file.

    :param path: the file; its suffix says what it is, see ``LOADERS``.
    :raises InvalidArgumentError: for a suffix of no known format, a file that is not there, or a library that
        is not installed.
    """
    loader = LOADERS.get(path.suffix.lower())
    if loader is None:
        advice = REFUSED.get(path.suffix.lower(), "")
        raise InvalidArgumentError(
            f"{path.name!r} is of no known format. A model_file ends in {', '.join(LOADERS)}.{advice}"
        )
    if not path.is_file():
        raise InvalidArgumentError(f"There is no file {path}, or it may not be read.")
    try:
        return loader(path)
    except ImportError as error:
        raise InvalidArgumentError(
            f"{path.name} needs {error.name}, which is not installed here: install it, or let the task run "
            "in an interpreter that has it (external_python)."
        ) from error


def load_pickle(path: Path) -> Any:
    """scikit-learn's models, and any other that was pickled: **runs the code that is in the file**."""
    import joblib  # reads what pickle wrote, too

    return joblib.load(path)


def load_xgboost(path: Path) -> Any:
    """XGBoost's own formats, JSON and UBJSON."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(path)
    return booster


def load_lightgbm(path: Path) -> Any:
    """LightGBM's text format."""
    import lightgbm

    return lightgbm.Booster(model_file=path)


def load_catboost(path: Path) -> Any:
    """CatBoost's own format."""
    import catboost

    return catboost.CatBoost().load_model(str(path))


def load_torchscript(path: Path) -> Any:
    """TorchScript, as ``torch.jit.save`` writes it; a file of weights alone is no model."""
    import torch

    return torch.jit.load(path, map_location="cpu").eval()


def load_keras(path: Path) -> Any:
    """Keras 3. What could run code, such as a Lambda layer, is refused by Keras."""
    import keras

    return keras.models.load_model(path, safe_mode=True)


LOADERS: dict[str, Callable[[Path], Any]] = {
    ".pkl": load_pickle,
    ".pickle": load_pickle,
    ".joblib": load_pickle,
    ".json": load_xgboost,
    ".ubj": load_xgboost,
    ".txt": load_lightgbm,
    ".cbm": load_catboost,
    ".pt": load_torchscript,
    ".keras": load_keras,
}

REFUSED = {
    ".onnx": (
        " snowflake-ml takes no ONNX model: wrap it in a CustomModel that opens a file of its ModelContext "
        "with onnxruntime, and return that from a python_callable."
    ),
    ".h5": " Save it in Keras 3's own format, .keras.",
    ".safetensors": " Weights alone are no model: register what uses them as a CustomModel.",
}
