"""Read what decisions about referrals need, for all events of a batch together, before the first decision."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from engine.programme.terms import Flag
from engine.referral.attribution import TouchSeen
from engine.referral.codes import code_of, normalised
from engine.referral.identities import identities_of
from engine.referral.tracker import FORWARDED
from engine.store.cursor import one
from engine.store.eras import newest
from engine.store.logs import history
from engine.store.members import member_states
from schemas.events import Decision, Signup
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.intake.batch import Admitted
    from engine.programme.model import Programme
    from engine.store.cursor import Cursor
    from engine.store.logs.forwards import WaitedSignup
    from engine.store.members.member_states import Member
    from schemas.events import Event

DECIDE_CLAIMS = "LOCK TABLE guerdon.deciding_claims IN EXCLUSIVE MODE"
"""The lock of those who decide a claim, or a code that waited: only such decisions can close a cycle."""

_REFERRER_OF = f"SELECT {newest('referrer_id', 'guerdon.referee', member_id='%s')}"
_SEQ = newest("seq", "guerdon.member_state", shard="w.shard", member_id="w.member_id")


class StoredReferrals:
    """Answer questions about referrals, from the tables and from the decisions of this transaction.

    Args:
        cursor: belongs to the transaction, which holds the heads of the members' shards.
        secret: makes codes and hashes.
        members: the members of the batch, by shard.
    """

    def __init__(self, cursor: Cursor, secret: bytes, members: dict[int, dict[str, Member]]) -> None:
        self._cursor = cursor
        self._secret = secret
        self._members = members

        # each member's last seq before the batch, and their events in it
        self._begun_at: dict[str, int] = {}
        self._seen: dict[str, list[Event]] = defaultdict(list)

        # what was read, and what the batch has decided since; None: read, and there is none
        self._codes: dict[str, str | None] = {}
        self._coded: set[str] = set()
        self._there: dict[str, tuple[bool, bool]] = {}
        self._first: dict[bytes, str | None] = {}
        self._theirs: dict[str, set[bytes]] = {}
        self._touches: dict[str, list[TouchSeen]] = {}
        self._edges: dict[str, str] = {}
        self._attributed: dict[str, list[int]] = defaultdict(list)

        self.referrers: set[str] = set()
        """The referrers that the batch's attributions may name, known after `prepare`."""

    def codes_of(self, admitted: Sequence[Admitted]) -> set[str]:
        """Return the codes that come with the events of a batch, issued at a signup or brought over."""
        issued = {code_of(event.member_id, self._secret) for event in admitted if isinstance(event.event, Signup)}
        return issued | {
            event.event.referral_code
            for event in admitted
            if isinstance(event.event, Decision) and event.event.referral_code
        }

    def prepare(
        self, admitted: Sequence[Admitted], waited: Sequence[WaitedSignup], programmes: Iterable[Programme]
    ) -> None:
        """Read what the events of a batch may need, and lock the rows for which decisions must not race."""
        # most batches have none of these events
        signups = [event.event for event in admitted if isinstance(event.event, Signup)]
        openings = [
            event.event for event in admitted if isinstance(event.event, Decision) and event.event.referral_code
        ]
        if not signups and not waited and not openings:
            return

        # the signups that ask for a referral, of this batch and of earlier ones
        terms = [each for programme in programmes if (each := programme.terms.referral) is not None]
        asking = [*signups, *(each.waiting.signup for each in waited)] if terms else []
        for signup in asking:
            member = self._member(signup.member_id)
            self._begun_at[signup.member_id] = 0 if member is None else member.seq

        # a claim may close a cycle of referrers: one at a time
        if waited or any(self._is_known(signup) for signup in asking if _names_referrer(signup)):
            self._cursor.execute(DECIDE_CLAIMS)

        # from touches to codes, from codes to referrers, and everything about these
        if terms:
            self._read_touches({signup.visitor for signup in asking if signup.visitor is not None})
        self._read_codes(signups, asking, [opening.referral_code or "" for opening in openings])
        if not terms:
            return
        referrers = {owner for owner in self._codes.values() if owner is not None}
        referrers |= {signup.referrer_id for signup in asking if signup.referrer_id is not None}
        self.referrers = referrers
        if any(each.times is not None or Flag.BURST in each.flag for each in terms):
            self._lock_referrers(referrers)
        self._read_members(referrers)
        self._read_hashes(signups, waited, referrers)

    def _is_known(self, signup: Signup) -> bool:
        member = self._member(signup.member_id)
        return member is None or bool(member.seq)

    def _read_touches(self, visitors: set[str]) -> None:
        if visitors:
            self._cursor.execute(
                """
                SELECT visitor, referral_code, guerdon.ms(occurred_at), channel FROM guerdon.touch
                WHERE visitor = ANY(%s) ORDER BY visitor, occurred_at, shard, seq
                """,
                (sorted(visitors),),
            )
            for visitor, code, occurred_ms, channel in self._cursor.fetchall():
                self._touches.setdefault(visitor, []).append(TouchSeen(code, occurred_ms, channel))

    def _read_codes(self, signups: Sequence[Signup], asking: Sequence[Signup], brought: Sequence[str]) -> None:
        """Read the owners of all codes that the batch names, and the codes of the members who sign up."""
        named = [signup.referral_code for signup in asking if signup.referral_code is not None]
        named += [touch.code for touches in self._touches.values() for touch in touches]
        own = {signup.member_id: code_of(signup.member_id, self._secret) for signup in signups}
        wanted = {*named, *map(normalised, named), *own.values(), *brought}
        self._codes |= dict.fromkeys(wanted)

        self._cursor.execute(
            """
            SELECT code, member_id FROM guerdon.member_code WHERE code = ANY(%s)
            UNION ALL SELECT code, member_id FROM guerdon.member_code WHERE member_id = ANY(%s)
            """,
            (sorted(wanted), sorted(own)),
        )
        for code, member_id in self._cursor.fetchall():
            self._codes[code] = member_id
            self._coded.add(member_id)

    def _lock_referrers(self, referrers: set[str]) -> None:
        """Lock referrers whose number of referees is limited or watched, in ascending order, as all workers do."""
        rows = sorted(referrers)
        self._cursor.execute(
            "INSERT INTO guerdon.referrer (member_id) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (rows,)
        )
        self._cursor.execute(
            "SELECT FROM guerdon.referrer WHERE member_id = ANY(%s) ORDER BY member_id FOR UPDATE", (rows,)
        )

    def _read_members(self, referrers: set[str]) -> None:
        rows = sorted(referrers)
        self._cursor.execute(
            f"""
            SELECT w.member_id, {_SEQ} IS NOT NULL, k.erased_at IS NOT NULL
            FROM unnest(%s::smallint[], %s::text[]) AS w (shard, member_id)
            LEFT JOIN guerdon.member_key k ON k.shard = w.shard AND k.member_id = w.member_id
            """,
            ([shard_of(each) for each in rows], rows),
        )
        self._there |= {member_id: (there, erased) for member_id, there, erased in self._cursor.fetchall()}

    def _read_hashes(self, signups: Sequence[Signup], waited: Sequence[WaitedSignup], referrers: set[str]) -> None:
        # the first member with each email, phone or payment of a signup
        signed = [identities_of(signup.identity, self._secret) for signup in signups]
        signed += [each.waiting.identities for each in waited]
        persons = sorted({each for identities in signed for each in identities.persons})
        if persons:
            self._first |= dict.fromkeys(persons)
            self._cursor.execute("SELECT hash, member_id FROM guerdon.identity_hash WHERE hash = ANY(%s)", (persons,))
            self._first |= {bytes(hashed): member_id for hashed, member_id in self._cursor.fetchall()}

        # everything that the members and their referrers have said of themselves
        wanted = sorted(referrers | {signup.member_id for signup in signups})
        self._cursor.execute("SELECT member_id, hash FROM guerdon.member_identity WHERE member_id = ANY(%s)", (wanted,))
        for member_id, hashed in self._cursor.fetchall():
            self._theirs.setdefault(member_id, set()).add(bytes(hashed))

    def _member(self, member_id: str) -> Member | None:
        return self._members.get(shard_of(member_id), {}).get(member_id)

    def owner_of(self, code: str) -> str | None:
        """Return the member who owns a code, None where nobody does."""
        if code not in self._codes:
            self._cursor.execute("SELECT member_id FROM guerdon.member_code WHERE code = %s", (code,))
            row = self._cursor.fetchone()
            self._codes[code] = None if row is None else row[0]
        return self._codes[code]

    def exists(self, member_id: str) -> bool:
        """Whether any event of a member was admitted."""
        member = self._member(member_id)
        if member is not None and member.seq:
            return True
        return self._there.get(member_id, (False, False))[0]

    def is_erased(self, member_id: str) -> bool:
        """Whether a member was erased."""
        member = self._member(member_id)
        if member is not None:
            return member.state.erased
        if member_id not in self._there:
            self._read_members({member_id})
        return self._there[member_id][1]

    def referrer_of(self, member_id: str) -> str | None:
        """Return the referrer of a member, None where there is none."""
        if member_id in self._edges:
            return self._edges[member_id]
        member = self._member(member_id)
        if member is not None:
            return None if member.tracker is None else member.tracker.referrer_id
        (referrer_id,) = one(self._cursor, _REFERRER_OF, (member_id,))
        return None if referrer_id is None else str(referrer_id)

    def first_of(self, identity: bytes) -> str | None:
        """Return the first member with a keyed hash of an identity, None where there is none."""
        if identity not in self._first:
            self._cursor.execute("SELECT member_id FROM guerdon.identity_hash WHERE hash = %s", (identity,))
            row = self._cursor.fetchone()
            self._first[identity] = None if row is None else row[0]
        return self._first[identity]

    def known_since(self, member_id: str, *, by_code: bool) -> int | None:
        """Return when (ms) a member first came, or with `by_code` signed up; None where the state has no such event."""
        member = self._member(member_id)
        if member is None:
            (member,) = member_states.load(self._cursor, [(shard_of(member_id), member_id)])
        return member.state.signup_ms if by_code else member.state.first_ms

    def identities_of(self, member_id: str) -> frozenset[bytes]:
        """Return the keyed hashes of the identities in a member's signups and profiles."""
        return frozenset(self._theirs.get(member_id, ()))

    def touches_of(self, visitor: str, from_ms: int, until_ms: int) -> Sequence[TouchSeen]:
        """Return a visitor's touches with `from_ms < occurred <= until_ms`."""
        return [touch for touch in self._touches.get(visitor, ()) if from_ms < touch.occurred_ms <= until_ms]

    def attributed_at(self, referrer_id: str, from_ms: int, until_ms: int) -> Sequence[int]:
        """Return when (ms) referees were attributed to a referrer, with `from_ms <= occurred < until_ms`."""
        self._cursor.execute(
            """
            SELECT guerdon.ms(occurred_at) FROM guerdon.attribution
            WHERE status = 'attributed' AND referrer_id = %s
              AND occurred_at >= to_timestamp(%s / 1000.0) AND occurred_at < to_timestamp(%s / 1000.0)
            """,
            (referrer_id, from_ms, until_ms),
        )
        stored = [at_ms for (at_ms,) in self._cursor.fetchall()]
        return stored + [at_ms for at_ms in self._attributed.get(referrer_id, ()) if from_ms <= at_ms < until_ms]

    def earlier(self, member_id: str) -> Sequence[Event]:
        """Return a member's recorded events of the types that are forwarded, in their order."""
        member = self._members[shard_of(member_id)][member_id]
        before = self._begun_at.get(member_id, 0)
        recorded: list[Event] = []
        if before:
            walked = history.History(self._cursor, bare=True).of_member(member.shard, before)
            recorded = [each.event for each in walked if each.event is not None and type(each.event) in FORWARDED][::-1]
        return [*recorded, *self._seen.get(member_id, ())]


def _names_referrer(signup: Signup) -> bool:
    return signup.referral_code is not None or signup.referrer_id is not None or signup.visitor is not None
