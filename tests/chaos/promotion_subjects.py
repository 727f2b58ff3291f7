"""Promoting and rolling back, killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from model_subjects import OPERATORS, OfModel
from world import DAY, SCHEMA


@dataclass
class Promote(OfModel):
    """A challenger follows the champion. V3 has not passed, and none may ever get it."""

    operator = f"{OPERATORS}.promotion.SnowMLPromoteModelOperator"
    passed = ("V1", "V2")
    alias: ClassVar[str | None] = "CHAMPION"
    without: int = 0  # looks in a row at which no version had the alias

    def before(self) -> None:
        super().before()
        self.control.rows(f"ALTER MODEL {self.own} VERSION V2 SET ALIAS = CHALLENGER")

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.own,
            "version_name": "V2",
            "alias": self.alias,
            "previous_alias": "FORMER",
            "tag": f"{SCHEMA}.LIVE_{self.name}",
            "create_tag": True,
            "comment": "it's better",
            "trained_until": DAY,
        }

    def after_crash(self) -> None:
        super().after_crash()
        self.without = 0

    def watch(self) -> None:
        """Readers come first, and the champion's alias is away for one statement at most."""
        super().watch()
        marks = self.marks()
        if not marks or self.alias is None:
            return
        self.without = 0 if self.alias in marks else self.without + 1
        if self.without > 1:
            self.noted.append("no version had the alias for more than one statement")
        if marks.get(self.alias, "V1") != "V1" and marks["DEFAULT"] == "V1":
            self.noted.append(f"the alias was moved before the default: {marks}")

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        record = self.metrics("V2").pop("promotion", {})
        return self.compared(
            marks=(self.marks(), self.wanted_marks()),
            tag=(self.tag(f"{SCHEMA}.LIVE_{self.name}"), "V2"),
            comment=(self.comment(), "it's better"),
            previous=(record.get("previous_version"), "V1"),
            until=(str(record.get("trained_until"))[:10], DAY),
            champion_before=(self.metrics("V1")["promotion"].get("rolled_back_at"), None),
            metrics=({**self.metrics("V2"), "promotion": None}, {"auc": 0.9, "of": "V2", "promotion": None}),
            xcom=((xcom["version"], xcom["previous_version"], xcom["alias"]), ("V2", "V1", self.alias)),
        )

    def wanted_marks(self) -> dict[str, str]:
        return {"DEFAULT": "V2", "CHAMPION": "V2", "FORMER": "V1"}


@dataclass
class PromoteBare(Promote):
    """Nothing but the default says which version is the champion."""

    alias = None

    def make_model(self, name: str) -> None:
        super().make_model(name)
        self.control.rows(f"ALTER MODEL {name} VERSION CHAMPION UNSET ALIAS")

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "previous_alias": None}

    def wanted_marks(self) -> dict[str, str]:
        return {"DEFAULT": "V2", "CHALLENGER": "V2"}


@dataclass
class PromoteCopy(Promote):
    """It is copied to another model, and promoted there."""

    @property
    def looked_at(self) -> str:
        return f"{SCHEMA}.P_{self.name}"

    def before(self) -> None:
        self.make_model(self.own)
        self.control.rows(f"CREATE MODEL {self.looked_at} WITH VERSION V1 FROM MODEL {self.own} VERSION V1")
        self.promote(self.looked_at, "V1", trained_until="2013-01-01")

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "copy_to": self.looked_at}

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        return super().violations(xcom) + [
            f"{self.own} is changed: {marks}"
            for marks in [self.marks(self.own)]
            if marks != {"DEFAULT": "V1", "CHAMPION": "V1"}
        ]


@dataclass
class PromoteCopyFirst(PromoteCopy):
    """That model is not there yet."""

    passed = ("V2",)

    def before(self) -> None:
        self.make_model(self.own)

    def watch(self) -> None:
        """It has no alias that could be away."""
        OfModel.watch(self)

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        return self.compared(
            marks=(self.marks(), {"DEFAULT": "V2", "CHAMPION": "V2"}),
            tag=(self.tag(f"{SCHEMA}.LIVE_{self.name}"), "V2"),
            comment=(self.comment(), "it's better"),
            copied_from=(self.metrics("V2").get("promotion", {}).get("copied_from"), self.own),
            auc=(self.metrics("V2").get("auc"), 0.9),
            xcom=((xcom["version"], xcom["previous_version"]), ("V2", None)),
        )


@dataclass
class RollBack(Promote):
    """The last of three champions is taken back: once, and not twice."""

    operator = f"{OPERATORS}.promotion.SnowMLRollbackModelOperator"
    champions = ("V1", "V2", "V3")
    passed = ("V2", "V3")

    def before(self) -> None:
        self.make_model(self.own)

    def arguments(self) -> dict[str, Any]:
        return {"task_id": self.name, "model_name": self.own, "comment": "it's back"}

    def watch(self) -> None:
        OfModel.watch(self)
        marks = self.marks()
        if marks.get("CHAMPION") == "V2" and marks["DEFAULT"] == "V3":
            self.noted.append(f"the alias was moved before the default: {marks}")

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        records = {version: self.metrics(version)["promotion"] for version in self.versions}
        return self.compared(
            marks=(self.marks(), {"DEFAULT": "V2", "CHAMPION": "V2"}),
            comment=(self.comment(), "it's back"),
            taken_back=([name for name, it in records.items() if it.get("rolled_back_at")], ["V3"]),
            previous=([records[name].get("previous_version") for name in ("V2", "V3")], ["V1", "V2"]),
            xcom=((xcom["version"], xcom["previous_version"], xcom["rolled_back_from"]), ("V2", "V1", "V3")),
        )
