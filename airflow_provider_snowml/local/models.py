"""Models of the registry: versions, aliases, methods and the files of each version.

What a version can do is read from the package that ``log_model`` uploaded: ``MANIFEST.yml`` names
the methods and their SQL types, ``model/model.yaml`` is the model's own description.
"""

from __future__ import annotations

import datetime
import json
import shutil
import urllib.parse
import uuid
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .catalog import Object, Qualified
from .errors import SnowflakeError, compilation_error, does_not_exist
from .grammar import parse_name, quote_if_needed
from .results import now

if TYPE_CHECKING:
    from .account import Account
    from .session import Session

SYSTEM_ALIASES = ("DEFAULT", "FIRST", "LAST")
PLATFORMS = ["WAREHOUSE", "SNOWPARK_CONTAINER_SERVICES"]
USER_MODEL = "USER_MODEL"


@dataclass(frozen=True)
class Method:
    """One SQL function of a version, as its manifest declares it.

    :param name: the SQL name, e.g. ``PREDICT``; :param handler: e.g. ``functions.predict.infer``;
    :param type: ``FUNCTION`` or ``TABLE_FUNCTION``; :param inputs: name and SQL type of each
    argument, parameters last; :param outputs: the same for what it returns; :param params: which
    of the inputs are parameters.
    """

    name: str
    handler: str
    type: str
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]
    params: list[str] = field(default_factory=list)

    @property
    def target_method(self) -> str:
        """The Python method, which is also the name of the handler's module."""
        return self.handler.split(".")[-2]

    @property
    def plain_inputs(self) -> list[str]:
        """The arguments that are no parameters."""
        return [name for name, _ in self.inputs if name not in self.params]

    @property
    def return_type(self) -> str:
        if self.type == "TABLE_FUNCTION":
            return "TABLE (" + ", ".join(f"{n} {t}" for n, t in self.outputs) + ")"
        return self.outputs[0][1] if self.outputs else "OBJECT"


@dataclass
class Version:
    name: str
    id: str
    created_on: str
    comment: str = ""
    metadata: str = "{}"
    alias: str | None = None
    methods: list[Method] = field(default_factory=list)
    runnable_in: list[str] = field(default_factory=list)
    user_data: dict[str, Any] = field(default_factory=dict)

    @property
    def created(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.created_on)

    def method(self, name: str) -> Method | None:
        """By SQL name or, as EXECUTE INFERENCE JOB SERVICE has it, by target method."""
        found = [m for m in self.methods if name in (m.name, m.target_method)]
        found += [m for m in self.methods if name.upper() == m.name]
        return found[0] if found else None


@dataclass
class Model:
    """A registered model: what the catalog keeps under kind ``MODEL``."""

    name: Qualified
    owner: str
    created_on: datetime.datetime
    comment: str
    id: str
    default: str
    versions: list[Version]
    tags: dict[str, str] = field(default_factory=dict)
    model_type: str = USER_MODEL

    def find(self, name_or_alias: str) -> Version | None:
        """A version by name, by alias, or by the system aliases DEFAULT, FIRST and LAST."""
        for version in self.versions:
            if name_or_alias == version.name:
                return version
        for version in self.versions:
            if name_or_alias in self.aliases(version):
                return version
        return None

    def version(self, name_or_alias: str | None) -> Version:
        """:param name_or_alias: None is the default version."""
        found = self.find(name_or_alias or self.default)
        if found is None:
            raise does_not_exist("Version", quote_if_needed(name_or_alias or self.default))
        return found

    def aliases(self, version: Version) -> list[str]:
        system = {"DEFAULT": self.default, "FIRST": self.versions[0].name, "LAST": self.versions[-1].name}
        own = [version.alias] if version.alias else []
        return own + [a for a in SYSTEM_ALIASES if system[a] == version.name]

    def data(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "default": self.default,
            "versions": [asdict(v) for v in self.versions],
            "tags": self.tags,
            "model_type": self.model_type,
        }


def from_object(found: Object) -> Model:
    data = found.data
    versions = [
        Version(**{**v, "methods": [method_from_data(m) for m in v["methods"]]}) for v in data["versions"]
    ]
    return Model(
        found.name,
        found.owner,
        found.created_on,
        found.comment,
        data["id"],
        data["default"],
        versions,
        data["tags"],
        data.get("model_type", USER_MODEL),
    )


def method_from_data(data: dict[str, Any]) -> Method:
    pairs = {k: [(n, t) for n, t in data[k]] for k in ("inputs", "outputs")}
    return Method(data["name"], data["handler"], data["type"], **pairs, params=data["params"])


def get(session: Session, name: Qualified) -> Model:
    """The model, or Snowflake's error 2003."""
    found = session.account.catalog.find("MODEL", name)
    if found is None:
        raise does_not_exist("Model", str(name))
    return from_object(found)


