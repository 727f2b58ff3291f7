"""Making a version the champion, and taking that back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal

from airflow.sdk import Context

from airflow_provider_snowml.assets.models import ModelRef, check_outlets, describe_event, with_outlet
from airflow_provider_snowml.core.lineage import Lineage, LineageDataset, model_version
from airflow_provider_snowml.core.names import QualifiedName, SchemaName, refuse_dollar_quotes
from airflow_provider_snowml.core.promotion import (
    CatalogModel,
    CatalogVersion,
    Marks,
    Promotion,
    check_not_older,
    parse_alias,
    parse_moment,
    promotion_steps,
    rollback_steps,
    rollback_target,
)
from airflow_provider_snowml.exceptions import InvalidArgumentError, OlderModelError
from airflow_provider_snowml.hooks.promotion import (
    check_tag,
    copy_version,
    find_model,
    get_model,
    run_steps,
    with_marks,
)
from airflow_provider_snowml.operators.base import SnowMLOperator, as_text, one_of, run_of

STATE_KEY = "snowml_rollback_model"


class SnowMLPromoteModelOperator(SnowMLOperator):
    """Make a version of a model the champion: what readers get.

    Readers use the default version, which is set first, in one statement. The alias comes next: it has to be
    taken from one version before another can have it, so between two statements no version has it. Then come
    the tag and the comment. A version that is promoted loses another alias that it has, such as CHALLENGER,
    since a version has one.

    Before that, on the version, the metric ``promotion`` is written: which champion it follows, how it is
    marked, until when it was trained. It is what :class:`SnowMLRollbackModelOperator` goes by. Whatever dies
    in between, a second run ends as one clean run does, and what is so already is not sent again.

    With a :class:`~airflow_provider_snowml.assets.models.ModelRef` the task updates the model's asset, whose
    event has ``{"version", "alias", "previous_version", "metrics"}``.

    XCom: ``{"model", "version", "previous_version", "alias", "metrics"}``, the last what was stored on the
    version. ``previous_version`` is ``None`` for the first champion. Snowflake makes a model's first version
    the default by itself; nobody chose it, so that one counts as a champion only once it was promoted or has
    the alias.

    Privileges: OWNERSHIP of the model; APPLY on the tag. See
    https://docs.snowflake.com/en/sql-reference/sql/alter-model.

    :param model_name: the model, ``[[database.]schema.]name`` or a ``ModelRef``.
    :param version_name: the version's name. Not an alias: that can move between the gate and the promotion.
    :param alias: the alias that it gets; ``None`` for none.
    :param previous_alias: the alias that the champion before it gets.
    :param tag: the tag of the model that gets the version's name as its value, often ``live_version``;
        ``[[database.]schema.]name``, in the model's schema if that is not said.
    :param create_tag: whether to create it if it is missing.
    :param comment: the model's comment.
    :param trained_until: until when the training data went, a date or a time in ISO format, such as
        ``{{ data_interval_end }}``. Once a champion has one, each after it needs one too.
    :param on_older: what to do about a version that was trained until before the champion was, as in a run of
        last month again: ``"fail"``, ``"keep"`` the champion, or ``"promote"`` it all the same.
    :param copy_to: another model, to which the version is copied on the server, with its metrics, and in
        which it is promoted; likewise a name or a ``ModelRef``.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense, a tag that is missing, and
        an outlet that is another model.
    :raises NotFoundError: (a subclass) for a model or version that isn't there.
    :raises OlderModelError: if it is older than the champion.
    :raises ModelVersionExistsError: if the model in ``copy_to`` has another version of that name.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "alias",
        "previous_alias",
        "tag",
        "comment",
        "trained_until",
        "on_older",
        "copy_to",
    )

    def __init__(
        self,
        *,
        model_name: str | ModelRef,
        version_name: str,
        alias: str | None = "CHAMPION",
        previous_alias: str | None = None,
        tag: str | None = None,
        create_tag: bool = False,
        comment: str | None = None,
        trained_until: str | date | datetime | None = None,
        on_older: Literal["fail", "keep", "promote"] = "fail",
        copy_to: str | ModelRef | None = None,
        outlets: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=with_outlet(outlets, copy_to or model_name), **kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.alias = alias
        self.previous_alias = previous_alias
        self.tag = tag
        self.create_tag = create_tag
        self.comment = comment
        self.trained_until = trained_until
        self.on_older = on_older
        self.copy_to = copy_to

    def execute(self, context: Context) -> dict[str, Any]:
        """Promote, or find that it was done."""
        one_of("on_older", self.on_older, ("fail", "keep", "promote"))
        hook = self.get_hook()
        with hook.open_connection():
            default = hook.default_schema()
            source = QualifiedName.parse(str(self.model_name), default, what="model name")
            copy_to = as_text(self.copy_to)
            model = QualifiedName.parse(copy_to, default, what="copy_to") if copy_to else source
            check_outlets(self.outlets, model)
            if copy_to and model == source:
                raise InvalidArgumentError(f"copy_to is {model}, the model itself: leave it out.")
            found = get_model(hook, source)
            version = found.version(self.version_name)
            there = found if model == source else find_model(hook, model)
            wanted = self._wanted(context, source, there or CatalogModel(model, (version,)))
            try:
                self._check_age(there, version.name, wanted)
            except OlderModelError as error:
                if self.on_older != "keep":
                    raise
                self.log.warning("The champion is kept: %s", error)
                assert there is not None
                return self._result(context, there, there.champion(wanted.marks.alias))
            tag = self._tag(model)
            if tag is not None:
                check_tag(hook, tag, create=self.create_tag)
            if model != source:
                copy_version(hook, source, version.name, model, there)
                there = get_model(hook, model)
            assert there is not None
            now = with_marks(hook, there, tag=tag, comment=wanted.marks.comment is not None)
            promoted = now.version(version.sql)
            metrics = version.metrics if model != source else {}
            wanted, steps = promotion_steps(now, promoted, wanted, metrics=metrics)
            run_steps(hook, model, steps)
            if not steps:
                self.log.info("%s is the champion of %s already.", version.name, model)
        return self._result(context, now, promoted, wanted, {**metrics, **promoted.metrics})

    def _wanted(self, context: Context, source: QualifiedName, model: CatalogModel) -> Promotion:
        alias, previous = as_text(self.alias), as_text(self.previous_alias)
        tag = self._tag(model.name)
        marks = Marks(
            alias=parse_alias(alias, model, what="alias") if alias else None,
            previous_alias=parse_alias(previous, model, what="previous_alias") if previous else None,
            tag=tag.sql if tag is not None else None,
            comment=self.comment,
        )
        if marks.alias is not None and marks.alias == marks.previous_alias:
            raise InvalidArgumentError(f"alias and previous_alias are both {marks.alias}.")
        until = self.trained_until
        wanted = Promotion(
            marks,
            trained_until=parse_moment(until, what="trained_until").isoformat()
            if not isinstance(until, str | None) or as_text(until)
            else None,
            copied_from=source.sql if model.name != source else None,
            at=_now(),
            dag_id=context["ti"].dag_id,
            run_id=context["ti"].run_id,
        )
        # What is written last, and must not fail when the tag and the copy have been made.
        refuse_dollar_quotes(json.dumps(wanted.to_dict()), what="record of names and comment")
        return wanted

    def _tag(self, model: QualifiedName) -> QualifiedName | None:
        tag = as_text(self.tag)
        return QualifiedName.parse(tag, model.parent, what="tag") if tag else None

    def _check_age(self, there: CatalogModel | None, version: str, wanted: Promotion) -> None:
        if there is None or self.on_older == "promote":
            return
        until = wanted.trained_until
        check_not_older(
            there.name,
            there.champion(wanted.marks.alias),
            version,
            parse_moment(until, what="trained_until") if until else None,
        )

    def _result(
        self,
        context: Context,
        model: CatalogModel,
        version: CatalogVersion | None,
        noted: Promotion | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        assert version is not None
        noted = noted or version.promotion or Promotion()
        event = {
            "version": version.name,
            "alias": noted.marks.alias,
            "previous_version": noted.previous_version,
            "metrics": metrics if metrics is not None else version.metrics,
        }
        describe_event(context, self.outlets, event)
        return self.done({"model": model.name.sql, **event})

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The champion, which a copy is made of elsewhere."""
        source = model_version(str(self.model_name), done.get("version"), default)
        if not done:
            return Lineage(reads=[source])
        champion = champion_version(done)
        return Lineage(reads=[source] if source.name != champion.name else [], writes=[champion])


class SnowMLRollbackModelOperator(SnowMLOperator):
    """Make the champion before this one the champion again.

    What was before, and what marks a champion, is what :class:`SnowMLPromoteModelOperator` recorded. The
    order is the same: the default first, in one statement, then alias, tag and comment. The version that is
    taken back stays, and its record says so. Rolling back again goes one champion further back.

    A task instance takes back one version, however often it is tried or cleared: which one is noted first.
    Better still is to say which (``version_name``): if that one is not the champion any more, nothing is
    done; if it turns out to be none, because the promotion that it comes from did not happen, it is an error.

    XCom, and the event of the model's asset: ``{"model", "version", "previous_version", "alias", "metrics",
    "rolled_back_from"}``, of the version that is the champion now; the last is ``None`` if nothing was done.

    Privileges: OWNERSHIP of the model; APPLY on the tag. See
    https://docs.snowflake.com/en/sql-reference/sql/alter-model.

    :param model_name: the model, ``[[database.]schema.]name`` or a ``ModelRef``.
    :param version_name: the version that is no longer wanted; the champion, if it is left out.
    :param comment: the model's comment; what the champion's promotion had said if it is left out.
    :raises InvalidArgumentError: (or a subclass) for arguments that make no sense.
    :raises NotFoundError: (a subclass) for a model or version that isn't there.
    :raises NothingToRollBackError: if there was no champion before, none is known, or it is gone.
    """

    template_fields: Sequence[str] = (
        *SnowMLOperator.template_fields,
        "model_name",
        "version_name",
        "comment",
    )

    def __init__(
        self,
        *,
        model_name: str | ModelRef,
        version_name: str | None = None,
        comment: str | None = None,
        outlets: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=with_outlet(outlets, model_name), **kwargs)
        self.model_name = model_name
        self.version_name = version_name
        self.comment = comment
        self._names_version = version_name is not None

    def execute(self, context: Context) -> dict[str, Any]:
        """Roll back, or find that it was done."""
        if self._names_version and as_text(self.version_name) is None:
            # With trigger_rule="one_failed" this also runs when the promotion, or what is before it, failed.
            raise InvalidArgumentError(
                f"version_name was given, and has come to {self.version_name!r}: what was to be taken back "
                "was not promoted. Nothing is done."
            )
        hook = self.get_hook()
        with hook.open_connection():
            name = QualifiedName.parse(str(self.model_name), hook.default_schema(), what="model name")
            check_outlets(self.outlets, name)
            model = get_model(hook, name)
            unwanted = self._unwanted(context, model)
            previous = rollback_target(model, unwanted)
            if model.default not in (unwanted, previous):
                assert model.default is not None
                self.log.warning(
                    "%s is not the champion of %s any more, %s is: nothing is done.",
                    unwanted.name,
                    name,
                    model.default.name,
                )
                return self._result(context, model, model.default, None)
            noted = unwanted.promotion
            assert noted is not None
            tag = QualifiedName.parse(noted.marks.tag) if noted.marks.tag is not None else None
            model = with_marks(hook, model, tag=tag, comment=True)
            run_steps(hook, name, rollback_steps(model, unwanted, at=_now(), comment=self.comment))
        return self._result(context, model, previous, unwanted, alias=noted.marks.alias)

    def _unwanted(self, context: Context, model: CatalogModel) -> CatalogVersion:
        """Which version is taken back: what was said, or what an earlier try noted, or the default."""
        wanted = as_text(self.version_name)
        if wanted is not None:
            return model.version(wanted)
        run, store = run_of(context), context["task_state_store"]
        noted: Any = store.get(STATE_KEY, None)
        if isinstance(noted, dict) and noted["model"] == model.name.sql and noted["run_id"] == run.run_id:
            found = model.find(noted["version"])
            is_same_try = noted["clear_number"] == run.clear_number
            if found is not None and found.promotion is not None:
                # Cleared, it is for what was promoted since, if anything was.
                was_done = model.default in (found, model.find(found.promotion.previous_version))
                if is_same_try or was_done:
                    return found
        assert model.default is not None  # every model has one
        store.set(
            STATE_KEY,
            {
                "run_id": run.run_id,
                "clear_number": run.clear_number,
                "model": model.name.sql,
                "version": model.default.name,
            },
        )
        return model.default

    def _result(
        self,
        context: Context,
        model: CatalogModel,
        version: CatalogVersion,
        unwanted: CatalogVersion | None,
        alias: str | None = None,
    ) -> dict[str, Any]:
        noted = version.promotion or Promotion()
        event = {
            "version": version.name,
            "alias": alias or noted.marks.alias,
            "previous_version": noted.previous_version,
            "metrics": version.metrics,
            "rolled_back_from": unwanted.name if unwanted is not None else None,
        }
        describe_event(context, self.outlets, event)
        return self.done({"model": model.name.sql, **event})

    def lineage(self, done: Mapping[str, Any], default: SchemaName | None) -> Lineage:
        """The champion that it is again."""
        return Lineage(writes=[champion_version(done)] if done else [])


def champion_version(done: Mapping[str, Any]) -> LineageDataset:
    """The champion, as the result of a promotion or of a rollback says."""
    return model_version(done["model"], done["version"], alias=done["alias"], metrics=done["metrics"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
