"""What an asset watcher has seen, from one triggerer to the next."""

from __future__ import annotations

import logging
from typing import Any

from airflow.triggers.base import BaseEventTrigger

log = logging.getLogger(__name__)


async def remembered(trigger: BaseEventTrigger, key: str) -> Any:
    """What was seen before; ``None`` if nothing is known about that.

    :param trigger: the watcher's. Airflow gives it a store unless several assets share it.
    :param key: what it watches, in the asset's store.
    """
    try:
        return await trigger.asset_state_store.aget(key) if trigger.asset_state_store else None
    except Exception as error:
        log.warning("What was seen of %s is not known: %s", key, error)
        return None


async def remember(trigger: BaseEventTrigger, key: str, seen: Any) -> None:
    """Note what was seen. That it can't be noted is logged: the next triggerer then begins anew."""
    try:
        if trigger.asset_state_store:
            await trigger.asset_state_store.aset(key, seen)
    except Exception as error:
        log.warning("What was seen of %s is not remembered: %s", key, error)
