"""Completed challenges depend on the orders they counted, and the rewards of a level go with the level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from engine.evaluate import fold
from engine.ledger.forget import forget
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.rules.occurrence import Occurrence
from schemas.canonical import event_identity
from schemas.events import Purchase, Refund
from tests.engine.books import turn_if_full
from tests.models.completions import Challenge
from tests.programme_text import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.rules.judge import Judge
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: Europe/Berlin\ncurrency: EUR\n"
START_MS = 1_769_900_000_000
HOUR_MS = 3_600_000
LEVELS = "levels: [{id: a, from: 0}, {id: b, from: 20, benefits: [x]}, {id: c, from: 60, benefits: [x, y]}]"


class Account:
    """Fold events into one member, by both ways of judging, with a ledger that forgets as early as possible."""

    def __init__(self, body: str) -> None:
        programme = load_programme(HEAD + body, "p.yaml").programme
        assert programme is not None
        self.judges: list[Judge] = [compile_programme(programme, 1), Interpreter(programme, 1)]
        self.states = [MemberState(), MemberState()]
        self.books = [MemoryBooks(lambda _: self.judges[0]), MemoryBooks(lambda _: self.judges[1])]
        self.rewards: list[RewardEvent] = []
        self.seq = 0

    @property
    def state(self) -> MemberState:
        return self.states[0]

    def take(self, event: MemberEvent) -> Sequence[RewardEvent]:
        self.seq += 1
        place = Occurrence(event_identity(event.source, event.event_id), self.seq, event.occurred_at)
        rewards = []
        for state, judge, books in zip(self.states, self.judges, self.books, strict=True):
            if isinstance(event, Purchase):
                books.record(event, 1)
            rewards.append(list(fold(state, event, place, judge, books)))
        assert rewards[0] == rewards[1], "compiled and interpreted programmes differ"
        assert self.states[0] == self.states[1]
        self._keep_house()
        self.rewards += rewards[0]
        assert len({reward.reward_key for reward in self.rewards}) == len(self.rewards)
        return rewards[0]

    def _keep_house(self) -> None:
        """Turn full pages and forget, as transactions do; one of the two ledgers is stored and read again, too."""
        for state, books in zip(self.states, self.books, strict=True):
            turn_if_full(state, books)
        parts = self.books[0].parts()
        forget(parts, self.state, lambda _: self.judges[0])
        for number, kept in parts.pages.items():
            parts.pages[number] = msgpack.decode(msgpack.encode(kept), type=type(kept))
        profile = self.states[0].profile
        self.states[0] = msgpack.decode(msgpack.encode(self.states[0]), type=MemberState)
        self.states[0].profile = profile

    def buy(self, order: int, at_ms: int, amount: int, **fields: Any) -> Sequence[RewardEvent]:
        head: dict[str, Any] = {"event_id": f"p{order}", "member_id": "m", "occurred_at": at_ms}
        return self.take(Purchase(**head, order_id=f"o{order}", currency="EUR", amount=amount, **fields))

    def give_back(self, number: int, order: int, at_ms: int, amount: int | None = None) -> Sequence[RewardEvent]:
        head: dict[str, Any] = {"event_id": f"r{number}", "member_id": "m", "occurred_at": at_ms}
        return self.take(Refund(**head, order_id=f"o{order}", refund_id=f"r{number}", amount=amount))

    def kept(self, unit: str = "points", rule: str | None = None) -> int:
        """Return how much of a unit a rule (None: all rules) has given and not taken back."""
        total = 0
        for reward in self.rewards:
            if reward.posting.unit == unit and rule in (None, reward.posting.rule_id):
                kind = reward.posting.type.partition(".")[2]
                total += reward.amount if kind in _GIVEN else -reward.amount if kind in _TAKEN else 0
        return total


_GIVEN = ("granted", "issued", "awarded")
_TAKEN = ("reversed", "revoked", "ended")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("buy"), st.integers(0, 60), st.sampled_from([500, 1_000, 2_500, 4_000, 6_000, 9_900])),
        st.tuples(st.just("late"), st.integers(1, 100), st.sampled_from([500, 1_000, 2_500, 4_000, 6_000, 9_900])),
        st.tuples(st.just("return"), st.integers(0, 8), st.sampled_from([100, 900, 2_500, 100_000])),
    ),
    max_size=14,
)
"""Each step is an order after some hours, an order some hours late, or a part of a recent order given back."""


def played(account: Account, challenges: dict[str, Challenge], history: list[tuple[str, int, int]]) -> Account:
    """Play a history to an account and to the model of its challenges, and compare them after each step."""
    clock_ms, orders = START_MS, list[list[int]]()
    for number, (kind, where, amount) in enumerate(history):
        if kind == "return":
            if where >= len(orders):
                continue

            # a refund of what is left of an order
            order = orders[-1 - where]
            back = min(amount, order[1])
            if not back:
                continue
            order[1] -= back
            account.give_back(number, order[0], clock_ms, back)
            for name, challenge in challenges.items():
                challenge.give_back(f"o{order[0]}", counted(name, order[1]))
        else:
            # an order, in time or late
            clock_ms += where * HOUR_MS if kind == "buy" else 0
            at_ms = clock_ms if kind == "buy" else clock_ms - where * HOUR_MS
            orders.append([number, amount])
            account.buy(number, at_ms, amount)
            for name, challenge in challenges.items():
                challenge.buy(f"o{number}", at_ms, counted(name, amount))

        hold_equal(account, challenges)
    return account


def counted(name: str, amount: int) -> int:
    """Return what an order counts for a challenge of `CHALLENGES`."""
    return amount if name.startswith("sum") else int(amount >= 1_000)


def hold_equal(account: Account, challenges: dict[str, Challenge]) -> None:
    """Assert that rules have given for the standing completions, and for no others."""
    for name, challenge in challenges.items():
        assert account.kept(rule=name) == 10 * len(challenge.standing), name
        left = sum(each.left for each in challenge.orders)
        assert len(challenge.standing) * challenge.goal <= left
    if "sum-2d" in challenges:
        assert account.kept("badge", "fan") == len(challenges["sum-2d"].standing)
    hold_grounded(account)


def hold_grounded(account: Account) -> None:
    """Assert that each completion stands on its own contributions, and that they reach the goal."""
    for state, books in zip(account.states, account.books, strict=True):
        # all completions and contributions, in pages or in the state
        pages = [books.parts().pages[number] for number in sorted(books.parts().pages)]
        completions = [each for page in pages for each in page.completions] + state.completions
        named = [facts for orders in (*(page.orders for page in pages), state.orders) for facts in orders.values()]

        rules = {rule.id: rule for rule in account.judges[0].programme.rules}
        for done in completions:
            challenge = rules[done.rule_id].challenge
            assert challenge is not None

            # what its round and its window hold is what it says, and enough
            own = [each for facts in named for each in facts.counted if each.rule_id == done.rule_id]
            inside = [
                each.left
                for each in own
                if each.round == done.round and (done.since_ms is None or done.since_ms < each.at_ms <= done.at_ms)
            ]
            assert sum(inside) == done.reached >= challenge.goal


CHALLENGES = {
    "sum-ever": ("sum: purchase.amount, gte: 100.00", None, False),
    "sum-2d": ("sum: purchase.amount, gte: 60.00, within: 48h", 48 * HOUR_MS, True),
    "sum-again": ("sum: purchase.amount, gte: 50.00", None, True),
    "count-4d": ("count: 3, within: 96h, where: {purchase.amount: {gte: 10.00}}", 96 * HOUR_MS, True),
    "count-once": ("count: 2, within: 48h, where: {purchase.amount: {gte: 10.00}}", 48 * HOUR_MS, False),
}
GOALS = {"sum-ever": 10_000, "sum-2d": 6_000, "sum-again": 5_000, "count-4d": 3, "count-once": 2}
FOLLOWED = "- {id: fan, on: challenge, when: {challenge.rule: sum-2d}, give: [{badge: F}]}\n"


def challenge_rules(more: str = "") -> str:
    return "rules:\n" + "".join(
        written(
            "- {id: $name, on: purchase, challenge: {$what, repeat: $value}, give: [{points: 10}$more]}\n",
            name=name,
            what=what,
            value="after_completion" if again else "never",
            more=more,
        )
        for name, (what, _, again) in CHALLENGES.items()
    )


def models() -> dict[str, Challenge]:
    return {name: Challenge(GOALS[name], within_ms, again) for name, (_, within_ms, again) in CHALLENGES.items()}


quick = settings(max_examples=30, deadline=None, phases=[each for each in Phase if each is not Phase.explain])


@quick
@given(steps)
def test_completions_stand_as_the_model_says_after_each_step(history: list[tuple[str, int, int]]) -> None:
    played(Account(challenge_rules() + FOLLOWED), models(), history)


RICH = (
    written("refunds: {negative: unlimited}\ntiers: {metric: status, window: calendar_year, $levels}\n", levels=LEVELS)
    + challenge_rules(", {status: 8}")
    + FOLLOWED
    + """
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: rated, on: purchase, challenge: {sum: purchase.amount, gte: 70.00, within: 96h, repeat: after_completion},
   give: [{points: {rate: 3, per: 1.00, of: purchase.amount}}, {coupon: C}], limits: [{times: 2, per: member}]}
