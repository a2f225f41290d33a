"""Take in events that were forwarded to a shard, and signups that waited for their referrer, when their turn comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from msgspec import DecodeError, msgpack, structs

from engine.intake.own_events import Attribution, Forwarded, own_id
from engine.ledger import adjustments
from engine.ledger.adjustments import Adjustment
from engine.referral.attribution import Waiting
from engine.referral.tracker import Tracker
from engine.referral.turns import Drained
from engine.store.eras import newest
from schemas.canonical import event_identity
from schemas.events import ID_CHARACTERS_MAX, MemberEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor
    from schemas.events import Event

FORWARDS_MAX = 1_000
"""The most forwarded events of one shard that a transaction drains."""

OWN_EVENTS: dict[str, type[Attribution | Forwarded | Adjustment]] = {
    "attribution": Attribution,
    "forwarded": Forwarded,
    adjustments.KIND: Adjustment,
}
"""The types of the events that Guerdon itself writes about members, by their kind in the source log."""

OWN_NAMES: dict[type[Event], str] = {kind: name for name, kind in OWN_EVENTS.items()}
Own = TypeVar("Own", bound=Attribution | Forwarded)
_encode = msgpack.Encoder().encode
_decode_tracker = msgpack.Decoder(Tracker).decode
_decode_forwarded = msgpack.Decoder(Forwarded).decode
_decode_waiting = msgpack.Decoder(Waiting).decode


class Forwarding(NamedTuple):
    """Hold a row of `forwarded` as the table has it."""

    turn_ms: int
    """When its turn comes: the latest event time among it and its sender's rows before it."""

    to_shard: int
    from_shard: int
    from_seq: int
    n: int
    body: bytes

    def event(self) -> Forwarded:
        """Return the event that the row carries.

        Raises:
            ValueError: the event's id is longer than a reader of the log accepts, or the body cannot be decoded.
        """
        try:
            return _readable(_renamed(_decode_forwarded(self.body)))
        except DecodeError as error:
            raise ValueError(str(error)) from error


class Undecided(NamedTuple):
    """Hold a row of `waiting_referral` as the table has it: a signup whose referrer is not decided yet."""

    shard: int
    body: bytes

    def waiting(self) -> Waiting:
        """Return the signup that the row carries.

        Raises:
            ValueError: the body cannot be decoded.
        """
        try:
            return _decode_waiting(self.body)
        except DecodeError as error:
            raise ValueError(str(error)) from error


