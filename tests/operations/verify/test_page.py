"""The page about `verify` shows what it says of a row that was changed behind Guerdon's back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.operations.verify.test_verify import CHANGES, SHARD, tamper, whole
from tests.pages.shown_output import steps
from tests.places import DOCS

if TYPE_CHECKING:
    from tests.pages.terminal import Terminal

pytestmark = pytest.mark.postgres
__all__ = ["whole"]  # a fixture

PAGE = (DOCS / "verify.md").read_text(encoding="utf-8")


def test_the_page_shows_what_is_said_of_a_row_that_was_changed(
    whole: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(whole, CHANGES["I3 an amount of the reward log"][0], SHARD)
    monkeypatch.setenv("GUERDON_DATABASE_URL", whole)
    followed = list(steps(PAGE))
    assert len(followed) == 1
    terminal.follow(followed)
