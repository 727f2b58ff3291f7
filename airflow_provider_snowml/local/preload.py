"""What nearly every model needs; imported once, in the process that the others are forked from."""

from __future__ import annotations

import contextlib

import numpy  # noqa: F401
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import yaml  # noqa: F401

from . import build_worker, handlers, job_worker, model_host, service_worker  # noqa: F401

with contextlib.suppress(ImportError):
    from snowflake.ml.model._packager import model_packager  # noqa: F401
with contextlib.suppress(ImportError):
    import sklearn.ensemble
    import sklearn.pipeline  # noqa: F401
