"""What can go wrong, by type.

Every error derives from :class:`SnowMLError`, hence from ``AirflowException``, so that ``soft_fail`` works
after a deferral and a retry policy can name it::

    ExceptionRetryPolicy(rules=[RetryRule(exception=InvalidNameError, action=RetryAction.FAIL)])

Each type says, at the end of its message, what a retry will do.
"""

from __future__ import annotations

from typing import ClassVar

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # where a model is trained in an interpreter without Airflow
    AirflowException = RuntimeError  # type: ignore[assignment,misc]
    AirflowFailException = Exception  # type: ignore[assignment,misc]

_FIX_FIRST = "A retry fails the same way until this is corrected; nothing was created in Snowflake."


class SnowMLError(AirflowException):
    """Base of every error that this provider raises.

    :param message: what was wrong, with the value, and what to do about it.
    """

    on_retry: ClassVar[str] = ""

    def __init__(self, message: str) -> None:
        # A copy or an unpickled one is made from the whole text.
        super().__init__(message if message.endswith(self.on_retry) else f"{message} {self.on_retry}")


# -- arguments ------------------------------------------------------------------------------------------


class InvalidArgumentError(SnowMLError):
    """An argument, or a combination of arguments, makes no sense."""

    on_retry = _FIX_FIRST


class InvalidNameError(InvalidArgumentError):
    """A name is no Snowflake identifier, or a stage location is none that can be written safely."""


class ModelNotServableError(InvalidArgumentError):
    """The model version has table functions only, or its target platforms have no containers."""


class PersonalDatabaseError(InvalidArgumentError):
    """The database is a personal one (``USER$...``), in which model objects cannot be made."""


class InputColumnsError(InvalidArgumentError):
    """The input lacks a column that the model's signature wants."""


class ModelTaskError(InvalidArgumentError):
    """The model version was registered with a task that does not go with what is asked."""


class MonitorColumnsError(InvalidArgumentError):
    """A monitor's source or baseline lacks a column, or has it with another type."""


# -- what is not there, or must not be ------------------------------------------------------------------


class NotFoundError(SnowMLError):
    """A Snowflake object does not exist, or the role may not see it."""

    on_retry = "A retry fails the same way until the object exists and the role may use it."


class ModelNotFoundError(NotFoundError):
    """There is no such model in the schema."""


class ModelVersionNotFoundError(NotFoundError):
    """The model has no such version or alias."""


class ModelFunctionNotFoundError(NotFoundError):
    """The model version has no such function, or several and none was named."""


class StageNotFoundError(NotFoundError):
    """There is no such stage."""


class StageNotInternalError(InvalidArgumentError):
    """The stage is an external one; batch jobs and PUT take internal ones only."""


class ComputePoolNotFoundError(NotFoundError):
    """There is no such compute pool."""


class TableNotFoundError(NotFoundError):
    """There is no such table or view."""


class WarehouseNotFoundError(NotFoundError):
    """There is no such warehouse, or none is in use."""


class JobNotFoundError(NotFoundError):
    """There is no such job service."""


class ImageRepositoryNotFoundError(NotFoundError):
    """There is no such image repository."""


class ServiceNotFoundError(NotFoundError):
    """There is no such service."""


class ModelVersionExistsError(SnowMLError):
    """The model version exists already, and ``if_exists`` does not allow what would be needed."""

    on_retry = "A retry fails the same way until the version is gone or if_exists is changed."


class ModelExistsError(SnowMLError):
    """There is a model of the name that a model should get."""

    on_retry = "A retry fails the same way until that model is gone or another name is chosen."


class ExportExistsError(SnowMLError):
    """There is something else where a model should be exported to."""

    on_retry = "A retry fails the same way until that is gone, or path or if_exists is changed."


class ModelNotExportableError(InvalidArgumentError):
    """The model has no files of a user's: Cortex fine-tuning made it."""


class ModelLimitError(InvalidArgumentError):
    """A model is larger, or has more of something, than Snowflake takes. The message has limit and value."""


class ModelPackageNotFoundError(NotFoundError):
    """A warehouse has no such package, and the model should run in one."""

    on_retry = "A retry fails the same way until the model can do without; nothing was created in Snowflake."


