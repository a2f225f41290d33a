"""Report how many coupons were issued, and how many of them were used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.frame import ratio
from operations.report.rolled.reward_days import reward_table

if TYPE_CHECKING:
    from operations.report.frame import Frame

USES_UNKNOWN = "coupons were issued, and the log does not say which of them were used: it has no `coupon.used`"
"""The note under a report that needs the uses of coupons."""


def rewards(of: Frame) -> dict[str, Any]:
    """Return the coupons issued in the time of the report, those of them that were used by the cut, and their share.

    A coupon was used if the log says so (`coupon.used`); where it says so of none, nobody knows. A coupon that was
    revoked or has lapsed was issued all the same.
    """
    ((issued, used),) = of.rows(
        """
        SELECT coalesce(sum(i.amount), 0)::bigint,
               coalesce(sum(i.amount) FILTER (WHERE EXISTS (
                   SELECT FROM guerdon.reward_event u
                   WHERE u.generation = i.generation AND u.shard = i.shard AND u.member_id = i.member_id
                     AND u.type = 'coupon.used' AND u.lot = i.reward_key
                     AND u.item IS NOT NULL AND u.debit IS NULL  -- as the index has it
                     AND u.recorded_at < %(known_at)s AND u.occurred_at < %(cut)s
               )), 0)::bigint
        FROM guerdon.reward_event i
        WHERE i.generation = %(generation)s AND i.type = 'coupon.issued' AND i.recorded_at < %(known_at)s
          AND i.item IS NOT NULL AND i.debit IS NULL  -- as the index has it
          AND i.occurred_at >= %(since)s AND i.occurred_at < %(cut)s
        """
    )
    if not unknown_uses(of):
        return {"coupons_issued": issued, "coupons_used": used, "reward_usage": ratio(used, issued)}
    of.notes.append(USES_UNKNOWN)
    return {"coupons_issued": issued, "coupons_used": None, "reward_usage": None}


def unknown_uses(of: Frame) -> frozenset[str | None]:
    """Return the campaigns whose coupons may have been used without the log saying so; None stands for no campaign.

    These are all that have issued any before the cut, unless the log has a `coupon.used`: then whoever uses coupons
    says so, and the others were not used.
    """
    rows = of.rows(
        f"""
        SELECT DISTINCT e.type = 'coupon.used', e.campaign FROM {reward_table(of)} e
        WHERE e.generation = %(generation)s AND e.type IN ('coupon.issued', 'coupon.used')
          AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
        """
    )
    return frozenset() if any(is_use for is_use, _ in rows) else frozenset(campaign for _, campaign in rows)
