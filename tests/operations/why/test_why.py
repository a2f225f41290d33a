"""`why` tells what was true when an event was judged, from the recorded history on a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.store.database import transaction
from engine.store.logs import history
from engine.store.programmes import load_judge
from operations.intake import quarantine
from operations.replay.run import Request, replay
from operations.settings import load_settings
from operations.setup.programmes import activate
from operations.why.event import why_event, why_member, why_reward
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Erasure, Event, Redemption, Share, Signup, Touch
from schemas.partitioning import shard_of
from tests.engine.books import Refusing, fails_on_e2
from tests.programme_text import written
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

DAY_MS = 86_400_000
ENOUGH = "would have been enough for that"
PROGRAMME = """\
schema: guerdon/1
programme: shop
timezone: America/New_York
currency: USD
metrics:
  buys: {count: purchase}
rules:
- {id: app, on: purchase, when: {purchase.channel: app}, give: [{points: 7}]}
- {id: big, on: purchase, when: {purchase.amount: {gte: 24.00}}, give: [{points: 25}]}
- {id: daily, on: purchase, give: [{points: 3}], limits: [{times: 2, per: member, every: day}]}
- {id: loyal, on: purchase, when: {history.buys: {gte: 2}}, give: [{points: 1}]}
- {id: norse, on: purchase, challenge: {count: 1, repeat: never}, give: [{points: 2}]}
- {id: welcome, on: signup, when: {event.attributes.city: Oslo}, give: [{points: 100}]}
"""


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> str:
    """Return a database whose programme is the one above, as version 1."""
    change_programme(database_url, tmp_path, PROGRAMME)
    return database_url


def change_programme(database_url: str, folder: Path, text: str) -> None:
    path = folder / "programme.yaml"
    path.write_text(text, encoding="utf-8")
    activate(database_url, path)


def guerdon(database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *words]
    environment = {"GUERDON_DATABASE_URL": database_url, "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def take(database_url: str, *events: Event) -> None:
    """Have events recorded and judged, as a worker would."""
    commit(database_url, Batch([admitted(event) for event in events]))


def sentences(document: dict[str, Any]) -> dict[str, str]:
    """Return what is said of each rule, and hold the explanation to be what the reward log says."""
    assert document["log_agrees"] is True
    assert [rule["sentence"].split(": ")[0] for rule in document["rules"]] == [r["rule"] for r in document["rules"]]
    return {rule["rule"]: rule["sentence"].split(": ", 1)[1] for rule in document["rules"]}


def test_each_rule_on_the_event_is_told_with_wanted_and_actual(shop: str) -> None:
    take(shop, purchase(1, channel="store", amount=2_190))
    found = why_event(shop, "e1")
    assert sentences(found) == {
        "app": 'did not give, because purchase.channel is "store" and the rule wants "app"',
        "big": f"did not give, because purchase.amount is 21.90 and the rule wants at least 24.00; 2.10 more {ENOUGH}",
        "daily": "gave 3 points",
        "loyal": f"did not give, because history.buys is 0 and the rule wants at least 2; 2 more {ENOUGH}",
        "norse": "gave 2 points",
    }
    assert {name: found[name] for name in ("event_id", "source", "type", "member_id", "status", "rule_version")} == {
        "event_id": "e1", "source": "default", "type": "purchase", "member_id": "m1", "status": "judged",
        "rule_version": 1,
    }  # fmt: skip
    assert (found["notes"], found["occurred_at"]) == ([], "2024-05-01T00:00:00.001Z")


def test_it_tells_what_was_true_then_whatever_came_after(shop: str) -> None:
    events = [purchase(number) for number in range(1, 6)]
    take(shop, *events[:2])
    before = [why_event(shop, "e1"), why_event(shop, "e2")]
    take(shop, *events[2:], purchase(9, "m2"))
    assert [why_event(shop, "e1"), why_event(shop, "e2")] == before
    assert sentences(why_event(shop, "e3"))["loyal"] == "gave 1 point"
    assert "purchase" not in sentences(why_event(shop, "e9"))["loyal"]
    assert sentences(why_event(shop, "e9"))["loyal"].startswith("did not give, because history.buys is 0 ")


def test_a_limit_that_is_used_up_is_told_with_its_day_in_local_time(shop: str) -> None:
    take(shop, *(purchase(number) for number in range(1, 4)))
    found = why_event(shop, "e3")
    assert sentences(found)["daily"] == (
        "did not give, because it gives at most 2 times a day and had given 2 times on 2024-04-30"
    )
    (daily,) = (rule for rule in found["rules"] if rule["rule"] == "daily")
    assert (daily["reason"], daily["wanted"], daily["actual"]) == (
        "limit_times", "at most 2 times a day", "2 times on 2024-04-30",
    )  # fmt: skip
    assert [(award["amount"], award["reason"]) for award in daily["refused"]] == [(3, "limit_times")]


def test_a_late_event_is_told_as_late_and_by_the_limits_of_its_own_day(shop: str) -> None:
    take(shop, *(purchase(number, occurred_at=START_MS + DAY_MS + number) for number in (1, 2)))
    take(shop, purchase(3, occurred_at=START_MS))
    found = why_event(shop, "e3")
    assert sentences(found)["daily"] == "gave 3 points"
    assert found["notes"] == [
        "it came late: an event of 2024-05-02T00:00:00.002Z was judged before it; what that counted was counted already"
    ]


def test_an_event_is_explained_by_the_version_that_judged_it(shop: str, tmp_path: Path) -> None:
    take(shop, purchase(1, channel="store"))
    before = why_event(shop, "e1")
    change_programme(shop, tmp_path, PROGRAMME.replace("channel: app", "channel: store"))
    take(shop, purchase(2, channel="store", occurred_at=START_MS))
    assert why_event(shop, "e1") == before
    now = why_event(shop, "e2")
    assert (before["rule_version"], now["rule_version"]) == (1, 2)
    assert sentences(before)["app"].startswith("did not give, because purchase.channel is")
    assert sentences(now)["app"] == "gave 7 points"
    assert sentences(now)["norse"] == "did not give, because its challenge was completed before and does not repeat"


def test_an_event_of_another_producer_is_another_event(shop: str) -> None:
    take(shop, purchase(1, source="tills", order_id="t1"), purchase(1, amount=5_000))
    assert why_event(shop, "e1", "tills")["source"] == "tills"
    assert sentences(why_event(shop, "e1"))["big"] == "gave 25 points"


def test_an_id_that_nobody_knows_is_said_so_in_a_sentence(shop: str) -> None:
    with pytest.raises(AnswerIsNo, match=r'^no event "e1" of source "tills" was recorded or set aside; ids are'):
        why_event(shop, "e1", "tills")
    with pytest.raises(AnswerIsNo, match=r'^no event of a member "m1" was recorded'):
        why_member(shop, "m1")


def test_an_event_that_was_set_aside_is_found_in_quarantine(shop: str) -> None:
    take(shop, purchase(1), purchase(2, order_id="o1", amount=7))
    with transaction(shop) as cursor:
        cursor.execute("SELECT id FROM guerdon.quarantine")
        ((record,),) = cursor.fetchall()
    told = (
        rf"^event e2 is not in the log: it was set aside \(id_conflict: .*\); see `guerdon quarantine show {record}`$"
    )
    with pytest.raises(AnswerIsNo, match=told):
        why_event(shop, "e2")
    quarantine.discard(shop, record, "wrong till")
    with pytest.raises(AnswerIsNo, match=r"it was set aside and discarded \(id_conflict: "):
        why_event(shop, "e2")


def test_a_record_that_came_under_the_same_id_is_pointed_at(shop: str) -> None:
    take(shop, purchase(1), purchase(1, amount=5_000))
    found = why_event(shop, "e1")
    assert sentences(found)["big"].startswith("did not give, because purchase.amount is 10.00")
    with transaction(shop) as cursor:
        cursor.execute("SELECT id FROM guerdon.quarantine")
        ((record,),) = cursor.fetchall()
    assert found["notes"] == [
        f"a record under the same id was set aside (id_conflict); see `guerdon quarantine show {record}`"
    ]


def test_an_event_of_a_held_member_is_not_judged_yet_and_is_explained_after_the_release(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.live.load.load_judge",
            lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2),
        )
        take(shop, *(purchase(number) for number in range(1, 5)))
    with transaction(shop) as cursor:
        cursor.execute("SELECT id FROM guerdon.quarantine")
        ((record,),) = cursor.fetchall()
    assert sentences(why_event(shop, "e1"))["daily"] == "gave 3 points"
    for event_id in ("e2", "e3"):
        found = why_event(shop, event_id)
        assert (found["status"], found["rules"]) == ("held", [])
        assert found["notes"] == [
            (
                f"event {event_id} is not judged yet: member m1 is held since event e2 could not be judged; "
                f"see `guerdon quarantine show {record}`"
            )
        ]
    waiting = guerdon(shop, "why", "e3")
    assert (waiting.returncode, waiting.stdout, waiting.stderr.count("is not judged yet")) == (1, "", 1)
    assert json.loads(guerdon(shop, "why", "e3", "--json").stdout)["status"] == "held"
    quarantine.release(load_settings(database_url=shop), record)
    take(shop, purchase(5))
    assert sentences(why_event(shop, "e2"))["daily"] == "gave 3 points"
    assert sentences(why_event(shop, "e3"))["loyal"] == "gave 1 point"
    assert why_event(shop, "e3")["notes"] == ["its member was held; it was judged when they were released, at seq 6"]
    assert sentences(why_event(shop, "e5"))["loyal"] == "gave 1 point"
    keys = {row["reward_key"] for told in why_member(shop, "m1") for rule in told["rules"] for row in rule["gave"]}
    assert {why_reward(shop, key)["event_id"] for key in keys} == {"e1", "e2", "e3", "e4", "e5"}


def test_a_reward_is_explained_by_its_event_with_its_rule_first(shop: str) -> None:
    take(shop, purchase(1), purchase(2, amount=5_000))
    with transaction(shop) as cursor:
        cursor.execute("SELECT reward_key FROM reward.reward_event WHERE rule_id = 'norse' AND unit = 'points'")
        ((key,),) = cursor.fetchall()
    found = why_reward(shop, key.upper())
    assert (found["reward_key"], found["event_id"]) == (key, "e1")
    assert [rule["rule"] for rule in found["rules"]] == ["norse", "app", "big", "daily", "loyal"]
    with pytest.raises(AnswerIsNo, match=r"^the live generation has no reward event 0{64}; `guerdon member"):
        why_reward(shop, "0" * 64)
    for wrong in ("zz", "00", ""):
        with pytest.raises(InputError, match=r"^a reward key has 64 hex digits"):
            why_reward(shop, wrong)


def test_what_came_by_itself_is_explained_by_what_it_happened_to(database_url: str, tmp_path: Path) -> None:
    """A hold ends, points lapse, a reservation is not captured: ticks do it, and no event."""
    programme = PROGRAMME.replace("give: [{points: 25}]", "hold: 1d, give: [{points: {amount: 25, validity: 2d}}]")
    change_programme(database_url, tmp_path, programme)
    take(database_url, purchase(1, amount=5_000))
    everywhere = ClockMove(START_MS + 5 * DAY_MS, everywhere=True)
    while commit(database_url, Batch(clock=everywhere)).ticks:
        pass
    with transaction(database_url) as cursor:
        cursor.execute(
            "SELECT type, reward_key FROM reward.reward_event WHERE rule_id = 'big' AND type <> 'points.granted'"
        )
        keys = dict(cursor.fetchall())
    assert set(keys) == {"points.released", "points.expired"}
    released, expired = (why_reward(database_url, keys[f"points.{verb}"]) for verb in ("released", "expired"))
    assert (released["status"], released["type"], released["rules"]) == ("by itself", "tick", [])
    assert released["notes"] == [
        "25 points became available: their hold ended at 2024-05-01 20:00:00; they came with event e1, by rule big"
    ]
    assert expired["notes"][0].startswith("25 points lapsed: they were valid until 2024-05-0")
    told = guerdon(database_url, "why", "--reward", keys["points.expired"])
    assert (told.returncode, "they came with event e1" in told.stdout) == (0, True)


def test_the_tier_after_an_event_is_told_with_what_is_missing_to_the_next(database_url: str, tmp_path: Path) -> None:
    levels = "[{id: blue, from: 0}, {id: gold, from: 40.00}]"
    tiers = written(
        "  spent: {sum: purchase.amount}\ntiers: {metric: spent, window: calendar_year, levels: $levels}\n",
        levels=levels,
    )
    change_programme(database_url, tmp_path, PROGRAMME.replace("rules:\n", f"{tiers}rules:\n"))
    take(database_url, purchase(1, amount=2_800), purchase(2, amount=1_200))
    first, second = (why_event(database_url, event_id)["tier"] for event_id in ("e1", "e2"))
    assert (first["tier"], first["next_tier"], first["to_next_tier"]) == ("blue", "gold", 1_200)
    assert first["sentence"] == "tier blue, at 28.00: 12.00 more would have reached gold"
    assert second["sentence"] == "tier gold, at 40.00: the highest"
    assert f"after it: {first['sentence']}\n" in guerdon(database_url, "why", "e1").stdout


def test_another_generation_explains_as_it_judged(shop: str, tmp_path: Path) -> None:
    take(shop, purchase(1, amount=2_400), purchase(2, amount=2_400))
    path = tmp_path / "next.yaml"
    path.write_text(PROGRAMME.replace("gte: 24.00", "gte: 30.00"), "utf-8")
    generation = replay(shop, Request(path))["generation"]
    assert sentences(why_event(shop, "e1"))["big"] == "gave 25 points"
    there = why_event(shop, "e1", generation=generation)
    assert (there["rule_version"], there["log_agrees"]) == (2, True)
    assert "did not give" in sentences(there)["big"]
    told = guerdon(shop, "why", "e1", "--generation", str(generation))
    assert "6.00 more" in told.stdout
    assert [each["rule_version"] for each in why_member(shop, "m1", generation=generation)] == [2, 2]
    with transaction(shop) as cursor:
        cursor.execute(
            "SELECT encode(reward_key, 'hex') FROM guerdon.reward_event WHERE generation = %s AND rule_id = 'norse'",
            (generation,),
        )
        key = cursor.fetchall()[0][0]
    assert why_reward(shop, key, generation=generation)["rule_version"] == 2
    take(shop, purchase(3))
    with pytest.raises(AnswerIsNo, match=rf"has not come so far.*guerdon replay --into {generation}"):
        why_event(shop, "e3", generation=generation)
    assert guerdon(shop, "why", "e1", "--generation", "9").returncode == 2


def test_an_event_whose_member_only_a_file_holds_is_told_with_the_reason(
    shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(shop, purchase(1), purchase(2), purchase(3))
    path = tmp_path / "next.yaml"
    path.write_text(PROGRAMME.replace("gte: 24.00", "gte: 30.00"), "utf-8")
    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.history.log_fold.load_judge",
            lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2),
        )
        generation = replay(shop, Request(path))["generation"]
    assert why_event(shop, "e1", generation=generation)["status"] == "judged"
    found = why_event(shop, "e3", generation=generation)
    assert found["status"] == "held"
    assert f"is not judged yet: generation {generation} holds member m1, as an event could not" in found["notes"][0]
    assert why_event(shop, "e3")["status"] == "judged"
    assert guerdon(shop, "why", "e3", "--generation", str(generation)).returncode == 1


def test_what_was_copied_of_a_member_who_was_erased_is_told_as_copied(shop: str, tmp_path: Path) -> None:
    take(shop, purchase(1, amount=2_400))
    take(shop, Erasure(event_id="gone", member_id="m1", occurred_at=START_MS + DAY_MS))
    path = tmp_path / "next.yaml"
    path.write_text(PROGRAMME.replace("points: 25", "points: 26"), "utf-8")
    generation = replay(shop, Request(path))["generation"]
    (note,) = why_event(shop, "e1", generation=generation)["notes"]
    assert note.startswith("the member was erased before this generation came to it")
    assert why_event(shop, "e1")["notes"] == []


def test_a_redemption_that_was_honoured_is_explained_as_accepted(shop: str, tmp_path: Path) -> None:
    spend = Redemption(
        event_id="x", member_id="m1", occurred_at=START_MS + 5, action="spend", redemption_id="r", amount=30
    )
    take(shop, purchase(1, amount=2_400), spend, purchase(6))
    path = tmp_path / "next.yaml"
    path.write_text(PROGRAMME.replace("gte: 24.00", "gte: 30.00"), "utf-8")
    generation = replay(shop, Request(path))["generation"]
    after = why_event(shop, "e6", generation=generation)
    assert after["log_agrees"] is True
    assert why_event(shop, "x", generation=generation)["log_agrees"] is True


def test_a_member_is_explained_by_the_last_events_and_the_rules_that_were_near(shop: str) -> None:
    take(shop, *(purchase(number, channel="store") for number in range(1, 5)), purchase(9, "m2"))
    found = why_member(shop, "m1", 2)
    assert [told["event_id"] for told in found] == ["e3", "e4"]
    assert [[rule["rule"] for rule in told["rules"]] for told in found] == [["big", "daily", "loyal", "norse"]] * 2
    assert [told["event_id"] for told in why_member(shop, "m1", 99)] == ["e1", "e2", "e3", "e4"]


def test_rules_on_other_events_are_named_when_asked_for(shop: str) -> None:
    take(shop, purchase(1))
    told = sentences(why_event(shop, "e1", everything=True))
    assert told["welcome"] == "did not give, because it is on signup events"


def test_an_event_that_no_rule_is_on_is_said_so(shop: str) -> None:
    touch = Touch(event_id="t", occurred_at=START_MS, referral_code="c", visitor="v")
    take(shop, Share(event_id="s", member_id="m1", occurred_at=START_MS, object="shoe", channel="link"), touch)
    assert why_event(shop, "s")["notes"] == ["no rule of version 1 is on share events"]
    touched = why_event(shop, "t")
    assert (touched["member_id"], touched["notes"]) == (None, ["no rule of version 1 is on touch events"])


def test_after_an_erasure_it_is_told_that_something_cannot_be_read(shop: str) -> None:
    signup = Signup(event_id="s", member_id="m1", occurred_at=START_MS, attributes={"city": "Oslo"})
    take(shop, signup, purchase(1))
    assert sentences(why_event(shop, "s"))["welcome"] == "gave 100 points"
    take(shop, Erasure(event_id="x", member_id="m1", occurred_at=START_MS + 9))
    found = why_event(shop, "s")
    note = "the member was erased: what was personal can no longer be read, and is told as missing"
    assert (found["log_agrees"], found["notes"]) == (False, [note])
    assert note in why_event(shop, "e1")["notes"]
    take(shop, purchase(2, occurred_at=START_MS + 10))
    with pytest.raises(AnswerIsNo, match="member_erased"):
        why_event(shop, "e2")


def test_a_log_that_says_otherwise_is_told(shop: str) -> None:
    take(shop, purchase(1), purchase(2))
    with transaction(shop, role="none") as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE guerdon.reward_event SET amount = 4 WHERE rule_id = 'daily' AND event_id = 'e2'")
    assert why_event(shop, "e1")["log_agrees"] is True
    found = why_event(shop, "e2")
    assert found["log_agrees"] is False
    assert found["notes"] == ["the reward log says otherwise than this release would decide; run `guerdon verify`"]


def test_a_long_history_is_read_by_one_query_in_its_order(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    at = history.History.at

    def counted(self: history.History, shard: int, seq: int) -> history.Recorded:
        read.append(seq)
        return at(self, shard, seq)

    monkeypatch.setattr(history, "ROWS_A_FETCH", 7)
    monkeypatch.setattr(history.History, "at", counted)
    take(shop, *(purchase(number, occurred_at=START_MS + number * DAY_MS) for number in range(1, 61)))
    assert sentences(why_event(shop, "e60"))["loyal"] == "gave 1 point"
    assert len(read) == 1
    with transaction(shop) as cursor:
        told = list(history.History(cursor).from_first(shard_of("m1"), read[0]))
    assert [each.event_id for each in told] == [f"e{number}" for number in range(1, 61)]


# The command


def test_the_command_prints_a_sentence_a_rule_and_says_no_by_its_exit_code(shop: str) -> None:
    take(shop, purchase(1, channel="store", amount=2_400))
    told = guerdon(shop, "why", "e1")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        "e1: purchase of m1, occurred 2024-05-01T00:00:00.001Z, judged by version 1",
        '  app: did not give, because purchase.channel is "store" and the rule wants "app"',
        "  big: gave 25 points",
        "  daily: gave 3 points",
        f"  loyal: did not give, because history.buys is 0 and the rule wants at least 2; 2 more {ENOUGH}",
        "  norse: gave 2 points",
        "    the challenge of rule norse was completed",
    ]
    asked = guerdon(shop, "why", "e1", "--json")
    assert asked.stdout == json.dumps(why_event(shop, "e1"), indent=2, ensure_ascii=False) + "\n"
    unknown = guerdon(shop, "why", "e7", "--json")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (1, "", 1)
    both = guerdon(shop, "why", "e1", "--member", "m1")
    assert (both.returncode, both.stderr) == (
        2, "guerdon: name one thing to explain: EVENT_ID, --reward KEY or --member ID; see `guerdon why --help`\n",
    )  # fmt: skip
    member = guerdon(shop, "why", "--member", "m1", "--last", "1")
    assert (member.returncode, len(member.stdout.splitlines())) == (0, 6)


def test_without_postgresql_it_is_one_sentence_and_exit_code_3() -> None:
    told = guerdon("postgresql://nobody@127.0.0.1:1/nothing", "why", "e1")
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (3, "", 1)
