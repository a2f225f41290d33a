"""Profiles at rest: sealed, opened only for what reads them, and the same after every restart."""

from __future__ import annotations

import itertools
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import engine.driver
from engine.evaluate import fold
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.member.profile import MemberProfile
from engine.store.cursor import one
from engine.store.database import connect, transaction
from engine.store.members import member_states, profiles
from engine.store.members.profile_fill import fill_profiles
from operations.intake import quarantine
from operations.member.view import member as shown
from operations.verify.checks import verify
from schemas.events import Erasure, Event, Profile, Share, Signup
from schemas.partitioning import shard_of
from tests.models.oracle import assert_nowhere
from tests.system.batches import SCHEMAS, admitted, commit
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.ledger.books import Books
    from engine.member.state import MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

pytestmark = pytest.mark.postgres

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\nrules:\n"
PLAIN = HEAD + "- {id: plain, on: share, give: [{points: 1}]}\n"
READING = HEAD + (
    "- {id: birthday, on: share, when: {member.birthday: {within: 3d}}, give: [{points: 10}]}\n"
    "- {id: oslo, on: share, when: {member.attributes.city: {starts_with: Osl}}, give: [{points: 20}]}\n"
)
BIRTHDAY = "1987-05-02"  # a day after the events
number = itertools.count(1)


def head(member_id: str = "m1") -> dict[str, Any]:
    count = next(number)
    return {"event_id": f"e{count}", "member_id": member_id, "occurred_at": START_MS + count}


def signup(member_id: str = "m1", **fields: Any) -> Signup:
    return Signup(**head(member_id), **fields)


def profile(member_id: str = "m1", **fields: Any) -> Profile:
    return Profile(**head(member_id), **fields)


def share(member_id: str = "m1") -> Share:
    return Share(**head(member_id), object="shoe", channel="link")


def batch(*events: Event) -> Batch:
    return Batch([admitted(event) for event in events])


def rules(database_url: str, event: Share) -> list[str]:
    """Return the rules that gave something for an event, in their order."""
    with transaction(database_url) as cursor:
        cursor.execute("SELECT rule_id FROM guerdon.reward_event WHERE event_id = %s ORDER BY pos", (event.event_id,))
        return [rule_id for (rule_id,) in cursor.fetchall()]


def stored(database_url: str, member_id: str = "m1") -> bytes | None:
    with transaction(database_url) as cursor:
        (personal,) = one(cursor, "SELECT personal FROM guerdon.member_state WHERE member_id = %s", (member_id,))
        return None if personal is None else bytes(personal)


def opened(database_url: str, member_id: str = "m1") -> MemberProfile | None:
    with transaction(database_url) as cursor:
        (member,) = member_states.load(cursor, [(shard_of(member_id), member_id)])
        assert member.state.profile is None, "a state is stored without its profile"
        profiles.open_profiles(cursor, [member])
        return member.state.profile


@pytest.fixture
def worker(database_url: str) -> Iterator[LiveTransaction]:
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as live:
        yield live


def test_a_new_worker_reads_the_profiles_that_an_earlier_one_wrote(database_url: str) -> None:
    activate(database_url, READING)
    commit(database_url, batch(signup(birthday=BIRTHDAY)))
    commit(database_url, batch(profile(attributes={"city": "Oslo", "size": "L"})))
    commit(database_url, batch(profile(attributes={"size": None})))
    last = share()
    commit(database_url, batch(last))
    assert rules(database_url, last) == ["birthday", "oslo"]
    assert opened(database_url) == MemberProfile(BIRTHDAY, {"city": "Oslo"})
    assert_nowhere(database_url, BIRTHDAY, "Oslo")
    assert BIRTHDAY not in str(shown(database_url, "m1"))
    assert "Oslo" not in str(shown(database_url, "m1"))
    assert all(finding["problem"] is None for finding in verify(database_url))


def test_in_one_batch_each_event_reads_what_came_before_it(database_url: str) -> None:
    activate(database_url, READING)
    before, between, after = share(), share(), share()
    changes = (signup(birthday=BIRTHDAY), profile(attributes={"city": "Oslo"}), profile(attributes={"city": "Rome"}))
    commit(database_url, batch(before, changes[0], changes[1], between, changes[2], after))
    assert [rules(database_url, each) for each in (before, between, after)] == [[], ["birthday", "oslo"], ["birthday"]]


def test_a_worker_does_not_believe_a_profile_that_another_one_has_changed(
    database_url: str, worker: LiveTransaction
) -> None:
    activate(database_url, READING)
    worker.commit(batch(signup(attributes={"city": "Oslo"})))
    first, second, third = share(), share(), share()
    worker.commit(batch(first))
    commit(database_url, batch(profile(attributes={"city": "Rome"})))
    worker.commit(batch(second))
    worker.commit(batch(profile(attributes={"city": "Oslo"})))
    worker.commit(batch(third))
    assert [rules(database_url, each) for each in (first, second, third)] == [["oslo"], [], ["oslo"]]


def test_a_programme_that_begins_to_read_profiles_sees_what_came_before(
    database_url: str, worker: LiveTransaction
) -> None:
    activate(database_url, PLAIN)
    commit(database_url, batch(signup(birthday=BIRTHDAY), signup("m2", attributes={"city": "Oslo"})))
    worker.commit(batch(share(), share("m2")))  # it has both in its cache now, and has opened neither profile
    activate(database_url, READING)
    first, second = share(), share("m2")
    worker.commit(batch(first, second))
    assert [rules(database_url, each) for each in (first, second)] == [["birthday"], ["oslo"]]


