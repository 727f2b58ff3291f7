"""What a model's life needs besides, killed: it is updated, exported, pruned and deleted; schemas of runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from model_subjects import OPERATORS, OfModel
from subject import Subject
from world import DAY, SCHEMA


@dataclass
class Update(OfModel):
    """A version's metrics, comment and alias, and the model's tag, comment and name."""

    operator = f"{OPERATORS}.model_update.SnowMLUpdateModelOperator"
    passed = ("V1", "V2")

    @property
    def looked_at(self) -> str:
        """By the name that it has at the moment."""
        return self.renamed if self.shown(self.renamed) else self.own

    @property
    def renamed(self) -> str:
        return f"{self.own}_RENAMED"

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.own,
            "version_name": "V2",
            "metrics": {"auc": 0.5, "more": 1, "of": None},
            "version_comment": "it's a version",
            "alias": "CANDIDATE",
            "tags": {f"{SCHEMA}.TEAM": "it's ours"},
            "comment": "it's a model",
            "rename_to": f"L_{self.name}_RENAMED",
        }

    def watch(self) -> None:
        super().watch()
        if "CHAMPION" not in self.marks():
            self.noted.append("no version had the champion's alias")

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        return self.compared(
            old=(self.shown(self.own), {}),
            marks=(self.marks(), {"DEFAULT": "V1", "CHAMPION": "V1", "CANDIDATE": "V2"}),
            metrics=(self.metrics("V2"), {"auc": 0.5, "more": 1}),
            others=(self.metrics("V3"), {"auc": 0.9, "of": "V3"}),
            version=(self.shown()["V2"]["comment"], "it's a version"),
            comment=(self.comment(), "it's a model"),
            tag=(self.tag(f"{SCHEMA}.TEAM"), "it's ours"),
            xcom=((xcom["model"], xcom["version"], sorted(xcom["changes"])), (self.renamed, "V2", CHANGED)),
            before=(xcom["changes"]["metric auc"], {"from": 0.9, "to": 0.5}),
        )


CHANGED = sorted(
    (
        *("alias CANDIDATE", "comment", "metric auc", "metric more", "metric of", "name"),
        *(f"tag {SCHEMA}.TEAM", "version comment"),
    )
)


@dataclass
class Export(OfModel):
    """A version's files, over those of an export that was there. ``_SUCCESS`` stands by a whole one only."""

    operator = f"{OPERATORS}.model_export.SnowMLExportModelOperator"

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.own,
            "version_name": "V2",
            "path": f"@{SCHEMA}.ST/exports/{self.name}",
            "if_exists": "replace",
        }

    def before(self) -> None:
        super().before()
        self.export("V1")

    def export(self, version: str) -> None:
        """Without a crash, in this process."""
        from airflow_provider_snowml.operators.model_export import SnowMLExportModelOperator

        task = SnowMLExportModelOperator(**{**self.arguments(), "version_name": version})
        task.execute(
            {
                "ti": SimpleNamespace(dag_id="chaos", task_id="before", run_id="before", map_index=-1),
                "dag_run": SimpleNamespace(clear_number=0),
                "task_state_store": SimpleNamespace(get=lambda *_: None, set=lambda *_: None),
            }
        )

    def watch(self) -> None:
        super().watch()
        if told := self.told():
            missing = set(told["files"]) ^ (set(self.files(f"exports/{self.name}")) - MARKS)
            if missing:
                self.noted.append(f"_SUCCESS stood by a part: {sorted(missing)}")

    def told(self) -> dict[str, Any]:
        """What ``_SUCCESS`` says."""
        text = self.control.read(f"@{SCHEMA}.ST/exports/{self.name}/_SUCCESS")
        return dict(json.loads(text)) if text else {}

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        told = self.told()
        return self.compared(
            marks=(set(self.files(f"exports/{self.name}")) & MARKS, {"_SUCCESS"}),
            version=(told.get("version"), "V2"),
            xcom=((xcom["version"], xcom["files"], xcom["exported"]), ("V2", len(told["files"]), True)),
        )


MARKS = {"_SUCCESS", "_SNOWML_EXPORT"}


