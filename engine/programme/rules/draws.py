"""Decide draws by a hash, so that the answer is the same whoever asks, now and in ten years."""

from __future__ import annotations

from hmac import digest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.programme.model import Draw

_DRAWS = 2**64


def wins(draw: Draw, rule_id: str, source: str, event_id: str) -> bool:
    """Whether an event wins a rule's draw."""
    hashed = digest(draw.seed.encode(), f"{rule_id}\0{source}\0{event_id}".encode(), "sha256")
    return int.from_bytes(hashed[:8], "big") * draw.of < draw.wins * _DRAWS
