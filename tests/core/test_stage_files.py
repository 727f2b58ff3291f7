from __future__ import annotations

import pytest

from airflow_provider_snowml.core.stage_files import stage_files_query
from airflow_provider_snowml.exceptions import InvalidArgumentError


def test_the_query() -> None:
    assert stage_files_query("@ml.prod.photos") == (
        "SELECT '@ML.PROD.PHOTOS/' || RELATIVE_PATH AS FILE_PATH FROM DIRECTORY(@ML.PROD.PHOTOS)"
    )
    query = stage_files_query("@ml.prod.photos/a", pattern=r".*\.jp'g", column_name="photo")
    assert query.startswith("SELECT '@ML.PROD.PHOTOS/' || RELATIVE_PATH AS PHOTO")
    assert query.endswith(r"WHERE STARTSWITH(RELATIVE_PATH, 'a/') AND RLIKE(RELATIVE_PATH, '.*\\.jp\'g')")


def test_templates_stay_as_they_are() -> None:
    query = stage_files_query("@ml.prod.photos/{{ macros.ds_add(ds, -1) }}/it's/{{ ti.map_index }}")
    assert r"'{{ macros.ds_add(ds, -1) }}/it\'s/{{ ti.map_index }}/'" in query


@pytest.mark.parametrize(
    "location", ["photos", "@photos", "@prod.photos/x", "@ml.prod.pho tos", "@USER$ME.P.S"]
)
def test_what_is_no_full_location_is_refused(location: str) -> None:
    with pytest.raises(InvalidArgumentError):
        stage_files_query(location)
