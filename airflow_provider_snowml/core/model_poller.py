"""How a model's version, alias or default is waited for: one judgement for the worker and the triggers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_snowml.core.batch_poller import Limits
from airflow_provider_snowml.core.names import Identifier
from airflow_provider_snowml.exceptions import InvalidArgumentError

DEFAULT = "DEFAULT"


@dataclass(frozen=True)
class ListedModel:
    """A model as SHOW MODELS lists it.

    :param versions: its versions' names, oldest first.
    :param aliases: the version of each alias, Snowflake's own among them.
    """

    versions: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def aliases_of(self, version: str) -> list[str]:
        """The aliases of a version."""
        return sorted(alias for alias, name in self.aliases.items() if name == version)


@dataclass(frozen=True)
class Awaited:
    """What is to appear, by resolved names.

    :param version: a version; or, with ``alias``, the version that is to have it.
    :param alias: an alias, ``DEFAULT`` among them.
    :param other_than: a version that may have it meanwhile.
    """

    version: str | None = None
    alias: str | None = None
    other_than: str | None = None

    @classmethod
    def parse(cls, version: str | None, alias: str | None, other_than: str | None) -> Awaited:
        """Read what a user writes.

        :raises InvalidArgumentError: (or a subclass) if it is nothing, or no names.
        """
        if version is None and alias is None:
            raise InvalidArgumentError("Neither version_name nor alias says what is waited for: give one.")
        if other_than is not None and (alias is None or version is not None):
            raise InvalidArgumentError(
                f"other_than is {other_than!r}: it goes with alias and without version_name, for a change of "
                "what has the alias."
            )
        given = ((version, "version_name"), (alias, "alias"), (other_than, "other_than"))
        return cls(*(Identifier.parse(text, what=what).name if text else None for text, what in given))

    def found(self, model: ListedModel) -> str | None:
        """The version that is what was waited for."""
        if self.alias is None:
            return self.version if self.version in model.versions else None
        holder = model.aliases.get(self.alias)
        if holder is None or holder == self.other_than or self.version not in (None, holder):
            return None
        return holder

    def __str__(self) -> str:
        if self.alias is None:
            return f"version {self.version}"
        wanted = f" of {self.version}" if self.version is not None else ""
        change = f" of another version than {self.other_than}" if self.other_than is not None else ""
        return f"alias {self.alias}{wanted}{change}"


class ModelOutcome(StrEnum):
    """What an observation means."""

    WAIT = "wait"
    FOUND = "found"
    TIMEOUT = "timeout"
    POLL_ERRORS = "poll_errors"


@dataclass(frozen=True)
class ModelVerdict:
    """What to do now.

    :param outcome: what the observation means.
    :param detail: one clause for the log or the error.
    :param version: the version that was found.
    :param aliases: its aliases.
    """

    outcome: ModelOutcome
    detail: str
    version: str | None = None
    aliases: tuple[str, ...] = ()


class ModelPoller:
    """Judges one observation after another. It reads no clock and sends nothing.

    :param awaited: what is to appear.
    :param limits: how long to wait.
    """

    def __init__(self, awaited: Awaited, limits: Limits) -> None:
        self.awaited = awaited
        self.limits = limits
        self._errors = 0
        self._failing_since: float | None = None

    def failed(self, error: str, now: float) -> ModelVerdict:
        """Judge a look that failed."""
        self._errors += 1
        self._failing_since = self._failing_since if self._failing_since is not None else now
        has_lasted = now - self._failing_since >= self.limits.error_grace
        if self._errors >= self.limits.max_errors and has_lasted:
            return ModelVerdict(ModelOutcome.POLL_ERRORS, f"{self._errors} polls in a row failed: {error}")
        return self._unless_late(f"poll failed ({error})", now)

    def observed(self, model: ListedModel | None, now: float) -> ModelVerdict:
        """Judge a look that succeeded; ``None`` if there is no such model."""
        self._errors, self._failing_since = 0, None
        if model is None:
            return self._unless_late("there is no such model yet", now)
        version = self.awaited.found(model)
        if version is None:
            return self._unless_late(f"no {self.awaited} yet", now)
        aliases = tuple(model.aliases_of(version))
        return ModelVerdict(ModelOutcome.FOUND, f"{self.awaited} is there", version, aliases)

    def _unless_late(self, detail: str, now: float) -> ModelVerdict:
        if self.limits.deadline is not None and now >= self.limits.deadline:
            return ModelVerdict(ModelOutcome.TIMEOUT, f"timeout; {detail}")
        return ModelVerdict(ModelOutcome.WAIT, detail)
