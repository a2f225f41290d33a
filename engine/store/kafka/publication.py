"""Read the live reward log for its topic, and remember the position that the topic has reached.

The rows come from the view `guerdon.identified_reward_event`: what `reward.reward_event` says, with the true ids of
erased members, as whoever follows the topic knows each account by its id. PostgreSQL sends them in
the format of its binary COPY, which is taken apart here: a row costs a third of the driver's own objects.
"""

from __future__ import annotations

from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from engine.store.cursor import one
from engine.store.kafka import incarnations
from engine.store.kafka.incarnations import NONE
from engine.store.logs.binary_copy import HEADER, POSTGRES_EPOCH_MS
from schemas.reward_codec import PostingTexts, RewardRow, pack_posting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor

POSTINGS_KEPT_MAX = 10_000

# values in place of NULL, so that these columns always have their full length
_NEVER_US = -(2**63)  # '-infinity'
_NO_LOT = b"-" * 64
_NUMBERS_AND_KEYS = Struct(">2x4xh4xq4xq4xq4xq4xq4xq4xq4x64s4x64s4x?")
_LENGTH = Struct(">i")
_END_BYTES = 2


class Range(NamedTuple):
    """Name the positions of one shard after `after_pos` up to `upto_pos`, which is the last of a source event."""

    shard: int
    after_pos: int
    upto_pos: int
    begun: str = NONE
    """The incarnation whose beginning the topic has for this shard."""


_WITHOUT_CURSOR = """
    SELECT s.shard, %(generation)s, 0 FROM guerdon.shard_lock s
    WHERE NOT EXISTS (
        SELECT FROM guerdon.publication_cursor c WHERE c.generation = %(generation)s AND c.shard = s.shard
    )
"""


