"""Addresses of a query's page."""

from __future__ import annotations

import pytest

from airflow_provider_snowml.core.snowsight import query_page

PAGE = "#/compute/history/queries/01b2-3/detail"


@pytest.mark.parametrize(
    ("host", "account", "region", "page"),
    [
        ("acme-prod.snowflakecomputing.com", "acme-prod", None, f"https://app.snowflake.com/acme/prod/{PAGE}"),
        ("ACME-Prod_EU.snowflakecomputing.com", "ACME-Prod_EU", None, f"https://app.snowflake.com/acme/prod_eu/{PAGE}"),
        ("xy12345.snowflakecomputing.com", "xy12345", None, f"https://app.snowflake.com/us-west-2/xy12345/{PAGE}"),
        (
            "xy12345.east-us-2.azure.snowflakecomputing.com",
            "xy12345",
            "east-us-2.azure",
            f"https://app.snowflake.com/east-us-2.azure/xy12345/{PAGE}",
        ),
        ("acme-prod.snowflakecomputing.cn", "acme-prod", None, f"https://app.snowflake.cn/acme/prod/{PAGE}"),
        ("acme-prod.privatelink.snowflakecomputing.com", "acme-prod", None, None),
        ("localhost", "acme-prod", None, None),
        ("snowflakecomputing.com.evil.example", "acme-prod", None, None),
    ],
)  # fmt: skip
def test_an_account_is_linked_to_where_it_has_a_snowsight(host, account, region, page) -> None:
    assert query_page(host=host, account=account, region=region, query_id="01b2-3") == page


def test_an_account_cannot_lead_the_link_elsewhere() -> None:
    page = query_page(host="x.snowflakecomputing.com", account="a/../b?c-d#e", region=None, query_id="1/2")
    assert page == "https://app.snowflake.com/a%2F..%2Fb%3Fc/d%23e/#/compute/history/queries/1%2F2/detail"
