"""JSON lines become events strictly: each mistake has its reason, its place and a way out."""

from __future__ import annotations

import json
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import TYPE_NAMES, Activity, Decision, Event, Item, Profile, Purchase, Signup
from schemas.json_events import decode_json, event_from_object, event_to_object
from schemas.rejection import Reason, Rejected
from schemas.scalars import canonical_quantity, instant_from_iso, iso_from_instant
from tests.strategies.events import events, instants, quantities

PURCHASE: dict[str, Any] = {
    "type": "purchase",
    "event_id": "e1",
    "member_id": "m1",
    "occurred_at": "2024-05-01T18:30:00+08:00",
    "order_id": "o1",
    "currency": "USD",
    "amount": 500,
    "items": [{"line_id": "1", "sku": "s", "quantity": 1.50, "amount": 500}],
    "tenders": [{"kind": "card", "amount": 500}],
}
HEAD: dict[str, Any] = {"event_id": "e", "member_id": "m", "occurred_at": "2024-05-01T18:30:00Z"}


def refused(line: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode_json(line if isinstance(line, (str, bytes)) else json.dumps(line))
    return caught.value


def with_line(**changed: Any) -> dict[str, Any]:
    return {**PURCHASE, "items": [{**PURCHASE["items"][0], **changed}]}


@given(events)
def test_an_event_comes_back_equal_from_the_object_that_shows_it(event: Event) -> None:
    shown = event_to_object(event)
    assert shown["type"] == TYPE_NAMES[type(event)]
    assert decode_json(json.dumps(shown)) == event
    assert event_from_object(shown) == event


def test_a_line_becomes_a_typed_event_whether_text_or_bytes() -> None:
    line = json.dumps(PURCHASE)
    event = decode_json(line)
    assert decode_json(line.encode()) == event
    assert isinstance(event, Purchase)
    assert event.occurred_at == 1_714_559_400_000
    assert event.items == (Item(line_id="1", sku="s", quantity="1.5", amount=500),)


def test_the_object_given_stays_as_it_is() -> None:
    before = deepcopy(PURCHASE)
    event_from_object(PURCHASE)
    assert before == PURCHASE


def test_nulls_stand_for_optional_fields_that_are_not_there() -> None:
    nulls = dict.fromkeys(("gross", "shipping", "tax", "channel", "store", "brand", "coupons", "source", "attributes"))
    assert decode_json(json.dumps({**PURCHASE, **nulls})) == decode_json(json.dumps(PURCHASE))
    activity = decode_json(json.dumps({**HEAD, "type": "activity", "kind": "review", "quantity": None}))
    assert isinstance(activity, Activity)
    assert activity.quantity == 1


def test_an_attribute_of_a_profile_that_is_null_is_kept_as_a_removal() -> None:
    profile = decode_json(json.dumps({**HEAD, "type": "profile", "attributes": {"a": None}}))
    assert isinstance(profile, Profile)
    assert profile.attributes == {"a": None}
    assert refused({**PURCHASE, "attributes": {"a": None}}).reason is Reason.WRONG_TYPE


def test_the_end_of_an_opening_balance_is_a_time_like_any_other() -> None:
    opening = {**HEAD, "type": "decision", "action": "opening", "amount": 5, "expires_at": "2025-01-01T00:00:00Z"}
    decision = decode_json(json.dumps(opening))
    assert isinstance(decision, Decision)
    assert decision.expires_at == 1_735_689_600_000
    assert refused({**opening, "expires_at": "2025-01-01"}).message.startswith("expires_at: ")


@pytest.mark.parametrize(
    ("line", "path", "hint"),
    [
        ({**PURCHASE, "amuont": 1}, "amuont", "amount"),
        (with_line(skuu="s"), "items[0].skuu", "sku"),
        ({**PURCHASE, "tenders": [{"kind": "card", "amount": 1, "knd": 2}]}, "tenders[0].knd", "kind"),
        ({**HEAD, "type": "erasure", "ocurred_at": 1}, "ocurred_at", "occurred_at"),
    ],
)
def test_an_unknown_field_is_refused_with_the_one_that_was_meant(line: dict[str, Any], path: str, hint: str) -> None:
    rejected = refused(line)
    assert rejected.reason is Reason.UNKNOWN_FIELD
    assert rejected.message.startswith(f"{path}: ")
    assert rejected.message.endswith(f"did you mean '{hint}'?")


@pytest.mark.parametrize("field", ["event_id", "member_id", "occurred_at", "order_id", "currency", "amount", "type"])
def test_a_missing_field_is_named(field: str) -> None:
    rejected = refused({name: value for name, value in PURCHASE.items() if name != field})
    assert rejected.reason is Reason.MISSING_FIELD
    assert rejected.message.startswith(f"{field}: the field is missing")


def test_a_field_missing_in_a_line_is_named_with_the_line() -> None:
    rejected = refused({**PURCHASE, "items": [PURCHASE["items"][0], {"line_id": "2", "quantity": 1, "amount": 0}]})
    assert (rejected.reason, rejected.message) == (Reason.MISSING_FIELD, "items[1].sku: the field is missing")


@pytest.mark.parametrize("amount", ["500", True, 1.0, 1e2, 5.5, None, [5], {"a": 1}])
def test_an_amount_is_an_integer_and_nothing_else(amount: Any) -> None:
    rejected = refused({**PURCHASE, "amount": amount})
    assert rejected.reason is Reason.WRONG_TYPE
    assert rejected.message.startswith("amount: expected an integer, got ")


@pytest.mark.parametrize("amount", [-1, 2**63, -(2**70), 10**400])
def test_an_amount_beyond_a_signed_64_bit_integer_or_negative_is_out_of_range(amount: int) -> None:
    assert refused({**PURCHASE, "amount": amount}).reason is Reason.OUT_OF_RANGE


def test_a_number_too_long_to_read_is_out_of_range() -> None:
    assert refused('{"amount": ' + "1" * 5_000 + "}").reason is Reason.OUT_OF_RANGE
    assert refused('{"amount": 1e99999999999999999999}').reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize("event_id", ["", "x" * 201])
def test_an_id_is_1_to_200_characters_long(event_id: str) -> None:
    assert refused({**PURCHASE, "event_id": event_id}).reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T08:00:00+08:00", 0),
        ("1970-01-01T00:00:00.5Z", 500),
        ("1970-01-01T00:00:00.123999999Z", 123),
        ("1970-01-01t00:01z", 60_000),
        ("1970-01-01 00:00:01-00:00", 1_000),
        ("2999-12-31T23:59:59.999Z", 32_503_679_999_999),
        ("3000-01-01T00:59:59+01:00", 32_503_679_999_000),
    ],
)
def test_times_are_read_to_the_millisecond_and_finer_digits_are_cut_off(text: str, at_ms: int) -> None:
    assert instant_from_iso(text, "occurred_at") == at_ms


