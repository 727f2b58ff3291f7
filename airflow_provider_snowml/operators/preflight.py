"""Looking before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from airflow.sdk import Context

from airflow_provider_snowml.core.preflight_steps import Step
from airflow_provider_snowml.exceptions import InvalidArgumentError, PreflightError
from airflow_provider_snowml.operators.base import SnowMLOperator


class SnowMLPreflightOperator(SnowMLOperator):
    """Look whether a DAG can do what it will do, and say what that may cost, before anything runs.

    Each of the :mod:`steps <airflow_provider_snowml.core.preflight_steps>` says what one of the DAG's tasks
    will do. Which privileges that needs is compared with those of the operator's role, which include those of
    roles that were granted to it, of PUBLIC and, except to create something, of the session's secondary
    roles. The log has everything at once: a GRANT for each privilege that is missing, each object that is
    missing, what could not be found out, and what each step may cost at most. Nothing is changed.

    What it can't know, it says and lets pass: what a role may do whose grants may not be read, for one. It
    looks for one role: tasks that have another one need a preflight with that.

    XCom: ``{"role", "grants": [statement, ...], "missing": [text, ...], "unknown": [text, ...], "costs":
    [text, ...], "report"}``; the first two lists are empty unless ``fail`` is off.

    Privileges: none; without any on an object it cannot tell whether that is there. See
    https://docs.snowflake.com/en/sql-reference/sql/show-grants.

    :param steps: what the DAG will do, in its order. Their arguments may be templated.
    :param fail: whether it is an error that something is missing.
    :raises InvalidArgumentError: (or a subclass) for a step or a name that is none.
    :raises PreflightError: if something is missing; the message has all of it.
    """

    template_fields: Sequence[str] = (*SnowMLOperator.template_fields, "steps")

    def __init__(self, *, steps: Sequence[Step], fail: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = steps
        self.fail = fail

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        """Render a step's arguments as well."""
        if isinstance(content, Step):
            values = {field.name: getattr(content, field.name) for field in fields(content)}
            rendered = super().render_template(values, context, *args, **kwargs)
            return replace(content, **rendered)
        return super().render_template(content, context, *args, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Look."""
        steps = list(self.steps)
        for step in steps:
            if not isinstance(step, Step):
                raise InvalidArgumentError(
                    f"steps has {step!r}, which is none of those of "
                    "airflow_provider_snowml.core.preflight_steps, such as Register(model_name=...)."
                )
        report = self.get_hook().preflight(steps)
        self.log.info("%s", report)
        if self.fail and (missing := report.missing()):
            raise PreflightError(f"As role {report.role}:\n{missing}\n")
        return {
            "role": report.role,
            "grants": report.grants,
            "missing": [finding.text for finding in report.of("object")],
            "unknown": [finding.text for finding in report.of("unknown")],
            "costs": list(report.costs),
            "report": str(report),
        }
