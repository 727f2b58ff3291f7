"""Whose a model version is: what a task notes before it makes one, and finds again after a crash."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from airflow_provider_snowml.core.batch_job import JobOwner, RunRef
from airflow_provider_snowml.core.names import refuse_dollar_quotes
from airflow_provider_snowml.exceptions import InvalidArgumentError

# Where the registration lies in the version's files, as ``log_model(user_files=...)`` puts it there.
USER_FILES_DIRECTORY = "snowml"
REGISTRATION_FILE = "registration.json"
REGISTRATION_PATH = f"user_files/{USER_FILES_DIRECTORY}/{REGISTRATION_FILE}"


@dataclass(frozen=True)
class PredictionCheck:
    """Rows of the sample, and what the model said of them before it was uploaded.

    :param function_name: the method.
    :param columns: the rows' columns.
    :param rows: their values.
    :param expected: the local predictions, row by row, one value for each output.
    """

    function_name: str
    columns: list[str]
    rows: list[list[Any]]
    expected: list[list[Any]]


@dataclass(frozen=True)
class Registration:
    """One version that one task makes in one run. Two are the same work if their ``identity`` is equal.

    :param owner: the task, the run's key and the map index.
    :param run: the run, and how often it was cleared.
    :param fingerprint: what was trained: see :func:`fingerprint`.
    :param model: the model's full name, as SQL.
    :param version: the version's resolved name.
    :param metrics: its metrics.
    :param comment: its comment.
    :param functions: the methods that must be there; ``None`` if the choice is snowflake-ml's.
    :param check: what one prediction must give, if that can be compared.
    """

    owner: JobOwner
    run: RunRef
    fingerprint: str
    model: str
    version: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    comment: str = ""
    functions: list[str] | None = None
    check: PredictionCheck | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What must be equal for a version to be this task's own."""
        return (self.owner, self.run, self.fingerprint, self.model, self.version)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def to_json(self) -> bytes:
        """The file that is uploaded with the version."""
        return json.dumps(self.to_dict(), indent=1).encode()

    @classmethod
    def from_dict(cls, data: Any) -> Registration | None:
        """The inverse of :meth:`to_dict`; ``None`` for anything else, such as another program's file."""
        if not isinstance(data, dict) or set(data) != {field.name for field in fields(cls)}:
            return None
        try:
            check = PredictionCheck(**data["check"]) if data["check"] else None
            told = {**data, "owner": JobOwner(**data["owner"]), "run": RunRef(**data["run"]), "check": check}
        except TypeError:
            return None
        return cls(**told)

    @classmethod
    def from_json(cls, text: bytes) -> Registration | None:
        """The inverse of :meth:`to_json`; ``None`` for anything else."""
        try:
            return cls.from_dict(json.loads(text))
        except ValueError:
            return None


def fingerprint(source: str, arguments: Any, run_key: str) -> str:
    """What a version is made of: equal if it would be trained the same way. The model's bytes have no part
    in it.

    :param source: the callable's source, or the name of what is registered instead.
    :param arguments: its arguments; of what is no plain JSON only the type counts.
    :param run_key: the run's key.
    """
    plain = json.dumps(arguments, sort_keys=True, default=_type_name)
    return hashlib.sha256("\n".join([source, plain, run_key]).encode()).hexdigest()


def _type_name(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set | frozenset):
        return [*value] if isinstance(value, Sequence) else sorted(map(str, value))
    return f"{type(value).__module__}.{type(value).__qualname__}"


def source_of(function: Callable[..., Any]) -> str:
    """A callable's source; its name where there is none, as for a built-in or a partial."""
    function = inspect.unwrap(function)
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        module = getattr(function, "__module__", "")
        return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON has them: numpy's numbers become Python's.

    :raises InvalidArgumentError: for a metric that JSON cannot hold, or text with ``$$``.
    """
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
    try:
        text = json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"The metrics {plain!r} are no plain JSON: {error}.") from error
    refuse_dollar_quotes(text, what="metrics")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