def begin(cursor: Cursor, generation: int) -> None:
    """Give every shard of `generation` a cursor; a new one stands before the first position.

    No key of the table keeps a shard to one cursor, so the table is locked against other writers meanwhile.
    """
    where = {"generation": generation}
    cursor.execute(_WITHOUT_CURSOR, where)
    if cursor.fetchone() is not None:
        cursor.execute("LOCK TABLE guerdon.publication_cursor IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(f"INSERT INTO guerdon.publication_cursor (shard, generation, pos) {_WITHOUT_CURSOR}", where)


def lock_ranges(cursor: Cursor, generation: int, shards_max: int, positions_max: int) -> tuple[str, list[Range]]:
    """Lock the cursors of the shards that are furthest behind, and return the incarnation and the ranges to publish.

    A shard whose beginning under this incarnation the topic does not have yet counts as well, even with nothing to
    follow. A shard that another process publishes is skipped, so that two never send events of one shard crosswise. A
    range of more than `positions_max` is cut after the source event at the cut.
    """
    cursor.execute(
        """
        SELECT c.shard, c.pos, h.pos, c.begun
        FROM guerdon.shard_lock s
        CROSS JOIN LATERAL (
            SELECT n.pos FROM guerdon.publication_cursor n
            WHERE n.generation = %(generation)s AND n.shard = s.shard ORDER BY n.pos DESC LIMIT 1
        ) newest
        CROSS JOIN LATERAL (
            SELECT g.pos FROM guerdon.generation_head g
            WHERE g.generation = %(generation)s AND g.shard = s.shard ORDER BY g.seq DESC LIMIT 1
        ) h
        JOIN guerdon.publication_cursor c
          ON c.generation = %(generation)s AND c.shard = s.shard AND c.pos = newest.pos
        WHERE (h.pos > c.pos OR c.begun <> (SELECT coalesce(max(incarnation), '') FROM guerdon.incarnation))
        ORDER BY h.pos - c.pos DESC, c.shard LIMIT %(shards_max)s FOR UPDATE OF c SKIP LOCKED
        """,
        {"generation": generation, "shards_max": shards_max},
    )
    rows = cursor.fetchall()

    # Under the locks, no other incarnation can begin before this transaction ends. A cursor that was read before its
    # lock may have reached the head meanwhile.
    incarnation = incarnations.in_force(cursor) if rows else NONE
    ranges = [Range(*row) for row in rows if row[2] > row[1] or row[3] != incarnation]
    return incarnation, [
        each._replace(upto_pos=_end_of_event(cursor, generation, each.shard, each.after_pos + positions_max))
        if each.upto_pos - each.after_pos > positions_max
        else each
        for each in ranges
    ]


def _end_of_event(cursor: Cursor, generation: int, shard: int, pos: int) -> int:
    (end,) = one(
        cursor,
        """
        SELECT max(e.pos) FROM guerdon.reward_event e
        WHERE e.generation = %(generation)s AND e.shard = %(shard)s AND e.pos >= %(pos)s AND e.pos < %(pos)s + 100000
          AND e.seq = (SELECT s.seq FROM guerdon.reward_event s
                       WHERE s.generation = %(generation)s AND s.shard = %(shard)s AND s.pos = %(pos)s)
        """,
        {"generation": generation, "shard": shard, "pos": pos},
    )
    return int(end)


class LogReader:
    """Read ranges of the live log; a posting that many rows share is packed once."""

    def __init__(self) -> None:
        self._postings: dict[bytes, bytes] = {}

    def read(self, cursor: Cursor, generation: int, ranges: list[Range]) -> list[RewardRow]:
        """Return the rows of `ranges`, each shard's in their order; none if `generation` is no longer the live one."""
        query = cursor.mogrify(
            """
            COPY (
                SELECT e.shard, e.pos, e.seq, e.amount, e.occurred_at, e.recorded_at,
                       coalesce(e.available_at, '-infinity'), coalesce(e.expires_at, '-infinity'),
                       e.reward_key, coalesce(e.lot, repeat('-', 64)), e.order_id IS NOT NULL,
                       e.member_id, e.event_id, coalesce(e.order_id, ''),
                       record_send(ROW(e.type, e.unit, e.debit, e.credit, e.item, e.rule_id, e.rule_version,
                                       e.campaign, e.reason))
                FROM unnest(%(shards)s::smallint[], %(after)s::bigint[], %(upto)s::bigint[]) AS r (shard, after, upto)
                CROSS JOIN LATERAL (
                    SELECT * FROM guerdon.identified_reward_event v
                    WHERE v.shard = r.shard AND v.pos > r.after AND v.pos <= r.upto
                    OFFSET 0  -- else PostgreSQL, where it believes the log short, reads it from its beginning
                ) e
                WHERE EXISTS (SELECT 1 FROM guerdon.generation g
                              WHERE g.generation = %(generation)s AND g.status = 'live')
                ORDER BY e.shard, e.pos
            ) TO STDOUT (FORMAT binary)
            """,
            {
                "generation": generation,
                "shards": [each.shard for each in ranges],
                "after": [each.after_pos for each in ranges],
                "upto": [each.upto_pos for each in ranges],
            },
        )

        copied = BytesIO()
        cursor.copy_expert(query, copied, size=1 << 20)
        return list(self._rows(copied.getvalue()))

    def _rows(self, copied: bytes) -> Iterator[RewardRow]:
        """Take the rows apart, in place: a call for each field would cost as much as all the rest."""
        # the header, then rows up to the two bytes of the trailer
        at, end = len(HEADER), len(copied) - _END_BYTES
        unpack, length_at = _NUMBERS_AND_KEYS.unpack_from, _LENGTH.unpack_from
        while at < end:
            # columns of fixed length
            shard, pos, seq, amount, occurred, recorded, available, expires, key, lot, ordered = unpack(copied, at)

            # four columns with a length before each
            begin_ = at + _NUMBERS_AND_KEYS.size + _LENGTH.size
            at = begin_ + length_at(copied, begin_ - _LENGTH.size)[0]
            member_id = copied[begin_:at]
            begin_ = at + _LENGTH.size
            at = begin_ + length_at(copied, at)[0]
            event_id = copied[begin_:at]
            begin_ = at + _LENGTH.size
            at = begin_ + length_at(copied, at)[0]
            order_id = copied[begin_:at]
            begin_ = at + _LENGTH.size
            at = begin_ + length_at(copied, at)[0]

            yield RewardRow(
                shard, pos, seq, amount,
                occurred // 1000 + POSTGRES_EPOCH_MS, recorded // 1000 + POSTGRES_EPOCH_MS,
                None if available == _NEVER_US else available // 1000 + POSTGRES_EPOCH_MS,
                None if expires == _NEVER_US else expires // 1000 + POSTGRES_EPOCH_MS,
                key, None if lot == _NO_LOT else lot, member_id, event_id,
                order_id if ordered else None,
                self._posting(copied[begin_:at]),
            )  # fmt: skip

    def _posting(self, sent: bytes) -> bytes:
        packed = self._postings.get(sent)
        if packed is None:
            if len(self._postings) >= POSTINGS_KEPT_MAX:
                self._postings.clear()
            packed = self._postings[sent] = pack_posting(_unpack_posting(sent))
        return packed


def _unpack_posting(sent: bytes) -> PostingTexts:
    """Take apart a row from `record_send`: the number of columns, then type, length and bytes of each."""
    at = _LENGTH.size
    fields: list[bytes | None] = []
    for _ in PostingTexts._fields:
        begin_ = at + 2 * _LENGTH.size
        (length,) = _LENGTH.unpack_from(sent, begin_ - _LENGTH.size)
        at = begin_ + max(0, length)
        fields.append(None if length < 0 else sent[begin_:at])

    kind, unit, debit, credit, item, rule_id, version, campaign, reason = fields
    return PostingTexts(
        type=kind or b"", unit=unit or b"", debit=debit, credit=credit, item=item, rule_id=rule_id,
        rule_version=None if version is None else int.from_bytes(version), campaign=campaign, reason=reason,
    )  # fmt: skip


def move(cursor: Cursor, generation: int, incarnation: str, ranges: list[Range]) -> None:
    """Note that the topic has `ranges` under an incarnation; the caller holds their cursors."""
    cursor.execute(
        """
        UPDATE guerdon.publication_cursor c SET pos = r.upto, begun = %s, as_of = clock_timestamp()
        FROM unnest(%s::smallint[], %s::bigint[], %s::bigint[]) AS r (shard, after, upto)
        WHERE c.generation = %s AND c.shard = r.shard AND c.pos = r.after
        """,
        (
            incarnation, [each.shard for each in ranges], [each.after_pos for each in ranges],
            [each.upto_pos for each in ranges], generation,
        ),
    )  # fmt: skip


def lag(cursor: Cursor) -> int:
    """Return the number of reward events of the live log that the topic does not have yet."""
    (behind,) = one(
        cursor,
        """
        SELECT coalesce(sum(h.pos - coalesce(c.pos, 0)), 0)::bigint
        FROM guerdon.generation g
        JOIN guerdon.generation_head h USING (generation)
        LEFT JOIN guerdon.publication_cursor c ON c.generation = h.generation AND c.shard = h.shard
        WHERE g.status = 'live'
        """,
    )
    return int(behind)
