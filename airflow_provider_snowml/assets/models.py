"""Models as Airflow's assets: what a promotion updates, and scoring can be scheduled on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Context, conf

from airflow_provider_snowml.core.lineage import model_version
from airflow_provider_snowml.core.model_uri import SCHEME, model_uri, parse_model_path, refuse_jinja
from airflow_provider_snowml.core.names import QualifiedName
from airflow_provider_snowml.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from openlineage.client.event_v2 import Dataset


@dataclass(frozen=True)
class ModelRef:
    """A model by its full name, as a DAG file knows it; the account comes from Airflow's configuration.

    ::

        CHURN = ModelRef("ML.PUBLIC.CHURN")

        promote = SnowMLPromoteModelOperator(model_name=CHURN, ...)  # updates CHURN.asset

        @dag(schedule=CHURN.asset)
        def score(): ...

    The account is what ``[snowml] account`` says, ``AIRFLOW__SNOWML__ACCOUNT`` in the environment. It says
    which deployment's models are meant and is no address: the connection has that. So a DAG is the same
    against a real account and against the local Snowflake.

    :param name: ``database.schema.name``, without templates: an asset is made when the DAG is parsed.
    :raises InvalidNameError: if it is no full name, or a template.
    """

    name: str

    def __post_init__(self) -> None:
        # A value object that cannot be used is none.
        refuse_jinja(self.name, what="model name")
        QualifiedName.parse(self.name, what="model name")

    @property
    def uri(self) -> str:
        """``snowml://<account>/<database>/<schema>/model/<name>``."""
        return uri_of(QualifiedName.parse(self.name, what="model name"))

    @property
    def asset(self) -> Asset:
        """The asset. One with watchers is ``Asset(ref.uri, watchers=[...])``."""
        return Asset(self.uri)

    def __str__(self) -> str:
        return self.name


def uri_of(model: QualifiedName) -> str:
    """The URI of a model in the account of Airflow's configuration."""
    return model_uri(conf.get("snowml", "account", fallback="snowflake"), model)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Airflow's handler of ``snowml`` URIs: one model has one URI, however it is written."""
    if not uri.netloc:
        raise InvalidArgumentError(
            f"The URI {uri.geturl()} has no account: write {SCHEME}://<account>/<database>/<schema>/model/<name>."
        )
    from urllib.parse import urlsplit

    return urlsplit(model_uri(uri.netloc, parse_model_path(uri.path)))


def create_asset(
    *, account: str, database: str, schema: str, model: str, extra: dict[str, Any] | None = None
) -> Asset:
    """Airflow's factory of ``snowml`` assets."""
    return Asset(model_uri(account, QualifiedName.parse(f"{database}.{schema}.{model}")), extra=extra)


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset:
    """OpenLineage's dataset of a model's asset: the operators' own, if the account is called as there."""
    from urllib.parse import urlsplit

    from openlineage.client.event_v2 import Dataset

    uri = urlsplit(asset.uri)
    return Dataset(f"snowflake://{uri.netloc}", model_version(parse_model_path(uri.path)).name)


def with_outlet(outlets: Any, model: str | ModelRef) -> list[Any]:
    """An operator's outlets, with the asset of a model that is given as :class:`ModelRef`."""
    given = list(outlets) if isinstance(outlets, Sequence) else [outlets] if outlets is not None else []
    if isinstance(model, ModelRef) and model.asset not in given:
        given.append(model.asset)
    return given


def check_outlets(outlets: Sequence[Any], model: QualifiedName) -> None:
    """Check that the models among a task's outlets are the one that it is about to change.

    :param outlets: the task's outlets.
    :param model: the model that its rendered arguments name.
    :raises InvalidArgumentError: if one is another model.
    """
    for asset in _model_assets(outlets):
        if asset.uri != uri_of(model):
            raise InvalidArgumentError(
                f"The task's outlet is {asset.uri}, but it changes {uri_of(model)}: those who wait for the "
                "outlet would be told of a model that was not touched. Make both the same ModelRef."
            )


def describe_event(context: Context, outlets: Sequence[Any], extra: Mapping[str, Any]) -> None:
    """Have the event of each model among the outlets carry this."""
    for asset in _model_assets(outlets):
        context["outlet_events"][asset].extra.update(extra)


def _model_assets(outlets: Sequence[Any]) -> list[Asset]:
    return [one for one in outlets if isinstance(one, Asset) and one.uri.startswith(f"{SCHEME}://")]
