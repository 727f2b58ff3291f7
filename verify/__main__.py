"""``make verify CONN=... POOL=...``: what we believe of Snowflake, tried on a real connection.

Everything happens in a schema of its own, which is removed at the end, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

CONN_ID = "snowml_verify"


def main() -> int:
    """0 if nothing differs and nothing is left behind."""
    parser = argparse.ArgumentParser(prog="verify", description=__doc__)
    parser.add_argument(
        "--conn",
        default=os.environ.get("CONN"),
        help="an Airflow connection's id, or its URI or JSON; or $CONN",
    )
    parser.add_argument(
        "--pool", default=os.environ.get("POOL"), help="a compute pool for the jobs; or $POOL"
    )
    parser.add_argument("--patience", type=float, default=1800, help="seconds that one job may take")
    parser.add_argument("--only", action="append", default=[], help="the name of a check; may be repeated")
    parser.add_argument("--list", action="store_true", help="say what would be checked")
    arguments = parser.parse_args()

    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TQDM_DISABLE", "1")  # log_model's progress would stand between the lines
    from verify import beliefs, contract, reruns  # noqa: F401 - they register themselves
    from verify.checks import CHECKS

    unknown = set(arguments.only) - set(CHECKS)
    if unknown:
        parser.error(f"there is no check {', '.join(sorted(unknown))}; --list names them")
    if arguments.list:
        print("\n".join(f"{check.name}: {check.belief}" for check in CHECKS.values()))
        return 0
    if not arguments.conn:
        parser.error("say which connection: make verify CONN=<Airflow connection id, URI or JSON>")
    conn_id = arguments.conn
    if "://" in conn_id or conn_id.lstrip().startswith("{"):
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = conn_id
        conn_id = CONN_ID
    # As Ctrl-C, so that both clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return verify(conn_id, arguments.pool or None, arguments.patience, arguments.only or list(CHECKS))


def verify(conn_id: str, pool: str | None, patience: float, names: list[str]) -> int:
    """Run the checks, remove everything, report."""
    from verify import lanes
    from verify.checks import CHECKS
    from verify.place import Place

    place = Place(conn_id, pool, patience)
    print(f"In schema {place.schema.sql}, jobs in {pool or 'no compute pool'}", flush=True)
    counts = {lanes.HOLDS: 0, lanes.DIFFERS: 0, lanes.NOT_TRIED: 0}

    def report(name: str, how: str, seen: str) -> None:
        counts[how] += 1
        print(f"{how:>9}  {name}" + (f": {seen}" if seen else ""), flush=True)

    try:
        place.make()
        lanes.run(place, [check for check in CHECKS.values() if check.name in names], report)
    except KeyboardInterrupt:
        print("Interrupted.", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # once is enough: what was made is removed first
        print("Removing what was made ...", flush=True)
        left = place.remove()
    print(", ".join(f"{number} {kind}" for kind, number in counts.items()) + f", of {len(names)}")
    print("Left behind: " + ("; ".join(left) if left else "nothing"))
    if counts[lanes.DIFFERS] or left or sum(counts.values()) < len(names):
        return 1
    if pool is None and counts[lanes.NOT_TRIED]:
        print("No job was tried: name a compute pool (POOL=...).")
    return 2 if counts[lanes.NOT_TRIED] else 0


if __name__ == "__main__":
    sys.exit(main())
