"""Frame a report: which log it reads, as it was known when, up to which local midnight, in which periods.

Every report stands on one frame, and so on one snapshot of the database, one zone and one cut. All amounts of a report
are in minor units of the programme's currency, and points in the unit `points`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store import programmes
from engine.store.cursor import one
from engine.store.generations import live_generation
from operations.report.alerts.thresholds import Thresholds
from operations.report.periods import (
    ALL,
    Every,
    Period,
    begin_of,
    local_date,
    midnight,
    midnight_after,
    name_of,
    periods,
)
from operations.report.rollups import Wanted, known_time, why_logs
from operations.rows import plain
from schemas.errors import InputError
from schemas.events import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.programme.model import Programme
    from engine.store.cursor import Cursor

UNIT = "points"
UPSTREAM = tuple(kind for kind in EVENT_TYPES if kind != "decision")
"""The kinds of events that upstream systems send: they begin and end the time that a report covers."""


class Asked(NamedTuple):
    """Hold what the reader of a report asks for; what is None is chosen by the report."""

    since: date | None = None
    """The first local day."""

    until: date | None = None
    """The local day at whose begin the report ends."""

    every: Every = Every.MONTH
    by: str | None = None
    """The split of each row, such as tier."""

    generation: int | None = None
    """The live one by default."""

    known_at: datetime | None = None
    """Only what was recorded before this instant counts; all by default."""

    days: int = 30
    """The window of measures that carry it in their name, such as the K-factor, and of alerts."""

    thresholds: Thresholds = Thresholds()
    """The values from which on something is an alert."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Hold what a report stands on."""

    cursor: Cursor
    """Reads one snapshot."""

    generation: int
    facts: int | None
    """The build of the source facts; None where there is none."""

    known_at: datetime
    known_before: date | None
    """The local day before which something was recorded that counts in rollups; None: whatever they have counts."""

    since: datetime
    """The first local midnight of the report: that of `Asked.since`, else of the first event's day."""

    cut: datetime
    """The local midnight that ends it: of `Asked.until`, else the first one after everything that is known."""

    zone: str
    currency: str
    programme: Programme
    version: int
    every: Every
    by: str | None
    days: int
    thresholds: Thresholds
    is_empty: bool
    """Whether the log knows no event at all by `known_at`."""

    is_from_first: bool = True
    """Whether it begins with the log, as nobody asked for a first day."""

    why_logs: str | None = None
    """Why the logs must be read and not the rollups, in a sentence; None: rollups answer what they have."""

    notes: list[str] = field(default_factory=list)
    """Sentences that belong under the report: what is missing, and why."""

    @property
    def rolled(self) -> bool:
        """Whether numbers that rollups have are read from them: they are those of the logs, to the unit."""
        return self.why_logs is None

    @property
    def periods(self) -> tuple[Period, ...]:
        """Return every period of the report, also empty ones; none where the log is empty."""
        return () if self.is_empty else periods(self.every, self.zone, self.since, self.cut)

    @property
    def period_names(self) -> list[str]:
        """Return the names of all periods, and of all of them together; that one alone where the log is empty."""
        return [*(each.name for each in self.periods), ALL]

    @property
    def cut_day(self) -> date:
        """Return the first local day that no longer belongs to the report."""
        return self.local_day(self.cut)

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters that every query of a report may name."""
        return {
            "generation": self.generation,
            "facts": self.facts,
            "known_at": self.known_at,
            "since": self.since,
            "cut": self.cut,
            "zone": self.zone,
            "every": str(self.every),
            "length": "3 months" if self.every is Every.QUARTER else f"1 {self.every}",
            "unit": UNIT,
            "days": self.days,
            "known_before": self.known_before or "infinity",
            "since_day": self.local_day(self.since),
            "since_month": self.local_day(self.since).replace(day=1),
            "cut_day": self.cut_day,
        }

    def period(self, column: str) -> str:
        """Return the SQL of the first instant of the period in which `column` lies."""
        return f"date_trunc(%(every)s, {column}, %(zone)s)"

    def period_end(self, start: str) -> str:
        """Return the SQL of the instant at which the period ends that begins at `start`."""
        return f"((({start} AT TIME ZONE %(zone)s) + %(length)s::interval) AT TIME ZONE %(zone)s)"

    def month(self, column: str) -> str:
        """Return the SQL of the first instant of the local month in which `column` lies."""
        return f"date_trunc('month', {column}, %(zone)s)"

    def day(self, column: str) -> str:
        """Return the SQL of the local date of `column`."""
        return f"({column} AT TIME ZONE %(zone)s)::date"

    def name(self, start: datetime | None, every: Every | None = None) -> str:
        """Return the name of the period that begins at `start`; None names all of them."""
        if start is None:
            return ALL
        length = every or self.every
        return name_of(length, begin_of(length, self.local_day(start)))

    def name_of_day(self, day: date) -> str:
        """Return the name of the period in which a local day lies."""
        return name_of(self.every, begin_of(self.every, day))

    def local_day(self, instant: datetime) -> date:
        """Return the local date of an instant."""
        return local_date(instant, self.zone)

    def rows(self, query: str, **more: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query that names `parameters`, and more of its own."""
        self.cursor.execute(query, {**self.parameters, **more})
        return self.cursor.fetchall()


