"""Hold what the engine remembers of a member between events: a few hundred bytes, never a history."""

from __future__ import annotations

from msgspec import Struct, field

from engine.windows import Window  # noqa: TC001  msgspec reads the annotations


class LimitUse(Struct, array_like=True, gc=False):
    """Count what a limit has let through in one period; `earlier` holds the kept periods before it, newest first."""

    period: int
    amount: int = 0
    times: int = 0
    earlier: list[LimitUse] | None = None


class Memory(Struct, array_like=True):
    """Hold what few members or few programmes need: limits per value of a field, windows, counters, held rewards.

    Each is bounded: values of a field and entries of a window by `engine.windows`, the rest by the rules and items of
    the programmes. `counters` holds a few integers a key, `held` when a badge or benefit ends (0: never).
    """

    value_limits: dict[str, dict[str, LimitUse]] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    value_windows: dict[str, dict[str, Window]] = field(default_factory=dict)
    counters: dict[str, list[int]] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


class MemberState(Struct, array_like=True):
    """Hold a member's state after their last source event; stored as MessagePack, so fields are added at the end.

    `clock_ms` is the latest instant processed, `limits` what each limit has used (key: `LimitScope.key`), `held_since`
    the seq of the first event that evaluation could not judge (0: none; later events are logged, not judged), `erased`
    whether the member asked for erasure, `memory` everything that takes more than a few bytes,
    `signup_ms` the first signup, `available` the points that can be spent.
    """

    clock_ms: int = 0
    limits: dict[str, LimitUse] = field(default_factory=dict)
    held_since: int = 0
    erased: bool = False
    memory: Memory | None = None
    signup_ms: int | None = None
    available: int = 0

    def remembering(self) -> Memory:
        """Return the member's memory, made now where there was nothing to remember yet."""
        if self.memory is None:
            self.memory = Memory()
        return self.memory


class Occurrence(Struct, frozen=True, gc=False):
    """Place an event in the recorded order: what the fold knows besides the event's own fields.

    `identity` is the 32-byte event identity, `seq` its position in its shard, times are milliseconds since 1970 UTC.
    """

    identity: bytes
    seq: int
    recorded_at_ms: int


def use_in(limits: dict[str, LimitUse], key: str, period: int, kept: int) -> LimitUse:
    """Return what `key` has used in `period`, opening the period where nothing was used in it yet.

    The newest period and `kept` periods before it stay, so that a late event counts where it belongs and the state
    stays small. An event later than that finds nothing used, and its use is forgotten with it.
    """
    newest = limits.get(key)
    if newest is None:
        opened = limits[key] = LimitUse(period)
        return opened
    if newest.period == period:
        return newest
    if newest.period < period:
        opened = limits[key] = LimitUse(period, 0, 0, _kept(newest, period - kept))
        return opened
    return _earlier_use(newest, period, kept)


def _earlier_use(newest: LimitUse, period: int, kept: int) -> LimitUse:
    earlier = newest.earlier or []
    for use in earlier:
        if use.period == period:
            return use
    opened = LimitUse(period)
    if period >= newest.period - kept:
        newest.earlier = sorted([*earlier, opened], key=lambda use: -use.period)
    return opened


def _kept(newest: LimitUse, oldest_period: int) -> list[LimitUse] | None:
    """Return `newest` and those before it that are not too old; they pass into a list of their own."""
    earlier = newest.earlier or []
    newest.earlier = None
    if newest.period < oldest_period:
        return None
    while earlier and earlier[-1].period < oldest_period:
        earlier.pop()
    earlier.insert(0, newest)
    return earlier
