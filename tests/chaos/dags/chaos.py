"""One DAG with one task for each operator that is killed; which, is in the file that the test has written."""

from __future__ import annotations

import importlib
import json
import os
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.sdk import DAG

for _name, _told in json.loads(Path(os.environ["SNOWML_CHAOS_TASKS"]).read_text()).items():
    _module, _class = _told["operator"].rsplit(".", 1)
    with DAG(_name, schedule=None, start_date=pendulum.datetime(2013, 1, 1)) as _dag:
        getattr(importlib.import_module(_module), _class)(
            **_told["arguments"],
            snowflake_conn_id=_name.lower(),
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
    globals()[_name] = _dag
