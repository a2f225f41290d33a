"""Read the acceptance cases of tests/conformance as the product reads examples, and write them as a person's files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.programme.file.load import Loaded, load_tree
from engine.programme.file.nodes import plain
from operations.simulate.cases import read_cases
from tests.places import CONFORMANCE

if TYPE_CHECKING:
    from pathlib import Path

    from engine.programme.file.cases import Case

CASES = CONFORMANCE
CASE_FILES = sorted(CASES.glob("*.yaml"))


def all_cases() -> list[Case]:
    """Return every case of every file."""
    return [case for path in CASE_FILES for case in read_cases(path)]


def programme_of(case: Case) -> Loaded:
    """Return the programme that a case brings along."""
    assert case.programme is not None
    return load_tree(case.programme, case.file)


def event_types(case: Case) -> set[str]:
    """Return the types of its events."""
    return {json.loads(event.text)["type"] for event in case.events}


def write(case: Case, folder: Path) -> tuple[Path, Path]:
    """Write programme and events as a person would have them, and return the two files."""
    assert case.programme is not None
    programme, events = folder / "programme.yaml", folder / "events.jsonl"
    said: Any = plain(case.programme)
    programme.write_text(json.dumps(said, ensure_ascii=False, indent=1), encoding="utf-8")
    for name, other in case.others.items():
        (folder / name).write_text(json.dumps(plain(other), ensure_ascii=False, indent=1), encoding="utf-8")
    events.write_text("".join(f"{event.text}\n" for event in case.events), encoding="utf-8")
    return programme, events
