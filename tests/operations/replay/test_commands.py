"""Replay, list, promote and discard generations on the command line: sentences for people, JSON for machines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from typer.testing import CliRunner

from cli.main import app
from engine.live.batch import Batch
from schemas.errors import InputError
from tests.cli.test_command_line import guerdon
from tests.engine.history.test_replay import PLAIN, positions, written
from tests.strategies.replays import WITH_EVERYTHING, differing
from tests.system.batches import admitted, commit, purchase
from tests.system.load import activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres


@pytest.fixture(autouse=True)
def log(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(n, f"m{n % 5}")) for n in range(20)]))


def said(*words: str) -> str:
    answer = CliRunner().invoke(app, words, catch_exceptions=False)
    assert answer.exit_code == 0
    return answer.stdout


def answer(*words: str) -> Any:
    return json.loads(said(*words, "--json"))


def test_a_change_goes_from_the_question_to_promotion_and_back(tmp_path: Path) -> None:
    file = str(written(tmp_path, PLAIN.replace("points: 1", "points: 3")))
    asked = answer("replay", file, "--from", "2024-01-01T00:00:00Z", "--throttle", "100000")
    assert (asked["generation"], asked["events"], asked["reward_events"], asked["members_held"]) == (2, 84, 20, [])
    again = said("replay", file, "--from", "2024-01-01T00:00:00Z")
    assert again.startswith("generation 2: 0 source events folded in")
    assert answer("promote", "2", "--as", "swap") == {"generation": 2, "previous": 1, "folded_while_still": 0}
    assert [(row["generation"], row["status"], row["file"]) for row in answer("generations")] == [
        (1, "retired", None), (2, "live", "other.yaml"),
    ]  # fmt: skip
    assert said("promote", "1", "--as", "swap") == (
        "generation 1 is live; generation 2 is kept: `guerdon promote 2 --as swap` brings it back\n"
    )
    assert said("discard", "2", "--yes") == "generation 2 is dropped\n"
    assert [row["generation"] for row in answer("generations")] == [1]


def test_a_repetition_says_whether_it_is_one() -> None:
    assert said("replay").splitlines()[1] == "it repeats generation 1: the same bytes"


IN_PROCESSES = "import operations.replay.run as r; r.ALONE_EVENTS = 0; from cli.main import run; run()"


@pytest.mark.chaos
def test_a_command_that_is_killed_leaves_no_process_behind_and_goes_on_when_it_is_asked_again(
    database_url: str,
) -> None:
    commit(database_url, Batch([admitted(purchase(n, f"m{n}")) for n in range(20, 400)]))
    words = [sys.executable, "-c", IN_PROCESSES, "replay", "--cores", "2", "--throttle", "100"]
    with subprocess.Popen(words, env={**os.environ, "GUERDON_DATABASE_URL": database_url}) as command:
        eventually(lambda: sum(positions(database_url, 2).values()) > 50, "the first chunks")
        children = psutil.Process(command.pid).children(recursive=True)
        assert len(children) >= 2
        os.kill(command.pid, signal.SIGKILL)
    eventually(lambda: not any(child.is_running() for child in children), "the end of its processes")
    assert sum(positions(database_url, 2).values()) < 464
    assert answer("replay")["shards_that_differ"] == 0
    assert differing(database_url, 2) == 0


def test_members_are_adjusted_once_and_it_is_said_by_how_much(tmp_path: Path) -> None:
    answer("replay", str(written(tmp_path, PLAIN.replace("points: 1", "points: 3"))))
    planned = said("promote", "2", "--as", "adjust", "--dry-run").splitlines()
    assert planned[0] == "5 adjustments towards generation 2 would be written"
    assert sum(line.split()[1:] == ["points", "8"] for line in planned) == 5
    written_now = answer("promote", "2", "--as", "adjust")
    assert written_now["units"] == [{"unit": "points", "gain": 5, "lose": 0, "gained": 40, "lost": 0}]
    assert said("promote", "2", "--as", "adjust").startswith(
        "members were adjusted towards generation 2 before, by 5 adjustments; nothing was written now\n"
    )
    assert said("promote", "2", "--as", "adjust", "--dry-run").startswith(
        "members were adjusted towards generation 2 before; nothing would be written\n"
    )
    assert [row["status"] for row in answer("generations")] == ["live", "shadow"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--as", "wish"], "`wish` is no way to promote; there are: swap, adjust"),
        (["--as", "adjust", "--losses", "some"], "--losses is take or keep, and not some"),
        (["--as", "swap", "--losses", "keep"], "--losses and --dry-run belong to `--as adjust`"),
        (["--as", "swap", "--dry-run"], "--losses and --dry-run belong to `--as adjust`"),
    ],
)
def test_how_one_cannot_promote_is_said(words: list[str], why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)):
        CliRunner().invoke(app, ["promote", "2", *words], catch_exceptions=False)


def test_a_database_that_nobody_has_initialised_is_told_from_a_defect(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", empty_database_url)
    file = tmp_path / "next.yaml"
    file.write_text(WITH_EVERYTHING, "utf-8")
    for command in (
        ("replay", str(file)), ("replay",), ("backtest", str(file)), ("simulate", str(file), "--from-log"),
        ("promote", "2", "--as", "swap"), ("discard", "2", "--yes"), ("diff", "2"), ("why", "e1"),
    ):  # fmt: skip
        answer = guerdon(*command)
        assert (answer.returncode, "run `guerdon init` first" in answer.stderr) == (2, True), (command, answer.stderr)
