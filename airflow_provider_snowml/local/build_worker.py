"""The process that builds the image of a model version. It only takes its time.

The model runs in the server's own environment: there is no image. What is real is what one sees of
a build: a job service that waits, runs, writes its log, can be cancelled and ends.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from .containers import DONE, RUNNING, write_state

_STEPS = ("Resolving the model's dependencies", "Installing packages", "Pushing the image")


def main(name: str) -> None:
    """:param name: the container's directory."""
    directory = Path(name)
    spec = json.loads((directory / "spec.json").read_text())
    write_state(directory, RUNNING, "Running")
    print("Simulated by the local Snowflake: no image is built, the model runs in its environment.")
    print(f"Building image {spec['image']} for {spec['model']} version {spec['version']}")
    for step in _STEPS:
        print(step)
        time.sleep(spec["seconds"] / len(_STEPS))
    print("Image build complete")
    write_state(directory, DONE, "Completed successfully")
