"""Registering what a DAG trained."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from airflow.sdk import Context

from airflow_provider_snowml.core.lineage import Lineage, directory, model_version, tables
from airflow_provider_snowml.core.model_artifact import LOG_MODEL_ARGUMENTS, ModelArtifact
from airflow_provider_snowml.core.model_limits import check_tag_value, check_version_count, parse_version_name
from airflow_provider_snowml.core.model_ref import ModelVersionInfo, next_version_name
from airflow_provider_snowml.core.names import (
    Identifier,
    QualifiedName,
    SchemaName,
    literal,
    refuse_dollar_quotes,
    refuse_look_alikes,
    refuse_single_quotes,
)
from airflow_provider_snowml.core.preflight_steps import Register
from airflow_provider_snowml.core.privileges import resolved
from airflow_provider_snowml.core.registration import (
    Registration,
    fingerprint,
    plain_metrics,
    source_of,
)
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelVersionExistsError
from airflow_provider_snowml.hooks.model_registration import register
from airflow_provider_snowml.hooks.model_sources import load, train
from airflow_provider_snowml.hooks.preflight import check_privileges
from airflow_provider_snowml.hooks.registration import (
    check_functions,
    comment_and_metrics,
    copy_version,
    drop_statement,
    read_registration,
    set_tags,
    version_metrics,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    exactly_one,
    one_of,
    owner_of,
    run_of,
)
from airflow_provider_snowml.operators.model_files import fetched
from airflow_provider_snowml.operators.other_python import run_in_other_python

__all__ = ["ModelArtifact", "SnowMLRegisterModelOperator"]

STATE_KEY = "snowml_register_model"
SOURCES = ("python_callable", "model_file", "mlflow_model_uri", "huggingface_model", "source_model")


class SnowMLRegisterModelOperator(SnowMLOperator):
    """Train a model in a callable, or take one from elsewhere, and register it as a version of a model.

    One of these says where it comes from: ``python_callable``, ``model_file``, ``mlflow_model_uri``,
    ``huggingface_model`` or ``source_model``. The callable runs in the worker, which needs the model's
    framework. It returns a :class:`~airflow_provider_snowml.core.model_artifact.ModelArtifact`.
    A ``session`` argument gets it an open Snowpark session; other arguments come from ``op_args`` and
    ``op_kwargs``, or from the Airflow context by name. What the artifact leaves out is taken from the
    operator's arguments of the same names, which are those of ``Registry.log_model``.

    A retry after a crash does not trip over the version that the crashed try had made. What is being
    registered is noted first, in the task's state, and lies as ``user_files/snowml/registration.json`` among
    the version's files: a version of this run with the same callable and arguments is completed and returned,
    without training; any other is somebody else's.

    Before anything is trained the role's privileges are looked at, and before the upload everything else that
    Snowflake would refuse later. Afterwards the version's
    functions are looked at, and a few rows of the sample are predicted in Snowflake and compared with what
    the model said here; those rows are part of the registration file (none with the option
    ``capture_sample_input_data=False``). Models that take no data frame (PyTorch, TensorFlow, Hugging Face)
    and those that do not run in a warehouse are not compared.

    XCom: ``{"model": "DB.SCHEMA.NAME", "version", "functions": [method, ...], "metrics": {...}}``.

    Privileges: CREATE MODEL on the schema, or OWNERSHIP of the model for a further version; APPLY on the
    tags; READ on a model that is copied; USAGE on a compute pool that fetches one. See
    https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/overview.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: the version's name. It is wanted, because a retry must find it.
    :param python_callable: trains the model and returns a
        :class:`~airflow_provider_snowml.core.model_artifact.ModelArtifact`.
    :param model_file: a file with the model: a path, a URL that Airflow's ``ObjectStoragePath`` takes, or
        ``@stage/path``. Its suffix says what it is: .pkl, .pickle, .joblib (scikit-learn and whatever else
        was pickled), .json, .ubj (XGBoost), .txt (LightGBM), .cbm (CatBoost), .pt (TorchScript) or .keras.
        **Loading a pickle runs the code that is in it**: give none that you did not make.
    :param mlflow_model_uri: a model of MLflow's, ``models:/churn/3``. Loading it runs the code that is in it.
    :param huggingface_model: a model of Hugging Face, which Snowflake itself fetches, in
        ``compute_pool_for_log``; nothing is downloaded here. Metrics, functions and comment are completed
        on a retry; which version is whose is known from the task's state alone.
    :param huggingface_task: what it does there, ``text-classification``.
    :param compute_pool_for_log: the compute pool in which it is fetched.
    :param huggingface_secret: the full name of a Snowflake secret with a token for it; never the token.
    :param source_model: another model, of which ``source_version`` is copied on the server, with its comment
        and metrics; only ``comment``, ``metrics`` and ``tags`` can be given besides.
    :param source_version: its version, or an alias.
    :param external_python: another interpreter, in which the model is trained or loaded and registered. It
        needs Python 3.11 or newer and snowflake-ml-python, and neither Airflow nor this provider. The
        callable goes there as its source: it imports what it uses itself, and finds ``ModelArtifact`` as a
        global name. It gets ``session``, ``op_args`` and ``op_kwargs``, which are pickled, and nothing of the
        context.
    :param requirements: the same in a virtual environment that is made for it of these requirements;
        snowflake-ml-python has to be among them.
    :param venv_cache_path: a directory in which that environment is kept for the next time.
    :param training_tables: tables and views that the callable reads, ``[[database.]schema.]name``. Nothing is
        done with them here: they are what OpenLineage is told, since a callable does not say what it reads.
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
    :raises InsufficientPrivilegesError: if the role lacks a privilege on the model, its schema or a tag; the
        message has the GRANT.
    :raises ModelLimitError: for what is over one of Snowflake's limits.
    :raises ModelPackageNotFoundError: if a warehouse lacks a package.
    :raises ModelVersionExistsError: if the version exists and must not be replaced.
    :raises ModelVerificationError: if the version is not what was uploaded.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "model_file",
        "mlflow_model_uri",
        "huggingface_model",
        "huggingface_task",
        "compute_pool_for_log",
        "huggingface_secret",
        "source_model",
        "source_version",
        "external_python",
        "requirements",
        "training_tables",
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
        python_callable: Callable[..., ModelArtifact] | None = None,
        model_file: str | None = None,
        mlflow_model_uri: str | None = None,
        huggingface_model: str | None = None,
        huggingface_task: str | None = None,
        compute_pool_for_log: str | None = None,
        huggingface_secret: str | None = None,
        source_model: str | None = None,
        source_version: str = "default",
        external_python: str | None = None,
        requirements: Sequence[str] | None = None,
        venv_cache_path: str | None = None,
        training_tables: str | Sequence[str] | None = None,
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
        self.model_file = model_file
        self.mlflow_model_uri = mlflow_model_uri
        self.huggingface_model = huggingface_model
        self.huggingface_task = huggingface_task
        self.compute_pool_for_log = compute_pool_for_log
        self.huggingface_secret = huggingface_secret
        self.source_model = source_model
        self.source_version = source_version
        self.external_python = external_python
        self.requirements = requirements
        self.venv_cache_path = venv_cache_path
        self.training_tables = training_tables
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
        source = self._check_arguments()
        hook = self.get_hook()
        # The other interpreter opens a session of its own; what is left to do here is plain SQL.
        with hook.open_connection() if self._is_elsewhere() else hook.session() as opened:
            session = None if self._is_elsewhere() else opened
            model = QualifiedName.parse(self.model_name, hook.default_schema(), what="model name")
            wanted = parse_version_name(self.version_name)
            tags = self._tags(hook)
            versions = hook.model_versions(model)
            names = {version.name for version in versions or ()}

            work = self._work(context, model, wanted)
            mine = self._made_before(context, hook, work, names)
            if mine is not None:
                self.log.info("Version %s is this run's own, of an earlier try.", mine.version)
                mine = self._register(context, hook, session, mine)
                return self._finish(hook, mine, tags)
            version = next_version_name(wanted, names) if self.if_exists == "next" else wanted
            work = replace(work, version=version)
            if version in names and self.if_exists == "reuse":
                self.log.info("Version %s exists; nothing is trained.", version)
                return self._result(hook, work, version_metrics(hook, model, version))
            replaces = None
            if version in names:
                self._refuse_unless_replaceable(model, version, versions or ())
                replaces = drop_statement(model, version, only=len(names) == 1)
            else:
                check_version_count(model, len(names))
            self._check_names(hook, model, version, names)
            self._check_privileges(hook, work, tags, is_there=versions is not None)
            self.log.info("Making version %s of %s from its %s.", version, model, source)
            if source == "source_model":
                made = self._copy(context, hook, session, work, replaces, is_new=versions is None)
            else:
                made = self._register(context, hook, session, work, source=source, replaces=replaces)
            return self._finish(hook, made, tags)

    def _check_names(self, hook: SnowMLHook, model: QualifiedName, version: str, versions: set[str]) -> None:
        """Those that snowflake-ml will look for."""
        name = model.name.name
        refuse_single_quotes(name, version)
        refuse_look_alikes(version, versions)
        if "_" in name or "%" in name:
            like = f"SHOW MODELS LIKE {literal(name)} IN SCHEMA {model.parent.sql}"
            refuse_look_alikes(name, [str(row["name"]) for row in hook.rows(like)])

    def _check_arguments(self) -> str:
        """Where the model comes from."""
        one_of("if_exists", self.if_exists, ("fail", "reuse", "replace", "next"))
        source = exactly_one(**{name: getattr(self, name) for name in SOURCES})
        if self.external_python and self.requirements:
            raise InvalidArgumentError("Give external_python or requirements, not both.")
        if source == "huggingface_model" and not (self.huggingface_task and self.compute_pool_for_log):
            raise InvalidArgumentError(
                f"huggingface_model is {self.huggingface_model!r}; give huggingface_task and "
                "compute_pool_for_log as well: Snowflake fetches it in that pool."
            )
        if source == "source_model":
            allowed = ("comment", "metrics")
            others = [
                name
                for name in LOG_MODEL_ARGUMENTS
                if name not in allowed and getattr(self, name) is not None
            ]
            if others or self._is_elsewhere():
                raise InvalidArgumentError(
                    f"A copy of {self.source_model} is as that was registered: leave out "
                    f"{', '.join(others) or 'external_python and requirements'}."
                )
        return source

    def _is_elsewhere(self) -> bool:
        return bool(self.external_python or self.requirements)

    # -- whose a version is -----------------------------------------------------------------------------

    def _work(self, context: Context, model: QualifiedName, wanted: str) -> Registration:
        owner = owner_of(context)
        named = [getattr(self, name) for name in (*SOURCES[1:], "source_version", "huggingface_task")]
        arguments = [self.op_args, self.op_kwargs, wanted, named, self._log_model_arguments()]
        source = source_of(self.python_callable) if self.python_callable else ""
        made_of = fingerprint(source, arguments, owner.run_key)
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
        if self.source_model or self.huggingface_model:
            # A copy has its source's file, what Snowflake fetched has none.
            return noted if found is None or found.model != noted.model else None
        return found if found is not None and found.identity == work.identity else None

    def _check_privileges(
        self, hook: SnowMLHook, work: Registration, tags: Mapping[QualifiedName, str], *, is_there: bool
    ) -> None:
        step = Register(model_name=work.model, tags=[tag.sql for tag in tags])
        needs = [resolved(need, is_there=is_there) for need in step.needs(hook.default_schema())]
        check_privileges(hook, needs, what=f"version {work.version} of {work.model}")

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

    def _register(
        self,
        context: Context,
        hook: SnowMLHook,
        session: Any,
        registration: Registration,
        *,
        source: str | None = None,
        replaces: str | None = None,
    ) -> Registration:
        """Make the version from its source; without one, complete what is there. Compare a prediction."""
        keywords: dict[str, Any] = {
            "replaces": replaces,
            "platform_fallback": self.platform_fallback,
            "verify": self.verify,
            "tolerance": self.tolerance,
        }
        with fetched(hook, self.model_file if source == "model_file" else None) as file:
            if session is not None:
                make = partial(self._make, context, session, file) if source else None
                note = partial(self._note, context)
                return register(session, make, registration, **keywords, note=note)
            self._note(context, registration)  # metrics and comment are not known yet; the version has them
            told = {"registration": registration.to_dict(), "keywords": keywords}
            if source:
                told["defaults"] = self._log_model_arguments()
                told |= (
                    {"python": self._source_of_callable()}
                    if file is None and source == SOURCES[0]
                    else {"model": self._model_source(file)}
                )
            return run_in_other_python(
                context,
                told,
                hook._get_conn_params(),
                external_python=self.external_python,
                requirements=self.requirements,
                venv_cache_path=self.venv_cache_path,
            )

    def _make(self, context: Context, session: Any, file: Path | None) -> ModelArtifact:
        if self.python_callable is not None:
            offered = {**context, "session": session}
            made = train(self.python_callable, self.op_args, self.op_kwargs, **offered)
        else:
            made = ModelArtifact(load(self._model_source(file)))
        return made.with_defaults(self._log_model_arguments())

    def _model_source(self, file: Path | None) -> dict[str, Any]:
        if file is not None:
            return {"model_file": str(file)}
        if self.mlflow_model_uri:
            return {"mlflow_model_uri": self.mlflow_model_uri}
        return {
            "name": self.huggingface_model,
            "task": self.huggingface_task,
            "compute_pool_for_log": self.compute_pool_for_log,
            "secret": self.huggingface_secret,
        }

    def _source_of_callable(self) -> dict[str, Any]:
        return {
            "source": self.get_python_source(),
            "name": getattr(self.python_callable, "__name__", ""),
            "op_args": self.op_args,
            "op_kwargs": self.op_kwargs,
        }

    def get_python_source(self) -> str:
        """The callable's source, for the other interpreter."""
        assert self.python_callable is not None
        return textwrap.dedent(inspect.getsource(self.python_callable))

    def _copy(
        self,
        context: Context,
        hook: SnowMLHook,
        session: Any,
        registration: Registration,
        replaces: str | None,
        *,
        is_new: bool,
    ) -> Registration:
        refuse_dollar_quotes(self.comment or "", what="comment")
        source = hook.resolve_version(str(self.source_model), self.source_version)
        comment, metrics = comment_and_metrics(hook, source.model, source.version)
        metrics |= plain_metrics(self.metrics or {})
        functions = [function.target_method for function in source.functions]
        registration = replace(
            registration, metrics=metrics, comment=self.comment or comment, functions=functions
        )
        self._note(context, registration)
        if replaces:
            hook.rows(replaces)
        model = QualifiedName.parse(registration.model)
        is_new = is_new or replaces == drop_statement(model, registration.version, only=True)
        copy_version(hook, source, model, registration.version, is_new=is_new)
        return self._register(context, hook, session, registration)

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
        self, hook: SnowMLHook, registration: Registration, tags: Mapping[QualifiedName, str]
    ) -> dict[str, Any]:
        set_tags(hook, QualifiedName.parse(registration.model), tags)
        return self._result(hook, registration, registration.metrics)

    def _result(
        self, hook: SnowMLHook, registration: Registration, metrics: Mapping[str, Any]
    ) -> dict[str, Any]:
        model = QualifiedName.parse(registration.model)
        ref = hook.resolve_version(model, Identifier.of(registration.version).sql)
        check_functions(ref, registration.functions)
        return self.done(
            {
                "model": model.sql,
                "version": registration.version,
                "functions": [function.target_method for function in ref.functions],
                "metrics": dict(metrics),
            }
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """From what it was trained on, as far as that is told, or is a copy of, to the version."""
        named = self.training_tables or ()
        reads = tables(*([named] if isinstance(named, str) else named), default=default)
        if self.source_model:
            reads.append(model_version(self.source_model, None, default))
        if self.model_file and self.model_file.startswith("@"):
            reads.append(directory(self.model_file.rpartition("/")[0], default))
        elif self.model_file and "://" in self.model_file:
            reads.append(directory(self.model_file))
        if not done:
            return Lineage(reads)
        known = {name: done[name] for name in ("functions", "metrics")}
        return Lineage(reads, [model_version(done["model"], done["version"], change="CREATE", **known)])
