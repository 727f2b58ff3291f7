"""``snowml://<account>/<database>/<schema>/model/<name>``: how assets name models."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError

SCHEME = "snowml"
_MODEL = "model"


def refuse_jinja(text: str, *, what: str) -> str:
    """Return the text, unless it is a template, which is not rendered where the text is wanted.

    :raises InvalidNameError: if it is one.
    """
    if re.search(r"{{|{%|{#", text):
        raise InvalidNameError(
            f"The {what} {text!r} is a template: an asset is made when the DAG is parsed, before there is a "
            "run to render it for. Write the name out, or read it from Airflow's configuration."
        )
    return text


def model_uri(account: str, model: QualifiedName) -> str:
    """The URI of a model. Two ways to write one name give one URI.

    :param account: what the deployment calls its Snowflake account.
    :param model: the model.
    """
    parts = (model.database, model.schema, None, model.name)
    path = "/".join(quote(Identifier.of(part.name).sql, safe="") if part else _MODEL for part in parts)
    return f"{SCHEME}://{_account(account)}/{path}"


def parse_model_path(path: str) -> QualifiedName:
    """The model that a URI's path names; what is not in double quotes is read as Snowflake reads it.

    :param path: ``/<database>/<schema>/model/<name>``.
    :raises InvalidArgumentError: (or a subclass) if it is none.
    """
    parts = path.removeprefix("/").split("/")
    if len(parts) != 4 or parts[2] != _MODEL:
        raise InvalidArgumentError(
            f"{path!r} names no model: write {SCHEME}://<account>/<database>/<schema>/model/<name>."
        )
    database, schema, name = (
        Identifier.parse(unquote(parts[index]), what="part of a model's URI") for index in (0, 1, 3)
    )
    return QualifiedName(database, schema, name)


def _account(account: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", account):
        raise InvalidNameError(
            f"The account {account!r} cannot be part of a URI: use letters, digits and . _ -, such as "
            "myorg-myaccount."
        )
    return account.lower()
