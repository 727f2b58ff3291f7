"""Whether a challenger takes the champion's place: one rule, decided from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

LESS_IS_BETTER = ("log_loss", "mae", "rmse", "mape")


class Outcome(Enum):
    """Who is the champion from now on."""

    BETTER = "better"
    NOT_BETTER = "not_better"
    NO_CHAMPION = "no_champion"


@dataclass(frozen=True)
class Score:
    """How one version did.

    :param version: its name.
    :param rows: how many rows with a label it was judged on.
    :param metrics: its metrics on them; ``None`` for one that could not be computed.
    :param slices: the rule's metric on the named slices.
    """

    version: str
    rows: int
    metrics: Mapping[str, float | None]
    slices: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ContestRule:
    """What a challenger has to reach.

    :param metric: the metric that decides.
    :param less_is_better: whether a smaller number is the better one, as of an error.
    :param floor: what it has to reach whatever the champion does (not exceed, where less is better).
    :param min_margin: by how much it has to be better than the champion.
    :param min_rows: on how many rows with a label, at the least.
    :param max_slice_loss: by how much it may be worse than the champion on a slice, by the slice's name.
    """

    metric: str
    less_is_better: bool = False
    floor: float | None = None
    min_margin: float = 0.0
    min_rows: int = 1
    max_slice_loss: Mapping[str, float] = field(default_factory=dict)

    def gain(self, challenger: float, champion: float) -> float:
        """By how much the challenger is better; negative if it is worse."""
        return champion - challenger if self.less_is_better else challenger - champion


@dataclass(frozen=True)
class Verdict:
    """What was decided, and why: first what speaks against the challenger, if anything does.

    :param outcome: the decision.
    :param reasons: sentences.
    """

    outcome: Outcome
    reasons: tuple[str, ...]


def judge(rule: ContestRule, challenger: Score, champion: Score | None) -> Verdict:
    """Decide. A number that is unknown is never a reason for the challenger.

    :param rule: what it has to reach.
    :param challenger: how the challenger did.
    :param champion: how the champion did on the same rows; ``None`` if there is none.
    """
    if champion is not None and champion.version == challenger.version:
        # A run that comes again after its promotion: promoting twice changes nothing, retiring would.
        return Verdict(Outcome.BETTER, (f"{challenger.version} is the champion already.",))
    against: list[str] = []
    for_it: list[str] = []
    name, own = rule.metric, challenger.metrics[rule.metric]
    if challenger.rows < rule.min_rows:
        against.append(f"{challenger.rows} rows have a label; {rule.min_rows} are wanted.")
    if own is None:
        against.append(f"The challenger's {name} is unknown.")
    elif rule.floor is not None:
        is_reached = own <= rule.floor if rule.less_is_better else own >= rule.floor
        beyond = "at most" if rule.less_is_better else "at least"
        said = f"The challenger's {name} is {_number(own)}; {beyond} {_number(rule.floor)} is wanted."
        (for_it if is_reached else against).append(said)
    if champion is None:
        for_it.append("There is no champion yet.")
    elif own is not None:
        _compare(rule, own, champion.metrics[name], against, for_it)
        for slice_, most in rule.max_slice_loss.items():
            _compare_slice(rule, slice_, most, challenger, champion, against, for_it)
    if against:
        return Verdict(Outcome.NOT_BETTER, tuple(against))
    return Verdict(Outcome.NO_CHAMPION if champion is None else Outcome.BETTER, tuple(for_it))


def _compare(
    rule: ContestRule, own: float, other: float | None, against: list[str], for_it: list[str]
) -> None:
    if other is None:
        against.append(f"The champion's {rule.metric} is unknown.")
        return
    gain = rule.gain(own, other)
    # Without a margin it still has to be better: equal is no reason to change.
    is_better = gain >= rule.min_margin if rule.min_margin else gain > 0
    wanted = f"at least {_number(rule.min_margin)}" if rule.min_margin else "more than 0"
    (for_it if is_better else against).append(
        f"The {rule.metric} is {_number(own)} against the champion's {_number(other)}, "
        f"{_number(gain)} better; {wanted} is wanted."
    )


def _compare_slice(
    rule: ContestRule,
    slice_: str,
    most: float,
    challenger: Score,
    champion: Score,
    against: list[str],
    for_it: list[str],
) -> None:
    own, other = challenger.slices[slice_], champion.slices[slice_]
    if own is None or other is None:
        against.append(f"On {slice_} the {rule.metric} is unknown.")
        return
    loss = -rule.gain(own, other)
    (for_it if loss <= most else against).append(
        f"On {slice_} the {rule.metric} is {_number(own)} against {_number(other)}, "
        f"{_number(loss)} worse; at most {_number(most)} is allowed."
    )


def report(model: str, rule: ContestRule, challenger: Score, champion: Score | None, verdict: Verdict) -> str:
    """The contest for people to read, in Markdown.

    :param model: the model's name.
    :param rule: what the challenger had to reach.
    :param challenger: how it did.
    :param champion: how the champion did, if there is one.
    :param verdict: what was decided.
    """
    said = {
        Outcome.BETTER: f"{challenger.version} is to be the champion",
        Outcome.NOT_BETTER: f"{challenger.version} is not to be the champion",
        Outcome.NO_CHAMPION: f"{challenger.version} is to be the first champion",
    }
    lines = [
        f"### {_cell(model)}: {said[verdict.outcome]}",
        "",
        *(f"- {_cell(reason)}" for reason in verdict.reasons),
        "",
        f"| | challenger {challenger.version} | "
        + (f"champion {champion.version} |" if champion is not None else "no champion |"),
        "|---|---:|---:|",
    ]
    rows: list[tuple[str, float | None, float | None]] = [
        (
            f"**{name}**" if name == rule.metric else name,
            value,
            champion.metrics[name] if champion is not None else None,
        )
        for name, value in challenger.metrics.items()
    ]
    rows += [
        (f"{rule.metric} on {name}", value, champion.slices[name] if champion is not None else None)
        for name, value in challenger.slices.items()
    ]
    lines += [f"| {_cell(name)} | {_number(own)} | {_number(other)} |" for name, own, other in rows]
    lines += ["", f"On {challenger.rows} rows with a label."]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _cell(text: str) -> str:
    """Text that ends no line and no cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
