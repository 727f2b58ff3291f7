"""One prediction, here and in Snowflake. Imports no Airflow: the model may be trained where there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.model_artifact import ModelArtifact
from airflow_provider_snowml.core.names import Identifier, QualifiedName
from airflow_provider_snowml.core.registration import PredictionCheck, Registration
from airflow_provider_snowml.exceptions import InvalidNameError, ModelVerificationError
from airflow_provider_snowml.hooks.errors import mapped_errors

if TYPE_CHECKING:
    from snowflake.ml.model import ModelVersion
    from snowflake.ml.registry import Registry
    from snowflake.snowpark import Session

CHECKED_ROWS = 5


def as_rows(sample: Any) -> Any:
    """A sample that snowflake-ml takes: a list of dictionaries becomes a data frame."""
    if isinstance(sample, list) and sample and all(isinstance(row, Mapping) for row in sample):
        import pandas as pd

        return pd.DataFrame(sample)
    return sample


def prediction_check(artifact: ModelArtifact, methods: Sequence[str] | None) -> PredictionCheck | None:
    """Predict a few rows of the sample here; ``None`` if that cannot be compared.

    :param artifact: the model and its sample.
    :param methods: the methods that are registered; ``None`` if the choice is snowflake-ml's.
    """
    import pandas as pd

    rows, options = as_rows(artifact.sample_input_data), artifact.options or {}
    if not isinstance(rows, pd.DataFrame) or options.get("capture_sample_input_data") is False:
        return None
    method = "predict" if methods is None or "predict" in methods else methods[0]
    predict = _predictor(artifact.model, method)
    if predict is None or _function_type(options, method) == "TABLE_FUNCTION":
        return None
    rows = rows.head(CHECKED_ROWS)
    split = json.loads(rows.to_json(orient="split", index=False, date_format="iso"))
    return PredictionCheck(method, [str(name) for name in rows.columns], split["data"], _table(predict(rows)))


def _function_type(options: Mapping[str, Any], method: str) -> Any:
    of_method = (options.get("method_options") or {}).get(method) or {}
    return of_method.get("function_type", options.get("function_type", "FUNCTION"))


def _predictor(model: Any, method: str) -> Callable[[Any], Any] | None:
    """How a model is called here with a data frame; ``None`` for a framework that takes something else."""
    framework = type(model).__module__.split(".")[0]
    if framework == "xgboost" and type(model).__name__ == "Booster":
        import xgboost

        return lambda rows: model.predict(xgboost.DMatrix(rows))
    if framework in ("torch", "tensorflow", "keras", "transformers", "sentence_transformers", "snowflake"):
        return None
    return getattr(model, method, None)


def _table(predictions: Any) -> list[list[Any]]:
    """Predictions as rows of plain values, one for each output."""
    import numpy as np

    if hasattr(predictions, "to_numpy"):
        predictions = predictions.to_numpy()
    values = np.asarray(predictions)
    rows: list[list[Any]] = values.reshape(len(values), -1).tolist()
    return rows


def compare_prediction(session: Session, registration: Registration, tolerance: float) -> None:
    """Predict in Snowflake what was predicted here.

    :param session: an open session, with a warehouse.
    :param registration: the version, with a check.
    :param tolerance: how far numbers may be apart, relative to the larger, or absolutely near zero.
    :raises ModelVerificationError: if they are further apart.
    """
    import pandas as pd

    check = registration.check
    if check is None:
        return
    rows = pd.DataFrame(check.rows, columns=check.columns)
    with mapped_errors():
        version = version_of(session, registration)
        got = version.run(rows, function_name=check.function_name)
        signature = next(
            function["signature"]
            for function in version.show_functions()
            if function["target_method"] == check.function_name
        )
    outputs = [output.name for output in signature.outputs]
    found = _table(got[[name for name in got.columns if name.strip('"') in outputs]])
    for number, (ours, theirs) in enumerate(zip_longest(check.expected, found)):
        if ours is None or theirs is None or not _alike(ours, theirs, tolerance):
            raise ModelVerificationError(
                f"{registration.model} version {registration.version}: {check.function_name} of row {number} "
                f"of the sample, {dict(zip(check.columns, check.rows[number], strict=True))}, gives "
                f"{theirs} in Snowflake and {ours} where it was trained (tolerance {tolerance})."
            )


def _alike(ours: list[Any], theirs: list[Any], tolerance: float) -> bool:
    return len(ours) == len(theirs) and all(
        _same(mine, other, tolerance) for mine, other in zip(ours, theirs, strict=True)
    )


def _same(ours: Any, theirs: Any, tolerance: float) -> bool:
    try:
        ours, theirs = float(ours), float(theirs)
    except (TypeError, ValueError):
        return str(ours) == str(theirs)
    both_nan = math.isnan(ours) and math.isnan(theirs)
    return both_nan or math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance)


def registry_of(session: Session, model: QualifiedName) -> Registry:
    """snowflake-ml's registry of the schema that a model is in."""
    from snowflake.ml.registry import Registry

    return Registry(session, database_name=model.database.sql, schema_name=model.schema.sql)


def version_of(session: Session, registration: Registration) -> ModelVersion:
    """The version that was registered."""
    model = QualifiedName.parse(registration.model)
    return find_version(registry_of(session, model), model, registration.version)


def find_version(registry: Registry, model: QualifiedName, version: str) -> ModelVersion:
    """snowflake-ml's own object of a version.

    :param registry: of the model's schema.
    :param model: the model.
    :param version: the version's resolved name.
    :raises InvalidNameError: if snowflake-ml does not find what there is: it looks with ``LIKE``.
    """
    try:
        return registry.get_model(model.name.sql).version(Identifier.of(version).sql)
    except ValueError as error:
        raise InvalidNameError(
            f"snowflake-ml does not find version {version!r} of {model} ({error}): in its names _ is any "
            "character and % any text, and it wants one that fits. Give it, or the others, another name."
        ) from error
