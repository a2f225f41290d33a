"""Attribute signups within the live transaction, and forward what referees do to their referrers' shards.

Everything that a decision may need is read before, for all events of a batch together. The decisions of the batch are
kept in memory and written at the end, sorted. Two batches that decide about the same thing meet at a unique row, and
one of them begins again.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from msgspec import msgpack
from psycopg2.extras import execute_values

from engine.intake.batch import Admitted, admitted_from
from engine.intake.own_events import own_id
from engine.ledger.forget import refunds_close_ms
from engine.programme.localtime import DAY_ZERO, calendar_of
from engine.referral.attribution import Attributor, TouchSeen, Waiting, first_signup
from engine.referral.codes import free_code, normalised
from engine.referral.identities import identities_of
from engine.referral.tracker import FORWARDED, Tracker, forward_all
from engine.store.eras import newest
from engine.store.logs import history, source_log
from engine.store.logs.forwards import WaitedSignup, age_of
from engine.store.members import personal
from engine.store.referrals.known import StoredReferrals
from schemas.canonical import IDENTITY_BYTES, order_identity
from schemas.events import Decision, Purchase, Share, Signup, Touch
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.intake.own_events import Attribution, Forwarded
    from engine.programme.model import Programme
    from engine.referral.identities import Identities
    from engine.referral.tracker import Purchases
    from engine.referral.turns import Turns
    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member
    from schemas.events import Event

    Place = tuple[int, int]

NOTED = frozenset((Signup, Share, Decision))
"""The types of events that are noted before they are appended; a referee's purchases are noted, too."""

_encode = msgpack.Encoder().encode
_TRACKER_CHANGES = newest("changes", "guerdon.referee", member_id="v.member_id")
_SHARES_CHANGES = newest("changes", "guerdon.share_day", shard="v.shard", day="v.day", member_id="v.member_id")
_FUNNEL_CHANGES = newest("changes", "guerdon.funnel", shard="v.shard", day="v.day", channel="v.channel")


