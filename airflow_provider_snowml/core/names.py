"""Identifiers, qualified names and stage locations: one grammar, and always re-quoted.

See https://docs.snowflake.com/en/sql-reference/identifiers-syntax and
https://docs.snowflake.com/en/sql-reference/sql/create-stage. Nothing that a user wrote reaches a statement
without passing through here, except the text of a query, which is code and documented as such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError, PersonalDatabaseError

MAX_LENGTH = 255

_PART = r'[A-Za-z_][A-Za-z0-9_$]*|"(?:[^"\x00-\x1f\x7f]|"")+"'
_QUALIFIED = re.compile(rf"(?:(?:({_PART})\.)?({_PART})\.)?({_PART})")
_STAGE = re.compile(rf"@((?:(?:{_PART})\.){{0,2}}(?:{_PART}))(?:/(.*))?", re.DOTALL)
# Unquoted in EXECUTE INFERENCE JOB SERVICE, so nothing that could end the token.
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9_.=+@%-]+")


@dataclass(frozen=True)
class Identifier:
    """One identifier, as Snowflake resolves it.

    :param name: the resolved name: upper case unless it was quoted.
    :param quoted: whether it was written in double quotes; no part of its identity.
    """

    name: str
    quoted: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str, *, what: str = "name") -> Identifier:
        """Parse one identifier.

        :param text: the identifier as a user writes it, ``churn`` or ``"My model"``.
        :param what: what it names, for the error.
        :raises InvalidNameError: if it is none.
        """
        if not isinstance(text, str) or not re.fullmatch(_PART, text):
            raise InvalidNameError(
                f"{text!r} is no valid {what}: write letters, digits, _ and $ (not starting with a digit or "
                'a $), or put it in double quotes (" inside is written "").'
            )
        quoted = text.startswith('"')
        name = text[1:-1].replace('""', '"') if quoted else text.upper()
        if len(name) > MAX_LENGTH:
            raise InvalidNameError(
                f"The {what} {text[:40]!r}... has {len(name)} characters; {MAX_LENGTH} fit."
            )
        return cls(name, quoted)

    @classmethod
    def of(cls, name: str) -> Identifier:
        """The identifier of an object whose resolved name is known, as SHOW and DESCRIBE print it."""
        return cls(name, quoted=re.fullmatch(r"[A-Z_][A-Z0-9_$]*", name) is None)

    @property
    def sql(self) -> str:
        """The identifier as it is written in a statement."""
        return '"' + self.name.replace('"', '""') + '"' if self.quoted else self.name

    def __str__(self) -> str:
        return self.sql


@dataclass(frozen=True)
class SchemaName:
    """A database and a schema."""

    database: Identifier
    schema: Identifier

    @property
    def sql(self) -> str:
        """``DATABASE.SCHEMA``."""
        return f"{self.database.sql}.{self.schema.sql}"

    def __str__(self) -> str:
        return self.sql

    @classmethod
    def of(cls, database: str | None, schema: str | None) -> SchemaName:
        """The schema that unqualified names are in, from resolved names; never guessed.

        :raises InvalidNameError: if one of them is missing.
        :raises PersonalDatabaseError: if the database is a personal one.
        """
        if not database or not schema:
            raise InvalidNameError(
                f"The database ({database!r}) or the schema ({schema!r}) is not known: name both in the "
                "Airflow connection or in the operator's arguments, or qualify the names."
            )
        refuse_personal_database(database)
        return cls(Identifier.of(database), Identifier.of(schema))


@dataclass(frozen=True)
class QualifiedName:
    """The full name of an object in a schema."""

    database: Identifier
    schema: Identifier
    name: Identifier

    @classmethod
    def parse(cls, text: str, default: SchemaName | None = None, *, what: str = "name") -> QualifiedName:
        """Parse ``[[database.]schema.]name``.

        :param text: the name as a user writes it.
        :param default: where an unqualified name is.
        :param what: what it names, for errors.
        :raises InvalidNameError: if it is no name, or unqualified without a default.
        :raises PersonalDatabaseError: if the database is a personal one.
        """
        match = _QUALIFIED.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidNameError(
                f"{text!r} is no valid {what}: write [[database.]schema.]name, each part letters, digits, _ "
                "and $ or in double quotes."
            )
        database, schema, name = (
            Identifier.parse(part, what=what) if part else None for part in match.groups()
        )
        if default is not None:
            database = database or default.database
            schema = schema or default.schema
        if database is None or schema is None or name is None:
            raise InvalidNameError(
                f"The {what} {text!r} is not fully qualified, and neither the Airflow connection nor the "
                "operator names the database and schema."
            )
        refuse_personal_database(database.name)
        return cls(database, schema, name)

    @property
    def parent(self) -> SchemaName:
        """The schema it is in."""
        return SchemaName(self.database, self.schema)

    @property
    def sql(self) -> str:
        """The name as it is written in a statement."""
        return f"{self.database.sql}.{self.schema.sql}.{self.name.sql}"

    def __str__(self) -> str:
        return self.sql


@dataclass(frozen=True)
class StageLocation:
    """A directory of a named stage.

    :param stage: the stage.
    :param path: the directory in it, ``""`` for its root, else ending in ``/``.
    """

    stage: QualifiedName
    path: str = ""

    @classmethod
    def parse(
        cls, text: str, default: SchemaName | None = None, *, what: str = "stage location"
    ) -> StageLocation:
        """Parse ``@[[database.]schema.]stage[/path]`` as a directory.

        :param text: the location as a user writes it.
        :param default: where an unqualified stage is.
        :param what: what it is for, for errors.
        :raises InvalidNameError: if it is none, or its path has characters that would need quoting or ``..``.
        :raises PersonalDatabaseError: if the database is a personal one.
        """
        match = _STAGE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidNameError(
                f"{text!r} is no valid {what}: write @[[database.]schema.]stage[/directory] of a named stage."
            )
        stage, path = match.group(1), match.group(2) or ""
        root = cls(QualifiedName.parse(stage, default, what="stage"))
        return root / path if path.strip("/") else root

    def __truediv__(self, directory: str) -> StageLocation:
        """A directory below this one."""
        segments = directory.strip("/").split("/")
        for segment in segments:
            if not _PATH_SEGMENT.fullmatch(segment) or set(segment) == {"."}:
                raise InvalidNameError(
                    f"{directory!r} cannot be part of a stage location ({segment!r}): use letters, digits "
                    "and _ . = + @ % - between slashes, and no . or .. directory."
                )
        return StageLocation(self.stage, self.path + "/".join(segments) + "/")

    @property
    def sql(self) -> str:
        """The location as it is written in a statement, ending in ``/``."""
        return f"@{self.stage.sql}/{self.path}"

    def contains(self, other: StageLocation) -> bool:
        """Whether the other location is this one or below it."""
        return self.stage == other.stage and other.path.startswith(self.path)

    def beside(self, suffix: str) -> StageLocation:
        """A directory next to this one, with the suffix added to its name.

        :raises InvalidNameError: for a stage's root, which has nothing beside it.
        """
        if not self.path:
            raise InvalidNameError(
                f"{self.sql} is the root of a stage: name a directory in it, such as {self.sql}predictions/, "
                "so that a job's input can lie beside its output."
            )
        return StageLocation(self.stage, f"{self.path.rstrip('/')}{suffix}/")

    def __str__(self) -> str:
        return self.sql


def literal(text: str) -> str:
    """A string as a SQL literal: backslashes escaped first, then quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def value_sql(value: Any) -> str:
    """A value as it is written in a statement.

    Not bound: a connector connection and the one inside a Snowpark session bind in different styles.

    :param value: text, a number, a boolean, a date, a time stamp or ``None``.
    :raises InvalidArgumentError: for anything else.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, int | Decimal) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if isinstance(value, datetime):
        return f"{literal(value.isoformat())}::TIMESTAMP_{'NTZ' if value.tzinfo is None else 'TZ'}"
    if isinstance(value, date):
        return f"{literal(value.isoformat())}::DATE"
    raise InvalidArgumentError(
        f"{value!r} is a {type(value).__name__}: use text, a number, a boolean, a date or a time stamp."
    )


def refuse_personal_database(database: str) -> None:
    """Raise for a personal database.

    :raises PersonalDatabaseError: if it is one.
    """
    if database.upper().startswith("USER$"):
        raise PersonalDatabaseError(
            f"{database} is a personal database, where models, jobs and stages of a pipeline cannot live: "
            "name a standard database."
        )


def refuse_dollar_quotes(text: str, *, what: str) -> str:
    """Return the text, unless it would end the ``$$ ... $$`` in which snowflake-ml sends it.

    :raises InvalidNameError: if it holds ``$$``, or ends in ``$``.
    """
    if "$$" in f"{text}$":
        raise InvalidNameError(
            f"The {what} holds $$ or ends in $, which would end snowflake-ml's quoting of it."
        )
    return text


def refuse_single_quotes(*names: str) -> None:
    """Refuse names of models and versions that snowflake-ml would write between quotes as they are.

    :raises InvalidNameError: if one holds ``'`` or a backslash.
    """
    for name in names:
        if "'" in name or "\\" in name:
            raise InvalidNameError(
                f"The name {name!r} holds ' or \\, which snowflake-ml does not escape where it looks for "
                "models and versions: give it another name."
            )


def refuse_look_alikes(name: str, others: Iterable[str]) -> None:
    """Refuse a name that snowflake-ml takes for another's: it looks with ``LIKE``, and escapes nothing.

    :param name: the resolved name of a model or version.
    :param others: what else there is, the name itself perhaps among it.
    :raises InvalidNameError: if one of them fits, ``_`` being any character and ``%`` any text.
    """
    anything = {"_": ".", "%": ".*"}
    pattern = re.compile("".join(anything.get(c) or re.escape(c) for c in name), re.IGNORECASE | re.DOTALL)
    if alike := sorted(other for other in others if other != name and pattern.fullmatch(other)):
        raise InvalidNameError(
            f"There is {', '.join(map(repr, alike))}, for which snowflake-ml takes {name!r}: it looks for "
            "models and versions with LIKE, where _ is any character and % any text. Give it another name."
        )
