"""Every hint is given for what it is about, and for nothing else."""

from __future__ import annotations

import pytest

from airflow_provider_snowml.core.hints import HINTS, PRIVILEGES, explain_error

# Texts as Snowflake, Kubernetes, pip and pandas write them, and what the advice must contain.
CASES = [
    *(
        (
            f"SQL access control error:\nInsufficient privileges to operate on {kind} 'SCORING'",
            f"GRANT {privileges} ON {kind.upper()} SCORING TO ROLE",
        )
        for kind, privileges in PRIVILEGES.items()
    ),
    (
        "SQL access control error:\nInsufficient privileges to operate on warehouse 'SCORING'",
        "GRANT USAGE ON warehouse SCORING TO ROLE",
    ),
    ("Container main exited: OOMKilled", "num_workers"),
    ("The container was killed by signal 9 (SIGKILL)", "num_workers"),
    ("RuntimeError: CUDA error: no kernel image is available", "gpu_requests"),
    ("MODEL_BUILD_1A2B3C4D failed to complete: exited with status FAILED", "MODEL_BUILD_"),
    ("ERROR: No matching distribution found for lightgbm==9.9", "external access integration"),
    ("KeyError: \"['DISTANCE'] not in index\"", "SHOW FUNCTIONS IN MODEL"),
    ("Compute pool SCORING is suspended", "RESUME"),
    ("Unschedulable due to insufficient CPU resources.", "MAX_NODES"),
    ("Requested number of services exceeds the account limit of 200", "DROP SERVICE"),
    ("The stage BUCKET is external stage; it can't be used", "SNOWFLAKE_SSE"),
]


@pytest.mark.parametrize(("text", "advice"), CASES)
def test_advice(text: str, advice: str) -> None:
    assert advice in (explain_error(text) or "")


def test_every_hint_has_a_case() -> None:
    given = {explain_error(text) for text, _ in CASES}
    assert len(given) == len(HINTS)


def test_nothing_is_made_up() -> None:
    assert explain_error("ValueError: the model broke on purpose") is None
    assert explain_error("Job DB.SC.NAME is in state DONE already.") is None


def test_a_statement_that_lacks_a_privilege_says_which_to_grant() -> None:
    from snowflake.connector.errors import ProgrammingError

    from airflow_provider_snowml.hooks.errors import as_statement_error

    refused = ProgrammingError(
        "Insufficient privileges to operate on stage 'ST'", errno=3001, sqlstate="42501"
    )
    text = str(as_statement_error(refused))
    assert "GRANT READ, WRITE ON STAGE ST TO ROLE" in text
    assert text.endswith("until the privilege is granted to the role.")
