"""How the server's Parquet files are written."""

from __future__ import annotations

import pyarrow as pa


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """The columns that are written with a dictionary, for ``use_dictionary``.

    Not the floats: they hardly repeat, and looking whether they do takes five times as long as writing them.
    """
    return [field.name for field in schema if not pa.types.is_floating(field.type)]
