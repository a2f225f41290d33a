"""Hold a year that was judged: its database, and the same year as data frames."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, NamedTuple

import pandas as pd

from engine.referral.codes import code_of
from engine.store import digest_secret
from engine.store.cursor import one
from engine.store.database import transaction
from operations.report.catalogue import report
from operations.report.frame import Asked
from projections.runner import finish
from tests.insight import year
from tests.insight.frames import ZONE, Frames
from tests.insight.orders import Orders


class Year(NamedTuple):
    """Hold the database of a year, and the same year as data frames."""

    url: str
    frames: Frames
    orders: Orders

    def data(self, name: str, **asked: Any) -> Any:
        """Return the data of a report."""
        return data_of(self.url, name, Asked(**asked))


@cache
def data_of(database_url: str, name: str, asked: Asked) -> Any:
    """Return the data of a report; several tests hold parts of the same one."""
    return report(database_url, name, asked)["data"]


def record(database_url: str, every_nth_household: int) -> Year:
    """Let the year be judged in a database, with its facts and views, and return it; nothing of it is set aside."""
    with transaction(database_url) as cursor:
        secret = digest_secret.read(cursor)
    events = year.events(every_nth_household, lambda member_id: code_of(member_id, secret))
    year.write(database_url, events)
    finish(database_url, threading.Event())
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.quarantine") == (0,)

    last = pd.Timestamp(max(event.occurred_at for event in events), unit="ms", tz="UTC")
    cut = last.tz_convert(ZONE).tz_localize(None).normalize() + pd.Timedelta(days=1)
    frames = Frames(database_url, events, cut)
    return Year(database_url, frames, Orders(frames))
