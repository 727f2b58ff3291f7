"""What a DAG file pays that imports an operator: time and modules over ``airflow.sdk``, ours and others'.

Each import is a process of its own. The sides take turns, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.report import Table, median

ROUNDS = 3
MODULES = {
    "this provider": (
        "airflow_provider_snowml.operators.registry",
        "airflow_provider_snowml.operators.evaluation",
        "airflow_provider_snowml.operators.inference",
        "airflow_provider_snowml.operators.services",
        "airflow_provider_snowml.operators.monitors",
        "airflow_provider_snowml.sensors.inference",
        "airflow_provider_snowml.sensors.services",
    ),
    "Snowflake": (
        "airflow.providers.snowflake.operators.snowflake",
        "airflow.providers.snowflake.operators.snowpark",
        "airflow.providers.snowflake.operators.snowpark_containers",
    ),
    "Databricks": ("airflow.providers.databricks.operators.databricks",),
    "Amazon": (
        "airflow.providers.amazon.aws.operators.sagemaker",
        "airflow.providers.amazon.aws.sensors.sagemaker",
    ),
}

_PROGRAM = """
import json, sys, time
import airflow.sdk
from airflow.sdk import BaseOperator, BaseSensorOperator, Context, conf  # what every operator has
before, started = set(sys.modules), time.perf_counter()
__import__(sys.argv[1])
print(json.dumps([time.perf_counter() - started, len(set(sys.modules) - before),
    sorted(name for name in ("pandas", "numpy", "snowflake.connector", "snowflake.snowpark", "snowflake.ml")
           if name in sys.modules)]))
"""


def measure(rounds: int = ROUNDS) -> list[Table]:
    """Milliseconds and modules of every operator module.

    :param rounds: how often each is imported; the medians are reported.
    """
    wanted = [(provider, module) for provider, modules in MODULES.items() for module in modules]
    seconds: dict[str, list[float]] = {}
    lines: dict[str, tuple[int, str]] = {}
    for _ in range(rounds):
        for _, module in wanted:
            found = imported(module)
            if found is not None:
                took, number, heavy = found
                seconds.setdefault(module, []).append(took)
                lines[module] = (number, ", ".join(heavy) or "none")
    return [
        Table(
            f"Imports over `airflow.sdk`, medians of {rounds}",
            ("provider", "module", "time", "modules", "heavy libraries"),
            [
                (provider, f"`{module}`", f"{median(seconds[module]) * 1000:.0f} ms", *lines[module])
                if module in seconds
                else (provider, f"`{module}`", "not installed", "", "")
                for provider, module in wanted
            ],
        )
    ]


def imported(module: str) -> tuple[float, int, list[str]] | None:
    """Seconds, modules and heavy libraries of one import; ``None`` if it is not installed."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, module],
        env={**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        if "ModuleNotFoundError" in ran.stderr:
            return None
        raise RuntimeError(f"{module} cannot be imported:\n{ran.stderr[-2000:]}")
    took, number, heavy = json.loads(ran.stdout.splitlines()[-1])
    return took, number, heavy
