"""What pages show is held to what was printed, but for what is another with each run."""

from __future__ import annotations

import pytest

from tests.pages.shown_output import is_shown, steps

PRINTED = """\
5 events folded in 0.4 s, at 2026-11-25T11:04:35.701Z
units

  unit     before   after   rules
 ───────────────────────────────────────────
  points      162     152   app +5, share -15
  cash          0       0   -

rules

  rule id   unit
 ────────────────
  app       points

liability: -10 points
"""
SHOWN = """\
5 events folded in 12.0 s,
at … units

  unit     after   rules
 ─────────────────────────────────
  points     152   app +5, share -15
  …

…
liability: -10 points
"""


def test_a_page_may_leave_out_columns_rows_parts_and_how_long_it_took() -> None:
    assert is_shown(SHOWN, PRINTED)
    assert is_shown(PRINTED, PRINTED)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("5 events", "6 events"), (" 152 ", " 153 "), ("share -15", "share -14"), ("after", "later"), ("-10", "-11"),
        ("at …", "at"), ("…\nliability", "liability"), ("  …\n", ""), ("…\nliability: -10 points\n", ""),
        ("  points     152   app +5, share -15\n  …\n", "  …\n  points     152   app +5, share -15\n"),
    ],
)  # fmt: skip
def test_what_is_shown_and_was_not_printed_is_found(right: str, wrong: str) -> None:
    assert right in SHOWN
    assert not is_shown(SHOWN.replace(right, wrong), PRINTED)


def test_a_block_that_nothing_executes_is_found() -> None:
    with pytest.raises(ValueError, match='nothing executes this block "sh"'):
        list(steps("```sh\nguerdon up\n```\n"))
