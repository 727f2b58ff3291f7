from __future__ import annotations

from pathlib import Path

from airflow_provider_snowml.local import containers
from airflow_provider_snowml.local.containers import CANCELLED, PENDING, RUNNING, Containers, write_state


def dies(directory: str) -> None:
    write_state(Path(directory), RUNNING, "Running")


def test_whoever_looks_while_one_is_started_again_reads_all_or_nothing_of_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(containers, "LONGEST_PAUSE", 0.0)
    kept = Containers(tmp_path)
    try:
        kept.create("c", {})
        kept.start("c", dies)
        kept.keep("c", dies)
        counts, statuses = [0], set()
        while counts[-1] < 60:
            counts.append(kept.restarts("c")["count"])
            statuses.add(kept.written("c")["status"])
    finally:
        kept.close()
    assert counts == sorted(counts)
    assert statuses == {PENDING, RUNNING}


def test_one_that_is_ended_before_it_starts_does_not_run(tmp_path) -> None:
    """A job is cancelled between its entry in the catalog and its process."""
    kept = Containers(tmp_path)
    try:
        kept.create("c", {})
        kept.end("c", CANCELLED, "Cancelled")
        kept.start("c", dies)
        assert not kept.alive("c")
        assert kept.state("c")["status"] == CANCELLED
        kept.remove("c")
        kept.start("c", dies)  # dropped meanwhile
        assert not kept.directory("c").exists()
    finally:
        kept.close()
