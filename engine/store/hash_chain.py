"""Chain the rows of a log, so that a changed, missing or added row shows.

A row's hash is sha256(hash of the row before it in its shard ‖ the row's fields as `binary_copy` packs them, in the
order of COLUMNS, without the hash itself). The first row follows the empty string.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING

from engine.store.binary_copy import NULL, pack_bytes, pack_integer, pack_text, pack_timestamp, timestamp_us

if TYPE_CHECKING:
    from schemas.rewards import Posting

SOURCE_COLUMNS = (
    "seq", "prev_seq", "occurred_at", "recorded_at", "offset_", "partition", "schema_id", "shard",
    "kind", "member_id", "source", "event_id", "payload", "sealed", "hash",
)  # fmt: skip
REWARD_COLUMNS = (
    "pos", "seq", "amount", "occurred_at", "recorded_at", "generation", "shard",
    "type", "unit", "debit", "credit", "rule_id", "rule_version", "campaign", "item", "reason",
    "member_id", "event_id", "order_id", "reward_key", "lot", "available_at", "expires_at", "hash",
)  # fmt: skip

_SOURCE_NUMBERS = Struct(">iqiqiqiqiqiiiiih").pack
_REWARD_NUMBERS = Struct(">iqiqiqiqiqiiih").pack
_SOURCE_COUNT = len(SOURCE_COLUMNS).to_bytes(2, "big")
_REWARD_COUNT = len(REWARD_COLUMNS).to_bytes(2, "big")
_HASH_LENGTH = b"\0\0\0\x20"
_KEY_LENGTH = _HASH_LENGTH


def source_row(
    previous_hash: bytes,
    numbers: tuple[int, int, int, int, int, int, int, int],
    texts: bytes,
    payload: bytes,
    sealed: bytes | None,
) -> tuple[bytes, bytes]:
    """Pack a row of the source log.

    Args:
        previous_hash: of the row before it in the shard.
        numbers: seq, prev_seq, occurred_at and recorded_at in ms, offset, partition, schema_id, shard.
        texts: kind, member_id, source and event_id, packed.
        payload: the event's bytes.
        sealed: the encrypted personal fields.

    Returns:
        the packed row and its hash.
    """
    seq, prev_seq, occurred_ms, recorded_ms, offset, partition, schema_id, shard = numbers
    fields = b"".join(
        (
            _SOURCE_NUMBERS(
                8, seq, 8, prev_seq, 8, timestamp_us(occurred_ms), 8, timestamp_us(recorded_ms),
                8, offset, 4, partition, 4, schema_id, 2, shard,
            ),
            texts,
            pack_bytes(payload),
            pack_bytes(sealed),
        )
    )  # fmt: skip
    row_hash = sha256(previous_hash + fields).digest()
    return b"".join((_SOURCE_COUNT, fields, _HASH_LENGTH, row_hash)), row_hash


def source_texts(kind: str, member_id: str, source: str, event_id: str) -> bytes:
    """Pack the text fields of a source row."""
    return pack_text(kind) + pack_text(member_id) + pack_text(source) + pack_text(event_id)


def posting_fields(posting: Posting) -> bytes:
    """Pack what a posting says; the caller keeps it, as a rule gives the same posting again and again."""
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


def reward_row(
    previous_hash: bytes,
    numbers: tuple[int, int, int, int, int, int, int],
    posting: bytes,
    member_and_event: bytes,
    order_id: bytes,
    keys: tuple[bytes, bytes | None],
    times_ms: tuple[int | None, int | None],
) -> tuple[bytes, bytes]:
    """Pack a row of the reward log.

    Args:
        previous_hash: of the row before it in the generation's shard.
        numbers: pos, seq, amount, occurred_at and recorded_at in ms, generation, shard.
        posting: from `posting_fields`.
        member_and_event: member_id and event_id, packed.
        order_id: packed.
        keys: reward_key and lot.
        times_ms: available_at and expires_at.

    Returns:
        the packed row and its hash.
    """
    pos, seq, amount, occurred_ms, recorded_ms, generation, shard = numbers
    reward_key, lot = keys
    available_ms, expires_ms = times_ms
    fields = b"".join(
        (
            _REWARD_NUMBERS(
                8, pos, 8, seq, 8, amount, 8, timestamp_us(occurred_ms), 8, timestamp_us(recorded_ms),
                4, generation, 2, shard,
            ),
            posting,
            member_and_event,
            order_id,
            _KEY_LENGTH,
            reward_key,
            NULL if lot is None else _KEY_LENGTH + lot,
            pack_timestamp(available_ms),
            pack_timestamp(expires_ms),
        )
    )  # fmt: skip
    row_hash = sha256(previous_hash + fields).digest()
    return b"".join((_REWARD_COUNT, fields, _HASH_LENGTH, row_hash)), row_hash
