"""What is read off the code, so that it cannot go stale.

``snowml-code``: a function of a file, or the statement that makes an operator, by name.

``snowml-privileges``: what each operator and sensor says in its docstring that the role needs.
``snowml-statements``: the statements that the local Snowflake answers, and ``snowml-functions``: the
functions, as the code registers them. ``snowml-metrics``: the metrics of its model monitors.
``snowml-faults``: what can go wrong on demand. ``snowml-contract``: what ``make verify`` tries of the batch
contract.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).parents[2] / "airflow_provider_snowml"


def privileges() -> Iterator[tuple[str, str, str]]:
    """Class, privileges and Snowflake's page of each operator and sensor."""
    for module in [*sorted(PACKAGE.glob("operators/*.py")), *sorted(PACKAGE.glob("sensors/*.py"))]:
        for node in ast.parse(module.read_text()).body:
            if not isinstance(node, ast.ClassDef) or not re.match(r"SnowML\w+(Operator|Sensor)$", node.name):
                continue
            name = f"airflow_provider_snowml.{module.parent.name}.{module.stem}.{node.name}"
            found = re.search(r"^Privileges: (.+?)$\n\n", ast.get_docstring(node) + "\n\n", re.M | re.S)
            if found is None:
                raise ValueError(f"{name} has no paragraph 'Privileges:' in its docstring.")
            text, _, page = " ".join(found[1].split()).partition(" See https://")
            yield name, text, f"https://{page.rstrip('.')}" if page else ""


def registered(decorator: str) -> list[str]:
    """The texts that are given to a decorator anywhere in the local Snowflake."""
    calls = (
        call
        for module in sorted(PACKAGE.glob("local/*.py"))
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.FunctionDef)
        for call in node.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator
    )
    return sorted(argument.value for call in calls for argument in call.args)


class Code(SphinxDirective):
    """A piece of a Python file: ``path name``."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        text = Path(path).read_text()
        node = _piece(ast.parse(text), self.arguments[1])
        if node is None:
            raise self.error(f"{relative} neither defines nor calls {self.arguments[1]}.")
        code = textwrap.dedent("\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))
        return [nodes.literal_block(code, code, language="python")]


def _piece(tree: ast.Module, name: str) -> ast.stmt | None:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=found) if found == name:
                return node
            case ast.Assign(value=ast.Call(func=ast.Name(id=found))) if found == name:
                return node
    return None


class _Generated(SphinxDirective):
    """Stands for a few lines of Markdown."""

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.lines()))


class Privileges(_Generated):
    """A table of what each operator and sensor needs."""

    def lines(self) -> Iterator[str]:
        yield "| | privileges | Snowflake says |"
        yield "|---|---|---|"
        for name, text, page in privileges():
            where = f"[{page.rstrip('/').rpartition('/')[2]}]({page})" if page else ""
            yield f"| {{py:class}}`~{name}` | {text} | {where} |"


class Statements(_Generated):
    """A table of the statements that are answered by a handler of their own."""

    def lines(self) -> Iterator[str]:
        by_verb: dict[str, list[str]] = {}
        for pattern in registered("statement"):
            verb, _, rest = pattern.partition(" ")
            by_verb.setdefault(verb if rest else "", []).append(rest or verb)
        yield "| | |"
        yield "|---|---|"
        for verb, rests in sorted(by_verb.items(), key=lambda item: (not item[0], item[0])):
            yield f"| {_codes([verb]) if verb else ''} | {_codes(rests)} |"


class Functions(_Generated):
    """The functions of Snowflake's own that are answered."""

    def lines(self) -> Iterator[str]:
        for decorator, kind in (("system_function", "Scalar"), ("table_function", "Table")):
            # These stand for something that has no function's name in Snowflake.
            inner = ("SNOWML_", "VIEW.", "SYSTEM$SNOWML_LOCAL_")
            names = [name for name in registered(decorator) if not name.startswith(inner)]
            yield f"{kind} functions: {_codes(names)}."
            yield ""


class Metrics(_Generated):
    """The metrics that the local Snowflake computes, and those that it refuses by name."""

    def lines(self) -> Iterator[str]:
        from airflow_provider_snowml.local.monitor_metrics import DRIFT, PERFORMANCE, STAT

        performance = {name: metric.compute for name, metric in PERFORMANCE.items()}
        yield "| function | computed | refused by name |"
        yield "|---|---|---|"
        for function, metrics in (("DRIFT", DRIFT), ("PERFORMANCE", performance), ("STAT", STAT)):
            computed = [name for name, compute in metrics.items() if compute]
            refused = [name for name, compute in metrics.items() if not compute]
            yield f"| `MODEL_MONITOR_{function}_METRIC` | {_codes(computed)} | {_codes(refused)} |"


class Faults(_Generated):
    """What can go wrong on demand."""

    def lines(self) -> Iterator[str]:
        from airflow_provider_snowml.local.faults import KINDS

        yield "| kind | what happens |"
        yield "|---|---|"
        for kind, meaning in KINDS.items():
            yield f"| `{kind}` | {_escaped(meaning)} |"


class Contract(_Generated):
    """What ``make verify`` tries of the batch contract."""

    def lines(self) -> Iterator[str]:
        yield "| check | |"
        yield "|---|---|"
        for module in ("contract", "reruns"):
            for node in ast.parse((PACKAGE.parent / "verify" / f"{module}.py").read_text()).body:
                for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                    if isinstance(call, ast.Call):  # else it is no check
                        name, belief, *_ = call.args
                        yield f"| `{name.value}` | {_escaped(belief.value)} |"


def _codes(texts: list[str]) -> str:
    return ", ".join(f"`{_escaped(text)}`" for text in texts)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("snowml-code", Code)
    app.add_directive("snowml-privileges", Privileges)
    app.add_directive("snowml-statements", Statements)
    app.add_directive("snowml-functions", Functions)
    app.add_directive("snowml-metrics", Metrics)
    app.add_directive("snowml-faults", Faults)
    app.add_directive("snowml-contract", Contract)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
