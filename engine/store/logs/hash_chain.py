"""Chain the rows of a log by hashes, so that a changed, missing or added row shows.

A row's hash is sha256(hash of the row before it in its shard ‖ the row's fields as `binary_copy` packs them, in the
order of its COLUMNS, without the hash itself). The first row follows the empty string. In place of a generation's
number every chain has `CHAINED_AS`: two generations that decided the same then end in the same hash.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING

from engine.store.logs.binary_copy import pack_bytes, pack_integer, pack_text, pack_timestamp

if TYPE_CHECKING:
    from schemas.rewards import Posting

SOURCE_COLUMNS = (
    "seq", "prev_seq", "occurred_at", "recorded_at", "offset_", "partition", "schema_id", "shard",
    "kind", "member_id", "source", "event_id", "payload", "sealed", "hash",
)  # fmt: skip
REWARD_COLUMNS = (
    "pos", "amount",
    "seq", "occurred_at", "recorded_at", "generation", "shard", "member_id", "event_id", "order_id",
    "type", "unit", "debit", "credit", "rule_id", "rule_version", "campaign", "item", "reason",
    "reward_key", "lot", "available_at", "expires_at", "hash",
)  # fmt: skip

CHAINED_AS = 1

_SOURCE_NUMBERS = Struct(">iqiqiqiqiqiiiiih").pack
_REWARD_NUMBERS = Struct(">iqiq").pack
_EVENT_NUMBERS = Struct(">iqiqiqiiih").pack
_NUMBER_AT = 40
"""The place of the generation's number in packed event fields."""

_SOURCE_COUNT = len(SOURCE_COLUMNS).to_bytes(2, "big")
_REWARD_COUNT = len(REWARD_COLUMNS).to_bytes(2, "big")


def source_row(
    previous_hash: bytes,
    numbers: tuple[int, int, int, int, int, int, int, int],
    texts: bytes,
    payload: bytes,
    sealed: bytes,
) -> tuple[bytes, bytes]:
    """Pack a row of the source log.

    Args:
        previous_hash: the hash of the row before it in the shard.
        numbers: seq, prev_seq, occurred_at and recorded_at in PostgreSQL's microseconds, offset, partition, schema_id,
            shard.
        texts: kind, member_id, source and event_id, packed.
        payload: the event's bytes, packed.
        sealed: the encrypted personal fields, packed.

    Returns:
        the packed row and its hash.
    """
    seq, prev_seq, occurred_us, recorded_us, offset, partition, schema_id, shard = numbers
    fields = b"%b%b%b%b" % (
        _SOURCE_NUMBERS(
            8, seq, 8, prev_seq, 8, occurred_us, 8, recorded_us, 8, offset, 4, partition, 4, schema_id, 2, shard
        ),
        texts,
        payload,
        sealed,
    )  # fmt: skip
    row_hash = sha256(previous_hash + fields).digest()
    return b"%b%b\0\0\0\x20%b" % (_SOURCE_COUNT, fields, row_hash), row_hash


def posting_fields(posting: Posting) -> bytes:
    """Pack the fields of a posting; the caller keeps them, as a rule gives the same posting again and again."""
    return b"".join(
        (
            pack_text(posting.type),
            pack_text(posting.unit),
            pack_text(posting.debit),
            pack_text(posting.credit),
            pack_text(posting.rule_id),
            pack_integer(posting.rule_version),
            pack_text(posting.campaign),
            pack_text(posting.item),
            pack_text(posting.reason),
        )
    )


def event_fields(numbers: tuple[int, int, int, int], texts: bytes) -> bytes:
    """Pack the fields that the reward events of one source event share.

    Args:
        numbers: seq, occurred_at and recorded_at in PostgreSQL's microseconds, shard.
        texts: member_id, event_id and order_id, packed.
    """
    seq, occurred_us, recorded_us, shard = numbers
    return _EVENT_NUMBERS(8, seq, 8, occurred_us, 8, recorded_us, 4, CHAINED_AS, 2, shard) + texts


def fields_in(event: bytes, generation: int) -> bytes:
    """Return the fields from `event_fields` with the number of `generation`, as its log stores them."""
    return b"%b%b%b" % (event[:_NUMBER_AT], generation.to_bytes(4), event[_NUMBER_AT + 4 :])


def reward_row(  # noqa: PLR0913  a row has many parts, and an object a row would cost more than the row
    previous_hash: bytes,
    pos: int,
    amount: int,
    event: bytes,
    posting: bytes,
    reward_key: bytes,
    times: bytes,
    *,
    stored: bytes | None = None,
) -> tuple[bytes, bytes]:
    """Pack a row of the reward log.

    Args:
        previous_hash: the hash of the row before it in the generation's shard.
        pos: the position of the row.
        amount: the amount, in the posting's unit.
        event: the fields that `event_fields` has packed.
        posting: the fields that `posting_fields` has packed.
        reward_key: the 32 bytes of the key, not packed.
        times: the fields that `lot_and_times` has packed.
        stored: the fields that `fields_in` has packed, for a row of another generation than CHAINED_AS.

    Returns:
        the packed row and its hash.
    """
    numbers = _REWARD_NUMBERS(8, pos, 8, amount)
    fields = b"%b%b%b\0\0\0\x20%b%b" % (numbers, event, posting, reward_key, times)
    row_hash = sha256(previous_hash + fields).digest()
    if stored is not None:
        fields = b"%b%b%b\0\0\0\x20%b%b" % (numbers, stored, posting, reward_key, times)
    return b"%b%b\0\0\0\x20%b" % (_REWARD_COUNT, fields, row_hash), row_hash


def lot_and_times(lot: bytes | None, available_ms: int | None, expires_ms: int | None) -> bytes:
    """Pack the lot (None: the event's own) and the times between which its points can be spent."""
    return pack_bytes(lot) + pack_timestamp(available_ms) + pack_timestamp(expires_ms)
