"""Find what a limit has let through already: the part of limits that compiled and interpreted programmes share."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from engine.state import use_in
from engine.windows import LATE_MS, RollingUse, by_value

if TYPE_CHECKING:
    from engine.state import LimitUse, MemberState


def value_key(value: object) -> str:
    """Return the short text under which a value of a field is remembered; a missing value counts as one of its own."""
    return "" if value is None else blake2b(str(value).encode(), digest_size=9).hexdigest()


def value_use(state: MemberState, key: str, value: object, period: int, kept: int) -> LimitUse:
    """Return what a limit per value of a field has let through in a calendar period, as `use_in` does."""
    text = value_key(value)
    return use_in(by_value(state.remembering().value_limits, key, text), text, period, kept)


def rolling_use(state: MemberState, key: str, at_ms: int, from_ms: int) -> RollingUse:
    """Return what a limit has let through since `from_ms`, itself outside."""
    return RollingUse(state.remembering().windows, key, at_ms, (from_ms, from_ms - LATE_MS))


def rolling_value_use(state: MemberState, key: str, value: object, at_ms: int, from_ms: int) -> RollingUse:
    """Return what a limit per value of a field has let through since `from_ms`, itself outside."""
    text = value_key(value)
    windows = by_value(state.remembering().value_windows, key, text)
    return RollingUse(windows, text, at_ms, (from_ms, from_ms - LATE_MS))


def begins_control(state: MemberState, rule_id: str) -> bool:
    """Whether this is a control member's first event of a rule, and remember that it was."""
    counters = state.remembering().counters
    key = f"control:{rule_id}"
    if key in counters:
        return False
    counters[key] = [1]
    return True
