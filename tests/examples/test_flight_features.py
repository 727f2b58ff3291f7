"""What a model may know of a flight: nothing that was not known an hour before it was to leave."""

from __future__ import annotations

import pytest

COLUMNS = "YEAR, MONTH, DAY, SCHED_DEP_TIME, SCHED_ARR_TIME, CARRIER, FLIGHT, TAILNUM, ORIGIN, DEST, DISTANCE"
# (columns of a flight, what happened to it)
FLIGHT = "2013, 1, 1, 1015, 1230, 'UA', 1545, 'N14228', 'EWR', 'IAH', 1400, 10, 15, '2013-01-01T15:00:00'"


@pytest.fixture
def flights(example, connection):
    """One flight that was to leave Newark at 10:15 (15:15 UTC), the weather around it, and its plane."""
    load = example("flight_delays_load")
    cursor = connection.cursor()
    for table, columns in load.TABLES.items():
        cursor.execute(f"CREATE TABLE {table} ({columns})")
    cursor.execute(f"INSERT INTO FLIGHTS ({COLUMNS}, HOUR, MINUTE, TIME_HOUR) SELECT {FLIGHT}")
    for hour in range(10, 18):
        cursor.execute(
            f"INSERT INTO WEATHER (ORIGIN, TEMP, TIME_HOUR) SELECT 'EWR', {hour}, '2013-01-01T{hour}:00:00'"
        )
    cursor.execute("INSERT INTO PLANES (TAILNUM, YEAR, SEATS) SELECT 'N14228', 1999, 149")
    cursor.execute(load.FLIGHT_FEATURES)
    cursor.execute(load.FLIGHT_OUTCOMES)
    return cursor


def features(cursor) -> dict:
    (row,) = cursor.execute("SELECT * FROM FLIGHT_FEATURES").fetchall()
    return dict(zip((column.name for column in cursor.description), row, strict=True))


def test_features_of_a_flight(flights):
    found = features(flights)
    assert str(found["FLIGHT_DATE"]) == "2013-01-01"
    assert found["FLIGHT_ID"] == "EWR-UA1545"
    assert found["SCHED_DEP_MINUTE"] == 10 * 60 + 15
    assert found["SCHED_ARR_MINUTE"] == 12 * 60 + 30
    assert found["DAY_OF_WEEK"] == 2  # a Tuesday
    assert found["PLANE_AGE"] == 14
    # Filed under 13:00 UTC, so made before 14:00; the prediction is made at 14:15.
    assert found["TEMPERATURE"] == 13


def test_nothing_that_happens_later_changes_a_feature(flights):
    before = features(flights)
    happened = ["DEP_TIME", "DEP_DELAY", "ARR_TIME", "ARR_DELAY", "AIR_TIME"]
    flights.execute(f"UPDATE FLIGHTS SET {', '.join(f'{column} = 99' for column in happened)}")
    flights.execute("DELETE FROM WEATHER WHERE TIME_HOUR > '2013-01-01T13:15:00'")
    assert features(flights) == before


def test_the_model_learns_from_the_features_only(example, flights):
    assert set(example("flight_delays_retrain").FEATURES) == set(features(flights)) - {
        "FLIGHT_DATE",
        "FLIGHT_ID",
    }


@pytest.mark.parametrize(("delay", "late"), [("15", False), ("16", True), ("-4", False), ("NULL", None)])
def test_late_is_more_than_a_quarter_of_an_hour_and_unknown_without_an_arrival(flights, delay, late):
    flights.execute(f"UPDATE FLIGHTS SET ARR_DELAY = {delay}")
    assert flights.execute("SELECT LATE FROM FLIGHT_OUTCOMES").fetchall() == [(late,)]


def test_a_cancelled_flight_has_features_all_the_same(flights):
    flights.execute("UPDATE FLIGHTS SET DEP_TIME = NULL, ARR_TIME = NULL, ARR_DELAY = NULL, TAILNUM = NULL")
    found = features(flights)
    assert found["CARRIER"] == "UA"
    assert found["PLANE_AGE"] is None


def test_weather_that_was_not_recorded_is_missing_and_the_flight_is_not(flights):
    flights.execute("DELETE FROM WEATHER")
    assert features(flights)["TEMPERATURE"] is None
