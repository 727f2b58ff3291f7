"""The checks are run: the lanes at the same time, and in each one check after another."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from itertools import groupby

from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_snowml.exceptions import InsufficientPrivilegesError
from verify.checks import FIRST, Check, Differs, NotTried, Stopped
from verify.place import Place

HOLDS, DIFFERS, NOT_TRIED = "holds", "differs", "not tried"
_STOP_SECONDS = 60.0  # for what is under way to end

Report = Callable[[str, str, str], None]


def run(place: Place, checks: Sequence[Check], report: Report) -> None:
    """Run the checks; Ctrl-C ends what is under way and is raised again.

    :param place: where.
    :param checks: which.
    :param report: told the name, how it went and what was seen, as soon as that is known.
    """
    lanes = {name: list(group) for name, group in groupby(sorted(checks, key=_lane), key=_lane)}
    has_image = threading.Event()
    telling = threading.Lock()

    def go(name: str) -> None:
        try:
            for check in lanes[name]:
                if check.wants_pool and name != FIRST:
                    has_image.wait()
                found = attempt(place, check)
                with telling:
                    report(check.name, *found)
        except Stopped:
            pass
        finally:
            if name == FIRST:
                has_image.set()

    if FIRST not in lanes:
        has_image.set()
    threads = [threading.Thread(target=go, args=(name,), daemon=True) for name in lanes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        place.stop()
        for thread in threads:
            thread.join(_STOP_SECONDS)
        raise


def attempt(place: Place, check: Check) -> tuple[str, str]:
    """How a check went, and what was seen."""
    if check.wants_pool and place.pool is None:
        return NOT_TRIED, "no compute pool was named (POOL=...)"
    try:
        place.go_on()
        with place.hook.open_connection():
            return HOLDS, check.run(place) or ""
    except (Exception, TaskDeferred) as error:  # that is no Exception
        if place.is_stopped:
            raise Stopped from error
        if isinstance(error, NotTried | InsufficientPrivilegesError):
            return NOT_TRIED, str(error)
        if isinstance(error, Differs):
            return DIFFERS, f"{check.belief}? {error}"
        if os.environ.get("VERIFY_DEBUG"):
            traceback.print_exc()
        return DIFFERS, f"{check.belief}? {type(error).__name__}: {error}"


def _lane(check: Check) -> str:
    return check.lane
