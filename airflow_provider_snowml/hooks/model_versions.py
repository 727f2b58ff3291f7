"""Which versions models have, of many models at once."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection

from airflow_provider_snowml.core.model_poller import (
    DEFAULT,
    ListedModel,
    ModelOutcome,
    ModelPoller,
    ModelVerdict,
)
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, literal
from airflow_provider_snowml.exceptions import ObjectNotFoundError, SnowMLError
from airflow_provider_snowml.hooks.snowml import SnowMLHook
from airflow_provider_snowml.hooks.watching import KeptConnection, in_short

# What a look saw of a model: nothing, if there is none; a text is why the look failed.
Seen = ListedModel | None | str


def list_models(hook: SnowMLHook, schema: SchemaName, names: Collection[str] = ()) -> dict[str, ListedModel]:
    """A schema's models by name, in one statement.

    :param hook: the hook.
    :param schema: the schema.
    :param names: the models that are wanted; all if none is named.
    """
    like = f" LIKE {literal(next(iter(names)))}" if len(names) == 1 else ""
    found = {}
    for row in hook.rows(f"SHOW MODELS{like} IN SCHEMA {schema.sql}"):
        # LIKE ignores case and takes _ for any character.
        if not names or row["name"] in names:
            aliases = json.loads(row["aliases"] or "{}")
            found[str(row["name"])] = ListedModel(
                tuple(json.loads(row["versions"] or "[]")), {**aliases, DEFAULT: row["default_version_name"]}
            )
    return found


def judge(poller: ModelPoller, seen: Seen) -> ModelVerdict:
    """What a look means."""
    now = time.time()
    return poller.failed(seen, now) if isinstance(seen, str) else poller.observed(seen, now)


def is_over(verdict: ModelVerdict) -> bool:
    """Whether the wait is."""
    return verdict.outcome is not ModelOutcome.WAIT


class ModelsWatch:
    """Looks at models again and again, one statement for each schema, over one connection that it keeps and
    replaces when it breaks.

    :param hook: the hook, used by nobody else meanwhile.
    """

    def __init__(self, hook: SnowMLHook) -> None:
        self._connection = KeptConnection(hook)

    def look(self, waited: Collection[str]) -> dict[str, Seen]:
        """What is seen of each model, by the name that it is waited for by. Nothing is raised."""
        seen: dict[str, Seen] = {}
        try:
            with self._connection.use() as hook:
                places: defaultdict[SchemaName, dict[str, str]] = defaultdict(dict)
                for text in waited:
                    try:
                        model = QualifiedName.parse(text, hook.default_schema(), what="model name")
                    except SnowMLError as error:
                        seen[text] = in_short(error)
                    else:
                        places[model.parent][text] = model.name.name
                for schema, names in places.items():
                    try:
                        found = list_models(hook, schema, set(names.values()))
                        seen |= {text: found.get(name) for text, name in names.items()}
                    except ObjectNotFoundError as error:  # a schema is gone: no reason for a new connection
                        seen |= dict.fromkeys(names, in_short(error))
        except Exception as error:  # whatever it is, it may be better by the next look
            seen |= dict.fromkeys(set(waited) - set(seen), in_short(error))
        return seen

    def close(self) -> None:
        """Close its connection."""
        self._connection.close()
