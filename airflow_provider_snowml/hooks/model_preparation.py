"""What is looked at before a model is uploaded. Imports no Airflow: it may be trained where there is none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.model_artifact import ModelArtifact
from airflow_provider_snowml.core.model_limits import (
    MAX_ARGUMENTS,
    check_imports,
    check_metadata,
    check_methods,
    check_warehouse_size,
)
from airflow_provider_snowml.core.names import QualifiedName, literal, refuse_dollar_quotes
from airflow_provider_snowml.core.registration import Registration, plain_metrics
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    ModelPackageNotFoundError,
    StatementError,
)
from airflow_provider_snowml.hooks.errors import mapped_errors
from airflow_provider_snowml.hooks.model_predictions import prediction_check

if TYPE_CHECKING:
    from snowflake.snowpark import Session

log = logging.getLogger(__name__)

WAREHOUSE = "WAREHOUSE"
CONTAINERS = "SNOWPARK_CONTAINER_SERVICES"
# What snowflake-ml uses, if the role may, for pip packages in a warehouse.
PIP_REPOSITORY = "snowflake.snowpark.pypi_shared_repository"
# Frameworks whose signatures snowflake-ml knows without a sample.
_KNOW_THEIR_SIGNATURE = ("mlflow", "transformers", "sentence_transformers", "peft", "snowflake")


def prepare(
    session: Session,
    artifact: ModelArtifact,
    registration: Registration,
    *,
    platform_fallback: bool,
    verify: bool,
) -> tuple[ModelArtifact, Registration]:
    """Look at what is to be registered, and note what of it a retry needs.

    :param session: an open session.
    :param artifact: what was trained or loaded.
    :param registration: what the version is.
    :param platform_fallback: whether a model whose packages a warehouse lacks is registered for containers
        only.
    :param verify: whether a prediction is to be compared afterwards.
    :raises InvalidArgumentError: (or a subclass) for what Snowflake or snowflake-ml would not take.
    :raises ModelPackageNotFoundError: if a warehouse lacks a package and ``platform_fallback`` is off.
    """
    refuse_dollar_quotes(artifact.comment or "", what="comment")
    metrics = plain_metrics(artifact.metrics)
    check_metadata(metrics)
    check_imports(len(artifact.code_paths or ()))
    methods = _methods(artifact)
    if methods is not None:
        check_methods(methods, {name: _has_method(artifact.model, name) for name in methods})
    _check_signature(artifact)
    artifact = replace(artifact, metrics=metrics)
    if runs_in_warehouse(artifact):
        artifact = _fit_for_warehouse(session, artifact, registration, platform_fallback)
    if runs_in_warehouse(artifact):
        check_warehouse_size(_size(artifact))
    check = prediction_check(artifact, methods) if verify and runs_in_warehouse(artifact) else None
    return artifact, replace(
        registration, metrics=metrics, comment=artifact.comment or "", functions=methods, check=check
    )


def runs_in_warehouse(artifact: ModelArtifact) -> bool:
    """Whether a warehouse is among the target platforms, as it is if none are named."""
    platforms = artifact.target_platforms
    return not platforms or any(getattr(platform, "value", platform) == WAREHOUSE for platform in platforms)


def _methods(artifact: ModelArtifact) -> list[str] | None:
    """The methods that signatures or options name; ``None`` if the choice is snowflake-ml's."""
    options = artifact.options or {}
    named = options.get("target_methods") or list(artifact.signatures or ())
    return sorted({*named, *(options.get("method_options") or ())}) if named else None


def _has_method(model: Any, name: str) -> bool:
    if name in ("explain", "__call__") or _framework(model) in _KNOW_THEIR_SIGNATURE:
        return True  # made by snowflake-ml
    return callable(getattr(model, name, None))


def _framework(model: Any) -> str:
    return type(model).__module__.split(".")[0]


