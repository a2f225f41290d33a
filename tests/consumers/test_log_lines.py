"""The log says each thing once, and how often it has held it back: a fault of a night is no flood."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumers.health.logging import HELD_BACK_S, LINES_MAX, HoldBack
from engine.store.session import watched
from projections.projector import RETRY_S_FIRST, Projector
from tests.places import DOCS, ORDER, ROOT, project_files
from tests.system.workers import eventually

if TYPE_CHECKING:
    from typing import Any

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def printed(lines: list[tuple[float, dict[str, Any]]]) -> list[tuple[float, dict[str, Any]]]:
    """Return which of the lines, each with its time, are printed, and as what."""
    now_s = 0.0
    hold_back = HoldBack(lambda: now_s)
    found = []
    for now_s, line in lines:
        try:
            found.append((now_s, dict(hold_back(None, "warning", dict(line)))))
        except structlog.DropEvent:
            continue
    return found


def test_the_same_line_is_held_back_for_ten_seconds_and_counted() -> None:
    line = {"event": "projector pauses", "why": "the disk is full"}
    found = printed([(at / 2, line) for at in range(60)])
    assert [at for at, _ in found] == [0.0, 10.0, 20.0]
    assert [each.get("held_back") for _, each in found] == [None, 19, 19]


def test_how_long_until_the_next_try_makes_no_other_line_of_it_but_another_reason_does() -> None:
    found = printed(
        [
            (0.0, {"event": "writer pauses", "why": "a", "retry_s": 0.1}),
            (0.1, {"event": "writer pauses", "why": "a", "retry_s": 0.2}),
            (0.2, {"event": "writer pauses", "why": "b", "retry_s": 0.4}),
            (0.3, {"event": "worker pauses", "why": "b"}),
        ]
    )
    assert [at for at, _ in found] == [0.0, 0.2, 0.3]


def test_batches_are_no_repetitions() -> None:
    lines = [(at / 10, {"event": "batch", "accepted": 1, "duplicate": 0}) for at in range(50)]
    assert printed(lines) == lines


LINES = st.lists(
    st.tuples(st.floats(0, 4), st.sampled_from("ab"), st.one_of(st.none(), st.sampled_from("xyz"))), max_size=60
)


@given(LINES)
def test_no_line_with_a_reason_comes_twice_in_ten_seconds_and_none_is_lost_from_the_count(
    given_lines: list[tuple[float, str, str | None]],
) -> None:
    at_s, lines = 0.0, []
    for pause_s, event, why in given_lines:
        at_s += pause_s
        lines.append((at_s, {"event": event} | ({} if why is None else {"why": why})))
    found = printed(lines)
    said: dict[tuple[str, str], float] = {}
    for at, line in found:
        if "why" in line:
            key = line["event"], line["why"]
            assert at - said.get(key, -HELD_BACK_S) >= HELD_BACK_S
            said[key] = at
    assert [line for line in lines if "why" not in line[1]] == [line for line in found if "why" not in line[1]]
    held_back = sum(line.get("held_back", 0) for _, line in found)
    dropped_since = sum(1 for at, line in lines if "why" in line and at > said[line["event"], line["why"]])
    same_instant = len(lines) - len(found) - held_back - dropped_since
    assert same_instant >= 0
    if len({at for at, _ in lines}) == len(lines):
        assert same_instant == 0


def test_what_is_remembered_is_bounded() -> None:
    hold_back = HoldBack(lambda: 0.0)
    for number in range(3 * LINES_MAX):
        hold_back(None, "warning", {"event": "e", "why": str(number)})
    assert len(hold_back._printed) <= LINES_MAX  # noqa: SLF001  nothing else shows it


PROGRAM = """
import structlog
from consumers.health.logging import log_to_stderr
log_to_stderr()
log = structlog.get_logger()
for _ in range(1000):
    log.warning("decode pauses", why="the registry is away")
log.info("batch", accepted=1)
log.warning("writer pauses", why="server closed the connection\\n\\tThis probably means that it ended\\n")
"""


def test_a_thousand_repetitions_are_one_line_of_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["decode pauses", "batch", "writer pauses"]
    assert lines[-1]["why"] == "server closed the connection This probably means that it ended"


def test_the_projector_asks_a_server_that_is_away_ever_more_seldom() -> None:
    with capture_logs() as lines:
        projector = Projector(NOWHERE)
        begun = time.monotonic()
        projector.start()
        try:
            eventually(lambda: len(lines) >= 2, "it has paused twice")
        finally:
            projector.stop()
    assert [line["retry_s"] for line in lines[:2]] == [2 * RETRY_S_FIRST, 4 * RETRY_S_FIRST]
    assert time.monotonic() - begun >= 2 * RETRY_S_FIRST
    assert threading.active_count() < 50
    assert "PostgreSQL does not answer" in lines[0]["why"]


def test_the_projector_and_the_fold_of_facts_say_under_their_own_names_that_they_pause() -> None:
    with capture_logs() as lines:
        projectors = [Projector(NOWHERE, log="reward"), Projector(NOWHERE, log="source")]
        for projector in projectors:
            projector.start()
        try:
            eventually(lambda: len({line["event"] for line in lines}) == 2, "both have paused")
        finally:
            for projector in projectors:
                projector.stop()
    said = {line["event"]: {**line, "why": "the disk is full"} for line in lines}
    assert set(said) == {"projector pauses", "fold of facts pauses"}
    assert len(printed([(0.0, line) for line in said.values()])) == 2, "neither holds the other's line back"


def events_in(source: str) -> set[str]:
    """Return the events of the log lines that a module writes, but for those that it puts together."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    return {
        call.args[0].value
        for call in calls
        if ast.unparse(call.func) in {"log.info", "log.warning", "log.error"}
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def test_each_line_of_a_worker_has_a_row_that_says_what_to_do() -> None:
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    table = page.split("\n## What each log line means\n")[1].split("\n## ")[0]
    rows = {event for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for event in re.findall(r"`(.+?)`", row)}
    sources = [path for path in project_files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ORDER]
    written = {event for path in sources for event in events_in(path.read_text(encoding="utf-8"))}
    assert len(written) > 30
    assert written - rows == set()
    assert {f"{who} waits" for who in watched.SERVING.values()} - rows == set()


@pytest.fixture(autouse=True)
def _plain() -> None:
    structlog.reset_defaults()
