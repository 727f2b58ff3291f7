"""Which failures are worth another try."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from airflow_provider_snowml.exceptions import (
    BatchJobOwnershipError,
    InsufficientPrivilegesError,
    InvalidArgumentError,
    LockWaitersError,
    ModelVersionExistsError,
    NotFoundError,
    PollingError,
    PreflightError,
    ServicePollingError,
    UnavailableError,
)

#: By type: what only a person can mend fails at once; a busy table and a Snowflake that is away are left in
#: peace for a minute. Anything else, a worker that died for one, has the task's own ``retries`` and
#: ``retry_delay``, and no policy gives a task more tries than its ``retries``::
#:
#:     default_args={"retries": 3, "retry_policy": SNOWML_RETRY_POLICY}
SNOWML_RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            [
                InvalidArgumentError,
                NotFoundError,
                InsufficientPrivilegesError,
                PreflightError,
                ModelVersionExistsError,
                BatchJobOwnershipError,
            ],
            RetryAction.FAIL,
            reason="A person has to mend this",
        ),
        RetryRule(
            [LockWaitersError, UnavailableError, PollingError, ServicePollingError],
            RetryAction.RETRY,
            retry_delay=timedelta(minutes=1),
            reason="It may pass by itself",
        ),
    ]
)
