"""Tell a member's history: their reward events, the newest first, each with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.explain.moves import sentence_of
from engine.explain.values import Wording
from engine.store import programmes
from engine.store.members.pseudonyms import shown_as
from operations.member.as_of import generation_at, times_of
from operations.member.view import check_known
from operations.rows import plain
from operations.why.own import COLUMNS, Reward, event_of
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

_PAGE = f"""
/* keep the plan */ WITH own AS MATERIALIZED (
    SELECT pos FROM guerdon.reward_event
    WHERE generation = %(generation)s AND shard = %(shard)s AND member_id = %(member)s
      AND occurred_at <= %(as_of)s AND recorded_at <= %(known_at)s
)
SELECT {COLUMNS}, pos, campaign, order_id, available_at, expires_at, occurred_at, recorded_at
FROM guerdon.reward_event
WHERE generation = %(generation)s AND shard = %(shard)s AND pos = ANY(ARRAY(
    SELECT pos FROM own WHERE pos < coalesce(%(before)s, pos + 1) ORDER BY pos DESC LIMIT %(limit)s
))
ORDER BY pos DESC
"""
"""The index by member finds all of the member's reward events; reading backwards from the log's end would be a scan."""

_GRANTS = """
/* keep the plan */ SELECT reward_key, event_id FROM guerdon.reward_event
WHERE generation = %(generation)s AND shard = %(shard)s AND member_id = %(member)s AND reward_key = ANY(%(lots)s)
"""


class HistoryPage(NamedTuple):
    """Hold a part of a member's history."""

    generation: int
    """The generation of the reward events."""

    events: list[dict[str, Any]]
    before: int | None
    """The position before which older ones follow; None: there are none."""


class Question(NamedTuple):
    """Hold what is asked of a member's history: times in ms, None for now."""

    member_id: str
    as_of_ms: int | None = None
    known_at_ms: int | None = None


def history(cursor: Cursor, question: Question, limit: int, before: int | None = None) -> HistoryPage:
    """Return reward events of a member, the newest in the log first, each with what it means in a sentence.

    Args:
        cursor: of a snapshot.
        question: the member, up to when events count, and up to when they were recorded.
        limit: the most events to return.
        before: only those before this position of the member's shard.

    Raises:
        AnswerIsNo: no event of this member was ever recorded, or the generation that was live then is gone.
    """
    member_id = question.member_id
    check_known(cursor, member_id)
    times = times_of(cursor, question.as_of_ms, question.known_at_ms)
    generation = generation_at(cursor, times.known_at)
    place = {"generation": generation, "shard": shard_of(member_id), "member": member_id}

    # read one row more than is shown
    cursor.execute(_PAGE, {**place, **times._asdict(), "before": before, "limit": limit + 1})
    read = [(Reward(*row[: len(Reward._fields)]), row[len(Reward._fields) :]) for row in cursor.fetchall()]
    shown = read[:limit]
    rewards = [reward for reward, _ in shown]
    sentences = _sentences(cursor, place, rewards)
    others = shown_as(cursor, [each.item for each in rewards if each.unit == "referral" and each.item is not None])

    events = [
        _document(reward, columns, sentence, others)
        for (reward, columns), sentence in zip(shown, sentences, strict=True)
    ]
    return HistoryPage(generation, events, events[-1]["pos"] if len(read) > limit else None)


def _sentences(cursor: Cursor, place: dict[str, Any], rewards: list[Reward]) -> list[str]:
    """Return a sentence for each reward event, in the words of the programme that judged it."""
    # which events had granted the lots that moved
    lots = list({reward.lot for reward in rewards if reward.lot is not None})
    granted: dict[bytes, str] = {}
    if lots:
        cursor.execute(_GRANTS, {**place, "lots": lots})
        granted = {bytes(key): event_id for key, event_id in cursor.fetchall()}

    active = programmes.active(cursor)
    wordings: dict[int, Wording] = {}
    sentences = []
    for reward in rewards:
        version = reward.rule_version or (0 if active is None else active.version)
        if version not in wordings:
            wordings[version] = Wording.of(programmes.judged_as(cursor, version))
        lot = None if reward.lot is None else granted.get(bytes(reward.lot))
        sentences.append(sentence_of(event_of(reward), wordings[version], lot))
    return sentences


def _document(reward: Reward, columns: tuple[Any, ...], sentence: str, others: dict[str, str]) -> dict[str, Any]:
    """Return a reward event for JSON; an erased member whom it names has the pseudonym."""
    pos, campaign, order_id, *times = columns
    item = reward.item
    if item is not None and item in others:
        sentence, item = sentence.replace(item, others[item]), others[item]
    available_at, expires_at, occurred_at, recorded_at = map(plain, times)
    return {
        "pos": pos,
        "reward_key": bytes(reward.key).hex(),
        "type": reward.type,
        "unit": reward.unit,
        "amount": reward.amount,
        "item": item,
        "rule_id": reward.rule_id,
        "campaign": campaign,
        "order_id": order_id,
        "event_id": reward.event_id,
        "reason": reward.reason,
        "available_at": available_at,
        "expires_at": expires_at,
        "occurred_at": occurred_at,
        "recorded_at": recorded_at,
        "sentence": sentence,
    }
