# The provider, its local Snowflake and Airflow: all services of docker-compose.yaml but the database.
FROM python:3.11-slim

ENV AIRFLOW_HOME=/opt/airflow PYTHONUNBUFFERED=1

# A volume takes its owner from the directory that it hides.
RUN useradd --create-home airflow \
    && install --directory --owner=airflow --mode=0700 \
        /opt/airflow /opt/airflow/auth /opt/airflow/logs /opt/snowml-local/data /opt/snowml-local/trust

WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints-3.11.txt ./
COPY airflow_provider_snowml airflow_provider_snowml
RUN pip install --no-cache-dir --constraint constraints-3.11.txt '.[local,examples,postgres]'

USER airflow
WORKDIR /opt/airflow
