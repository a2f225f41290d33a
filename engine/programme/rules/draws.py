"""Decide cohorts and draws by hashes, so that the answer is the same whoever asks, now and in ten years."""

from __future__ import annotations

from hashlib import sha256
from hmac import digest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.programme.model import Cohort, Draw

TREAT_OF = 10_000
"""The denominator of `Cohort.treat`."""

_DRAWS = 2**64


def is_treated(cohort: Cohort, member_id: str) -> bool:
    """Whether a member is in the arm of the cohort that gets the reward."""
    hashed = sha256(f"{cohort.salt}\0{member_id}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") % TREAT_OF < cohort.treat


def wins(draw: Draw, rule_id: str, source: str, event_id: str) -> bool:
    """Whether an event wins a rule's draw."""
    hashed = digest(draw.seed.encode(), f"{rule_id}\0{source}\0{event_id}".encode(), "sha256")
    return int.from_bytes(hashed[:8], "big") * draw.of < draw.wins * _DRAWS
