from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_snowml.core.model_export import ExportMark, plan_export
from airflow_provider_snowml.exceptions import ExportExistsError

WANTED = ExportMark("DB.S.M", "V1", "2013-01-01", "model", "dag export run -1")
WHOLE = replace(WANTED, task="dag export earlier -1", files={"model/a": 1})
MINE = replace(WHOLE, task=WANTED.task)
OTHER = replace(WHOLE, version="V2")
ANEW = replace(WHOLE, created_on="2013-01-02")
FULL = replace(WHOLE, export_mode="full")
FILES = {"_SUCCESS", "model/a"}


def test_a_mark_is_read_as_it_was_written() -> None:
    assert ExportMark.from_json(WHOLE.to_json()) == WHOLE
    for content in (None, b"", b"[]", b"{}", b'{"files": 1}', b"\xff", b'{"files": {}, "x": 1}'):
        assert ExportMark.from_json(content) is None


@pytest.mark.parametrize(
    ("files", "whole", "started", "if_exists", "used"),
    [
        (set(), None, None, "fail", None),
        ({"model/a", "_SNOWML_EXPORT"}, None, OTHER, "fail", None),  # half of something
        (FILES, MINE, None, "fail", MINE),  # an earlier try's
        (FILES, WHOLE, None, "reuse", WHOLE),
        (FILES, WHOLE, None, "replace", None),
        (FILES, OTHER, None, "replace", None),
        (FILES, MINE, None, "replace", MINE),
        ({"_SUCCESS"}, WHOLE, None, "reuse", None),  # files are missing
        ({"_SUCCESS"}, MINE, None, "fail", None),
        (FILES, WHOLE, OTHER, "reuse", WHOLE),  # a replacement that was begun, and removed nothing yet
    ],
)
def test_what_is_done(files, whole, started, if_exists, used) -> None:
    assert plan_export(WANTED, files, whole, started, if_exists, "@ST/x/") == used


@pytest.mark.parametrize(
    ("files", "whole", "if_exists"),
    [
        ({"notes.txt"}, None, "replace"),  # somebody's files
        ({"_SUCCESS"}, None, "replace"),  # somebody's mark
        (FILES, WHOLE, "fail"),
        (FILES, OTHER, "fail"),
        (FILES, OTHER, "reuse"),
        (FILES, ANEW, "reuse"),
        (FILES, FULL, "reuse"),
    ],
)
def test_what_is_refused(files, whole, if_exists) -> None:
    with pytest.raises(ExportExistsError, match="Nothing was changed"):
        plan_export(WANTED, files, whole, None, if_exists, "@ST/x/")
