"""What is registered: a model, and what the registry is told about it.

Imports nothing but the standard library, for a callable that trains in an interpreter without Airflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class ModelArtifact:
    """What a training callable returns: a model, and what the registry is told about it.

    The fields after ``model`` are the arguments of ``Registry.log_model``; see
    https://docs.snowflake.com/en/developer-guide/snowpark-ml/reference/latest/registry. ``None`` takes what
    the operator was given, and if that is ``None`` too, leaves the choice to snowflake-ml.

    :param model: the fitted model.
    :param sample_input_data: rows that the signatures are inferred from: a data frame, or a list of
        dictionaries; or
    :param signatures: the signatures, by method: ``ModelSignature`` objects or what their ``to_dict()``
        gives.
    :param metrics: metrics of this version; they are XCom too, so plain numbers and strings.
    :param comment: the version's comment.
    :param conda_dependencies: conda packages that the model needs.
    :param pip_requirements: pip packages that the model needs.
    :param artifact_repository_map: where pip packages come from.
    :param resource_constraint: what the warehouse must offer.
    :param target_platforms: ``"WAREHOUSE"``, ``"SNOWPARK_CONTAINER_SERVICES"`` or both.
    :param python_version: the Python version that the model runs with.
    :param user_files: further files, by directory.
    :param code_paths: directories of code that the model imports.
    :param ext_modules: modules that are pickled with the model, or their names.
    :param task: what the model does, a ``snowflake.ml.model.task.Task`` or its name; a monitor wants it.
    :param options: options of the model's framework.
    """

    model: Any
    sample_input_data: Any = None
    signatures: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    comment: str | None = None
    conda_dependencies: list[str] | None = None
    pip_requirements: list[str] | None = None
    artifact_repository_map: dict[str, str] | None = None
    resource_constraint: dict[str, str] | None = None
    target_platforms: list[Any] | None = None
    python_version: str | None = None
    user_files: dict[str, list[str]] | None = None
    code_paths: list[Any] | None = None
    ext_modules: list[Any] | None = None
    task: Any = None
    options: Mapping[str, Any] | None = None

    def with_defaults(self, defaults: Mapping[str, Any]) -> ModelArtifact:
        """The same, with what it leaves out taken from elsewhere.

        Metrics and options of both are kept; of two of one name, this one's. A signature of its own leaves
        no room for another's sample, nor the other way round.

        :param defaults: values by field; ``None`` for those that are not given.
        """
        changes: dict[str, Any] = {}
        for name, value in defaults.items():
            own = getattr(self, name)
            if name in ("metrics", "options"):
                if value:
                    changes[name] = {**value, **(own or {})}
            elif own is None and value is not None:
                changes[name] = value
        if self.signatures is not None and self.sample_input_data is None:
            changes.pop("sample_input_data", None)
        if self.sample_input_data is not None and self.signatures is None:
            changes.pop("signatures", None)
        return replace(self, **changes)


#: The arguments of ``log_model`` that say what is registered, not where.
LOG_MODEL_ARGUMENTS = tuple(field.name for field in fields(ModelArtifact) if field.name != "model")
