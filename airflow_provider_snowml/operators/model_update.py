"""What people and other systems read about a model: its name, comment and tags, and its versions' metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Context

from airflow_provider_snowml.core.lineage import Lineage, model_version
from airflow_provider_snowml.core.model_update import (
    ModelUpdate,
    changes,
    check_update,
    parse_metrics,
    parse_rename,
    parse_tags,
    update_steps,
)
from airflow_provider_snowml.core.names import QualifiedName, SchemaName
from airflow_provider_snowml.core.promotion import CatalogModel, parse_alias
from airflow_provider_snowml.exceptions import InvalidArgumentError, ModelExistsError
from airflow_provider_snowml.hooks.promotion import (
    check_tag,
    find_model,
    run_steps,
    tag_value,
    with_marks,
)
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import SnowMLOperator, as_text, run_of

STATE_KEY = "snowml_update_model"


class SnowMLUpdateModelOperator(SnowMLOperator):
    """Change a model's comment, tags or name, and the comment, metrics or alias of one of its versions.

    Only what differs is sent, one statement for each, the name last. Before the first one it is noted what
    there was, so that whatever dies in between, a retry finishes it and tells the same changes as one clean
    run. A model that has its new name already is known by that note, and by when its default version was
    made; another task's rename is not taken for its own.

    Which version is the champion is :class:`.SnowMLPromoteModelOperator`'s to say: its alias is neither given
    nor taken here. A version has one alias, so it loses another one that it has.

    All metrics of a version are one text in Snowflake: two tasks that write metrics of the same version at
    the same time can undo each other's.

    What refers to the old name, such as other DAGs, assets and monitors, is not renamed.

    XCom: ``{"model", "version", "changes": {what: {"from", "to"}}}``, the model by its name afterwards; what
    is ``"name"``, ``"comment"``, ``"tag DB.SCHEMA.TAG"``, ``"version comment"``, ``"metric <name>"`` or
    ``"alias <alias>"``. What was so already is not in it.

    Privileges: OWNERSHIP of the model; APPLY on the tags; CREATE MODEL on the schema to rename. See
    https://docs.snowflake.com/en/sql-reference/sql/alter-model.

    :param model_name: the model, ``[[database.]schema.]name``. A model that Cortex fine-tuning made is
        changed as well, since it is named.
    :param version_name: the version, by its name and not an alias; wanted for the three that follow.
    :param metrics: values by name: numbers, or whatever JSON can say; ``None`` deletes one.
    :param version_comment: the version's comment.
    :param alias: the version's alias; it is taken from the version that has it.
    :param tags: values by ``[[database.]schema.]tag``, in the model's schema if that is not said; at most 256
        characters each. ``None`` takes a tag off.
    :param create_tags: whether to create tags that are missing.
    :param comment: the model's comment; an empty text takes it off.
    :param rename_to: the model's new name, in the same schema.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense, and tags that are missing.
    :raises NotFoundError: (a subclass) for a model or version that isn't there.
    :raises ModelExistsError: if there is another model of the new name.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "metrics",
        "version_comment",
        "alias",
        "tags",
        "comment",
        "rename_to",
    )

    def __init__(
        self,
        *,
        model_name: str,
        version_name: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        version_comment: str | None = None,
        alias: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        create_tags: bool = False,
        comment: str | None = None,
        rename_to: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.metrics = metrics
        self.version_comment = version_comment
        self.alias = alias
        self.tags = tags
        self.create_tags = create_tags
        self.comment = comment
        self.rename_to = rename_to

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, note, change."""
        metrics = parse_metrics(self.metrics)
        self._check_given()
        hook = self.get_hook()
        with hook.open_connection():
            name = QualifiedName.parse(str(self.model_name), hook.default_schema(), what="model name")
            tags = parse_tags(self.tags, name)
            rename_to = as_text(self.rename_to)
            new_name = parse_rename(rename_to, name) if rename_to else None
            noted = self._noted(context, name)
            model = self._find(hook, name, new_name, noted)
            update = self._update(model, metrics, tags, new_name)
            check_update(model, update)
            for tag in tags:
                check_tag(hook, QualifiedName.parse(tag), create=self.create_tags)
            values = {tag: tag_value(hook, QualifiedName.parse(tag), model.name) for tag in tags}
            model = with_marks(hook, model, tag=None, comment=self.comment is not None)
            before = {**update.before(model, values), **noted.get("before", {})}
            steps = update_steps(model, values, update)
            if steps:
                self._note(context, name, model, before)
                run_steps(hook, model.name, steps)
        changed = changes(before, update.after())
        for what, values in changed.items():
            self.log.info("%s: %s was %r, is %r.", model.name, what, values["from"], values["to"])
        return self.done(
            {"model": (new_name or model.name).sql, "version": update.version, "changes": changed}
        )

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The model, and what it was called before."""
        if not done.get("changes"):
            return Lineage()
        before = model_version(str(self.model_name), None, default)
        after = model_version(done["model"], done["version"], change="ALTER")
        return Lineage([before] if before.name != after.name else [], [after])

    def _check_given(self) -> None:
        of_version = {
            "metrics": self.metrics or None,
            "version_comment": self.version_comment,
            "alias": as_text(self.alias),
        }
        of_model = {"tags": self.tags or None, "comment": self.comment, "rename_to": as_text(self.rename_to)}
        given = [name for name, value in of_version.items() if value is not None]
        if given and as_text(self.version_name) is None:
            raise InvalidArgumentError(f"Name the version that {' and '.join(given)} is for: version_name.")
        if not given and all(value is None for value in of_model.values()):
            raise InvalidArgumentError(
                f"Nothing is to be changed: give one of {', '.join((*of_version, *of_model))}."
            )

    def _find(
        self, hook: SnowMLHook, name: QualifiedName, new_name: QualifiedName | None, noted: Mapping[str, Any]
    ) -> CatalogModel:
        """The model, by its new name if this task has given it that already."""
        renamed = find_model(hook, new_name) if new_name is not None and new_name != name else None
        if renamed is not None and _identity(renamed) == noted.get("default"):
            self.log.info("An earlier try has renamed %s to %s.", name, new_name)
            return renamed
        model = find_model(hook, name)
        if model is None:
            error = hook.no_such_model(name)
            if renamed is None:
                raise error
            raise type(error)(
                f"{str(error).removesuffix(error.on_retry)}{new_name} is there, but this task has not "
                "noted that it was its rename."
            )
        if renamed is not None:
            raise ModelExistsError(
                f"{name} can't be renamed to {new_name}: there is such a model. Nothing was changed."
            )
        return model

    def _update(
        self,
        model: CatalogModel,
        metrics: dict[str, Any],
        tags: dict[str, str | None],
        new_name: QualifiedName | None,
    ) -> ModelUpdate:
        version, alias = as_text(self.version_name), as_text(self.alias)
        return ModelUpdate(
            comment=self.comment,
            tags=tags,
            version=model.version(version).name if version else None,
            version_comment=self.version_comment,
            metrics=metrics,
            alias=parse_alias(alias, model, what="alias") if alias else None,
            rename_to=new_name,
        )

    def _noted(self, context: Context, name: QualifiedName) -> dict[str, Any]:
        """What an earlier try of this run noted; what there was before it only until the run is cleared."""
        noted: Any = context["task_state_store"].get(STATE_KEY, None)
        if not isinstance(noted, dict) or noted["model"] != name.sql:
            return {}
        run = run_of(context)
        if (noted["run_id"], noted["clear_number"]) != (run.run_id, run.clear_number):
            return {"default": noted["default"]}
        return noted

    def _note(
        self, context: Context, name: QualifiedName, model: CatalogModel, before: dict[str, Any]
    ) -> None:
        run = run_of(context)
        context["task_state_store"].set(
            STATE_KEY,
            {
                "run_id": run.run_id,
                "clear_number": run.clear_number,
                "model": name.sql,
                "default": _identity(model),
                "before": before,
            },
        )


def _identity(model: CatalogModel) -> list[Any]:
    """What tells a model from another of its name: its default version, and when that was made."""
    return [model.default.name, model.default.created_on] if model.default is not None else []
