"""What a job's containers print, in the task's log."""

from __future__ import annotations

import logging

from airflow_provider_snowml.core.log_lines import new_lines
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import SnowMLError
from airflow_provider_snowml.hooks.snowml import SnowMLHook

log = logging.getLogger(__name__)

# Snowflake gives 100 KB of a log at most.
LINES = 1000


class JobLogs:
    """Follows the logs of a job, and logs each line once.

    :param job: the job.
    """

    def __init__(self, job: QualifiedName) -> None:
        self.job = job
        self._seen: dict[tuple[str, str], list[str]] = {}
        self._can_be_read = True

    def print_new(self, hook: SnowMLHook) -> None:
        """Log the lines that have come. Logs that cannot be read are no reason for anything to fail.

        :param hook: the hook; its open connection is used.
        """
        if not self._can_be_read:
            return
        try:
            logs = hook.container_logs(self.job, LINES)
        except SnowMLError as error:
            # Containers that are about to start or have just gone have none to read. A missing privilege
            # stays, and is said once.
            if "privilege" in str(error).lower():
                self._can_be_read = False
                log.warning("The logs of %s cannot be read: %s", self.job, error)
            return
        for (instance, container), text in logs.items():
            tail = text.splitlines()
            for line in new_lines(self._seen.get((instance, container), []), tail):
                log.info("[%s %s] %s", container, instance, line)
            self._seen[instance, container] = tail