class Referrals(StoredReferrals):
    """Decide and follow referrals for one transaction, and answer questions from its own decisions, too."""

    def __init__(self, cursor: Cursor, secret: bytes, members: dict[int, dict[str, Member]]) -> None:
        super().__init__(cursor, secret, members)
        self.turns: Turns | None = None
        """Takes the events that the batch forwards to shards that it holds itself."""

        # rows to write
        self._new_codes: dict[str, str] = {}
        self._new_hashes: dict[bytes, str] = {}
        self._new_identities: set[tuple[str, bytes]] = set()
        self._new_touches: list[tuple[str, int, int, int, str, str | None]] = []
        self._new_attributions: list[tuple[object, ...]] = []

        # signups that wait, by their names, and by the member or code that they wait for
        self._waiting: dict[tuple[str, str], WaitedSignup] = {}
        self._waiting_for: dict[str, list[WaitedSignup]] = defaultdict(list)
        self._issued: dict[str, list[str]] = defaultdict(list)

        # forwarded events, and the trackers that have numbered them
        self._forwards: list[tuple[object, ...]] = []
        self._forwarded = 0
        self._trackers: dict[str, Tracker] = {}

        # counts of days, for the leaderboard and the funnel
        self._shares: dict[tuple[int, int, str], tuple[int, int]] = {}
        self._funnel: dict[tuple[int, int, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def before(self, event: Event, place: Place, programme: Programme) -> Attribution | None:
        """Note an event before it is appended, and return the attribution that is to stand before it.

        Signups that wait for the member, or for a code that comes with the event, are decided afterwards (`woken_by`).
        """
        # funnel, leaderboard, and codes that come from elsewhere
        if isinstance(event, Touch):
            self._touch(event, place, programme)
        elif isinstance(event, Share):
            self._share(event, place[0], programme)
        elif isinstance(event, Decision) and event.action == "opening" and event.referral_code is not None:
            self._bring(event.referral_code, event.member_id)
        if not isinstance(event, Signup):
            return None

        # a signup gets a code, and its referrer, or waits for one
        self._issue(event.member_id)
        if programme.terms.referral is None:
            return None
        identities = identities_of(event.identity, self._secret)
        decided = self._attributor(programme).decide(event, identities)
        if isinstance(decided, Waiting):
            self._wait(WaitedSignup(place[0], decided))
            return None
        self._signup = event
        return decided

    def void_before(self, event: Event, member: Member, programme: Programme) -> Admitted | None:
        """Return the void of a referral that is to stand before an event of its referee, as an event to record."""
        tracker = member.tracker
        void = None if tracker is None else tracker.void_before(event, programme.terms.referral)
        return None if void is None else self._recordable(void)

    def _recordable(self, void: Decision) -> Admitted:
        return admitted_from(void, shard_of(void.member_id), personal.OWN_FORMAT, _encode(void), self._secret)

    def note_attribution(self, decided: Attribution, place: Place, programme: Programme) -> Admitted | None:
        """Note an attribution at its place, forward what its referee did before, and return the event that voids it."""
        # the decision, which the view of referrals shows
        self._new_attributions.append(
            (*place, decided.member_id, decided.referrer_id, decided.code, decided.channel, decided.status,
             decided.reason or "+".join(decided.flags) or None, decided.occurred_at)
        )  # fmt: skip
        if decided.status == "rejected" or decided.referrer_id is None:
            return None

        # from now on the referee has a referrer and a tracker
        self._edges[decided.member_id] = decided.referrer_id
        self._attributed[decided.referrer_id].append(decided.occurred_at)
        earlier = self.earlier(decided.member_id)
        tracker = self._trackers[decided.member_id] = Tracker.of(decided, first_signup(earlier) or self._signup)
        member = self._members[place[0]][decided.member_id]
        member.tracker = tracker
        self._count(place[0], decided, decided.channel, 2, programme)

        # earlier purchases and refunds are forwarded as if they came now
        closes, purchases = partial(refunds_close_ms, programme), self._purchases(decided.member_id)
        rows, void = forward_all(tracker, earlier, purchases, closes, programme.terms.referral)
        self._pass_on(place, tracker, rows, programme)
        return None if void is None else self._recordable(void)

    def after(self, event: Event, member: Member, place: Place, programme: Programme) -> None:
        """Note an event at its place, and forward it to the referrer if its member is a referee."""
        # what a later signup in this batch may need
        if programme.terms.referral is not None and type(event) in FORWARDED:
            self._seen[member.member_id].append(event)
        identity: dict[str, str] | None = getattr(event, "identity", None)
        if identity and programme.terms.referral is not None:
            self._identify(member.member_id, identities_of(identity, self._secret))

        tracker = member.tracker
        if tracker is not None and type(event) in FORWARDED:
            self._trackers[member.member_id] = tracker
            rows = tracker.forward(event, self._purchases(member.member_id), partial(refunds_close_ms, programme))
            self._pass_on(place, tracker, rows, programme)

    def decide_waiting(self, waited: WaitedSignup, passed_ms: int, programme: Programme) -> Attribution | None:
        """Return the decision about a waiting signup at `passed_ms`, which all have passed; None: it waits on."""
        terms = programme.terms.referral
        decided = None if terms is None else self._attributor(programme).decide_waiting(waited.waiting, passed_ms)
        if decided is None:
            self._wait(waited)
        else:
            self._signup = waited.waiting.signup
            self._waiting.pop(_name_of(waited), None)
        return decided

    def came_ms(self, waited: WaitedSignup, programme: Programme) -> int:
        """Return when (ms) the referrer of a waiting signup came; 0 where none has come, or none is needed."""
        return 0 if programme.terms.referral is None else self._attributor(programme).came_ms(waited.waiting)

    def woken_by(self, member_id: str) -> list[WaitedSignup]:
        """Return the waiting signups of this batch's shards whose referrer has come by now, the oldest first."""
        if not self._waiting:
            return []
        names = [_by_id(member_id), *map(_by_code, self._issued.pop(member_id, ()))]
        woken = {_name_of(waited): waited for name in names for waited in self._waiting_for.pop(name, ())}
        return sorted((waited for name, waited in woken.items() if name in self._waiting), key=age_of)

    def _pass_on(self, place: Place, tracker: Tracker, rows: Sequence[Forwarded], programme: Programme) -> None:
        """Forward events, within the batch where it holds the referrer's shard, else by the table."""
        shard, seq = place
        for event in rows:
            n = self._forwarded
            self._forwarded += 1
            to_shard = shard_of(event.member_id)
            is_here = event.member_id in self._members.get(to_shard, ())
            if self.turns is None or not self.turns.add(to_shard, place, n, event, is_here=is_here):
                body = _encode(event)
                self._forwards.append((to_shard, shard, seq, n, event.occurred_at, event.member_id, body))
            if isinstance(event.event, Purchase) and tracker.count == 1 and event.number == 1:
                self._count(shard, event, tracker.channel, 3, programme)

    def _count(self, shard: int, event: Event, channel: str | None, column: int, programme: Programme) -> None:
        """Count an event in one column of the funnel: 0 shares, 1 touches, 2 signups, 3 first purchases."""
        if programme.terms.referral is not None:
            day = calendar_of(programme.timezone).local_day(event.occurred_at)
            self._funnel[shard, day, channel or ""][column] += 1

    def _share(self, event: Share, shard: int, programme: Programme) -> None:
        """Count a share for the funnel, and a verified one for the leaderboard."""
        self._count(shard, event, event.channel, 0, programme)
        if event.verified is True:
            day = calendar_of(programme.timezone).local_day(event.occurred_at)
            before, reached_ms = self._shares.get((shard, day, event.member_id), (0, 0))
            self._shares[shard, day, event.member_id] = (before + 1, max(reached_ms, event.occurred_at))

    def _touch(self, event: Touch, place: Place, programme: Programme) -> None:
        if programme.terms.referral is None:
            return
        self._count(place[0], event, event.channel, 1, programme)
        row = (event.visitor, event.occurred_at, *place, event.referral_code, event.channel)
        self._new_touches.append(row)
        seen = TouchSeen(event.referral_code, event.occurred_at, event.channel)
        touches = self._touches.setdefault(event.visitor, [])
        touches.append(seen)
        touches.sort(key=lambda touch: touch.occurred_ms)

    def _attributor(self, programme: Programme) -> Attributor:
        assert programme.terms.referral is not None  # the caller has asked
        return Attributor(programme.terms.referral, calendar_of(programme.timezone), self)

    def _issue(self, member_id: str) -> None:
        """Give a member without a code one of their own; a code that another member has is made longer."""
        if member_id in self._coded:
            return
        self._bring(free_code(member_id, self._secret, self.owner_of), member_id)

    def _bring(self, code: str, member_id: str) -> None:
        """Give a code to a member, unless another member has it."""
        if self.owner_of(code) is None:
            self._codes[code] = self._new_codes[code] = member_id
            self._coded.add(member_id)
            self._issued[member_id].append(code)

    def _wait(self, waited: WaitedSignup) -> None:
        self._waiting[_name_of(waited)] = waited
        code, named = waited.waiting.signup.referral_code, waited.waiting.signup.referrer_id
        for name in {_by_id(named or "")} if code is None else {_by_code(code), _by_code(normalised(code))}:
            self._waiting_for[name].append(waited)

    def _waiting_rows(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for (member_id, event_id), (shard, waiting) in sorted(self._waiting.items()):
            code, named = waiting.signup.referral_code, waiting.signup.referrer_id
            codes = [] if code is None else [code, normalised(code)]
            rows.append(
                (shard, member_id, event_id, codes, named if code is None else None,
                 None if named is None or codes else shard_of(named), waiting.until_ms, _encode(waiting))
            )  # fmt: skip
        return rows

    def _identify(self, member_id: str, identities: Identities) -> None:
        """Note the keyed hashes of a member's identities, and where the member is the first with one."""
        for each in identities.persons:
            if self.first_of(each) is None:
                self._first[each] = self._new_hashes[each] = member_id
        theirs = self._theirs.setdefault(member_id, set())
        for each in identities.all():
            if each not in theirs:
                theirs.add(each)
                self._new_identities.add((member_id, each))

    def save(self) -> None:
        """Write the decisions, each table sorted, in an order that all workers keep."""
        # unique rows: they stop the second of two batches that decide about the same thing
        for into, columns, rows in (
            ("member_code", "code, member_id", sorted(self._new_codes.items())),
            ("identity_hash", "hash, member_id", sorted(self._new_hashes.items())),
        ):
            self._insert(into, columns, rows)

        # rows of this transaction alone
        identities = "INSERT INTO guerdon.member_identity (member_id, hash) VALUES %s ON CONFLICT DO NOTHING"
        execute_values(self._cursor, identities, sorted(self._new_identities))
        self._insert("touch", "visitor, occurred_at, shard, seq, referral_code, channel", self._new_touches, 1)
        self._insert(
            "attribution",
            "shard, seq, referee_id, referrer_id, code, channel, status, reason, occurred_at",
            self._new_attributions,
            8,
        )
        self._insert(
            "waiting_referral",
            "shard, referee_id, event_id, codes, referrer_id, referrer_shard, until, body",
            self._waiting_rows(),
            6,
        )
        self._insert("forwarded", "to_shard, from_shard, from_seq, n, occurred_at, member_id, body", self._forwards, 4)

        # rows that change
        self._save_trackers()
        self._save_funnel()
        self._save_shares()

    def _insert(self, table: str, columns: str, rows: Sequence[tuple[object, ...]], time: int | None = None) -> None:
        """Insert rows; the column at index `time`, if any, is an instant in ms."""
        if rows:
            names = columns.split(", ")
            template = ", ".join("to_timestamp(%s / 1000.0)" if place == time else "%s" for place in range(len(names)))
            execute_values(
                self._cursor,
                f"INSERT INTO guerdon.{table} ({columns}) VALUES %s",
                rows,
                template=f"({template})",
                page_size=1_000,
            )

    def _save_trackers(self) -> None:
        rows = sorted((who, tracker.referrer_id, _encode(tracker)) for who, tracker in self._trackers.items())
        if rows:
            execute_values(
                self._cursor,
                f"""
                INSERT INTO guerdon.referee AS r (member_id, referrer_id, tracker, changes)
                SELECT v.*, coalesce({_TRACKER_CHANGES}, 0)
                FROM (VALUES %s) AS v (member_id, referrer_id, tracker)
                ON CONFLICT (member_id, era) DO UPDATE SET changes = r.changes + 1, tracker = excluded.tracker
                """,
                rows,
                page_size=1_000,
            )

    def _save_shares(self) -> None:
        rows = [
            (shard, date.fromordinal(day + DAY_ZERO), member_id, *counted)
            for (shard, day, member_id), counted in sorted(self._shares.items())
        ]

        if rows:
            execute_values(
                self._cursor,
                f"""
                INSERT INTO guerdon.share_day AS s (shard, day, member_id, value, reached_at, changes)
                SELECT v.shard, v.day, v.member_id, v.value, to_timestamp(v.reached_ms / 1000.0),
                       coalesce({_SHARES_CHANGES}, 0)
                FROM (VALUES %s) AS v (shard, day, member_id, value, reached_ms)
                ON CONFLICT (shard, day, member_id, era) DO UPDATE
                SET changes = s.changes + 1, value = s.value + excluded.value,
                    reached_at = greatest(s.reached_at, excluded.reached_at)
                """,
                rows,
                page_size=1_000,
            )

    def _save_funnel(self) -> None:
        rows = [
            (shard, date.fromordinal(day + DAY_ZERO), channel, *counts)
            for (shard, day, channel), counts in sorted(self._funnel.items())
        ]

        if rows:
            execute_values(
                self._cursor,
                f"""
                INSERT INTO guerdon.funnel AS f
                    (shard, day, channel, shares, touches, signups, first_purchases, changes)
                SELECT v.*, coalesce({_FUNNEL_CHANGES}, 0)
                FROM (VALUES %s) AS v (shard, day, channel, shares, touches, signups, first_purchases)
                ON CONFLICT (shard, day, channel, era) DO UPDATE SET
                    changes = f.changes + 1,
                    shares = f.shares + excluded.shares, touches = f.touches + excluded.touches,
                    signups = f.signups + excluded.signups,
                    first_purchases = f.first_purchases + excluded.first_purchases
                """,
                rows,
            )

    def _purchases(self, member_id: str) -> Purchases:
        return partial(self._purchase, member_id)

    def _purchase(self, member_id: str, order_id: str) -> Purchase | None:
        """Return the recorded purchase of an order, from this batch or the source log."""
        for event in self._seen[member_id]:
            if isinstance(event, Purchase) and event.order_id == order_id:
                return event
        identity = order_identity(member_id, order_id)[:IDENTITY_BYTES]
        place = source_log.find_known(self._cursor, [identity]).get(identity)
        if place is None:
            return None
        recorded = history.History(self._cursor).at(place.shard, place.seq).event
        return recorded if isinstance(recorded, Purchase) else None


def _name_of(waited: WaitedSignup) -> tuple[str, str]:
    """Return the member_id and event_id of the row of a waiting signup."""
    signup = waited.waiting.signup
    return signup.member_id, own_id("signup", signup.source, signup.event_id)


def _by_id(member_id: str) -> str:
    return f"id {member_id}"


def _by_code(code: str) -> str:
    return f"code {code}"
