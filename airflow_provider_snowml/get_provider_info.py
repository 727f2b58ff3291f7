"""What Airflow's provider manager reads. Imports nothing of Airflow, see the package's ``__init__``."""

from __future__ import annotations

from typing import Any

from airflow_provider_snowml import __version__

_INTEGRATION = "Snowflake ML"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider; ``package-name`` has to equal the distribution's name, hyphens and all."""
    return {
        "package-name": "airflow-provider-snowml",
        "name": "Snowflake ML",
        "description": (
            "`Snowflake ML <https://docs.snowflake.com/en/developer-guide/snowflake-ml/overview>`__: "
            "register, evaluate, promote, score, serve and monitor models of the Snowflake Model Registry.\n"
        ),
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.snowflake.com/en/developer-guide/snowflake-ml/overview",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_provider_snowml.hooks.snowml"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_snowml.operators.champion_challenger",
                    "airflow_provider_snowml.operators.evaluation",
                    "airflow_provider_snowml.operators.inference",
                    "airflow_provider_snowml.operators.model_export",
                    "airflow_provider_snowml.operators.model_retention",
                    "airflow_provider_snowml.operators.model_update",
                    "airflow_provider_snowml.operators.monitors",
                    "airflow_provider_snowml.operators.preflight",
                    "airflow_provider_snowml.operators.promotion",
                    "airflow_provider_snowml.operators.registry",
                    "airflow_provider_snowml.operators.run_model",
                    "airflow_provider_snowml.operators.run_schema",
                    "airflow_provider_snowml.operators.services",
                    "airflow_provider_snowml.operators.suspend_idle",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_snowml.sensors.inference",
                    "airflow_provider_snowml.sensors.models",
                    "airflow_provider_snowml.sensors.services",
                ],
            }
        ],
        "asset-uris": [
            {
                "schemes": ["snowml"],
                "handler": "airflow_provider_snowml.assets.models.sanitize_uri",
                "factory": "airflow_provider_snowml.assets.models.create_asset",
                "to_openlineage_converter": (
                    "airflow_provider_snowml.assets.models.convert_asset_to_openlineage"
                ),
            }
        ],
        "config": {
            "snowml": {
                "description": "Settings of the Snowflake ML provider.",
                "options": {
                    "account": {
                        "description": (
                            "What the assets of models call the Snowflake account, in the URI "
                            "``snowml://<account>/<database>/<schema>/model/<name>``. It is no address: the "
                            "connection has that.\n"
                        ),
                        "version_added": __version__,
                        "type": "string",
                        "example": "myorg-myaccount",
                        "default": "snowflake",
                    }
                },
            }
        },
        "task-decorators": [
            {
                "name": "snowml_model",
                "class-name": "airflow_provider_snowml.decorators.snowml_model.snowml_model_task",
            }
        ],
        "extra-links": ["airflow_provider_snowml.links.snowsight.SnowsightQueryLink"],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_snowml.triggers.batch_success",
                    "airflow_provider_snowml.triggers.inference",
                    "airflow_provider_snowml.triggers.models",
                    "airflow_provider_snowml.triggers.services",
                ],
            }
        ],
    }
