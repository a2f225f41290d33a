"""Tell what a basket would earn and what points would pay of it, by the live version on the member's present state.

The member's state is read and judged in memory, as the worker would judge the order now; nothing is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.evaluate import advance, fold
from engine.explain.event import GAVE, Explainer
from engine.explain.tier import explain_tier
from engine.ledger.ranks import report_of
from engine.ledger.redemptions import steps_of
from engine.ledger.turn import Turn
from engine.member.lots import spendable
from engine.programme.rules.occurrence import Occurrence
from engine.programme.terms import RewardKind
from engine.store.campaigns.budgets import StoredBudgets
from engine.store.cursor import one
from engine.store.members import member_states, profiles
from engine.store.members.books import StoredBooks, read_stock
from engine.store.programmes import load_judge
from schemas.canonical import event_identity
from schemas.events import INT64_MAX, Redemption
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from engine.programme.compile.module import CompiledJudge
    from engine.programme.model import Programme
    from engine.programme.terms import CatalogueReward
    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member
    from schemas.events import Purchase

POINTS = "points"


class _Live(NamedTuple):
    """Name what judges a shard: versions activated later than a version may let it count further metrics."""

    generation: int
    version: int
    newest: int


class Judges:
    """Keep the compiled judges of versions until a version is activated."""

    def __init__(self) -> None:
        self._judges: dict[tuple[int, int], CompiledJudge] = {}

    def judge(self, cursor: Cursor, live: _Live, version: int) -> CompiledJudge:
        """Return the judge of an activated version."""
        name = (live.newest, version)
        judge = self._judges.get(name)
        if judge is None:
            judge = load_judge(cursor, version)
            self._judges = {known: kept for known, kept in self._judges.items() if known[0] >= live.newest}
            self._judges[name] = judge
        return judge


@dataclass(frozen=True, slots=True)
class _Asked:
    """Hold a basket with the member who would buy it, judged by one version."""

    basket: Purchase
    member: Member
    judge: Explainer
    books: StoredBooks
    occurrence: Occurrence

    @property
    def programme(self) -> Programme:
        """Return the programme that judges."""
        return self.judge.programme

    def of_member(self) -> StoredBooks:
        """Return the member's books as of now."""
        return self.books.of(self.member)


def quote(cursor: Cursor, judges: Judges, basket: Purchase) -> dict[str, Any]:
    """Return what a basket would earn, what points would pay, and what is missing to the next tier and reward.

    Args:
        cursor: belongs to a transaction that may be read-only.
        judges: keeps what judges from call to call.
        basket: was admitted; its time is that at which it is judged.
    """
    # whoever judges the member's shard now
    shard = shard_of(basket.member_id)
    live = _Live(
        *one(
            cursor,
            """
            SELECT g.generation, h.version, (SELECT max(version) FROM guerdon.programme_version)
            FROM guerdon.generation g JOIN guerdon.generation_head h USING (generation)
            WHERE g.status = 'live' AND h.shard = %s
            """,
            (shard,),
        )
    )
    compiled = judges.judge(cursor, live, live.version)

    # the member as they are, once all is done that is due by then
    (member,) = member_states.load(cursor, [(shard, basket.member_id)])
    profiles.open_profiles(cursor, [member])
    books = StoredBooks(
        cursor, live.generation, lambda version: judges.judge(cursor, live, version), StoredBudgets(cursor)
    )
    identity = event_identity(basket.source, basket.event_id)
    asked = _Asked(
        basket, member, Explainer(compiled.programme, compiled.version), books,
        Occurrence(identity, INT64_MAX - 1, basket.occurred_at),
    )  # fmt: skip
    return _quoted(asked, read_stock(cursor, _limited(compiled.programme)))


