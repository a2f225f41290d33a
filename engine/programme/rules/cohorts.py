"""Divide members into the arms of a cohort by a hash, and record when each of them enters it.

The arm follows from the salt and the member alone, so it is the same whoever asks, now and in ten years. The first
event that meets a rule's time and condition lets its member into the cohort of the rule's salt, once for good.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from engine.programme.rules.awards import order_of
from schemas.canonical import entry_key
from schemas.rewards import Posting, RewardEvent

if TYPE_CHECKING:
    from engine.member.state import MemberState
    from engine.programme.model import Arm, Cohort, Rule
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import MemberEvent

TREAT_OF = 10_000
"""The denominator of `Cohort.treat`."""


def is_treated(cohort: Cohort, member_id: str) -> bool:
    """Whether a member is in the arm of the cohort that gets the reward."""
    hashed = sha256(f"{cohort.salt}\0{member_id}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") % TREAT_OF < cohort.treat


def cohort_key(salt: str) -> str:
    """Return the key under which a state remembers that the member entered the cohort of a salt."""
    return f"cohort:{salt}"


def control_key(rule_id: str) -> str:
    """Return the key under which a state remembers that the member, of the control arm, had an event of a rule."""
    return f"control:{rule_id}"


def begins(state: MemberState, key: str) -> bool:
    """Remember one of these keys, and return whether it is new to the member."""
    counters = state.remembering().counters
    if key in counters:
        return False
    counters[key] = [1]
    return True


def entry_posting(rule: Rule, version: int, arm: Arm) -> Posting:
    """Return what all entries into one arm of a rule's cohort have in common."""
    return Posting(
        type="cohort.entered",
        unit="cohort",
        rule_id=rule.id,
        rule_version=version,
        campaign=rule.campaign,
        item=arm.value,
    )


def entry(posting: Posting, salt: str, event: MemberEvent, occurrence: Occurrence) -> RewardEvent:
    """Return the record that an event let its member into the cohort of a salt."""
    key = entry_key(occurrence.identity, salt, event.member_id)
    return RewardEvent(posting, 1, key, event.occurred_at, order_of(event))
