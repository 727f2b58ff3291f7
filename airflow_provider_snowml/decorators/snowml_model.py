"""``@task.snowml_model``: a training callable as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_provider_snowml.operators.registry import SnowMLRegisterModelOperator

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator


class _SnowMLModelDecoratedOperator(DecoratedOperator, SnowMLRegisterModelOperator):  # type: ignore[misc]
    """The operator that a decorated callable becomes."""

    custom_operator_name = "@task.snowml_model"
    template_fields: Sequence[str] = SnowMLRegisterModelOperator.template_fields

    def __init__(
        self, *, python_callable: Callable[..., Any], op_args: Any, op_kwargs: Any, **kwargs: Any
    ) -> None:
        # The session comes when the task runs; Airflow wants every argument when the DAG is parsed.
        waits = "session" in inspect.signature(python_callable).parameters and "session" not in op_kwargs
        if waits:
            op_kwargs = {**op_kwargs, "session": None}
        super().__init__(
            kwargs_to_upstream={
                "python_callable": python_callable,
                "op_args": op_args,
                "op_kwargs": op_kwargs,
            },
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )
        if waits:
            self.op_kwargs = {name: value for name, value in self.op_kwargs.items() if name != "session"}


def snowml_model_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a task of a callable that trains a model and returns a :class:`.ModelArtifact`.

    ``@task.snowml_model(model_name="CHURN", version_name="V{{ ds_nodash }}")``; the arguments are those of
    :class:`.SnowMLRegisterModelOperator`, and the XCom is its.

    :param python_callable: the callable; ``session`` gets it an open Snowpark session.
    :param kwargs: the operator's arguments.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=kwargs.pop("multiple_outputs", True),
        decorated_operator_class=_SnowMLModelDecoratedOperator,
        **kwargs,
    )