def _quoted(asked: _Asked, taken: dict[str, int]) -> dict[str, Any]:
    """Return the parts of a quote; `taken` has how many of each reward with a stock are gone."""
    basket, member, judge = asked.basket, asked.member, asked.judge
    if member.stored:
        advance(member.member_id, member.state, asked.occurrence, judge, asked.of_member(), until_ms=basket.occurred_at)
    available = _available(asked)
    pays = [_pays(reward, basket, available, taken) for reward in asked.programme.terms.catalogue]

    # then the basket
    judge.begin()
    fold(member.state, basket, asked.occurrence, judge, asked.of_member())
    tier = explain_tier(asked.programme, report_of(judge, member.state))
    drawn = {rule.id for rule in asked.programme.rules if rule.draw is not None}
    rules = [
        rule.document() | {"by_chance": rule.rule in drawn}
        for rule in judge.explained
        if rule.on == "purchase" or rule.outcome == GAVE
    ]
    return {
        "member_id": member.member_id, "occurred_at_ms": basket.occurred_at, "amount": basket.amount,
        "currency": basket.currency, "programme": asked.programme.id, "rule_version": judge.version,
        "is_held": bool(member.state.suspended_since), "earns": _sums(rules), "rules": rules, "available": available,
        "pays": pays, "tier": None if tier is None else tier.document(), "next_reward": _next_reward(pays, available),
    }  # fmt: skip


def _available(asked: _Asked) -> int:
    """Return how many points the member could spend, as a redemption at that time would find it."""
    member, basket = asked.member, asked.basket
    turn = Turn(member.member_id, member.state, asked.occurrence, asked.judge, asked.of_member())
    lots = spendable(turn.lots(), POINTS, max(basket.occurred_at, member.state.clock_ms))
    return sum(lot.active for lot in lots) - member.state.debts.get(POINTS, 0)


def _limited(programme: Programme) -> list[str]:
    return [reward.id for reward in programme.terms.catalogue if reward.stock is not None]


def _sums(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what all rules together would give, by unit and item."""
    sums: dict[tuple[str, str | None], int] = {}
    for rule in rules:
        for award in rule["gave"]:
            what = (award["unit"], award["item"])
            sums[what] = sums.get(what, 0) + award["amount"]
    return [{"unit": unit, "item": item, "amount": amount} for (unit, item), amount in sums.items()]


def _pays(reward: CatalogueReward, basket: Purchase, available: int, taken: dict[str, int]) -> dict[str, Any]:
    """Return what a reward of the catalogue costs or pays of the basket, and whether the member can have it now."""
    left = None if reward.stock is None else max(reward.stock - taken.get(reward.id, 0), 0)
    is_enough_order = basket.amount >= reward.order_least_minor
    row: dict[str, Any] = {"reward": reward.id, "kind": reward.kind.value, "left": left, "worth": None}
    if reward.kind is not RewardKind.MONEY:
        missing = max(reward.points - available, 0)
        return row | {
            "points": reward.points, "missing": missing,
            "can_have": not missing and left != 0 and is_enough_order,
        }  # fmt: skip

    # money: as many whole steps as balance and order allow
    wish = Redemption(
        event_id=basket.event_id, member_id=basket.member_id, occurred_at=basket.occurred_at, action="spend",
        redemption_id=basket.event_id, reward=reward.id, order_amount=basket.amount,
    )  # fmt: skip
    least = max(reward.least, reward.points)
    points = steps_of(wish, reward, available).least * reward.points
    can_have = points >= least and left != 0 and is_enough_order
    return row | {
        "points": points if can_have else least, "missing": max(least - available, 0), "can_have": can_have,
        "worth": points // reward.points * reward.money_minor if can_have else 0,
    }  # fmt: skip


def _next_reward(pays: list[dict[str, Any]], available: int) -> dict[str, Any] | None:
    """Return the reward that fewest points are missing to, of those that points are missing to."""
    dear = [row for row in pays if row["missing"] and row["left"] != 0]
    nearest = min(dear, key=lambda row: row["missing"], default=None)
    return None if nearest is None else {"reward": nearest["reward"], "points": available + nearest["missing"],
                                         "missing": nearest["missing"]}  # fmt: skip
