"""Waiting for a model's version, alias or default."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_snowml.assets.models import ModelRef
from airflow_provider_snowml.core.batch_poller import ERROR_GRACE, Limits
from airflow_provider_snowml.core.model_poller import Awaited, ModelOutcome, ModelPoller, ModelVerdict
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import ModelPollingError
from airflow_provider_snowml.hooks.model_versions import ModelsWatch, is_over, judge
from airflow_provider_snowml.operators.base import as_text
from airflow_provider_snowml.sensors.base import SnowMLSensor
from airflow_provider_snowml.triggers.models import SnowMLModelVersionTrigger


class SnowMLModelVersionSensor(SnowMLSensor):
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
    :raises InvalidArgumentError: (or a subclass) if it is not said what is waited for.
    :raises ModelPollingError: if Snowflake could not be asked for long.
    """

    template_fields: Sequence[str] = (
        *SnowMLSensor.template_fields,
        "model_name",
        "version_name",
        "alias",
        "other_than",
    )

    def __init__(
        self,
        *,
        model_name: str | ModelRef,
        version_name: str | None = None,
        alias: str | None = None,
        other_than: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.alias = alias
        self.other_than = other_than
        self._watch: ModelsWatch | None = None
        self._poller: ModelPoller | None = None
        self._verdict: ModelVerdict | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait here, or in the triggerer."""
        awaited = self._awaited()
        hook = self.get_hook()
        self.model_name = QualifiedName.parse(
            str(self.model_name), hook.default_schema(), what="model name"
        ).sql
        try:
            if self.deferrable and not is_over(self._look()):
                self._defer(awaited)
            self.wait_here(context)
        finally:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        return self._result()

    def _defer(self, awaited: Awaited) -> NoReturn:
        deadline = time.time() + float(self.timeout)
        self.wait_there(
            SnowMLModelVersionTrigger(
                model_name=str(self.model_name),
                awaited=asdict(awaited),
                hook_arguments=self.hook_arguments(),
                poll_interval=float(self.poke_interval),
                limits=asdict(Limits(deadline=deadline, error_grace=ERROR_GRACE)),
            )
        )

    def poke(self, context: Context) -> bool:
        """Look once."""
        return self._judge(self._look())

    def _look(self) -> ModelVerdict:
        if self._poller is None:
            self._poller = ModelPoller(self._awaited(), Limits(error_grace=ERROR_GRACE))
        if self._watch is None:
            self._watch = ModelsWatch(self.get_hook())
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

    def _result(self) -> dict[str, Any]:
        verdict = self._verdict
        return {
            "model": str(self.model_name),
            "version": verdict.version if verdict is not None else None,
            "aliases": list(verdict.aliases) if verdict is not None else [],
        }
