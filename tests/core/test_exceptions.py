from __future__ import annotations

import pickle

import pytest
from airflow.sdk.exceptions import AirflowException

from airflow_provider_snowml import exceptions
from airflow_provider_snowml.exceptions import ObjectNotFoundError, SnowMLError

TYPES = [
    kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, SnowMLError)
]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_every_error_is_airflows_and_says_what_a_retry_does(kind: type[SnowMLError]) -> None:
    error = kind("It went wrong.")
    assert isinstance(error, AirflowException)
    assert str(error).startswith("It went wrong.")
    if kind not in (SnowMLError, exceptions.BatchJobError, exceptions.ServiceError):
        assert "retry" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_statements_error_keeps_its_numbers() -> None:
    error = pickle.loads(pickle.dumps(ObjectNotFoundError("m", errno=2003, sqlstate="02000", query_id="q")))
    assert (error.errno, error.sqlstate, error.query_id) == (2003, "02000", "q")
