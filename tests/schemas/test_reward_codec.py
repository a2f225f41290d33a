"""What is packed by hand is what an Avro library reads, for any reward event."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import CommittedSchemas, Decoder, Encoder, encode_record
from schemas.events import INT64_MAX, TOPIC_TYPES, Erasure
from schemas.rejection import Reason, Rejected
from schemas.reward_codec import RECORD, PostingTexts, RewardEncoder, RewardRow, pack_long, pack_posting
from schemas.writer_schemas import UnreadableSchema, committed_ids, current_texts, read_writer_schema

LOGICAL = json.loads(current_texts()[RECORD])
SCHEMA = parse_schema(json.loads(current_texts()[RECORD].replace('"logicalType": "timestamp-millis"', '"x": 1')))

texts = st.text(max_size=40).map(str.encode) | st.just(("й" * 9_000).encode())
keys = st.binary(min_size=32, max_size=32).map(lambda key: key.hex().encode())
longs = st.integers(0, INT64_MAX)
optional = st.none() | texts
postings = st.builds(
    PostingTexts, texts, texts, optional, optional, optional, optional, st.none() | st.integers(0, 2**31 - 1),
    optional, optional,
)  # fmt: skip
numbers = st.tuples(st.integers(0, 63), longs, longs, longs, longs, longs, st.none() | longs, st.none() | longs)


def read(value: bytes) -> dict[str, Any]:
    body = BytesIO(value)
    assert body.read(5) == b"\0" + committed_ids()[RECORD].to_bytes(4)
    record: Any = schemaless_reader(body, SCHEMA, None)
    assert body.read() == b"", "bytes follow the record"
    return dict(record)


@given(numbers, keys, st.none() | keys, texts, texts, optional, postings)
def test_a_reward_event_is_read_back_equal(
    counts: tuple[Any, ...],
    key: bytes,
    lot: bytes | None,
    member_id: bytes,
    event_id: bytes,
    order_id: bytes | None,
    posting: PostingTexts,
) -> None:
    row = RewardRow._make((*counts, key, lot, member_id, event_id, order_id, pack_posting(posting)))
    record = read(RewardEncoder(committed_ids()[RECORD]).encode(row))
    said = [*row[:-1], *posting]
    assert list(record.values()) == [each.decode() if isinstance(each, bytes) else each for each in said]


def test_the_fields_stand_in_the_order_in_which_they_are_packed() -> None:
    names = [field["name"] for field in LOGICAL["fields"]]
    packed = [name.removesuffix("_ms") for name in RewardRow._fields[:-1]]
    assert names == [*packed, *PostingTexts._fields]


@pytest.mark.parametrize("number", [0, 1, 63, 64, 8_191, 8_192, 2**27 - 1, 2**27, 2**41, INT64_MAX])
def test_a_long_is_avros_zigzag_varint(number: int) -> None:
    assert schemaless_reader(BytesIO(pack_long(number)), parse_schema("long"), None) == number


def test_instants_are_kept_within_a_bound_and_stay_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.reward_codec._KEPT_MAX", 2)
    encoder = RewardEncoder(committed_ids()[RECORD])
    end = pack_posting(PostingTexts(b"t", b"u", None, None, None, None, None, None, None))
    for at_ms in (1, 2, 3, 4, 1):
        row = RewardRow(1, 1, 1, 1, at_ms, at_ms + 10, None, None, b"0" * 64, None, b"m", b"e", None, end)
        record = read(encoder.encode(row))
        assert (record["occurred_at"], record["recorded_at"]) == (at_ms, at_ms + 10)


def test_a_reward_event_is_none_of_the_events_that_come_in() -> None:
    with pytest.raises(UnreadableSchema, match=r"guerdon\.RewardEvent.*none of Guerdon's events"):
        read_writer_schema(current_texts()[RECORD])
    value = b"\0" + committed_ids()[RECORD].to_bytes(4) + bytes(40)
    for topic in TOPIC_TYPES:
        with pytest.raises(Rejected) as caught:
            Decoder(CommittedSchemas(), 1_000).decode(topic, value)
        assert caught.value.reason is Reason.UNKNOWN_SCHEMA


def test_events_that_come_in_are_encoded_as_before() -> None:
    event = Erasure(event_id="e", member_id="m", occurred_at=1)
    plain = {"event_id": "e", "member_id": "m", "occurred_at": 1}
    assert Encoder().encode(event) == encode_record(committed_ids()["Erasure"], current_texts()["Erasure"], plain)
