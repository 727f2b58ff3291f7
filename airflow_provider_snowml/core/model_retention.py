"""Which versions of a model may go, and why the others may not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

CORTEX_FINETUNED = "CORTEX_FINETUNED"  # the model_type of SHOW MODELS
_OWN_ALIASES = frozenset(("DEFAULT", "FIRST", "LAST"))


@dataclass(frozen=True)
class VersionInUse:
    """A version, and who uses it.

    :param name: its name.
    :param created_at: when it was made, an epoch.
    :param aliases: its aliases, Snowflake's own among them.
    :param services: the services that serve it.
    :param monitors: the monitors that watch it.
    :param previous_champion: the version that a rollback of this one goes back to.
    """

    name: str
    created_at: float
    aliases: Collection[str] = ()
    services: Collection[str] = ()
    monitors: Collection[str] = ()
    previous_champion: str | None = None


@dataclass(frozen=True)
class PrunePlan:
    """What goes, oldest first, and the others with the reason why they stay."""

    dropped: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)


def plan_pruning(
    versions: Sequence[VersionInUse], *, keep_last: int | None, older_than: float | None, now: float
) -> PrunePlan:
    """Choose. A version goes if nobody uses it, it is none of the newest, and it is old enough.

    :param versions: all of a model's.
    :param keep_last: how many of the newest stay in any case.
    :param older_than: how old a version has to be, in seconds.
    :param now: the time, an epoch.
    """
    oldest_first = sorted(versions, key=lambda version: (version.created_at, version.name))
    newest = {version.name for version in oldest_first[-keep_last:]} if keep_last else set()
    # What a rollback of the default goes back to is as good as in use.
    former = next((v.previous_champion for v in versions if "DEFAULT" in v.aliases), None)
    dropped, kept = [], {}
    for version in oldest_first:
        reason = used_by(version)
        if reason is None and version.name == former:
            reason = "the champion before the default"
        if reason is None and version.name in newest:
            reason = f"one of the {keep_last} newest"
        if reason is None and older_than is not None and now - version.created_at < older_than:
            reason = "not old enough"
        if reason is None:
            dropped.append(version.name)
        else:
            kept[version.name] = reason
    return PrunePlan(tuple(dropped), kept)


def used_by(version: VersionInUse) -> str | None:
    """Who uses a version, for people; ``None`` if nobody does."""
    if "DEFAULT" in version.aliases:
        return "the default"
    if own := sorted(set(version.aliases) - _OWN_ALIASES):
        return f"has the alias {', '.join(own)}"
    if version.services:
        return f"served by {', '.join(version.services)}"
    if version.monitors:
        return f"watched by {', '.join(version.monitors)}"
    return None
