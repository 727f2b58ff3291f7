"""What a failure in Snowflake's container services probably means, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_snowml.core.privileges import grant_statement


@dataclass(frozen=True)
class Hint:
    """One line of advice.

    :param sign: a regular expression that is searched for in the message and the logs, whatever the case.
    :param advice: what it means and what to do; may use the groups of ``sign``.
    """

    sign: str
    advice: str


# What a batch job or a service needs on each, see
# https://docs.snowflake.com/en/sql-reference/sql/execute-inference-job-service
# and https://docs.snowflake.com/en/user-guide/security-access-control-privileges.
PRIVILEGES = {
    "compute pool": "USAGE, MONITOR",
    "schema": "USAGE, CREATE SERVICE",
    "stage": "READ, WRITE",
    "model": "USAGE, READ",
    "service": "OPERATE, MONITOR",
    "image repository": "READ, WRITE",
    "table": "SELECT",
    "view": "SELECT",
}

# The first that fits wins: what names its cause most exactly stands first.
HINTS = (
    *(
        Hint(
            rf"Insufficient privileges to operate on {kind} '(?P<name>[^']+)'",
            "The role lacks a privilege: "
            + grant_statement([privileges], kind.upper(), r"\g<name>", "<the task's role>")
            + ".",
        )
        for kind, privileges in PRIVILEGES.items()
    ),
    Hint(
        r"Insufficient privileges to operate on (?P<kind>[a-z ]+?) '(?P<name>[^']+)'",
        "The role lacks a privilege: "
        + grant_statement(["USAGE"], r"\g<kind>", r"\g<name>", "<the task's role>")
        + ".",
    ),
    Hint(
        r"out ?of ?memory|OOMKilled|MemoryError|Cannot allocate memory|exit(ed)?[ _]code:? ?137|SIGKILL",
        "The container ran out of memory: use a larger instance family or more memory_requests, fewer "
        "num_workers, or a smaller max_batch_rows.",
    ),
    Hint(
        r"CUDA error|no CUDA-capable device|nvidia-smi.*not found",
        "The model wants a GPU that the container has not: set gpu_requests and use a GPU instance family.",
    ),
    Hint(
        r"(image build|build of the image|model-build|MODEL_BUILD_\w+).{0,200}(fail|error)"
        r"|No matching distribution found|ResolvePackageNotFound|Could not solve for environment",
        "The model's image could not be built: often a package of the model is not to be had there. Look "
        "into the logs of the MODEL_BUILD_... service; register the model with packages that exist, or allow "
        "the build an external access integration.",
    ),
    Hint(
        r"KeyError: .*column|not in index|columns are missing|feature names should match|missing column|"
        r"column .{0,80} (is missing|not found|does not exist|is not in the input)",
        "The input lacks a column that the model was registered with: compare it with SHOW FUNCTIONS IN "
        "MODEL.",
    ),
    Hint(
        r"compute pool.{0,120}(suspended|stopping|not (ready|active|available)|no capacity)"
        r"|(insufficient|no) (node|resource|capacity)|unschedulable",
        "The compute pool cannot take the job: ALTER COMPUTE POOL ... RESUME it, raise MAX_NODES, or ask for "
        "less CPU and memory.",
    ),
    Hint(
        r"quota|exceeds the (maximum|account) (number|limit)|limit (exceeded|reached)",
        "A limit of the account or the pool is reached: remove what is not used any more (DROP SERVICE, DROP "
        "COMPUTE POOL), or ask for a higher limit.",
    ),
    Hint(
        r"external stage|stage .{0,120}(not internal|is external)|only internal stages",
        "Batch inference reads and writes internal stages only: CREATE STAGE ... ENCRYPTION = (TYPE = "
        "'SNOWFLAKE_SSE').",
    ),
)  # fmt: skip


def explain_error(text: str) -> str | None:
    """Advice about an error's message or a container's logs; ``None`` if nothing is known about it.

    :param text: the message, the logs, or both.
    """
    for hint in HINTS:
        found = re.search(hint.sign, text, re.IGNORECASE | re.DOTALL)
        if found:
            return found.expand(hint.advice)
    return None
