"""Names as long as an id may be: Guerdon's own events about them can be written, read again and explained."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import engine.referral.attribution
import engine.referral.tracker
from engine.intake.own_events import own_id
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.logs import forwards
from operations.simulate.event_lines import Line
from operations.simulate.from_log import simulate_log
from operations.simulate.run import simulate_lines
from operations.why.event import why_member
from schemas.events import ID_CHARACTERS_MAX, Event, Purchase, Refund, Signup
from schemas.json_events import event_to_object
from tests.engine.live.test_referrals import MINUTE_MS, assert_sound, drain, taken_in
from tests.engine.live.test_referrals import PROGRAMME as OF_FIRST_ORDERS
from tests.strategies.replays import repeated, rows
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

PROGRAMME = OF_FIRST_ORDERS.replace("referral.number: 1, ", "")
"""Each order of a friend brings something, and so does its refund."""
LONGEST = "\U0001f9d1" * 100 + "x" * 100
BOB = "b" * 200


def history(*lengths: tuple[int, int]) -> list[Event]:
    """Return a member who refers another, and orders of theirs under sources and event_ids of that length."""
    found: list[Event] = [
        Signup(event_id="a", member_id="ann", occurred_at=START_MS),
        Signup(event_id="b" * 200, source="s" * 200, member_id=BOB, occurred_at=START_MS + 1, referrer_id="ann"),
    ]
    for number, (source, event_id) in enumerate(lengths, 1):
        at_ms = START_MS + number * MINUTE_MS
        head: dict[str, Any] = {
            "event_id": f"{number}".ljust(event_id, "e"), "source": f"{number}".ljust(source, "s"), "member_id": BOB,
        }  # fmt: skip
        order_id = f"{number}{LONGEST}"[:ID_CHARACTERS_MAX]
        found.append(Purchase(**head, occurred_at=at_ms, order_id=order_id, currency="USD", amount=9_900))
        back = head | {"event_id": f"r{head['event_id']}"[:ID_CHARACTERS_MAX]}
        found.append(Refund(**back, occurred_at=at_ms + 1, order_id=order_id, refund_id=LONGEST, amount=5_000))
    return found


def all_agree(database_url: str, tmp_path: Path, events: list[Event]) -> list[dict[str, Any]]:
    """Return the reward events, which the log, a replay, both simulations and `why` agree on."""
    assert_sound(database_url)
    again = repeated(database_url)
    assert again["shards_that_differ"] == 0
    assert rows(database_url, again["generation"]) == rows(database_url, 1)
    assert all(told["log_agrees"] for who in ("ann", BOB) for told in why_member(database_url, who, 50))
    file = tmp_path / "p.yaml"
    file.write_text(PROGRAMME, "utf-8")
    of_log = simulate_log(database_url, file).document()["reward_events"]
    lines = [Line("e", at, json.dumps(event_to_object(event)).encode()) for at, event in enumerate(events, 1)]
    of_files = simulate_lines(file, lines).document()["reward_events"]
    names = ("member_id", "type", "unit", "amount", "event_id", "order_id", "reward_key")
    assert sorted([str(row[name]) for name in names] for row in of_log) == sorted(
        [str(row[name]) for name in names] for row in of_files
    )
    return of_log


def test_sources_and_ids_of_any_length_up_to_theirs_are_passed_on_to_the_referrer(
    database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PROGRAMME)
    events = history((183, 7), (188, 7), (200, 7), (100, 100), (182, 7), (7, 186), (200, 200), (1, 1))
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for event in events:
            taken_in(worker, event)
        taken_in(worker, Purchase(
            event_id="dora", member_id="dora", occurred_at=START_MS, order_id="o", currency="USD", amount=1,
        ))  # fmt: skip
        drain(worker)

    rewarded = all_agree(database_url, tmp_path, [*events, Purchase(
        event_id="dora", member_id="dora", occurred_at=START_MS, order_id="o", currency="USD", amount=1,
    )])  # fmt: skip
    assert {row["member_id"] for row in rewarded} >= {"ann", BOB}
    with transaction(database_url) as cursor:
        cursor.execute("SELECT event_id FROM guerdon.source_event WHERE kind IN ('forwarded', 'attribution')")
        names = [name for (name,) in cursor.fetchall()]
    assert max(map(len, names)) <= ID_CHARACTERS_MAX
    assert all(name.startswith(("forwarded:", "attribution:")) for name in names)
    assert len(set(names)) == len(names) == 18  # a signup, an attribution, and eight orders with a refund each
    notes = [note for told in why_member(database_url, "ann", 50) for note in told["notes"]]
    for event in events[2:]:
        assert any(f'event "{event.event_id}" of source "{event.source}"' in note for note in notes)
    notes = [note for told in why_member(database_url, BOB, 50) for note in told["notes"]]
    assert any(f'it decides on the signup: event "{"b" * 200}" of source "{"s" * 200}"' in note for note in notes)


def earlier_release(kind: str, source: str, event_id: str) -> str:
    """Return the name that an earlier release gave."""
    return f"{kind}:{source}:{event_id}"


def test_what_an_earlier_release_wrote_too_long_is_read_and_what_it_forwarded_is_named_anew(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, PROGRAMME)
    events = history((100, 100), (200, 200))
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        with monkeypatch.context() as release:
            for module in (engine.referral.attribution, engine.referral.tracker):
                release.setattr(module, "own_id", earlier_release)
            release.setattr(forwards, "_readable", lambda event: event)  # nor did it look at what it wrote
            for event in events:
                worker.commit(Batch([admitted(event)]))
        with transaction(database_url) as cursor:
            (longest,) = one(
                cursor, "SELECT max(length(event_id)) FROM guerdon.source_event WHERE kind = 'attribution'"
            )
        assert longest > ID_CHARACTERS_MAX, "the log holds a name of an earlier release"
        drain(worker)
    assert_sound(database_url)
    assert repeated(database_url)["shards_that_differ"] == 0
    assert why_member(database_url, BOB, 50)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT event_id FROM guerdon.source_event WHERE kind = 'forwarded'")
        names = {name for (name,) in cursor.fetchall()}
    assert names == {own_id("forwarded", event.source, event.event_id) for event in events[1:]}


def test_an_own_name_stays_as_it_is_up_to_the_length_of_an_id() -> None:
    assert own_id("forwarded", "default", "e" * 182) == f"forwarded:default:{'e' * 182}"
    assert len(own_id("forwarded", "default", "e" * 182)) == ID_CHARACTERS_MAX
    digested = own_id("forwarded", "default", "e" * 183)
    assert digested == "forwarded:ed16d571437d8566b37d877aec7a9b422e444aaa9e90ae1171f21f12152b6b9c"
    assert own_id("forwarded", "a" * 100, "b" * 100) != own_id("forwarded", "a" * 99, f"a{'b' * 100}")


def test_two_events_whose_source_and_id_read_alike_are_two(database_url: str) -> None:
    """A source may hold a colon: `a:b` and `c` are not `a` and `b:c`, neither passed on nor while a signup waits."""
    activate(database_url, PROGRAMME)
    events: list[Event] = [
        Signup(event_id="b", member_id=BOB, occurred_at=START_MS, referrer_id="ann"),
        Signup(event_id="c:d", source="b", member_id=BOB, occurred_at=START_MS, referrer_id="ann"),
        Signup(event_id="d", source="b:c", member_id=BOB, occurred_at=START_MS, referrer_id="ann"),
        Signup(event_id="a", member_id="ann", occurred_at=START_MS + 1),
    ]
    for at, (source, event_id) in enumerate((("x", "y:z"), ("x:y", "z")), 1):
        events.append(Purchase(
            source=source, event_id=event_id, member_id=BOB, occurred_at=START_MS + at * MINUTE_MS, order_id=f"o{at}",
            currency="USD", amount=9_900,
        ))  # fmt: skip
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for event in events:
            taken_in(worker, event)
        drain(worker)
    assert_sound(database_url)
    assert repeated(database_url)["shards_that_differ"] == 0
    with transaction(database_url) as cursor:
        passed_on = one(
            cursor, "SELECT count(DISTINCT event_id), count(*) FROM guerdon.source_event WHERE kind = 'forwarded'"
        )
    assert passed_on == (5, 5)
