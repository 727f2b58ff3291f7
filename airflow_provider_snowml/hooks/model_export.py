"""The files of a model's version, on this machine."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_snowml.core.model_retention import CORTEX_FINETUNED
from airflow_provider_snowml.core.names import QualifiedName, literal
from airflow_provider_snowml.exceptions import InvalidNameError, ModelNotExportableError
from airflow_provider_snowml.hooks.errors import mapped_errors
from airflow_provider_snowml.hooks.snowml import SnowMLHook


def check_exportable(hook: SnowMLHook, model: QualifiedName) -> None:
    """Check that a model, if it is there, has files.

    :raises ModelNotExportableError: if Cortex fine-tuning made it.
    """
    for row in hook.rows(f"SHOW MODELS LIKE {literal(model.name.name)} IN SCHEMA {model.parent.sql}"):
        if row["name"] == model.name.name and row["model_type"] == CORTEX_FINETUNED:
            raise ModelNotExportableError(
                f"{model} was made by Cortex fine-tuning ({CORTEX_FINETUNED}): it has no files of yours, and "
                "runs in Snowflake only. Snowflake shares such a model by data sharing."
            )


def download_version(
    hook: SnowMLHook, model: QualifiedName, version: str, export_mode: str, directory: Path
) -> dict[str, int]:
    """Fetch a version's files with snowflake-ml, which knows which they are.

    :param hook: the hook.
    :param model: the model.
    :param version: the version's resolved name.
    :param export_mode: ``"model"`` or ``"full"``.
    :param directory: where to; there and empty.
    :return: sizes in bytes by path below the directory.
    :raises InvalidNameError: if a name holds ``/``.
    """
    from snowflake.ml.model import ExportMode

    if "/" in f"{model}{version}":
        raise InvalidNameError(
            f"A name of {model} version {version!r} holds /, where it ends in the snow:// address of its "
            "files: a copy of another name can be exported."
        )
    with hook.session() as session, mapped_errors():
        exported = hook.model_version(session, model, version)
        exported.export(str(directory), export_mode=ExportMode(export_mode))
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}
