"""Warn of misuse: spent points of returned orders, bursts of referrals, and refusals that jump."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from operations.report.alerts.alert import ERASED, Alert
from operations.report.periods import midnight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from operations.report.frame import Frame

MEAN_DAYS = 7
"""The days before the last one with which its refusals are compared."""


def refunds_after_redemption(of: Frame) -> Iterator[Alert]:
    """Yield members who have spent the points of orders and then returned these orders, so that they owe points.

    An order that is returned in parts is one.
    """
    rows = of.rows(
        f"""
        SELECT e.member_id, count(DISTINCT coalesce(r.order_id, e.event_id)), min(e.occurred_at)
        FROM guerdon.reward_event e
        LEFT JOIN guerdon.fact_refund r ON r.build = %(facts)s AND r.shard = e.shard AND r.seq = e.seq
        WHERE e.generation = %(generation)s AND e.type = 'points.reversed' AND e.debit = 'debt' AND e.reason = 'refund'
          AND e.recorded_at < %(known_at)s AND e.occurred_at >= %(from)s AND e.occurred_at < %(cut)s
          AND e.member_id NOT IN ({ERASED})
        GROUP BY e.member_id HAVING count(DISTINCT coalesce(r.order_id, e.event_id)) >= %(threshold)s
        """,
        threshold=of.thresholds.refunds,
        **_window(of),
    )
    for member_id, orders, since in rows:
        yield Alert("refunds_after_redemption", of.thresholds.refunds, orders, "member_id", member_id, since)


def referral_bursts(of: Frame) -> Iterator[Alert]:
    """Yield referrers whom many members have named within an hour, whether their referrals were rejected or not."""
    rows = of.rows(
        f"""
        WITH claims AS (
            SELECT e.item AS referrer_id, e.occurred_at, count(*) OVER (
                       PARTITION BY e.item ORDER BY e.occurred_at RANGE BETWEEN '1 hour' PRECEDING AND CURRENT ROW
                   ) AS within_hour
            FROM guerdon.reward_event e
            WHERE e.generation = %(generation)s
              AND (e.type = 'referral.attributed' AND e.reason IS DISTINCT FROM 'released'
                   OR e.type = 'referral.rejected' AND e.reason <> 'unknown_code')
              AND e.recorded_at < %(known_at)s AND e.occurred_at >= %(from)s AND e.occurred_at < %(cut)s
              AND e.item NOT IN ({ERASED})
        )
        SELECT referrer_id, max(within_hour), min(occurred_at) FROM claims
        WHERE within_hour >= %(threshold)s GROUP BY referrer_id
        """,
        threshold=of.thresholds.referrals,
        **_window(of),
    )
    for member_id, claims, since in rows:
        yield Alert("referral_burst", of.thresholds.referrals, claims, "member_id", member_id, since)


def refusal_jumps(of: Frame) -> Iterator[Alert]:
    """Yield reasons for which far more was refused on the last day than on the mean day of the week before.

    Members of a control group are refused as they should be, and are left out.
    """
    last = of.cut_day - timedelta(days=1)
    since = midnight(last - timedelta(days=MEAN_DAYS), of.zone)
    rows = of.rows(
        f"""
        SELECT e.reason, {of.day("e.occurred_at")}, count(*) FROM guerdon.reward_event e
        WHERE e.generation = %(generation)s AND e.type = 'reward.refused' AND e.reason <> 'cohort_control'
          AND e.recorded_at < %(known_at)s AND e.occurred_at >= %(from)s AND e.occurred_at < %(cut)s
        GROUP BY 1, 2
        """,
        **{"from": since},
    )
    refusals: dict[str, dict[date, int]] = defaultdict(dict)
    for reason, day, count in rows:
        refusals[reason][day] = count

    for reason, days in refusals.items():
        on_last = days.pop(last, 0)
        mean = sum(days.values()) / MEAN_DAYS
        threshold = max(of.thresholds.refusals, of.thresholds.refusals_factor * mean)
        if on_last >= threshold:
            yield Alert("refusals_jump", threshold, on_last, "reason", reason, midnight(last, of.zone))


def _window(of: Frame) -> dict[str, Any]:
    """Return the parameter `from`: the local midnight from which on the report looks, `days` before the cut."""
    return {"from": midnight(of.cut_day - timedelta(days=of.days), of.zone)}
