"""Show the version of the programme that judges now, and what members can spend points on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.explain.rules import condition_words, give_words
from engine.explain.values import Wording, duration
from engine.programme.fields import TRIGGER_NAMES
from engine.programme.model import in_order
from engine.programme.terms import RewardKind
from engine.store import programmes
from operations.member.projected import spendable_points
from operations.member.view import check_known
from operations.rows import plain
from schemas.errors import AnswerIsNo
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.programme.model import Programme, Rule
    from engine.programme.terms import CatalogueReward, Tiers
    from engine.store.cursor import Cursor


def live_programme(cursor: Cursor) -> dict[str, Any]:
    """Return the live version: its tiers, rules in words, campaigns, contests and catalogue.

    Raises:
        AnswerIsNo: no programme is active.
    """
    version, programme = _live(cursor)
    wording = Wording.of(programme)
    rules = [_rule(rule, wording) for rule in in_order(programme.rules)]
    return {
        "programme": programme.id,
        "version": version.version,
        "digest": version.digest,
        "activated_at": plain(version.activated_at),
        "timezone": programme.timezone,
        "currency": programme.currency,
        "tiers": _tiers(programme.terms.tiers),
        "campaigns": _campaigns(rules),
        "rules": rules,
        "contests": [
            {
                "contest": each.id,
                "metric": each.metric.value,
                "winners": each.winners,
                "every": None if each.every is None else each.every.value,
                "from": iso_from_instant(each.from_ms) if each.every is None else None,
                "until": iso_from_instant(each.until_ms) if each.every is None else None,
            }
            for each in programme.terms.contests
        ],
        "catalogue": _rewards(cursor, programme),
    }


def catalogue(cursor: Cursor, member_id: str | None = None) -> dict[str, Any]:
    """Return every reward of the live catalogue, with what the member lacks to have it.

    Raises:
        AnswerIsNo: no programme is active, or no event of this member was ever recorded.
    """
    _, programme = _live(cursor)
    rewards = _rewards(cursor, programme)
    available = None
    if member_id is not None:
        check_known(cursor, member_id)
        available = spendable_points(cursor, member_id)
    for reward in rewards:
        missing = None if available is None else max(reward["from_points"] - available, 0)
        reward["missing"] = missing
        is_out = reward["left"] is not None and reward["left"] <= 0
        reward["affordable"] = None if missing is None else not (missing or is_out)
    return {"currency": programme.currency, "available": available, "rewards": rewards}


def _live(cursor: Cursor) -> tuple[programmes.Version, Programme]:
    version = programmes.active(cursor)
    if version is None:
        raise AnswerIsNo("no programme is active; `guerdon programme activate FILE` turns one on")
    return version, programmes.judged_as(cursor, version.version)


def _rewards(cursor: Cursor, programme: Programme) -> list[dict[str, Any]]:
    cursor.execute("SELECT reward, used FROM guerdon.stock")
    used: dict[str, int] = dict(cursor.fetchall())
    return [_reward(each, used.get(each.id, 0)) for each in programme.terms.catalogue]


def _reward(reward: CatalogueReward, used: int) -> dict[str, Any]:
    is_money = reward.kind is RewardKind.MONEY
    numerator, denominator = reward.share
    return {
        "reward": reward.id,
        "kind": reward.kind.value,
        "points": reward.points,
        "from_points": max(reward.points, reward.least),
        "money_minor": reward.money_minor if is_money else None,
        "order_share_max": numerator / denominator if is_money else None,
        "order_least_minor": reward.order_least_minor,
        "stock": reward.stock,
        "left": None if reward.stock is None else max(reward.stock - used, 0),
    }


def _tiers(tiers: Tiers | None) -> dict[str, Any] | None:
    if tiers is None:
        return None
    return {
        "counts": "status" if tiers.metric is None else tiers.metric.key,
        "window": tiers.window.value,
        "over": None if tiers.over is None else duration(tiers.over),
        "downgrade": tiers.downgrade.value,
        "levels": levels(tiers),
    }


def levels(tiers: Tiers) -> list[dict[str, Any]]:
    """Return the levels from the lowest: the number from which each is reached, and what it brings."""
    return [{"tier": level.id, "from": level.start, "benefits": list(level.benefits)} for level in tiers.levels]


def _rule(rule: Rule, wording: Wording) -> dict[str, Any]:
    begin_ms, end_ms = rule.active.from_ms, rule.active.until_ms
    return {
        "rule_id": rule.id,
        "campaign": rule.campaign,
        "on": TRIGGER_NAMES[rule.on],
        "phase": rule.phase.value,
        "when": condition_words(rule, wording),
        "gives": [give_words(give, wording) for give in rule.gives],
        "active_from": None if begin_ms is None else iso_from_instant(begin_ms),
        "active_until": None if end_ms is None else iso_from_instant(end_ms),
    }


def _campaigns(rules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each campaign with its rules, by name."""
    named: dict[str, list[str]] = {}
    for rule in rules:
        if rule["campaign"] is not None:
            named.setdefault(rule["campaign"], []).append(rule["rule_id"])
    return [{"campaign": name, "rules": named[name]} for name in sorted(named)]
