"""Read the whole history of members from the facts of earlier folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.facts.rollups.days import month_of
from projections.facts.rollups.standing import SURVEY, FirstSignup, History

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.store.cursor import Cursor
    from projections.facts.rollups.batch import Owner
    from projections.facts.rollups.days import Days


def histories(cursor: Cursor, build: int, days: Days, owners: Collection[Owner]) -> dict[Owner, History]:
    """Return the histories of members as a build has them; of members without rows, empty ones."""
    found = {owner: History() for owner in owners}
    where = {
        "build": build, "shards": [shard for shard, _ in owners], "members": [member_id for _, member_id in owners],
    }  # fmt: skip
    for table, net in _ACTIVE.items():
        cursor.execute(_SELECT.format(more=f"{_US}, {net}", table=table), where)
        for shard, member_id, occurred_us, amount in cursor.fetchall():
            history, day = found[shard, member_id], days(occurred_us)
            history.active.add(day)
            if amount is not None:
                history.order_days.append(day)
                history.net_by_month[month_of(day)] += amount

    cursor.execute(_SELECT.format(more=f"{_US}, f.seq, coalesce(f.channel, '')", table="fact_signup"), where)
    for shard, member_id, occurred_us, seq, channel in cursor.fetchall():
        found[shard, member_id].join(FirstSignup(occurred_us, seq, days(occurred_us), channel))
    surveys = _SELECT.format(more=f"{_US}, f.seq, f.score", table="fact_activity")
    cursor.execute(f"{surveys} WHERE f.kind = %(survey)s", where | {"survey": SURVEY})
    for shard, member_id, occurred_us, seq, score in cursor.fetchall():
        found[shard, member_id].take_survey(days(occurred_us), occurred_us, seq, score)
    return found


_ACTIVE = {
    "fact_purchase": "f.amount - f.refunded",
    "fact_activity": "NULL",
    "fact_share": "NULL",
    "fact_redemption": "NULL",
}
"""The facts that make a day active, each with what is left of an order."""

_US = "(extract(epoch FROM f.occurred_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint"

# few members of many: each is found by the index (see `earlier`)
_SELECT = """
SELECT w.shard, w.member_id, {more}
FROM unnest(%(shards)s::smallint[], %(members)s::text[]) AS w (shard, member_id)
CROSS JOIN LATERAL (
    SELECT * FROM guerdon.{table} n
    WHERE n.build = %(build)s AND n.shard = w.shard AND n.member_id = w.member_id OFFSET 0
) f
"""