class ModelVerificationError(SnowMLError):
    """The version that was registered is not what was uploaded: a function lacks, or predicts otherwise."""

    on_retry = (
        "The version is kept for inspection. A retry compares again and does not train: drop the version, "
        "then clear the task."
    )


class ModelMonitorExistsError(SnowMLError):
    """A monitor of that name, or of that model version, exists, and ``if_exists`` does not allow it."""

    on_retry = "A retry fails the same way until the monitor is gone or if_exists is changed."


class PreflightError(SnowMLError):
    """Something that a DAG needs is missing. The message has all of it, with a GRANT for each privilege."""

    on_retry = "A retry fails the same way until it is there; nothing was started."


# -- Snowflake's answers --------------------------------------------------------------------------------


class StatementError(SnowMLError):
    """Snowflake refused or failed a statement.

    :param message: Snowflake's message.
    :param errno: Snowflake's error number.
    :param sqlstate: its SQL state.
    :param query_id: the statement's query id.
    """

    on_retry = "A retry sends the statement again."

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        sqlstate: str | None = None,
        query_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.sqlstate = sqlstate
        self.query_id = query_id


class ObjectNotFoundError(StatementError, NotFoundError):
    """Error 2003 or 2043: the object does not exist, or the role may not see it."""

    on_retry = NotFoundError.on_retry


class ObjectExistsError(StatementError):
    """Error 2002: an object of that name exists already."""

    on_retry = "A retry fails the same way while the object exists."


class InsufficientPrivilegesError(StatementError):
    """Error 3001: the role lacks a privilege; or it was looked for before, and is missing."""

    on_retry = "A retry fails the same way until the privilege is granted to the role."


class LockWaitersError(StatementError):
    """Error 625: too many statements wait for the table's lock."""

    on_retry = "The transaction was rolled back; a retry runs it again."


class UnavailableError(StatementError):
    """Snowflake was not reached, did not answer, or asked to come later.

    Whether it carried the statement out is not known.
    """

    on_retry = "A retry looks what is there, and goes on."


class TransactionLostError(SnowMLError):
    """Snowflake has ended a transaction, since others waited for it and nothing came."""

    on_retry = "Nothing was written; a retry runs the transaction again."


# -- batch jobs -----------------------------------------------------------------------------------------


class BatchJobError(SnowMLError):
    """A batch inference job did not end as it should."""


class BatchJobFailedError(BatchJobError):
    """The job, or the statement that starts it, failed. The message ends with the tail of its logs."""

    on_retry = "A retry starts the next attempt under a new job name; this job is kept for inspection."


class BatchJobCancelledError(BatchJobError):
    """The job was cancelled or deleted by somebody."""

    on_retry = "A retry starts the next attempt under a new job name."


class BatchJobLostError(BatchJobError):
    """The job is gone, with its metadata and without ``_SUCCESS``."""

    on_retry = "A retry submits it again; the next attempt if it left partial output."


class BatchJobTimeoutError(BatchJobError):
    """The job took longer than ``timeout`` and was cancelled."""

    on_retry = "A retry starts the next attempt under a new job name."


class BatchJobStartTimeoutError(BatchJobTimeoutError):
    """The job did not start running within ``start_timeout`` and was cancelled."""


class BatchOutputIncompleteError(BatchJobError):
    """The job is DONE but its output has no ``_SUCCESS``, or not as many rows as its input."""

    on_retry = "Nothing was loaded. A retry starts the next attempt under a new job name."


class BatchOutputGoneError(BatchOutputIncompleteError):
    """The output was cleaned up, or there never was any."""

    on_retry = "Nothing was loaded. A retry fails the same way: clear the task that scores as well."


class BatchJobConflictError(BatchJobError):
    """A live job of another run of the same key, or one that does not end, is in the way."""

    on_retry = "A retry looks again, and goes on once that job has ended."


class BatchJobReplacedError(BatchJobError, AirflowFailException):
    """Another run of the same key, with ``on_conflict="replace"``, has ended this run's job.

    Airflow does not retry it, whatever ``retries`` says: two runs would end each other's jobs in turn.
    """

    on_retry = "No retry is made: clear the task to have this run's job instead of that one's."


