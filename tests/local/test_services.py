"""Services of models through snowflake-ml-python and through SQL."""

from __future__ import annotations

import time

import pytest
import yaml

CLASSIFIER = "SNOWML.SHARED_MODELS.CLASSIFIER"
CUSTOM = "SNOWML.SHARED_MODELS.CUSTOM"
WAIT = 180  # seconds; a small machine may be slow


def specification(service: str, model: str = CLASSIFIER, *, build=(), **changes) -> str:
    """A deployment in the form in which snowflake-ml sends it."""
    spec = {
        "models": [{"name": model, "version": "V1"}],
        "image_build": {"compute_pool": "SERVICES_POOL", "force_rebuild": False, **dict(build)},
        "service": {
            "name": service,
            "compute_pool": "SERVICES_POOL",
            "ingress_enabled": False,
            "min_instances": 1,
            "max_instances": 1,
            **changes,
        },
    }
    return yaml.safe_dump(spec).replace("\\", "\\\\").replace("'", "''")


def test_deploy_by_sql(models, connection, schema):
    cursor = connection.cursor()
    cursor.execute(
        "CREATE COMPUTE POOL IF NOT EXISTS SERVICES_POOL MIN_NODES = 1 MAX_NODES = 4 INSTANCE_FAMILY = CPU_X64_XS"
    )
    start = time.time()
    cursor.execute_async(f"CALL SYSTEM$DEPLOY_MODEL('{specification(schema + '.S')}')")
    query = cursor.sfqid
    while connection.is_still_running(connection.get_query_status(query)):
        time.sleep(0.2)
        print(time.time() - start, [r[:2] for r in cursor.execute(f"SHOW SERVICES IN SCHEMA {schema}").fetchall()])
    cursor.get_results_from_sfqid(query)
    print(cursor.fetchall())
    for sql in ("DESCRIBE SERVICE", "SHOW SERVICE CONTAINERS IN SERVICE", "SHOW SERVICE INSTANCES IN SERVICE",
        "SHOW ENDPOINTS IN SERVICE"):
        c = cursor.execute(f"{sql} {schema}.S")
        print(sql, [dict(zip([d[0] for d in c.description], r)) for r in c.fetchall()])
    print(cursor.execute(f"CALL SYSTEM$GET_SERVICE_LOGS('{schema}.S', '0', 'model-inference')").fetchall())
    print(cursor.execute(f"DROP SERVICE {schema}.S").fetchall())