- {id: times, on: purchase, phase: boost, give: [{multiply: {phase: base, key: member.tier, by: {b: 2, c: 3}}}]}
- {id: hello-b, on: tier, when: {tier.to: b}, give: [{points: 100}, {status: 3}], limits: [{times: 9, per: member}]}
- {id: hello-c, on: tier, when: {tier.to: c}, give: [{points: 1000}, {gift: {sku: G, quantity: 1}}]}
- {id: climbs, on: tier, challenge: {count: 2}, give: [{points: 5000}, {status: 2}]}
- {id: fans, on: challenge, challenge: {count: 2, repeat: after_completion}, give: [{points: 7}, {status: 1}]}
"""
)
"""Challenges that bring status, levels that bring points and status, challenges that count levels and challenges."""

UNITS = ("points", "status", "coupon", "gift", "badge", "benefit")


def kept(account: Account) -> dict[str, int]:
    return {unit: account.kept(unit) for unit in UNITS}


orders = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([500, 1_000, 2_500, 4_000, 6_000, 9_900])), min_size=1, max_size=7
)
"""How many hours after the one before each order comes, and its amount."""


@quick
@given(steps)
def test_when_everything_is_given_back_nothing_is_kept(history: list[tuple[str, int, int]]) -> None:
    account = played(Account(RICH), {}, history)
    for number, (kind, _, _) in enumerate(history):
        if kind != "return":
            account.give_back(1_000 + number, number, account.state.clock_ms)
    assert kept(account) == dict.fromkeys(UNITS, 0)
    assert account.state.available == 0
    hold_grounded(account)


@quick
@given(orders, st.integers(0, 7), st.integers(1, 3), st.sampled_from([500, 4_000, 9_900, 30_000]), st.integers(1, 499))
def test_orders_bought_and_given_back_in_between_change_nothing(
    bought: list[tuple[int, int]], place: int, loops: int, amount: int, first: int
) -> None:
    accounts = [Account(RICH), Account(RICH)]
    for account, times in zip(accounts, (0, loops), strict=True):
        clock_ms = START_MS
        for number, (hours, spent) in enumerate([*bought, (1, 0)]):
            if number == min(place, len(bought)):
                for loop in range(times):
                    account.buy(100 + loop, clock_ms, amount)
                    account.give_back(200 + loop, 100 + loop, clock_ms, first)
                    account.give_back(300 + loop, 100 + loop, clock_ms)
            clock_ms += hours * HOUR_MS
            account.buy(number, clock_ms, spent)
    assert kept(accounts[0]) == kept(accounts[1])


@quick
@given(orders, st.integers(0, 6), st.integers(1, 9_900), st.integers(1, 9_900))
def test_two_refunds_come_to_what_one_of_both_does(
    bought: list[tuple[int, int]], which: int, first: int, second: int
) -> None:
    accounts = [Account(RICH), Account(RICH)]
    which = min(which, len(bought) - 1)
    first = min(first, bought[which][1])
    second = min(second, bought[which][1] - first)
    for account, parts in zip(accounts, ([first, second], [first + second]), strict=True):
        clock_ms = START_MS
        for number, (hours, spent) in enumerate(bought):
            clock_ms += hours * HOUR_MS
            account.buy(number, clock_ms, spent)
        for number, part in enumerate(parts):
            if part:
                account.give_back(number, which, clock_ms + HOUR_MS, part)
    assert kept(accounts[0]) == kept(accounts[1])
