"""What OpenLineage is told of a task. Its provider asks for it, and need not be there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_snowml.core.lineage import LineageDataset, directory, table
from airflow_provider_snowml.core.names import Identifier, SchemaName
from airflow_provider_snowml.exceptions import InvalidNameError

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset, InputDataset, OutputDataset

    from airflow_provider_snowml.operators.base import SnowMLOperator

log = logging.getLogger(__name__)


def operator_lineage(task: SnowMLOperator, done: Mapping[str, Any]) -> OperatorLineage[Any, Any] | None:
    """What a task reads and writes, as Airflow's OpenLineage provider wants it.

    It asks nobody: neither Snowflake nor, but for the connection, Airflow.

    :param task: the operator.
    :param done: what it gave; empty before it has ended, and if it failed.
    :return: ``None`` without that provider.
    """
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
        from airflow.providers.openlineage.sqlparser import SQLParser
        from openlineage.client.facet_v2 import external_query_run, sql_job
    except ImportError:
        return None
    hook = task.get_hook()
    # As upstream's operators do it, so that a table is the same dataset to all.
    database = hook.get_openlineage_database_info(None)
    namespace = SQLParser.create_namespace(database)
    default = _named_schema(database.database, hook.get_openlineage_default_schema())
    try:
        lineage = task.lineage(done, default)
    except InvalidNameError as error:
        log.info("OpenLineage is told of no datasets: %s", error)
        return OperatorLineage()
    found: OperatorLineage[Any, Any] = OperatorLineage(
        inputs=[*(_input(namespace, one) for one in lineage.reads), *_of_assets(task.inlets)],
        outputs=[_output(namespace, one) for one in lineage.writes],
    )
    if lineage.query:
        found.job_facets["sql"] = sql_job.SQLJobFacet(query=SQLParser.normalize_sql(lineage.query))
        found.inputs += [_input(namespace, one) for one in tables_of(lineage.query, default)]
    if lineage.query_id:
        found.run_facets["externalQuery"] = external_query_run.ExternalQueryRunFacet(
            externalQueryId=lineage.query_id, source=namespace
        )
    return found


def tables_of(query: str, default: SchemaName | None) -> list[LineageDataset]:
    """The tables and views that a query reads, as far as OpenLineage's own parser sees them.

    :param query: the query.
    :param default: where unqualified ones are.
    """
    from airflow.providers.openlineage.sqlparser import SQLParser

    parsed = SQLParser(dialect="snowflake").parse(query)
    found = []
    for one in parsed.in_tables if parsed else ():
        try:
            found.append(
                directory(one.name, default) if one.name.startswith("@") else table(_as_written(one), default)
            )
        except InvalidNameError as error:
            log.info("OpenLineage is not told of %s: %s", one.qualified_name, error)
    return found


def _as_written(parsed: Any) -> str:
    """The name of a table, with the double quotes that the parser has taken off."""
    return ".".join(
        Identifier(part, quoted=bool(getattr(parsed.quote_style, kind, None))).sql
        for kind in ("database", "schema", "name")
        if (part := getattr(parsed, kind))
    )


def _named_schema(database: str | None, schema: str | None) -> SchemaName | None:
    """Where unqualified names are, if the connection or the operator says so."""
    if not (database and schema):
        return None
    return SchemaName(Identifier.parse(database), Identifier.parse(schema))


def _of_assets(assets: Sequence[Any]) -> list[Dataset]:
    """What a user has named by Airflow's assets."""
    from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset
    from airflow.sdk import Asset

    found = [translate_airflow_asset(one, None) for one in assets if isinstance(one, Asset)]
    return [one for one in found if one is not None]


def _input(namespace: str, one: LineageDataset) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset

    read = InputDataset(one.namespace or namespace, one.name, facets=_facets(one))
    if one.rows is not None:
        read.inputFacets = {
            "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                rowCount=one.rows
            )
        }
    return read


def _output(namespace: str, one: LineageDataset) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    written = OutputDataset(one.namespace or namespace, one.name, facets=_facets(one))
    if one.rows is not None:
        written.outputFacets = {
            "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=one.rows
            )
        }
    return written


def _facets(one: LineageDataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import (
        DatasetFacet,
        dataset_type_dataset,
        dataset_version_dataset,
        lifecycle_state_change_dataset,
    )

    facets: dict[str, Any] = {}
    if one.type:
        facets["datasetType"] = dataset_type_dataset.DatasetTypeDatasetFacet(datasetType=one.type)
    if one.version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=one.version)
    if one.change:
        change = lifecycle_state_change_dataset.LifecycleStateChange(one.change)
        facets["lifecycleStateChange"] = lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet(
            lifecycleStateChange=change
        )
    if one.model:
        # A facet of our own has our name in front, as OpenLineage wants it.
        facets["snowml_modelVersion"] = DatasetFacet().with_additional_properties(**one.model)
    return facets
