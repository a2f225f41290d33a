"""Whatever arrives, decoding ends in an event or in `Rejected`, and soon."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from functools import cache
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.codec import CommittedSchemas, Decoder, Encoder
from schemas.events import TOPIC_TYPES, TYPE_NAMES, Event
from schemas.json_events import decode_json, event_from_object, event_to_object
from schemas.partitioning import shard_of
from schemas.rejection import Rejected
from schemas.writer_schemas import committed_texts
from tests.strategies.events import events, upstream_events

DECODER = Decoder(CommittedSchemas(), bytes_max=4_096)
SECONDS_MAX = 0.5
topics = st.sampled_from(sorted(TOPIC_TYPES))
schema_ids = st.sampled_from(sorted(committed_texts())) | st.integers(0, 2**32 - 1)
fast = settings(max_examples=300, deadline=timedelta(seconds=SECONDS_MAX))


@cache
def _encoder() -> Encoder:
    return Encoder()


def _is_one_short_sentence(rejected: Rejected) -> None:
    assert rejected.message
    assert "\n" not in rejected.message
    assert len(rejected.message) < 500


def _is_taken_or_refused(topic: str, value: bytes) -> None:
    """Decode `value`; an event that comes out must itself be sound: it encodes, and its shard is found."""
    started_s = time.thread_time()
    try:
        _, event = DECODER.decode(topic, value)
    except Rejected as rejected:
        _is_one_short_sentence(rejected)
    else:
        assert DECODER.decode(topic, _encoder().encode(event))[1] == event
        shard_of(getattr(event, "member_id", ""))
    assert time.thread_time() - started_s < SECONDS_MAX


@fast
@given(topics, st.binary(max_size=300))
@example("purchases", b"")
@example("purchases", b"\0")
def test_random_bytes(topic: str, value: bytes) -> None:
    _is_taken_or_refused(topic, value)


@fast
@given(topics, schema_ids, st.binary(max_size=300))
@example("purchases", 1_196_752_898, b"\xff" * 300)
@example("purchases", 1_196_752_898, b"\x80" * 300)
@example("purchases", 1_196_752_898, b"\0" * 300)
def test_random_records_under_known_and_unknown_schemas(topic: str, schema_id: int, record: bytes) -> None:
    _is_taken_or_refused(topic, b"\0" + schema_id.to_bytes(4) + record)


mutations = st.lists(st.tuples(st.integers(0, 2_000), st.sampled_from("xidt"), st.binary(max_size=6)), max_size=4)


def _mutated(value: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    """Overwrite, insert, delete, or cut off at the places named."""
    for place, verb, new in changes:
        at = place % (len(value) + 1)
        if verb == "x":
            value = value[:at] + new + value[at + len(new) :]
        elif verb == "i":
            value = value[:at] + new + value[at:]
        elif verb == "d":
            value = value[:at] + value[at + len(new) :]
        else:
            value = value[:at]
    return value


@fast
@given(upstream_events, mutations)
def test_valid_messages_with_bytes_changed(event: Event, changes: list[tuple[int, str, bytes]]) -> None:
    topic = next(topic for topic, names in TOPIC_TYPES.items() if TYPE_NAMES[type(event)] in names)
    value = _encoder().encode(event)
    _is_taken_or_refused(topic, value[:5] + _mutated(value[5:], changes))
    _is_taken_or_refused(topic, _mutated(value, changes))


def _json_is_taken_or_refused(line: str | bytes) -> None:
    started_s = time.thread_time()
    try:
        event = decode_json(line)
    except Rejected as rejected:
        _is_one_short_sentence(rejected)
    else:
        assert event_from_object(event_to_object(event)) == event
        _encoder().encode(event)
    assert time.thread_time() - started_s < SECONDS_MAX


@fast
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_random_text_as_json(line: str | bytes) -> None:
    _json_is_taken_or_refused(line)


@fast
@given(events, mutations)
def test_valid_json_lines_with_bytes_changed(event: Event, changes: list[tuple[int, str, bytes]]) -> None:
    _json_is_taken_or_refused(_mutated(json.dumps(event_to_object(event)).encode(), changes))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@fast
@given(events, st.data())
def test_valid_objects_with_a_value_changed(event: Event, data: st.DataObject) -> None:
    obj: dict[str, Any] = event_to_object(event)
    obj[data.draw(st.sampled_from(sorted(obj)))] = data.draw(json_values)
    _json_is_taken_or_refused(json.dumps(obj))
    lines = obj.get("items")
    if isinstance(lines, list) and lines and isinstance(lines[0], dict) and lines[0]:
        lines[0][data.draw(st.sampled_from(sorted(lines[0])))] = data.draw(json_values)
        _json_is_taken_or_refused(json.dumps(obj))
