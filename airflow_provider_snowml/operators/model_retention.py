"""The end of versions and models that nobody uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Context

from airflow_provider_snowml.core.lineage import Lineage, model_version
from airflow_provider_snowml.core.model_retention import PrunePlan, plan_pruning, used_by
from airflow_provider_snowml.core.names import Identifier, QualifiedName, SchemaName
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelInUseError
from airflow_provider_snowml.hooks.model_retention import (
    drop_version,
    models_of,
    versions_in_use,
)
from airflow_provider_snowml.hooks.services import snowflake_time
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import (
    SnowMLOperator,
    as_text,
    seconds,
    true_or_false,
    whole_number,
)


class SnowMLPruneModelVersionsOperator(SnowMLOperator):
    """Drop the old versions of a model, or of all models of a schema. A model has 1,000 versions at most.

    Never the default, one that has an alias, is served or is monitored, nor the champion that a rollback
    would go back to. A version goes if it is none of the ``keep_last`` newest and, if ``older_than`` is given
    too, is old enough. Right before a version is dropped it is looked at once more. A retry goes on with what
    is left.

    It does nothing but plan unless told otherwise: read the log first, then say ``plan_only=False``.

    XCom: ``{"models": {model: {"dropped": [version], "kept": {version: reason}}}, "versions_dropped"}``.
    With ``plan_only``, ``dropped`` has what would be, and ``versions_dropped`` is 0.

    Privileges: OWNERSHIP of the models; USAGE on the schema, and any privilege on its monitors, which are not
    seen otherwise. See https://docs.snowflake.com/en/sql-reference/sql/alter-model-drop-version.

    :param model_name: the model, ``[[database.]schema.]name``. If it is left out, every model of the
        connection's schema but those that Cortex fine-tuning made: they have to be named.
    :param keep_last: how many of the newest versions stay in any case.
    :param older_than: how old a version has to be: a ``timedelta`` or seconds, by Snowflake's clock.
    :param plan_only: drop nothing, and say what would be.
    :raises InvalidArgumentError: if neither ``keep_last`` nor ``older_than`` is given, or one is no number.
    :raises ModelNotFoundError: if there is no such model.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "keep_last",
        "older_than",
        "plan_only",
    )

    def __init__(
        self,
        *,
        model_name: str | None = None,
        keep_last: int | str | None = None,
        older_than: timedelta | float | str | None = None,
        plan_only: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.keep_last = keep_last
        self.older_than = older_than
        self.plan_only = plan_only

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan, and drop."""
        plan_only = true_or_false("plan_only", self.plan_only)
        keep_last = whole_number("keep_last", self.keep_last)
        age = None if as_text(self.older_than) is None else seconds("older_than", self.older_than)
        if keep_last is None and age is None:
            raise InvalidArgumentError("Give keep_last, older_than, or both: neither says which are old.")
        name = as_text(self.model_name)
        hook = self.get_hook()
        result, count = {}, 0
        with hook.open_connection():
            default = hook.default_schema()
            now = snowflake_time(hook).timestamp()
            if name:
                models = [QualifiedName.parse(name, default, what="model name")]
            else:
                models = [model for model, is_finetuned in models_of(hook, default) if not is_finetuned]
            for model in models:
                versions = versions_in_use(hook, model)
                if versions is None:
                    if name:
                        raise hook.no_such_model(model)
                    continue  # dropped since it was listed
                plan = plan_pruning(versions, keep_last=keep_last, older_than=age, now=now)
                if not plan_only:
                    plan = self._drop(hook, model, plan)
                    count += len(plan.dropped)
                self._say(model, plan, "would go" if plan_only else "dropped")
                result[model.sql] = {"dropped": list(plan.dropped), "kept": dict(plan.kept)}
        return self.done({"models": result, "versions_dropped": count})

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The models that have lost versions."""
        models = done["models"] if done.get("versions_dropped") else {}
        lost = [model for model, versions in models.items() if versions["dropped"]]
        return Lineage(writes=[model_version(model, change="ALTER") for model in lost])

    def _drop(self, hook: SnowMLHook, model: QualifiedName, plan: PrunePlan) -> PrunePlan:
        dropped, kept = [], dict(plan.kept)
        for name in plan.dropped:
            # Once more: it may have been promoted or served since, which dropping would not mind.
            reason = next((used_by(version) for version in versions_in_use(hook, model, name) or []), None)
            if reason is not None:
                kept[name] = reason
            elif drop_version(hook, model, name):
                dropped.append(name)
        return PrunePlan(tuple(dropped), kept)

    def _say(self, model: QualifiedName, plan: PrunePlan, what: str) -> None:
        for name, reason in plan.kept.items():
            self.log.info("%s %s stays: %s.", model, name, reason)
        for name in plan.dropped:
            self.log.info("%s %s %s.", model, name, what)


class SnowMLDeleteModelOperator(SnowMLOperator):
    """Delete one version, such as a challenger that lost, or a whole model.

    What is in use is refused: a version that is the default, has an alias, is served or is monitored; a model
    of which a version is served or monitored. What isn't there is deleted already.

    XCom: ``{"model", "version", "deleted"}``, the version ``None`` for the model, and whether this try
    deleted it.

    Privileges: OWNERSHIP of the model. See https://docs.snowflake.com/en/sql-reference/sql/drop-model and
    https://docs.snowflake.com/en/sql-reference/sql/alter-model-drop-version.

    :param model_name: the model, ``[[database.]schema.]name``.
    :param version_name: the version, by its name and not an alias; if left out, the model with all versions.
    :param delete_all_versions: must be true for a whole model, so that a version name that was left out, or
        is empty after rendering, deletes none.
    :raises InvalidArgumentError: (or a subclass) if it is not, or a name is none.
    :raises ModelInUseError: if it is in use; the message says by whom.
    """

    template_fields: Sequence[str] = (*SnowMLOperator.template_fields, "model_name", "version_name")

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str | None = None,
        delete_all_versions: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.delete_all_versions = delete_all_versions

    def execute(self, context: Context) -> dict[str, Any]:
        """Look who uses it, and delete it."""
        version = as_text(self.version_name)
        if bool(version) == self.delete_all_versions:
            raise InvalidArgumentError(
                f"version_name is {self.version_name!r} and delete_all_versions is "
                f"{self.delete_all_versions}: name a version, or say that all of them go."
            )
        hook = self.get_hook()
        with hook.open_connection():
            model = QualifiedName.parse(self.model_name, hook.default_schema(), what="model name")
            if version is None:
                return self.done(self._delete_model(hook, model))
            return self.done(self._delete_version(hook, model, version))

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The model that is no more, or has lost a version."""
        if not done.get("deleted"):
            return Lineage()
        change = "ALTER" if done["version"] else "DROP"
        return Lineage(writes=[model_version(done["model"], done["version"], change=change)])

    def _delete_model(self, hook: SnowMLHook, model: QualifiedName) -> dict[str, Any]:
        versions = versions_in_use(hook, model)
        users = [
            f"{version.name} is {what} {', '.join(names)}"
            for version in versions or ()
            for what, names in (("served by", version.services), ("watched by", version.monitors))
            if names
        ]
        if users:
            raise ModelInUseError(f"Model {model} was not deleted: {'; '.join(users)}. Drop those first.")
        hook.rows(f"DROP MODEL IF EXISTS {model.sql}")
        return {"model": model.sql, "version": None, "deleted": versions is not None}

    def _delete_version(self, hook: SnowMLHook, model: QualifiedName, reference: str) -> dict[str, Any]:
        name = Identifier.parse(reference, what="version_name").name
        found = versions_in_use(hook, model, name)
        reason = used_by(found[0]) if found else None
        if reason is not None:
            raise ModelInUseError(f"Version {name} of {model} was not deleted ({reason}).")
        deleted = bool(found) and drop_version(hook, model, name)
        self.log.info("%s %s %s.", model, name, "was deleted" if deleted else "is not there")
        return {"model": model.sql, "version": name, "deleted": deleted}
