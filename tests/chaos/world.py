"""What is there before anything is killed: models, rows, a stage, a pool, and what earlier jobs left."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from io import BytesIO
from typing import Any

from airflow_provider_snowml.core.batch_job import JobManifest, JobOwner, fingerprint

SCHEMA = "SNOWML.CHAOS"
DAY, OTHER_DAY = "2013-06-01", "2013-06-02"
RUN_ID = "chaos__2013-06-01"
THRESHOLDS = {"V1": 20, "V2": 40}  # a version's prediction says whether F1 is greater
SLOTS = 2  # how many cases may run at once; each has its own model, whose default version changes


def prepare(hook: Any) -> None:
    """Models, rows, a stage, a pool, and the output of a job to be loaded."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    hook.rows(
        f"CREATE TABLE {SCHEMA}.X AS SELECT SEQ4()::INT AS ID, SEQ4()::FLOAT AS F1, "
        f"DATEADD(day, MOD(SEQ4(), 2), '{DAY}'::DATE)::VARCHAR AS DAY FROM TABLE(GENERATOR(ROWCOUNT => 60))"
    )
    hook.rows(f"CREATE STAGE {SCHEMA}.ST ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    hook.rows(f"CREATE TAG {SCHEMA}.TEAM")
    hook.rows(f"CREATE FILE FORMAT {SCHEMA}.PARQUET_FILES TYPE = PARQUET")
    hook.rows("CREATE COMPUTE POOL CHAOS_POOL MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_XS")
    rows = pd.DataFrame({"F1": np.arange(60.0)})
    with hook.session() as session:
        registry = hook.registry(session, hook.default_schema())
        for slot in range(SLOTS):
            for version, threshold in THRESHOLDS.items():
                registry.log_model(
                    LogisticRegression(C=1e6).fit(rows, (threshold < rows.F1).astype(int)),
                    model_name=f"M{slot}",
                    version_name=version,
                    sample_input_data=rows.head(),
                    options={"target_methods": ["predict"]},
                )
    for name, where in (("A_DAY", f"WHERE DAY = '{DAY}'"), ("ALL_DAYS", ""), ("UNFINISHED", "LIMIT 10")):
        _write_output(hook, name, where)
    hook.rows(f"REMOVE '@{SCHEMA}.ST/loads/UNFINISHED/_SUCCESS'")


def _write_output(hook: Any, name: str, where: str) -> None:
    """What a job leaves: its rows, _SUCCESS, and the manifest beside its input."""
    write_rows(
        hook,
        f"loads/{name}",
        f"SELECT ID, DAY, IFF(F1 > 20, 1, 0) AS OUTPUT_FEATURE_0 FROM {SCHEMA}.X {where}",
    )
    put(hook, f"loads/{name}", "_SUCCESS")
    write_manifest(hook, manifest_of(JobOwner("chaos", "score", DAY), "loads", name))


def write_rows(to: Any, directory: str, query: str) -> None:
    """Parquet below the stage.

    :param to: a hook, or the control.
    """
    to.rows(
        f"COPY INTO @{SCHEMA}.ST/{directory}/part FROM ({query}) FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE"
    )


def put(to: Any, directory: str, file: str, content: bytes = b"") -> None:
    """A file below the stage."""
    to.rows(
        f"PUT 'file:///{file}' '@{SCHEMA}.ST/{directory}/' AUTO_COMPRESS = FALSE OVERWRITE = TRUE",
        file_stream=BytesIO(content),
    )


def manifest_of(owner: JobOwner, base: str, job: str, **others: Any) -> JobManifest:
    """The manifest of a job that writes below a directory of the stage.

    :param others: what is not as usual.
    """
    usual = JobManifest(
        **asdict(owner),
        run_id=RUN_ID,
        clear_number=0,
        attempt=1,
        job_name=f"{SCHEMA}.{job}",
        fingerprint=fingerprint({}),
        model=f"{SCHEMA}.M0",
        version_reference="default",
        version="V1",
        function="predict",
        input_location=f"@{SCHEMA}.ST/{base}_snowml_input/{job}/data_0/",
        output_location=f"@{SCHEMA}.ST/{base}/{job}/",
        input_rows=30,
        keeps_row_count=True,
    )
    return replace(usual, **others)


def write_manifest(to: Any, manifest: JobManifest) -> None:
    """Beside the job's input."""
    directory = manifest.input_location.removeprefix(f"@{SCHEMA}.ST/").rsplit("/", 2)[0]
    put(to, directory, "manifest.json", manifest.to_json().encode())


def start_job(to: Any, base: str, job: str) -> None:
    """A job of somebody else, on all rows."""
    specification = json.dumps({"output": {"stage_location": f"@{SCHEMA}.ST/{base}/"}})
    to.rows(
        f"EXECUTE INFERENCE JOB SERVICE IN COMPUTE POOL CHAOS_POOL WITH SPECIFICATION '{specification}' "
        f"FROM (SELECT F1 FROM {SCHEMA}.X) MODEL = {SCHEMA}.M0 VERSION = V1 FUNCTION = 'predict' "
        f"NAME = {SCHEMA}.{job} ASYNC = TRUE"
    )
