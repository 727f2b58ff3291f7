"""docker-compose.yaml: valid, without a secret in it, and its services run, though not in containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from pod import COMPOSE, ROOT, Pod, why_not
from write_env import text

AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
VARIABLES = dict(line.split("=", 1) for line in text().splitlines())


def compose_program() -> list[str] | None:
    """Whatever Compose is installed; either kind can check a file without an engine."""
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.mark.skipif(compose_program() is None, reason="not run: Docker Compose not installed")
def test_compose_finds_it_valid(tmp_path):
    (tmp_path / ".env").write_text(text())
    command = [*compose_program(), "--env-file", str(tmp_path / ".env"), "--file", str(COMPOSE), "config"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {
        "postgres",
        "snowml-local",
        "airflow-init",
        *AIRFLOW,
    }

    broken = tmp_path / "broken.yaml"
    broken.write_text(COMPOSE.read_text().replace("healthcheck:", "healtcheck:"))
    command[command.index(str(COMPOSE))] = str(broken)
    assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.skipif(compose_program() is None, reason="not run: Docker Compose not installed")
def test_without_secrets_it_says_how_to_make_them(tmp_path):
    (tmp_path / ".env").touch()
    command = [*compose_program(), "--env-file", str(tmp_path / ".env"), "--file", str(COMPOSE), "config"]
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)
    assert done.returncode != 0
    assert "run make env first" in done.stderr


def test_make_env_writes_what_the_file_asks_for_once(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "write_env.py", tmp_path / "scripts")
    shutil.copy(ROOT / "Makefile", tmp_path)
    command = ["make", "--silent", "env", "PYTHON=python3"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    env = tmp_path / ".env"
    assert env.stat().st_mode & 0o777 == 0o600
    written = env.read_text()
    assert [line.split("=")[0] for line in written.splitlines()] == list(VARIABLES)
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert env.read_text() == written


def test_only_this_machine_gets_in():
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_image_holds_what_it_copies():
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    ]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


@pytest.fixture(scope="module")
def pod(tmp_path_factory) -> Iterator[Pod]:
    """Everything, started in the order that the file demands, and healthy."""
    if reason := why_not():
        pytest.skip(reason)
    with Pod(tmp_path_factory.mktemp("pod"), VARIABLES) as pod:
        pod.start(*AIRFLOW)
        yield pod


def test_every_service_gets_healthy(pod):
    assert set(pod.processes) == set(pod.services)
    ended = {name for name, process in pod.processes.items() if process.poll() is not None}
    assert ended == {"airflow-init"}


# Logs in, runs a DAG, waits for its end, and says how it ended.
RUN_DAG = """
import json, sys, time, urllib.request as it
password, dag_id = sys.argv[1:]
url, headers = "http://airflow-api-server:8080", {"Content-Type": "application/json"}
def call(path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    return json.load(it.urlopen(it.Request(url + path, data, headers, method=method), timeout=60))
token = call("/auth/token", {"username": "admin", "password": password})["access_token"]
headers["Authorization"] = f"Bearer {token}"
call(f"/api/v2/dags/{dag_id}", {"is_paused": False}, "PATCH")
run = call(f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})
while run["state"] in ("queued", "running"):
    time.sleep(1)
    run = call(f"/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}")
print(run["state"])
"""


def test_only_the_password_of_env_opens_airflow(pod):
    refused = pod.run("airflow-api-server", "python", "-c", RUN_DAG, "guessed", "flight_delays_load")
    assert "401" in refused.stderr


def test_an_example_runs_and_its_rows_are_in_the_local_snowflake(pod):
    arguments = (VARIABLES["AIRFLOW_PASSWORD"], "flight_delays_load")
    done = pod.run("airflow-api-server", "python", "-c", RUN_DAG, *arguments)
    assert done.stdout == "success\n", done.stderr + pod.output("airflow-scheduler")
    query = """
from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook
print("flights:", SnowflakeHook("snowflake_default").get_first("SELECT COUNT(*) FROM FLIGHTS")[0])
"""
    done = pod.run("airflow-scheduler", "python", "-c", query)
    assert "flights: 336776" in done.stdout, done.stdout + done.stderr
