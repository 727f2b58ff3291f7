"""What the sensors share: the connection, and how a wait begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseSensorOperator, Context, conf
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger

from airflow_provider_snowml.exceptions import SnowMLError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import CONNECTION_FIELDS


class SnowMLSensor(BaseSensorOperator):
    """The arguments that every sensor has; see :class:`.SnowMLHook` for what those of the connection mean.

    :param deferrable: whether the wait is the triggerer's; Airflow's ``default_deferrable`` says so if it is
        left out.
    :param snowflake_conn_id: the Airflow connection.
    :param warehouse: overrides the connection's warehouse.
    :param database: overrides its database; with ``schema``, where unqualified names are.
    :param schema: overrides its schema.
    :param role: overrides its role.
    """

    template_fields: Sequence[str] = CONNECTION_FIELDS

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        snowflake_conn_id: str = "snowflake_default",
        warehouse: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        role: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.snowflake_conn_id = snowflake_conn_id
        self.warehouse = warehouse
        self.database = database
        self.schema = schema
        self.role = role

    def hook_arguments(self) -> dict[str, Any]:
        """All that a hook in another process needs to be the same."""
        return {name: getattr(self, name) for name in CONNECTION_FIELDS}

    def get_hook(self) -> SnowMLHook:
        """A new hook."""
        return SnowMLHook(**self.hook_arguments())

    def wait_here(self, context: Context) -> None:
        """Look until it is over, in this process."""
        try:
            super().execute(context)
        except SnowMLError as error:
            # Airflow skips for any AirflowException after a deferral, but not here.
            if self.soft_fail:
                raise AirflowSkipException(f"Skipping, since soft_fail is set: {error}") from error
            raise

    def wait_there(self, trigger: BaseTrigger) -> NoReturn:
        """Defer. What is over already needs no trigger, so look once before.

        One that fires at once is a risk as well: Airflow 3.3 can take the task for crashed when it runs again
        before its first process is seen to have ended.

        :param trigger: what waits; it has a deadline of its own, which says more than Airflow's.
        """
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            timeout=timedelta(seconds=float(self.timeout) + 600),
        )
