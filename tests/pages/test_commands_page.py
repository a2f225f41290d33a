"""What the page of commands says of `simulate --json` is what a simulation prints, with the columns of the views."""

from __future__ import annotations

import re

import pytest

from engine.store.views import VIEWS
from operations.simulate.run import simulate
from tests.places import DOCS, EXAMPLES

PAGE = (DOCS / "commands.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| as in \[`(\w+)`\]", PAGE, re.MULTILINE))
OTHERS = {"quarantined", "why"}
BAKERY = EXAMPLES / "bakery"


def test_the_page_names_every_list_of_a_simulation() -> None:
    document = simulate(BAKERY / "programme.yaml", [BAKERY / "events.jsonl"]).document()
    assert document.keys() == (ROWS.keys() | OTHERS) - {"why"}
    assert all(f"| `{key}` |" in PAGE for key in OTHERS)


@pytest.mark.parametrize("key", ROWS)
def test_a_list_has_the_columns_of_the_view_that_the_page_names(key: str) -> None:
    (view,) = (view for view in VIEWS if view.name == ROWS[key])
    rows = simulate(BAKERY / "programme.yaml", [BAKERY / "events.jsonl"]).document()[key]
    assert rows
    assert list(rows[0]) == [column.name for column in view.columns]
