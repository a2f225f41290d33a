"""Members keep their history and get, once, what another generation would have given them."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

import engine.history.replay
import engine.live.load
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.store.database import connect, transaction
from engine.store.generations import live_generation
from engine.store.logs.history import History
from engine.store.programmes import load_judge
from engine.store.quarantine import resolve
from engine.store.quarantine import rows as records
from operations.intake import quarantine
from operations.member.adjust import adjust
from operations.replay.difference import compared
from operations.replay.generations import discard, promote
from operations.replay.promote_adjusted import Times, planned, promote_as_adjustments
from operations.replay.run import Request, replay
from operations.settings import load_settings
from operations.why.event import why_event
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Erasure
from schemas.partitioning import shard_of
from tests.engine.books import Refusing
from tests.engine.history.test_promote import RICHER, TIERED, buys, judged_richly, sound
from tests.engine.history.test_replay import HOUR_MS, PLAIN, given, positions, written
from tests.strategies.replays import OTHER, differing, events, everything, repeated, rows, work
from tests.strategies.replays import killed as killed_at
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

ITEMS = {"coupon", "gift", "badge", "benefit", "tier"}
FLAT = PLAIN.replace("points: 1}", "points: 5}")
BY_AMOUNT = PLAIN.replace(
    "- {id: r, on: purchase, give: [{points: 1}]}",
    """\
- {id: dear, on: purchase, when: {purchase.amount: {gte: 40.00}}, give: [{points: 9}]}
- {id: cheap, on: purchase, when: {purchase.amount: {lt: 40.00}}, give: [{points: 2}]}""",
)
"""Gives more than FLAT for some purchases, and less for others."""


def changes(database_url: str, number: int) -> dict[tuple[str, str], int]:
    """Return by member and unit what a generation gives more, or less, than the live one; items left out."""
    with compared(database_url, number) as difference:
        found = {(row["member_id"], row["unit"]): int(row["change"]) for row in difference.members()}
    return {(member, unit): change for (member, unit), change in found.items() if change and unit not in ITEMS}


def logged(database_url: str) -> list[Any]:
    """Return the adjustments in the source log, in its order."""
    with transaction(database_url) as cursor:
        cursor.execute("SELECT shard, seq FROM guerdon.source_event WHERE kind = 'adjustment' ORDER BY shard, seq")
        return [History(cursor).at(*place).event for place in cursor.fetchall()]


def amounts(database_url: str) -> dict[tuple[str, str], int]:
    return {(event.member_id, event.unit): event.amount for event in logged(database_url)}


def judged_by_amount(database_url: str, folder: Path) -> int:
    """Make a log of eight members, four with dear and four with cheap purchases, and a shadow that judges by amount."""
    activate(database_url, FLAT)
    found = [
        admitted(purchase(n, f"m{n % 8}", amount=5_000 if n % 2 else 1_000, occurred_at=START_MS + n * HOUR_MS))
        for n in range(24)
    ]
    commit(database_url, Batch(found))
    number: int = replay(database_url, Request(written(folder, BY_AMOUNT)))["generation"]
    return number


# What members have


def test_members_have_what_the_other_generation_gives_them_and_asked_again_nothing_more(
    database_url: str, tmp_path: Path
) -> None:
    number = judged_richly(database_url, tmp_path)
    wanted = changes(database_url, number)
    assert len(wanted) == 20
    told = promote_as_adjustments(database_url, number)
    assert changes(database_url, number) == {}
    assert amounts(database_url) == wanted
    assert told == {
        "generation": number, "adjusted": 1, "already": False, "losses": "take", "adjustments": 20,
        "units": [{"unit": "points", "gain": 20, "lose": 0, "gained": sum(wanted.values()), "lost": 0}],
    }  # fmt: skip
    commit(database_url, buys(range(60, 66)))
    assert promote_as_adjustments(database_url, number) == told | {"already": True}
    assert amounts(database_url) == wanted
    sound(database_url)


def test_gains_are_granted_and_losses_reversed_for_the_reason_of_that_generation(
    database_url: str, tmp_path: Path
) -> None:
    number = judged_by_amount(database_url, tmp_path)
    promote_as_adjustments(database_url, number)
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT member_id, type::text, sum(amount) FROM reward.reward_event WHERE reason = %s
            GROUP BY 1, 2 ORDER BY 1
            """,
            (f"generation_{number}",),
        )
        assert cursor.fetchall() == [
            (f"m{n}", *(("points.adjusted", 12) if n % 2 else ("points.reversed", 9))) for n in range(8)
        ]
        cursor.execute("SELECT member_id, available FROM reward.member_balance WHERE unit = 'points' ORDER BY 1")
        assert cursor.fetchall() == [(f"m{n}", 27 if n % 2 else 6) for n in range(8)]
    sound(database_url)


