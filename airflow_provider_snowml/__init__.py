"""Apache Airflow provider for the Snowflake ML lifecycle.

Imports nothing of Airflow: the provider manager imports this package while Airflow itself is still loading.
"""

__version__ = "0.1.0"
