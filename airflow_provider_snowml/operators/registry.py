"""Registering what a DAG trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from airflow.sdk import Context

from airflow_provider_snowml.core.model_artifact import LOG_MODEL_ARGUMENTS, ModelArtifact
from airflow_provider_snowml.core.model_limits import check_tag_value, check_version_count, parse_version_name
from airflow_provider_snowml.core.model_ref import ModelVersionInfo, next_version_name
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.core.registration import Registration, fingerprint, source_of
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelVersionExistsError
from airflow_provider_snowml.hooks.model_predictions import compare_prediction, version_of
from airflow_provider_snowml.hooks.model_registration import complete, register
from airflow_provider_snowml.hooks.registration import (
    check_functions,
    drop_statement,
    read_registration,
    set_tags,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, one_of, owner_of, run_of

__all__ = ["ModelArtifact", "SnowMLRegisterModelOperator"]

STATE_KEY = "snowml_register_model"


class SnowMLRegisterModelOperator(SnowMLOperator):
    """Train a model in a callable and register it as a version of a model.

    The callable runs in the worker, which needs the model's framework. It returns a :class:`ModelArtifact`.
    A ``session`` argument gets it an open Snowpark session; other arguments come from ``op_args`` and
    ``op_kwargs``, or from the Airflow context by name. What the artifact leaves out is taken from the
    operator's arguments of the same names, which are those of ``Registry.log_model``.

    A retry after a crash does not trip over the version that the crashed try had made. What is being
    registered is noted first, in the task's state, and lies as ``user_files/snowml/registration.json`` among
    the version's files: a version of this run with the same callable and arguments is completed and returned,
    without training; any other is somebody else's.

    Before the upload everything is looked at that Snowflake would refuse later. Afterwards the version's
    functions are looked at, and a few rows of the sample are predicted in Snowflake and compared with what
    the model said here; those rows are part of the registration file (none with the option
    ``capture_sample_input_data=False``). Models that take no data frame (PyTorch, TensorFlow, Hugging Face)
    and those that do not run in a warehouse are not compared.

    XCom: ``{"model": "DB.SCHEMA.NAME", "version", "functions": [method, ...], "metrics": {...}}``.

    Privileges: CREATE MODEL and CREATE STAGE (a temporary one) on the schema; OWNERSHIP of the model for a
    further version; APPLY on the tags. See
    https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/overview.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: the version's name. It is wanted, because a retry must find it.
    :param python_callable: trains the model and returns a :class:`ModelArtifact`.
    :param op_args: its positional arguments.
    :param op_kwargs: its keyword arguments.
    :param if_exists: what to do about a version of that name: ``"fail"`` before anything is trained;
        ``"reuse"`` it without training; ``"replace"`` it once the new one is trained (the default version can
        only be replaced if it is the only one, and then the whole model is dropped, as Snowflake wants it);
        or register the ``"next"`` free one of ``V3_2``, ``V3_3``, ...
    :param comment: the version's comment.
    :param metrics: metrics of this version, besides those of the artifact.
    :param conda_dependencies: conda packages that the model needs.
    :param pip_requirements: pip packages that the model needs.
    :param artifact_repository_map: where pip packages come from.
    :param resource_constraint: what the warehouse must offer.
    :param target_platforms: ``"WAREHOUSE"``, ``"SNOWPARK_CONTAINER_SERVICES"`` or both.
    :param python_version: the Python version that the model runs with.
    :param signatures: the signatures, by method, each as its ``to_dict()`` gives it.
    :param sample_input_data: rows that the signatures are inferred from: a list of dictionaries, or a data
        frame.
    :param user_files: further files, by directory.
    :param code_paths: directories of code that the model imports.
    :param ext_modules: modules that are pickled with the model, or their names.
    :param task: what the model does, by name: ``"TABULAR_BINARY_CLASSIFICATION"``; a monitor wants it.
    :param options: options of the model's framework.
    :param tags: tags of the model, values by ``[[database.]schema.]tag``. The tags have to be there.
    :param platform_fallback: whether a model is registered for container services only, with a warning, if a
        warehouse lacks a package that it names. It is an error otherwise.
    :param verify: whether a prediction in Snowflake is compared with the local one.
    :param tolerance: how far the two may be apart.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense, or a callable that returns
        something else.
    :raises ModelLimitError: for what is over one of Snowflake's limits.
    :raises ModelPackageNotFoundError: if a warehouse lacks a package.
    :raises ModelVersionExistsError: if the version exists and must not be replaced.
    :raises ModelVerificationError: if the version is not what was uploaded.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "op_args",
        "op_kwargs",
        "if_exists",
        "comment",
        "metrics",
        "conda_dependencies",
        "pip_requirements",
        "artifact_repository_map",
        "resource_constraint",
        "target_platforms",
        "python_version",
        "user_files",
        "code_paths",
        "task",
        "tags",
    )
    template_fields_renderers = {"op_args": "py", "op_kwargs": "py"}
    # Dataframes, models and modules must not be copied when a task is.
    shallow_copy_attrs: Sequence[str] = (
        "python_callable",
        "op_kwargs",
        "sample_input_data",
        "signatures",
        "ext_modules",
    )

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str,
        python_callable: Callable[..., ModelArtifact],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        if_exists: Literal["fail", "reuse", "replace", "next"] = "fail",
        comment: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        conda_dependencies: list[str] | None = None,
        pip_requirements: list[str] | None = None,
        artifact_repository_map: dict[str, str] | None = None,
        resource_constraint: dict[str, str] | None = None,
        target_platforms: list[Any] | None = None,
        python_version: str | None = None,
        signatures: Mapping[str, Any] | None = None,
        sample_input_data: Any = None,
        user_files: dict[str, list[str]] | None = None,
        code_paths: list[Any] | None = None,
        ext_modules: list[Any] | None = None,
        task: Any = None,
        options: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        platform_fallback: bool = False,
        verify: bool = True,
        tolerance: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.python_callable = python_callable
        self.op_args = list(op_args or ())
        self.op_kwargs = dict(op_kwargs or {})
        self.if_exists = if_exists
        self.comment = comment
        self.metrics = metrics
        self.conda_dependencies = conda_dependencies
        self.pip_requirements = pip_requirements
        self.artifact_repository_map = artifact_repository_map
        self.resource_constraint = resource_constraint
        self.target_platforms = target_platforms
        self.python_version = python_version
        self.signatures = signatures
        self.sample_input_data = sample_input_data
        self.user_files = user_files
        self.code_paths = code_paths
        self.ext_modules = ext_modules
        self.task = task
        self.options = options
        self.tags = tags
        self.platform_fallback = platform_fallback
        self.verify = verify
        self.tolerance = tolerance

    def execute(self, context: Context) -> dict[str, Any]:
        """Train and register."""
        one_of("if_exists", self.if_exists, ("fail", "reuse", "replace", "next"))
        hook = self.get_hook()
        with hook.session() as session:
            model = QualifiedName.parse(self.model_name, hook.default_schema(), what="model name")
            wanted = parse_version_name(self.version_name)
            tags = self._tags(hook)
            versions = hook.model_versions(model) or []
            names = {version.name for version in versions}

            work = self._work(context, model, wanted)
            mine = self._made_before(context, hook, work, names)
            if mine is not None:
                self.log.info("Version %s is this run's own, of an earlier try.", mine.version)
                complete(session, mine)
                return self._finish(hook, session, mine, tags)
            version = next_version_name(wanted, names) if self.if_exists == "next" else wanted
            work = replace(work, version=version)
            if version in names and self.if_exists == "reuse":
                self.log.info("Version %s exists; nothing is trained.", version)
                return self._result(hook, work, version_of(session, work).show_metrics())
            if version in names:
                self._refuse_unless_replaceable(model, version, versions)
            else:
                check_version_count(model, len(names))
            self.log.info("Training what becomes %s version %s.", model, version)
            made = register(
                session,
                self._train(session, context),
                work,
                replaces=drop_statement(model, version, only=len(names) == 1) if version in names else None,
                platform_fallback=self.platform_fallback,
                verify=self.verify,
                note=partial(self._note, context),
            )
            return self._finish(hook, session, made, tags)

    # -- whose a version is -----------------------------------------------------------------------------

    def _work(self, context: Context, model: QualifiedName, wanted: str) -> Registration:
        owner = owner_of(context)
        arguments = [self.op_args, self.op_kwargs, wanted, self._log_model_arguments()]
        made_of = fingerprint(source_of(self.python_callable), arguments, owner.run_key)
        return Registration(owner, run_of(context), made_of, model.sql, wanted)

    def _note(self, context: Context, registration: Registration) -> None:
        context["task_state_store"].set(STATE_KEY, registration.to_dict())

    def _made_before(
        self, context: Context, hook: SnowMLHook, work: Registration, names: set[str]
    ) -> Registration | None:
        """The version that an earlier try of this run, since it was last cleared, has made.

        A name that was noted proves nothing yet: another may have taken it before us. What lies among the
        version's files does.
        """
        noted = Registration.from_dict(context["task_state_store"].get(STATE_KEY, None))
        if noted is None or noted.version not in names:
            return None
        work = replace(work, version=noted.version)
        if noted.identity != work.identity:
            return None
        found = read_registration(hook, QualifiedName.parse(noted.model), noted.version)
        return found if found is not None and found.identity == work.identity else None

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

    # -- what is registered -----------------------------------------------------------------------------

    def _log_model_arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in LOG_MODEL_ARGUMENTS}

    def _train(self, session: Any, context: Context) -> Any:
        parameters = inspect.signature(self.python_callable).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        positional = set(list(parameters)[: len(self.op_args)])
        offered = {**context, "session": session}
        keywords = {
            name: value
            for name, value in offered.items()
            if (name in parameters or takes_all) and name not in positional
        }
        artifact: Any = self.python_callable(*self.op_args, **{**keywords, **self.op_kwargs})
        if not isinstance(artifact, ModelArtifact):
            raise InvalidArgumentError(
                f"python_callable returned a {type(artifact).__name__}; it must return a ModelArtifact."
            )
        return artifact.with_defaults(self._log_model_arguments())

    def _tags(self, hook: SnowMLHook) -> dict[QualifiedName, str]:
        tags = {
            QualifiedName.parse(tag, hook.default_schema(), what="tag"): str(value)
            for tag, value in (self.tags or {}).items()
        }
        for tag, value in tags.items():
            check_tag_value(tag.sql, value)
        return tags

    # -- afterwards -------------------------------------------------------------------------------------

    def _finish(
        self,
        hook: SnowMLHook,
        session: Any,
        registration: Registration,
        tags: Mapping[QualifiedName, str],
    ) -> dict[str, Any]:
        result = self._result(hook, registration, registration.metrics)
        if self.verify and registration.check is None:
            self.log.info(
                "No prediction is compared: there is no sample here, or no warehouse runs the model."
            )
        elif self.verify:
            compare_prediction(session, registration, self.tolerance)
        set_tags(hook, QualifiedName.parse(registration.model), tags)
        return result

    @staticmethod
    def _result(hook: SnowMLHook, registration: Registration, metrics: Mapping[str, Any]) -> dict[str, Any]:
        model = QualifiedName.parse(registration.model)
        ref = hook.resolve_version(model, Identifier.of(registration.version).sql)
        check_functions(ref, registration.functions)
        return {
            "model": model.sql,
            "version": registration.version,
            "functions": [function.target_method for function in ref.functions],
            "metrics": dict(metrics),
        }
