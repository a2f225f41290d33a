"""Read the guide of the programme language and run its examples.

An example is, in this order: a block `yaml programme` (with any others that it activates, named `yaml NAME.yaml`), a
block `json events`, a block `text outcome`. What an example leaves out is filled in as the guide's first page says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.programme.file.currencies import MINOR_DIGITS
from operations.simulate.run import simulate
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GUIDE = DOCS / "programme"
FRAME = {"schema": "guerdon/1", "programme": "shop", "timezone": "UTC", "currency": "EUR"}
CURRENCY = FRAME["currency"]
_BLOCK = re.compile(r"^```(?P<info>\S[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_ITEMS = {"coupon.issued": "coupon", "gift.awarded": "gift", "badge.awarded": "badge", "benefit.granted": "benefit"}
LANGUAGES_EXECUTED = ("yaml", "json", "text")


@dataclass
class Example:
    """Hold one example of a page; `line` is where its programme begins."""

    page: str
    line: int
    programmes: dict[str, str]
    events: list[dict[str, Any]] = field(default_factory=list)
    outcome: str | None = None

    def found(self, folder: Path) -> str:
        """Run the example in `folder`, and return what comes of each event."""
        for name, text in self.programmes.items():
            (folder / name).write_text(framed(text), encoding="utf-8")
        file = folder / "events.jsonl"
        file.write_text("".join(json.dumps(event) + "\n" for event in self.events), encoding="utf-8")
        document = simulate(folder / "programme", [file]).document()
        return "\n".join(_told(self.events, document))


def framed(text: str) -> str:
    """Complete a programme of which a page shows a part."""
    names = {line.partition(":")[0] for line in text.splitlines()}
    return "".join(f"{name}: {value}\n" for name, value in FRAME.items() if name not in names) + text


def examples(page: str, markdown: str) -> Iterator[Example]:
    """Yield the examples of a page.

    Raises:
        ValueError: a block stands where it is not executed.
    """
    current: Example | None = None
    for match in _BLOCK.finditer(markdown):
        info, text = match["info"], match["text"]
        line = markdown.count("\n", 0, match.start()) + 1
        if info == "yaml programme":
            if current is not None and current.outcome is None:
                raise ValueError(f"{page}:{current.line}: this example has no outcome")
            current = Example(page, line, {"programme": text})
        elif current is None or current.outcome is not None:
            if info.split()[0] in LANGUAGES_EXECUTED:
                raise ValueError(f'{page}:{line}: nothing executes this block "{info}"')
        elif re.fullmatch(r"yaml [\w-]+\.yaml", info):
            current.programmes[info.removeprefix("yaml ")] = text
        elif info == "json events" and not current.events:
            current.events = list(_filled(text))
        elif info == "text outcome" and current.events:
            current.outcome = text.strip()
            yield current
        else:
            raise ValueError(f'{page}:{line}: nothing executes this block "{info}"')
    if current is not None and current.outcome is None:
        raise ValueError(f"{page}:{current.line}: this example has no outcome")


def _filled(text: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a block, with what they leave out."""
    number = 0
    for line in filter(str.strip, text.splitlines()):
        event: dict[str, Any] = json.loads(line)
        if event["type"] == "activation":
            yield event
            continue
        number += 1
        given = {"event_id": f"e{number}", "member_id": "anna"}
        if event["type"] == "purchase":
            given |= {"order_id": f"o{number}", "currency": CURRENCY}
        yield given | event


def _told(events: list[dict[str, Any]], document: dict[str, Any]) -> Iterator[str]:
    aside = {row["event_id"]: row["reason"] for row in document["quarantined"]}
    for event in events:
        if event["type"] == "activation":
            continue
        name = event["event_id"]
        rewards = [_reward(row) for row in document["reward_events"] if row["event_id"] == name]
        if name in aside:
            rewards = [f"set aside, {aside[name]}"]
        yield f"{name} {event['member_id']}: {'; '.join(rewards) or 'nothing'}"


def _reward(row: dict[str, Any]) -> str:
    """Tell one reward event in a few words."""
    rule = row["rule_id"] if row["rule_version"] == 1 else f"{row['rule_id']} (version {row['rule_version']})"
    if row["type"] == "challenge.completed":
        return f"challenge of {rule} completed"
    if row["type"] == "cohort.entered":
        return f"enters the cohort of {rule}, {row['item']}"
    what = _amount(row["unit"], row["amount"])
    if row["type"] in _ITEMS:
        kind = _ITEMS[row["type"]]
        what = f"{row['amount']} times {kind} {row['item']}" if row["amount"] > 1 else f"{kind} {row['item']}"
    if row["type"] == "reward.refused":
        return f"{what} of {rule} refused, {row['reason']}"
    until = f" until {row['expires_at']}" if row["expires_at"] else ""
    return f"{what}{until} by {rule}"


def _amount(unit: str, amount: int) -> str:
    digits = MINOR_DIGITS.get(unit)
    if digits is None:
        return f"{amount} {unit.removesuffix('s') if unit == 'points' and amount == 1 else unit}"
    return f"{amount // 10**digits}.{amount % 10**digits:0{digits}} {unit}"
