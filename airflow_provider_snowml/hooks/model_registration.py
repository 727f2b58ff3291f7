"""Registering a model with snowflake-ml: what is done in the interpreter that trains it.

That may be one without Airflow, so nothing here imports it.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.model_artifact import LOG_MODEL_ARGUMENTS, ModelArtifact
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.core.registration import (
    REGISTRATION_FILE,
    USER_FILES_DIRECTORY,
    Registration,
)
from airflow_provider_snowml.exceptions import InvalidArgumentError
from airflow_provider_snowml.hooks.errors import mapped_errors
from airflow_provider_snowml.hooks.model_predictions import (
    as_rows,
    compare_prediction,
    registry_of,
    version_of,
)
from airflow_provider_snowml.hooks.model_preparation import prepare
from airflow_provider_snowml.hooks.model_sources import load, train

if TYPE_CHECKING:
    from snowflake.snowpark import Session

log = logging.getLogger(__name__)


def register(
    session: Session,
    make: Callable[[], ModelArtifact] | None,
    registration: Registration,
    *,
    replaces: str | None = None,
    platform_fallback: bool = False,
    verify: bool = True,
    tolerance: float = 0.0,
    note: Callable[[Registration], None] = lambda _: None,
) -> Registration:
    """Make a version, or complete one that was made, and compare a prediction.

    :param session: an open session.
    :param make: trains or loads the model; ``None`` if the version is there.
    :param registration: what the version is.
    :param replaces: a statement that drops what is replaced; it is sent once nothing speaks against the new
        one.
    :param platform_fallback: whether a model whose packages a warehouse lacks is registered for containers
        only.
    :param verify: whether a prediction is compared.
    :param tolerance: how far the two may be apart.
    :param note: is told what will be made, before it is.
    """
    if make is None:
        complete(session, registration)
    else:
        artifact, registration = prepare(
            session, make(), registration, platform_fallback=platform_fallback, verify=verify
        )
        note(registration)
        if replaces:
            with mapped_errors():
                session.sql(replaces).collect()
        upload(session, artifact, registration)
        if is_logged_remotely(artifact.model):
            complete(session, registration)  # there, snowflake-ml leaves out the metrics
    if verify and registration.check is None:
        log.info("No prediction is compared: there is no sample, or no warehouse runs the model.")
    elif verify:
        compare_prediction(session, registration, tolerance)
    return registration


def register_from_source(session: Session, told: Mapping[str, Any]) -> Registration:
    """The same in an interpreter of its own, which gets all of it as plain values.

    :param session: an open session.
    :param told: ``registration`` and the keywords of :func:`register`; ``defaults``, for the artifact; and
        ``python`` (the callable's source, name and arguments), ``model`` (see :func:`.model_sources.load`) or
        neither, to complete what is there.
    """
    registration = Registration.from_dict(told["registration"])
    assert registration is not None

    def make() -> ModelArtifact:
        if "model" in told:
            return ModelArtifact(load(told["model"])).with_defaults(told["defaults"])
        python = told["python"]
        names: dict[str, Any] = {"__name__": "python_callable", "ModelArtifact": ModelArtifact}
        exec(compile(python["source"], "python_callable", "exec"), names)
        function = names[python["name"]]
        made = train(function, python["op_args"], python["op_kwargs"], session=session)
        return made.with_defaults(told["defaults"])

    makes = make if "model" in told or "python" in told else None
    return register(session, makes, registration, **told["keywords"])


def upload(session: Session, artifact: ModelArtifact, registration: Registration) -> None:
    """Make the version, with the registration among its files, and give it comment and metrics."""
    arguments = log_model_arguments(artifact)
    model = QualifiedName.parse(registration.model)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / REGISTRATION_FILE
        file.write_bytes(registration.to_json())
        if not is_logged_remotely(artifact.model):
            files = dict(arguments.get("user_files") or {})
            arguments["user_files"] = {**files, USER_FILES_DIRECTORY: [str(file)]}
        with mapped_errors():
            registry_of(session, model).log_model(
                artifact.model,
                model_name=model.name.sql,
                version_name=Identifier.of(registration.version).sql,
                **arguments,
            )


def complete(session: Session, registration: Registration) -> None:
    """Give a version the comment and the metrics that it lacks: they come in statements of their own."""
    with mapped_errors():
        version = version_of(session, registration)
        if registration.comment and version.comment != registration.comment:
            version.comment = registration.comment
        present = version.show_metrics()
        for name, value in registration.metrics.items():
            if present.get(name) != value:
                version.set_metric(name, value)


def is_logged_remotely(model: Any) -> bool:
    """Whether Snowflake itself fetches the model, which is then no file of this machine."""
    return (
        getattr(model, "compute_pool_for_log", None) is not None
        and getattr(model, "repo_snapshot_dir", None) is None
    )


def log_model_arguments(artifact: ModelArtifact) -> dict[str, Any]:
    """The arguments of ``log_model`` that are given, as snowflake-ml's own types."""
    given = {name: getattr(artifact, name) for name in LOG_MODEL_ARGUMENTS}
    given = {name: value for name, value in given.items() if value is not None}
    if "sample_input_data" in given:
        given["sample_input_data"] = as_rows(given["sample_input_data"])
    if "signatures" in given:
        given["signatures"] = {name: _signature(value) for name, value in given["signatures"].items()}
    if isinstance(given.get("task"), str):
        given["task"] = _task(given["task"])
    if "ext_modules" in given:
        given["ext_modules"] = [
            importlib.import_module(module) if isinstance(module, str) else module
            for module in given["ext_modules"]
        ]
    for name in ("metrics", "options", "user_files"):
        if name in given:
            given[name] = dict(given[name])
    return given


def _signature(value: Any) -> Any:
    from snowflake.ml.model.model_signature import ModelSignature

    return ModelSignature.from_dict(dict(value)) if isinstance(value, Mapping) else value


def _task(name: str) -> Any:
    from snowflake.ml.model.task import Task

    try:
        return Task[name.upper()]
    except KeyError:
        known = ", ".join(task.name for task in Task)
        raise InvalidArgumentError(f"task is {name!r}; it can be {known}.") from None
