"""Which version of a model, and which of its functions, is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.exceptions import (
    InputColumnsError,
    InvalidArgumentError,
    ModelFunctionNotFoundError,
    ModelVersionNotFoundError,
)

TABLE_FUNCTION = "TABLE_FUNCTION"
ADAPTER = "peft_adapter"


@dataclass(frozen=True)
class ModelVersionInfo:
    """A version as SHOW VERSIONS IN MODEL lists it.

    :param name: the version's resolved name.
    :param aliases: its aliases, Snowflake's own DEFAULT, FIRST and LAST among them.
    """

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFunction:
    """A function of a model version.

    :param name: its SQL name, ``PREDICT``.
    :param target_method: the method behind it, ``predict``, which batch jobs call it by.
    :param type: ``FUNCTION`` or ``TABLE_FUNCTION``.
    :param inputs: the columns that its signature wants, ``()`` if the signature is not known.
    :param outputs: the columns that its signature gives, likewise.
    :param params: its parameters.
    :param is_partitioned: whether it is a table function that gets a whole partition at once.
    """

    name: str
    target_method: str
    type: str = "FUNCTION"
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    is_partitioned: bool = False

    @property
    def sql(self) -> str:
        """The function as it is written in a statement."""
        return Identifier.of(self.name).sql

    @property
    def keeps_row_count(self) -> bool:
        """Whether it gives one row for each row."""
        return self.type != TABLE_FUNCTION


@dataclass(frozen=True)
class ModelVersionRef:
    """A model version that was found, with its functions.

    :param model: the model.
    :param version: the version's resolved name, never an alias.
    :param functions: what can be called.
    :param supports_gpu: whether it was registered for GPUs, ``None`` if that is not known.
    :param model_type: what snowflake-ml calls its kind, such as ``"sklearn"``; ``None`` if that is not known.
    """

    model: QualifiedName
    version: str
    functions: tuple[ModelFunction, ...] = ()
    supports_gpu: bool | None = None
    model_type: str | None = None

    @property
    def version_sql(self) -> str:
        """The version as it is written in a statement."""
        return Identifier.of(self.version).sql

    def function(self, name: str | None) -> ModelFunction:
        """The function of that name, or the only one.

        :param name: its SQL name or its method's name; ``None`` for a version that has only one.
        :raises ModelFunctionNotFoundError: if it isn't there, or ``None`` is ambiguous.
        """
        known = ", ".join(function.target_method for function in self.functions) or "none"
        if name is None:
            if len(self.functions) == 1:
                return self.functions[0]
            raise ModelFunctionNotFoundError(
                f"{self.model} version {self.version} has {len(self.functions)} functions: name one of them "
                f"as function_name. There are: {known}."
            )
        for function in self.functions:
            if name in (function.target_method, function.sql) or name.upper() == function.name.upper():
                return function
        raise ModelFunctionNotFoundError(
            f"{self.model} version {self.version} has no function {name!r}. There are: {known}."
        )


def model_functions(spec: Mapping[str, Any], types: Mapping[str, str]) -> list[ModelFunction]:
    """The functions of a version, from snowflake-ml's description of it.

    :param spec: the description, empty if it may not be seen.
    :param types: the type of each SQL function.
    """
    signatures = spec.get("signatures") or {}
    if not signatures:
        return [ModelFunction(name, name.lower(), type_) for name, type_ in types.items()]
    functions = []
    for method, signature in signatures.items():
        # The method abc is the function "abc" if there is one, else ABC; so does snowflake-ml match them.
        name = method if method in types else method.upper()
        type_ = types.get(name, "FUNCTION")
        properties = (spec.get("function_properties") or {}).get(method) or {}
        functions.append(
            ModelFunction(
                name,
                method,
                type_,
                inputs=tuple(feature["name"] for feature in signature.get("inputs") or ()),
                outputs=tuple(feature["name"] for feature in signature.get("outputs") or ()),
                params=tuple(param["name"] for param in signature.get("params") or ()),
                is_partitioned=type_ == TABLE_FUNCTION and bool(properties.get("PARTITIONED", True)),
            )
        )
    return functions


def refuse_adapter(ref: ModelVersionRef) -> None:
    """Refuse a version that can't be run by itself.

    :raises InvalidArgumentError: for a LoRA adapter, which snowflake-ml runs by its base model.
    """
    if ref.model_type == ADAPTER:
        raise InvalidArgumentError(
            f"{ref.model} version {ref.version} is a LoRA adapter, which only runs with its base model. That "
            "is not supported here: use snowflake-ml's run_batch for it, or another version."
        )


def supports_gpu(spec: Mapping[str, Any]) -> bool | None:
    """Whether a version was registered for GPUs; ``None`` if its description may not be seen."""
    if "env" not in spec:
        return None
    return bool((spec["env"] or {}).get("cuda_version")) or "gpu" in (spec.get("runtimes") or {})


def resolve_version(
    model: QualifiedName, reference: str, versions: Iterable[ModelVersionInfo]
) -> ModelVersionInfo:
    """Find the version that a name, an alias, ``default``, ``first`` or ``last`` means.

    :param model: the model, for errors.
    :param reference: what the user wrote.
    :param versions: the model's versions.
    :raises ModelVersionNotFoundError: if none is meant; the message lists what is there.
    """
    wanted = Identifier.parse(reference, what="model version or alias").name
    versions = list(versions)
    for version in versions:
        # Aliases first, as snowflake-ml does.
        if wanted in version.aliases:
            return version
    for version in versions:
        if wanted == version.name:
            return version
    known = ", ".join(
        version.name + (f" ({', '.join(version.aliases)})" if version.aliases else "") for version in versions
    )
    raise ModelVersionNotFoundError(
        f"{model} has no version or alias {reference!r}. There are: {known or 'none'}."
    )


def check_columns(function: ModelFunction, columns: Sequence[str], *, source: str) -> None:
    """Check that the input has every column that the function's signature wants.

    Letter case is not compared: how it counts depends on how the model was logged.

    :param function: the function.
    :param columns: the input's columns.
    :param source: what the input is, for the error.
    :raises InputColumnsError: if one is missing; the message lists both sides.
    """
    have = {column.upper() for column in columns}
    missing = [wanted for wanted in function.inputs if wanted.strip('"').upper() not in have]
    if missing:
        raise InputColumnsError(
            f"{function.target_method} wants {', '.join(missing)}, which {source} lacks. It has: "
            f"{', '.join(columns)}. The signature wants: {', '.join(function.inputs)}."
        )


def check_params(function: ModelFunction, params: Iterable[str]) -> None:
    """Check that a function's signature has every parameter that is given.

    Letter case is not compared, as snowflake-ml does not.

    :param function: the function.
    :param params: the names of what is given.
    :raises InvalidArgumentError: if it lacks one; the message lists what it has.
    """
    if not function.inputs:
        return  # the signature is not known
    have = {name.upper() for name in function.params}
    unknown = [name for name in params if name.upper() not in have]
    if unknown:
        raise InvalidArgumentError(
            f"{function.target_method} has no parameter {', '.join(map(repr, unknown))}; inference_params "
            f"can be: {', '.join(function.params) or 'none'}."
        )


def check_partition_column(
    function: ModelFunction, column: Identifier, columns: Sequence[str] | None, *, source: str
) -> None:
    """Check that a function can be partitioned by a column of the input.

    snowflake-ml says nothing about a partition column that a function of type FUNCTION then ignores.

    :param function: the function.
    :param column: what to partition by.
    :param columns: the input's columns; ``None`` if they are not known.
    :param source: what the input is, for the error.
    :raises InvalidArgumentError: if the function is of type FUNCTION.
    :raises InputColumnsError: if the input lacks the column.
    """
    if function.type != TABLE_FUNCTION:
        raise InvalidArgumentError(
            f"partition_column is {column}, but {function.target_method} is of type {function.type}: "
            "only a TABLE_FUNCTION is partitioned. Leave it out, or register the model with the option "
            "function_type='TABLE_FUNCTION'."
        )
    if columns is not None and column.name not in columns:
        raise InputColumnsError(
            f"partition_column is {column}, which {source} lacks. It has: {', '.join(columns)}."
        )


def check_no_column_twice(function: ModelFunction, columns: Sequence[str], *, source: str) -> None:
    """Check that a table function, whose rows have the input's columns beside its own, gives none of them.

    :param function: the function.
    :param columns: the input's columns.
    :param source: what the input is, for the error.
    :raises InputColumnsError: if the input has one that it gives.
    """
    outputs = {output.upper() for output in function.outputs}
    twice = [name for name in columns if name.upper() in outputs]
    if twice and function.type == TABLE_FUNCTION:
        raise InputColumnsError(
            f"{source} has {', '.join(twice)}, which the table function {function.target_method} gives: one "
            "could not tell them apart. Select the others only."
        )


def next_version_name(wanted: str, existing: Iterable[str]) -> str:
    """The first free one of ``V3``, ``V3_2``, ``V3_3``, ...

    :param wanted: the resolved name that is taken, or not.
    :param existing: the resolved names of the model's versions.
    """
    taken = set(existing)
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
