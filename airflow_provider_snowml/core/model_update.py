"""What is to be changed of a model and of one of its versions, and the statements that change it.

Each thing that can change has a name, ``comment`` or ``metric accuracy``, under which its value before and
its value afterwards are compared, noted and told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_snowml.core.model_limits import check_metadata, check_tag_value
from airflow_provider_snowml.core.names import Identifier, QualifiedName, literal, refuse_dollar_quotes
from airflow_provider_snowml.core.promotion import (
    RECORD,
    SYSTEM_ALIASES,
    CatalogModel,
    CatalogVersion,
    Marks,
    Step,
    alias_steps,
    metadata_with,
    metrics_step,
)
from airflow_provider_snowml.exceptions import InvalidArgumentError

NAME = "name"


@dataclass(frozen=True)
class ModelUpdate:
    """What somebody wants changed. What is ``None`` stays.

    :param comment: the model's comment.
    :param tags: values of the model's tags, by the tag's full name; ``None`` takes the tag off.
    :param version: the version that the rest is about.
    :param version_comment: its comment.
    :param metrics: its metrics, by name; ``None`` deletes one.
    :param alias: its alias.
    :param rename_to: the model's new name.
    """

    comment: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)
    version: str | None = None
    version_comment: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    alias: str | None = None
    rename_to: QualifiedName | None = None

    def before(self, model: CatalogModel, tags: Mapping[str, str | None]) -> dict[str, Any]:
        """What it would change, by name, as it is now.

        :param model: the model.
        :param tags: the values that its tags have.
        """
        version = model.find(self.version)
        now: dict[str, Any] = {}
        if version is not None:
            now |= {f"metric {name}": version.metrics.get(name) for name in self.metrics}
            if self.version_comment is not None:
                now["version comment"] = version.comment
            if self.alias is not None:
                # A version has one alias, so it loses another.
                now |= {f"alias {alias}": version.name for alias in own_aliases(version)}
                holder = model.holder(self.alias)
                now[f"alias {self.alias}"] = holder.name if holder is not None else None
        now |= {f"tag {tag}": tags[tag] for tag in self.tags}
        if self.comment is not None:
            now["comment"] = model.comment
        if self.rename_to is not None:
            now[NAME] = model.name.sql
        return now

    def after(self) -> dict[str, Any]:
        """The same as it is to be; what is not in it is to be gone."""
        wanted = {f"metric {name}": value for name, value in self.metrics.items()}
        wanted |= {f"tag {tag}": value for tag, value in self.tags.items()}
        wanted |= {"version comment": self.version_comment, "comment": self.comment}
        if self.alias is not None:
            wanted[f"alias {self.alias}"] = self.version
        if self.rename_to is not None:
            wanted[NAME] = self.rename_to.sql
        return wanted


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What changed, by name: ``{"from", "to"}``."""
    return {
        what: {"from": value, "to": after.get(what)}
        for what, value in before.items()
        if value != after.get(what)
    }


def update_steps(model: CatalogModel, tags: Mapping[str, str | None], update: ModelUpdate) -> list[Step]:
    """What makes the changes, from wherever an earlier try got to; the model's name comes last.

    :param model: the model.
    :param tags: the values that its tags have.
    :param update: what is wanted.
    """
    alter, version = f"ALTER MODEL {model.name.sql}", model.find(update.version)
    steps = [] if version is None else _version_steps(model, version, update)
    for tag, value in update.tags.items():
        if value == tags[tag]:
            continue
        if value is None:
            steps.append(Step(f"take tag {tag} off", f"{alter} UNSET TAG {tag}"))
        else:
            steps.append(Step(f"set tag {tag}", f"{alter} SET TAG {tag} = {literal(value)}"))
    if update.comment not in (None, model.comment):
        steps.append(Step("set the comment", f"{alter} SET COMMENT = {literal(str(update.comment))}"))
    if update.rename_to is not None and update.rename_to != model.name:
        steps.append(Step(f"rename it to {update.rename_to}", f"{alter} RENAME TO {update.rename_to.sql}"))
    return steps


