"""``snowml-local``: serve, env, stop."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from .address import Address, default_data_dir
from .launch import missing_packages


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the console script.

    :param arguments: the command line, without the program's name.
    :return: the exit code.
    """
    parser = argparse.ArgumentParser(
        prog="snowml-local", description="A Snowflake on localhost for the unmodified clients."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the server in the foreground")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8085, help="0 picks a free one and prints it")
    serve.add_argument("--http", action="store_true", help="no TLS; PUT and GET then share a disk")
    serve.add_argument("--hostname", action="append", help="a name that clients use; may be repeated")
    serve.add_argument(
        "--bundle", type=Path, help="where to write the certificates that clients are to trust"
    )
    serve.add_argument("--image-build-seconds", type=float, default=1.0, help="how long an image build takes")
    serve.add_argument("--faults", action="store_true", help="let clients ask for faults")
    serve.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    env = commands.add_parser("env", help="print what clients of the running server need")
    env.add_argument("--json", action="store_true", help="connector parameters instead of exports")
    stop = commands.add_parser("stop", help="stop the running server")
    for command in (serve, env, stop):
        command.add_argument("--data-dir", type=Path, default=default_data_dir())
    options = parser.parse_args(arguments)
    if options.command == "serve":
        return _serve(options)
    address = Address.read(options.data_dir)
    if address is None:
        print(f"snowml-local: no server runs on {options.data_dir}.", file=sys.stderr)
        return 1
    if options.command == "env":
        print(json.dumps(address.connection_parameters) if options.json else address.shell_exports())
        return 0
    return _stop(address, options.data_dir)


def _serve(options: argparse.Namespace) -> int:
    if missing := missing_packages():
        print(
            f"snowml-local needs the extra 'local' (missing: {', '.join(missing)}): "
            "pip install 'airflow-provider-snowml[local]'",
            file=sys.stderr,
        )
        return 1
    from .server import serve

    serve(
        data_dir=options.data_dir,
        host=options.host,
        port=options.port,
        http=options.http,
        hostnames=options.hostname,
        bundle=options.bundle,
        image_build_seconds=options.image_build_seconds,
        faults=options.faults,
        until_stdin_closes=options.until_stdin_closes,
    )
    return 0


def _stop(address: Address, data_dir: Path) -> int:
    """Ask it to end; it takes its address away when everything is written."""
    os.kill(address.pid, signal.SIGTERM)
    for _ in range(300):
        if Address.read(data_dir) != address:
            return 0
        time.sleep(0.1)
    print(f"snowml-local: process {address.pid} does not end.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
