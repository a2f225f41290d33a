"""Every field of every event is bounded by one table, at admission, and the page says what the table does."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine.intake import admit
from engine.programme.file.load import load_programme
from operations.member.decisions import line_of
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from schemas.bounds import (
    CODE_CHARACTERS_MAX,
    FIELDS,
    ID,
    IS_PLAIN,
    OCCURRED_AT_MS_FIRST,
    PARTS,
    TEXT_CHARACTERS_MAX,
    Instant,
    Text,
    refuse_beyond,
)
from schemas.codec import CommittedSchemas, Decoder, Encoder
from schemas.events import EVENT_TYPES, OCCURRED_AT_MS_END, Event, Id, Item, Purchase, Share, Signup, Touch
from schemas.json_events import decode_json
from schemas.rejection import Reason, Rejected
from tests.places import DOCS
from tests.strategies.edges import histories
from tests.strategies.events import events
from tests.system.load import START_MS

HEAD: dict[str, Any] = {"event_id": "e", "member_id": "m", "occurred_at": START_MS}
SIGNUP = {"type": "signup", "event_id": "s", "member_id": "z", "occurred_at": "2026-11-20T10:03:00Z"}
PURCHASE = {
    "type": "purchase", "event_id": "p", "member_id": "z", "occurred_at": "2026-11-20T10:03:00Z", "order_id": "o",
    "currency": "USD", "amount": 5,
}  # fmt: skip
TOUCH = {
    "type": "touch", "event_id": "t", "occurred_at": "2026-11-20T10:03:00Z", "referral_code": "AB", "visitor": "v",
}  # fmt: skip


def refused(event: Event) -> str:
    with pytest.raises(Rejected) as found:
        admit.check(event, currency="USD", latest_ms=None)
    assert found.value.reason is Reason.OUT_OF_RANGE
    return found.value.message


def test_the_table_has_every_field_of_every_event_and_of_what_stands_in_lists() -> None:
    kinds = {EVENT_TYPES[name]: bounds for name, bounds in FIELDS.items()} | dict(PARTS)
    assert set(FIELDS) == set(EVENT_TYPES)
    for kind, bounds in kinds.items():
        assert set(bounds) == {field.name for field in structs.fields(kind)}, kind


def test_an_id_by_its_type_is_one_by_the_table_or_shorter() -> None:
    for name, bounds in FIELDS.items():
        for field in structs.fields(EVENT_TYPES[name]):
            if field.type == Id:
                bound = bounds[field.name]
                assert isinstance(bound, Text), (name, field.name)
                assert bound.least == ID.least, (name, field.name)
                assert bound.most <= ID.most, (name, field.name)


def test_the_page_names_each_type_and_each_reason() -> None:
    page = (DOCS / "events.md").read_text("utf-8")
    for name in EVENT_TYPES:
        assert f"### `{name}`" in page
    for reason in Reason:
        if reason is not Reason.EVALUATION_FAILED:
            assert f"| `{reason}` |" in page


@settings(max_examples=150, deadline=None)
@given(events)
def test_what_one_look_finds_plain_lies_within_its_bounds(event: Event) -> None:
    if IS_PLAIN[type(event)](event):
        refuse_beyond(event)


@settings(max_examples=25, deadline=None)
@given(histories(8))
def test_at_every_edge_one_look_and_the_table_agree(history: list[dict[str, Any]]) -> None:
    for spelt in history:
        try:
            event = decode_json(json.dumps(spelt))
        except Rejected:
            continue
        is_plain = IS_PLAIN[type(event)](event)
        if is_within(event):
            assert is_plain or not _all_printable(event), spelt
        else:
            assert not is_plain, spelt


def is_within(event: Event) -> bool:
    try:
        refuse_beyond(event)
    except Rejected:
        return False
    return True


def _all_printable(event: Event) -> bool:
    return all(not isinstance(value, str) or value.isprintable() for value in _values(structs.asdict(event)))


def _values(found: Any) -> list[Any]:
    if isinstance(found, dict):
        return [each for pair in found.items() for value in pair for each in _values(value)]
    if isinstance(found, tuple):
        return [each for value in found for each in _values(value)]
    return _values(structs.asdict(found)) if hasattr(found, "__struct_fields__") else [found]


_TEXT_FIELDS = [
    (name, field, bound)
    for name, bounds in FIELDS.items()
    for field, bound in bounds.items()
    if isinstance(bound, Text)
]


@pytest.mark.parametrize(
    ("name", "field", "bound"), _TEXT_FIELDS, ids=[f"{name}.{field}" for name, field, _ in _TEXT_FIELDS]
)
def test_each_text_is_taken_at_its_edges_and_refused_beyond(name: str, field: str, bound: Text) -> None:
    event = structs.replace(_plain(name), **{field: "x" * bound.most})
    refuse_beyond(event)
    assert IS_PLAIN[type(event)](event)

    # one character too many, and characters that no text may have
    for text, says in (
        ("x" * (bound.most + 1), f"{field} has {bound.most + 1:,} characters"),
        ("AB\0", f"{field} holds the control character U+0000"),
        ("\x85", f"{field} holds the control character U+0085"),
        ("\ud800", f"{field} holds half of a UTF-16 pair, U+D800"),
    ):
        with pytest.raises(Rejected, match=says.replace("+", r"\+")):
            refuse_beyond(structs.replace(event, **{field: text}))

    # characters that only displays must mind
    for text in ("\u202e", "\u200b", "\u2028", "\U0001f9d1" * min(bound.most, 64)):
        refuse_beyond(structs.replace(event, **{field: text}))

    empty = structs.replace(event, **{field: ""})
    if bound.least:
        with pytest.raises(Rejected, match=f"{field} has 0 characters"):
            refuse_beyond(empty)
    else:
        refuse_beyond(empty)


def _plain(name: str) -> Event:
    """Return an event with what must be there."""
    made: dict[str, Any] = {}
    for field, bound in FIELDS[name].items():
        if isinstance(bound, Text):
            made[field] = "x"
        elif isinstance(bound, Instant):
            made[field] = START_MS
        elif field in ("amount", "action"):
            made[field] = 1 if field == "amount" else "spend"
    kind = EVENT_TYPES[name]
    return kind(**{field: value for field, value in made.items() if field in kind.__struct_fields__})


def test_what_stands_in_lists_and_maps_is_bounded_and_named_by_its_path() -> None:
    lines = tuple(Item(line_id="1", sku="s", quantity="1", amount=0) for _ in range(10_001))
    order = Purchase(**HEAD, order_id="o", currency="USD", amount=0)
    assert refused(structs.replace(order, items=lines)).startswith("items has 10,001 entries, and 10,000 are taken")
    assert refused(structs.replace(order, coupons=("x",) * 1_001)).startswith("coupons has 1,001 entries")
    assert refused(structs.replace(order, coupons=("x", "x" * 65))).startswith("coupons[1] has 65 characters")
    assert refused(structs.replace(order, attributes={"k" * 201: ""})).startswith("a key of attributes has 201")
    assert refused(structs.replace(order, attributes={"note": "a\n"})).startswith("attributes.note holds the control")
    assert refused(structs.replace(order, attributes={"n\0": "a"})).startswith("a key of attributes holds")
    odd = structs.replace(lines[0], category="a\x1b[2J")
    assert refused(structs.replace(order, items=(lines[0], odd))).startswith("items[1].category holds")
    identity = {"email": "h" * 1_001}
    assert refused(Signup(**HEAD, identity=identity)).startswith("identity.email has 1,001 characters")


MOMENT_MS = 1_716_989_234_567
AS_MS = "2024-05-29T13:27:14.567Z"


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (MOMENT_MS // 1000, "1716989234 looks like seconds (2024-05-29T13:27:14Z): send milliseconds"),
        (MOMENT_MS * 1000, f"1716989234567000 looks like microseconds ({AS_MS}): send milliseconds"),
        (MOMENT_MS * 1_000_000, f"1716989234567000000 looks like nanoseconds ({AS_MS}): send milliseconds"),
        (0, "the year of 1970-01-01T00:00:00Z is not between 1972 and 2999"),
        (OCCURRED_AT_MS_END, "the year is not between 1972 and 2999"),
        (-1, "the year is not between 1972 and 2999"),
    ],
)
def test_a_clock_in_another_unit_is_told_what_it_looks_like(number: int, says: str) -> None:
    event = Purchase(event_id="e", member_id="m", occurred_at=number, order_id="o", currency="USD", amount=1)
    decoder = Decoder(CommittedSchemas(), 10_000)
    with pytest.raises(Rejected) as caught:
        admit.check(decoder.decode("purchases", Encoder().encode(event))[1], currency="USD", latest_ms=None)
    assert caught.value.reason is Reason.OUT_OF_RANGE
    assert caught.value.message.startswith("occurred_at: the year ")
    assert caught.value.message.endswith(says)


@pytest.mark.parametrize(
    ("number", "unit"),
    [(MOMENT_MS // 1000, "seconds"), (MOMENT_MS, "milliseconds"), (MOMENT_MS * 1000, "microseconds")],
)
def test_a_number_for_a_time_in_json_is_told_how_to_write_it(number: int, unit: str) -> None:
    with pytest.raises(Rejected) as caught:
        decode_json(json.dumps({**SIGNUP, "type": "signup", "occurred_at": number}))
    assert caught.value.reason is Reason.WRONG_TYPE
    assert f"is no time; it looks like {unit}, so write 2024-05-29T13:27:14" in caught.value.message


def test_the_years_are_taken_to_their_borders() -> None:
    event = Purchase(event_id="e", member_id="m", occurred_at=1, order_id="o", currency="USD", amount=1)
    for at_ms, is_taken in (
        (OCCURRED_AT_MS_FIRST - 1, False), (OCCURRED_AT_MS_FIRST, True), (OCCURRED_AT_MS_END - 1, True),
    ):  # fmt: skip
        assert IS_PLAIN[Purchase](structs.replace(event, occurred_at=at_ms)) is is_taken


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (SIGNUP | {"referral_code": "AB\0"}, "referral_code holds the control character U+0000"),
        (SIGNUP | {"referrer_id": "AB\0"}, "referrer_id holds the control character U+0000"),
        (SIGNUP | {"visitor": "AB\0"}, "visitor holds the control character U+0000"),
        (TOUCH | {"channel": "AB\0"}, "channel holds the control character U+0000"),
        (SIGNUP | {"referral_code": "x" * 9_000}, "referral_code has 9,000 characters, and at most 64 are taken"),
        (TOUCH | {"referral_code": "x" * 65}, "referral_code has 65 characters, and 1 to 64 are taken"),
        (TOUCH | {"channel": "x" * 9_000}, "channel has 9,000 characters, and at most 64 are taken"),
        (SIGNUP | {"referral_code": "\u001b]0;PWNED\u0007"}, "referral_code holds the control character U+001B"),
        (SIGNUP | {"attributes": {"a": "\ud800"}}, "attributes.a holds half of a UTF-16 pair, U+D800"),
        (PURCHASE | {"event_id": "\ud800"}, "event_id holds half of a UTF-16 pair, U+D800"),
        (PURCHASE | {"channel": "\udc00\ud800"}, "channel holds half of a UTF-16 pair, U+DC00"),
    ],
)
def test_the_messages_that_stopped_every_worker_are_refused_by_name(line: dict[str, Any], says: str) -> None:
    with pytest.raises(Rejected) as found:
        admit.check(decode_json(json.dumps(line)), currency="USD", latest_ms=None)
    assert found.value.reason is Reason.OUT_OF_RANGE
    assert found.value.message.startswith(says)


def test_a_file_with_a_byte_order_mark_is_told_so_in_our_words() -> None:
    with pytest.raises(Rejected, match="begins with a byte order mark"):
        decode_json(b"\xef\xbb\xbf" + json.dumps(SIGNUP).encode())


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"referral_code": "\0"}, "referral_code holds the control character U+0000"),
        ({"referral_code": "x" * 12_000}, "referral_code has 12,000 characters, and 1 to 64 are taken"),
        ({"tier": "x" * 201}, "tier has 201 characters"),
        ({"tier": "gold", "attributes": {"a": "b\0"}}, "attributes.a holds"),
        ({"tier": "gold", "expires_at": "1971-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_what_an_operator_brings_over_is_bounded_by_the_same_table(given_: dict[str, Any], says: str) -> None:
    fields = {"member_id": "m", "action": "opening"} | given_
    with pytest.raises(Rejected) as found:
        line_of(fields, file="f.jsonl", number=1, currency="USD", latest_ms=START_MS)
    assert found.value.message.startswith(says)


def test_a_line_without_a_time_keeps_the_name_that_it_had_and_is_taken() -> None:
    fields = {"member_id": "m", "action": "opening", "tier": "gold"}
    line = line_of(fields, file="f.jsonl", number=1, currency="USD", latest_ms=START_MS)
    assert line.decision.event_id == "line-d97684e824c0043af35c9af1000cf4ff"
    assert not line.dated


def test_a_share_and_a_touch_are_bounded_below_what_their_types_say() -> None:
    for event in (
        Share(**HEAD, object="o", channel="x" * 65),
        Touch(event_id="e", occurred_at=START_MS, referral_code="x" * 65, visitor="v"),
    ):
        assert f"has {CODE_CHARACTERS_MAX + 1} characters" in refused(event)


def test_an_admitted_event_of_an_earlier_release_is_read_as_it_was() -> None:
    event = Touch(event_id="e", occurred_at=0, referral_code="x" * 200, visitor="v", channel="\0" * 9_000)
    assert Decoder(CommittedSchemas(), 100_000).decode("shares", Encoder().encode(event))[1] == event


def test_no_other_place_knows_how_long_a_text_may_be() -> None:
    assert {bound.most for _, _, bound in _TEXT_FIELDS} == {ID.most, CODE_CHARACTERS_MAX, TEXT_CHARACTERS_MAX}
    assert all(unicodedata.category(chr(code)) == "Cc" for code in (*range(32), *range(127, 160)))


def test_a_simulation_warns_of_an_event_that_moves_every_clock_on_by_centuries() -> None:
    programme = load_programme(
        "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\nrules: []\n", "p"
    ).programme
    assert programme is not None
    spelt = [SIGNUP, PURCHASE, PURCHASE | {"event_id": "q", "order_id": "q", "occurred_at": "2999-11-20T10:03:00Z"}]
    lines = [Line("e.jsonl", at, json.dumps(each).encode()) for at, each in enumerate(spelt, 1)]
    (leap,) = simulate_lines(programme, lines).leaps
    assert leap.startswith(
        "e.jsonl:3: warning: this event is dated 2999-11-20T10:03:00Z, 973 years after all before it"
    )
    assert simulate_lines(programme, lines[:2]).leaps == []


# --- small messages that grow ---------------------------------------------------------------------------------------


primitives = st.sampled_from(["null", "boolean", "int", "long", "double", "string", "bytes"])