def _check_signature(artifact: ModelArtifact) -> None:
    if artifact.signatures is None and artifact.sample_input_data is None:
        if _framework(artifact.model) not in _KNOW_THEIR_SIGNATURE:
            raise InvalidArgumentError(
                "Neither signatures nor sample_input_data is given: the registry could not tell the columns "
                f"of a {type(artifact.model).__name__}. Give a few rows of what it was trained on."
            )
        return
    widths = [len(_inputs(signature)) for signature in (artifact.signatures or {}).values()]
    columns = max([*widths, len(getattr(artifact.sample_input_data, "columns", ()))])
    if columns > MAX_ARGUMENTS:
        log.warning(
            "The model has %s arguments; Snowflake's limit is %s for a function. snowflake-ml makes "
            "functions that take them all as one object.",
            columns,
            MAX_ARGUMENTS,
        )


def _inputs(signature: Any) -> Sequence[Any]:
    if isinstance(signature, dict):
        return list(signature.get("inputs") or ())
    return list(getattr(signature, "inputs", ()))


def _fit_for_warehouse(
    session: Session, artifact: ModelArtifact, registration: Registration, platform_fallback: bool
) -> ModelArtifact:
    lacking = lacking_packages(session, artifact, QualifiedName.parse(registration.model))
    if not lacking:
        return artifact
    if not platform_fallback:
        raise ModelPackageNotFoundError(
            f"A warehouse lacks {', '.join(lacking)}, which the model needs. Name packages of Snowflake's "
            f"channel, or register it for containers: target_platforms=['{CONTAINERS}'], or "
            "platform_fallback=True."
        )
    log.warning("A warehouse lacks %s: the model is registered for %s only.", ", ".join(lacking), CONTAINERS)
    return replace(artifact, target_platforms=[CONTAINERS])


def lacking_packages(session: Session, artifact: ModelArtifact, model: QualifiedName) -> list[str]:
    """The packages that the model names and a warehouse has not."""
    from packaging.requirements import InvalidRequirement, Requirement

    lacking, wanted = [], []
    for text in artifact.conda_dependencies or ():
        channel, _, package = text.rpartition("::")
        try:
            requirement = Requirement(package)
        except InvalidRequirement as error:
            raise InvalidArgumentError(f"{text!r} in conda_dependencies is no package: {error}.") from error
        if channel not in ("", "snowflake", "defaults"):
            lacking.append(text)
        else:
            wanted.append((text, requirement))
    if wanted:
        have = _channel_packages(session, model, {requirement.name for _, requirement in wanted})
        lacking += [
            text
            for text, requirement in wanted
            if not any(
                requirement.specifier.contains(version, prereleases=True)
                for version in have.get(requirement.name.lower(), ())
            )
        ]
    pip = artifact.pip_requirements or ()
    if pip and not (artifact.artifact_repository_map or {}).get("pip") and not _reads_pip_repository(session):
        lacking += pip
    return lacking


def _channel_packages(session: Session, model: QualifiedName, names: set[str]) -> dict[str, list[str]]:
    runtime = f"{sys.version_info.major}.{sys.version_info.minor}"
    listed = ", ".join(literal(name.lower()) for name in sorted(names))
    with mapped_errors():
        rows = session.sql(
            f"SELECT PACKAGE_NAME, VERSION FROM {model.database.sql}.INFORMATION_SCHEMA.PACKAGES "
            f"WHERE LANGUAGE = 'python' AND PACKAGE_NAME IN ({listed}) "
            f"AND (RUNTIME_VERSION = {literal(runtime)} OR RUNTIME_VERSION IS NULL)"
        ).collect()
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["PACKAGE_NAME"], []).append(row["VERSION"])
    return found


def _reads_pip_repository(session: Session) -> bool:
    try:
        with mapped_errors():
            session.sql(f"DESC ARTIFACT REPOSITORY {PIP_REPOSITORY}").collect()
    except StatementError:
        return False
    return True


class _Counter:
    """A file that only counts."""

    size = 0

    def write(self, data: Any) -> int:
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes


def _size(artifact: ModelArtifact) -> int | None:
    """About how large the package will be, in bytes; ``None`` if the model cannot be pickled."""
    import cloudpickle

    counter = _Counter()
    try:
        cloudpickle.dump(artifact.model, counter)
    except Exception:
        return None  # snowflake-ml saves it in another way
    paths = [Path(path) for path in artifact.code_paths or () if isinstance(path, str)]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return counter.size + sum(file.stat().st_size for file in files if file.is_file())
