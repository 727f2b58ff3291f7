"""Registering, killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from model_subjects import OPERATORS, OfModel
from world import SCHEMA


@dataclass
class Register(OfModel):
    """A version more, of a model that has a champion. What was made is not trained a second time."""

    operator = "model_tasks.register"
    versions = ("V1",)
    makes: ClassVar[str] = "V2"
    if_exists: ClassVar[str] = "fail"
    trained: int | None = None  # how often, when the version was there

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.own,
            "version_name": "V2",
            "op_kwargs": {"trainings": str(self.directory / "trainings.txt")},
            "if_exists": self.if_exists,
            "tags": {f"{SCHEMA}.TEAM": "it's ours"},
        }

    def trainings(self) -> int:
        file = self.directory / "trainings.txt"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def is_made(self) -> bool:
        """Whether the version is there, and is the one that is being made."""
        return self.makes in self.shown()

    def after_crash(self) -> None:
        super().after_crash()
        if self.is_made():
            self.trained = self.trainings()

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        times = self.trainings()
        found = self.compared(
            versions=(sorted(self.shown()), sorted({*self.versions, self.makes})),
            comment=(self.shown().get(self.makes, {}).get("comment"), "it's new"),
            metrics=(self.metrics(self.makes), {"auc": 0.9, "rows": 60}),
            team=(self.tag(f"{SCHEMA}.TEAM"), "it's ours"),
            xcom=(
                xcom,
                {
                    "model": self.own,
                    "version": self.makes,
                    "functions": ["predict"],
                    "metrics": {"auc": 0.9, "rows": 60},
                },
            ),
        )
        if times != (self.trained or times) or times not in (1, 2):
            found.append(f"trained {times} times; {self.trained} when the version was there")
        if self.predictions() != 29:
            found.append(f"{self.predictions()} rows are predicted to be greater than 30")
        return found

    def predictions(self) -> int:
        """By what is in the model now."""
        return int(
            self.control.value(
                f"WITH M AS MODEL {self.own} VERSION {self.makes} "
                f'SELECT SUM((M!PREDICT(F1):"output_feature_0")::INT) FROM {SCHEMA}.X'
            )
        )


@dataclass
class RegisterFirst(Register):
    """A model's first version, which Snowflake makes the default by itself."""

    versions = ()
    champions = ()
    passed = ("V2",)


@dataclass
class RegisterNext(Register):
    """There is a V2 already, of somebody else: V2_2 is made, and no V2_3."""

    versions = ("V1", "V2")
    makes = "V2_2"
    if_exists = "next"


@dataclass
class RegisterReplacing(Register):
    """There is a V2 already, which is replaced."""

    versions = ("V1", "V2")
    if_exists = "replace"

    def is_made(self) -> bool:
        return self.metrics("V2").get("of") != "V2" and super().is_made()


@dataclass
class RegisterReplacingOnly(RegisterReplacing):
    """V2 is the only version: the whole model is made anew."""

    versions = ("V2",)
    champions = ()
    passed = ("V2",)


@dataclass
class RegisterReusing(OfModel):
    """There is a V2 already, which is taken."""

    operator = "model_tasks.register"
    versions = ("V1", "V2")

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.own,
            "version_name": "V2",
            "op_kwargs": {"trainings": str(self.directory / "trainings.txt")},
            "if_exists": "reuse",
        }

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        metrics = {"auc": 0.9, "of": "V2"}
        return self.compared(
            trained=((self.directory / "trainings.txt").exists(), False),
            versions=(sorted(self.shown()), ["V1", "V2"]),
            metrics=(self.metrics("V2"), metrics),
            xcom=(
                xcom,
                {"model": self.own, "version": "V2", "functions": ["predict"], "metrics": metrics},
            ),
        )


@dataclass
class RegisterTaken(Register):
    """Somebody else registers another model under the same name between the crash and the next try."""

    points_of = "register"
    taken: bool = False

    def after_crash(self) -> None:
        super().after_crash()
        if not self.is_made():
            self.control.rows(f"ALTER MODEL {self.own} ADD VERSION V2 FROM MODEL {self.model} VERSION V2")
            self.taken = True
            self.failure = "ModelVersionExistsError"

    def violations_of_failure(self) -> list[str]:
        """The other one is as it was."""
        return self.compared(
            metrics=(self.metrics("V2"), {}),
            comment=(self.shown()["V2"]["comment"] or "", ""),
            team=(self.tag(f"{SCHEMA}.TEAM"), None),
        )


@dataclass
class RegisterCopy(OfModel):
    """A version that is copied from another model on the server."""

    operator = f"{OPERATORS}.registry.SnowMLRegisterModelOperator"
    versions = ("V1",)

    @property
    def source(self) -> str:
        return f"{SCHEMA}.S_{self.name}"

    def before(self) -> None:
        super().before()
        self.control.rows(f"CREATE MODEL {self.source} WITH VERSION V7 FROM MODEL {self.model} VERSION V2")
        self.set_metrics(self.source, "V7", auc=0.8)

    def arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "model_name": self.own,
            "version_name": "V2",
            "source_model": self.source,
            "comment": "it's a copy",
            "metrics": {"more": 1},
        }

    def violations(self, xcom: dict[str, Any]) -> list[str]:
        metrics = {"auc": 0.8, "more": 1}
        return self.compared(
            versions=(sorted(self.shown()), ["V1", "V2"]),
            comment=(self.shown().get("V2", {}).get("comment"), "it's a copy"),
            metrics=(self.metrics("V2"), metrics),
            source=(self.metrics("V7", self.source), {"auc": 0.8}),
            xcom=(
                xcom,
                {"model": self.own, "version": "V2", "functions": ["predict"], "metrics": metrics},
            ),
        )
