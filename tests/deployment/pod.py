"""The services of docker-compose.yaml, run here: commands, environments and health checks word for word.

No container engine is needed: a process namespace, a network with nothing but its loopback, and a file system
with the volumes where the file says stand in for the containers. All services share the three, so each finds
the others under their names, which ``/etc/hosts`` says are this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yaml"
PROGRAMS = ("unshare", "nsenter", "setpriv", "mount", "ip")
PATIENCE = 300  # seconds until one service is healthy


def services(variables: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The file's services, with the variables of ``.env`` put in."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables[match["name"]]

    text = re.sub(r"\$\$|\$\{(?P<name>\w+)(?::\?[^}]*)?\}", value, COMPOSE.read_text())
    return dict(yaml.safe_load(text)["services"])


def image_environment() -> dict[str, str]:
    """What the Dockerfile's ENV says."""
    (line,) = re.findall(r"^ENV (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return dict(it.split("=", 1) for it in line.split())


def postgres_programs() -> Path | None:
    """Where Debian's PostgreSQL has its programs; they are not on the PATH."""
    found = [Path(it) for it in (shutil.which("initdb"),) if it]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].resolve().parent if found else None


def why_not() -> str | None:
    """What this machine lacks, if anything."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or postgres_programs() is None:
        return f"not run: {', '.join(missing) or 'PostgreSQL'} not installed"
    if (
        os.geteuid() != 0
        or subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"]).returncode
    ):
        return "not run: needs root, and the right to make namespaces"
    return None


class Pod:
    """The namespaces, and what runs in them; all of it ends with the block.

    :param directory: an empty one, for the volumes and the services' output.
    """

    def __init__(self, directory: Path, variables: dict[str, str]) -> None:
        self.directory = directory
        self.services = services(variables)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._healthy: set[str] = set()

    def __enter__(self) -> Pod:
        setup = self.directory / "setup.sh"
        setup.write_text("\n".join(self._setup()))
        self._init = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                str(setup),
            ],
            stdout=subprocess.PIPE,
        )
        assert self._init.stdout is not None
        if self._init.stdout.readline() != b"ready\n":
            raise RuntimeError("The namespaces could not be made.")
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children")
        self._inside = children.read_text().split()[0]
        return self

    def __exit__(self, *exc_info: object) -> None:
        # The first process of the namespace takes all others with it.
        os.kill(int(self._inside), signal.SIGKILL)
        for process in (*self.processes.values(), self._init):
            process.wait()

    def start(self, *names: str) -> None:
        """Start services, each when what it depends on is as the file demands; wait until all are healthy."""
        for name in names:
            self._launch(name)
        for name in names:
            self._wait_until_healthy(name)

    def _launch(self, name: str) -> None:
        if name in self.processes:
            return
        for other, demand in self.services[name].get("depends_on", {}).items():
            self._launch(other)
            if demand["condition"] == "service_completed_successfully":
                assert self.processes[other].wait(PATIENCE) == 0, self.output(other)
            else:
                self._wait_until_healthy(other)
        command = self.services[name].get("command") or self._command_of_postgres(self.services[name])
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self._inside_command(name, command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command where a service runs, with that service's environment."""
        return subprocess.run(self._inside_command(name, list(command)), capture_output=True, text=True)

    def output(self, name: str) -> str:
        """The last lines of what a service has printed."""
        return (self.directory / f"{name}.log").read_text(errors="replace")[-4000:]

    def _wait_until_healthy(self, name: str) -> None:
        if name in self._healthy:
            return
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        deadline = time.monotonic() + PATIENCE
        while (done := self.run(name, *command)).returncode:
            assert self.processes[name].poll() is None, f"{name} has ended:\n{self.output(name)}"
            assert time.monotonic() < deadline, f"{name} is not healthy:\n{done.stderr}\n{self.output(name)}"
            time.sleep(1)
        self._healthy.add(name)

    def _inside_command(self, name: str, command: list[str]) -> list[str]:
        is_postgres = self.services[name]["image"].startswith("postgres:")
        programs = [str(Path(sys.executable).parent), str(postgres_programs()), "/usr/bin", "/bin"]
        environment = {"PATH": ":".join(programs), "HOME": "/tmp", "LC_ALL": "C.UTF-8"}
        environment |= {} if is_postgres else image_environment()
        environment |= self.services[name].get("environment", {})
        variables = [f"{key}={value}" for key, value in environment.items()]
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if is_postgres else []
        enter = ["nsenter", f"--target={self._inside}", "--mount", "--net", "--pid", "--wd=/tmp"]
        return [*enter, "env", "--ignore-environment", *variables, *user, *command]

    def _command_of_postgres(self, service: dict[str, Any]) -> list[str]:
        """What the official image does when it is told nothing."""
        ((_, data),) = (it.split(":") for it in service["volumes"])
        script = f"""
            printf %s "$POSTGRES_PASSWORD" > {data}.password
            initdb --pgdata={data} --username="$POSTGRES_USER" --pwfile={data}.password --auth=scram-sha-256
            echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D {data} postgres
            exec postgres -D {data} -c unix_socket_directories={data}
        """
        return ["sh", "-euc", script]

    def _setup(self) -> list[str]:
        """What the first process in the namespaces does."""
        hosts = self.directory / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {' '.join(self.services)}\n")
        volumes = dict(
            reversed(volume.split(":")[:2])
            for it in self.services.values()
            for volume in it.get("volumes", ())
        )
        lines = [
            "set -eu",
            "ip link set lo up",
            f"mount --bind {hosts} /etc/hosts",
            "mount -t tmpfs tmpfs /opt",
            "mount -t tmpfs tmpfs /var/lib/postgresql",
        ]
        for target, source in volumes.items():
            if source.startswith("."):
                lines += [f"mkdir -p {target}", f"mount --bind -o ro {ROOT / source} {target}"]
            else:
                owner = "postgres" if source.startswith("postgres") else "root"
                lines += [f"mkdir -p {target}", f"chown {owner} {target} $(dirname {target})"]
        return [*lines, "echo ready", "exec sleep infinity"]
