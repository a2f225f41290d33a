"""Report referrals: the way from a share to a qualified referee, the K-factor, and what was rejected."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.frame import ratio
from operations.report.orders import JOINED
from operations.report.periods import ALL, add_months, month_name
from operations.report.rolled import referrals as rolled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from operations.report.frame import Frame

REFERRALS = f"""
{JOINED}, claims AS (
    SELECT member_id AS referee_id, item AS referrer_id, reason, occurred_at, type = 'referral.rejected' AS is_rejected
    FROM guerdon.reward_event
    WHERE generation = %(generation)s AND type IN ('referral.attributed', 'referral.rejected')
      AND reason IS DISTINCT FROM 'released' AND recorded_at < %(known_at)s AND occurred_at < %(cut)s
), released AS (
    SELECT DISTINCT member_id AS referee_id FROM guerdon.reward_event
    WHERE generation = %(generation)s AND type = 'referral.attributed' AND reason = 'released'
      AND recorded_at < %(known_at)s
), outcomes AS (
    SELECT item AS referee_id, min(occurred_at) FILTER (WHERE type = 'referral.qualified') AS qualified_at,
           bool_or(type = 'referral.voided') AS is_voided
    FROM guerdon.reward_event
    WHERE generation = %(generation)s AND type IN ('referral.qualified', 'referral.voided')
      AND recorded_at < %(known_at)s
    GROUP BY item
), referrals AS (
    SELECT c.referee_id, c.referrer_id, c.occurred_at, r.occurred_at AS referrer_joined_at,
           e.occurred_at AS referee_joined_at,
           CASE WHEN NOT c.is_rejected THEN o.qualified_at END AS qualified_at,
           CASE WHEN c.is_rejected THEN 'rejected'
                WHEN o.is_voided THEN 'voided'
                WHEN c.reason IS NOT NULL AND l.referee_id IS NULL THEN 'flagged'
                WHEN o.qualified_at IS NOT NULL THEN 'qualified'
                ELSE 'attributed'
           END AS status,
           CASE WHEN c.is_rejected THEN c.reason END AS rejection
    FROM claims c
    LEFT JOIN released l USING (referee_id)
    LEFT JOIN outcomes o USING (referee_id)
    LEFT JOIN joined r ON r.member_id = c.referrer_id
    LEFT JOIN joined e ON e.member_id = c.referee_id
)
"""
"""Every claim of a referrer before the cut, a row each, with what is known of it; `status` as in `reward.referral`."""


class ReferralDay(NamedTuple):
    """Hold referrals that were attributed, or rejected, on one local day and went the same way."""

    day: date
    status: str
    rejection: str | None
    qualified_days: int | None
    """Local days from the attribution to the first earning; None: there was none."""

    referrals: int


def referrals(of: Frame) -> dict[str, Any]:
    """Return the steps of referrals by period, events by channel, the K-factor by month, and how referrals ended."""
    days = referral_days(of)
    return {
        "periods": _periods(of, days),
        "channels": channels(of),
        "k_factor": k_factor(of),
        "cycle": cycle_time(of),
        "statuses": _counted((each.status, each.referrals) for each in days),
        "rejections": _counted((each.rejection, each.referrals) for each in days if each.rejection is not None),
    }


def referral_days(of: Frame) -> list[ReferralDay]:
    """Return the referrals of each day in the time of the report."""
    rows = of.rows(
        f"""
        WITH {REFERRALS}
        SELECT {of.day("occurred_at")}, status, rejection, {of.day("qualified_at")} - {of.day("occurred_at")}, count(*)
        FROM referrals WHERE occurred_at >= %(since)s GROUP BY 1, 2, 3, 4
        """
    )
    return [ReferralDay(*row) for row in rows]


def joined_days(of: Frame) -> list[tuple[date, int, int]]:
    """Return how many members joined on each day, and to how many of them a referrer was ever attributed."""
    return of.rows(
        f"""
        WITH {REFERRALS}
        SELECT {of.day("j.occurred_at")}, count(*), count(a.referee_id)
        FROM joined j
        LEFT JOIN (SELECT DISTINCT referee_id FROM referrals WHERE status <> 'rejected') a ON a.referee_id = j.member_id
        WHERE j.occurred_at >= %(since)s GROUP BY 1
        """
    )


def fact_days(of: Frame, table: str) -> list[tuple[date, int]]:
    """Return the number of facts on each day, by the name of their table, such as `fact_share`."""
    if of.rolled:
        return rolled.fact_days(of, table)
    return of.rows(
        f"""
        SELECT {of.day("occurred_at")}, count(*) FROM guerdon.{table}
        WHERE build = %(facts)s AND recorded_at < %(known_at)s AND occurred_at >= %(since)s AND occurred_at < %(cut)s
        GROUP BY 1
        """
    )


def visitors_by_period(of: Frame) -> dict[str, tuple[int, int]]:
    """Return the distinct visitors of each period that has any, and those of them who signed up after a touch in it."""
    rows = of.rows(
        f"""
        WITH touched AS (
            SELECT w.period, t.visitor, min(t.occurred_at) AS first_at FROM guerdon.fact_touch t
            CROSS JOIN LATERAL (VALUES ({of.period("t.occurred_at")}), (NULL)) w (period)
            WHERE t.build = %(facts)s AND t.recorded_at < %(known_at)s
              AND t.occurred_at >= %(since)s AND t.occurred_at < %(cut)s
            GROUP BY w.period, t.visitor
        ), signed_up AS (
            SELECT visitor, max(occurred_at) AS last_at FROM guerdon.fact_signup
            WHERE build = %(facts)s AND visitor IS NOT NULL AND recorded_at < %(known_at)s AND occurred_at < %(cut)s
            GROUP BY visitor
        )
        SELECT t.period, count(*), count(*) FILTER (WHERE s.last_at >= t.first_at)
        FROM touched t LEFT JOIN signed_up s USING (visitor) GROUP BY t.period
        """
    )
    return {of.name(start): (visitors, signed_up) for start, visitors, signed_up in rows}


def channels(of: Frame) -> dict[str, dict[str, int]]:
    """Return shares, touches and signups by channel, each in its own words; an event that names none is of ''.

    A member's first signup counts alone, as in the periods.
    """
    counts: dict[str, dict[str, int]] = {"share": {}, "touch": {}, "signup": {}}
    if of.rolled:
        for kind, channel, count in rolled.channels(of):
            counts[kind][channel] = count
        return counts
    rows = of.rows(
        """
        SELECT 'share', channel, count(*) FROM guerdon.fact_share
        WHERE build = %(facts)s AND recorded_at < %(known_at)s AND occurred_at >= %(since)s AND occurred_at < %(cut)s
        GROUP BY channel
        UNION ALL
        SELECT 'touch', coalesce(channel, ''), count(*) FROM guerdon.fact_touch
        WHERE build = %(facts)s AND recorded_at < %(known_at)s AND occurred_at >= %(since)s AND occurred_at < %(cut)s
        GROUP BY coalesce(channel, '')
        UNION ALL
        SELECT 'signup', coalesce(channel, ''), count(*) FROM (
            SELECT DISTINCT ON (shard, member_id) channel, occurred_at FROM guerdon.fact_signup
            WHERE build = %(facts)s AND recorded_at < %(known_at)s AND occurred_at < %(cut)s
            ORDER BY shard, member_id, occurred_at, seq
        ) first WHERE occurred_at >= %(since)s
        GROUP BY coalesce(channel, '')
        ORDER BY 1, 2
        """
    )
    for kind, channel, count in rows:
        counts[kind][channel] = count
    return counts


def k_factor(of: Frame) -> dict[str, dict[str, Any]]:
    """Return how many referees the members of each signup month have brought within a window after their signup.

    Only months are there whose members have all had the whole window, in local days. Voided referrals do not count.
    """
    members: Counter[date] = Counter()
    for day, joined, _ in joined_days(of):
        members[day.replace(day=1)] += joined

    rows = of.rows(
        f"""
        WITH {REFERRALS}, placed AS (
            SELECT {of.month("referrer_joined_at")} AS month,
                   {of.day("occurred_at")} - {of.day("referrer_joined_at")} AS attributed_days,
                   {of.day("qualified_at")} - {of.day("referrer_joined_at")} AS qualified_days
            FROM referrals
            WHERE status NOT IN ('rejected', 'voided') AND referrer_joined_at >= %(since)s
        )
        SELECT month, count(*) FILTER (WHERE attributed_days BETWEEN 0 AND %(days)s),
               count(*) FILTER (WHERE qualified_days BETWEEN 0 AND %(days)s)
        FROM placed GROUP BY month
        """
    )
    brought = {of.local_day(month): (attributed, qualified) for month, attributed, qualified in rows}
    ripe = [first for first in sorted(members) if add_months(first, 1) + timedelta(days=of.days) <= of.cut_day]
    return {month_name(first): _k_row(of.days, members[first], *brought.get(first, (0, 0))) for first in ripe}


def cycle_time(of: Frame) -> dict[str, Any]:
    """Return the median time from a referrer's first signup to the referee's, in seconds; voided referrals are out."""
    ((pairs, median_s),) = of.rows(
        f"""
        WITH {REFERRALS}
        SELECT count(*), percentile_cont(0.5) WITHIN GROUP (
                   ORDER BY extract(epoch FROM referee_joined_at - referrer_joined_at)::double precision
               )
        FROM referrals
        WHERE status NOT IN ('rejected', 'voided') AND occurred_at >= %(since)s
          AND referrer_joined_at IS NOT NULL AND referee_joined_at IS NOT NULL
        """
    )
    return {"pairs": pairs, "median_seconds": median_s}


def _periods(of: Frame, days: list[ReferralDay]) -> dict[str, dict[str, Any]]:
    """Return the steps of each period: each step counts by its own time, and is compared with the step before it."""
    steps: dict[str, Counter[str]] = defaultdict(Counter)

    def add(day: date, **counts: int) -> None:
        for name in (of.name_of_day(day), ALL):
            steps[name].update(counts)

    # what members and visitors did
    for day, shares in fact_days(of, "fact_share"):
        add(day, shares=shares)
    for day, touches in fact_days(of, "fact_touch"):
        add(day, touches=touches)
    for day, signups, attributed in joined_days(of):
        add(day, signups=signups, signups_attributed=attributed)

    # what became of the claims; one is ripe when its whole window has passed by the cut
    for each in days:
        if each.status == "rejected":
            add(each.day, rejected=each.referrals)
            continue
        add(each.day, attributed=each.referrals)
        if each.day + timedelta(days=of.days) < of.cut_day:
            is_in_time = each.qualified_days is not None and each.qualified_days <= of.days
            add(each.day, ripe=each.referrals, qualified=each.referrals if is_in_time else 0)

    visitors = visitors_by_period(of)
    return {name: _row(of.days, steps[name], *visitors.get(name, (0, 0))) for name in of.period_names}


def _row(days: int, steps: Counter[str], visitors: int, signed_up: int) -> dict[str, Any]:
    return {
        "shares": steps["shares"],
        "touches": steps["touches"],
        "visitors": visitors,
        "visitors_signed_up": signed_up,
        "signups": steps["signups"],
        "attributed": steps["attributed"],
        "rejected": steps["rejected"],
        "signups_attributed": steps["signups_attributed"],
        "referral_rate": ratio(steps["signups_attributed"], steps["signups"]),
        "visitors_per_share": ratio(visitors, steps["shares"]),
        "signup_per_visitor": ratio(signed_up, visitors),
        "attributed_ripe": steps["ripe"],
        f"qualified_within_{days}d": steps["qualified"],
        f"qualified_within_{days}d_rate": ratio(steps["qualified"], steps["ripe"]),
    }


def _k_row(days: int, members: int, attributed: int, qualified: int) -> dict[str, Any]:
    return {
        "members": members,
        f"attributed_within_{days}d": attributed,
        f"qualified_within_{days}d": qualified,
        f"k_attributed_{days}d": ratio(attributed, members),
        f"k_qualified_{days}d": ratio(qualified, members),
    }


def _counted(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the sums by name, the names in their order."""
    sums: Counter[str] = Counter()
    for name, count in pairs:
        sums[name] += count
    return dict(sorted(sums.items()))
