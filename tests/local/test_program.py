"""``snowml-local`` as a program: serve, env, stop; what survives a restart and a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import snowflake.connector

COMMAND = [sys.executable, "-m", "airflow_provider_snowml.local"]


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, **options)


class Served:
    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0", "--data-dir", str(data_dir), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.line = self.process.stdout.readline()

    def parameters(self) -> dict:
        return json.loads(run("env", "--json", "--data-dir", str(self.data_dir)).stdout)


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(*arguments: str) -> Served:
        served = Served(tmp_path / "data", *arguments)
        started.append(served)
        return served

    yield start
    for served in started:
        served.process.kill()
        served.process.wait()
        served.process.stdout.close()


def connect(parameters: dict, bundle: Path, monkeypatch):
    if bundle.exists():
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    return snowflake.connector.connect(**parameters)


def test_serve_env_stop(serve, monkeypatch, tmp_path):
    served = serve()
    parameters = served.parameters()
    assert str(parameters["port"]) in served.line
    assert sorted(parameters) == sorted(
        ["user", "password", "account", "host", "port", "protocol", "database", "schema", "warehouse", "role"]
    )
    bundle = served.data_dir / "certificates" / "bundle.pem"
    with connect(parameters, bundle, monkeypatch) as connection:
        assert connection.cursor().execute("SELECT 1").fetchone() == (1,)
    exports = run("env", "--data-dir", str(served.data_dir)).stdout
    script = f"{exports}\n{sys.executable} -c 'import os; print(os.environ[\"REQUESTS_CA_BUNDLE\"])'"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert shell.stdout.strip() == str(bundle)
    assert "AIRFLOW_CONN_SNOWFLAKE_DEFAULT=" in exports
    assert run("stop", "--data-dir", str(served.data_dir)).returncode == 0
    assert served.process.wait(30) == 0
    gone = run("env", "--data-dir", str(served.data_dir))
    assert gone.returncode == 1 and "no server runs" in gone.stderr


def test_a_password_and_the_place_of_the_bundle_may_be_given(serve, monkeypatch, tmp_path):
    monkeypatch.setenv("SNOWML_LOCAL_PASSWORD", "given")
    bundle = tmp_path / "trust" / "bundle.pem"
    bundle.parent.mkdir()
    parameters = serve("--bundle", str(bundle)).parameters()
    assert parameters["password"] == "given"
    with connect(parameters, bundle, monkeypatch) as connection:
        assert connection.cursor().execute("SELECT 1").fetchone() == (1,)


def test_http(serve):
    served = serve("--http")
    parameters = served.parameters()
    assert parameters["protocol"] == "http"
    with snowflake.connector.connect(**parameters) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE STAGE st")
        cursor.execute(f"PUT file://{__file__} @st AUTO_COMPRESS=FALSE")
        assert cursor.execute("LIST @st").fetchone()[0] == "st/test_program.py"


def test_the_bundle_keeps_the_trust_there_was(serve):
    import certifi

    served = serve()
    bundle = (served.data_dir / "certificates" / "bundle.pem").read_text()
    trusted = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
    assert Path(trusted).read_text() in bundle


def test_what_is_private_is_readable_by_its_owner_only(serve):
    served = serve()
    for name in ("password", "server.json", "certificates/server.key", "certificates/authority.key"):
        assert (served.data_dir / name).stat().st_mode & 0o077 == 0


def test_a_second_server_on_one_directory_is_refused(serve, tmp_path):
    served = serve()
    second = run("serve", "--port", "0", "--data-dir", str(served.data_dir))
    assert second.returncode != 0 and "another server runs" in second.stderr
    assert served.process.poll() is None


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_state_survives_a_restart(serve, monkeypatch, how):
    served = serve()
    bundle = served.data_dir / "certificates" / "bundle.pem"
    with connect(served.parameters(), bundle, monkeypatch) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE DATABASE KEPT")
        cursor.execute("CREATE TABLE KEPT.PUBLIC.t AS SELECT 42 AS a")
        cursor.execute("CREATE VIEW KEPT.PUBLIC.v AS SELECT a + 1 AS b FROM KEPT.PUBLIC.t")
        cursor.execute("CREATE STAGE KEPT.PUBLIC.st")
        cursor.execute("COPY INTO @KEPT.PUBLIC.st/x/ FROM KEPT.PUBLIC.t FILE_FORMAT = (TYPE = PARQUET)")
        cursor.execute("CREATE FILE FORMAT KEPT.PUBLIC.ff TYPE = PARQUET")
        cursor.execute("CREATE TEMPORARY TABLE KEPT.PUBLIC.gone AS SELECT 1 AS a")
        cursor.execute("CREATE TEMPORARY STAGE KEPT.PUBLIC.gone_too")
        cursor.execute("CREATE WAREHOUSE KEPT_WH")
        os.kill(served.process.pid, how)
        served.process.wait(60)
        old = connection._password if hasattr(connection, "_password") else None
    again = serve()
    parameters = again.parameters()
    assert old is None or parameters["password"] == old
    with connect(parameters, bundle, monkeypatch) as connection:
        cursor = connection.cursor()
        assert cursor.execute("SELECT b FROM KEPT.PUBLIC.v").fetchone() == (43,)
        (count,) = cursor.execute(
            "SELECT COUNT(*) FROM @KEPT.PUBLIC.st/x/ (FILE_FORMAT => 'KEPT.PUBLIC.ff')"
        ).fetchone()
        assert count == 1
        assert cursor.execute("SHOW WAREHOUSES LIKE 'KEPT_WH'").fetchone()[0] == "KEPT_WH"
        assert [r[1] for r in cursor.execute("SHOW STAGES IN SCHEMA KEPT.PUBLIC").fetchall()] == ["ST"]
        shown = cursor.execute("SHOW TABLES IN SCHEMA KEPT.PUBLIC").fetchall()
        assert [r[1] for r in shown] == ["T"]


def test_the_context_manager_restores_the_environment(monkeypatch, has_ended):
    from airflow_provider_snowml.local import LocalSnowflake

    settings = ("REQUESTS_CA_BUNDLE", "SNOWFLAKE_DISABLE_PLATFORM_DETECTION")
    for name in settings:
        monkeypatch.delenv(name, raising=False)
    with LocalSnowflake() as local:
        pid = local.address.pid
        assert [os.environ[name] for name in settings] == [local.address.bundle, "true"]
        directory = local.data_dir
    assert not {*settings} & {*os.environ}
    assert not directory.exists()
    assert has_ended(pid)
    with pytest.raises(RuntimeError, match="inside its with block"):
        _ = local.connection_parameters


def test_the_server_ends_with_the_process_that_started_it(tmp_path, has_ended):
    script = (
        "import os, sys\n"
        "from airflow_provider_snowml.local import LocalSnowflake\n"
        f"local = LocalSnowflake({str(tmp_path / 'data')!r}).__enter__()\n"
        "print(local.address.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert has_ended(int(done.stdout), 30), "the server outlived its process"
