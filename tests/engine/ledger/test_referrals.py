"""Referrals in memory: codes, who is attributed and who is not, two-sided rewards, refunds, flags and voids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.programme.file.load import load_programme
from engine.referral.codes import ALPHABET, LENGTH, code_of, is_well_formed, normalised
from operations.simulate.run import simulate
from schemas.scalars import instant_from_iso
from tests.programme_text import written

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\n"
RULES = (
    "rules:\n"
    "- {id: friend, on: referral, when: {referral.event: purchase, referral.number: 1, referral.amount: {gte: 20.00}},"
    " give: [{points: {rate: 10, per: 1.00, of: referral.amount}}]}\n"
    "- {id: welcome, on: purchase, when: {member.referrer: {exists: true}}, give: [{points: 50}],"
    " limits: [{times: 1, per: member}]}\n"
)
Event = dict[str, Any]


def programme(referral: str = "{claim_window: 7d}", rules: str = RULES) -> str:
    return HEAD + f"referral: {referral}\n" + rules


def event(number: int, kind: str, who: str, day: str, **fields: Any) -> Event:
    at = day if "T" in day else f"2024-{day}T10:00:00Z"
    return {"type": kind, "event_id": f"e{number}", "member_id": who, "occurred_at": at, **fields}


def signup(number: int, who: str, day: str, **fields: Any) -> Event:
    return event(number, "signup", who, day, **fields)


def purchase(number: int, who: str, day: str, amount: int, order: str | None = None) -> Event:
    return event(number, "purchase", who, day, order_id=order or f"o{number}", currency="USD", amount=amount)


def refund(number: int, who: str, day: str, order: str, amount: int | None = None) -> Event:
    part = {} if amount is None else {"amount": amount}
    return event(number, "refund", who, day, order_id=order, refund_id=f"r{number}", **part)


def decision(number: int, who: str, day: str, action: str) -> Event:
    return event(number, "decision", who, day, action=action, reason="looked at it")


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def found(text: str, *events: Event, until: str | None = None) -> dict[str, Any]:
        (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "e.jsonl").write_text("\n".join(json.dumps(each) for each in events), encoding="utf-8")
        until_ms = None if until is None else instant_from_iso(until, "until")
        return simulate(tmp_path / "p.yaml", [tmp_path / "e.jsonl"], until_ms).document()

    return found


def points(document: dict[str, Any], who: str) -> dict[str, int]:
    rows = [row for row in document["balances"] if (row["member_id"], row["unit"]) == (who, "points")]
    return rows[0] if rows else dict.fromkeys(("granted", "pending", "available", "reversed", "debt"), 0)


def status(document: dict[str, Any], who: str) -> list[tuple[str, str | None]]:
    return [(row["status"], row["reason"]) for row in document["referrals"] if row["referee_id"] == who]


ANN = signup(1, "ann", "03-01")
BOB = signup(2, "bob", "03-02", referrer_id="ann")


# Codes

CODES = st.text(st.sampled_from(ALPHABET), min_size=LENGTH - 1, max_size=12)
MEMBERS = st.text(min_size=1, max_size=20)


@given(MEMBERS, st.binary(min_size=1, max_size=16), st.integers(LENGTH, 14))
def test_a_code_is_well_formed_however_it_is_written_down(member_id: str, secret: bytes, length: int) -> None:
    code = code_of(member_id, secret, length)
    assert len(code) == length
    assert is_well_formed(code)
    assert is_well_formed(normalised(f" {code[:4].lower()}-{code[4:]} "))


@given(MEMBERS, st.data())
def test_one_wrong_character_is_found_and_so_are_swapped_neighbours(member_id: str, data: st.DataObject) -> None:
    code = code_of(member_id, b"secret")
    at = data.draw(st.integers(0, len(code) - 1))
    wrong = data.draw(st.sampled_from(ALPHABET.replace(code[at], "")))
    assert not is_well_formed(code[:at] + wrong + code[at + 1 :])
    at = data.draw(st.integers(0, len(code) - 2))
    if code[at] != code[at + 1]:
        assert not is_well_formed(code[:at] + code[at + 1] + code[at] + code[at + 2 :])


def test_codes_cannot_be_told_without_the_secret() -> None:
    assert code_of("ann", b"one") != code_of("ann", b"other")


# Attribution


def test_a_code_is_issued_at_signup_and_names_its_owner(run: Any) -> None:
    (row,) = run(programme(), ANN)["codes"]
    document = run(programme(), ANN, signup(2, "bob", "03-02", referral_code=row["code"].lower()))
    assert [(row["referrer_id"], row["status"]) for row in document["referrals"]] == [("ann", "attributed")]


def test_a_code_that_was_brought_over_keeps_working_and_no_other_is_issued(run: Any) -> None:
    brought = event(1, "decision", "ann", "03-01", action="opening", referral_code="OLD#7")
    document = run(programme(), brought, signup(2, "ann", "03-01"), signup(3, "bob", "03-02", referral_code="OLD#7"))
    assert [row["code"] for row in document["codes"] if row["member_id"] == "ann"] == ["OLD#7"]
    assert status(document, "bob") == [("attributed", None)]


def test_a_code_used_before_its_owner_signed_up_waits_for_them(run: Any) -> None:
    (row,) = run(programme(), ANN)["codes"]
    early = signup(9, "bob", "02-28", referral_code=row["code"])
    document = run(programme(), early, purchase(3, "bob", "02-29", 2500), signup(1, "ann", "03-01"))
    assert status(document, "bob") == [("qualified", None)]
    assert points(document, "ann")["available"] == 250


def test_a_code_that_nobody_claims_is_unknown_when_its_time_is_up(run: Any) -> None:
    code = code_of("nobody", b"other")
    document = run(programme(), signup(1, "bob", "03-01", referral_code=code), until="2024-03-07T10:00:00Z")
    assert status(document, "bob") == []
    document = run(programme(), signup(1, "bob", "03-01", referral_code=code), until="2024-03-08T10:00:00Z")
    assert status(document, "bob") == [("rejected", "unknown_code")]


def test_a_purchase_before_the_first_signup_makes_an_existing_member(run: Any) -> None:
    bought = purchase(3, "bob", "03-01", 2500)
    assert status(run(programme(), ANN, bought, BOB), "bob") == [("rejected", "existing_member")]
    allowed = programme("{claim_window: 7d, block: [self]}")
    later = run(allowed, ANN, bought, BOB, purchase(4, "bob", "03-03", 3000))
    assert status(later, "bob") == [("qualified", None)]
    assert points(later, "ann")["granted"] == 300  # the first order since they signed up


def test_a_purchase_that_comes_before_its_signup_and_happened_after_it_is_forwarded(run: Any) -> None:
    late = signup(2, "bob", "03-02", referrer_id="ann")
    document = run(programme(), ANN, purchase(3, "bob", "03-03", 2500), late)
    assert status(document, "bob") == [("qualified", None)]
    assert points(document, "ann")["available"] == 250


def test_a_claim_is_taken_within_its_window_and_not_after_it(run: Any) -> None:
    for day, expected in (("03-08", [("attributed", None)]), ("03-10", [("rejected", "claim_too_late")])):
        claim = signup(3, "bob", day, referrer_id="ann")
        assert status(run(programme(), ANN, signup(2, "bob", "03-02"), claim), "bob") == expected
    claim = signup(3, "bob", "03-03", referrer_id="ann")
    no_claims = run(programme("{}"), ANN, signup(2, "bob", "03-02"), claim)
    assert status(no_claims, "bob") == [("rejected", "existing_member")]


def test_a_referee_has_one_referrer_for_life(run: Any) -> None:
    again = signup(4, "bob", "03-03", referrer_id="cat")
    document = run(programme(), ANN, signup(3, "cat", "03-01"), BOB, again)
    assert sorted(status(document, "bob")) == [("attributed", None), ("rejected", "already_referred")]


@pytest.mark.parametrize(("how", "referrer"), [("first_touch", "ann"), ("last_touch", "cat")])
def test_touches_count_as_the_programme_says_and_a_code_beats_them(run: Any, how: str, referrer: str) -> None:
    codes = {row["member_id"]: row["code"] for row in run(programme(), ANN, signup(2, "cat", "03-01"))["codes"]}

    def touch(number: int, who: str, day: str) -> Event:
        seen = {"referral_code": codes[who], "visitor": "v", "channel": "wechat"}
        return {"type": "touch", "event_id": f"t{number}", "occurred_at": f"2024-{day}T10:00:00Z", **seen}

    before = (ANN, signup(2, "cat", "03-01"), touch(1, "ann", "03-02"), touch(2, "cat", "03-03"))
    document = run(programme(written("{attribution: $how}", how=how)), *before, signup(5, "bob", "03-04", visitor="v"))
    assert [(row["referrer_id"], row["channel"]) for row in document["referrals"]] == [(referrer, "wechat")]
    document = run(programme(), *before, signup(5, "bob", "03-04", visitor="v", referrer_id="ann"))
    assert [row["referrer_id"] for row in document["referrals"]] == ["ann"]
    late = run(programme(), *before, signup(5, "bob", "07-04", visitor="v"))
    assert late["referrals"] == []


IDENTITY = {"email": "h1", "device": "d1", "ip": "1.2.3.4", "user_agent": "ua"}


def test_the_same_email_is_one_person_and_the_same_device_is_looked_at(run: Any) -> None:
    ann = signup(1, "ann", "03-01", identity=IDENTITY)
    same = signup(2, "bob", "03-02", referrer_id="ann", identity={"email": "h1"})
    assert status(run(programme(), ann, same), "bob") == [("rejected", "same_identity")]
    near = signup(2, "bob", "03-02", referrer_id="ann", identity=IDENTITY | {"email": "h2"})
    flags = "{flag: [same_device, same_ip_and_user_agent]}"
    assert status(run(programme(flags), ann, near), "bob") == [("flagged", "same_device+same_ip_and_user_agent")]
    office = signup(2, "bob", "03-02", referrer_id="ann", identity={"ip": "1.2.3.4", "user_agent": "other"})
    assert status(run(programme(flags), ann, office), "bob") == [("attributed", None)]


def test_a_claim_that_says_nothing_does_not_hide_what_the_signup_said(run: Any) -> None:
    ann = signup(1, "ann", "03-01", identity=IDENTITY)
    same = signup(2, "bob", "03-02", identity={"email": "h1"})
    claim = signup(3, "bob", "03-03", referrer_id="ann")
    assert status(run(programme(), ann, same, claim), "bob") == [("rejected", "same_identity")]


def test_the_sixth_referee_within_an_hour_is_flagged_and_the_one_after_it_is_not(run: Any) -> None:
    many = [signup(n, f"b{n}", f"2024-03-02T10:0{n - 2}:00Z", referrer_id="ann") for n in range(2, 8)]
    later = signup(8, "b8", "2024-03-02T12:00:00Z", referrer_id="ann")
    document = run(programme("{flag: [burst]}"), ANN, *many, later)
    assert [status(document, f"b{n}")[0] for n in (6, 7, 8)] == [
        ("attributed", None), ("flagged", "burst"), ("attributed", None),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_no_claims_of_any_order_close_a_cycle(claims: list[tuple[int, int]]) -> None:
    """Claims are held to a plain search of the graph of all that were accepted before."""
    from engine.programme.file.load import load_programme  # noqa: PLC0415  as above
    from operations.simulate.event_lines import Line  # noqa: PLC0415  beside its only use
    from operations.simulate.run import simulate_lines  # noqa: PLC0415  as above

    loaded = load_programme(programme("{claim_window: 90d, block: [self, cycle]}"), "p")
    assert loaded.programme is not None
    joined = [signup(n, f"m{n}", "03-01") for n in range(8)]
    asked = [signup(100 + n, f"m{who}", "03-02", referrer_id=f"m{by}") for n, (who, by) in enumerate(claims)]
    lines = [Line("e", n, json.dumps(each).encode()) for n, each in enumerate((*joined, *asked), 1)]
    rows = simulate_lines(loaded.programme, lines).document()["reward_events"]
    referrals = [(row["member_id"], row["type"], row["reason"]) for row in rows if row["unit"] == "referral"]
    edges: dict[str, str] = {}
    expected: list[tuple[str, str, str | None]] = []
    for who, by in ((f"m{who}", f"m{by}") for who, by in claims):
        reached, ancestors = by, {by}
        while reached in edges:
            reached = edges[reached]
            ancestors.add(reached)
        if who == by:
            expected.append((who, "referral.rejected", "self_referral"))
        elif who in edges:
            expected.append((who, "referral.rejected", "already_referred"))
        elif who in ancestors:
            expected.append((who, "referral.rejected", "cycle"))
        else:
            edges[who] = by
            expected.append((who, "referral.attributed", None))
    assert sorted(referrals) == sorted(expected)


# Two-sided rewards

FIRST = purchase(3, "bob", "03-03", 2500)


def test_both_sides_are_paid_and_the_orders_of_two_members_may_be_called_alike(run: Any) -> None:
    own = purchase(4, "ann", "03-03", 100, "o3")
    document = run(programme(), ANN, BOB, own, FIRST, refund(5, "ann", "03-04", "o3"))
    assert (points(document, "ann")["available"], points(document, "bob")["available"]) == (250, 50)
    assert status(document, "bob") == [("qualified", None)]


# 25.00 gives 250; 4.00 returned leaves 21.00: 210. Then 1.00 more leaves 20.00: 200; then 0.01 falls below 20.00: 0.
@pytest.mark.parametrize(
    ("returned", "left"), [([400], 210), ([400, 100], 200), ([500], 200), ([400, 100, 1], 0), ([501], 0), ([None], 0)]
)
def test_a_refund_of_the_qualifying_order_leaves_what_the_rest_gives_on_any_path(
    run: Any, returned: list[int | None], left: int
) -> None:
    refunds = [refund(10 + n, "bob", f"03-{10 + n}", "o3", amount) for n, amount in enumerate(returned)]
    document = run(programme(), ANN, BOB, FIRST, *refunds)
    assert points(document, "ann")["available"] == left
    assert status(document, "bob") == [("qualified", None)]


def test_a_refund_that_came_before_its_purchase_is_taken_off_right_after_it(run: Any) -> None:
    document = run(programme(), ANN, BOB, refund(4, "bob", "03-03", "o3", 400), purchase(3, "bob", "03-04", 2500))
    assert points(document, "ann")["available"] == 210


def test_an_order_that_was_wholly_returned_is_not_counted(run: Any) -> None:
    small = purchase(3, "bob", "03-03", 500)
    next_one = purchase(5, "bob", "03-05", 3000)
    assert points(run(programme(), ANN, BOB, small, next_one), "ann")["available"] == 0
    document = run(programme(), ANN, BOB, small, refund(4, "bob", "03-04", "o3"), next_one)
    assert points(document, "ann")["available"] == 300


FLAGGED = programme("{flag: [same_device]}")
ANN_AT = signup(1, "ann", "03-01", identity={"device": "d"})
BOB_AT = signup(2, "bob", "03-02", referrer_id="ann", identity={"device": "d"})


def test_what_a_flagged_referral_earns_is_held_on_both_sides_until_it_is_released(run: Any) -> None:
    document = run(FLAGGED, ANN_AT, BOB_AT, FIRST)
    assert [points(document, who)["pending"] for who in ("ann", "bob")] == [250, 50]
    released = run(FLAGGED, ANN_AT, BOB_AT, FIRST, decision(4, "bob", "03-09", "referral_release"))
    assert [points(released, who)["available"] for who in ("ann", "bob")] == [250, 50]
    assert status(released, "bob") == [("qualified", None)]
    moved = [row for row in released["reward_events"] if row["type"] == "points.released"]
    assert {row["available_at"] for row in moved} == {"2024-03-09T10:00:00Z"}


def test_a_void_takes_back_what_was_paid_on_both_sides_less_what_refunds_took(run: Any) -> None:
    voided = decision(9, "bob", "03-09", "referral_void")
    for flagged in (FLAGGED, programme()):
        document = run(flagged, ANN_AT, BOB_AT, FIRST, voided, purchase(10, "bob", "03-10", 9000))
        assert [points(document, who)["reversed"] for who in ("ann", "bob")] == [250, 50]
        assert [points(document, who)["available"] for who in ("ann", "bob")] == [0, 0]
        assert [each for each, _ in status(document, "bob")] == ["voided"]
    part = run(programme(), ANN, BOB, FIRST, refund(4, "bob", "03-04", "o3", 400), voided)
    assert points(part, "ann")["reversed"] == 250
    assert points(part, "ann")["debt"] == 0


def test_decisions_about_nothing_are_refused(run: Any) -> None:
    def reasons(*events: Event) -> list[str]:
        rows = run(programme(), ANN, BOB, *events)["reward_events"]
        return [row["reason"] for row in rows if row["type"] == "reward.refused"]

    assert reasons(decision(3, "ann", "03-03", "referral_void")) == ["not_referred"]
    assert reasons(decision(3, "bob", "03-03", "referral_release")) == ["not_flagged"]
    twice = (decision(3, "bob", "03-03", "referral_void"), decision(4, "bob", "03-04", "referral_void"))
    assert reasons(*twice) == ["already_voided"]


def test_an_erased_referrer_earns_nothing_more_and_nobody_comes_by_them(run: Any) -> None:
    gone = event(3, "erasure", "ann", "03-03")
    document = run(
        programme(), ANN, BOB, gone, purchase(4, "bob", "03-04", 2500), signup(5, "cat", "03-05", referrer_id="ann")
    )
    assert points(document, "ann")["granted"] == 0
    assert status(document, "cat") == [("rejected", "referrer_erased")]


def test_limits_of_a_rule_on_referrals_count_in_the_referrers_account(run: Any) -> None:
    rules = RULES.replace(
        "of: referral.amount}}]}", "of: referral.amount}}], limits: [{times: 1, per: member, every: year}]}"
    )
    others = (signup(4, "cat", "03-02", referrer_id="ann"), purchase(5, "cat", "03-04", 3000))
    document = run(programme(rules=rules), ANN, BOB, FIRST, *others)
    assert points(document, "ann")["granted"] == 250
    again = run(programme(rules=rules), ANN, BOB, FIRST, refund(6, "bob", "03-04", "o3"), *others)
    assert points(again, "ann")["available"] == 300


VOID = decision(9, "bob", "03-09", "referral_void")


def test_a_refund_after_a_void_claims_nothing_again(run: Any) -> None:
    document = run(programme(), ANN, BOB, FIRST, VOID, refund(10, "bob", "03-10", "o3"))
    assert (points(document, "bob")["reversed"], points(document, "bob")["debt"]) == (50, 0)


@pytest.mark.parametrize("first", [(), (refund(5, "bob", "03-05", "o3", 400),)])
def test_a_void_gives_the_limit_back_whatever_a_refund_took_before(run: Any, first: tuple[Event, ...]) -> None:
    limit = "limits: [{times: 1, per: [member, referral.channel], every: year}]}"
    rules = RULES.replace("of: referral.amount}}]}", written("of: referral.amount}}], $limit", limit=limit))
    bob = signup(2, "bob", "03-02", referrer_id="ann", channel="link")
    cat = signup(11, "cat", "03-10", referrer_id="ann", channel="link")
    document = run(programme(rules=rules), ANN, bob, FIRST, *first, VOID, cat, purchase(12, "cat", "03-11", 3000))
    assert points(document, "ann")["available"] == 300


STATUS = (
    "rules:\n- {id: friend, on: referral, when: {referral.event: purchase}, give: [{status: 900}]}\n"
    "- {id: up, on: tier, when: {tier.to: high}, give: [{points: 100}]}\n"
)


def tiers(metric: str, start: str) -> str:
    levels = written("[{id: low, from: 0}, {id: high, from: $start}]", start=start)
    return written("tiers: {metric: $metric, window: lifetime, levels: $levels}\n", metric=metric, levels=levels)


def test_a_void_lowers_only_tiers_that_go_by_status(run: Any) -> None:
    by_spend = programme(rules="metrics: {spent: {sum: purchase.amount}}\n" + tiers("spent", "10.00") + STATUS)
    own = purchase(4, "ann", "03-03", 1500)
    for after in (VOID, refund(10, "bob", "03-10", "o3")):
        (row,) = (row for row in run(by_spend, ANN, BOB, own, FIRST, after)["tiers"] if row["member_id"] == "ann")
        assert (row["tier"], row["qualifying"]) == ("high", 1500)


def test_a_void_of_two_gives_of_status_lowers_the_number_by_each_once(run: Any) -> None:
    two = STATUS.replace("give: [{status: 900}]", "give: [{status: 300}, {status: 200}]")
    own = "- {id: own, on: purchase, give: [{status: 1000}]}\n"
    text = programme(rules=tiers("status", "500") + two + own)
    document = run(text, ANN, BOB, purchase(4, "ann", "03-03", 100), FIRST, VOID)
    (row,) = (row for row in document["tiers"] if row["member_id"] == "ann")
    assert (row["tier"], row["qualifying"]) == ("high", 1000)


@pytest.mark.parametrize("after", [VOID, refund(10, "bob", "03-10", "o3")])
def test_what_a_tier_gave_goes_with_the_referees_order_that_reached_it(run: Any, after: Event) -> None:
    by_status = programme(rules=tiers("status", "500") + STATUS)
    reached = run(by_status, ANN, BOB, FIRST)
    assert points(reached, "ann")["available"] == 100
    document = run(by_status, ANN, BOB, FIRST, after)
    assert points(document, "ann")["available"] == 0
    (row,) = (row for row in document["tiers"] if row["member_id"] == "ann")
    assert (row["tier"], row["qualifying"]) == ("low", 0)
    assert {row["order_id"] for row in document["reward_events"] if row["type"] == "tier.changed"} <= {"o3", None}


def test_a_void_of_an_erased_referrers_referral_is_told(run: Any) -> None:
    document = run(programme(), ANN, BOB, FIRST, event(8, "erasure", "ann", "03-08"), VOID)
    assert status(document, "bob")[0][0] == "voided"


def test_a_misspelt_event_of_a_referee_is_told_with_the_right_one() -> None:
    loaded = load_programme(programme(rules=RULES.replace("referral.event: purchase", "referral.event: purchse")), "p")
    assert [problem.message for problem in loaded.errors] == [
        'unknown event of a referee "purchse"; did you mean "purchase"?'
    ]


def test_a_referrer_is_judged_by_the_tier_they_have_when_the_referee_buys(run: Any) -> None:
    """1,000 of status in 2024 are gold until the end of 2025 at most; in 2026 ann is low again."""
    levels = "[{id: low, from: 0}, {id: gold, from: 1000}]"
    text = programme(
        rules=written(
            """\
tiers: {metric: status, window: calendar_year, levels: $levels}
rules:
- {id: own, on: purchase, give: [{status: 1000}]}
- {id: friend, on: referral, when: {referral.event: purchase, member.tier: gold}, give: [{points: 7}]}
""",
            levels=levels,
        )
    )
    own = purchase(4, "ann", "03-03", 100)
    assert points(run(text, ANN, BOB, own, FIRST), "ann")["granted"] == 7
    years_later = purchase(5, "bob", "2026-03-03T10:00:00Z", 2500)
    assert points(run(text, ANN, BOB, own, years_later), "ann")["granted"] == 0
