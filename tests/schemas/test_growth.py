"""Small messages stay small: nothing that is read holds more than its bytes pay for."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.bounds import (
    FIELDS,
    PARTS,
    Decoded,
)
from schemas.codec import CommittedSchemas, Decoder, Encoder
from schemas.events import TOPIC_TYPES, Purchase
from schemas.rejection import Rejected
from schemas.writer_schemas import UnreadableSchema, current_texts, read_writer_schema
from tests.schemas.test_bounds import HEAD, PURCHASE, primitives
from tests.system.load import START_MS


def _purchase_with(extra: dict[str, Any]) -> str:
    record = json.loads(current_texts()["Purchase"])
    record["fields"].append(extra)
    return json.dumps(record)


def _nulls(count: int) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [{"name": f"n{number}", "type": "null"} for number in range(count)]
    return {"type": "record", "name": "Wide", "fields": [*fields, {"name": "flag", "type": "boolean"}]}


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "array", "items": _nulls(1_990)},
        {"type": "map", "values": _nulls(1_990)},
        {"type": "array", "items": ["null", _nulls(1_990)]},
        {"type": "array", "items": {"type": "array", "items": _nulls(5)}},
    ],
)
def test_a_list_whose_entries_hold_more_than_their_bytes_is_refused(kind: dict[str, Any]) -> None:
    with pytest.raises(UnreadableSchema, match="hold more than 4 values for each byte"):
        read_writer_schema(_purchase_with({"name": "extra", "type": kind}))


def test_a_list_of_what_people_write_is_read() -> None:
    for kind in (
        {"type": "array", "items": "string"},
        {"type": "map", "values": ["null", "string"]},
        {"type": "array", "items": _nulls(2)},
        {
            "type": "array",
            "items": {"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "long"]}]},
        },
    ):
        read_writer_schema(_purchase_with({"name": "extra", "type": kind}))


def test_a_decimal_that_is_not_read_costs_nothing() -> None:
    amount = {"type": "bytes", "logicalType": "decimal", "precision": 3_000_000, "scale": 0}
    schema = read_writer_schema(_purchase_with({"name": "extra", "type": amount}))
    assert "logicalType" not in json.dumps(schema.avro)


def _compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arrays = inner.map(lambda each: {"type": "array", "items": each})
    maps = inner.map(lambda each: {"type": "map", "values": each})
    unions = inner.filter(lambda each: each != "null" and not isinstance(each, list)).map(lambda each: ["null", each])
    records = st.lists(inner, max_size=4).map(
        lambda kinds: {"type": "record", "fields": [{"name": f"f{at}", "type": each} for at, each in enumerate(kinds)]}
    )
    return arrays | maps | unions | records


def _named(schema: Any, names: list[int]) -> Any:
    """Give each record a name of its own."""
    if isinstance(schema, list):
        return [_named(branch, names) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    named = {key: _named(value, names) if key in ("items", "values") else value for key, value in schema.items()}
    if schema["type"] == "record":
        names.append(len(names))
        named["name"] = f"R{names[-1]}"
        named["fields"] = [{**field, "type": _named(field["type"], names)} for field in schema["fields"]]
    return named


def _steps(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(_steps(each) for each in value.values())
    return 1 + sum(_steps(each) for each in value) if isinstance(value, list) else 1


@settings(max_examples=200, deadline=None)
@given(st.recursive(primitives, _compound, max_leaves=12), st.binary(max_size=60) | st.binary(min_size=1, max_size=2))
def test_no_value_holds_more_than_its_bytes_pay_for(kind: Any, content: bytes) -> None:
    """The decoder's own reader, as the schemas that pass may be read with it, on values of all kinds."""
    from io import BytesIO  # noqa: PLC0415  beside its only use

    from fastavro import schemaless_reader  # noqa: PLC0415  as above

    from schemas.writer_schemas import STEPS_A_BYTE_MAX, STEPS_MAX  # noqa: PLC0415  as above

    fields = [{"name": "extra", "type": _named(kind, [])}]
    text = json.dumps({"type": "record", "name": "guerdon.Erasure", "fields": fields})
    try:
        schema = read_writer_schema(text)
    except UnreadableSchema:
        return
    body = BytesIO(b"\x14" + content * 40 + b"\0" * 10)
    length = len(body.getvalue())
    try:
        read: Any = schemaless_reader(body, schema.avro, None)
    except Exception:  # noqa: BLE001  what breaks off has grown to nothing
        return
    assert _steps(read) <= STEPS_MAX + STEPS_A_BYTE_MAX * length


def test_a_message_of_a_megabyte_takes_memory_by_its_bytes_not_by_its_schema() -> None:
    two = _purchase_with({"name": "extra", "type": {"type": "array", "items": _nulls(2)}})
    decoder = Decoder(CommittedSchemas({9: two}), 1_000_000)
    plain = Encoder().encode(Purchase(**HEAD, order_id="o", currency="USD", amount=1))
    flags = 300_000
    block = _long(flags) + b"\1" * flags + b"\0"
    _, event = decoder.decode("purchases", b"\0\0\0\0\x09" + plain[5:] + block)
    assert isinstance(event, Purchase)
    assert sys.getsizeof(event) < 1_000
    assert TOPIC_TYPES["purchases"][0] == "purchase"


def _long(number: int) -> bytes:
    zigzag, found = number << 1, bytearray()
    while zigzag > 0x7F:
        found.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*found, zigzag])


def test_quantities_as_decimals_are_read_exactly_and_within_16_bytes() -> None:
    record = json.loads(current_texts()["Purchase"])
    items = next(field for field in record["fields"] if field["name"] == "items")
    line = next(branch for branch in items["type"] if branch != "null")["items"]
    quantity = next(field for field in line["fields"] if field["name"] == "quantity")
    quantity["type"] = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}
    text = json.dumps(record)
    decoder = Decoder(CommittedSchemas({9: text}), 1_000_000)

    def value(unscaled: bytes) -> bytes:
        from schemas.codec import encode_record  # noqa: PLC0415  beside its only use

        plain = PURCHASE | {"occurred_at": START_MS, "source": "default", "amount": 5}
        lines = [{"line_id": "1", "sku": "s", "quantity": unscaled, "amount": 5}]
        without = json.loads(text)
        of_items = next(field for field in without["fields"] if field["name"] == "items")
        of_line = next(branch for branch in of_items["type"] if branch != "null")["items"]
        next(field for field in of_line["fields"] if field["name"] == "quantity")["type"] = "bytes"
        return encode_record(9, json.dumps(without), {**plain, "items": lines})

    _, event = decoder.decode("purchases", value((1_500).to_bytes(2, signed=True)))
    assert isinstance(event, Purchase)
    assert event.items is not None
    assert event.items[0].quantity == "1.5"
    for unscaled in (b"\1" * 17, b"\1" * 900_000):
        with pytest.raises(Rejected, match=r"items\[0\].quantity: a decimal of .* bytes; at most 16 are read"):
            decoder.decode("purchases", value(unscaled))
    with pytest.raises(Rejected, match="negative"):
        decoder.decode("purchases", value((-1).to_bytes(1, signed=True)))


def test_decoded_bounds_are_told_in_words() -> None:
    for bounds in (*FIELDS.values(), *PARTS.values()):
        for bound in bounds.values():
            assert bound.words()
            assert not isinstance(bound, Decoded) or bound.kind
