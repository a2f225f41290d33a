"""Number the releases by their decisions: a release that decides anything differently on the same log has a new number.

A replay promises the same bytes within one meaning. No older meaning stays in the code: an operator judges the
decisions of an older one again, compares and promotes them (docs/decisions/0030-meanings.md).
"""

from __future__ import annotations

FIRST = 1
"""The meaning of all decisions from before meanings had numbers."""

MEANING = 2
"""The meaning of this release; each generation records the meaning of the release that began it."""
