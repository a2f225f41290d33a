"""What comes late about a referral: the referrer after the referee, and orders from before the signup."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.programme.file.load import load_programme
from engine.referral.codes import code_of
from engine.store.cursor import one
from engine.store.database import transaction
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from schemas.json_events import decode_json
from tests.engine.ledger.test_referrals import Event, event, programme, purchase, refund, signup, status
from tests.engine.ledger.test_referrals import points as points_of
from tests.models.referred_households import compared, in_views
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Sequence

ANN = signup(1, "ann", "03-01")
BOB = signup(2, "bob", "03-02", referrer_id="ann")
FIRST = purchase(3, "bob", "03-03", 2500)
GUEST = purchase(4, "bob", "02-01", 9900)
RULES = (
    "rules:\n"
    "- {id: friend, on: referral, when: {referral.event: purchase, referral.number: 1},"
    " give: [{points: {rate: 10, per: 1.00, of: referral.amount}}]}\n"
    "- {id: spent, on: referral, when: {referral.event: purchase, referral.spend: {gte: 30.00}}, give: [{points: 7}]}\n"
    "- {id: welcome, on: purchase, when: {member.referrer: {exists: true}}, give: [{points: 50}]}\n"
)
UNTIL_MS = 1_735_689_600_000  # 2025-01-01


def in_memory(text: str, *events: Event) -> dict[str, Any]:
    checked = load_programme(text, "p").programme
    assert checked is not None
    lines = [Line("e", number, json.dumps(each).encode()) for number, each in enumerate(events, 1)]
    return simulate_lines(checked, lines, UNTIL_MS).document()


def live(database_url: str, text: str, batches: Sequence[Sequence[Event]]) -> dict[str, Any]:
    """Write batches, let all be taken in that waits, and return what the views say."""
    activate(database_url, text)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for batch in batches:
            worker.commit(Batch([admitted(decode_json(json.dumps(each).encode())) for each in batch]))
        while worker.commit(Batch(clock=ClockMove(0, everywhere=True, hourly=False, reached_ms=UNTIL_MS))).ticks:
            pass
    return in_views(database_url)


# A signup that waited


BLOCKING = programme("{}", RULES)
OTHER = signup(8, "cat", "02-20", identity={"email": "cat's"})


def test_a_signup_that_waited_is_judged_by_nothing_that_its_member_did_afterwards() -> None:
    """Another signup, an address of another's: each would reject who would have been attributed at once."""
    told_later = event(9, "profile", "bob", "2024-03-01T11:00:00Z", identity={"email": "cat's"})
    again = signup(5, "bob", "2024-03-01T12:00:00Z")
    rest = (told_later, again, FIRST)
    early = signup(2, "bob", "03-01", referrer_id="ann")
    at_once = in_memory(BLOCKING, OTHER, ANN, early, *rest)
    waited = in_memory(BLOCKING, OTHER, early, told_later, again, ANN, FIRST)
    assert status(at_once, "bob") == status(waited, "bob") == [("qualified", None)]
    assert points_of(at_once, "ann") == points_of(waited, "ann")


def test_what_a_member_told_before_a_claim_counts_however_long_the_claim_waits() -> None:
    joined = signup(5, "bob", "03-01", identity={"email": "cat's"})
    claim = signup(6, "bob", "03-02", referrer_id="ann")
    document = in_memory(programme("{claim_window: 7d}", RULES), OTHER, joined, claim, signup(1, "ann", "03-03"))
    assert status(document, "bob") == [("rejected", "same_identity")]


@pytest.mark.parametrize(("day", "expected"), [("03-08T09:59:59", "attributed"), ("03-09", "rejected")])
def test_who_comes_when_the_time_is_up_is_nobody_though_nothing_else_has_happened(day: str, expected: str) -> None:
    named = signup(2, "bob", "03-01", referral_code=code_of("ann", b"guerdon simulate"))
    at = day if "T" not in day else f"2024-{day}Z"
    document = in_memory(programme("{claim_window: 7d}", RULES), named, signup(1, "ann", at))
    assert [told for told, _ in status(document, "bob")] == [expected]


def test_those_who_wait_for_one_referrer_are_decided_the_oldest_first() -> None:
    limited = programme("{max_per_referrer: {times: 1, every: year}}", RULES)
    later, earlier = signup(3, "cat", "03-01T12:00:00"), signup(2, "bob", "03-01", referrer_id="ann")
    later["occurred_at"], later["referrer_id"] = "2024-03-01T12:00:00Z", "ann"
    document = in_memory(limited, later, earlier, signup(1, "ann", "2024-03-01T13:00:00Z"))
    assert status(document, "bob") == [("attributed", None)]
    assert status(document, "cat") == [("rejected", "referrer_limit")]


# Guest orders


def test_a_guest_order_voids_a_referral_and_what_it_has_paid_is_claimed_back() -> None:
    document = in_memory(BLOCKING, ANN, BOB, FIRST, GUEST, purchase(5, "bob", "03-09", 8000))
    assert status(document, "bob") == [("voided", "existing_member")]
    assert [points_of(document, who)["available"] for who in ("ann", "bob")] == [0, 0]
    assert points_of(document, "ann")["reversed"] == 250