def _version_steps(model: CatalogModel, version: CatalogVersion, update: ModelUpdate) -> list[Step]:
    steps = []
    metrics = metrics_with(version, update.metrics)
    if metrics != version.all_metrics:
        steps.append(metrics_step(model.name, version, metrics, what=f"set the metrics of {version.name}"))
    if update.version_comment not in (None, version.comment):
        comment = literal(str(update.version_comment))
        steps.append(
            Step(
                f"set the comment of {version.name}",
                f"ALTER MODEL {model.name.sql} MODIFY VERSION {version.sql} SET COMMENT = {comment}",
            )
        )
    if update.alias is not None:
        steps += alias_steps(model, version, None, Marks(alias=update.alias))
    return steps


def metrics_with(version: CatalogVersion, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """All metrics that a version has then, other operators' among them."""
    kept = {name: value for name, value in version.all_metrics.items() if name not in metrics}
    return {**kept, **{name: value for name, value in metrics.items() if value is not None}}


def own_aliases(version: CatalogVersion) -> list[str]:
    """A version's aliases without Snowflake's own."""
    return [alias for alias in version.aliases if alias not in SYSTEM_ALIASES]


def check_update(model: CatalogModel, update: ModelUpdate) -> None:
    """Check what can only be checked once the model is seen.

    :raises ModelLimitError: if the metadata would be too large.
    :raises InvalidArgumentError: if the champion's alias would be taken or given.
    """
    version = model.find(update.version)
    if version is None:
        return
    if update.metrics:
        check_metadata(metadata_with(version, metrics_with(version, update.metrics)))
    if update.alias is None:
        return
    default = model.default
    champion = default.promotion.marks.alias if default is not None and default.promotion else None
    held = model.holder(champion)
    if champion is not None and (
        update.alias == champion or (held is not None and held.name == version.name)
    ):
        raise InvalidArgumentError(
            f"alias is {update.alias} for version {version.name}: {champion} marks the champion of "
            f"{model.name}, {held.name if held is not None else 'none'}, and a version has one alias. "
            "SnowMLPromoteModelOperator gives it and takes it."
        )


def parse_tags(tags: Any, model: QualifiedName) -> dict[str, str | None]:
    """The tags by their full names.

    :param tags: what the user wrote: values by tag, ``None`` for one that is to be taken off.
    :param model: the model; a tag that is not qualified is in its schema.
    :raises InvalidArgumentError: (or a subclass) for what is no tag or no value of one.
    """
    found: dict[str, str | None] = {}
    for tag, value in _mapping("tags", tags).items():
        name = QualifiedName.parse(tag, model.parent, what="tag").sql
        if value is not None and not isinstance(value, str):
            raise InvalidArgumentError(
                f"The value of tag {name} is {value!r}; it must be a text, or None to take the tag off."
            )
        if name in found:
            raise InvalidArgumentError(f"tags name {name} twice.")
        if value is not None:
            check_tag_value(name, value)
        found[name] = value
    return found


def parse_metrics(metrics: Any) -> dict[str, Any]:
    """The metrics as they are kept.

    :param metrics: what the user wrote: values by name, ``None`` for one that is to be deleted.
    :raises InvalidArgumentError: (or a subclass) for what cannot be kept, such as NaN.
    """
    found = {}
    for name, value in _mapping("metrics", metrics).items():
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(f"A metric is called {name!r}; its name must be a text.")
        if name == RECORD:
            raise InvalidArgumentError(
                f"The metric {RECORD} is the record of a promotion, which SnowMLPromoteModelOperator writes."
            )
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise InvalidArgumentError(
                f"The metric {name} is {value!r}; it must be a finite number, or what JSON can say."
            ) from None
        refuse_dollar_quotes(name + text, what=f"metric {name}")
        found[name] = json.loads(text)
    return found


def parse_rename(text: str, model: QualifiedName) -> QualifiedName:
    """The model's new name.

    :param text: what the user wrote.
    :param model: the model.
    :raises InvalidArgumentError: (or a subclass) if it is none, or in another schema.
    """
    name = QualifiedName.parse(text, model.parent, what="rename_to")
    if name.parent != model.parent:
        raise InvalidArgumentError(
            f"rename_to is {name}, and {model} is in another schema: a model is renamed in its schema. "
            "SnowMLPromoteModelOperator(copy_to=...) copies a version to another one."
        )
    # Written as Snowflake resolves it, so that it is compared as such.
    return QualifiedName(model.database, model.schema, Identifier.of(name.name.name))


def _mapping(what: str, given: Any) -> Mapping[Any, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(f"{what} is {given!r}; it must be a dictionary.")
    return given
