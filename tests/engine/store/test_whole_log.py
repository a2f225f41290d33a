"""The whole source log is read fast, and says what the log says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.intake.batch import admitted_from
from engine.live.batch import Batch
from engine.store.database import transaction
from engine.store.generations import shadows
from engine.store.logs import history
from engine.store.logs.whole_log import WholeLog, place
from schemas.admitted_values import Truncated, reader_of
from schemas.codec import CommittedSchemas, Decoder, Encoder, encode_record
from schemas.events import TOPIC_TYPES, TYPE_NAMES, Erasure, Event, Purchase, Signup
from schemas.partitioning import shard_of
from schemas.rejection import Rejected
from schemas.writer_schemas import committed_ids, committed_texts, read_writer_schema
from tests.strategies.events import BY_TYPE, upstream_events
from tests.strategies.replays import everything
from tests.system.batches import SECRET, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Callable

ENCODER = Encoder()
DECODER = Decoder(CommittedSchemas(), 1 << 30)
VERSION_1 = next(
    schema_id
    for schema_id, text in committed_texts().items()
    if '"guerdon_version": 1,' in text and '"name": "Purchase"' in text
)
PLAIN = """\
schema: guerdon/1
programme: plain
timezone: UTC
currency: USD
rules:
- {id: r, on: purchase, give: [{points: 1}]}
"""


def readers() -> dict[int, Callable[[bytes], Event]]:
    """Return a reader for each type that upstream sends; each type must have one."""
    readers = {}
    for name in (kind.__name__ for kind in TYPE_NAMES):
        reader = reader_of(read_writer_schema(committed_texts()[committed_ids()[name]]))
        assert reader is not None, name
        readers[committed_ids()[name]] = reader
    return readers


READERS = readers()


def read(value: bytes) -> Event:
    return READERS[int.from_bytes(value[1:5])](value)


def decoded(value: bytes, event: Event) -> Event:
    topic = next(topic for topic, kinds in TOPIC_TYPES.items() if TYPE_NAMES[type(event)] in kinds)
    return DECODER.decode(topic, value)[1]


@given(upstream_events)
def test_a_value_that_was_admitted_is_read_as_the_decoder_read_it(event: Event) -> None:
    value = ENCODER.encode(event)
    assert read(value) == decoded(value, event) == event


@given(BY_TYPE["purchase"] | BY_TYPE["refund"], st.data())
def test_a_value_that_was_cut_off_is_never_taken_for_an_event(event: Event, data: st.DataObject) -> None:
    value = ENCODER.encode(event)
    cut = value[: data.draw(st.integers(5, len(value) - 1))]
    with pytest.raises((Truncated, IndexError, UnicodeDecodeError, Rejected)):
        read(cut)


def test_lists_in_blocks_with_their_size_are_read_too() -> None:
    """A producer may write a negative count and the block's bytes; the Python libraries never do."""
    event = Purchase(
        event_id="e", member_id="m", occurred_at=1, order_id="o", currency="USD", amount=1, coupons=("a", "b")
    )
    value, blocks = ENCODER.encode(event), b"\x04\x02a\x02b\0"
    assert value.count(blocks) == 1
    assert read(value.replace(blocks, b"\x03\x08\x02a\x02b\0")) == event


def test_for_an_older_version_no_reader_is_made() -> None:
    assert reader_of(read_writer_schema(committed_texts()[VERSION_1])) is None


def fill(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write everything that a log may hold: an old schema version, and a member who was erased, among it."""
    everything(database_url, monkeypatch, 300)
    record: dict[str, Any] = {
        "event_id": "old", "member_id": "m1", "occurred_at": START_MS, "order_id": "old", "currency": "USD",
        "total": 700,
    }  # fmt: skip
    value = encode_record(VERSION_1, committed_texts()[VERSION_1], record)
    event = DECODER.decode("purchases", value)[1]
    joined = Signup(event_id="s9", member_id="m9", occurred_at=START_MS, birthday="1990-05-01")
    gone = Erasure(event_id="x9", member_id="m9", occurred_at=START_MS + 1)
    commit(database_url, Batch([admitted_from(event, shard_of("m1"), VERSION_1, value, SECRET)]))
    commit(database_url, Batch([admitted(joined), admitted(gone)]))


def as_it_lies(cursor: Any, shard: int) -> list[tuple[int, bytes]]:
    """Return when each row of a shard occurred (ms) and its payload."""
    cursor.execute(
        "SELECT guerdon.ms(occurred_at), payload FROM guerdon.source_event WHERE shard = %s ORDER BY seq", (shard,)
    )
    return [(occurred_ms, bytes(payload)) for occurred_ms, payload in cursor.fetchall()]


@pytest.mark.postgres
def test_pages_are_those_of_the_history(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database_url, monkeypatch)
    with transaction(database_url) as cursor:
        upto = shadows.positions(cursor, 1)
        slow, fast = history.History(cursor, bare=True), WholeLog(cursor)
        read = {shard: list(fast.shard(shard, seq, rows_max=7)) for shard, seq in upto.items()}
        for shard, seq in upto.items():
            expected = [slow.at(shard, each) for each in range(1, seq + 1)]
            assert [row.recorded for row in read[shard]] == expected
            assert [row[2:] for row in read[shard]] == as_it_lies(cursor, shard)
            assert fast.page(shard, 2, seq) == read[shard][2:]
            assert fast.page(shard, seq, seq) == []
        together = list(fast.merged(upto))
    assert together == sorted((row for rows in read.values() for row in rows), key=place)
    assert [row.recorded.event_id for row in together if row.recorded.bare and row.recorded.member_id == "m9"] == ["s9"]
    assert {row.recorded.kind for row in together} >= {"purchase", "signup", "activation", "tick", "erasure", "release"}


@pytest.mark.postgres
def test_what_a_shard_has_beyond_the_wanted_position_is_left_out(database_url: str) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(number)) for number in range(5)]))
    with transaction(database_url) as cursor:
        rows = list(WholeLog(cursor).shard(shard_of("m1"), 4))
    assert [row.recorded.event_id for row in rows] == ["activation-1", "e0", "e1", "e2"]
