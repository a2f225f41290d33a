"""What the page on golden examples and the README show of `programme test` and `diff` is what the commands print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "programme" / "tests.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
WITHOUT_SERVICES = ("guerdon programme test", "guerdon programme diff", "sed ")


def shown(text: str) -> list[tuple[str, str]]:
    """Return each command of a block and what it printed."""
    return [(found["command"], found["output"]) for found in COMMAND.finditer(text)]


class Shell:
    """Run lines of shell in a folder, and return what a terminal shows of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.chdir(folder)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, command: str) -> str:
        words = shlex.split(command)
        if words[0] != "guerdon":
            return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
        self._monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit):
            main.run()
        told = self._capsys.readouterr()
        return told.out + told.err


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_the_page_shows_what_is_printed(tmp_path: Path, shell: Shell) -> None:
    commands = 0
    for block in BLOCK.finditer(PAGE):
        kind, _, name = block["kind"].partition(" ")
        if kind == "yaml":
            (tmp_path / name).write_text(block["text"], encoding="utf-8")
        for command, output in shown(block["text"]) if kind == "console" else ():
            commands += 1
            assert shell.run(command) == output, command
    assert commands == 7


README_BLOCKS = [
    commands
    for block in BLOCK.finditer(README)
    if (commands := shown(block["text"])) and all(command.startswith(WITHOUT_SERVICES) for command, _ in commands)
]


def test_the_readme_shows_both_commands() -> None:
    told = " ".join(command for commands in README_BLOCKS for command, _ in commands)
    assert "programme test" in told
    assert "programme diff" in told


@pytest.mark.parametrize("commands", README_BLOCKS, ids=lambda commands: commands[-1][0])
def test_the_readme_shows_what_is_printed(commands: list[tuple[str, str]], tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command, output in commands:
        assert shell.run(command) == output, command
