"""Registering what a DAG trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from airflow.sdk import Context

from airflow_provider_snowml.core.model_ref import ModelVersionInfo, next_version_name
from airflow_provider_snowml.core.names import Identifier, QualifiedName, refuse_dollar_quotes
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelVersionExistsError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, one_of, plain_metrics, run_of

STATE_KEY = "snowml_register_model"


@dataclass(frozen=True)
class ModelArtifact:
    """What a training callable returns: a model, and what the registry is told about it.

    The fields after ``model`` are the arguments of ``Registry.log_model``; see
    https://docs.snowflake.com/en/developer-guide/snowpark-ml/reference/latest/registry. ``None`` leaves the
    choice to snowflake-ml.

    :param model: the fitted model.
    :param sample_input_data: rows that the signatures are inferred from; or
    :param signatures: the signatures, by method.
    :param metrics: metrics of this version; they are XCom too, so plain numbers and strings.
    :param comment: the version's comment.
    :param conda_dependencies: conda packages that the model needs.
    :param pip_requirements: pip packages that the model needs.
    :param target_platforms: ``"WAREHOUSE"``, ``"SNOWPARK_CONTAINER_SERVICES"`` or both.
    :param options: options of the model's framework.
    :param task: what the model does, a ``snowflake.ml.model.task.Task``; a monitor wants it.
    :param python_version: the Python version that the model runs with.
    :param code_paths: directories of code that the model imports.
    :param ext_modules: modules that are pickled with the model.
    :param user_files: further files, by directory.
    :param artifact_repository_map: where pip packages come from.
    :param resource_constraint: what the warehouse must offer.
    """

    model: Any
    sample_input_data: Any = None
    signatures: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    comment: str | None = None
    conda_dependencies: list[str] | None = None
    pip_requirements: list[str] | None = None
    target_platforms: list[Any] | None = None
    options: Mapping[str, Any] | None = None
    task: Any = None
    python_version: str | None = None
    code_paths: list[Any] | None = None
    ext_modules: list[Any] | None = None
    user_files: dict[str, list[str]] | None = None
    artifact_repository_map: dict[str, str] | None = None
    resource_constraint: dict[str, str] | None = None

    def log_model_arguments(self) -> dict[str, Any]:
        """The arguments of ``log_model`` that are given."""
        names = [name for name in self.__dataclass_fields__ if name != "model"]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        for name in ("metrics", "options", "signatures"):
            if name in given:
                given[name] = dict(given[name])
        return given


class SnowMLRegisterModelOperator(SnowMLOperator):
    """Train a model in a callable and register it as a version of a model.

    The callable runs in the worker, which needs the model's framework. It returns a :class:`ModelArtifact`.
    A ``session`` argument gets it an open Snowpark session; other arguments come from ``op_args`` and
    ``op_kwargs``, or from the Airflow context by name.

    A retry after a crash does not trip over the version that the crashed try had made: what is being
    registered is noted first, in the task's state, and such a version is completed and returned.

    XCom: ``{"model": "DB.SCHEMA.NAME", "version", "functions": [method, ...], "metrics": {...}}``.

    Privileges: CREATE MODEL and CREATE STAGE (a temporary one) on the schema; OWNERSHIP of the model for a
    further version. See https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/overview.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: the version's name. It is wanted, because a retry must find it.
    :param python_callable: trains the model and returns a :class:`ModelArtifact`.
    :param op_args: its positional arguments.
    :param op_kwargs: its keyword arguments.
    :param if_exists: what to do about a version of that name: ``"fail"`` before anything is trained;
        ``"reuse"`` it without training; ``"replace"`` it once the new one is trained (the default version can
        only be replaced if it is the only one, and then the whole model is dropped, as Snowflake wants it);
        or register the ``"next"`` free one of ``V3_2``, ``V3_3``, ...
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense, or a callable that returns
        something else.
    :raises ModelVersionExistsError: if the version exists and must not be replaced.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "op_args",
        "op_kwargs",
        "if_exists",
    )
    template_fields_renderers = {"op_args": "py", "op_kwargs": "py"}
    # Dataframes and models in op_kwargs must not be copied when a task is.
    shallow_copy_attrs: Sequence[str] = ("python_callable", "op_kwargs")

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str,
        python_callable: Callable[..., ModelArtifact],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        if_exists: Literal["fail", "reuse", "replace", "next"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.python_callable = python_callable
        self.op_args = list(op_args or ())
        self.op_kwargs = dict(op_kwargs or {})
        self.if_exists = if_exists

    def execute(self, context: Context) -> dict[str, Any]:
        """Train and register."""
        one_of("if_exists", self.if_exists, ("fail", "reuse", "replace", "next"))
        hook = self.get_hook()
        with hook.session() as session:
            default = hook.default_schema()
            model = QualifiedName.parse(self.model_name, default, what="model name")
            wanted = Identifier.parse(self.version_name, what="version name").name
            versions = hook.model_versions(model) or []
            names = {version.name for version in versions}

            noted = self._noted(context, model, wanted)
            if noted and noted["version"] in names:
                self.log.info("Version %s is this run's own, of an earlier try.", noted["version"])
                self._complete(hook, session, model, noted)
                return self._result(hook, model, noted["version"], noted["metrics"])
            version = next_version_name(wanted, names) if self.if_exists == "next" else wanted
            if version in names:
                if self.if_exists == "reuse":
                    self.log.info("Version %s exists; nothing is trained.", version)
                    return self._result(hook, model, version, self._metrics(hook, session, model, version))
                self._refuse_unless_replaceable(model, version, versions)

            artifact = self._train(session, context)
            arguments = artifact.log_model_arguments()
            refuse_dollar_quotes(artifact.comment or "", what="comment")
            metrics = plain_metrics(artifact.metrics)
            if version in names:
                self._drop(hook, model, version, versions)
            # Noted before it is made: from here on a version of that name is ours.
            context["task_state_store"].set(
                STATE_KEY,
                {
                    "run": asdict(run_of(context)),
                    "model": model.sql,
                    "wanted": wanted,
                    "version": version,
                    "metrics": metrics,
                    "comment": artifact.comment or "",
                },
            )
            self.log.info("Registering %s version %s.", model, version)
            hook.registry(session, model.parent).log_model(
                artifact.model,
                model_name=model.name.sql,
                version_name=Identifier.of(version).sql,
                **{**arguments, "metrics": metrics},
            )
            return self._result(hook, model, version, metrics)

    def _train(self, session: Any, context: Context) -> ModelArtifact:
        parameters = inspect.signature(self.python_callable).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        positional = set(list(parameters)[: len(self.op_args)])
        offered = {**context, "session": session}
        keywords = {
            name: value
            for name, value in offered.items()
            if (name in parameters or takes_all) and name not in positional
        }
        artifact = self.python_callable(*self.op_args, **{**keywords, **self.op_kwargs})
        if not isinstance(artifact, ModelArtifact):
            raise InvalidArgumentError(
                f"python_callable returned a {type(artifact).__name__}; it must return a ModelArtifact."
            )
        return artifact

    def _noted(self, context: Context, model: QualifiedName, wanted: str) -> dict[str, Any] | None:
        """What an earlier try of this run, since it was last cleared, was about to register."""
        noted = context["task_state_store"].get(STATE_KEY, None)
        if not isinstance(noted, dict):
            return None
        ours = (asdict(run_of(context)), model.sql, wanted)
        return noted if (noted.get("run"), noted.get("model"), noted.get("wanted")) == ours else None

    def _complete(
        self, hook: SnowMLHook, session: Any, model: QualifiedName, noted: Mapping[str, Any]
    ) -> None:
        """Comment and metrics are statements of their own after the version's; a crash can come between."""
        version = self._version(hook, session, model, noted["version"])
        if noted["comment"] and version.comment != noted["comment"]:
            version.comment = noted["comment"]
        present = version.show_metrics()
        for name, value in noted["metrics"].items():
            if present.get(name) != value:
                version.set_metric(name, value)

    def _refuse_unless_replaceable(
        self, model: QualifiedName, version: str, versions: Sequence[ModelVersionInfo]
    ) -> None:
        if self.if_exists == "fail":
            known = ", ".join(info.name for info in versions)
            raise ModelVersionExistsError(
                f"{model} has a version {version} already (it has: {known}), and if_exists is 'fail'."
            )
        info = next(info for info in versions if info.name == version)
        if "DEFAULT" in info.aliases and len(versions) > 1:
            raise ModelVersionExistsError(
                f"{version} is the default version of {model}, which Snowflake does not drop: make another "
                "one the default first, or use if_exists='next'."
            )

    def _drop(
        self, hook: SnowMLHook, model: QualifiedName, version: str, versions: Sequence[ModelVersionInfo]
    ) -> None:
        if len(versions) == 1:
            self.log.info("Dropping model %s, whose only version %s is replaced.", model, version)
            hook.rows(f"DROP MODEL {model.sql}")
        else:
            self.log.info("Dropping version %s of %s, which is replaced.", version, model)
            hook.rows(f"ALTER MODEL {model.sql} DROP VERSION {Identifier.of(version).sql}")

    def _version(self, hook: SnowMLHook, session: Any, model: QualifiedName, version: str) -> Any:
        registry = hook.registry(session, model.parent)
        return registry.get_model(model.name.sql).version(Identifier.of(version).sql)

    def _metrics(self, hook: SnowMLHook, session: Any, model: QualifiedName, version: str) -> dict[str, Any]:
        return dict(self._version(hook, session, model, version).show_metrics())

    @staticmethod
    def _result(
        hook: SnowMLHook, model: QualifiedName, version: str, metrics: Mapping[str, Any]
    ) -> dict[str, Any]:
        ref = hook.resolve_version(model, Identifier.of(version).sql)
        return {
            "model": model.sql,
            "version": version,
            "functions": [function.target_method for function in ref.functions],
            "metrics": dict(metrics),
        }
