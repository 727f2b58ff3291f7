"""Who sent which statements, as the local Snowflake saw it: each is counted under a user of its own.

The local Snowflake takes any user with its password.
"""

from __future__ import annotations

from typing import Any

import snowflake.connector

from airflow_provider_snowml.local import LocalSnowflake

_NEVER = 10**9


def connection_of(local: LocalSnowflake, user: str, schema: str) -> str:
    """An Airflow connection's URI, as another user."""
    _, separator, rest = local.airflow_connection_into(schema).partition("://")
    return f"snowflake{separator}{user}:{rest.partition(':')[2]}"


def query(local: LocalSnowflake, sql: str) -> list[tuple[Any, ...]]:
    """Run a statement as nobody who is counted."""
    with snowflake.connector.connect(**local.connection_parameters) as connection:
        return list(connection.cursor().execute(sql).fetchall())


def statements_of(local: LocalSnowflake, user: str) -> list[tuple[str, int]]:
    """A user's statements with the sessions that they were sent in, oldest first."""
    rows = query(
        local,
        "SELECT QUERY_TEXT, SESSION_ID FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY(RESULT_LIMIT => 10000)) "
        f"WHERE USER_NAME = '{user.upper()}' ORDER BY START_TIME",
    )
    return [(text, session) for text, session in rows]


class Counter:
    """Counts a user's statements, and everybody's logins, however many.

    A fault that spares all that it meets counts them: the server must have been started with faults.

    :param local: the local Snowflake.
    :param user: whose statements.
    :param patterns: regular expressions of the statements to be counted, by name.
    """

    def __init__(self, local: LocalSnowflake, user: str, **patterns: str) -> None:
        self._local = local
        self._faults = {
            local.fault("delay", statement=pattern, user=user, skip=_NEVER): name
            for name, pattern in patterns.items()
        }
        self._first = self._session()

    def read(self) -> dict[str, int]:
        """What was sent since the start, and ``logins``. Once only: reading logs in, too."""
        # The server numbers its sessions; this one is the reader's.
        logins = self._session() - self._first - 1
        seen = {fault["id"]: fault["seen"] for fault in self._local.faults()}
        return {**{name: seen[id_] for id_, name in self._faults.items()}, "logins": logins}

    def _session(self) -> int:
        return int(query(self._local, "SELECT CURRENT_SESSION()")[0][0])
