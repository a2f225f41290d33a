"""Turn reward events into Kafka message values: Confluent framing around Avro, as `avro/reward_event.avsc` lays it out.

An Avro library walks the schema for each record, which costs more than everything else in publishing it. Here the
fields are packed in the schema's order, and what many records share (a rule's posting, an instant) is packed once.
Tests read the values back with the library.
"""

from __future__ import annotations

from typing import NamedTuple

RECORD = "RewardEvent"

_CHUNK = 1 << 14
_KEPT_MAX = 100_000
_NULL = b"\0"
_PRESENT = b"\2"
_KEY_LENGTH = b"\x80\1"  # 64, the characters of a reward_key


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_LAST = tuple(_varint(chunk) for chunk in range(_CHUNK))
_MORE = tuple(bytes((chunk & 0x7F | 0x80, chunk >> 7 | 0x80)) for chunk in range(_CHUNK))


class PostingTexts(NamedTuple):
    """Hold a posting: all of a reward event but its amount, member and time; texts in UTF-8, None where missing."""

    type: bytes
    unit: bytes
    debit: bytes | None
    credit: bytes | None
    item: bytes | None
    rule_id: bytes | None
    rule_version: int | None
    campaign: bytes | None
    reason: bytes | None


class RewardRow(NamedTuple):
    """Hold one reward event: instants in ms since 1970 UTC, texts in UTF-8, the keys as 64 characters of hex.

    `posting` is from `pack_posting`.
    """

    shard: int
    pos: int
    seq: int
    amount: int
    occurred_at_ms: int
    recorded_at_ms: int
    available_at_ms: int | None
    expires_at_ms: int | None
    reward_key: bytes
    lot: bytes | None
    member_id: bytes
    event_id: bytes
    order_id: bytes | None
    posting: bytes


class RewardEncoder:
    """Encode reward events under the schema id that the registry, or the committed table, gives their record."""

    def __init__(self, schema_id: int) -> None:
        self._frame = frame(schema_id)
        self._instants: dict[int, bytes] = {}

    def encode(self, row: RewardRow) -> bytes:
        """Return the message value of `row`."""
        # this runs for every published event: one expression, in the order of the schema
        (
            shard, pos, seq, amount, occurred_at_ms, recorded_at_ms, available_at_ms, expires_at_ms,
            reward_key, lot, member_id, event_id, order_id, posting,
        ) = row  # fmt: skip
        return b"%b%b%b%b%b%b%b%b%b%b%b%b%b%b%b%b%b%b" % (
            self._frame,
            pack_long(shard), pack_long(pos), pack_long(seq), pack_long(amount),
            self._instant(occurred_at_ms), self._instant(recorded_at_ms),
            _NULL if available_at_ms is None else _PRESENT + self._instant(available_at_ms),
            _NULL if expires_at_ms is None else _PRESENT + self._instant(expires_at_ms),
            _KEY_LENGTH, reward_key,
            _NULL if lot is None else _PRESENT + _KEY_LENGTH + lot,
            pack_long(len(member_id)), member_id, pack_long(len(event_id)), event_id,
            _NULL if order_id is None else _PRESENT + pack_long(len(order_id)) + order_id,
            posting,
        )  # fmt: skip

    def _instant(self, at_ms: int) -> bytes:
        """Return an instant packed, once for all rows that share it."""
        packed = self._instants.get(at_ms)
        if packed is None:
            if len(self._instants) >= _KEPT_MAX:
                self._instants.clear()
            packed = self._instants[at_ms] = pack_long(at_ms)
        return packed


def frame(schema_id: int) -> bytes:
    """Return the first bytes of a message whose schema has this id."""
    return b"\0" + schema_id.to_bytes(4)


def pack_posting(posting: PostingTexts) -> bytes:
    """Return the end of the record, from `type` to `reason`."""
    version = posting.rule_version
    return b"".join(
        (
            pack_long(len(posting.type)), posting.type, pack_long(len(posting.unit)), posting.unit,
            _optional(posting.debit), _optional(posting.credit), _optional(posting.item), _optional(posting.rule_id),
            _NULL if version is None else _PRESENT + pack_long(version),
            _optional(posting.campaign), _optional(posting.reason),
        )
    )  # fmt: skip


def pack_long(number: int) -> bytes:
    """Return Avro's zigzag varint of a number that is not negative, 14 bits at a time."""
    rest = number << 1
    if rest < _CHUNK:
        return _LAST[rest]
    encoded = b""
    while rest >= _CHUNK:
        encoded += _MORE[rest & (_CHUNK - 1)]
        rest >>= 14
    return encoded + _LAST[rest]


def _optional(text: bytes | None) -> bytes:
    return _NULL if text is None else _PRESENT + pack_long(len(text)) + text
