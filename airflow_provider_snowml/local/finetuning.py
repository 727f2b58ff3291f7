"""SNOWFLAKE.CORTEX.FINETUNE, simulated: nothing is trained, and the model that comes of it answers nothing.

It is there so that a schema can have a model of type CORTEX_FINETUNED beside those that ``log_model`` made.
"""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .catalog import Object, Qualified
from .errors import compilation_error, invalid_value
from .functions import system_function
from .grammar import parse_name
from .models import Model, Version
from .results import now

if TYPE_CHECKING:
    from .session import Session

CORTEX_FINETUNED = "CORTEX_FINETUNED"
_JOB = "FINETUNING JOB"
_COLUMNS = {"PROMPT", "COMPLETION"}
_BASE_MODELS = (
    "llama3-8b", "llama3-70b", "llama3.1-8b", "llama3.1-70b", "mistral-7b", "mixtral-8x7b",
)  # fmt: skip
_SIMULATED = "Simulated by the local Snowflake: nothing was trained."


@system_function("SNOWFLAKE.CORTEX.FINETUNE")
def finetune(session: Session, action: str, *arguments: Any) -> str:
    known: dict[str, Callable[..., str]] = {
        "CREATE": _create,
        "DESCRIBE": _describe,
        "SHOW": _show,
        "CANCEL": _cancel,
    }
    if str(action).upper() not in known:
        raise invalid_value(f"invalid operation '{action}' of FINETUNE; it can be {', '.join(known)}")
    answer = known[str(action).upper()]
    try:
        inspect.signature(answer).bind(session, *arguments)
    except TypeError:
        raise compilation_error(f"invalid number of arguments of FINETUNE('{action}', ...)") from None
    return answer(session, *arguments)


def _create(
    session: Session, name: str, base_model: str, training: str, validation: str = "", options: str = ""
) -> str:
    """Have the job be done at once, and the model be there."""
    if base_model not in _BASE_MODELS:
        raise invalid_value(f"base model '{base_model}' can't be fine-tuned: {', '.join(_BASE_MODELS)} can.")
    rows = 0
    for query in filter(None, (training, validation)):
        found = session.query(query)
        missing = _COLUMNS - {column.upper() for column in found.column_names}
        if missing:
            raise invalid_value(f"the query '{query}' has no column {', '.join(sorted(missing)).lower()}.")
        rows = rows or found.num_rows
    model = session.resolve(parse_name(name))
    made = now().isoformat()
    version = Version("V1", uuid.uuid4().hex, made, _SIMULATED, runnable_in=[])
    data = Model(
        model, session.role, version.created, "", uuid.uuid4().hex, "V1", [version],
        model_type=CORTEX_FINETUNED,
    ).data()  # fmt: skip
    session.account.catalog.create("MODEL", model, session.role, data)
    id_ = f"ft_{uuid.uuid4()}"
    job = {
        "id": id_,
        "status": "SUCCESS",
        "progress": 1.0,
        "base_model": base_model,
        "created_on": made,
        "finished_on": made,
        "model": str(model),
        "training_data": training,
        "trained_tokens": 0,
        "training_result": {"training_rows": rows, "note": _SIMULATED},
        "validation_data": validation,
        "options": json.loads(options) if options else {},
    }
    session.account.catalog.create(_JOB, Qualified("", "", id_), session.role, job)
    return id_


def _get(session: Session, id_: str) -> Object:
    found = session.account.catalog.find(_JOB, Qualified("", "", id_))
    if found is None:
        raise invalid_value(f"there is no fine-tuning job '{id_}'.")
    return found


def _describe(session: Session, id_: str) -> str:
    return json.dumps(_get(session, id_).data)


def _show(session: Session) -> str:
    short = ("id", "status", "base_model", "created_on")
    jobs = session.account.catalog.list(_JOB)
    return json.dumps([{key: job.data[key] for key in short} for job in jobs])


def _cancel(session: Session, id_: str) -> str:
    raise invalid_value(f"fine-tuning job '{id_}' is {_get(session, id_).data['status']} already.")
