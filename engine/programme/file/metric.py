"""Read the metrics and segments of a programme, and the challenge of a rule."""

from __future__ import annotations

import json
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from engine.programme.conditions import ALWAYS, NUMBERS, Every, Field, Measure, Metric
from engine.programme.fields import EVENT_TRIGGERS, SEGMENT, other_trigger_of
from engine.programme.file.entries import entries_of
from engine.programme.file.literals import duration_of, literal_of
from engine.programme.file.names import DERIVED_PREFIX
from engine.programme.file.nodes import Mapping, plain
from engine.programme.file.problems import Code, shown
from engine.programme.file.scalars import choice_of, integer_of, kind_of, text_of
from engine.programme.file.when import WhenReader
from engine.programme.model import Challenge

if TYPE_CHECKING:
    from engine.programme.file.names import Names
    from engine.programme.file.nodes import Node
    from engine.programme.file.problems import Problems

_LATER_EVENTS = ("refund", "redemption", "profile", "referral")
_MEASURES = tuple(measure.value for measure in Measure)
_UNITS = (Every.DAY, Every.WEEK, Every.MONTH)


class Repeat(StrEnum):
    """Name whether a challenge can be completed again."""

    NEVER = "never"
    AFTER_COMPLETION = "after_completion"


def read_metrics(node: Node, names: Names, problems: Problems, derived: Node | None) -> None:
    """Enter the metrics at `node` into `names`.

    The key of a metric contains a hash of its definition and of the section `derived`, whose fields it may sum.
    """
    if not isinstance(node, Mapping):
        example = "{visits: {count: purchase}}"
        message = f"metrics must be a mapping of name to metric, such as {example}, not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return
    metrics: dict[str, Metric | None] = {}
    for name, value in node.entries.items():
        definition = json.dumps([plain(value), plain(derived) if derived else None], sort_keys=True)
        key = f"{name}:{sha256(definition.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        metrics[name] = _metric(name, key, value, names, problems)
    names.metrics.update(metrics)  # all at once: a metric reads no other


def _metric(name: str, key: str, node: Node, names: Names, problems: Problems) -> Metric | None:
    """Return the metric at `node`, None where it is wrong."""
    what = f"metric {shown(name)}"
    entries = entries_of(node, what, problems, (*_MEASURES, "where", "over", "unit"))
    if entries is None:
        return None

    # the measure, and the events that it is about
    measures = [measure for measure in Measure if measure in entries]
    if len(measures) != 1:
        message = f"{what} is one of {', '.join(_MEASURES)}, such as {{count: purchase}}"
        problems.error(node.place, Code.CONTRADICTION, message)
        return None
    measure = measures[0]
    trigger, field = _measured(measure, entries[measure], names, problems)
    where = WhenReader(problems, trigger, names).condition(entries["where"], "where") if "where" in entries else ALWAYS

    # over which time
    over = duration_of(entries["over"], "over", problems) if "over" in entries else None
    unit = choice_of(entries["unit"], "unit", problems, Every) if "unit" in entries else None
    if "over" in entries and measure in (Measure.STREAK, Measure.LAST):
        message = f"a {measure} has no window; take out over"
        problems.error(entries["over"].place, Code.CONTRADICTION, message)
    if (measure is Measure.STREAK) != ("unit" in entries) or (unit is not None and unit not in _UNITS):
        message = "a streak, and nothing else, has a unit: day, week or month"
        problems.error(node.place, Code.CONTRADICTION, message)
        return None

    if trigger is None or (measure is Measure.SUM and field is None):
        return None
    unit_name = None if unit is None else unit.value
    return Metric(key, measure, on=trigger, where=where, of=field, over=over, unit=unit_name)


def _measured(measure: Measure, node: Node, names: Names, problems: Problems) -> tuple[str | None, Field | None]:
    """Return the type of event that a metric is about, and the field that it adds up; None where they are wrong."""
    text = text_of(node, measure, problems)
    if text is None:
        return None, None

    # a count, a streak and the last time name the events
    if measure is not Measure.SUM:
        if text in _LATER_EVENTS:
            problems.not_judged(node.place, f"a metric of {text} events")
        elif text not in EVENT_TRIGGERS:
            text = problems.unknown(node.place, Code.UNKNOWN_VALUE, f"event to {measure}", text, EVENT_TRIGGERS)
        return (text if text in EVENT_TRIGGERS else None), None

    # a sum names a field, which says the events
    if text.startswith("refund."):
        problems.not_judged(node.place, "a metric of refund events")
        return None, None
    derived = names.derived.get(text.removeprefix(DERIVED_PREFIX)) if text.startswith(DERIVED_PREFIX) else None
    trigger = derived[0] if derived else other_trigger_of(text)
    field = names.field(text, node.place, trigger, problems)
    if field is not None and field.kind not in NUMBERS:
        problems.error(node.place, Code.WRONG_TYPE, f"{text} is {field.kind}; only numbers can be added up")
        return trigger, None
    return trigger, field


def read_segments(node: Node, names: Names, problems: Problems) -> None:
    """Enter the segments at `node` into `names`."""
    if not isinstance(node, Mapping):
        message = f"segments must be a mapping of name to condition, not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return
    reader = WhenReader(problems, SEGMENT, names)
    segments = {name: reader.whole(value, f"segment {shown(name)}") for name, value in node.entries.items()}
    names.segments.update(segments)  # all at once: a segment reads no other


def challenge_of(node: Node, trigger: str | None, names: Names, problems: Problems) -> Challenge | None:
    """Read the challenge of a rule on `trigger`."""
    entries = entries_of(node, "a challenge", problems, ("count", "sum", "gte", "within", "where", "repeat"))
    if entries is None:
        return None
    if ("count" in entries) == ("sum" in entries) or ("sum" in entries) != ("gte" in entries):
        message = "a challenge is {count: 3}, or a sum with its goal, such as {sum: purchase.amount, gte: 100.00}"
        problems.error(node.place, Code.CONTRADICTION, message)
        return None

    # which events count, for how long, and whether it can be completed again
    where = WhenReader(problems, trigger, names).condition(entries["where"], "where") if "where" in entries else ALWAYS
    within = duration_of(entries["within"], "within", problems) if "within" in entries else None
    repeat = choice_of(entries["repeat"], "repeat", problems, Repeat) if "repeat" in entries else Repeat.NEVER
    repeats = repeat is Repeat.AFTER_COMPLETION

    # the goal
    if "count" in entries:
        count = integer_of(entries["count"], "count", problems, least=1)
        return None if count is None else Challenge(count, None, within, where, repeats=repeats)
    field, goal = _summed(entries["sum"], entries["gte"], trigger, names, problems)
    return None if field is None or goal is None else Challenge(goal, field, within, where, repeats=repeats)


def _summed(
    node: Node, goal: Node, trigger: str | None, names: Names, problems: Problems
) -> tuple[Field | None, int | None]:
    """Return the field that a challenge adds up, and its goal."""
    text = text_of(node, "sum", problems)
    field = None if text is None else names.field(text, node.place, trigger, problems)
    if field is None:
        return None, None
    if field.kind not in NUMBERS:
        problems.error(node.place, Code.WRONG_TYPE, f"{field.path} is {field.kind}; only numbers can be added up")
        return None, None
    wanted = literal_of(field.kind, goal, "gte", problems, names.measures)
    if isinstance(wanted, int) and wanted < 1:
        problems.error(goal.place, Code.OUT_OF_RANGE, "gte of a challenge must be above 0")
    return field, wanted if isinstance(wanted, int) else None
