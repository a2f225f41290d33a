"""Foreign text commands neither a terminal nor a spreadsheet, and passwords are never on the screen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.terminal.output import print_json, print_table, say
from operations.replay.difference_files import COLUMNS, write_csv
from operations.secrets import hidden, secrets_in, without_password
from operations.settings import RUNS_CODE, load_settings
from schemas.display import cell, visible, visible_in_json
from schemas.errors import InputError
from tests.places import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PWNED = "x\x1b]0;PWNED\x07\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\u202eevil\u200b"
SECRET = "s3cr3t-of-bob"  # noqa: S105  nobody's


def _commands(text: str) -> list[str]:
    kept = "\u200c\u200d\n"
    return [each for each in text if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and each not in kept]


@given(st.text(st.characters(exclude_categories=())))
@example(PWNED)
@example("\U000e0041\ud800\u2066")
def test_nothing_that_is_shown_commands_a_terminal(text: str) -> None:
    shown = visible(text)
    assert not [each for each in _commands(shown) if unicodedata.bidirectional(each) in {"RLO", "LRO", "RLE", "LRE"}]
    assert not [each for each in shown if unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"}]
    shown.encode("utf-8")


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs"))))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example(PWNED)
@example("\U000e0041")
def test_json_reads_as_the_same_text(text: str) -> None:
    document = visible_in_json(json.dumps({"id": text}, indent=2, ensure_ascii=False))
    assert json.loads(document) == {"id": text}
    assert not [each for each in document if unicodedata.category(each) == "Cc" and each != "\n"]
    assert "\u202e" not in document


def test_every_way_to_print_shows_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"of {PWNED}")
    print_table(["member_id"], [[PWNED]], title=PWNED, caption=PWNED)
    print_json([PWNED])
    printed = capsys.readouterr().out
    assert not [each for each in printed if unicodedata.category(each) in {"Cc", "Cf"} and each != "\n"]
    assert printed.count(r"\x1b]0;PWNED\x07") == 4


def test_commands_print_through_one_place() -> None:
    wrong = [
        path.name
        for path in (ROOT / "cli").glob("*.py")
        if path.name != "output.py"
        and ("typer.echo" in path.read_text(encoding="utf-8") or " print(" in path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


@pytest.mark.parametrize("formula", ["=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "-"])
def test_a_cell_that_begins_like_a_formula_is_text(formula: str, tmp_path: Path) -> None:
    row = dict.fromkeys(COLUMNS, "") | {"member_id": formula, "change": -5, "rules": []}
    write_csv(tmp_path / "d.csv", [row])
    text = (tmp_path / "d.csv").read_text(encoding="utf-8")
    assert cell(formula) == f"'{formula}"
    assert f"'{formula}" in text
    assert ",-5," in text


@pytest.mark.parametrize("plain", ["-5", "+5", "-1,234.50", "ann", "", 7, None])
def test_a_number_or_a_word_stays_as_it_is(plain: object) -> None:
    assert cell(plain) == plain


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://bob:{SECRET}@127.0.0.1:1/x",
        f"postgresql://:{SECRET}@127.0.0.1:1/x",
        f"postgresql://bob@127.0.0.1:1/x?password={SECRET}&connect_timeout=1",
        f"postgresql://bob:{SECRET}@with@127.0.0.1:1,127.0.0.1:2/x?sslmode=disable",
        f"host=127.0.0.1 password={SECRET} port=1",
        f"host=127.0.0.1 password='{SECRET} x' port=1",
        f"http://bob:{SECRET}@127.0.0.1:8081",
    ],
)
def test_an_address_is_shown_without_its_password(address: str) -> None:
    assert SECRET not in without_password(address)
    assert "127.0.0.1" in without_password(address)
    assert any(SECRET in each for each in secrets_in([address]))


def test_a_password_that_a_library_quotes_is_hidden() -> None:
    known = secrets_in([f"postgresql://bob:{SECRET}%40@host/x", "geheim7"])
    assert hidden(f'could not translate "{SECRET}@" with geheim7', known) == 'could not translate "***" with ***'


def _guerdon(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept: Mapping[str, str] = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**kept, "PYTHONPATH": str(ROOT), "GUERDON_HOME": str(folder), **environment},
    )  # fmt: skip


@pytest.mark.parametrize("words", [("status", "--json"), ("up",), ("member", "ann")])
@pytest.mark.parametrize("url", ["postgresql://:{}@127.0.0.1:1/x", "postgresql://bob@127.0.0.1:1/x?password={}"])
def test_no_command_prints_the_password(words: tuple[str, ...], url: str, tmp_path: Path) -> None:
    done = _guerdon(
        *words, folder=tmp_path, GUERDON_DATABASE_URL=url.format(SECRET), KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"
    )
    assert done.returncode == 3, done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(RUNS_CODE))
def test_a_file_in_the_folder_loads_no_code(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (f'[kafka]\n"{name}" = "/tmp/evil.so"\n', f'[kafka]\n{name} = "/tmp/evil.so"\n'):
        (tmp_path / "guerdon.toml").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=rf"guerdon\.toml:2: `{name}` would load or run a program"):
            load_settings()