def test_a_profile_is_opened_only_when_a_rule_reads_it(database_url: str) -> None:
    activate(database_url, PLAIN)
    commit(database_url, batch(signup(birthday=BIRTHDAY)))
    with transaction(database_url) as cursor:
        cursor.execute("UPDATE guerdon.member_state SET personal = 'what no key opens'")
    plain, reading = share(), share()
    commit(database_url, batch(plain))
    assert rules(database_url, plain) == ["plain"]
    activate(database_url, READING)
    assert commit(database_url, batch(reading)).quarantined == 1
    (record,) = quarantine.listed(database_url)
    assert 'the profile of member "m1" does not open with their key' in record["message"]


def test_it_is_written_only_when_it_changes(database_url: str, worker: LiveTransaction) -> None:
    activate(database_url, READING)
    worker.commit(batch(signup(birthday=BIRTHDAY)))
    first = stored(database_url)
    worker.commit(batch(share(), profile(birthday=BIRTHDAY), profile(identity={"email": "hash"})))
    assert stored(database_url) == first
    worker.commit(batch(profile(birthday="--05-02")))
    assert stored(database_url) not in (None, first)
    commit(database_url, batch(signup("m2", channel="app")))
    assert stored(database_url, "m2") is None


def test_a_profile_that_says_nothing_any_more_is_taken_away(database_url: str) -> None:
    activate(database_url, READING)
    commit(database_url, batch(signup(attributes={"city": "Oslo"})))
    commit(database_url, batch(profile(attributes={"city": None})))
    assert stored(database_url) is None


def test_what_was_sealed_for_one_member_opens_for_no_other() -> None:
    profile_of_m1 = MemberProfile(BIRTHDAY, {"city": "Oslo"})
    key = b"k" * 32
    sealed = profiles.sealed("m1", profile_of_m1, key)
    assert BIRTHDAY.encode() not in sealed
    assert profiles.opened("m1", sealed, key) == profile_of_m1
    assert profiles.sealed("m1", profile_of_m1, key) != sealed, "a nonce is used once"
    for other, wrong in (("m2", key), ("m1", b"x" * 32)):
        with pytest.raises(ValueError, match="does not open"):
            profiles.opened(other, sealed, wrong)


@pytest.mark.parametrize("at_once", [False, True])
def test_erasure_takes_the_profile_away(database_url: str, *, at_once: bool) -> None:
    activate(database_url, READING)
    both = [signup(birthday=BIRTHDAY), Erasure(**head())]
    for events in [both] if at_once else [[each] for each in both]:
        commit(database_url, batch(*events))
    assert stored(database_url) is None
    assert commit(database_url, batch(share())).quarantined == 1


def test_a_suspended_members_profile_waits_with_their_events(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, READING)
    commit(database_url, batch(signup(birthday=BIRTHDAY), signup("m2", birthday=BIRTHDAY)))
    bad = {each.event_id: each for each in (share(), share("m2"))}

    def fail(
        state: MemberState, event: MemberEvent, occurrence: Occurrence, judge: Judge, books: Books
    ) -> Sequence[RewardEvent]:
        if event.event_id in bad:
            raise ZeroDivisionError
        return fold(state, event, occurrence, judge, books)

    # m1 and m2 are suspended at their first share, and more comes for both
    late = share()
    others = (profile("m2", birthday="--01-01"), Erasure(**head("m2")))
    with monkeypatch.context() as defect:
        defect.setattr(engine.driver, "fold", fail)
        worker.commit(batch(*bad.values(), profile(attributes={"city": "Oslo"}), late, *others))
    assert opened(database_url) == MemberProfile(BIRTHDAY, {}), (
        "events that came during the suspension are not folded yet"
    )
    assert stored(database_url, "m2") is None

    # the release folds it all
    for member_id in ("m1", "m2"):
        with transaction(database_url) as cursor:
            release_member(cursor, shard_of(member_id), member_id)
    first, second = bad.values()
    assert [rules(database_url, each) for each in (first, late, second)] == [["birthday"], ["birthday", "oslo"], []]
    assert opened(database_url) == MemberProfile(BIRTHDAY, {"city": "Oslo"})
    assert stored(database_url, "m2") is None


def test_a_database_from_before_profiles_is_filled_from_its_log(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, PLAIN)
    commit(database_url, batch(signup(birthday=BIRTHDAY), profile(attributes={"city": "Oslo", "size": "L"})))
    commit(database_url, batch(profile(attributes={"size": None}), signup("gone", birthday=BIRTHDAY), signup("bare")))
    commit(database_url, batch(Erasure(**head("gone")), signup("held", attributes={"city": "Oslo"})))

    def fail(*_: object) -> Sequence[RewardEvent]:
        raise ZeroDivisionError

    with monkeypatch.context() as defect:
        defect.setattr(engine.driver, "fold", fail)
        worker.commit(batch(profile("held", attributes={"city": "Rome"})))
    with closing(connect(database_url, role=None)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE guerdon.member_state SET personal = NULL")  # as the migration finds them
        fill_profiles(cursor)
    assert opened(database_url) == MemberProfile(BIRTHDAY, {"city": "Oslo"})
    assert opened(database_url, "held") == MemberProfile(None, {"city": "Oslo"}), (
        "the events that wait are left to the release"
    )
    assert stored(database_url, "gone") is None
    assert stored(database_url, "bare") is None
