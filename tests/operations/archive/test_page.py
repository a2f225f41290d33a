"""The page about archives shows what `archive verify` says of a damaged one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from operations.archive.export import export, verify
from schemas.errors import AnswerIsNo
from tests.engine.history.test_replay import PLAIN
from tests.operations.archive.comparison import bought
from tests.operations.archive.test_folder import damaged, forged
from tests.places import DOCS
from tests.system.load import activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

PAGE = (DOCS / "archive.md").read_text(encoding="utf-8")
SOURCE = "source/*/*.parquet"


def said(folder: Path) -> str:
    """Return what is said of an archive that lies where the page has it, less numbers and what another library adds."""
    with pytest.raises(AnswerIsNo) as found:
        verify(folder)
    sentence = f"guerdon: {found.value}".replace(str(folder), "/backup/guerdon")
    return numberless(re.sub(r"\(.*\)$", "(…)", sentence))


def numberless(sentence: str) -> str:
    return re.sub(r"(?<![a-z])[0-9,]*[0-9]", "N", sentence)


def test_the_page_shows_what_is_said_of_a_damaged_archive(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    bought(database_url, 1, 6)
    for name in ("changed", "cut off", "forged"):
        export(database_url, tmp_path / name)
    damaged(tmp_path / "changed", SOURCE, lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    damaged(tmp_path / "cut off", SOURCE, lambda body: body[:-7])
    forged(tmp_path / "forged")
    (shown,) = re.findall(r"```text archive\n(.*?)```", PAGE, re.DOTALL)
    found = [said(tmp_path / name) for name in ("changed", "cut off", "forged")]
    assert [numberless(line) for line in shown.splitlines()] == found
