"""Events travel as framed Avro and come back equal; what cannot be read is refused with its reason."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import CommittedSchemas, Decoder, Encoder, encode_record
from schemas.events import EVENT_TYPES, TOPIC_TYPES, TYPE_NAMES, Event, Item, Profile, Purchase, Signup
from schemas.rejection import Reason, Rejected
from schemas.upcast import CURRENT_VERSIONS, UPCASTS, purchase_from_1_to_2, upcast
from schemas.writer_schemas import (
    UnreadableSchema,
    committed_ids,
    committed_texts,
    current_texts,
    read_writer_schema,
)
from tests.strategies.events import BY_TYPE, upstream_events

BYTES_MAX = 100_000
PURCHASE = Purchase(
    event_id="e1",
    member_id="m1",
    occurred_at=1_714_556_100_123,
    order_id="o1",
    currency="USD",
    amount=500,
    items=(Item(line_id="1", sku="s", quantity="1.5", amount=500),),
)
OLD_PURCHASE: dict[str, Any] = {
    "event_id": "e1",
    "member_id": "m1",
    "occurred_at": 1_714_556_100_123,
    "order_id": "o1",
    "currency": "USD",
    "total": 500,
    "items": [{"line_id": "1", "sku": "s", "quantity": 2, "amount": 500}],
}
V1_ID, V1_TEXT = next((i, t) for i, t in committed_texts().items() if json.loads(t)["guerdon_version"] == 1)
HEAD: dict[str, Any] = {"event_id": "e", "member_id": "m", "occurred_at": 7}
HEAD_FIELDS = [
    {"name": "event_id", "type": "string"},
    {"name": "member_id", "type": "string"},
    {"name": "occurred_at", "type": "long"},
]


def topic_of(event: Event) -> str:
    return next(topic for topic, names in TOPIC_TYPES.items() if TYPE_NAMES[type(event)] in names)


def decoder(texts: dict[int, str] | None = None, bytes_max: int = BYTES_MAX) -> Decoder:
    return Decoder(CommittedSchemas({**committed_texts(), **(texts or {})}), bytes_max)


def refused(value: bytes, topic: str = "purchases", texts: dict[int, str] | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decoder(texts).decode(topic, value)
    return caught.value


def erasure_schema(*fields: dict[str, Any], occurred_at: Any = "long", **attributes: Any) -> str:
    head = [HEAD_FIELDS[0], HEAD_FIELDS[1], {"name": "occurred_at", "type": occurred_at}]
    record = {"type": "record", "name": "Erasure", "namespace": "guerdon", "fields": [*head, *fields]}
    return json.dumps(record | attributes)


@given(upstream_events)
def test_an_event_comes_back_equal(event: Event) -> None:
    schema_id, decoded = decoder().decode(topic_of(event), Encoder().encode(event))
    assert decoded == event
    assert type(decoded) is type(event)
    assert schema_id == committed_ids()[type(event).__name__]


@given(BY_TYPE["decision"])
def test_no_topic_carries_a_decision(event: Event) -> None:
    for topic in TOPIC_TYPES:
        assert refused(Encoder().encode(event), topic).reason is Reason.UNKNOWN_SCHEMA


def test_every_event_type_has_a_committed_schema_with_exactly_its_fields() -> None:
    for name, kind in EVENT_TYPES.items():
        record = json.loads(current_texts()[kind.__name__])
        assert record["guerdon_version"] == CURRENT_VERSIONS[kind.__name__]
        assert {field["name"] for field in record["fields"]} == set(kind.__struct_fields__), name


def test_committed_ids_fit_the_framing_and_lie_above_what_registries_hand_out() -> None:
    assert all(1_000_000_000 < schema_id < 2**31 for schema_id in committed_texts())


def test_the_frame_is_a_zero_byte_and_the_schema_id_in_big_endian() -> None:
    value = Encoder({"Purchase": 258}).encode(PURCHASE)
    assert value[:5] == b"\0\0\0\1\2"


def test_a_purchase_of_version_1_arrives_as_the_current_one() -> None:
    schema_id, event = decoder().decode("purchases", encode_record(V1_ID, V1_TEXT, OLD_PURCHASE))
    assert schema_id == V1_ID
    assert event == Purchase(
        event_id="e1",
        member_id="m1",
        occurred_at=1_714_556_100_123,
        order_id="o1",
        currency="USD",
        amount=500,
        items=(Item(line_id="1", sku="s", quantity="2", amount=500),),
    )


def test_upcasts_leave_their_input_alone_and_form_a_chain_to_the_current_version() -> None:
    before = json.dumps(OLD_PURCHASE)
    purchase = upcast("Purchase", 1, OLD_PURCHASE)
    assert json.dumps(OLD_PURCHASE) == before
    assert (purchase["amount"], "total" in purchase, purchase["items"][0]["quantity"]) == (500, False, "2")
    assert upcast("Purchase", 2, purchase) == purchase
    for name, current in CURRENT_VERSIONS.items():
        assert all((name, version) in UPCASTS for version in range(1, current))


def test_an_upcast_passes_what_is_no_line_on_to_be_refused() -> None:
    assert purchase_from_1_to_2({"items": ["x", {"quantity": True}]})["items"] == ["x", {"quantity": True}]


def test_a_negative_quantity_of_version_1_is_out_of_range() -> None:
    line = {**OLD_PURCHASE["items"][0], "quantity": -2}
    rejected = refused(encode_record(V1_ID, V1_TEXT, {**OLD_PURCHASE, "items": [line]}))
    assert rejected.reason is Reason.OUT_OF_RANGE
    assert "items[0].quantity" in rejected.message


@pytest.mark.parametrize(
    ("unit", "raw"),
    [
        ("timestamp-millis", 1_714_556_100_123),
        ("timestamp-micros", 1_714_556_100_123_999),
        ("timestamp-nanos", 1_714_556_100_123_999_999),
    ],
)
@pytest.mark.parametrize("nullable", [False, True])
def test_any_unit_of_time_arrives_as_milliseconds(unit: str, raw: int, nullable: bool) -> None:  # noqa: FBT001
    branch = {"type": "long", "logicalType": unit}
    text = erasure_schema(occurred_at=["null", branch] if nullable else branch)
    value = encode_record(9, text, {**HEAD, "occurred_at": raw})
    assert decoder({9: text}).decode("signups", value)[1].occurred_at == 1_714_556_100_123


def test_a_local_time_is_refused_since_nobody_knows_its_zone() -> None:
    text = erasure_schema(occurred_at={"type": "long", "logicalType": "local-timestamp-millis"})
    rejected = refused(encode_record(9, erasure_schema(), HEAD), "signups", {9: text})
    assert rejected.reason is Reason.UNKNOWN_SCHEMA
    assert "local-timestamp-millis" in rejected.message


def test_fields_that_guerdon_does_not_know_are_ignored() -> None:
    text = erasure_schema({"name": "mood", "type": "string"}, {"name": "score", "type": "double"})
    value = encode_record(9, text, {**HEAD, "mood": "fine", "score": float("nan")})
    assert decoder({9: text}).decode("signups", value)[1].event_id == "e"


def test_an_attribute_of_a_profile_may_be_null() -> None:
    event = Profile(event_id="e", member_id="m", occurred_at=1, attributes={"a": None, "b": "c"})
    assert decoder().decode("signups", Encoder().encode(event))[1] == event


@pytest.mark.parametrize(("written", "read"), [("1.50", "1.5"), ("001", "1"), ("0.000", "0"), ("2500", "2500")])
def test_quantities_arrive_canonical(written: str, read: str) -> None:
    value = encode_record(
        committed_ids()["Purchase"],
        current_texts()["Purchase"],
        {**OLD_PURCHASE, "amount": 5, "items": [{"line_id": "1", "sku": "s", "quantity": written, "amount": 5}]},
    )
    _, event = decoder().decode("purchases", value)
    assert isinstance(event, Purchase)
    assert event.items is not None
    assert event.items[0].quantity == read


@pytest.mark.parametrize(
    ("quantity_type", "written", "outcome"),
    [
        ("double", 1.5, "1.5"),
        ("double", float("nan"), Reason.WRONG_TYPE),
        ("double", float("inf"), Reason.WRONG_TYPE),
        ("boolean", True, Reason.WRONG_TYPE),
        ("long", 10**12, Reason.OUT_OF_RANGE),
        ({"type": "array", "items": "int"}, [1], Reason.WRONG_TYPE),
        ("string", "1e3", Reason.WRONG_TYPE),
        ("string", "-1", Reason.OUT_OF_RANGE),
        ("string", "0.1234567", Reason.OUT_OF_RANGE),
    ],
)
def test_a_foreign_schema_may_write_quantities_its_own_way(quantity_type: Any, written: Any, outcome: Any) -> None:
    record = json.loads(current_texts()["Refund"])
    items = next(field for field in record["fields"] if field["name"] == "items")["type"][1]["items"]
    items["fields"] = [
        {"name": "line_id", "type": "string"},
        {"name": "quantity", "type": quantity_type},
        {"name": "amount", "type": "long"},
    ]
    text = json.dumps(record)

    line = {"line_id": "1", "quantity": written, "amount": 1}
    value = encode_record(9, text, {**HEAD, "order_id": "o", "refund_id": "r", "items": [line]})

    if isinstance(outcome, str) and not isinstance(outcome, Reason):
        decoded: Any = decoder({9: text}).decode("purchases", value)[1]
        assert decoded.items[0].quantity == outcome
    else:
        rejected = refused(value, "purchases", {9: text})
        assert (rejected.reason, "items[0].quantity" in rejected.message) == (outcome, True)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.UNDECODABLE),
        (b"\0\0\0\0", Reason.UNDECODABLE),
        (b'{"type": "purchase"}', Reason.UNDECODABLE),
        (b"\0\xff\xff\xff\xff" + b"x" * 20, Reason.UNKNOWN_SCHEMA),
        (Encoder().encode(PURCHASE)[:-1], Reason.UNDECODABLE),
        (Encoder().encode(PURCHASE) + b"\0", Reason.UNDECODABLE),
        (Encoder().encode(PURCHASE).replace(b"USD", b"U\xffD"), Reason.UNDECODABLE),
        (b"\0" + b"x" * BYTES_MAX, Reason.TOO_LARGE),
    ],
)
def test_a_value_that_is_no_framed_record_is_refused(value: bytes, reason: Reason) -> None:
    assert refused(value).reason is reason


def test_a_type_on_the_wrong_topic_is_refused() -> None:
    rejected = refused(Encoder().encode(PURCHASE), "signups")
    assert rejected.reason is Reason.UNKNOWN_SCHEMA
    assert "signups" in rejected.message


@pytest.mark.parametrize(
    ("changed", "reason", "path"),
    [
        ({"amount": -1}, Reason.OUT_OF_RANGE, "amount"),
        ({"occurred_at": -1}, Reason.OUT_OF_RANGE, "occurred_at"),
        ({"occurred_at": 253_402_300_799_000}, Reason.OUT_OF_RANGE, "occurred_at"),
        ({"event_id": ""}, Reason.OUT_OF_RANGE, "event_id"),
        ({"member_id": "x" * 201}, Reason.OUT_OF_RANGE, "member_id"),
        ({"tenders": [{"kind": "card", "amount": -5}]}, Reason.OUT_OF_RANGE, "tenders[0].amount"),
    ],
)
def test_a_field_out_of_range_is_named_by_its_path(changed: dict[str, Any], reason: Reason, path: str) -> None:
    plain = {**OLD_PURCHASE, "amount": 5, "items": None, **changed}
    value = encode_record(committed_ids()["Purchase"], current_texts()["Purchase"], plain)
    rejected = refused(value)
    assert rejected.reason is reason
    assert rejected.message.startswith(f"{path}: ")


def test_a_field_that_the_writer_leaves_out_is_missing_and_one_of_another_type_is_wrong() -> None:
    without = json.dumps({"type": "record", "name": "guerdon.Erasure", "fields": HEAD_FIELDS[1:]})
    missing = refused(encode_record(9, without, HEAD), "signups", {9: without})
    assert (missing.reason, missing.message) == (Reason.MISSING_FIELD, "event_id: the field is missing")
    double = erasure_schema(occurred_at="double")
    wrong = refused(encode_record(9, double, {**HEAD, "occurred_at": float("nan")}), "signups", {9: double})
    assert (wrong.reason, wrong.message.split(":")[0]) == (Reason.WRONG_TYPE, "occurred_at")


def test_a_birthday_that_no_calendar_has_is_refused() -> None:
    event = Signup(event_id="e", member_id="m", occurred_at=1, birthday="1990-02-29")
    assert refused(Encoder().encode(event), "signups").reason is Reason.OUT_OF_RANGE


def test_a_length_of_two_gigabytes_allocates_nothing_and_takes_no_time() -> None:
    started_s = time.thread_time()
    frame = b"\0" + committed_ids()["Erasure"].to_bytes(4)
    for length in (b"\xfe\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x03"):
        assert refused(frame + length + b"abc", "signups").reason is Reason.UNDECODABLE
    assert time.thread_time() - started_s < 1


_NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
_WIDE = "null"
for _level in range(6):
    _WIDE = {  # type: ignore[assignment]
        "type": "record",
        "name": f"W{_level}",
        "fields": [
            {"name": f"f{_n}", "type": _WIDE if _n == 0 else f"W{_level - 1}" if _level else "null"} for _n in range(9)
        ],
    }
_DEEP: Any = "int"
for _level in range(100):
    _DEEP = {"type": "array", "items": _DEEP}


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (_NODE, "holds itself"),
        ({"type": "array", "items": "null"}, "take no bytes"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "take no bytes"),
        (_WIDE, "more than 2,000 fields"),
        (_DEEP, "nests deeper"),
        ("Nowhere", "does not define"),
        ({"type": "enum", "name": "E"}, "no valid Avro"),
        ({"no": "type"}, "no valid Avro"),
        (7, "no valid Avro"),
    ],
)
def test_a_schema_whose_data_could_not_be_read_within_bounds_is_refused(extra: Any, why: str) -> None:
    text = erasure_schema({"name": "extra", "type": extra})
    with pytest.raises(UnreadableSchema, match=why):
        read_writer_schema(text)
    value = encode_record(9, erasure_schema(), HEAD) + b"\xff\xff\xff\xff\x0f" * 10
    assert refused(value, "signups", {9: text}).reason is Reason.UNKNOWN_SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '"string"',
        "[]",
        "null",
        "[" * 100_000,
        '{"type": "record", "name": "guerdon.Erasure"}',
        '{"type": "record", "name": "guerdon.Erasure", "fields": [5]}',
        '{"type": "record", "name": "Erasure", "fields": []}',
        '{"type": "record", "name": "guerdon.Else", "fields": []}',
        erasure_schema(guerdon_version=2),
        erasure_schema(guerdon_version=0),
        erasure_schema(guerdon_version="1"),
        " " * 1_000_001,
    ],
)
def test_what_is_no_schema_of_ours_is_unknown_and_never_a_crash(text: str) -> None:
    assert refused(b"\0\0\0\0\x09abc", "signups", {9: text}).reason is Reason.UNKNOWN_SCHEMA


def test_a_writer_schema_is_asked_for_once() -> None:
    asked = []

    class Counting:
        def lookup(self, schema_id: int) -> str | None:
            asked.append(schema_id)
            return committed_texts().get(schema_id)

    counting = Decoder(Counting(), BYTES_MAX)
    for _ in range(3):
        counting.decode("purchases", Encoder().encode(PURCHASE))
    assert asked == [committed_ids()["Purchase"]]


@given(st.floats(), st.sampled_from(["double", "float"]))
def test_no_float_is_taken_for_an_amount(number: float, kind: str) -> None:
    text = json.dumps(
        {
            "type": "record",
            "name": "guerdon.Refund",
            "fields": [
                *HEAD_FIELDS,
                {"name": "order_id", "type": "string"},
                {"name": "refund_id", "type": "string"},
                {"name": "amount", "type": kind},
            ],
        }
    )

    # not every number fits into a float of 4 bytes
    narrow = number if kind == "double" or abs(number) < 1e30 else 1.0
    value = encode_record(9, text, {**HEAD, "order_id": "o", "refund_id": "r", "amount": narrow})
    assert refused(value, "purchases", {9: text}).reason is Reason.WRONG_TYPE
