"""A real Airflow: four processes, SQLite, the local executor; for the length of a ``with`` block, or to stay.

(``airflow standalone`` starts 32 workers unless told otherwise, and leaves children behind when it is ended.)
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AirflowSettings = dict[str, dict[str, object]]  # Airflow's, by section

_TRIES = 5
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
# A proxy that is set for the internet has no business between processes of one machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AirflowFailed(Exception):
    """A process has ended, or did not answer in time."""


@dataclass
class Airflow:
    """A running Airflow.

    :param home: its ``AIRFLOW_HOME``, with the processes' and the tasks' logs.
    :param environment: what its processes, and any ``airflow`` command about it, run with.
    :param url: where its API server answers.
    :param password: of its user ``admin``; None where everyone may do everything.
    """

    home: Path
    environment: dict[str, str]
    url: str
    password: str | None = None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _token: str = ""

    def command(self, *arguments: str) -> str:
        """Run an ``airflow`` command to its end, and return what it prints."""
        done = subprocess.run(
            _airflow(*arguments),
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise AirflowFailed(f"airflow {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, component: str, environment: dict[str, str] | None = None) -> None:
        """Start one of its processes.

        :param environment: variables for this process alone.
        """
        with (self.home / f"{component}.log").open("ab") as log:
            self.processes[component] = subprocess.Popen(
                _airflow(component),
                env=self.environment | (environment or {}),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, to be ended as one
            )

    def get(self, path: str) -> Any:
        """GET from Airflow's public API; on a busy machine it may take more than one try."""
        for _ in range(_TRIES - 1):
            try:
                return self._request(f"/api/v2/{path}")
            except (OSError, AirflowFailed):
                self.check_processes()
                time.sleep(2)
        return self._request(f"/api/v2/{path}")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST to Airflow's public API."""
        return self._change(path, body, "POST")

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """PATCH to Airflow's public API."""
        return self._change(path, body, "PATCH")

    def _change(self, path: str, body: dict[str, Any], method: str) -> Any:
        """One transaction: of what the server failed at (SQLite was locked for too long) nothing is done."""
        for _ in range(_TRIES - 1):
            try:
                return self._request(f"/api/v2/{path}", body, method)
            except AirflowFailed as failure:
                if not getattr(failure.__cause__, "code", 0) >= 500:
                    raise
                time.sleep(2)
        return self._request(f"/api/v2/{path}", body, method)

    def kill(self, component: str) -> None:
        """Kill one of its processes, with its children, as a machine that goes down does."""
        process = self.processes.pop(component)
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def check_processes(self) -> None:
        """Raise if one of the processes has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise AirflowFailed(
                    f"The {name} has ended with code {process.returncode}:\n{tail(self.home / f'{name}.log')}"
                )

    def wait_for_dags(self, dag_ids: Sequence[str], *, timeout: float) -> None:
        """Wait until all processes are well and these DAGs are parsed.

        :param timeout: seconds.
        """
        deadline = time.monotonic() + timeout
        missing: set[str] = set(dag_ids)
        while missing:
            self.check_processes()
            if time.monotonic() > deadline:
                raise AirflowFailed(f"Airflow does not know {', '.join(missing)} after {timeout:.0f} s.")
            with contextlib.suppress(OSError):
                missing = set(dag_ids) - {dag["dag_id"] for dag in self.get("dags")["dags"]}
                for error in self.get("importErrors")["import_errors"]:
                    raise AirflowFailed(f"{error['filename']} cannot be imported:\n{error['stack_trace']}")
            time.sleep(1)

    def _request(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        if not self._token:
            self._token = self.log_in()
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with _DIRECT.open(request, timeout=120) as reply:  # a busy machine
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise AirflowFailed(f"{request.get_method()} {path}: {error} {error.read().decode()}") from error

    def log_in(self) -> str:
        """A token for the public API."""
        login = {"username": "admin", "password": self.password}
        request = urllib.request.Request(
            f"{self.url}/auth/token",
            data=None if self.password is None else json.dumps(login).encode(),
            headers={"Content-Type": "application/json"},
        )
        with _DIRECT.open(request, timeout=30) as reply:
            return str(json.load(reply)["access_token"])


def airflow_environment(
    home: Path,
    dags: Path,
    *,
    ports: Sequence[int],
    secret: str,
    parallelism: int,
    settings: AirflowSettings | None = None,
) -> dict[str, str]:
    """What Airflow's processes, and any ``airflow`` command about them, run with.

    :param home: ``AIRFLOW_HOME``.
    :param dags: the DAG folder.
    :param ports: of the API server, and of those that serve workers' and the triggerer's logs.
    :param secret: what tokens are signed with.
    :param parallelism: how many tasks run at once.
    :param settings: further ones, by section.
    """
    port, worker_logs, trigger_logs = ports
    url = f"http://127.0.0.1:{port}"
    all_settings: AirflowSettings = {
        "api": {"base_url": url, "host": "127.0.0.1", "port": port, "workers": 1, "secret_key": secret},
        "api_auth": {"jwt_secret": secret},
        "core": {
            "dags_folder": dags,
            "execution_api_server_url": f"{url}/execution/",
            "executor": "LocalExecutor",
            "load_examples": False,
            "parallelism": parallelism,
        },
        # SQLite's five seconds are not enough for all these processes on a busy machine.
        "database": {"sql_alchemy_conn": f"sqlite:///{home}/airflow.db?timeout=60"},
        "logging": {"worker_log_server_port": worker_logs, "trigger_log_server_port": trigger_logs},
        # How long a worker may take to notice that its task has ended; and to wait for an API server that is
        # busy, before it takes the task for failed.
        "workers": {"min_heartbeat_interval": 1, "execution_api_timeout": 60},
        "scheduler": {"scheduler_idle_sleep_time": 0.5},
    }
    all_settings = merged(all_settings, settings or {})
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    variables |= {
        f"AIRFLOW__{s.upper()}__{k.upper()}": str(v) for s, of in all_settings.items() for k, v in of.items()
    }
    return variables | {
        "AIRFLOW_HOME": str(home),
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
    }


def merged(one: AirflowSettings, other: AirflowSettings) -> AirflowSettings:
    """Airflow's settings of both; the other's where both have one."""
    return {section: one.get(section, {}) | other.get(section, {}) for section in {**one, **other}}


@contextlib.contextmanager
def airflow(
    home: Path,
    dags: Path,
    *,
    parallelism: int,
    environment: dict[str, str],
    settings: AirflowSettings | None = None,
    preload: Sequence[str] = (),
) -> Iterator[Airflow]:
    """Start Airflow; at the end, whatever happened, end every process that was started.

    :param home: an empty directory for its database and logs.
    :param dags: the DAG folder.
    :param parallelism: how many tasks run at once.
    :param environment: variables for its processes beside the present ones.
    :param settings: of Airflow's, by section, beside those that are needed here.
    :param preload: modules that its processes load first. Tasks are forked, and need not load them again.
    """
    ports = free_ports(3)
    variables = airflow_environment(
        home,
        dags,
        ports=ports,
        secret=secrets.token_hex(),
        parallelism=parallelism,
        settings=merged(
            {"core": {"dags_are_paused_at_creation": False, "simple_auth_manager_all_admins": True}},
            settings or {},
        ),
    )
    running = Airflow(home, variables | environment, f"http://127.0.0.1:{ports[0]}")
    (home / "config").mkdir()
    (home / "config" / "airflow_local_settings.py").write_text("".join(f"import {it}\n" for it in preload))
    try:
        running.command("db", "migrate")
        for component in COMPONENTS:
            running.start(component)
        yield running
    finally:
        end(running.processes.values())


def end(processes: Sequence[subprocess.Popen[bytes]] | Any, *, grace: float = 20) -> None:
    """End processes that lead a process group each, with all their children.

    :param grace: seconds between the request and the end by force.
    """
    processes = list(processes)
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        _signal_group(process, signal.SIGKILL)  # also the children that outlived their leader
        process.wait()


def tail(file: Path, lines: int = 40) -> str:
    """The last lines of a file."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _airflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on.

    Not of those that the system gives to whoever connects: a while passes until they are listened on.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_768), 12_768):
        if len(found) == count:
            break
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found