def directory(session: Session, model: Model, version: Version) -> Path:
    """Where the files of a version lie on the server's disk."""
    return session.account.data_dir / "models" / model.id / "versions" / version.id


def version_from_stage(session: Session, model_id: str, name: str, location: str) -> Version:
    """Copy an uploaded package and read what it can do."""
    source = session.account.stages.locate(session, location).directory
    manifest_file = source / "MANIFEST.yml"
    if not manifest_file.is_file():
        raise SnowflakeError(
            398507,
            "22000",
            "SQL execution error: Unable to read file MANIFEST.yml. File size could be too large"
            " or file does not exist.",
        )
    version = new_version(name, yaml.safe_load(manifest_file.read_text()))
    _copy(session, source, model_id, version)
    return version


def version_from_model(
    session: Session, model_id: str, name: str, source: Model, source_version: Version
) -> Version:
    """A copy of another model's version: files, comment and metadata, no alias."""
    version = Version(
        name,
        uuid.uuid4().hex,
        now().isoformat(),
        source_version.comment,
        source_version.metadata,
        None,
        source_version.methods,
        source_version.runnable_in,
        source_version.user_data,
    )
    _copy(session, directory(session, source, source_version), model_id, version)
    return version


def _copy(session: Session, source: Path, model_id: str, version: Version) -> None:
    target = session.account.data_dir / "models" / model_id / "versions" / version.id
    shutil.copytree(source, target)


def new_version(name: str, manifest: dict[str, Any]) -> Version:
    try:
        methods = [_method(m) for m in manifest["methods"]]
    except (KeyError, TypeError, IndexError) as e:
        raise compilation_error(f"Invalid MANIFEST.yml of the model: {e!r}.") from e
    return Version(
        name,
        uuid.uuid4().hex,
        now().isoformat(),
        methods=methods,
        runnable_in=list(manifest.get("target_platforms") or PLATFORMS),
        user_data=manifest.get("user_data") or {},
    )


def _method(m: dict[str, Any]) -> Method:
    arguments = [*m["inputs"], *(m.get("params") or [])]
    inputs = [(str(i["name"]), str(i["type"])) for i in arguments]
    outputs = [(str(o.get("name", "")), str(o["type"])) for o in m["outputs"]]
    params = [str(p["name"]) for p in m.get("params") or []]
    return Method(str(m["name"]), str(m["handler"]), str(m["type"]), inputs, outputs, params)


def spec_text(session: Session, model: Model, version: Version) -> str | None:
    """``model.yaml``, which clients get in SHOW VERSIONS."""
    file = directory(session, model, version) / "model" / "model.yaml"
    try:
        return file.read_text()
    except FileNotFoundError:  # none, or dropped meanwhile
        return None


@lru_cache(1000)
def attributes(spec: str | None) -> dict[str, Any]:
    """The ``model_attributes`` column. Kept: reading YAML takes longer than all else of SHOW VERSIONS."""
    found = yaml.safe_load(spec) if spec else {}
    return {
        "framework": found.get("model_type"),
        "task": found.get("task", "UNKNOWN"),
        "client": "snowflake-ml-python " + str((found.get("env") or {}).get("snowpark_ml_version")),
    }


def forget(account: Account, model: Model, version: Version | None = None) -> None:
    """End the processes and remove the files of a model, or of one version."""
    for gone in model.versions if version is None else [version]:
        account.model_hosts.forget(gone.id)
    path = account.data_dir / "models" / model.id
    if version is not None:
        path = path / "versions" / version.id
    shutil.rmtree(path, ignore_errors=True)


def drop_in(account: Account, database: str, schema: str | None) -> None:
    """What a dropped database or schema takes with it."""
    for found in account.catalog.list("MODEL", database, schema):
        forget(account, from_object(found))


def snow_files(session: Session, url: str) -> list[tuple[str, Path]]:
    """The files under ``snow://model/[DB.SCHEMA.]MODEL/versions/VERSION[/path]``.

    :param url: the version may be an alias; the URL may be percent-encoded or not.
    :return: what LIST calls each file (``versions/V1/model/model.yaml``), and where it lies.
    """
    name, _, rest = url.removeprefix("snow://model/").partition("/versions/")
    version_name, _, path = urllib.parse.unquote(rest).strip("/").partition("/")
    if not version_name:
        raise compilation_error(f"invalid URL '{url}': expected snow://model/<model>/versions/<version>/")
    model = get(session, session.resolve(parse_name(urllib.parse.unquote(name))))
    version = model.version(version_name)
    root = directory(session, model, version).resolve()
    target = (root / path).resolve()
    if target != root and root not in target.parents:
        raise compilation_error(f"invalid path in URL '{url}'")
    files = [target] if target.is_file() else sorted(target.rglob("*"))
    return [(f"versions/{version.name}/{f.relative_to(root).as_posix()}", f) for f in files if f.is_file()]


def function_list(version: Version) -> str:
    return json.dumps([m.name for m in version.methods])
