"""What tasks cost that wait in the triggerer: ours beside upstream's ``SnowparkContainerJobTrigger``.

Each side is a process that runs Airflow's own ``TriggerRunner``, and in it as many triggers as tasks wait,
all for jobs that do not end. What they send is counted by the local Snowflake.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_provider_snowml.local import LocalSnowflake
from benchmarks.counting import Counter, connection_of, query
from benchmarks.report import Table

INTERVAL = 4.0  # seconds between looks
LOOKS = 4  # in the time that is measured
SCHEMA = "WAITING"
_LOOK = "SHOW JOB SERVICES|DESCRIBE SERVICE"
USER = "WAITER"
SIDES = (("ours", 1), ("upstream", 1), ("ours", 100), ("upstream", 100), ("ours", 1000), ("upstream", 1000))
ALONE = (("ours", 10_000),)

_NOTE = (
    "Ours is `SnowMLBatchJobTrigger`, upstream's `SnowparkContainerJobTrigger` of the Snowflake provider. "
    "Memory is what the process has more than before its triggers. The last column is how often each job was "
    "looked at per interval: 1 is as it was told; where upstream has less, its threads could not keep up, "
    "and its other numbers are of what they managed."
)


def measure(local: LocalSnowflake, sides: tuple[tuple[str, int], ...] = SIDES + ALONE) -> list[Table]:
    """Statements, logins, CPU and memory per interval, by how many wait.

    :param local: a local Snowflake that allows faults.
    :param sides: who, and how many triggers.
    """
    prepare(local)
    names: list[str] = []
    lines = []
    for side, number in sides:
        # Only as many as wait: a listing shows all jobs of the schema.
        names += submit_jobs(local, range(len(names), number))
        found = measure_one(local, side, names[:number])
        intervals = found["seconds"] / INTERVAL
        lines.append(
            (
                f"{number:,}",
                side,
                f"{(found['looks'] + found['others']) / intervals:.1f}",
                f"{found['logins'] / intervals:.1f}",
                f"{found['cpu'] / intervals * 1000:.0f} ms",
                f"{found['rss'] / 2**20:.0f} MiB",
                f"{found['threads']}",
                f"{found['looks'] / intervals / (1 if side == 'ours' else number):.2f}",
            )
        )
        print("  ", *lines[-1], flush=True)
    return [
        Table(
            f"Tasks that wait, per interval of {INTERVAL:g} s",
            ("tasks", "trigger", "statements", "logins", "CPU", "memory", "threads", "looks at each job"),
            lines,
            _NOTE,
        )
    ]


def prepare(local: LocalSnowflake) -> None:
    """A schema with a model, whose image is built, and a compute pool that never starts anything."""
    from sklearn.linear_model import LogisticRegression
    from snowflake.ml.registry import Registry
    from snowflake.snowpark import Session

    for sql in (
        f"CREATE OR REPLACE SCHEMA {SCHEMA}",
        f"CREATE STAGE {SCHEMA}.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')",
        "CREATE COMPUTE POOL IF NOT EXISTS AWAKE MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS",
        "CREATE COMPUTE POOL IF NOT EXISTS ASLEEP MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS "
        "AUTO_RESUME = FALSE INITIALLY_SUSPENDED = TRUE",
    ):
        query(local, sql)
    with Session.builder.configs({**local.connection_parameters, "schema": SCHEMA}).create() as session:
        model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
        Registry(session, database_name="SNOWML", schema_name=SCHEMA).log_model(
            model,
            model_name="M",
            version_name="V1",
            sample_input_data=[[0.0]],
            options={"target_methods": ["predict"]},
        )
    _submit(local, ["FIRST"], "AWAKE")


def submit_jobs(local: LocalSnowflake, numbers: range) -> list[str]:
    """Submit jobs that wait for their compute pool for ever, and so need no process; their names."""
    names = [f"SNOWML_WAITING_{number}" for number in numbers]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda some: _submit(local, some, "ASLEEP"), (names[::2], names[1::2])))
    return names


def _submit(local: LocalSnowflake, names: list[str], pool: str) -> None:
    import snowflake.connector

    with snowflake.connector.connect(**{**local.connection_parameters, "schema": SCHEMA}) as connection:
        for name in names:
            connection.cursor().execute(
                f"EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL {pool} WITH SPECIFICATION "
                "'output:\n  stage_location: \"@ST/out/\"\n' FROM @ST/in/ MODEL = M VERSION = V1 "
                f"FUNCTION = 'predict' NAME = {name} ASYNC = TRUE"
            )


def measure_one(
    local: LocalSnowflake, side: str, names: list[str], interval: float = INTERVAL
) -> dict[str, Any]:
    """Let one side wait for jobs.

    :param local: a local Snowflake that allows faults.
    :param side: ``"ours"`` or ``"upstream"``.
    :param names: the jobs.
    :param interval: seconds between looks.
    :return: the ``seconds`` that it was measured for, what was counted, and ``counted_for`` how many seconds.
    """
    environment = {
        **os.environ,
        "AIRFLOW_CONN_SNOWFLAKE_DEFAULT": connection_of(local, USER, SCHEMA),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.waiting", side, str(len(names)), str(interval)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        _expect(process, "started")
        began = time.monotonic()
        counter = Counter(local, USER, looks=f"^({_LOOK})", others=f"^(?!{_LOOK}).")
        _tell(process, "measure")
        found: dict[str, Any] = json.loads(_expect(process, "{"))
        found.update(counter.read())
        found["counted_for"] = time.monotonic() - began  # with the logins that tell and read the counts
    finally:
        process.kill()
        process.wait()
        local.clear_faults()
    return found


def _expect(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise RuntimeError(f"The process of triggers ended with {process.wait()}.")


def _tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    print(text, file=process.stdin, flush=True)


# -- the process that waits -------------------------------------------------------------------------------


def workload(side: str, number: int, interval: float) -> Any:
    """A trigger as the scheduler hands it to the triggerer."""
    from airflow.executors.workloads import RunTrigger
    from airflow.models.trigger import Trigger

    name = f"SNOWML_WAITING_{number}"
    if side == "ours":
        from airflow_provider_snowml.triggers.inference import SnowMLBatchJobTrigger

        trigger: Any = SnowMLBatchJobTrigger(
            job_output_location=f"@SNOWML.{SCHEMA}.ST/out/{name}/",
            job_name=f"SNOWML.{SCHEMA}.{name}",
            query_id=None,
            hook_arguments={"snowflake_conn_id": "snowflake_default"},
            poll_interval=interval,
            limits={},
            cancel_on_kill=True,
        )
    else:
        from airflow.providers.snowflake.triggers.snowpark_containers import SnowparkContainerJobTrigger

        trigger = SnowparkContainerJobTrigger(
            job_name=name,
            snowflake_conn_id="snowflake_default",
            poll_interval=interval,
            end_time=time.time() + 86400,
        )
    path, arguments = trigger.serialize()
    return RunTrigger(id=number, classpath=path, encrypted_kwargs=Trigger.encrypt_kwargs(arguments))


class Runner:
    """Airflow's ``TriggerRunner`` with nobody to report to, which measures itself.

    :param side: whose triggers.
    :param number: how many.
    :param interval: seconds between looks.
    """

    def __init__(self, side: str, number: int, interval: float) -> None:
        from airflow.jobs.triggerer_job_runner import TriggerRunner, messages

        class Silent(TriggerRunner):
            async def init_comms(self) -> None:
                class Supervisor:
                    _reader_task = asyncio.get_running_loop().create_future()

                    async def asend(self, message: Any) -> Any:
                        return messages.TriggerStateSync(to_create=[], to_cancel=set())

                self.comms_decoder = Supervisor()

        self.runner, self.number, self.interval = Silent(), number, interval
        self.workloads = [workload(side, i, interval) for i in range(number)]

    async def measure(self) -> None:
        """Start all, wait until each has looked, measure for some intervals, and say what was measured."""
        import psutil

        process, loop = psutil.Process(), asyncio.get_running_loop()
        running = loop.create_task(self.runner.arun())
        await asyncio.sleep(2)
        alone = process.memory_info().rss
        self.runner.to_create.extend(self.workloads)
        while len(self.runner.triggers) < self.number:
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.5 * self.interval)
        print("started", flush=True)
        await loop.run_in_executor(ThreadPoolExecutor(1), sys.stdin.readline)
        began, cpu = time.monotonic(), _cpu(process)
        await asyncio.sleep(LOOKS * self.interval)
        failed = [details["task"] for details in self.runner.triggers.values() if details["task"].done()]
        print(
            json.dumps(
                {
                    "seconds": time.monotonic() - began,
                    "cpu": _cpu(process) - cpu,
                    "rss": process.memory_info().rss - alone,
                    "threads": process.num_threads(),
                    "ended": len(failed),
                }
            ),
            flush=True,
        )
        running.cancel()


def _cpu(process: Any) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    asyncio.run(Runner(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])).measure())
    # The threads of what still looks are not waited for.
    os._exit(0)
