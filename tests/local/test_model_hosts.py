from __future__ import annotations

from airflow_provider_snowml.local.model_hosts import MAX_PROCESSES, ModelHosts


def test_the_process_of_a_model_that_is_busy_is_not_the_one_that_has_to_go(tmp_path) -> None:
    hosts = ModelHosts(tmp_path / "models.log")
    try:
        busy = hosts._host("busy", tmp_path)
        with busy.held(None):
            idle = [hosts._host(f"V{n}", tmp_path) for n in range(MAX_PROCESSES)]
            assert busy.alive
            assert [host.alive for host in idle] == [False] + [True] * (MAX_PROCESSES - 1)
        hosts._host("another", tmp_path)
        assert not busy.alive
    finally:
        hosts.close()
