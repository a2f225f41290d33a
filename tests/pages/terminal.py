"""Type commands in a folder, as a person does who has a page of ours beside the terminal."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cli import main
from tests.pages.shown_output import Command, File, is_shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from operations.settings import Settings

PATIENCE_S = 120
PROGRAMS = Path(sys.executable).parent
IN_A_PROCESS_OF_THEIR_OWN = {"up", "down", "run", "psql"}
"""Commands that leave processes behind, take over the signals of their process, or become another program."""


def name_services(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the servers of the tests."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("GUERDON_GROUP_ID", settings.group_id)


BAR = "━━"
"""What a bar of progress is drawn with."""


class Told(NamedTuple):
    """Hold what a command told on standard output and on standard error, and its exit code."""

    out: str
    err: str
    code: int


class Terminal:
    """Type lines of shell in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def type(self, line: str) -> Told:
        """Type a line, and return what it tells."""
        words = shlex.split(line)
        if words[0] != "guerdon" or words[1] in IN_A_PROCESS_OF_THEIR_OWN:
            command = ["bash", "-c", line]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
            return Told(done.stdout, done.stderr, done.returncode)
        self._monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            main.run()
        told = self._capsys.readouterr()
        lasting = [line for line in told.err.splitlines(keepends=True) if BAR not in line]
        return Told(told.out, "".join(lasting), int(left.value.code or 0))

    def follow(self, steps: Iterable[File | Command]) -> None:
        """Write the files and type the commands of a page; each must tell what the page shows.

        Of a command that ends well the page may leave out standard error: progress, and the lines of the log.
        """
        for step in steps:
            if isinstance(step, File):
                (self.folder / step.name).write_text(step.text, encoding="utf-8")
                continue
            told = self.type(step.line)
            everything = told.out + told.err
            is_true = is_shown(step.output, everything) or (told.code == 0 and is_shown(step.output, told.out))
            assert is_true, f"`{step.line}` tells, with exit code {told.code}:\n{everything}\nthe page:\n{step.output}"
