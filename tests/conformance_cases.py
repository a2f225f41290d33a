"""Read the acceptance cases of tests/conformance as text: a scalar of a programme means what is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

CASES = Path(__file__).parent / "conformance"


@dataclass(frozen=True)
class Case:
    """Hold one case; `programme` is YAML text, `events` are JSON objects in file order."""

    id: str
    programme: str
    events: list[dict[str, Any]]
    until: str | None
    expect: dict[str, Any]

    @property
    def event_types(self) -> set[str]:
        """Return the types of its events."""
        return {event["type"] for event in self.events}

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write programme and events as a person would have them, and return the two files."""
        programme, events = folder / "programme.yaml", folder / "events.jsonl"
        programme.write_text(self.programme, encoding="utf-8")
        lines = [json.dumps(event, ensure_ascii=False) for event in self.events]
        events.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return programme, events


def all_cases() -> list[Case]:
    """Return every case of every file."""
    return [case for path in sorted(CASES.glob("*.yaml")) for case in _cases_in(path.read_text(encoding="utf-8"))]


def _cases_in(text: str) -> list[Case]:
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    loaded = yaml.safe_load(text)
    assert isinstance(tree, yaml.SequenceNode)
    return [
        Case(
            values["id"],
            _source(text, next(value for key, value in node.value if key.value == "programme")),
            values["events"],
            values.get("until"),
            values["expect"],
        )
        for node, values in zip(tree.value, loaded, strict=True)
    ]


def _source(text: str, node: yaml.Node) -> str:
    """Return what was written for `node`, moved to the left margin."""
    assert node.start_mark is not None
    assert node.end_mark is not None
    return dedent(" " * node.start_mark.column + text[node.start_mark.index : node.end_mark.index])
