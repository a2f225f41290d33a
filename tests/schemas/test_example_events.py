"""The worked records of docs/events.md use every field, are taken in, and mean the same as JSON and as Avro."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake import admit
from schemas.bounds import FIELDS, PARTS
from schemas.codec import CommittedSchemas, Decoder, Encoder
from schemas.event_page import EXAMPLES, MEANINGS, OF_TYPE, meaning_of
from schemas.events import EVENT_TYPES, TOPIC_TYPES, Item, RefundItem, Tender
from schemas.json_events import decode_json

if TYPE_CHECKING:
    from msgspec import Struct

LINES = {json.loads(line)["type"]: line for line in EXAMPLES.read_text("utf-8").splitlines()}
TOPICS = {name: topic for topic, names in TOPIC_TYPES.items() for name in names}
ONE_OR_THE_OTHER = {"refund": {"amount"}}
"""Fields that an example cannot have beside others: a refund names lines or an amount."""


def test_there_is_one_example_of_each_type() -> None:
    assert LINES.keys() == EVENT_TYPES.keys()
    assert len(EXAMPLES.read_text("utf-8").splitlines()) == len(EVENT_TYPES)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_an_example_uses_every_field_and_is_taken_in(name: str) -> None:
    spelt: dict[str, Any] = json.loads(LINES[name])
    assert spelt.keys() - {"type"} == FIELDS[name].keys() - ONE_OR_THE_OTHER.get(name, set())
    admit.check(decode_json(LINES[name]), currency="EUR", latest_ms=None)


@pytest.mark.parametrize(
    ("name", "field", "kind"),
    [("purchase", "items", Item), ("purchase", "tenders", Tender), ("refund", "items", RefundItem)],
)
def test_each_record_in_a_list_uses_every_field(name: str, field: str, kind: type[Struct]) -> None:
    for line in json.loads(LINES[name])[field]:
        assert line.keys() == PARTS[kind].keys()


@pytest.mark.parametrize("name", TOPICS)
def test_an_example_means_the_same_as_avro(name: str) -> None:
    event = decode_json(LINES[name])
    assert Decoder(CommittedSchemas(), 10_000).decode(TOPICS[name], Encoder().encode(event))[1] == event


def test_each_field_has_a_meaning_and_no_meaning_is_left_over() -> None:
    used = {(name, field) for name, bounds in FIELDS.items() for field in bounds}
    used |= {(kind.__name__, field) for kind, bounds in PARTS.items() for field in bounds}
    assert all(meaning_of(name, field) for name, field in used)
    assert {field for _, field in used - OF_TYPE.keys()} == set(MEANINGS)
    assert OF_TYPE.keys() <= used
