"""Waiting for a model's version, alias or default."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseSensorOperator, Context, conf
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from airflow_provider_snowml.assets.models import ModelRef
from airflow_provider_snowml.core.batch_poller import ERROR_GRACE, Limits
from airflow_provider_snowml.core.model_poller import Awaited, ModelOutcome, ModelPoller, ModelVerdict
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import ModelPollingError, SnowMLError
from airflow_provider_snowml.hooks.model_versions import ModelsWatch, is_over, judge
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.operators.base import as_text
from airflow_provider_snowml.triggers.models import SnowMLModelVersionTrigger


class SnowMLModelVersionSensor(BaseSensorOperator):
    """Wait until a model has a version, an alias, or another default.

    A version: ``version_name="V3"``. An alias: ``alias="CHAMPION"``, of any version, or of ``version_name``.
    A change: ``alias="default", other_than="V3"``; say which version it is now, since what changes before the
    sensor starts would else be missed. The model need not be there yet.

    Deferred sensors of the same connection and ``poke_interval`` share one poll, of one statement for each
    schema. With ``mode="reschedule"`` each look is by a new process, so that passing errors are not counted
    from one to the next: only ``timeout`` ends such a wait.

    XCom: ``{"model", "version", "aliases"}``, the aliases of that version, Snowflake's own among them.

    Privileges: USAGE on the model, its database and schema. See
    https://docs.snowflake.com/en/sql-reference/sql/show-models.

    :param model_name: the model, ``[[database.]schema.]name`` or a ``ModelRef``.
    :param version_name: the version.
    :param alias: the alias; ``default``, ``first`` and ``last`` are some too.
    :param other_than: the version that may have the alias meanwhile.
    :param deferrable: whether the wait is the triggerer's; Airflow's ``default_deferrable`` says so if it is
        left out.
    :param snowflake_conn_id: the Airflow connection; ``warehouse``, ``database``, ``schema`` and ``role``
        override what it says.
    :raises InvalidArgumentError: (or a subclass) if it is not said what is waited for.
    :raises ModelPollingError: if Snowflake could not be asked for long.
    """

    template_fields: Sequence[str] = (
        "model_name",
        "version_name",
        "alias",
        "other_than",
        "snowflake_conn_id",
        "warehouse",
        "database",
        "schema",
        "role",
    )

    def __init__(
        self,
        *,
        model_name: str | ModelRef,
        version_name: str | None = None,
        alias: str | None = None,
        other_than: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        snowflake_conn_id: str = "snowflake_default",
        warehouse: str | None = None,
        database: str | None = None,
        schema: str | None = None,
        role: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.alias = alias
        self.other_than = other_than
        self.deferrable = deferrable
        self.snowflake_conn_id = snowflake_conn_id
        self.warehouse = warehouse
        self.database = database
        self.schema = schema
        self.role = role
        self._watch: ModelsWatch | None = None
        self._poller: ModelPoller | None = None
        self._verdict: ModelVerdict | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait here, or in the triggerer."""
        awaited = self._awaited()
        hook = SnowMLHook(**self._hook_arguments())
        self.model_name = QualifiedName.parse(
            str(self.model_name), hook.default_schema(), what="model name"
        ).sql
        try:
            # What is there already needs no trigger. One that fires at once is also a risk: Airflow 3.3 can
            # take the task for crashed when it runs again before its first process is seen to have ended.
            if self.deferrable and not is_over(self._look()):
                self._defer(awaited)
            super().execute(context)
        except SnowMLError as error:
            # Airflow skips for any AirflowException after a deferral, but not here.
            if self.soft_fail:
                raise AirflowSkipException(f"Skipping, since soft_fail is set: {error}") from error
            raise
        finally:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        return self._result()

    def _defer(self, awaited: Awaited) -> NoReturn:
        deadline = time.time() + float(self.timeout)
        self.defer(
            trigger=SnowMLModelVersionTrigger(
                model_name=str(self.model_name),
                awaited=asdict(awaited),
                hook_arguments=self._hook_arguments(),
                poll_interval=float(self.poke_interval),
                limits=asdict(Limits(deadline=deadline, error_grace=ERROR_GRACE)),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=float(self.timeout) + 600),
        )

    def poke(self, context: Context) -> bool:
        """Look once."""
        return self._judge(self._look())

    def _look(self) -> ModelVerdict:
        if self._poller is None:
            self._poller = ModelPoller(self._awaited(), Limits(error_grace=ERROR_GRACE))
        if self._watch is None:
            self._watch = ModelsWatch(SnowMLHook(**self._hook_arguments()))
        name = str(self.model_name)
        verdict = judge(self._poller, self._watch.look([name])[name])
        self.log.info("%s: %s", name, verdict.detail)
        return verdict

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Resume after the trigger's event."""
        self.model_name = event["model"]
        self._judge(
            ModelVerdict(
                ModelOutcome(event["outcome"]), event["detail"], event["version"], tuple(event["aliases"])
            )
        )
        return self._result()

    def _judge(self, verdict: ModelVerdict) -> bool:
        self._verdict = verdict
        if verdict.outcome is ModelOutcome.TIMEOUT:
            raise AirflowSensorTimeout(f"{self.model_name}: {verdict.detail}.")
        if verdict.outcome is ModelOutcome.POLL_ERRORS:
            raise ModelPollingError(f"{self.model_name}: {verdict.detail}.")
        return verdict.outcome is ModelOutcome.FOUND

    def _awaited(self) -> Awaited:
        return Awaited.parse(as_text(self.version_name), as_text(self.alias), as_text(self.other_than))

    def _hook_arguments(self) -> dict[str, Any]:
        names = ("snowflake_conn_id", "warehouse", "database", "schema", "role")
        return {name: getattr(self, name) for name in names}

    def _result(self) -> dict[str, Any]:
        verdict = self._verdict
        return {
            "model": str(self.model_name),
            "version": verdict.version if verdict is not None else None,
            "aliases": list(verdict.aliases) if verdict is not None else [],
        }
