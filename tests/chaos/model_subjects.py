"""The life of a model, killed: what is registered, judged, promoted, taken back and retired."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

from snowflake.connector.errors import ProgrammingError
from subject import Subject
from world import SCHEMA

OPERATORS = "airflow_provider_snowml.operators"
SNOWFLAKE_S_OWN = ("FIRST", "LAST")
LABELLED = f"SELECT F1, IFF(F1 > 40, 1, 0) AS LATE FROM {SCHEMA}.X"  # V2 is right, V1 is not


@dataclass
class OfModel(Subject):
    """Something is done to a model of the case's own, whose versions are copies of the world's two.

    V1 is the champion. At every moment the default and the aliases name only versions that have ``passed``.
    """

    watched = "^(ALTER|CREATE|DROP)"
    versions: ClassVar[tuple[str, ...]] = ("V1", "V2", "V3")
    champions: ClassVar[tuple[str, ...]] = ("V1",)  # one after the other
    passed: ClassVar[tuple[str, ...]] = ("V1",)
    noted: list[str] = field(default_factory=list)

    @property
    def own(self) -> str:
        return f"{SCHEMA}.L_{self.name}"

    @property
    def looked_at(self) -> str:
        """The model whose readers are watched."""
        return self.own

    def before(self) -> None:
        self.make_model(self.own)

    def make_model(self, name: str) -> None:
        """V2 is one copy, all others are of the other."""
        for version in self.versions:
            source = f"FROM MODEL {self.model} VERSION {'V2' if version == 'V2' else 'V1'}"
            how = "CREATE MODEL {} WITH" if version == self.versions[0] else "ALTER MODEL {} ADD"
            self.control.rows(f"{how.format(name)} VERSION {version} {source}")
            self.set_metrics(name, version, auc=0.9, of=version)
        for month, version in enumerate(self.champions, 1):
            self.promote(name, version, trained_until=f"2013-0{month}-01")

    def set_metrics(self, model: str, version: str, **metrics: Any) -> None:
        """As snowflake-ml keeps them."""
        metadata = json.dumps({"snowpark_ml_schema_version": "2024-01-01", "metrics": metrics})
        self.control.rows(f"ALTER MODEL {model} MODIFY VERSION {version} SET METADATA = '{metadata}'")

    def promote(self, model: str, version: str, **arguments: Any) -> None:
        """Without a crash, in this process."""
        from airflow_provider_snowml.operators.promotion import SnowMLPromoteModelOperator

        task = SnowMLPromoteModelOperator(
            task_id="before", model_name=model, version_name=version, **arguments
        )
        task.execute({"ti": SimpleNamespace(dag_id="chaos", run_id="before")})

    def after_crash(self) -> None:
        self.watch()

    def watch(self) -> None:
        for mark, version in self.marks().items():
            if version not in self.passed:
                self.noted.append(f"{mark} named {version}, which has not passed")

    # -- what is there ----------------------------------------------------------------------------------

    def shown(self, model: str = "") -> dict[str, dict[str, Any]]:
        """The versions by name; none if there is no such model."""
        try:
            rows = self.control.rows(f"SHOW VERSIONS IN MODEL {model or self.looked_at}")
        except ProgrammingError:
            return {}
        return {row["name"]: row for row in rows}

    def marks(self, model: str = "") -> dict[str, str]:
        """Which version the default and each alias name."""
        return {
            alias: name
            for name, row in self.shown(model).items()
            for alias in json.loads(row["aliases"])
            if alias not in SNOWFLAKE_S_OWN
        }

    def metrics(self, version: str, model: str = "") -> dict[str, Any]:
        row = self.shown(model).get(version, {})
        return dict(json.loads(row.get("metadata") or "{}").get("metrics") or {})

    def tag(self, tag: str, model: str = "") -> str | None:
        return self.control.value(f"SELECT SYSTEM$GET_TAG('{tag}', '{model or self.looked_at}', 'MODULE')")

    def comment(self) -> str:
        name = self.looked_at.split(".")[-1]
        return str(self.control.rows(f"SHOW MODELS LIKE '{name}' IN SCHEMA {SCHEMA}")[0]["comment"])

    def compared(self, **pairs: tuple[Any, Any]) -> list[str]:
        """What is not as it must be; each pair is what is there and what must be."""
        wrong = [
            f"{what} is {found!r} instead of {wanted!r}"
            for what, (found, wanted) in pairs.items()
            if found != wanted
        ]
        return [*self.noted, *wrong]


@dataclass
class Evaluate(OfModel):
    """A version's metrics, beside those that it has."""

    operator = f"{OPERATORS}.evaluation.SnowMLEvaluateModelOperator"

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.own,
            "version_name": "V2",
            "input_query": LABELLED,
            "label_column": "LATE",
            "task": "binary_classification",
            "prediction_column": "output_feature_0",
            "positive_class": 1,
            "metrics": ["accuracy", "recall"],
        }

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        stored = self.metrics("V2")
        numbers = {"accuracy": 1.0, "recall": 1.0}
        return self.compared(
            stored=(stored.pop("evaluation", {}).get("metrics"), numbers),
            others=(stored, {"auc": 0.9, "of": "V2"}),
            marks=(self.marks(), {"DEFAULT": "V1", "CHAMPION": "V1"}),
            xcom=((xcom["metrics"], xcom["rows"], xcom["version"]), (numbers, 60, "V2")),
        )


@dataclass
class Contest(Evaluate):
    """The challenger wins, and is not promoted by that."""

    operator = "model_tasks.contest"

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        del arguments["version_name"]
        return {**arguments, "challenger_version": "V2", "metric": "accuracy"}

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        stored = self.metrics("V2")
        told = stored.pop("champion_challenger", {})
        return self.compared(
            told=((told.get("outcome"), (told.get("champion") or {}).get("version")), ("better", "V1")),
            others=(stored, {"auc": 0.9, "of": "V2"}),
            marks=(self.marks(), {"DEFAULT": "V1", "CHAMPION": "V1"}),
            xcom=((xcom["outcome"], xcom["version"], xcom["champion"]), ("better", "V2", "V1")),
            skipped=(xcom["skipped"], ["keep"]),
            tables=([row["name"] for row in self.control.rows(f"SHOW TABLES LIKE '%TEMP%' IN {SCHEMA}")], []),
        )