class BatchJobOwnershipError(BatchJobError):
    """A job bears our name but was not made by this task. Nothing was touched."""

    on_retry = "A retry fails the same way while that job exists."


class PollingError(BatchJobError):
    """The wait ended before the job did. The job was left alone."""

    on_retry = "A retry attaches to the job."


# -- services -------------------------------------------------------------------------------------------


class ServiceError(SnowMLError):
    """A model's service is not as it should be."""


class ServiceExistsError(ServiceError):
    """Another service has the name, and ``if_exists`` does not allow what would be needed."""

    on_retry = "Nothing was touched. A retry fails the same way until it is gone or if_exists is changed."


class NotAModelServiceError(ServiceError):
    """What is there is a job, or no model's service. Nothing was touched."""

    on_retry = "Nothing was touched. A retry fails the same way while it is there."


class ServiceFailedError(ServiceError):
    """The deployment, or a container of the service, failed. The message ends with the tail of its logs."""

    on_retry = (
        "What there is of the service is kept for inspection. A retry of the operator that deploys it drops "
        "it and deploys again; a retry of a sensor looks again."
    )


class ServiceSuspendedError(ServiceError):
    """The service was suspended while it was waited for."""

    on_retry = "The service was left alone. A retry looks again; the operator resumes its own."


class ServiceLostError(ServiceError):
    """The service is gone, without an error of the statement that made it."""

    on_retry = "A retry deploys it again."


class ServiceTimeoutError(ServiceError):
    """The service was not ready within ``timeout``."""

    on_retry = "A retry deploys it again if it is gone, and else goes on waiting for it."


class ServiceCancelledError(ServiceError):
    """The task was killed while it waited."""

    on_retry = "A retry deploys it again if it is gone, and else goes on waiting for it."


class ServiceConflictError(ServiceError):
    """Another deployment has the name, a dropped service does not go away, or another came in its place."""

    on_retry = "A retry looks again."


class ServicePollingError(ServiceError):
    """The wait ended before the service was ready. It was left alone."""

    on_retry = "A retry goes on waiting."


# -- promoting -----------------------------------------------------------------------------------------


class PromotionError(SnowMLError):
    """A version is not to become the champion. Nothing was changed."""

    on_retry = "Nothing was changed. A retry fails the same way until another version is the champion."


class OlderModelError(PromotionError):
    """The champion was trained on newer data, or it is not said until when the other one was trained."""


class ModelPollingError(SnowMLError):
    """Snowflake could not be asked for so long that the wait for a model's version ended."""

    on_retry = "A retry goes on waiting."


class NothingToRollBackError(PromotionError):
    """There was no champion before, none is known, or it is gone."""


# -- evaluating -----------------------------------------------------------------------------------------


class EvaluationError(SnowMLError):
    """There is nothing to compare: rows without labels, or without predictions."""

    on_retry = "Nothing was stored. A retry computes anew."


# -- retiring -------------------------------------------------------------------------------------------


class ModelInUseError(SnowMLError):
    """A model or a version is in use, and was not deleted."""

    on_retry = "A retry fails the same way while it is."


# -- run schemas ------------------------------------------------------------------------------------------


class RunSchemaOwnershipError(SnowMLError):
    """A schema of the run's name is not this DAG's, or not this run's."""

    on_retry = "A retry fails the same way while it is there."


# -- inference in the warehouse ------------------------------------------------------------------------


class RunCancelledError(SnowMLError):
    """The task was killed while the model ran, and its statement was cancelled."""

    on_retry = "All rows were written or none. A retry runs the model again."


# -- loading --------------------------------------------------------------------------------------------


class PredictionColumnsError(SnowMLError):
    """The predictions' columns do not fit the target table."""

    on_retry = "The table was not changed. A retry fails the same way until the columns fit."


class RowCountError(SnowMLError):
    """Not as many rows as expected. The table was not changed."""

    on_retry = "The table was not changed. A retry counts again."


class ForeignRowsError(SnowMLError):
    """Some rows do not belong to the slice that is replaced. The table was not changed."""

    on_retry = "The table was not changed. A retry fails the same way until the rows fit the slice."
