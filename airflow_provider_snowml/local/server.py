"""The server process: certificates, the account, the wire, until it is told to stop."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import secrets
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette

from .account import Account
from .address import Address
from .certificates import Certificates
from .fault_gate import FaultGate
from .wire import Wire

_THREADS = 256  # a waiting writer or a long query holds one


def serve(
    *,
    data_dir: Path,
    host: str = "127.0.0.1",
    port: int = 8085,
    http: bool = False,
    hostnames: list[str] | None = None,
    bundle: Path | None = None,
    image_build_seconds: float = 1.0,
    faults: bool = False,
    until_stdin_closes: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT.

    :param port: 0 picks a free one.
    :param hostnames: further names or addresses that the certificate is valid for.
    :param bundle: where the certificates that clients are to trust are written; beside the keys when None.
    :param image_build_seconds: how long the image of a model version is in the making.
    :param faults: whether clients may ask for faults.
    :param until_stdin_closes: also stop when the process that started us is gone.
    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_server(data_dir), _listening(host, port) as listener:
        names = [*(hostnames or []), *([] if host in ("0.0.0.0", "::") else [host])]
        certificates = None if http else Certificates(data_dir / "certificates", names, bundle)
        address = Address(
            pid=os.getpid(),
            host=(hostnames or ["localhost"])[0],
            port=listener.getsockname()[1],
            protocol="http" if http else "https",
            password=_password(data_dir),
            bundle=None if certificates is None else str(certificates.bundle),
        )
        account = Account(data_dir, f"{address.host}:{address.port}", image_build_seconds, faults)
        app = Wire(account, address.password, tls=not http).app()
        app.router.lifespan_context = _threads
        server = _Server(
            uvicorn.Config(
                FaultGate(app, account) if faults else app,
                log_level="warning",
                timeout_keep_alive=120,
                timeout_graceful_shutdown=2,
                ssl_certfile=None if certificates is None else certificates.certificate,
                ssl_keyfile=None if certificates is None else certificates.key,
            )
        )
        if until_stdin_closes:
            _stop_with_stdin()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        address.write(data_dir)
        logging.getLogger("snowml.local").warning("serving %s", data_dir)
        print(f"snowml-local: {address.protocol}://{address.host}:{address.port}", flush=True)
        try:
            server.run(sockets=[listener])
        finally:
            account.close()
            Address.file(data_dir).unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn raises the signal again when it is done, and so ends before we have closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _password(data_dir: Path) -> str:
    """Made on first start, unless given; a client that kept it gets in after a restart too."""
    if given := os.environ.get("SNOWML_LOCAL_PASSWORD"):
        return given
    file = data_dir / "password"
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write(secrets.token_urlsafe(24))
    return file.read_text()


@contextlib.contextmanager
def _only_server(data_dir: Path) -> Iterator[None]:
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"snowml-local: another server runs on {data_dir}; stop it or name another --data-dir.")
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port or _free_port(host, family)))
        except OSError as e:
            sys.exit(f"snowml-local: cannot listen on {host}:{port} ({e.strerror}); try --port 0.")
        yield listener


def _free_port(host: str, family: socket.AddressFamily) -> int:
    """None of those that the system gives to whoever connects: a killed server gets its own again."""
    for port in random.sample(range(20_000, 32_768), 100):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as one:
            one.bind((host, port))
            return port
    return 0


@contextlib.asynccontextmanager
async def _threads(app: Starlette) -> AsyncIterator[None]:
    import asyncio

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield


def _stop_with_stdin() -> None:
    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
