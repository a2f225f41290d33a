"""Read orders with what is left of them: the one place in which a report finds an order's net."""

from __future__ import annotations

ORDERS = """
orders AS (
    SELECT p.shard, p.seq, p.member_id, p.event_id, p.order_id, p.occurred_at, p.channel, p.amount,
           coalesce(p.gross, p.amount) AS gross, p.amount - coalesce(r.amount, 0) AS net
    FROM guerdon.fact_purchase p
    LEFT JOIN (
        SELECT shard, purchase_seq, sum(amount) AS amount FROM guerdon.fact_refund
        WHERE build = %(facts)s AND outcome = 'applied' AND applied_at < %(known_at)s
        GROUP BY shard, purchase_seq
    ) r ON r.shard = p.shard AND r.purchase_seq = p.seq
    WHERE p.build = %(facts)s AND p.recorded_at < %(known_at)s AND p.occurred_at < %(cut)s
)
"""
"""Every order before the cut that is known, as a common table expression; money in minor units.

`net` is the amount less all refunds that were admitted by `known_at`, whenever they occurred, whatever the programme
made of them. It is the same in all generations.
"""

MEMBER_DAYS = f"""
{ORDERS}, member_days AS (
    SELECT shard, member_id, (occurred_at AT TIME ZONE %(zone)s)::date AS day, count(*) AS orders, sum(net) AS net
    FROM orders GROUP BY 1, 2, 3
)
"""
"""The orders of each member on each local day."""

FIRST_DAYS = f"""
{MEMBER_DAYS}, first_days AS (
    SELECT shard, member_id, min(day) AS day FROM member_days
    GROUP BY shard, member_id HAVING min(day) >= (%(since)s AT TIME ZONE %(zone)s)::date
)
"""
"""The day of the first order of each member who bought first in the time of the report.

An order that came late counts at its own time, so it may become the first.
"""

JOINED = """
joined AS (
    SELECT shard, member_id, min(occurred_at) AS occurred_at FROM guerdon.fact_signup
    WHERE build = %(facts)s AND recorded_at < %(known_at)s AND occurred_at < %(cut)s
    GROUP BY shard, member_id
)
"""
"""The first signup of each member; a later one, such as a claim, is no second joining."""
