"""Compute the reports on customers and engagement from data frames, with nothing of Guerdon's reports."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from tests.insight.frames import within

if TYPE_CHECKING:
    from tests.insight.frames import Frames

GRANTS = ("points.granted", "cash.granted", "coupon.issued", "gift.awarded", "benefit.granted")
NPS_LEAST = 30


def share(of: int, to: int) -> float | None:
    return of / to if to else None


class Orders:
    """Compute what customers did."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    @cached_property
    def orders(self) -> pd.DataFrame:
        """Return the orders, each with what is left of it after all refunds that did not ask for more than was left."""
        orders = self.frames.events["purchase"].sort_values(["at", "event_id"]).set_index("order_id", drop=False)
        left = orders["amount"].to_dict()
        applied = []
        for refund in self.frames.events["refund"].sort_values(["at", "event_id"]).itertuples():
            asked = left[refund.order_id] if pd.isna(refund.amount) else int(refund.amount)
            if asked <= left[refund.order_id]:
                left[refund.order_id] -= asked
                applied.append({"order_id": refund.order_id, "day": refund.day, "amount": asked})
        self.refunds = pd.DataFrame(applied, columns=["order_id", "day", "amount"])
        shelf = orders["gross"].fillna(orders["amount"]).astype("int64")
        return orders.assign(net=pd.Series(left), shelf=shelf)

    @cached_property
    def first_events(self) -> pd.Series:
        """Return the local day of each member's first event; touches are nobody's."""
        kinds = [frame[["member_id", "day"]] for kind, frame in self.frames.events.items() if kind != "touch"]
        return pd.concat(kinds).groupby("member_id")["day"].min()

    def engagement(self) -> dict[str, Any]:
        return {name: self._engagement(*window) for name, window in self.frames.windows().items()}

    def _engagement(self, begin: pd.Timestamp, end: pd.Timestamp) -> dict[str, Any]:
        frames, window = self.frames, (begin, end)
        erased = set(frames.events["erasure"]["member_id"]) if len(frames.events["erasure"]) else set()
        members = int(((self.first_events < end) & ~self.first_events.index.isin(erased)).sum())
        acted = [within(frames.events[kind], window) for kind in ("purchase", "activity", "share", "redemption")]
        active = len(set(pd.concat(acted)["member_id"]))

        # points of the period, and everything up to its end
        points, before = within(frames.points, window), frames.points[frames.points["day"] < end]
        earned, burned = self._earned(points), self._burned(points)
        took_part = points[points["type"].isin(["points.granted", "points.captured"])]["member_id"].nunique()
        redeemers = points[points["type"].eq("points.captured")]["member_id"].nunique()
        orders = within(self.orders, window)
        paid = frames.rewards[frames.rewards["type"].isin(GRANTS)]
        pairs = set(zip(paid["member_id"], paid["event_id"], strict=True))
        earning = sum((who, event) in pairs for who, event in zip(orders["member_id"], orders["event_id"], strict=True))

        # who shared, or whose code was touched
        shares, touches = within(frames.events["share"], window), within(frames.events["touch"], window)
        owners = {frames.owners.get(code) for code in touches["referral_code"]} if len(touches) else set()
        referrers = len(({*shares["member_id"]} if len(shares) else set()) | owners - {None})
        outstanding = {name: int(before[name].sum()) for name in ("pending", "active", "reserved")}
        gross, debt = sum(outstanding.values()), -int(before["debt"].sum())
        return {
            "members": members, "active": active, "participants": took_part,
            "participation_of_members": share(took_part, members), "participation_of_active": share(took_part, active),
            "orders": len(orders), "orders_earning": earning, "order_earning_rate": share(earning, len(orders)),
            "points_earned": earned, "points_burned": burned, "points_expired": self._expired(points),
            "earn_burn": share(earned, burned), "burn_earn": share(burned, earned),
            "redemption_cumulative": share(self._burned(before), self._earned(before)),
            "redeemers": redeemers, "redeemer_rate": share(redeemers, active),
            "referrers": referrers, "referrer_rate": share(referrers, active),
            "outstanding": {**outstanding, "gross": gross, "debt": debt, "net": gross - debt},
        }  # fmt: skip

    @staticmethod
    def _earned(points: pd.DataFrame) -> int:
        added = points[points["type"].isin(["points.granted", "points.adjusted"])]["amount"].sum()
        return int(added - points[points["type"].eq("points.reversed")]["amount"].sum())

    @staticmethod
    def _burned(points: pd.DataFrame) -> int:
        captured = points[points["type"].eq("points.captured")]["amount"].sum()
        return int(captured - points[points["type"].eq("points.restored")]["amount"].sum())

    @staticmethod
    def _expired(points: pd.DataFrame) -> int:
        lapsed = points[points["type"].eq("points.expired") & ~points["reason"].eq("erased")]["amount"].sum()
        back = points[points["type"].eq("points.reversed") & points["debit"].eq("expired")]["amount"].sum()
        return int(lapsed - back)

    def customers(self) -> dict[str, Any]:
        return {
            "periods": {name: self._period(window) for name, window in self.frames.windows().items()},
            "repurchase": {f"{days}d": self._repurchase(days) for days in (30, 90)},
            "retention": {
                "by_signup": self._retention(self._cohorts(self.frames.events["signup"])),
                "by_first_order": self._retention(self._cohorts(self.orders)),
            },
            "clv": self._clv(),
        }

    def _period(self, window: tuple[pd.Timestamp, pd.Timestamp]) -> dict[str, Any]:
        orders = within(self.orders, window)
        refunds = self.refunds[(self.refunds["day"] >= window[0]) & (self.refunds["day"] < window[1])]
        positive = orders[orders["net"] > 0]
        return {
            "orders": len(orders), "buyers": orders["member_id"].nunique(),
            "frequency": share(len(orders), orders["member_id"].nunique()), "amount": int(orders["amount"].sum()),
            "net": int(orders["net"].sum()), "gross": int(orders["shelf"].sum()),
            "refunds": int(refunds["amount"].sum()), "orders_net_positive": len(positive),
            "aov_net": share(int(positive["net"].sum()), len(positive)),
            "aov_gross": share(int(positive["shelf"].sum()), len(positive)),
            **self._nps(window),
        }  # fmt: skip

    def _nps(self, window: tuple[pd.Timestamp, pd.Timestamp]) -> dict[str, Any]:
        asked = within(self.frames.events["activity"], window)
        asked = asked[asked["kind"].eq("survey")]
        scored = asked[asked["score"].between(0, 10)].sort_values(["at", "event_id"])
        latest = scored.groupby("member_id")["score"].last()
        n, up, down = len(latest), int((latest >= 9).sum()), int((latest <= 6).sum())
        row: dict[str, Any] = {
            "nps_n": n, "nps_promoters": up, "nps_detractors": down, "nps_asked": asked["member_id"].nunique(),
            "nps": None, "se": None,
        }  # fmt: skip
        if n >= NPS_LEAST:
            p, d = up / n, down / n
            row |= {"nps": 100 * (p - d), "se": 100 * ((p + d - (p - d) ** 2) / n) ** 0.5}
        return row

    def _repurchase(self, days: int) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for month, group in self._first_orders().groupby("month"):
            if (month + 1).start_time + pd.Timedelta(days=days) > self.frames.cut:
                continue
            again = 0
            for who, first in zip(group["member_id"], group["day"], strict=True):
                own = self.orders[self.orders["member_id"].eq(who)].sort_values(["at", "event_id"])
                second = own["day"].iloc[1] if len(own) > 1 else None
                again += second is not None and second <= first + pd.Timedelta(days=days)
            rows[str(month)] = {"customers": len(group), "repeated": again, "rate": share(again, len(group))}
        return rows

    def _first_orders(self) -> pd.DataFrame:
        return self.orders.sort_values(["at", "event_id"]).groupby("member_id", as_index=False).first()

    def _cohorts(self, events: pd.DataFrame) -> pd.Series:
        return events.groupby("member_id")["month"].min()

    def _retention(self, cohorts: pd.Series) -> dict[str, Any]:
        bought = self.orders.groupby("member_id")["month"].agg(set).to_dict()
        rows: dict[str, Any] = {}
        for month in sorted(set(cohorts)):
            members = list(cohorts[cohorts.eq(month)].index)
            cells = []
            for k, then in enumerate(pd.period_range(month, self.frames.months[-1], freq="M")):
                if self.frames.whole(then):
                    whole = [other for other in self.frames.months if self.frames.whole(other)]
                    retained = sum(then in bought.get(who, set()) for who in members)
                    rolling = sum(any(m >= then and m in whole for m in bought.get(who, set())) for who in members)
                    cells.append(
                        {"k": k, "retained": retained, "rate": share(retained, len(members)), "rolling": rolling,
                         "rolling_rate": share(rolling, len(members))}
                    )  # fmt: skip
            rows[str(month)] = {"members": len(members), "cells": cells}
        return rows

    def _clv(self) -> dict[str, Any]:
        cohorts = self._cohorts(self.orders)
        points = self.frames.points
        moved = points[points["type"].isin(["points.captured", "points.restored"])]
        burned = moved.assign(by=moved["amount"] * moved["type"].eq("points.captured").map({True: 1, False: -1}))
        rows: dict[str, Any] = {}
        for month in sorted(set(cohorts)):
            members = set(cohorts[cohorts.eq(month)].index)
            own = self.orders[self.orders["member_id"].isin(members)]
            spent = burned[burned["member_id"].isin(members)]
            cells = []
            for k, then in enumerate(pd.period_range(month, self.frames.months[-1], freq="M")):
                if self.frames.whole(then):
                    revenue = int(own[own["month"] <= then]["net"].sum())
                    redeemed = int(spent[(spent["month"] <= then)]["by"].sum())
                    cells.append(
                        {"k": k, "revenue": revenue, "points_redeemed": redeemed,
                         "revenue_mean": share(revenue, len(members))}
                    )  # fmt: skip
            rows[str(month)] = {"members": len(members), "cells": cells}
        return rows
