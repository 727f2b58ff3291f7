"""Which version of a model is its champion, and the statements that make another one so.

The champion is what readers get: the default version. What a promotion did is recorded on the version, before
readers see it, as a metric: which version it came after, what marks it, and until when it was trained. That
is all that a rollback needs, and what tells a default that was promoted from Snowflake's own: it makes a
model's first version the default by itself, be it good or not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime
from typing import Any

from airflow_provider_snowml.core.model_ref import ModelVersionInfo, resolve_version
from airflow_provider_snowml.core.names import Identifier, QualifiedName, literal, refuse_dollar_quotes
from airflow_provider_snowml.exceptions import (
    InvalidArgumentError,
    InvalidNameError,
    NothingToRollBackError,
    OlderModelError,
)

RECORD = "promotion"
SYSTEM_ALIASES = ("DEFAULT", "FIRST", "LAST")
# What snowflake-ml writes beside a version's metrics, and wants to find there.
_METADATA_SCHEMA = {"snowpark_ml_schema_version": "2024-01-01"}


@dataclass(frozen=True)
class Marks:
    """What says which version is the champion, beside being the default.

    :param alias: its alias.
    :param previous_alias: the alias of the champion before it.
    :param tag: the model's tag whose value is its name.
    :param comment: the model's comment.
    """

    alias: str | None = None
    previous_alias: str | None = None
    tag: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Promotion:
    """What is recorded of a promotion, on the promoted version.

    :param marks: what marks it.
    :param previous_version: the champion before it, ``None`` if there was none.
    :param previous_created_on: when that was made: another one can have its name by now.
    :param trained_until: until when its training data went, in ISO format.
    :param copied_from: the model that the version was copied from.
    :param at: when, in ISO format.
    :param dag_id: by which DAG, and in which run:
    :param run_id: the run.
    :param rolled_back_at: when it was taken back.
    """

    marks: Marks = Marks()
    previous_version: str | None = None
    previous_created_on: str | None = None
    trained_until: str | None = None
    copied_from: str | None = None
    at: str | None = field(default=None, compare=False)
    dag_id: str | None = field(default=None, compare=False)
    run_id: str | None = field(default=None, compare=False)
    rolled_back_at: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a metric, without what is ``None``."""
        values = {**asdict(self), "marks": {k: v for k, v in asdict(self.marks).items() if v is not None}}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, found: Any) -> Promotion | None:
        """Read one; ``None`` if it is none."""
        if not isinstance(found, Mapping) or not isinstance(found.get("marks"), Mapping):
            return None
        marks = Marks(**{one.name: found["marks"].get(one.name) for one in fields(Marks)})
        return cls(marks, **{one.name: found.get(one.name) for one in fields(cls) if one.name != "marks"})


@dataclass(frozen=True)
class CatalogVersion:
    """A version as the catalog has it.

    :param name: its name.
    :param created_on: when it was made, in ISO format.
    :param aliases: its aliases, Snowflake's own among them.
    :param metadata: its metadata; snowflake-ml keeps the metrics in it.
    :param comment: its comment.
    """

    name: str
    created_on: str = ""
    aliases: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    comment: str = ""

    @property
    def sql(self) -> str:
        """The version as it is written in a statement."""
        return Identifier.of(self.name).sql

    @property
    def is_default(self) -> bool:
        """Whether it is what readers get."""
        return "DEFAULT" in self.aliases

    @property
    def metrics(self) -> dict[str, Any]:
        """Its metrics, without the record of its promotion."""
        return {name: value for name, value in self.all_metrics.items() if name != RECORD}

    @property
    def promotion(self) -> Promotion | None:
        """What is recorded of its promotion."""
        return Promotion.from_dict(self.all_metrics.get(RECORD))

    @property
    def all_metrics(self) -> Mapping[str, Any]:
        """Its metrics, and the record among them."""
        metrics = self.metadata.get("metrics")
        return metrics if isinstance(metrics, Mapping) else {}


@dataclass(frozen=True)
class CatalogModel:
    """A model as the catalog has it.

    :param name: the model.
    :param versions: its versions.
    :param comment: its comment.
    :param tag_value: the value of the tag that marks its champion.
    """

    name: QualifiedName
    versions: tuple[CatalogVersion, ...] = ()
    comment: str = ""
    tag_value: str | None = None

    @property
    def default(self) -> CatalogVersion | None:
        """What readers get."""
        return next((version for version in self.versions if version.is_default), None)

    def find(self, name: str | None) -> CatalogVersion | None:
        """The version of that resolved name."""
        return next((version for version in self.versions if version.name == name), None)

    def version(self, reference: str) -> CatalogVersion:
        """The version of that name, never of that alias: an alias can move between a gate and a promotion.

        :raises ModelVersionNotFoundError: if there is none; the message lists the model's.
        """
        named = [ModelVersionInfo(version.name) for version in self.versions]
        found = self.find(resolve_version(self.name, reference, named).name)
        assert found is not None
        return found

    def holder(self, alias: str | None) -> CatalogVersion | None:
        """The version that has an alias."""
        return next((version for version in self.versions if alias in version.aliases), None)

    def champion(self, alias: str | None = None) -> CatalogVersion | None:
        """The version that was chosen: the default, if somebody made it so, else who has the alias.

        :param alias: the champion's alias.
        """
        default = self.default
        if default is not None and default.promotion is not None:
            return default
        if holder := self.holder(alias):
            return holder
        # Snowflake makes the first version the default by itself: nobody has chosen that one.
        return default if default is not None and "FIRST" not in default.aliases else None


