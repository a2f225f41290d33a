"""Compute the reports on points, referrals and campaigns from data frames, with nothing of Guerdon's reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from tests.insight.frames import within
from tests.insight.orders import GRANTS, share

if TYPE_CHECKING:
    from tests.insight.frames import Frames
    from tests.insight.orders import Orders

WINDOW = 30
_IN = ("points.granted", "points.adjusted")


def lots(frames: Frames) -> pd.DataFrame:
    """Return a row a lot: its month, and what became of it."""
    points = frames.points
    opened = points[points["debit"].eq("issued")].set_index("lot")
    moves = points[~points["debit"].eq("issued") & ~points["debit"].eq("debt")]

    def total(chosen: pd.Series) -> pd.Series:
        return moves[chosen].groupby("lot")["amount"].sum().reindex(opened.index, fill_value=0)

    expired = moves["type"].eq("points.expired")
    erased = expired & moves["reason"].eq("erased")
    from_expired = moves["type"].eq("points.reversed") & moves["debit"].eq("expired")
    table = pd.DataFrame(
        {
            "member_id": opened["member_id"], "month": opened["month"], "day": opened["day"],
            "campaign": opened["campaign"], "expires_at": opened["expires_at"], "issued": opened["amount"],
            "reversed": total(moves["type"].eq("points.reversed")),
            "settled": total(moves["type"].eq("points.settled")),
            "redeemed": total(moves["type"].eq("points.captured")) - total(moves["type"].eq("points.restored")),
            "expired": total(expired & ~erased) - total(from_expired), "erased": total(erased),
        }
    )  # fmt: skip
    table["earned"] = table["issued"] - table["reversed"] - table["settled"]
    table["outstanding"] = table["earned"] - table["redeemed"] - table["expired"] - table["erased"]
    return table


def redemption(frames: Frames) -> dict[str, Any]:
    table = lots(frames)
    spent = frames.points[frames.points["type"].isin(["points.captured", "points.restored"])]
    spent = spent.assign(by=spent["amount"] * spent["type"].eq("points.captured").map({True: 1, False: -1}))
    spent = spent.assign(vintage=spent["lot"].map(table["month"]))
    rows: dict[str, Any] = {}
    for month, group in table.groupby("month"):
        sums = {
            name: int(group[name].sum())
            for name in ("issued", "reversed", "settled", "earned", "redeemed", "expired", "erased", "outstanding")
        }
        own = spent[spent["vintage"].eq(month)]
        ages = [then for then in pd.period_range(month, frames.months[-1], freq="M") if frames.whole(then)]
        by_age = [int(own[own["month"] <= then]["by"].sum()) for then in ages]
        rows[str(month)] = sums | {
            "redeemed_by_age": by_age, "redemption_by_age": [share(each, sums["earned"]) for each in by_age],
            "redemption": share(sums["redeemed"], sums["earned"]),
            "breakage_realised": None if sums["outstanding"] else share(sums["expired"], sums["earned"]),
        }  # fmt: skip
    closed = [row for row in rows.values() if row["outstanding"] == 0]
    return {
        "vintages": rows, "closed_vintages": len(closed),
        "breakage_realised": share(sum(row["expired"] for row in closed), sum(row["earned"] for row in closed)),
    }  # fmt: skip


def rewards(frames: Frames) -> dict[str, Any]:
    issued = int(frames.rewards[frames.rewards["type"].eq("coupon.issued")]["amount"].sum())
    used = int(frames.rewards["type"].eq("coupon.used").sum())
    if issued and not used:
        return {"coupons_issued": issued, "coupons_used": None, "reward_usage": None}
    return {"coupons_issued": issued, "coupons_used": used, "reward_usage": share(used, issued)}


def roll_forward(frames: Frames) -> dict[str, Any]:
    return {name: _rolled(frames, window) for name, window in frames.windows().items()}


def _rolled(frames: Frames, window: tuple[pd.Timestamp, pd.Timestamp]) -> dict[str, Any]:
    points = frames.points
    before, after, moved = points[points["day"] < window[0]], points[points["day"] < window[1]], within(points, window)

    def gross(rows: pd.DataFrame) -> int:
        return int(rows["pending"].sum() + rows["active"].sum() + rows["reserved"].sum())

    def total(name: str, **where: str) -> int:
        rows = moved[moved["type"].eq(f"points.{name}")]
        for column, value in where.items():
            rows = rows[rows[column].eq(value)]
        return int(rows["amount"].sum())

    added = total("adjusted")
    honoured, opening = total("adjusted", reason="honoured"), total("adjusted", reason="opening")
    back_from = {place: total("reversed", debit=place) for place in ("pending", "active", "expired", "debt")}
    erased = total("expired", reason="erased")
    return {
        "opening_gross": gross(before), "granted": total("granted"), "adjusted": added - honoured - opening,
        "honoured": honoured, "opening": opening, "captured": total("captured"), "restored": total("restored"),
        "expired": total("expired") - erased, "erased": erased, "reversed": sum(back_from.values()),
        "reversed_from_lots": back_from["pending"] + back_from["active"],
        "reversed_from_expired": back_from["expired"], "reversed_to_debt": back_from["debt"],
        "adjusted_minus": total("reversed", reason="adjusted"), "settled_debt": total("settled"),
        "prior_periods": 0, "closing_gross": gross(after),
        "opening_debt": -int(before["debt"].sum()), "closing_debt": -int(after["debt"].sum()),
        "opening_net": gross(before) + int(before["debt"].sum()),
        "closing_net": gross(after) + int(after["debt"].sum()), "closes": True,
    }  # fmt: skip


def ageing(frames: Frames) -> dict[str, int]:
    """Return what is outstanding at the cut by the local month in which it lapses."""
    table = lots(frames)
    table = table[table["outstanding"] > 0]
    local = table["expires_at"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    named = local.dt.to_period("M").astype(str).where(local.notna(), "never")
    return {str(name): int(value) for name, value in table.groupby(named)["outstanding"].sum().items()}


def chain_ladder(frames: Frames) -> dict[str, Any]:
    """Return the factors by age and the ultimate redemption rate of each vintage."""
    vintages = redemption(frames)["vintages"]
    triangle = {name: row["redeemed_by_age"] for name, row in vintages.items() if row["redeemed_by_age"]}
    longest = max(map(len, triangle.values()))
    factors = []
    for age in range(longest - 1):
        both = [row for row in triangle.values() if len(row) > age + 1]
        base = sum(row[age] for row in both)
        factors.append(sum(row[age + 1] for row in both) / base if base else 1.0)
    ultimate = {}
    for name, row in triangle.items():
        value = float(row[-1])
        for factor in factors[len(row) - 1 :]:
            value *= factor
        ultimate[name] = value
    return {"factors": factors, "ultimate": ultimate}


def campaigns(frames: Frames, orders: Orders) -> dict[str, Any]:
    """Return what each campaign gave, what became of it, and the orders that it gave something for; `all` has each."""
    table, paid = lots(frames), frames.rewards[frames.rewards["type"].isin(GRANTS)]
    bought = orders.orders.set_index("event_id")
    names = sorted(paid["campaign"].dropna().unique())
    rows: dict[str, Any] = {}
    for name, of in {**{name: [name] for name in names}, "all": names}.items():
        # a referrer's reward names the friend's order by the event that was forwarded
        sources = paid[paid["campaign"].isin(of)]["event_id"].str.replace(r"^forwarded:[^:]*:", "", regex=True)
        influenced = set(sources) & set(bought.index)
        own, group = frames.points[frames.points["campaign"].isin(of)], table[table["campaign"].isin(of)]
        opened = own[own["type"].eq("points.granted")]
        taken = own[own["type"].eq("points.reversed") & ~own["reason"].eq("adjusted")]
        rows[name] = {
            "points_granted": int(opened["amount"].sum()),
            "points_earned": int(opened["amount"].sum() - taken["amount"].sum()),
            "points_redeemed": int(group["redeemed"].sum()), "points_expired": int(group["expired"].sum()),
            "orders_influenced": len(influenced), "revenue_influenced": int(bought.loc[list(influenced)]["net"].sum()),
        }  # fmt: skip
    return rows


def referrals(frames: Frames) -> dict[str, Any]:
    """Return the funnel by month, the K-factor, cycle time, and what became of referrals."""
    signups = frames.events["signup"].sort_values(["at", "event_id"])
    attributed = frames.rewards[frames.rewards["type"].eq("referral.attributed")].set_index("member_id")
    rejected = frames.rewards[frames.rewards["type"].eq("referral.rejected")]
    qualified = frames.rewards[frames.rewards["type"].eq("referral.qualified")].groupby("item")["day"].min()
    first = signups.groupby("member_id").first()
    periods = {name: _funnel(frames, window, signups, attributed, rejected, qualified)
               for name, window in frames.windows().items()}  # fmt: skip

    k_factor: dict[str, Any] = {}
    for month, group in first.groupby("month"):
        if (month + 1).start_time + pd.Timedelta(days=WINDOW) > frames.cut:
            continue
        near = [
            (referee, row.day) for referee, row in zip(attributed.index, attributed.itertuples(), strict=True)
            if row.item in group.index and row.day <= group.loc[row.item, "day"] + pd.Timedelta(days=WINDOW)
        ]  # fmt: skip
        earned = [
            referee for referee, row in zip(attributed.index, attributed.itertuples(), strict=True)
            if row.item in group.index and referee in qualified.index
            and qualified[referee] <= group.loc[row.item, "day"] + pd.Timedelta(days=WINDOW)
        ]  # fmt: skip
        k_factor[str(month)] = {
            "members": len(group), "attributed_within_30d": len(near), "qualified_within_30d": len(earned),
            "k_attributed_30d": share(len(near), len(group)), "k_qualified_30d": share(len(earned), len(group)),
        }  # fmt: skip
    lengths = [
        (first.loc[referee, "at"] - first.loc[row.item, "at"]).total_seconds()
        for referee, row in zip(attributed.index, attributed.itertuples(), strict=True)
    ]
    return {
        "periods": periods, "k_factor": k_factor,
        "cycle": {"pairs": len(lengths), "median_seconds": float(pd.Series(lengths).median()) if lengths else None},
        "rejections": {str(reason): int(n) for reason, n in rejected["reason"].value_counts().items()},
    }  # fmt: skip


def _funnel(
    frames: Frames, window: tuple[pd.Timestamp, pd.Timestamp], signups: pd.DataFrame, attributed: pd.DataFrame,
    rejected: pd.DataFrame, qualified: pd.Series,
) -> dict[str, Any]:  # fmt: skip
    shares, touches = (len(within(frames.events[kind], window)) for kind in ("share", "touch"))
    touched = within(frames.events["touch"], window)
    visits = touched.groupby("visitor")["at"].min() if touches else pd.Series(dtype="datetime64[ns, UTC]")
    came = signups[signups["visitor"].notna()]
    converted = sum(bool((came[came["visitor"].eq(visitor)]["at"] >= at).any()) for visitor, at in visits.items())
    joined = within(signups, window)
    brought = within(attributed, window)
    ripe = brought[brought["day"] + pd.Timedelta(days=WINDOW) < frames.cut]
    quick = sum(
        referee in qualified.index and qualified[referee] <= day + pd.Timedelta(days=WINDOW)
        for referee, day in zip(ripe.index, ripe["day"], strict=True)
    )
    signed_up = int(joined["member_id"].isin(attributed.index).sum())
    return {
        "shares": shares, "touches": touches, "visitors": len(visits), "visitors_signed_up": converted,
        "signups": len(joined), "attributed": len(brought), "rejected": len(within(rejected, window)),
        "signups_attributed": signed_up, "referral_rate": share(signed_up, len(joined)),
        "visitors_per_share": share(len(visits), shares), "signup_per_visitor": share(converted, len(visits)),
        "attributed_ripe": len(ripe), "qualified_within_30d": quick,
        "qualified_within_30d_rate": share(quick, len(ripe)),
    }  # fmt: skip