@given(instants)
def test_a_time_comes_back_equal_from_its_text(at_ms: int) -> None:
    assert instant_from_iso(iso_from_instant(at_ms), "at") == at_ms


@pytest.mark.parametrize(
    ("text", "reason", "way_out"),
    [
        ("2024-05-01T18:30:00", Reason.WRONG_TYPE, "append Z for UTC"),
        ("2024-05-01", Reason.WRONG_TYPE, "write it like"),
        ("yesterday", Reason.WRONG_TYPE, "write it like"),
        (1_714_559_400, Reason.WRONG_TYPE, "it looks like seconds, so write 2024-05-01T10:30:00Z"),
        ("2024-W18-3T00:00:00Z", Reason.WRONG_TYPE, "write it like"),
        ("2024-02-30T00:00:00Z", Reason.WRONG_TYPE, "no time"),
        ("2024-01-01T25:00:00Z", Reason.WRONG_TYPE, "no time"),
        ("2024-01-01T00:00:00+99:00", Reason.WRONG_TYPE, "no time"),
        ("2024-01-01T00:00:00Z\n", Reason.WRONG_TYPE, "write it like"),
        ("0000-01-01T00:00:00Z", Reason.OUT_OF_RANGE, "1972 and 2999"),
        ("0001-01-01T00:00:00+14:00", Reason.OUT_OF_RANGE, "1972 and 2999"),
        ("1969-12-31T23:59:59.999Z", Reason.OUT_OF_RANGE, "1972 and 2999"),
        ("3000-01-01T00:00:00Z", Reason.OUT_OF_RANGE, "1972 and 2999"),
        ("9999-12-31T23:59:59-12:00", Reason.OUT_OF_RANGE, "1972 and 2999"),
    ],
)
def test_a_time_that_cannot_be_taken_says_the_way_out(text: Any, reason: Reason, way_out: str) -> None:
    rejected = refused({**PURCHASE, "occurred_at": text})
    assert rejected.reason is reason
    assert rejected.message.startswith("occurred_at: ")
    assert way_out in rejected.message


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("1.50", "1.5"),
        (1.5, "1.5"),
        (Decimal("1.500"), "1.5"),
        (100, "100"),
        ("100", "100"),
        (Decimal("1E+2"), "100"),
        (Decimal("1e-6"), "0.000001"),
        (0, "0"),
        ("0.00", "0"),
        ("-0", "0"),
        (Decimal("0E+50"), "0"),
        ("007.10", "7.1"),
        ("1.0000000000", "1"),
        ("999999999999.999999", "999999999999.999999"),
    ],
)
def test_a_quantity_has_one_canonical_form(written: object, canonical: str) -> None:
    assert canonical_quantity(written, "q") == canonical


@given(quantities)
def test_the_canonical_form_of_a_quantity_is_its_own(text: str) -> None:
    canonical = canonical_quantity(text, "q")
    assert canonical_quantity(canonical, "q") == canonical_quantity(Decimal(text), "q") == canonical
    assert Decimal(canonical) == Decimal(text)