@dataclass
class Prune(OfModel):
    """Two old versions go; the others are in use, were the champion before, or are the newest."""

    operator = f"{OPERATORS}.model_retention.SnowMLPruneModelVersionsOperator"
    versions = ("V1", "V2", "V3", "V4", "V5", "V6")
    champions = ("V1", "V2")
    passed = ("V2", "V3")

    def before(self) -> None:
        super().before()
        self.control.rows(f"ALTER MODEL {self.own} VERSION V3 SET ALIAS = KEPT")

    def arguments(self) -> dict[str, Any]:
        return {"task_id": self.name, "model_name": self.own, "keep_last": 1, "plan_only": False}

    def watch(self) -> None:
        super().watch()
        self.noted += self.lost()

    def lost(self) -> list[str]:
        marks = self.marks()
        wanted = {"DEFAULT": "V2", "CHAMPION": "V2", "KEPT": "V3"}
        return [] if marks == wanted else [f"the marks were {marks}"]

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        kept = ["V1", "V2", "V3", "V6"]
        return self.compared(
            versions=(sorted(self.shown()), kept),
            kept=(sorted(xcom["models"][self.own]["kept"]), kept),
        )


@dataclass
class DeleteVersion(OfModel):
    """One version goes."""

    operator = f"{OPERATORS}.model_retention.SnowMLDeleteModelOperator"

    def arguments(self) -> dict[str, Any]:
        return {"task_id": self.name, "model_name": self.own, "version_name": "V2"}

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        return self.compared(
            versions=(sorted(self.shown()), ["V1", "V3"]),
            marks=(self.marks(), {"DEFAULT": "V1", "CHAMPION": "V1"}),
            xcom=((xcom["model"], xcom["version"]), (self.own, "V2")),
        )


@dataclass
class DeleteModel(OfModel):
    """The model goes, and no other."""

    operator = f"{OPERATORS}.model_retention.SnowMLDeleteModelOperator"
    versions = ("V1", "V2")

    def before(self) -> None:
        super().before()
        self.make_model(f"{self.own}_2")

    def arguments(self) -> dict[str, Any]:
        return {"task_id": self.name, "model_name": self.own, "delete_all_versions": True}

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        return self.compared(
            versions=(sorted(self.shown()), []),
            others=(sorted(self.shown(f"{self.own}_2")), ["V1", "V2"]),
            xcom=((xcom["model"], xcom["version"]), (self.own, None)),
        )


@dataclass
class RunSchema(Subject):
    """A run's schema is made."""

    operator = f"{OPERATORS}.run_schema.SnowMLRunSchemaOperator"

    @property
    def prefix(self) -> str:
        return f"RUN_{self.name}"

    def arguments(self) -> dict[str, Any]:
        return {"task_id": self.name, "prefix": self.prefix}

    def make(self, name: str, comment: str) -> None:
        self.control.rows(f"CREATE SCHEMA SNOWML.{name} COMMENT = '{comment}'")
        self.control.rows(f"USE SCHEMA {SCHEMA}")  # a schema that is made is the session's from then on
        self.control.rows(f"CREATE TABLE SNOWML.{name}.T AS SELECT 1 AS A")

    def mark(self, dag_id: str = "chaos") -> str:
        return json.dumps({"airflow_provider_snowml_run_schema": {"dag_id": dag_id, "run_key": DAY}})

    def schemas(self) -> dict[str, str]:
        rows = self.control.rows(f"SHOW SCHEMAS LIKE '{self.prefix}%' IN DATABASE SNOWML")
        return {row["name"]: row["comment"] for row in rows}

    def before(self) -> None:
        self.make(f"{self.prefix}_2013_06_01_NOT", "of somebody else")

    def others(self) -> dict[str, str]:
        return {f"{self.prefix}_2013_06_01_NOT": "of somebody else"}

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        name, there = f"{self.prefix}_2013_06_01", self.schemas()
        found = []
        if there != {**self.others(), name: self.mark()}:
            found.append(f"the schemas are {there}")
        if xcom["schema"] != f"SNOWML.{name}":
            found.append(f"the result is {xcom}")
        return found


@dataclass
class DropRunSchema(RunSchema):
    """It is dropped, with what is in it."""

    operator = "model_tasks.drop_run_schema"

    def before(self) -> None:
        super().before()
        self.make(f"{self.prefix}_2013_06_01", self.mark())

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        there = self.schemas()
        return [] if there == self.others() else [f"the schemas are {there}; the result is {xcom}"]


@dataclass
class DropStaleRunSchemas(DropRunSchema):
    """All run schemas go, whatever DAG's they are; what was made by hand stays."""

    operator = f"{OPERATORS}.run_schema.SnowMLDropStaleRunSchemasOperator"

    def before(self) -> None:
        super().before()
        for n in (2, 3):
            self.make(f"{self.prefix}_{n}", self.mark("another"))

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "older_than": 0}