class ForwardedRow(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Name a forwarded row in the quarantine, by the event that it comes from."""


class UndecidedRow(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Name a signup that waited, in the quarantine."""


ROWS: dict[type[Event], str] = {ForwardedRow: "forwarded row", UndecidedRow: "undecided row"}
"""The kinds under which the quarantine keeps rows until they are released."""


class WaitedSignup(NamedTuple):
    """Hold a signup that waits for its referrer, or has waited, and the shard of its member."""

    shard: int
    waiting: Waiting


def drain(cursor: Cursor, shards: Iterable[int], until_ms: int) -> tuple[list[Forwarding], set[tuple[int, int]]]:
    """Take the rows forwarded to these shards whose turn has come by an instant; the caller holds the shards' heads.

    Returns:
        the rows in their order, and the pairs of shards (to, from) that have rows left: those with a later turn, those
        after them in their sender's order, and those beyond FORWARDS_MAX of a shard.
    """
    # the first rows of each pair, in the sender's order
    pairs = _senders(cursor, shards)
    if not pairs:
        return [], set()
    cursor.execute(
        """
        SELECT f.to_shard, f.from_shard, f.from_seq, f.n, guerdon.ms(f.occurred_at), f.body
        FROM unnest(%s::smallint[], %s::smallint[]) AS w (to_shard, from_shard)
        CROSS JOIN LATERAL (
            SELECT * FROM guerdon.forwarded d WHERE d.to_shard = w.to_shard AND d.from_shard = w.from_shard
            ORDER BY d.from_seq, d.n LIMIT %s
        ) AS f
        ORDER BY f.to_shard, f.from_shard, f.from_seq, f.n
        """,
        ([to_shard for to_shard, _ in pairs], [from_shard for _, from_shard in pairs], FORWARDS_MAX + 1),
    )

    # a row's turn never comes before that of an earlier row of its sender
    by_shard: dict[int, list[Forwarding]] = {}
    latest: dict[tuple[int, int], int] = {}
    for to_shard, from_shard, from_seq, n, occurred_ms, body in cursor.fetchall():
        turn_ms = latest[to_shard, from_shard] = max(latest.get((to_shard, from_shard), 0), occurred_ms)
        row = Forwarding(
            turn_ms=turn_ms, to_shard=to_shard, from_shard=from_shard, from_seq=from_seq, n=n, body=bytes(body)
        )
        by_shard.setdefault(to_shard, []).append(row)

    # take the rows whose turn has come, up to the most that a shard takes at once
    taken_rows, left = [], set()
    for rows in by_shard.values():
        rows.sort()
        for place, row in enumerate(rows):
            if place < FORWARDS_MAX and row.turn_ms <= until_ms:
                taken_rows.append(row)
            else:
                left.add((row.to_shard, row.from_shard))
    _delete(cursor, taken_rows)
    return sorted(taken_rows), left


def _senders(cursor: Cursor, shards: Iterable[int]) -> list[tuple[int, int]]:
    """Return the pairs of shards (to, from) with waiting rows; each pair costs one probe of the index."""
    cursor.execute(
        """
        WITH RECURSIVE pair (to_shard, from_shard) AS (
            SELECT w.shard, (SELECT min(f.from_shard) FROM guerdon.forwarded f WHERE f.to_shard = w.shard)
            FROM unnest(%s::smallint[]) AS w (shard)
            UNION ALL
            SELECT p.to_shard, (
                SELECT min(f.from_shard) FROM guerdon.forwarded f
                WHERE f.to_shard = p.to_shard AND f.from_shard > p.from_shard
            ) FROM pair p WHERE p.from_shard IS NOT NULL
        )
        SELECT to_shard, from_shard FROM pair WHERE from_shard IS NOT NULL ORDER BY to_shard, from_shard
        """,
        (sorted(shards),),
    )
    return cursor.fetchall()


def _delete(cursor: Cursor, rows: list[Forwarding]) -> None:
    if rows:
        keys = zip(*[(row.to_shard, row.from_shard, row.from_seq, row.n) for row in rows], strict=True)
        cursor.execute(
            """
            DELETE FROM guerdon.forwarded f
            USING unnest(%s::smallint[], %s::smallint[], %s::bigint[], %s::integer[])
                AS d (to_shard, from_shard, from_seq, n)
            WHERE (f.to_shard, f.from_shard, f.from_seq, f.n) = (d.to_shard, d.from_shard, d.from_seq, d.n)
            """,
            tuple(map(list, keys)),
        )


def _renamed(forwarded: Forwarded) -> Forwarded:
    """Return the event, with a new name where an earlier release has given it one too long for the log."""
    if len(forwarded.event_id) <= ID_CHARACTERS_MAX:
        return forwarded
    origin = forwarded.event
    return structs.replace(forwarded, event_id=own_id("forwarded", origin.source, origin.event_id))


DECIDABLE = f"""
    (w.until <= to_timestamp(%(passed_ms)s / 1000.0)
     OR EXISTS (SELECT FROM guerdon.member_code c WHERE c.code = ANY(w.codes))
     OR {newest("seq", "guerdon.member_state", shard="w.referrer_shard", member_id="w.referrer_id")} IS NOT NULL)
"""
"""The condition under which a waiting signup can be decided: its referrer has come, or its time is over everywhere."""

WAITS = f"""
    EXISTS (
        SELECT FROM guerdon.forwarded f
        WHERE f.to_shard = h.shard AND f.occurred_at <= to_timestamp(%(passed_ms)s / 1000.0) AND NOT EXISTS (
            SELECT FROM guerdon.forwarded b
            WHERE b.to_shard = f.to_shard AND b.from_shard = f.from_shard AND (b.from_seq, b.n) < (f.from_seq, f.n)
              AND b.occurred_at > to_timestamp(%(passed_ms)s / 1000.0)
        )
    ) OR EXISTS (SELECT FROM guerdon.waiting_referral w WHERE w.shard = h.shard AND {DECIDABLE})
"""
"""The condition under which something waits to be taken in by a shard `h`."""


def take_waiting(
    cursor: Cursor, shards: Iterable[int], passed_ms: int, *, members: Iterable[str] = (), codes: Iterable[str] = ()
) -> list[Undecided]:
    """Take the signups that waited for their referrer and can be decided, by the tables or by what this batch brings.

    Args:
        cursor: belongs to the transaction that holds the shards' heads.
        shards: the shards of the referees.
        passed_ms: the instant that all partitions have passed.
        members: the ids of members who are new with this batch.
        codes: the referral codes that this batch brings.
    """
    cursor.execute(
        f"""
        DELETE FROM guerdon.waiting_referral w
        WHERE w.shard = ANY(%(shards)s)
          AND ({DECIDABLE} OR w.referrer_id = ANY(%(members)s::text[]) OR w.codes && %(codes)s::text[])
        RETURNING w.shard, w.body
        """,
        {"shards": sorted(shards), "passed_ms": passed_ms, "members": sorted(members), "codes": sorted(codes)},
    )
    return [Undecided(shard, bytes(body)) for shard, body in cursor.fetchall()]


def drained(rows: Iterable[Forwarding]) -> list[Drained]:
    """Return the events that rows carry, in the rows' order."""
    return [Drained(*row[:5], row.event()) for row in rows]


def waited(rows: Iterable[Undecided]) -> list[WaitedSignup]:
    """Return the signups that rows carry, the oldest first."""
    return sorted((WaitedSignup(row.shard, row.waiting()) for row in rows), key=age_of)


def age_of(waited: WaitedSignup) -> tuple[int, str]:
    """Return the key that sorts waiting signups, the oldest first."""
    return waited.waiting.signup.occurred_at, waited.waiting.signup.event_id


def kind_of(event: Attribution | Forwarded) -> str:
    """Return the kind in the source log of an event that Guerdon itself writes about referrals."""
    return OWN_NAMES[type(event)]


def payload_of(event: Attribution | Forwarded) -> bytes:
    """Return the payload of an event for the source log.

    Raises:
        ValueError: the event's id is longer than a reader of the log accepts.
    """
    return _encode(_readable(event))


def _readable(event: Own) -> Own:
    """Refuse a name that a reader of the log would refuse: a log with it could not be read any more."""
    if len(event.event_id) > ID_CHARACTERS_MAX:
        raise ValueError(f"event_id would have {len(event.event_id)} characters; {ID_CHARACTERS_MAX} are allowed")
    return event


def failure_key(waited: WaitedSignup) -> bytes:
    """Return the key under which the failure of a waiting signup is remembered; events have their identity."""
    return b"waiting " + event_identity(waited.waiting.signup.source, waited.waiting.signup.event_id)


def row_of(kind: str, payload: bytes) -> Forwarding | Undecided:
    """Return the row that the quarantine keeps under a kind of `ROWS`."""
    row = msgpack.decode(payload)
    return Forwarding(**row) if kind == ROWS[ForwardedRow] else Undecided(**row)


def as_record(row: Forwarding | Undecided) -> tuple[bytes, ForwardedRow | UndecidedRow]:
    """Return the payload under which the quarantine keeps a row, and the row's name: that of the event it comes from.

    The body is read without the bounds of events, so a row that the log cannot take has a name all the same.
    """
    # a Forwarded is packed as a map; a Waiting is packed as an array, and its first field is the signup
    body: Any = msgpack.decode(row.body)
    origin = body["event"] if isinstance(row, Forwarding) else body[0]
    kind = ForwardedRow if isinstance(row, Forwarding) else UndecidedRow
    member_id = body["member_id"] if isinstance(row, Forwarding) else origin["member_id"]
    named = kind(
        event_id=origin["event_id"], source=origin.get("source", "default"), member_id=member_id,
        occurred_at=origin["occurred_at"],
    )  # fmt: skip
    return msgpack.encode(row._asdict()), named


def tracker_of(body: bytes | None) -> Tracker | None:
    """Return a stored tracker, or None."""
    return None if body is None else _decode_tracker(body)