def frame(cursor: Cursor, asked: Asked, *, is_of_recording: bool = False) -> Frame:
    """Return the frame for what a reader asks.

    Args:
        cursor: of a snapshot (`engine.store.database.snapshot`): every query of the report sees the same.
        asked: by the reader.
        is_of_recording: the report covers the time in which something was recorded: by default the local day of
            `known_at` so far, and the one before.

    Raises:
        InputError: there is no such generation, no programme yet, or the time ends before it begins.
    """
    # a log that grew since PostgreSQL looked at it last seems small, and a nested loop over it would never end
    cursor.execute("SET LOCAL enable_nestloop = off")
    cursor.execute("SET LOCAL work_mem = '64MB'")  # a sort or a hash of many members that spills takes twice the time

    generation = live_generation.live(cursor) if asked.generation is None else asked.generation
    live_generation.check_exists(cursor, generation)
    (now,) = one(cursor, "SELECT now()")
    known_at = now if asked.known_at is None else asked.known_at

    # the programme whose zone and currency the report has
    version = _version(cursor, asked, generation, known_at)
    programme = programmes.judged_as(cursor, version)
    zone = programme.timezone

    # the log or its rollups, and the time that it covers
    facts = _live_facts(cursor)
    why = why_logs(cursor, Wanted(generation, zone, asked.by, asked.known_at, asked.since))
    known_before = None if asked.known_at is None else local_date(known_at, zone)
    if why is None and facts is not None:
        known = known_time(cursor, facts, known_before, zone)
    else:
        known = _known_time(cursor, known_at)
    first, last = known or (known_at, known_at)
    if is_of_recording:
        first, last = _day_before(known_at, zone), known_at
    since = midnight(local_date(first, zone) if asked.since is None else asked.since, zone)
    cut = midnight_after(last, zone) if asked.until is None else midnight(asked.until, zone)
    if since >= cut and (asked.since is not None or asked.until is not None):
        raise InputError(
            f"the report would begin on {local_date(since, zone)} and end on {local_date(cut, zone)}: give an "
            "earlier --from or a later --to"
        )
    return Frame(
        cursor=cursor, generation=generation, facts=facts, known_at=known_at, known_before=known_before, since=since,
        cut=cut, zone=zone, currency=programme.currency, programme=programme, version=version, every=asked.every,
        by=asked.by, days=asked.days, thresholds=asked.thresholds, is_empty=known is None,
        is_from_first=asked.since is None, why_logs=why,
    )  # fmt: skip


def _live_facts(cursor: Cursor) -> int | None:
    """Return the build of the source facts; None where there is none."""
    cursor.execute("SELECT build FROM guerdon.projection_build WHERE projection = 'facts' AND status = 'live'")
    row = cursor.fetchone()
    return None if row is None else row[0]


def document(name: str, of: Frame, data: Mapping[str, Any], *, complete: bool) -> dict[str, Any]:
    """Return a report as one document, as `guerdon report NAME --json` prints it."""
    return {
        "report": name,
        "generation": of.generation,
        "known_at": plain(of.known_at),
        "cut": plain(of.cut),
        "zone": of.zone,
        "currency": of.currency,
        "unit": UNIT,
        "complete": complete,
        "notes": of.notes,
        "data": data,
    }


def ratio(of: int, to: int) -> float | None:
    """Return `of` ÷ `to`; None where there is nothing to divide by."""
    return of / to if to else None


def _version(cursor: Cursor, asked: Asked, generation: int, known_at: datetime) -> int:
    """Return the version whose zone and currency count: the newest of a generation that was asked for, else that at K.

    A report of an instant before the first activation has the first version's.
    """
    cursor.execute(
        """
        SELECT version, activated_at FROM guerdon.programme_version
        WHERE version IN (SELECT version FROM guerdon.generation_schedule WHERE generation = %s) ORDER BY version
        """,
        (generation,),
    )
    versions = cursor.fetchall()
    if not versions:
        raise InputError("no programme is active; `guerdon programme activate FILE` turns one on")
    known = [version for version, activated_at in versions if asked.generation is not None or activated_at < known_at]
    return int(known[-1] if known else versions[0][0])


def _known_time(cursor: Cursor, known_at: datetime) -> tuple[datetime, datetime] | None:
    """Return the instants of the first and the last event that upstream systems had sent by then; None: of none."""
    first, last = one(
        cursor,
        """
        SELECT min(occurred_at), max(occurred_at) FROM guerdon.source_event
        WHERE recorded_at < %s AND kind::text = ANY(%s)
        """,
        (known_at, list(UPSTREAM)),
    )
    return None if first is None else (first, last)


def _day_before(instant: datetime, zone: str) -> datetime:
    return midnight(local_date(instant, zone) - timedelta(days=1), zone)
