"""The process that builds the image of a model version. It only takes its time.

The model runs in the server's own environment: there is no image. What is real is what one sees of
a build: a job service that waits, runs, writes its log, can be cancelled and ends.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

from .containers import DONE, FAILED, RUNNING, write_state
from .job_worker import log, suffer

_STEPS = ("Resolving the model's dependencies", "Installing packages", "Pushing the image")


def main(name: str) -> None:
    """:param name: the container's directory."""
    directory = Path(name)
    spec = json.loads((directory / "spec.json").read_text())
    write_state(directory, RUNNING, "Running")
    try:
        log("Simulated by the local Snowflake: no image is built, the model runs in its environment.")
        log(f"Building image {spec['image']} for {spec['model']} version {spec['version']}")
        suffer(spec)
        for step in _STEPS:
            log(step)
            time.sleep(spec["seconds"] / len(_STEPS))
        log("Image build complete")
    except Exception as e:
        traceback.print_exc()
        write_state(directory, FAILED, f"{type(e).__name__}: {e}"[:1000])
        sys.exit(1)
    write_state(directory, DONE, "Completed successfully")
