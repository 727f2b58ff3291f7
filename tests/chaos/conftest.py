"""The matrix is a program of its own, too: its modules are imported from where they lie."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """A local Snowflake of the matrix, which its faults are told.

    It ends with its module: while it runs, its certificates are those that this process trusts.
    """
    from matrix import controlled

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_SNOWFLAKE_DEFAULT", "")
        with controlled(tmp_path_factory.mktemp("chaos")) as control:
            yield control
