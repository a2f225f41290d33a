"""Tell how a redemption ended, from the logs alone: the answer is the same whenever it is asked for.

A promotion of another generation does not change it: what was live when the redemption was judged has decided it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.programme.localtime import calendar_of
from engine.programme.terms import RewardKind
from engine.store import quarantine
from engine.store.generations import live_generation
from engine.store.logs.history import History
from operations.redemption.judged import OWN, judged_at
from operations.redemption.places import TOPIC, recorded, set_aside
from operations.redemption.refusal import Refusal, refusal_of
from schemas.codec import Decoder
from schemas.events import INT64_MAX, Redemption
from schemas.rejection import Rejected
from schemas.rewards import ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.programme.terms import CatalogueReward
    from engine.store.cursor import Cursor
    from engine.store.logs.history import Recorded
    from engine.store.logs.source_log import IdentityPlace
    from operations.redemption.judged import Judged
    from operations.redemption.lookups import Lookups
    from operations.redemption.places import Key

_DECISIVE = ("reserve", "spend")
_WALKED_AT_ONCE = 50


def outcome_of(cursor: Cursor, lookups: Lookups, key: Key) -> dict[str, Any] | None:
    """Return how the redemption under a key ended; None: neither the log nor quarantine has it."""
    place = recorded(cursor, key)
    if place is not None:
        return outcome_at(cursor, lookups, place)
    records = set_aside(cursor, key)
    return None if not records else aside(cursor, lookups, records[-1])


def aside(cursor: Cursor, lookups: Lookups, record: dict[str, Any]) -> dict[str, Any]:
    """Return why a redemption was set aside, and what it asked for as far as the schema of its bytes is known."""
    asked: Redemption | None = None
    with suppress(Rejected):
        _, event = Decoder(lookups.schemas(cursor), bytes_max=INT64_MAX).decode(TOPIC, bytes(record["payload"]))
        asked = event if isinstance(event, Redemption) else None
    return {
        **_asked(record["event_id"], record["member_id"], asked), "recorded_at_ms": None, "outcome": "set_aside",
        "detail": record["message"], "quarantine": {"id": record["id"], "reason": record["reason"]},
    }  # fmt: skip


def _asked(key: str, member_id: str, event: Redemption | None) -> dict[str, Any]:
    """Return what a redemption asked for."""
    fields = ("action", "redemption_id", "reward", "order_id")
    return {
        "key": key, "member_id": member_id, **{name: getattr(event, name, None) for name in fields},
        "unit": None if event is None else event.unit or "points",
        "occurred_at_ms": None if event is None else event.occurred_at,
    }  # fmt: skip


def outcome_at(cursor: Cursor, lookups: Lookups, place: IdentityPlace) -> dict[str, Any] | None:
    """Return how the redemption at a place of the log ended; None: another kind of event stands there."""
    logged = History(cursor, bare=True, schemas=lookups.schemas(cursor)).at(place.shard, place.seq)
    event = logged.event
    if not isinstance(event, Redemption):
        return None

    judged = judged_at(cursor, lookups, place.shard, logged, event)
    base = _asked(event.event_id, event.member_id, event) | {
        "unit": judged.unit, "recorded_at_ms": logged.occurrence.recorded_at_ms,
    }  # fmt: skip
    if not judged.rows and (held := _held(cursor, place)) is not None:
        return {**base, "outcome": "held", "detail": held}

    answer = {**base, "rule_version": judged.version, "available": judged.available}
    if judged.refused is not None:
        earlier = list(_earlier(cursor, lookups, place, event)) if event.action not in _DECISIVE else []
        return {**answer, "outcome": "refused", "refusal": _refusal(cursor, place, judged, earlier)._asdict()}
    return {**answer, "outcome": "accepted", **_accepted(cursor, lookups, place, judged)}


def _held(cursor: Cursor, place: IdentityPlace) -> str | None:
    """Return in a sentence why the redemption at a place is not judged yet; None: it is."""
    records = quarantine.rows(
        cursor,
        f"""
        {quarantine.SUSPENDS} AND seq <= %s AND member_id = (
            SELECT member_id FROM guerdon.source_event WHERE shard = %s AND seq = %s
        )
        """,
        (place.seq, place.shard, place.seq),
    )
    if not records:
        return None
    return (
        "an earlier event of this member could not be judged, and what came later waits for it: an operator releases "
        f"record {records[0]['id']}"
    )


def _accepted(cursor: Cursor, lookups: Lookups, place: IdentityPlace, judged: Judged) -> dict[str, Any]:
    """Return what an accepted redemption moved, what that is worth, and what it hands out."""
    event, programme = judged.event, judged.programme
    amount, lapses_ms = judged.moved(), None
    if event.action == "reserve":
        lapses_ms = calendar_of(programme.timezone).after(event.occurred_at, programme.terms.reserve_for)

    reward = _reward(cursor, lookups, place, judged)
    items = [
        {"unit": row["unit"], "item": row["item"], "expires_at": row["expires_at"]}
        for row in judged.rows
        if row["unit"] in ITEM_UNITS and row["reason"] == "redeemed"
    ]
    return {
        "amount": amount,
        "worth": _worth(reward, amount, programme.currency),
        "lapses_at_ms": lapses_ms,
        "items": items,
    }


def _worth(reward: CatalogueReward | None, amount: int, currency: str) -> dict[str, Any] | None:
    """Return the money that an amount of points pays as a `money` reward; None: it pays none."""
    if reward is None or reward.kind is not RewardKind.MONEY:
        return None
    return {"amount": amount // reward.points * reward.money_minor, "currency": currency}


def _reward(cursor: Cursor, lookups: Lookups, place: IdentityPlace, judged: Judged) -> CatalogueReward | None:
    """Return the reward of the catalogue that was reserved, at the terms of that time; None: an amount was."""
    event, programme = judged.event, judged.programme
    if event.action not in _DECISIVE:
        first = next(
            (each for each in _earlier(cursor, lookups, place, event) if _event(each).action in _DECISIVE), None
        )
        if first is None:
            return None
        event = _event(first)
        seq = first.occurrence.seq
        version = live_generation.version_at(cursor, judged.generation, place.shard, seq)
        programme = lookups.programme(cursor, version)
    return None if event.reward is None else programme.terms.reward(event.reward)


def _refusal(cursor: Cursor, place: IdentityPlace, judged: Judged, earlier: Sequence[Recorded]) -> Refusal:
    """Return why a redemption was refused, with the amounts that earlier actions had reserved and captured."""
    amounts = {"reserved": 0, "captured": 0, "restored": 0}
    cursor.execute(
        f"""
        {OWN}
        SELECT split_part(type::text, '.', 2), sum(amount)::bigint FROM own
        WHERE seq = ANY(%(seqs)s) AND event_id = ANY(%(events)s) AND reason IS NULL GROUP BY 1
        """,
        {
            "generation": judged.generation,
            "shard": place.shard,
            "member": judged.event.member_id,
            "seqs": [each.occurrence.seq for each in earlier],
            "events": [each.event_id for each in earlier],
        },
    )
    amounts |= dict(cursor.fetchall())
    left = amounts["captured"] - amounts["restored"]
    return refusal_of(judged.event, judged, reserved=amounts["reserved"], captured=left)


def _earlier(cursor: Cursor, lookups: Lookups, place: IdentityPlace, event: Redemption) -> Iterator[Recorded]:
    """Yield the earlier events of the same redemption, the newest first, as far as the one that opened it."""
    history = History(cursor, bare=True, schemas=lookups.schemas(cursor))
    with cursor.connection.cursor("redemptions") as rows:
        rows.itersize = _WALKED_AT_ONCE
        rows.execute(
            """
            WITH RECURSIVE chain AS (
                SELECT shard, seq, prev_seq, kind, member_id, source, event_id, schema_id, payload, recorded_at
                FROM guerdon.source_event WHERE shard = %(shard)s AND seq = %(seq)s
                UNION ALL
                SELECT e.shard, e.seq, e.prev_seq, e.kind, e.member_id, e.source, e.event_id, e.schema_id, e.payload,
                       e.recorded_at
                FROM chain c JOIN guerdon.source_event e ON e.shard = c.shard AND e.seq = c.prev_seq
            )
            SELECT seq, kind::text, member_id, source, event_id, prev_seq, schema_id, payload, NULL,
                   guerdon.ms(recorded_at), NULL
            FROM chain WHERE kind = 'redemption' AND seq < %(seq)s
            """,
            {"shard": place.shard, "seq": place.seq},
        )
        for row in rows:
            earlier = history.recorded(row)
            if _event(earlier).redemption_id != event.redemption_id:
                continue
            yield earlier
            if _event(earlier).action in _DECISIVE:
                return


def _event(logged: Recorded) -> Redemption:
    assert isinstance(logged.event, Redemption)  # the log was asked for redemptions
    return logged.event