@dataclass(frozen=True)
class Step:
    """One statement.

    :param what: what it does, for the log.
    :param sql: the statement.
    """

    what: str
    sql: str


def parse_alias(text: str, model: CatalogModel, *, what: str) -> str:
    """An alias as Snowflake resolves it.

    :param text: the alias as a user writes it.
    :param model: the model that gets it.
    :param what: the argument, for the error.
    :raises InvalidNameError: if it is none, Snowflake's own, or a version's name.
    """
    alias = Identifier.parse(text, what=what)
    if alias.quoted:
        raise InvalidNameError(f"{what} is {text!r}: Snowflake wants an alias without double quotes.")
    if alias.name in SYSTEM_ALIASES:
        raise InvalidNameError(f"{what} is {text!r}: {', '.join(SYSTEM_ALIASES)} are Snowflake's own.")
    if model.find(alias.name):
        raise InvalidNameError(
            f"{what} is {text!r}, the name of a version of {model.name}: choose another one."
        )
    return alias.name


def parse_moment(value: Any, *, what: str) -> datetime:
    """A date or a time, in ISO format or as an object; without a time zone it is in UTC.

    :raises InvalidArgumentError: if it is none.
    """
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        moment = datetime(value.year, value.month, value.day)
    if not isinstance(moment, datetime):
        raise InvalidArgumentError(f"{what} is {value!r}: write a date or a time in ISO format, 2013-06-03.")
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def check_not_older(
    model: QualifiedName, champion: CatalogVersion | None, version: str, trained_until: datetime | None
) -> None:
    """Check that a version is no step back.

    :param model: the model, for the error.
    :param champion: the champion that it would follow.
    :param version: the version.
    :param trained_until: until when its training data went.
    :raises OlderModelError: if the champion's went further, or what is compared is not said.
    """
    if champion is None or champion.name == version or champion.promotion is None:
        return
    noted = champion.promotion.trained_until
    if noted is None:
        return
    if trained_until is None:
        raise OlderModelError(
            f"The champion {champion.name} of {model} was trained until {noted}, and it is not said until "
            f"when {version} was: give trained_until, or on_older='promote'."
        )
    if trained_until < parse_moment(noted, what="the champion's trained_until"):
        raise OlderModelError(
            f"{version} was trained until {trained_until.isoformat()}, the champion {champion.name} "
            f"of {model} until {noted}: it would be a step back. on_older='promote' promotes it all the same."
        )


def promotion_steps(
    model: CatalogModel,
    version: CatalogVersion,
    wanted: Promotion,
    *,
    metrics: Mapping[str, Any] | None = None,
) -> tuple[Promotion, list[Step]]:
    """What makes a version the champion, from whatever there is: nothing, half of it, or all.

    :param model: the model.
    :param version: the version.
    :param wanted: what is to be recorded; the previous champion is found here.
    :param metrics: metrics that the version gets with it, unless it has them.
    :return: what is recorded, and the statements: the record first, since it is what a rollback and a second
        try go by, and then what readers see.
    """
    champion = model.champion(wanted.marks.alias)
    noted = version.promotion
    if champion is None:
        previous, created_on = None, None
    elif champion.name != version.name:
        previous, created_on = champion.name, champion.created_on
    else:
        previous = noted.previous_version if noted else None
        created_on = noted.previous_created_on if noted else None
    wanted = replace(wanted, previous_version=previous, previous_created_on=created_on)
    missing = {name: value for name, value in (metrics or {}).items() if name not in version.metrics}
    steps = []
    if noted == wanted and not missing:
        wanted = noted
    else:
        steps.append(_record(model.name, version, wanted, missing))
    return wanted, steps + _cutover(model, version, previous, wanted.marks)


