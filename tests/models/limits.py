"""Model limits for events in any order by remembering every award, and draw such histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from engine.evaluate import fold
from engine.ledger.books import Activation
from engine.member.state import MemberState
from engine.programme.conditions import Duration
from engine.programme.file.load import load_programme
from engine.programme.interpret.facts import period_of
from engine.programme.localtime import calendar_of
from engine.programme.model import MaxLimit, Over, TimesLimit
from engine.programme.periods import bounds_of
from engine.programme.rules.occurrence import Occurrence
from schemas.canonical import event_identity
from schemas.events import Purchase, Refund
from schemas.scalars import instant_from_iso
from tests.engine.books import PagedBooks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.model import Limit, LimitScope, Programme
    from engine.programme.rules.judge import Judge
    from schemas.rewards import RewardEvent

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = instant_from_iso("2024-01-20T07:00:00Z", "at")
TIMEZONE = "America/New_York"
EVERY = ("day", "week", "month", "quarter", "year", "lifetime", "24h", "30h", "2d", "10d", "1mo")


GIVE = "[{points: {rate: 1, per: 1.00, of: purchase.amount}}]"


def loaded(limits: list[str], window: str = "30d", give: str = GIVE) -> Programme:
    text = (
        f"schema: guerdon/1\nprogramme: p\ntimezone: {TIMEZONE}\ncurrency: USD\nrefunds: {{window: {window}}}\nrules:\n"
        f"- {{id: r, on: purchase, give: {give}, limits: [{', '.join(limits)}]}}\n"
    )
    checked = load_programme(text, "p.yaml")
    assert checked.programme is not None, "\n".join(map(str, checked.problems))
    return checked.programme


class Member:
    """Fold events into one member; `is_paging` lets uses of ended periods leave the state after each event."""

    def __init__(self, judge: Judge, *, is_paging: bool = True) -> None:
        self.judges = {judge.version: judge}
        self.judge = judge
        self.state = MemberState()
        self.schedule = [Activation(-1, judge.version, 0)]
        self.books = PagedBooks(self.judges.__getitem__, self.schedule)
        self.is_paging = is_paging
        self.count = 0

    def activate(self, judge: Judge) -> None:
        self.judge = self.judges[judge.version] = judge
        self.schedule.append(Activation(self.count, judge.version, self.state.clock_ms))

    def take(self, event_: Purchase | Refund) -> list[RewardEvent]:
        self.count += 1
        occurrence = Occurrence(event_identity(event_.source, event_.event_id), self.count, event_.occurred_at)
        if isinstance(event_, Purchase):
            self.books.record(event_, self.judge.version)
        rewards = list(fold(self.state, event_, occurrence, self.judge, self.books))
        if self.is_paging:
            self.books.turn(self.state)
        return rewards

    def buy(self, at: str, amount: int, **fields: Any) -> list[tuple[int, str | None]]:
        return outcome(self.take(bought(self.count + 1, instant_from_iso(at, "at"), amount, **fields)))


def bought(number: int, at_ms: int, amount: int, store: str | None = None) -> Purchase:
    return Purchase(
        event_id=f"e{number}", member_id="m", occurred_at=at_ms, order_id=f"o{number}", currency="USD",
        amount=amount * 100, store=store,
    )  # fmt: skip


def outcome(rewards: list[RewardEvent]) -> list[tuple[int, str | None]]:
    return [(reward.amount, reward.posting.reason) for reward in rewards]


@dataclass(frozen=True)
class Step:
    """Buy at an hour, or, with `returned`, return a whole order some hours after the step before."""

    hour: int
    amount: int
    store: str | None
    returned: int | None = None


HOURS = st.builds(
    lambda day, hour: 24 * day + hour, st.sampled_from([*range(8), 12, 30, 31, 70]), st.sampled_from([0, 1, 13])
)
STEPS = st.lists(
    st.builds(
        Step, HOURS, st.integers(1, 9), st.sampled_from(["a", "b", "c", None]),
        st.none() | st.none() | st.integers(0, 9),
    ),
    min_size=4, max_size=24,
)  # fmt: skip


PERS = ("member", "[member, purchase.store]")


@st.composite
def limits(draw: st.DrawFn, pers: tuple[str, ...] = PERS) -> list[str]:
    texts = {}
    for _ in range(draw(st.integers(1, 2))):
        per = draw(st.sampled_from(pers))
        every = draw(st.sampled_from(EVERY))
        kind = draw(st.sampled_from(["times: 1", "times: 2", "max: 7, over: trim", "max: 12, over: refuse", "max: 12"]))
        texts[kind[:3], per, every] = f"{{{kind}, per: {per}, every: {every}}}"
    return list(texts.values())


@dataclass
class Given:
    """Hold what an order still has of its rule; the oracle never forgets it."""

    at_ms: int
    store: str | None
    amount: int
    times: int = 1


@dataclass
class Oracle:
    """Compute what a rule with limits gives, from all awards ever given and the member's clock."""

    programme: Programme
    clock_ms: int = 0
    given: dict[str, Given] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.limits = self.programme.rules[0].limits
        self.calendar = calendar_of(TIMEZONE)

    def buy(self, purchase: Purchase) -> list[tuple[int, str | None]]:
        at_ms, asked = purchase.occurred_at, purchase.amount // 100
        timed = [limit for limit in self.limits if isinstance(limit, TimesLimit)]
        capped = [limit for limit in self.limits if isinstance(limit, MaxLimit)]

        # a forgotten period, or too many times, refuses everything
        if any(self.is_forgotten(limit.scope, at_ms) for limit in timed):
            return [(asked, "limit_forgotten")]
        if any(self.used(limit, at_ms, purchase.store)[1] >= limit.times for limit in timed):
            return [(asked, "limit_times")]
        if any(self.is_forgotten(limit.scope, at_ms) for limit in capped):
            return [(asked, "limit_forgotten")]

        # each maximum trims or refuses
        allowed = asked
        for limit in capped:
            left = limit.amount - self.used(limit, at_ms, purchase.store)[0]
            if allowed > left:
                allowed = max(left, 0) if limit.over is Over.TRIM else 0

        if allowed:
            self.given[purchase.order_id] = Given(at_ms, purchase.store, allowed)
        rows: list[tuple[int, str | None]] = [(allowed, None)] if allowed else []
        return rows if allowed == asked else [*rows, (asked - allowed, "limit_max")]

    def take_back(self, order_id: str, amount: int) -> None:
        self.given[order_id].amount -= amount
        if not self.given[order_id].amount:
            del self.given[order_id]

    def is_forgotten(self, scope: LimitScope, at_ms: int) -> bool:
        end_ms = at_ms if isinstance(scope.every, Duration) else bounds_of(scope.every, at_ms, self.calendar)[1]
        return at_ms < self.clock_ms > self.calendar.after(end_ms, self.programme.terms.refunds.window)

    def used(self, limit: Limit, at_ms: int, store: str | None) -> tuple[int, int]:
        """Return amount and times: the most of any window that the instant lies in, or of its period."""
        own = [each for each in self.given.values() if limit.scope.by is None or each.store == store]
        every = limit.scope.every
        if not isinstance(every, Duration):
            period = period_of(every, at_ms, self.calendar)
            windows = [[each for each in own if period_of(every, each.at_ms, self.calendar) == period]]
        else:
            ends = [at_ms, *(each.at_ms for each in own if each.at_ms > at_ms)]
            spans = [(self.calendar.before(end_ms, every), end_ms) for end_ms in ends]
            windows = [[each for each in own if a < each.at_ms <= b] for a, b in spans if a < at_ms]
        return (
            max(sum(each.amount for each in window) for window in windows),
            max(sum(each.times for each in window) for window in windows),
        )

    def assert_nothing_is_over(self) -> None:
        for limit in self.limits:
            for each in self.given.values():
                amount, times = self.used(limit, each.at_ms, each.store)
                if isinstance(limit, MaxLimit):
                    assert amount <= limit.amount
                else:
                    assert times <= limit.times


def events_of(steps: list[Step]) -> Iterator[Purchase | Refund]:
    """Yield the steps as events; an order is returned 20 hours after whatever step came before."""
    orders = [number for number, step in enumerate(steps) if step.returned is None]
    at_ms = START_MS
    for number, step in enumerate(steps):
        earlier = [order for order in orders if order < number]
        if step.returned is None or not earlier:
            at_ms = START_MS + step.hour * HOUR_MS
            yield bought(number, at_ms, step.amount, step.store)
        else:
            at_ms += 20 * HOUR_MS
            order = f"o{earlier[step.returned % len(earlier)]}"
            yield Refund(
                event_id=f"e{number}", member_id="m", occurred_at=at_ms, order_id=order, refund_id=f"r{number}"
            )
