"""The process of one instance of a model's service.

Loads the uploaded package once and answers HTTP on a port of the loopback interface: ``POST
/<method>``, with ``-`` for ``_``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .containers import FAILED, PENDING, RUNNING, write_state
from .job_worker import log
from .service_requests import BadRequest, read


class Function:
    """A method of the model, ready to be called."""

    def __init__(self, handler: Any, spec: dict[str, Any]) -> None:
        from .handlers import argument_names

        self._handler = handler
        self._inputs: list[str] = spec["inputs"]
        self._params: list[str] = spec["params"]
        if (names := argument_names(handler)) is not None:
            self._inputs, self._params = names
        self._output = spec["output"]

    def __call__(self, body: Any) -> dict[str, Any]:
        import pandas as pd

        from .handlers import call_function

        ids, rows = read(body, self._inputs, self._params)
        if not rows:
            return {"data": []}
        columns = list(zip(*rows, strict=True))
        frame = pd.DataFrame({f"c{i}": list(values) for i, values in enumerate(columns)})
        answers = call_function(self._handler, frame)
        if len(answers) != len(rows):
            raise ValueError(f"The model returned {len(answers)} rows for {len(rows)}.")
        named = [a if isinstance(a, dict) else {self._output: a} for a in answers]
        return {"data": [[id_, answer] for id_, answer in zip(ids, named, strict=True)]}


class Server(ThreadingHTTPServer):
    """:param functions: by path; :param at_once: how many requests the model works on."""

    daemon_threads = True

    def __init__(self, functions: dict[str, Function], at_once: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.functions = functions
        self.turn = threading.Semaphore(at_once)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        known = ", ".join(self.server.functions)
        self._answer(*((200, {"status": "ok"}) if self.path == "/" else (404, {"error": f"POST to {known}"})))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        function = self.server.functions.get(self.path)
        if function is None:
            known = ", ".join(self.server.functions)
            self._answer(404, {"error": f"no function at {self.path}; there is {known}"})
            return
        try:
            with self.server.turn:
                answer = function(json.loads(body))
        except (BadRequest, ValueError, TypeError, KeyError) as e:
            if not isinstance(e, BadRequest):
                traceback.print_exc()
            self._answer(400, {"error": str(e)})
        except Exception as e:
            traceback.print_exc()
            self._answer(500, {"error": f"{type(e).__name__}: {e}"})
        else:
            self._answer(200, answer)

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        from .handlers import json_default

        payload = json.dumps(content, default=json_default).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *values: Any) -> None:  # noqa: A002
        log(format % values)


def _end_with_server() -> None:
    """A server that was killed leaves no instance behind; the next one starts them again."""
    server = multiprocessing.parent_process()
    if server is not None:
        server.join()
        os._exit(1)


def main(name: str) -> None:
    """:param name: the container's directory."""
    threading.Thread(target=_end_with_server, daemon=True).start()
    directory = Path(name)
    spec = json.loads((directory / "spec.json").read_text())
    try:
        write_state(directory, PENDING, "Loading the model")
        log(f"Loading {spec['model']} version {spec['version']}")
        from .handlers import Package

        package = Package(Path(spec["package"]))
        functions = {f["path"]: Function(package.load(f["handler"]), f) for f in spec["functions"]}
        server = Server(functions, spec["num_workers"])
    except BaseException as e:
        traceback.print_exc()
        write_state(directory, FAILED, f"The model cannot be loaded: {type(e).__name__}: {e}"[:1000])
        sys.exit(1)
    log(f"Model loaded, answering {', '.join(functions)}")
    write_state(directory, RUNNING, "Running", port=server.server_address[1])
    server.serve_forever()
