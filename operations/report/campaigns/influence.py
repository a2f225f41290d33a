"""Find the orders in which a campaign gave something, and their net: a correlation, and no effect of the campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from operations.report.engagement import GRANTS
from operations.report.orders import ORDERS
from operations.report.split import split
from schemas.events import ID_CHARACTERS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.report.frame import Frame

FORWARDED_ID = f"""
    CASE WHEN char_length('forwarded:' || p.source || ':' || p.event_id) <= {ID_CHARACTERS_MAX:d}
              AND strpos(p.source, ':') = 0
         THEN 'forwarded:' || p.source || ':' || p.event_id
         ELSE 'forwarded:' || encode(
             sha256(convert_to(p.source, 'UTF8') || decode('00', 'hex') || convert_to(p.event_id, 'UTF8')), 'hex'
         )
    END
"""
"""The event_id under which a purchase `p` was forwarded to the buyer's referrer, as `own_id` makes it."""


class Influence(NamedTuple):
    """Hold the orders in which a campaign gave something, the buyer or a referrer, and their net in minor units."""

    campaign: str | None
    """None: any campaign; an order counts once."""

    value: str
    orders: int
    revenue: int


def influences(of: Frame) -> Iterator[Influence]:
    """Yield the orders of the report's time in which each campaign gave something, and those in which any did.

    A grant is of the order whose purchase event brought it: the buyer's own event, or the one forwarded to a referrer.
    """
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}, {ORDERS}, given AS (
            SELECT DISTINCT e.campaign, e.shard, e.seq, e.event_id FROM guerdon.reward_event e
            WHERE e.generation = %(generation)s AND e.type::text = ANY(%(grants)s) AND e.campaign IS NOT NULL
              AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
        ), forwarded AS (
            SELECT g.campaign, g.event_id FROM given g JOIN guerdon.source_event f USING (shard, seq)
            WHERE f.kind = 'forwarded'
        ), influenced AS (
            SELECT g.campaign, o.shard, o.seq FROM given g JOIN orders o USING (shard, seq)
            UNION
            SELECT g.campaign, p.shard, p.seq FROM forwarded g
            JOIN guerdon.fact_purchase p ON p.build = %(facts)s AND g.event_id = {FORWARDED_ID}
        ), counted AS (
            SELECT campaign, shard, seq FROM influenced
            UNION ALL
            SELECT DISTINCT NULL, shard, seq FROM influenced
        )
        SELECT c.campaign, {by.value_of_order("o")}, count(*), sum(o.net)
        FROM counted c JOIN orders o USING (shard, seq) {by.joined_order("o")}
        WHERE o.occurred_at >= %(since)s GROUP BY 1, 2
        """,
        grants=list(GRANTS),
        **by.parameters,
    )
    for campaign, value, orders, revenue in rows:
        yield Influence(campaign, value, orders, int(revenue))
