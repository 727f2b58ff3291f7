"""A schema for what one run computes: its name, and the mark by which it is known."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from airflow_provider_snowml.core.names import Identifier
from airflow_provider_snowml.exceptions import InvalidArgumentError

_MARK = "airflow_provider_snowml_run_schema"
_MAX_KEY = 150


@dataclass(frozen=True)
class RunSchemaMark:
    """Whose schema it is: the comment of every schema that :class:`.SnowMLRunSchemaOperator` makes.

    :param dag_id: the DAG.
    :param run_key: what the run is about: its partition, else the start of its interval, else its id.
    """

    dag_id: str
    run_key: str

    def to_comment(self) -> str:
        """The comment."""
        return json.dumps({_MARK: asdict(self)}, ensure_ascii=True)

    @classmethod
    def from_comment(cls, comment: str | None) -> RunSchemaMark | None:
        """The mark in a comment; ``None`` if it has none."""
        try:
            return cls(**json.loads(comment or "")[_MARK])
        except (ValueError, TypeError, KeyError):
            return None

    def __str__(self) -> str:
        return f"DAG {self.dag_id} for {self.run_key}"


def run_schema_name(prefix: str, run_key: str) -> Identifier:
    """``<prefix>_<key>``: the same for every try of a run, and for a run that comes again.

    :param prefix: an unquoted identifier.
    :param run_key: what the run is about.
    :raises InvalidArgumentError: for a prefix that is none.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", prefix):
        raise InvalidArgumentError(
            f"prefix is {prefix!r}; it must be letters, digits and _, 64 at most, such as 'RUN_FRAUD'."
        )
    instant = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\+00:00", run_key)
    key = (
        "{}{}{}T{}{}{}".format(*instant.groups())
        if instant
        else re.sub(r"[^A-Z0-9]+", "_", run_key.upper()).strip("_")
    )
    if not key or len(key) > _MAX_KEY:
        key = f"{key[:_MAX_KEY]}_{hashlib.sha256(run_key.encode()).hexdigest()[:12].upper()}".lstrip("_")
    return Identifier(f"{prefix.upper()}_{key}")
