"""Where a model comes from: a training callable, a file, MLflow, or Hugging Face. Imports no Airflow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_snowml.core.model_artifact import ModelArtifact
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.model_files import load_model_file


def load_mlflow_model(uri: str) -> Any:
    """A model of MLflow's, as its ``pyfunc``: **runs the code that is in it**.

    :param uri: such as ``models:/churn/3``, ``runs:/<run id>/model`` or a directory.
    :raises InvalidArgumentError: if MLflow is not installed.
    """
    try:
        import mlflow
    except ImportError as error:
        raise InvalidArgumentError(
            f"The MLflow model {uri!r} needs mlflow, which is not installed here: install it, or let the "
            "task run in an interpreter that has it (external_python)."
        ) from error
    return mlflow.pyfunc.load_model(uri)


def huggingface_model(name: str, task: str, compute_pool_for_log: str, secret: str | None) -> Any:
    """A model that Snowflake itself fetches from Hugging Face; nothing is downloaded here.

    :param name: such as ``ProsusAI/finbert``.
    :param task: what it does there, such as ``text-classification``.
    :param compute_pool_for_log: where it is fetched and packed.
    :param secret: the full name of a Snowflake secret with the token, never the token.
    """
    from snowflake.ml.model.models.huggingface import TransformersPipeline

    return TransformersPipeline(
        model=name, task=task, token_or_secret=secret, compute_pool_for_log=compute_pool_for_log
    )


def load(source: Mapping[str, Any]) -> Any:
    """The model that an operator's arguments name.

    :param source: ``{"model_file": path}``, ``{"mlflow_model_uri": uri}``, or the arguments of
        :func:`huggingface_model`.
    """
    if "model_file" in source:
        return load_model_file(Path(source["model_file"]))
    if "mlflow_model_uri" in source:
        return load_mlflow_model(source["mlflow_model_uri"])
    return huggingface_model(**source)


def train(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], **offered: Any
) -> ModelArtifact:
    """Call a training callable with its arguments and, of what else is offered, what it asks for by name."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    positional = set(list(parameters)[: len(args)])
    wanted = {
        name: value
        for name, value in offered.items()
        if (name in parameters or takes_all) and name not in positional
    }
    artifact = function(*args, **{**wanted, **kwargs})
    if not isinstance(artifact, ModelArtifact):
        raise InvalidArgumentError(
            f"python_callable returned a {type(artifact).__name__}; it must return a ModelArtifact."
        )
    return artifact