def rollback_target(model: CatalogModel, version: CatalogVersion) -> CatalogVersion:
    """The champion before a promoted version.

    :raises NothingToRollBackError: if there was none, none is known, or it is gone.
    """
    noted = version.promotion
    if noted is None:
        raise NothingToRollBackError(
            f"Nothing is recorded of how {version.name} became the champion of {model.name}: promote the "
            "version that is to follow it."
        )
    if noted.previous_version is None:
        raise NothingToRollBackError(f"{version.name} is the first champion of {model.name}.")
    previous = model.find(noted.previous_version)
    if previous is None or previous.created_on != noted.previous_created_on:
        change = "is gone" if previous is None else "was made anew since, and is not what was promoted then"
        raise NothingToRollBackError(
            f"{noted.previous_version}, the champion of {model.name} before {version.name}, {change}: "
            "promote another version."
        )
    return previous


def rollback_steps(
    model: CatalogModel, version: CatalogVersion, *, at: str, comment: str | None = None
) -> list[Step]:
    """What takes a promotion back, from wherever an earlier try got to.

    :param model: the model.
    :param version: the version that is no longer wanted.
    :param at: now, in ISO format.
    :param comment: the model's comment; what its promotion had said if it is left out.
    :raises NothingToRollBackError: if there is nothing to go back to.
    """
    previous = rollback_target(model, version)
    noted = version.promotion
    assert noted is not None
    steps = []
    if noted.rolled_back_at is None:
        steps.append(_record(model.name, version, replace(noted, rolled_back_at=at), {}))
    before = previous.promotion
    if comment is None and before is not None:
        comment = before.marks.comment
    return steps + _cutover(
        model,
        previous,
        before.previous_version if before is not None else None,
        replace(noted.marks, comment=comment),
    )


def _record(
    model: QualifiedName, version: CatalogVersion, promotion: Promotion, metrics: Mapping[str, Any]
) -> Step:
    all_metrics = {**metrics, **version.metrics, RECORD: promotion.to_dict()}
    return metrics_step(model, version, all_metrics, what=f"record it on {version.name}")


def metadata_with(version: CatalogVersion, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A version's metadata with other metrics, as snowflake-ml writes them."""
    return {**_METADATA_SCHEMA, **version.metadata, "metrics": dict(metrics)}


def metrics_step(
    model: QualifiedName, version: CatalogVersion, metrics: Mapping[str, Any], *, what: str
) -> Step:
    """Write all metrics of a version.

    :param model: the model.
    :param version: the version as it is now.
    :param metrics: all metrics that it is to have.
    :param what: what for, for the log.
    :raises InvalidNameError: if they hold ``$$``.
    """
    # snowflake-ml writes the metadata anew with each metric, between two $$.
    metadata = json.dumps(metadata_with(version, metrics))
    text = refuse_dollar_quotes(metadata, what=f"metadata of {version.name}")
    return Step(what, f"ALTER MODEL {model.sql} MODIFY VERSION {version.sql} SET METADATA = {literal(text)}")


def _cutover(model: CatalogModel, version: CatalogVersion, previous: str | None, marks: Marks) -> list[Step]:
    """First the default, which is what readers get, then what else says who the champion is."""
    alter = f"ALTER MODEL {model.name.sql}"
    steps = []
    if not version.is_default:
        steps.append(Step(f"make {version.name} the default", f"{alter} SET DEFAULT_VERSION = {version.sql}"))
    steps += alias_steps(model, version, model.find(previous), marks)
    if marks.tag is not None and model.tag_value != version.name:
        steps.append(Step(f"set tag {marks.tag}", f"{alter} SET TAG {marks.tag} = {literal(version.name)}"))
    if marks.comment is not None and model.comment != marks.comment:
        steps.append(Step("set the comment", f"{alter} SET COMMENT = {literal(marks.comment)}"))
    return steps


def alias_steps(
    model: CatalogModel, version: CatalogVersion, previous: CatalogVersion | None, marks: Marks
) -> list[Step]:
    """An alias is taken from one version before another can have it, and a version has one.

    Between taking the champion's and giving it there is nothing else.
    """
    wanted = {marks.alias: version, marks.previous_alias: previous}
    moved = {
        alias: to for alias, to in wanted.items() if alias and to is not None and alias not in to.aliases
    }
    receivers = {to.name for to in moved.values()}
    taken = [
        (alias, holder.name)
        for holder in model.versions
        for alias in holder.aliases
        if alias not in SYSTEM_ALIASES and (alias in moved or holder.name in receivers)
    ]
    # False sorts first: the champion's alias is taken last, and given first.
    taken.sort(key=lambda one: one[0] == marks.alias)
    given: Sequence[tuple[str, CatalogVersion]] = sorted(moved.items(), key=lambda one: one[0] != marks.alias)
    alter = f"ALTER MODEL {model.name.sql} VERSION"
    return [
        Step(f"take alias {alias} from {name}", f"{alter} {Identifier.of(alias).sql} UNSET ALIAS")
        for alias, name in taken
    ] + [
        Step(f"give alias {alias} to {to.name}", f"{alter} {to.sql} SET ALIAS = {Identifier.of(alias).sql}")
        for alias, to in given
    ]
