"""Read the pages on the ledger and run what they show.

A block `yaml programme` holds a programme, or the part of one that matters. Each block `yaml case` after it is a golden
example of that programme, as `guerdon programme test` runs it; a block `text log` under a case shows the reward events
that it brought. What a block leaves out is filled in as docs/ledger.md says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.programme.file.cases import Case, CaseReader
from engine.programme.file.load import Loaded, load_programme
from engine.programme.file.nodes import Mapping, Scalar, Sequence, read_tree
from engine.programme.file.problems import Problems
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.file.nodes import Node
    from operations.simulate.outcome import Simulation

PAGES = {
    name: (DOCS / name).read_text(encoding="utf-8")
    for name in ("ledger.md", "programme/terms.md", "programme/occasions.md", "programme/referrals.md")
}
FRAME = {"schema": "guerdon/1", "programme": "shop", "timezone": "UTC", "currency": "EUR", "rules": "[]"}
EXECUTED = ("yaml", "json", "text")
_BLOCK = re.compile(r"^```(?P<info>\S[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass
class Example:
    """Hold one example of a page; `line` is where its case begins, `log` what the page says came of it."""

    page: str
    line: int
    programme: Loaded
    case: Case
    log: str | None = None

    def simulation(self) -> Simulation:
        """Judge the events of the case."""
        assert self.programme.programme is not None, [str(problem) for problem in self.programme.problems]
        lines = [Line(self.page, event.line, event.text.encode()) for event in self.case.events]
        return simulate_lines(self.programme.programme, lines, self.case.until_ms)

    def found(self) -> list[str]:
        """Return a line for each reward event."""
        return [told(row) for row in self.simulation().document()["reward_events"]]


def examples(page: str, markdown: str) -> Iterator[Example]:
    """Yield the examples of a page.

    Raises:
        ValueError: a block stands where nothing executes it, or a case cannot be read.
    """
    programme: Loaded | None = None
    current: Example | None = None
    for match in _BLOCK.finditer(markdown):
        info, text, line = match["info"], match["text"], markdown.count("\n", 0, match.start()) + 1
        if info == "yaml programme":
            programme = load_programme(framed(text), f"{page}:{line}")
        elif info == "yaml case" and programme is not None:
            if current is not None:
                yield current
            current = Example(page, line, programme, _case(page, line, text))
        elif info == "text log" and current is not None and current.log is None:
            current.log = text
        elif info.split()[0] in EXECUTED:
            raise ValueError(f'{page}:{line}: nothing executes this block "{info}"')
    if current is not None:
        yield current


def framed(text: str) -> str:
    """Complete a programme of which a page shows a part."""
    names = {line.partition(":")[0] for line in text.splitlines()}
    return "".join(f"{name}: {value}\n" for name, value in FRAME.items() if name not in names) + text


def _case(page: str, line: int, text: str) -> Case:
    problems = Problems(page)
    tree = read_tree(text, problems)
    assert isinstance(tree, Mapping), f"{page}:{line}: a case is a mapping"
    events = tree.entries.get("events")
    if isinstance(events, Sequence):
        filled = [_filled(event, f"e{number}") for number, event in enumerate(events.items, 1)]
        tree = _with(tree, events=Sequence(filled, events.place))
    cases = CaseReader(page, problems).cases(Sequence([_named(tree, id=f"line-{line}")], tree.place))
    found = [str(problem) for problem in problems.in_order()]
    if found:
        raise ValueError(f"{page}:{line}: {found}")
    return cases[0]


def _filled(event: Node, name: str) -> Node:
    """Return an event with what every event has; a purchase is of an order and in the programme's currency."""
    if not isinstance(event, Mapping) or not isinstance(event.entries.get("type"), Scalar):
        return event
    kind = event.entries["type"]
    assert isinstance(kind, Scalar)
    if kind.text == "tick":
        return event
    defaults = {"event_id": name, "member_id": "ann"}
    if kind.text == "purchase":
        defaults["currency"] = FRAME["currency"]
    return _named(event, **defaults)


def _named(mapping: Mapping, **texts: str) -> Mapping:
    """Return a mapping with texts under the names that it lacks."""
    added = {name: Scalar(text, plain=True, place=mapping.place) for name, text in texts.items()}
    return _with(mapping, **(added | mapping.entries))


def _with(mapping: Mapping, **entries: Node) -> Mapping:
    places = dict.fromkeys(entries, mapping.place) | mapping.key_places
    return Mapping(mapping.entries | entries, places, mapping.place)


def told(row: dict[str, Any]) -> str:
    """Tell one reward event in a line: when, what, how much, from where to where, by which rule, why."""
    words = [row["occurred_at"].removesuffix("Z").replace("T", " "), row["type"], str(row["amount"])]
    if row["debit"] is not None:
        words.append(f"{row['debit']} → {row['credit']}")
    elif row["type"] == "reward.refused" and row["unit"] != "points":
        words.append(row["unit"])
    if row["item"] is not None:
        words.append(row["item"])
    if row["rule_id"] is not None:
        words.append(f"by {row['rule_id']}")
    if row["reason"] is not None:
        words.append(f"({row['reason']})")
    return " ".join(words)
