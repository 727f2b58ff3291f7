"""Which services and compute pools nobody needs right now, and why the others are left alone.

Snowflake does not say when a service was called last, nor since when a pool has been without work. So what
is judged is what it does say, and only what comes back by itself when it is needed is ever called idle.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

RUNNING = "RUNNING"
IDLE = "IDLE"


@dataclass(frozen=True)
class ServiceInUse:
    """A service, and what speaks for its being used.

    :param status: its status.
    :param auto_resume: whether a call resumes it once it is suspended.
    :param auto_suspend_secs: after how long without a call Snowflake suspends it; 0 for never.
    :param running_since: when it was made or resumed last, an epoch.
    :param is_of_a_model: whether it is a model's.
    :param version: the version that it serves; ``None`` if that is not known.
    :param aliases: the aliases of that version, Snowflake's own among them.
    """

    status: str
    auto_resume: bool
    auto_suspend_secs: int
    running_since: float
    is_of_a_model: bool
    version: str | None = None
    aliases: Collection[str] = ()

    def kept_because(self, *, idle_for: float, now: float) -> str | None:
        """Why it is left alone; ``None`` if it is idle.

        :param idle_for: for how long it must have run, in seconds.
        :param now: the time, an epoch.
        """
        if self.status != RUNNING:
            return f"is {self.status}"
        if not self.is_of_a_model:
            return "is no model's service"
        if not self.auto_resume:
            return "would not resume when it is called (AUTO_RESUME is off)"
        if self.auto_suspend_secs:
            return f"is suspended by Snowflake after {self.auto_suspend_secs} s without a call"
        if self.version is None:
            return "serves a version that is gone, or may not be seen"
        named = sorted(set(self.aliases) - {"FIRST", "LAST"})
        if named:
            return f"serves {self.version}, which has the alias {', '.join(named)}"
        return _is_young(self.running_since, idle_for=idle_for, now=now)


@dataclass(frozen=True)
class PoolInUse:
    """A compute pool, as SHOW COMPUTE POOLS has it: counted over the whole account, whoever may see what.

    :param state: its state.
    :param jobs: how many jobs it has.
    :param active_nodes: on how many nodes a service or a job runs.
    :param auto_resume: whether a job or a service resumes it once it is suspended.
    :param running_since: when it was made or resumed last, an epoch.
    :param live: the services and jobs in it that have not ended, as far as the role may see them.
    """

    state: str
    jobs: int
    active_nodes: int
    auto_resume: bool
    running_since: float
    live: Collection[str] = ()

    def kept_because(self, *, idle_for: float, now: float) -> str | None:
        """Why it is left alone; ``None`` if it is idle.

        :param idle_for: for how long it must have run, in seconds.
        :param now: the time, an epoch.
        """
        if self.state != IDLE:
            return f"is {self.state}"
        if self.jobs or self.active_nodes:
            return f"has {self.jobs} jobs and {self.active_nodes} active nodes"
        if self.live:
            return f"has {', '.join(sorted(self.live)[:3])}"
        if not self.auto_resume:
            return "would not resume for the next job (AUTO_RESUME is off)"
        return _is_young(self.running_since, idle_for=idle_for, now=now)


def _is_young(since: float, *, idle_for: float, now: float) -> str | None:
    return f"has run for {now - since:.0f} s only" if now - since < idle_for else None
