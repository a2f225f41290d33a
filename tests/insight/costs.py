"""Compute what campaigns cost, what is left of budgets, and whom to warn of, from data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from tests.insight.frames import ZONE
from tests.insight.points import campaigns, redemption

if TYPE_CHECKING:
    from tests.insight.frames import Frames
    from tests.insight.orders import Orders

POINT, MUG, MARGIN = 1, 320, 0.01
"""What the programme of the year says, in cents and as a share."""

BUDGET = 40_000
WEEK = pd.Timedelta(days=7)


def costs(frames: Frames, orders: Orders) -> dict[str, Any]:
    """Return the costs of each campaign; the part of the points that will be redeemed is that of closed vintages."""
    closed = [row for row in redemption(frames)["vintages"].values() if row["outstanding"] == 0]
    rate = sum(row["redeemed"] for row in closed) / sum(row["earned"] for row in closed)
    gifts = frames.rewards[frames.rewards["type"].isin(["gift.awarded", "gift.revoked"])]
    pieces = gifts["amount"].where(gifts["type"].eq("gift.awarded"), -gifts["amount"]).groupby(gifts["campaign"]).sum()
    coupons = set(frames.rewards[frames.rewards["type"].eq("coupon.issued")]["campaign"].dropna())

    rows: dict[str, Any] = {}
    for name, row in campaigns(frames, orders).items():
        of_gifts = int(pieces.sum() if name == "all" else pieces.get(name, 0)) * MUG
        face, burned = row["points_earned"] * POINT, row["points_redeemed"] * POINT
        # nobody says which coupons were used, so nobody knows what they cost
        is_known = name not in coupons | {"all"}
        rows[name] = {
            "cost_face": float(face), "cost_committed": face * rate, "cost_realised": float(burned),
            "cost_gifts": of_gifts, "cost_coupons": 0 if is_known else None,
            "cost_total_committed": face * rate + of_gifts if is_known else None,
            "cost_total_realised": float(burned + of_gifts) if is_known else None,
            "give_back_rate": face / row["revenue_influenced"] if row["revenue_influenced"] else None,
        }  # fmt: skip
    rows["baskets"]["budget"] = _budget(frames)
    return rows


def _budget(frames: Frames) -> dict[str, Any]:
    """Return the use of the budget of the rule big-basket: its points, less those that refunds took back."""
    points = frames.points
    given = points[points["type"].eq("points.granted") & points["rule_id"].eq("big-basket")].set_index("lot")
    back = points[points["type"].eq("points.reversed") & points["reason"].eq("refund")]
    net = given["amount"] - back.groupby("lot")["amount"].sum().reindex(given.index, fill_value=0)
    used = int(net.sum())
    left, week = max(BUDGET - used, 0), int(net[given["day"] >= frames.cut - WEEK].sum())
    ends = None
    if week > 0:
        ends = (frames.cut.tz_localize(ZONE) + left / week * WEEK).isoformat(timespec="seconds")
    return {"limit": BUDGET, "used": used, "left": left, "ends_at": ends}


def alerts(frames: Frames, orders: Orders, days: int, least: int) -> list[dict[str, Any]]:
    """Return every warning with thresholds of 1 and `least` cents, without its time, in the order of the report."""
    gone = set(frames.events["erasure"]["member_id"])
    recent = frames.rewards[frames.rewards["day"] >= frames.cut - pd.Timedelta(days=days)]

    # orders that were returned when their points were spent
    owed = recent[recent["type"].eq("points.reversed") & recent["debit"].eq("debt") & recent["reason"].eq("refund")]
    refunds = frames.events["refund"].set_index("event_id")["order_id"]
    returned = owed.assign(order=owed["event_id"].map(refunds)).groupby("member_id")["order"].nunique()

    # members who named one referrer within an hour
    claims = recent[
        recent["type"].eq("referral.attributed")
        | recent["type"].eq("referral.rejected") & ~recent["reason"].eq("unknown_code")
    ].sort_values("at")
    hour = pd.Timedelta(hours=1)
    bursts = {
        referrer: max(int(own["at"].between(at - hour, at).sum()) for at in own["at"])
        for referrer, own in claims.groupby("item")
    }

    # refusals of the last day, and of the mean day before it
    refused = frames.rewards[frames.rewards["type"].eq("reward.refused")]
    refused = refused[~refused["reason"].eq("cohort_control")]
    last = frames.cut - pd.Timedelta(days=1)
    jumps = {}
    for reason, own in refused.groupby("reason"):
        on_last = int(own["day"].eq(last).sum())
        before = own["day"].between(last - WEEK, last, inclusive="left").sum() / 7
        if on_last >= max(1, before):
            jumps[reason] = on_last

    # members whose rewards cost more than the margin of what they bought
    earned = frames.points["amount"] * (
        frames.points["debit"].eq("issued").astype(int) - frames.points["credit"].eq("reversed").astype(int)
    )
    cost = earned.groupby(frames.points["member_id"]).sum() * POINT
    allowed = orders.orders.groupby("member_id")["net"].sum().reindex(cost.index, fill_value=0) * MARGIN
    beyond = cost[(cost >= least) & (cost > allowed)]

    def rows(alert: str, about: str, values: Any) -> list[dict[str, Any]]:
        known = [(name, value) for name, value in values.items() if name not in gone]
        return [
            {"alert": alert, about: name, "value": float(value)}
            for name, value in sorted(known, key=lambda each: (-each[1], each[0]))
        ]

    return [
        *rows("refunds_after_redemption", "member_id", returned), *rows("referral_burst", "member_id", bursts),
        *rows("refusals_jump", "reason", jumps), *rows("incentives_beyond_margin", "member_id", beyond),
    ]  # fmt: skip