def test_with_losses_kept_no_member_is_left_worse_off(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    told = promote_as_adjustments(database_url, number, keep_losses=True)
    assert told["units"] == [{"unit": "points", "gain": 4, "lose": 0, "gained": 48, "lost": 0}]
    assert amounts(database_url) == {(f"m{n}", "points"): 12 for n in (1, 3, 5, 7)}
    assert changes(database_url, number) == {(f"m{n}", "points"): -9 for n in (0, 2, 4, 6)}
    assert promote_as_adjustments(database_url, number, keep_losses=True)["already"]
    with pytest.raises(AnswerIsNo, match="was promoted as adjustments before, with `--losses keep`"):
        promote_as_adjustments(database_url, number)
    sound(database_url)


def test_where_nothing_differs_nothing_is_written(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    commit(database_url, buys(range(20)))
    number = replay(database_url, Request(written(tmp_path, PLAIN)))["generation"]
    before = positions(database_url, 1)
    told = promote_as_adjustments(database_url, number)
    assert (told["adjustments"], told["units"]) == (0, [])
    assert positions(database_url, 1) == before


def test_what_members_have_spent_is_not_given_twice_and_becomes_debt(database_url: str, tmp_path: Path) -> None:
    """Of all kinds of histories: pending, reserved, spent, expired and refunded points, tiers, cash and debts."""
    with pytest.MonkeyPatch.context() as patch:
        everything(database_url, patch, 600)
    settings = load_settings(database_url=database_url, bootstrap_servers="127.0.0.1:1", home=tmp_path)
    number = replay(database_url, Request(written(tmp_path, OTHER)))["generation"]
    with pytest.raises(AnswerIsNo, match="members are held whose events wait"):
        promote_as_adjustments(database_url, number)
    with transaction(database_url) as cursor:
        for record in records(cursor, "stage = 'evaluate' AND member_id = 'member-3'"):
            resolve(cursor, record["id"], "released", None)
    quarantine.release(settings, quarantine.listed(database_url)[0]["id"])
    assert logged(database_url) == []
    promote_as_adjustments(database_url, number)
    assert {event.amount > 0 for event in logged(database_url)} == {True, False}
    assert changes(database_url, number) == {}
    sound(database_url)
    assert differing(database_url, repeated(database_url)["generation"]) == 0
    work(database_url, events(700)[600:])
    assert differing(database_url, repeated(database_url)["generation"]) == 0
    sound(database_url)


def test_points_for_a_tier_that_only_adjusted_status_reaches_are_not_given_twice(
    database_url: str, tmp_path: Path
) -> None:
    old = TIERED.replace("from: 15", "from: 45").replace(
        "tiers:", "- {id: risen, on: tier, give: [{points: 500}]}\ntiers:"
    )
    activate(database_url, old)
    commit(database_url, buys(range(60)))
    number = replay(database_url, Request(written(tmp_path, old.replace("status: 10", "status: 30"))))["generation"]
    wanted = changes(database_url, number)
    assert {change for (_, unit), change in wanted.items() if unit == "points"} == {500}
    promote_as_adjustments(database_url, number)
    assert changes(database_url, number) == {}
    assert set(amounts(database_url)) == {(f"m{n}", "status") for n in range(20)}
    with transaction(database_url) as cursor:
        cursor.execute("SELECT DISTINCT tier FROM reward.member_tier")
        assert cursor.fetchall() == [("silver",)]
    sound(database_url)


def test_what_has_lapsed_in_the_other_generation_is_taken_where_no_live_tick_has_met_it(
    database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    commit(database_url, buys(range(60)))
    file = written(tmp_path, PLAIN + "points: {validity: 6h}\n")
    number = replay(database_url, Request(file))["generation"]
    told = promote_as_adjustments(database_url, number)
    lapsed = 60 - 7  # by a tick a quarter of an hour before the last purchase
    assert told["units"] == [{"unit": "points", "gain": 0, "lose": 20, "gained": 0, "lost": lapsed}]
    assert changes(database_url, number) == {}
    assert differing(database_url, repeated(database_url)["generation"]) == 0
    sound(database_url)


def test_nobody_who_was_erased_is_adjusted(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    commit(database_url, Batch([admitted(Erasure(event_id="x", member_id="m1", occurred_at=START_MS + 30 * HOUR_MS))]))
    promote_as_adjustments(database_url, number)
    assert {member for member, _ in amounts(database_url)} == {f"m{n}" for n in range(8)} - {"m1"}
    sound(database_url)


# Who applies it


def test_a_generation_that_a_file_made_ignores_adjustments_and_not_what_operators_decided(
    database_url: str, tmp_path: Path
) -> None:
    number = judged_by_amount(database_url, tmp_path)
    settings = load_settings(database_url=database_url, bootstrap_servers="127.0.0.1:1", home=tmp_path)
    adjust(settings, "m0", 1_000, "points", "sorry")
    replay(database_url, Request(into=number))
    alone = [row[3:] for row in rows(database_url, number)]
    promote_as_adjustments(database_url, number)
    replay(database_url, Request(into=number))
    assert [row[3:] for row in rows(database_url, number)] == alone
    assert positions(database_url, number) == positions(database_url, 1)
    discard(database_url, number)
    anew = replay(database_url, Request(tmp_path / "other.yaml"))["generation"]
    assert anew != number
    assert [row[3:-2] for row in rows(database_url, anew)] == [row[:-2] for row in alone]
    assert 1_000 in given(database_url, anew)
    assert changes(database_url, anew) == {}
    assert promote_as_adjustments(database_url, anew)["adjustments"] == 0


def test_one_that_waited_for_a_release_is_ignored_too(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = judged_by_amount(database_url, tmp_path)
    promote_as_adjustments(database_url, number)
    with monkeypatch.context() as defect:
        refuse(defect, engine.live.load, "e26")
        commit(database_url, Batch([admitted(purchase(26, "m2"))]))
    with transaction(database_url) as cursor:
        assert release_member(cursor, shard_of("m2"), "m2") == 1
    discard(database_url, number)
    with monkeypatch.context() as defect:
        refuse(defect, engine.history.replay, "e2")
        anew = replay(database_url, Request(tmp_path / "other.yaml"))
    assert anew["members_held"] == []
    told = [(row[4], row[15], row[16]) for row in rows(database_url, anew["generation"])]
    assert [event for member, event, _ in told if member == "m2"] == ["e2", "e10", "e18", "e26"]
    assert {reason for _, _, reason in told} == {None}


def refuse(defect: pytest.MonkeyPatch, module: Any, event_id: str) -> None:
    """Let rules fail on an event, the first time that it is judged."""
    calls = count()

    def fails(event: Any) -> bool:
        return bool(event.event_id == event_id and next(calls) == 0)

    defect.setattr(module, "load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), fails))


def test_a_repetition_applies_them_also_once_it_is_live(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    promote_as_adjustments(database_url, number)
    repetition = repeated(database_url)["generation"]
    assert differing(database_url, repetition) == 0
    promote(database_url, repetition)
    commit(database_url, buys(range(30, 40)))
    sound(database_url)
    again = repeated(database_url)
    assert again["base"] == repetition
    assert differing(database_url, again["generation"], repetition) == 0


def test_after_a_swap_members_have_what_the_file_gives_and_nothing_twice(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    promote_as_adjustments(database_url, number)
    promote(database_url, number)
    assert sum(given(database_url, number)) == 12 * (9 + 2)
    assert differing(database_url, repeated(database_url)["generation"], number) == 0
    event = logged(database_url)[0]
    assert why_event(database_url, event.event_id, "guerdon")["status"] == "not counted"
    sound(database_url)
    promote(database_url, 1)
    assert changes(database_url, number) == {}
    assert differing(database_url, repeated(database_url)["generation"]) == 0
    sound(database_url)


# At any moment


@pytest.mark.chaos
def test_killed_at_any_step_it_leaves_all_or_nothing(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    before, wanted = rows(database_url, 1), changes(database_url, number)
    points = (
        "before adjusting", "after lock", "after drain", "after status", "after append source", "before save states",
        "after save heads", "after balances", "before commit",
    )  # fmt: skip
    for point in points:
        assert killed(database_url, number, point) == -signal.SIGKILL
        assert rows(database_url, 1) == before
        assert logged(database_url) == []
    assert killed(database_url, number, "after commit") == -signal.SIGKILL
    assert amounts(database_url) == wanted
    assert promote_as_adjustments(database_url, number)["already"]
    assert amounts(database_url) == wanted
    assert changes(database_url, number) == {}
    sound(database_url)


def killed(database_url: str, number: int, point: str) -> int:
    """Promote in a process that kills itself at `point`, and return how it ended."""
    return killed_at(lambda observe: promote_as_adjustments(database_url, number, observe=observe), point)


def test_workers_go_on_meanwhile_and_each_member_is_adjusted_once(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.replay.promote_adjusted.BATCH_EVENTS", 3)
    number = judged_richly(database_url, tmp_path)
    began, stop = threading.Event(), threading.Event()

    def buy() -> None:
        for n in range(60, 10_000):
            commit(database_url, buys(range(n, n + 1)))
            began.set()
            if stop.is_set():
                return

    buying = threading.Thread(target=buy)
    buying.start()
    assert began.wait(30)
    promote_as_adjustments(database_url, number)
    stop.set()
    buying.join(30)
    assert not buying.is_alive()
    assert len(logged(database_url)) == len(amounts(database_url)) == 20
    replay(database_url, Request(into=number))
    later = sum(changes(database_url, number).values())
    bought = len({row[15] for row in rows(database_url, 1)}) - len(logged(database_url)) - 60
    assert later % 69 == 0
    assert 0 <= later // 69 < bought
    assert differing(database_url, repeated(database_url)["generation"]) == 0
    sound(database_url)


def test_where_workers_do_not_stop_in_time_nothing_is_written(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    with closing(connect(database_url)) as other, other, other.cursor() as cursor:
        cursor.execute(live_generation.SHARE_EVALUATION)
        with pytest.raises(AnswerIsNo, match=r"for more than 1 s; nothing was changed: .* \(pid \d+ \("):
            promote_as_adjustments(database_url, number, times=Times(lock_timeout_s=1))
    assert logged(database_url) == []
    assert promote_as_adjustments(database_url, number)["adjustments"] == 8


# What is said


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    before = positions(database_url, 1)
    told = planned(database_url, number)
    assert {(row["member_id"], row["unit"]): row["change"] for row in told["changes"]} == changes(database_url, number)
    assert [abs(row["change"]) for row in told["changes"]] == [12] * 4 + [9] * 4
    assert planned(database_url, number, keep_losses=True)["adjustments"] == 4
    assert positions(database_url, 1) == before
    done = promote_as_adjustments(database_url, number)
    assert done | {"changes": told["changes"]} == told
    again = planned(database_url, number)
    assert (again["already"], again["changes"]) == (True, [])


def test_why_tells_of_an_adjustment_what_it_is(database_url: str, tmp_path: Path) -> None:
    number = judged_by_amount(database_url, tmp_path)
    promote_as_adjustments(database_url, number)
    event = next(each for each in logged(database_url) if each.member_id == "m1")
    told = why_event(database_url, event.event_id, "guerdon")
    sentence = (
        f"a promotion adjusted the member by +12 of points, to what generation {number} gave them; "
        f"see `guerdon diff {number} --member m1`"
    )
    assert told["notes"] == [sentence]
    assert (told["type"], told["status"], told["log_agrees"]) == ("adjustment", "judged", True)


def test_what_cannot_be_promoted_so_is_refused(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    with pytest.raises(InputError, match="there is no generation 9"):
        promote_as_adjustments(database_url, 9)
    with pytest.raises(AnswerIsNo, match="generation 1 is live"):
        promote_as_adjustments(database_url, 1)
    repetition = repeated(database_url)["generation"]
    with pytest.raises(AnswerIsNo, match=f"generation {repetition} repeats generation 1: there is nothing to adjust"):
        promote_as_adjustments(database_url, repetition)
    promote(database_url, number)
    with pytest.raises(AnswerIsNo, match="generation 1 was live before"):
        promote_as_adjustments(database_url, 1)
    third = replay(database_url, Request(written(tmp_path, RICHER.replace("points: 70", "points: 71"))))["generation"]
    promote(database_url, 1)
    with pytest.raises(AnswerIsNo, match=f"was replayed beside generation {number}, and 1 is live now"):
        promote_as_adjustments(database_url, third)
    assert logged(database_url) == []
