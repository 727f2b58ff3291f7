"""``make up`` and ``make down``: a local Snowflake and an Airflow that stay until they are told to end.

Everything they keep lies in one directory. No file says which processes run, since such a file is wrong after
a crash or a reboot: each process carries the directory's mark in its environment and hands it on to its
children. What carries the mark is ours, whatever became of its parent; nothing else is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from airflow_processes import COMPONENTS, Airflow, AirflowFailed, airflow_environment, free_ports, tail

from airflow_provider_snowml.local.address import Address

ROOT = Path(__file__).resolve().parents[1]
DAGS = ROOT / "example_dags"
SNOWFLAKE = "snowml-local"
MARK, NAME = "SNOWML_UP", "SNOWML_UP_PROCESS"
PATIENCE = 300  # seconds until everything is well, on a slow machine
GRACE = 30  # seconds between the request to end and the end by force


@dataclass
class Settings:
    """What stays the same from one ``make up`` to the next, as long as its ports are free."""

    mark: str
    secret: str
    password: str
    airflow_port: int
    snowflake_port: int
    worker_logs_port: int
    trigger_logs_port: int

    @classmethod
    def of(cls, directory: Path) -> Settings | None:
        file = directory / "settings.json"
        return cls(**json.loads(file.read_text())) if file.exists() else None

    @classmethod
    def new(cls) -> Settings:
        made = cls(
            secrets.token_hex(), secrets.token_hex(), secrets.token_urlsafe(12), 8080, 8085, 8793, 8794
        )
        made.move_to_free_ports()
        return made

    def move_to_free_ports(self) -> None:
        """Leave the ports that somebody else listens on."""
        for name, port in list(vars(self).items()):
            if name.endswith("_port") and not _is_free(port):
                setattr(self, name, free_ports(1)[0])

    def write(self, directory: Path) -> None:
        _write_private(directory / "settings.json", asdict(self))


class Up:
    """The processes and data of one directory."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.directory = directory
        self.settings = settings

    def processes(self) -> dict[str, list[psutil.Process]]:
        """What runs of ours, by name; each with the children that it started."""
        found: dict[str, list[psutil.Process]] = {}
        for process in psutil.process_iter(["environ"]):
            variables = process.info["environ"] or {}
            if variables.get(MARK) == self.settings.mark:
                found.setdefault(variables.get(NAME, ""), []).append(process)
        return found

    def leaders(self) -> dict[str, psutil.Process]:
        """Those that we started ourselves. A child that outlived its parent stands for nobody."""
        address = Address.read(self.directory / "snowflake")
        found = {}
        for name, processes in self.processes().items():
            for it in processes:
                with contextlib.suppress(ProcessLookupError):
                    if it.pid == (address and address.pid if name == SNOWFLAKE else os.getpgid(it.pid)):
                        found[name] = it
        return found

    def missing(self) -> list[str]:
        """Those of our processes that do not run."""
        leaders = self.leaders()
        return [name for name in (SNOWFLAKE, *COMPONENTS) if name not in leaders]

    def start(self, names: list[str]) -> Airflow:
        """Start these, and wait until everything is well."""
        _say("Starting a local Snowflake and Airflow: takes about half a minute")
        if SNOWFLAKE in names:
            self._start_snowflake()
        airflow = self.airflow()
        _write_private(self.directory / "airflow" / "passwords.json", {"admin": self.settings.password})
        components = [name for name in COMPONENTS if name in names]
        if len(components) == len(COMPONENTS):
            airflow.command("db", "migrate")
        for component in components:
            airflow.start(component, {MARK: self.settings.mark, NAME: component})
        _wait_until_well(airflow)
        return airflow

    def airflow(self) -> Airflow:
        """Airflow as its processes, and commands about it, see it.

        :raises AirflowFailed: if the local Snowflake does not run: nobody knows its address then.
        """
        address = Address.read(self.directory / "snowflake")
        if address is None:
            raise AirflowFailed("The local Snowflake does not run: make up")
        home = self.directory / "airflow"
        home.mkdir(exist_ok=True)
        it = self.settings
        variables = airflow_environment(
            home,
            DAGS,
            ports=(it.airflow_port, it.worker_logs_port, it.trigger_logs_port),
            secret=it.secret,
            parallelism=4,
            settings={
                "core": {
                    "dags_are_paused_at_creation": True,
                    "simple_auth_manager_passwords_file": home / "passwords.json",
                }
            },
        )
        # Without the first, titles that processes give themselves overwrite the mark.
        variables |= {"SPT_NOENV": "1", **address.environment()}
        return Airflow(home, variables, f"http://127.0.0.1:{it.airflow_port}", it.password)

    def end(self) -> int:
        """End everything of ours that runs, Airflow first; say how many processes there were."""
        count = 0
        leaders = self.leaders()
        for names in (COMPONENTS, (SNOWFLAKE,)):
            processes = self._ours(names)
            count += len(processes)
            leading = [leaders[name] for name in names if name in leaders]
            # The local Snowflake ends its children itself, when what they do is written.
            for process in leading if names == (SNOWFLAKE,) else processes:
                _signal(process, signal.SIGTERM)
            psutil.wait_procs(leading, GRACE)
            while left := self._ours(names):  # also what nobody leads any more
                for process in left:
                    _signal(process, signal.SIGKILL)
                psutil.wait_procs(left, 1)
        return count

    def summary(self) -> str:
        """Where everything is, how to log in, what to do first, how to end it."""
        it = self.settings
        here = _relative(self.directory)
        python = _relative(Path(sys.executable))
        option = [] if self.directory == ROOT / ".up" else ["--directory", str(here)]
        me = shlex.join([str(python), "scripts/up.py", *option])
        down = "make down" if not option else f"{me} down"
        return f"""
  Airflow          http://127.0.0.1:{it.airflow_port}   user: admin   password: {it.password}
  Local Snowflake  https://localhost:{it.snowflake_port}  in Airflow: the connection snowflake_default
                   in a shell: eval "$({python.parent}/snowml-local env --data-dir {here}/snowflake)"

The example DAGs are paused and their schedules have ended: nothing runs until you say so. To begin with:

  {me} airflow dags unpause --yes --treat-dag-id-as-regex 'flight_delays_.*'
  {me} airflow dags trigger flight_delays_load
  {me} airflow backfill create --dag-id flight_delays_retrain \\
      --from-date 2013-01-14 --to-date 2013-01-22 --max-active-runs 1
  {me} airflow backfill create --dag-id flight_delays_score \\
      --from-date 2013-01-28 --to-date 2013-02-03T23:00 --max-active-runs 3
  {me} airflow dags trigger flight_delays_serve

each when the one before has succeeded. To end everything: {down}. What was done stays in {here}/ for the next
time; removing that directory forgets it.
"""

    def _start_snowflake(self) -> None:
        data = self.directory / "snowflake"
        log = self.directory / "snowml-local.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow_provider_snowml.local", "serve",
                 "--port", str(self.settings.snowflake_port), "--data-dir", str(data)],
                env=os.environ | {MARK: self.settings.mark, NAME: SNOWFLAKE},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while (address := Address.read(data)) is None or address.pid != process.pid:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AirflowFailed(f"The local Snowflake did not start:\n{tail(log)}")
            time.sleep(0.1)

    def _ours(self, names: tuple[str, ...]) -> list[psutil.Process]:
        return [it for name, processes in self.processes().items() if name in names for it in processes]


