"""What Snowflake does not take, looked at before anything is uploaded.

The limits are those of
https://docs.snowflake.com/en/developer-guide/snowflake-ml/model-registry/overview#current-limitations-and-issues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError, ModelLimitError

MAX_VERSIONS = 1000
MAX_METHODS = 10
MAX_IMPORTS = 10
MAX_ARGUMENTS = 500
MAX_METADATA_BYTES = 100 * 1024
MAX_WAREHOUSE_BYTES = 5 * 1024**3
MAX_TAG_CHARACTERS = 256

SYSTEM_ALIASES = ("DEFAULT", "FIRST", "LAST")


def parse_version_name(text: str) -> str:
    """The resolved name of a version that is to be made.

    :param text: what the user wrote.
    :raises InvalidNameError: if it is no identifier, or one of Snowflake's own aliases.
    """
    name = Identifier.parse(text, what="version name").name
    if name in SYSTEM_ALIASES:
        raise InvalidNameError(
            f"{text!r} is no valid version name: {', '.join(SYSTEM_ALIASES)} are aliases that Snowflake "
            "itself gives to versions."
        )
    return name


def check_version_count(model: QualifiedName, count: int) -> None:
    """Check that a model can have one version more.

    :raises ModelLimitError: if not.
    """
    _check(f"{model} has", count + 1, MAX_VERSIONS, "versions, the new one among them")


def check_methods(methods: Sequence[str], has: Mapping[str, bool]) -> None:
    """Check the methods that become functions.

    :param methods: their names.
    :param has: for each, whether the model has it.
    :raises ModelLimitError: if they are too many.
    :raises InvalidArgumentError: if the model lacks one.
    """
    _check("The model would have", len(methods), MAX_METHODS, "methods")
    missing = [name for name in methods if not has[name]]
    if missing:
        raise InvalidArgumentError(
            f"The model has no method {', '.join(missing)}, which signatures or options name. Of those it "
            f"has: {', '.join(name for name in methods if has[name]) or 'none of them'}."
        )


def check_imports(count: int) -> None:
    """Check the directories of code and the modules that go with a model.

    :raises ModelLimitError: if they are too many.
    """
    _check("The model would have", count, MAX_IMPORTS, "imports (code_paths)")


def check_metadata(metrics: Mapping[str, Any]) -> None:
    """Check the metrics' size.

    :raises ModelLimitError: if they are too large.
    """
    _check("The metrics have", len(json.dumps(metrics).encode()), MAX_METADATA_BYTES, "bytes of metadata")


def check_warehouse_size(size: int | None) -> None:
    """Check a model's size, if it is to run in a warehouse.

    :param size: in bytes; ``None`` if it is not known.
    :raises ModelLimitError: if it is too large.
    """
    advice = "; target_platforms=['SNOWPARK_CONTAINER_SERVICES'] has no such limit"
    _check("The model has", size or 0, MAX_WAREHOUSE_BYTES, "bytes in a warehouse", advice)


def check_tag_value(tag: str, value: str) -> None:
    """Check the value of a tag.

    :raises ModelLimitError: if it is too long.
    """
    _check(f"The value of tag {tag} has", len(value), MAX_TAG_CHARACTERS, "characters")


def _check(has: str, found: int, limit: int, what: str, advice: str = "") -> None:
    if found > limit:
        raise ModelLimitError(f"{has} {found} {what}; Snowflake's limit is {limit}{advice}.")
