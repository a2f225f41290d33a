"""Report how many coupons were issued, and how many of them were used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.frame import ratio

if TYPE_CHECKING:
    from operations.report.frame import Frame


def rewards(of: Frame) -> dict[str, Any]:
    """Return the coupons issued in the time of the report, those of them that were used by the cut, and their share.

    A coupon was used if the log says so (`coupon.used`). This release issues no codes for coupons, so a purchase cannot
    name one. A coupon that was revoked or has lapsed was issued all the same.
    """
    ((issued, used),) = of.rows(
        """
        SELECT coalesce(sum(i.amount), 0)::bigint,
               coalesce(sum(i.amount) FILTER (WHERE EXISTS (
                   SELECT FROM guerdon.reward_event u
                   WHERE u.generation = i.generation AND u.shard = i.shard AND u.member_id = i.member_id
                     AND u.type = 'coupon.used' AND u.lot = i.reward_key
                     AND u.recorded_at < %(known_at)s AND u.occurred_at < %(cut)s
               )), 0)::bigint
        FROM guerdon.reward_event i
        WHERE i.generation = %(generation)s AND i.type = 'coupon.issued' AND i.recorded_at < %(known_at)s
          AND i.occurred_at >= %(since)s AND i.occurred_at < %(cut)s
        """
    )
    return {"coupons_issued": issued, "coupons_used": used, "reward_usage": ratio(used, issued)}