def _wait_until_well(airflow: Airflow) -> None:
    """Wait until all components are healthy and the example DAGs are there, or their errors."""
    started = datetime.now(UTC)
    deadline = time.monotonic() + PATIENCE
    wanted = {file.stem for file in DAGS.glob("*.py")}
    while True:
        airflow.check_processes()
        with contextlib.suppress(OSError):
            health = airflow.get("monitor/health")
            unwell = [name for name, it in health.items() if not _is_well(name, it, since=started)]
            missing = wanted - {dag["dag_id"] for dag in airflow.get("dags")["dags"]}
            errors = airflow.get("importErrors")["import_errors"]
            if not unwell and (not missing or errors):
                for error in errors:
                    _say(f"{error['filename']} cannot be imported:\n{error['stack_trace']}")
                return
            if time.monotonic() > deadline:
                raise AirflowFailed(f"Not well: {unwell}; DAGs not found: {sorted(missing)}")
        if time.monotonic() > deadline:
            raise AirflowFailed(f"{airflow.url} does not answer. Logs: {airflow.home}")
        time.sleep(1)


def _is_well(name: str, health: dict[str, str | None], *, since: datetime) -> bool:
    """Whatever ended a moment ago is called healthy for a while: only a heartbeat of now counts."""
    beat = health.get(f"latest_{name}_heartbeat")
    alive = name == "metadatabase" or (beat is not None and datetime.fromisoformat(beat) > since)
    return alive and health["status"] == "healthy"


def up(directory: Path) -> int:
    """Start what does not run yet."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(directory):
        here = Up(directory, Settings.of(directory) or Settings.new())
        missing = here.missing()
        if not missing:
            print("It is running already." + here.summary())
            return 0
        if len(missing) == len(COMPONENTS) + 1:
            here.end()  # children of processes that were killed
            here.settings.move_to_free_ports()
        here.settings.write(directory)
        try:
            here.start(missing)
        except AirflowFailed as failure:
            here.end()
            print(f"{failure}\nEverything is ended again; the logs are in {directory}.", file=sys.stderr)
            return 1
        except BaseException:
            here.end()
            raise
        print(here.summary())
    return 0


def down(directory: Path) -> int:
    """End what runs."""
    settings = Settings.of(directory)
    if settings is None:
        print(f"Nothing was ever started in {_relative(directory)}.")
        return 0
    with _alone(directory):
        count = Up(directory, settings).end()
    print(f"{count} processes are ended." if count else "Nothing runs.")
    return 0


def airflow(directory: Path, arguments: list[str]) -> int:
    """Run an ``airflow`` command about the running Airflow."""
    settings = Settings.of(directory)
    if settings is None:
        raise AirflowFailed("Nothing runs: make up")
    environment = Up(directory, settings).airflow().environment
    return subprocess.run([sys.executable, "-m", "airflow", *arguments], env=environment).returncode


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait for another ``make up`` or ``make down`` of this directory."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_free(port: int) -> bool:
    with socket.socket() as it:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            it.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _write_private(file: Path, content: dict[str, object]) -> None:
    file.parent.mkdir(exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        json.dump(content, f)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)  # looks first whether the number is still this process's


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A local Snowflake and an Airflow that stay.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".up", help="where all is kept")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start what does not run")
    commands.add_parser("down", help="end what runs")
    of_airflow = commands.add_parser("airflow", help="an airflow command about the running Airflow")
    of_airflow.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    directory = options.directory.resolve()
    # A terminated `make up` ends what it had started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if options.command == "airflow":
            return airflow(directory, options.arguments)
        return up(directory) if options.command == "up" else down(directory)
    except AirflowFailed as failure:
        print(failure, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
