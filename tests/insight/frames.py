"""Hold the year as data frames: events as they were made, rewards as the log has them."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.store.database import transaction
from schemas.events import TYPE_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.events import Event

ZONE = "America/New_York"
ACCOUNTS = ("pending", "active", "reserved", "spent", "expired", "reversed", "debt")


class Frames:
    """Hold a table for each kind of event and one of all reward events, with local days and months.

    Args:
        database_url: of the log that the rewards are read from.
        events: all that was sent, each admitted.
        cut: the local day at whose begin the reports end.
    """

    def __init__(self, database_url: str, events: Sequence[Event], cut: pd.Timestamp) -> None:
        self.cut = cut
        self.events = {
            kind: _dated(pd.DataFrame([_fields(event) for event in events if TYPE_NAMES[type(event)] == kind]))
            for kind in ("purchase", "refund", "signup", "touch", "share", "activity", "redemption", "erasure")
        }
        with transaction(database_url) as cursor:
            cursor.execute(
                """
                SELECT shard, pos, seq, type::text, member_id, unit, amount, debit::text, credit::text,
                       encode(reward_key, 'hex'), encode(coalesce(lot, reward_key), 'hex'), item, rule_id, campaign,
                       order_id, event_id, reason, occurred_at, expires_at
                FROM guerdon.reward_event ORDER BY shard, pos
                """
            )
            read = cursor.fetchall()
            cursor.execute("SELECT code, member_id FROM guerdon.member_code")
            self.owners = dict(cursor.fetchall())

        # outside the transaction, which may not stand idle for as long as this takes for a whole year
        names = (
            "shard", "pos", "seq", "type", "member_id", "unit", "amount", "debit", "credit", "key", "lot", "item",
            "rule_id", "campaign", "order_id", "event_id", "reason", "occurred_at", "expires_at",
        )  # fmt: skip
        rows = pd.DataFrame(read, columns=list(names))
        rows["occurred_at"] = pd.to_datetime(rows["occurred_at"], utc=True)
        rows["expires_at"] = pd.to_datetime(rows["expires_at"], utc=True)
        rows["amount"] = rows["amount"].astype("int64")
        self.log = _dated(rows)
        self._read(self.log[self.log["day"] < cut])  # ticks have moved clocks beyond the cut

    def _read(self, rewards: pd.DataFrame) -> None:
        self.rewards = rewards
        self.points = rewards[rewards["unit"].eq("points") & rewards["debit"].notna()].copy()
        for account in ACCOUNTS:
            self.points[account] = self.points["amount"] * (
                self.points["credit"].eq(account).astype(int) - self.points["debit"].eq(account).astype(int)
            )

    def to_the_end(self) -> Frames:
        """Return the same with the whole log, as views show it: also what came due after the cut."""
        whole = copy(self)
        whole._read(self.log)  # noqa: SLF001  of the same class
        return whole

    @property
    def months(self) -> list[pd.Period]:
        """Return every local month from the first event's to the last before the cut."""
        first = min(frame["month"].min() for frame in self.events.values() if len(frame))
        last = (self.cut - pd.Timedelta(days=1)).to_period("M")
        return list(pd.period_range(first, last, freq="M"))

    def windows(self) -> dict[str, tuple[pd.Timestamp, pd.Timestamp]]:
        """Return the name of each period with its first local day and the day that ends it."""
        found = {str(month): (month.start_time, min((month + 1).start_time, self.cut)) for month in self.months}
        return found | {"all": (self.months[0].start_time, self.cut)}

    def whole(self, month: pd.Period) -> bool:
        """Whether a month has ended by the cut."""
        return bool((month + 1).start_time <= self.cut)


def within(frame: pd.DataFrame, window: tuple[pd.Timestamp, pd.Timestamp]) -> pd.DataFrame:
    """Return the rows whose local day lies in a window."""
    return frame[(frame["day"] >= window[0]) & (frame["day"] < window[1])] if len(frame) else frame


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def _dated(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the local time of each row, its day and its month, without a zone."""
    if not len(frame):
        return frame
    at = frame["occurred_at"]
    if not isinstance(at.dtype, pd.DatetimeTZDtype):
        at = pd.to_datetime(at, unit="ms", utc=True)
    frame = frame.assign(at=at)
    local = at.dt.tz_convert(ZONE).dt.tz_localize(None)
    return frame.assign(local=local, day=local.dt.normalize(), month=local.dt.to_period("M"))
