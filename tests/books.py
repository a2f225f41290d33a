"""Give tests of single events the books of a member who has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.memory_books import MemoryBooks

if TYPE_CHECKING:
    from engine.programme.judge import Judges

VERSIONS: dict[int, Judges] = {}
NO_BOOKS = MemoryBooks(VERSIONS.__getitem__)
