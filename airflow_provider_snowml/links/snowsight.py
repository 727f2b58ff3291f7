"""Links from a task to Snowsight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey


class SnowsightQueryLink(BaseOperatorLink):
    """To the query that the task submitted: who ran it, with what text, how long, and its error.

    There is none where there is no Snowsight: for accounts behind a private link, and the local Snowflake.
    """

    name = "Snowflake query"

    @classmethod
    def store(cls, context: Context, url: str) -> None:
        """Show the link from now on; Airflow by itself does so when the task has ended.

        :param context: the try's context.
        :param url: the page.
        """
        context["ti"].xcom_push(key=cls().xcom_key, value=url)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The link that was stored. Airflow stores what this returns over it, also after a deferral."""
        return str(XCom.get_value(ti_key=ti_key, key=self.xcom_key) or "")
