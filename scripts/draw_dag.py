"""Draw an example DAG for the README: ``python scripts/draw_dag.py flight_delays_retrain``.

Needs Graphviz's ``dot`` and ``tred`` (Debian: ``apt-get install graphviz``).
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS, BRANCH, OTHER = ("#dbeafe", "#1d4ed8"), ("#fef3c7", "#b45309"), ("#f3f4f6", "#9ca3af")


def graph(dag_id: str) -> str:
    """The DAG in Graphviz's language; this package's operators are blue, a branch is yellow."""
    sys.path.insert(0, str(ROOT / "example_dags"))
    dag = getattr(importlib.import_module(dag_id), dag_id)()
    lines = [
        'rankdir=LR; bgcolor="white"; pad=0.2; nodesep=0.18; ranksep=0.32;',
        'node [shape=box style="rounded,filled" fontname="Helvetica" fontsize=11 height=0.36];',
        'edge [color="#6b7280" arrowsize=0.6];',
    ]
    for task in dag.tasks:
        name = type(task).__name__
        is_branch = getattr(task, "inherits_from_skipmixin", False)
        fill, line = BRANCH if is_branch else OURS if name.startswith("SnowML") else OTHER
        lines.append(f'"{task.task_id}" [fillcolor="{fill}" color="{line}"];')
        lines += [f'"{task.task_id}" -> "{other}";' for other in sorted(task.downstream_task_ids)]
    return "digraph {\n" + "\n".join(lines) + "\n}"


def main(dag_id: str) -> None:
    picture = ROOT / "docs" / "images" / f"{dag_id}.png"
    reduced = subprocess.run(["tred"], input=graph(dag_id), text=True, capture_output=True, check=True)
    subprocess.run(
        ["dot", "-Tpng", "-Gdpi=110", "-o", str(picture)], input=reduced.stdout, text=True, check=True
    )
    print(picture)


if __name__ == "__main__":
    main(sys.argv[1])
