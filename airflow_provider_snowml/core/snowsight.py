"""Addresses of Snowsight's pages.

Only a query's page is here: its address is in wide use, for instance in flytekit's Snowflake agent. Those of
models, services and jobs are documented nowhere.
"""

from __future__ import annotations

from urllib.parse import quote

_PUBLIC = (".snowflakecomputing.com", ".snowflakecomputing.cn")


def query_page(*, host: str, account: str, region: str | None, query_id: str) -> str | None:
    """The page of a query; ``None`` for a host that has no Snowsight that could be linked to.

    Accounts are known by organization and name, or by locator and region. See
    https://docs.snowflake.com/en/user-guide/admin-account-identifier.

    :param host: what the connector talks to.
    :param account: ``<organization>-<name>``, or a locator; without the region.
    :param region: the locator's region, which most connections don't say.
    :param query_id: the query.
    """
    host = host.lower()
    if not host.endswith(_PUBLIC) or ".privatelink." in host:
        return None
    organization, dash, name = account.lower().partition("-")
    place = [organization, name] if dash else [(region or "us-west-2").lower(), organization]
    domain = "snowflake.cn" if host.endswith(".cn") else "snowflake.com"
    path = "/".join(quote(part, safe="") for part in place)
    return f"https://app.{domain}/{path}/#/compute/history/queries/{quote(query_id, safe='')}/detail"