@pytest.mark.parametrize(
    ("quantity", "reason"),
    [
        (-1, Reason.OUT_OF_RANGE),
        ("-0.5", Reason.OUT_OF_RANGE),
        (10**12, Reason.OUT_OF_RANGE),
        ("0.1234567", Reason.OUT_OF_RANGE),
        (1e22, Reason.OUT_OF_RANGE),
        (1e-7, Reason.OUT_OF_RANGE),
        ("1e3", Reason.WRONG_TYPE),
        ("", Reason.WRONG_TYPE),
        (" 1", Reason.WRONG_TYPE),
        ("1_000", Reason.WRONG_TYPE),
        ("\N{ARABIC-INDIC DIGIT ONE}", Reason.WRONG_TYPE),
        ("NaN", Reason.WRONG_TYPE),
        (True, Reason.WRONG_TYPE),
        (None, Reason.WRONG_TYPE),
        ([1], Reason.WRONG_TYPE),
        ("9" * 500, Reason.WRONG_TYPE),
    ],
)
def test_a_quantity_that_cannot_be_taken_is_named_by_its_path(quantity: Any, reason: Reason) -> None:
    rejected = refused(with_line(quantity=quantity))
    assert rejected.reason is reason
    assert rejected.message.startswith("items[0].quantity: ")


@pytest.mark.parametrize("birthday", ["1990-01-31", "2000-02-29", "--02-29", "--12-31"])
def test_a_birthday_is_a_real_day_with_or_without_its_year(birthday: str) -> None:
    signup = decode_json(json.dumps({**HEAD, "type": "signup", "birthday": birthday}))
    assert isinstance(signup, Signup)
    assert signup.birthday == birthday


@pytest.mark.parametrize(
    ("birthday", "reason"),
    [
        ("1990-02-29", Reason.OUT_OF_RANGE),
        ("--02-30", Reason.OUT_OF_RANGE),
        ("--13-01", Reason.OUT_OF_RANGE),
        ("0000-01-01", Reason.OUT_OF_RANGE),
        ("1990-1-1", Reason.WRONG_TYPE),
        ("01.02.1990", Reason.WRONG_TYPE),
        ("", Reason.WRONG_TYPE),
        (1990, Reason.WRONG_TYPE),
    ],
)
@pytest.mark.parametrize("kind", ["signup", "profile"])
def test_a_birthday_that_cannot_be_taken_is_refused(kind: str, birthday: Any, reason: Reason) -> None:
    rejected = refused({**HEAD, "type": kind, "birthday": birthday})
    assert rejected.reason is reason
    assert rejected.message.startswith("birthday: ")


def test_a_type_that_nobody_knows_is_refused_with_the_one_that_was_meant() -> None:
    rejected = refused({**HEAD, "type": "sigup"})
    assert rejected.reason is Reason.WRONG_TYPE
    assert rejected.message.endswith("did you mean 'signup'?")
    assert refused({**HEAD, "type": 5}).reason is Reason.WRONG_TYPE
    assert refused({**HEAD, "type": ["signup"]}).reason is Reason.WRONG_TYPE


def test_a_word_outside_the_list_of_actions_is_out_of_range() -> None:
    rejected = refused({**HEAD, "type": "redemption", "redemption_id": "r", "action": "captur"})
    assert rejected.reason is Reason.OUT_OF_RANGE
    assert rejected.message == "action: 'captur' is none of the words that may stand here; did you mean 'capture'?"


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "signup", "type": "signup"}',
        json.dumps(PURCHASE).replace('"sku": "s"', '"sku": "s", "sku": "t"'),
        json.dumps(PURCHASE)[:-1] + ', "attributes": {"a": "1", "a": "2"}}',
    ],
)
def test_a_key_that_stands_twice_in_one_object_is_refused(line: str) -> None:
    rejected = refused(line)
    assert rejected.reason is Reason.WRONG_TYPE
    assert "twice" in rejected.message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_no_numbers(word: str) -> None:
    assert refused(json.dumps(PURCHASE).replace("500", word)).reason is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        '"text"',
        "{} {}",
        b"\xff\xfe{\0}\0",
        b'{"a": "\xff"}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_json_object_is_undecodable(line: str | bytes) -> None:
    assert refused(line).reason is Reason.UNDECODABLE


@pytest.mark.parametrize("depth", [100, 400, 700, 900, 950, 990])
@pytest.mark.parametrize("field", ["type", "amount", "occurred_at", "items", "attributes", "elsewhere"])
def test_deep_nesting_is_refused_whatever_the_depth_and_the_place(depth: int, field: str) -> None:
    bomb = json.dumps({**PURCHASE, field: "BOMB"}).replace('"BOMB"', "[" * depth + "]" * depth)
    assert isinstance(refused(bomb), Rejected)


def test_a_complaint_about_a_long_value_stays_short_and_on_one_line() -> None:
    rejected = refused({**PURCHASE, "occurred_at": "x\n" * 10_000})
    assert len(rejected.message) < 300
    assert "\n" not in rejected.message


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers())))
def test_any_object_at_all_is_refused_with_a_reason(obj: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        event_from_object({**obj, "type": "purchase"})