def test_where_members_of_before_may_be_referred_a_guest_order_counts_for_nothing_and_neither_does_its_refund() -> None:
    allowed = programme("{block: [self]}", RULES)
    for place in range(4):
        events = [ANN, BOB, FIRST, purchase(5, "bob", "03-09", 1000), refund(6, "bob", "03-10", "o4", 100)]
        document = in_memory(allowed, *events[:place], GUEST, *events[place:])
        assert status(document, "bob") == [("qualified", None)]
        assert points_of(document, "ann")["granted"] == 250 + 7  # the first order; and 35.00 spent at the second


def test_a_guest_order_that_came_to_light_while_the_signup_waited_voids_what_is_then_attributed() -> None:
    early = signup(2, "bob", "03-01T10:00:00", referrer_id="ann")
    early["occurred_at"] = "2024-03-01T10:00:00Z"
    document = in_memory(BLOCKING, early, GUEST, signup(1, "ann", "2024-03-01T12:00:00Z"), FIRST)
    assert status(document, "bob") == [("voided", "existing_member")]
    assert points_of(document, "ann")["granted"] == 0


def test_a_refund_of_an_order_that_came_late_lowers_the_count_as_long_as_any() -> None:
    old = purchase(3, "bob", "03-03", 2500)
    recent = purchase(5, "bob", "11-01", 1000)
    document = in_memory(
        BLOCKING, ANN, BOB, recent, old, purchase(7, "bob", "11-02", 100), refund(6, "bob", "03-04", "o3")
    )
    after = in_memory(
        BLOCKING, ANN, BOB, recent, old, refund(6, "bob", "03-04", "o3"), purchase(7, "bob", "11-02", 100)
    )
    assert [points_of(each, "ann")["granted"] for each in (document, after)] == [100 + 7 + 7, 100 + 7]


# The same in the live transaction

STORY = [
    ANN, BOB, FIRST, signup(10, "dan", "03-04", referrer_id="eve"), purchase(11, "dan", "2024-03-04T12:00:00Z", 4000),
    signup(12, "eve", "2024-03-04T20:00:00Z", referrer_id="bob"), purchase(13, "dan", "03-05", 5000), GUEST,
    purchase(14, "eve", "03-06", 2000), refund(15, "dan", "03-07", "o13", 1000), purchase(16, "bob", "03-08", 700),
    signup(17, "fay", "03-09", referrer_id="dan"), purchase(18, "fay", "01-09", 3000),
    purchase(19, "fay", "03-10", 100),
    signup(20, "gus", "03-11", referrer_id="hal"), signup(21, "hal", "03-20"), purchase(22, "gus", "03-21", 2000),
]  # fmt: skip
"""A chain of referrals with waits, one of them too long, guest orders of bob and fay, and a refund."""


@pytest.mark.postgres
@pytest.mark.parametrize("size", [1, 2, 3, 5, len(STORY)])
@pytest.mark.parametrize("referral", ["{}", "{block: [self]}"])
def test_a_history_ends_as_in_memory_however_it_is_cut_into_batches(
    size: int, referral: str, database_url: str
) -> None:
    text = programme(referral, RULES)
    expected = compared(in_memory(text, *STORY))
    cuts = [STORY[first : first + size] for first in range(0, len(STORY), size)]
    assert live(database_url, text, cuts) == expected
    statuses = {who: (told, reason) for who, _, told, reason in expected["referrals"]}
    assert statuses["gus"] == ("rejected", "unknown_code")
    assert statuses["bob"] == (("voided", "existing_member") if referral == "{}" else ("qualified", None))
    voids = 2 if referral == "{}" else 0
    with transaction(database_url) as cursor:
        counted = "SELECT count(*) FROM guerdon.source_event WHERE kind = 'decision' AND event_id LIKE 'void:%'"
        assert one(cursor, counted) == (voids,)


@pytest.mark.postgres
def test_what_a_batch_forwards_to_its_own_shards_is_in_the_log_with_it(database_url: str) -> None:
    """One batch, and nothing waits: what is forwarded stands behind its origin, an attribution before its signup."""
    activate(database_url, BLOCKING)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        events = [ANN, BOB, FIRST, signup(10, "dan", "03-04", referrer_id="bob"), purchase(11, "dan", "03-05", 4000)]
        worker.commit(Batch([admitted(decode_json(json.dumps(each).encode())) for each in events]))
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.forwarded") == (0,)
        cursor.execute("SELECT event_id FROM guerdon.source_event WHERE member_id = 'ann' ORDER BY seq")
        assert [name for (name,) in cursor.fetchall()] == ["e1", "forwarded:default:e2", "forwarded:default:e3"]
        cursor.execute("SELECT event_id FROM guerdon.source_event WHERE member_id = 'bob' ORDER BY seq")
        assert [name for (name,) in cursor.fetchall()] == [
            "attribution:default:e2", "e2", "e3", "forwarded:default:e10", "forwarded:default:e11",
        ]  # fmt: skip
