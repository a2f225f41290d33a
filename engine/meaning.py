"""Number what the same log comes to: a release that decides anything otherwise than the one before has another number.

A replay promises the same bytes within one meaning. No older meaning stays in the code: what was decided by one is
judged again, compared and promoted by an operator (docs/decisions/0030-meanings.md).
"""

from __future__ import annotations

FIRST = 1
"""By which all was decided before meanings had numbers."""

MEANING = 2
"""By which this release decides; each generation records the one by which it was begun."""
