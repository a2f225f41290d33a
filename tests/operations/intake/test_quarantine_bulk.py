"""Operators take in, put away and count what was set aside by reason, topic and time, a thousand in a transaction."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from engine.live import load as loading
from engine.live.in_a_row import IN_A_ROW_MAX
from engine.live.transaction import ATTEMPTS_MAX, LiveTransaction
from engine.store.database import transaction
from engine.store.programmes import load_judge
from engine.store.quarantine import Chosen
from operations.intake import quarantine
from operations.intake.quarantine import chosen_ids
from schemas.codec import CommittedSchemas
from schemas.errors import AnswerIsNo, InputError
from schemas.rejection import Reason
from schemas.writer_schemas import current_texts
from tests.engine.books import Refusing, fails_on_e2
from tests.operations.intake.test_quarantine import BAD, raw, sound
from tests.system.batches import purchase
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from operations.settings import Settings

pytestmark = pytest.mark.kafka

LATE = 327
"""As many as an operator once had to release one by one, in half a minute."""


@pytest.fixture
def ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    make_topics(settings, 1)
    activate(settings.database_url)
    monkeypatch.setenv("GUERDON_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("GUERDON_HOME", str(settings.home))
    return settings


def guerdon(*words: object) -> Any:
    return CliRunner().invoke(app, ["quarantine", *map(str, words)])


def rows(*words: object) -> Any:
    return json.loads(guerdon(*words, "--json").stdout)


def of_unknown_schema(number: int) -> bytes:
    member = f"m{number % 50}"
    return b"\0\0\0\0\x63" + raw(event_id=f"late{number}", order_id=f"late{number}", member_id=member)[5:]


def test_what_came_before_its_schema_is_taken_in_by_reason_and_topic_in_few_transactions(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(members=1)
    load.raw("purchases", of_unknown_schema(0), Reason.UNKNOWN_SCHEMA)
    publish(ready, load.messages)
    catch_up(ready)
    time_between = rows("list")[0]["quarantined_at"]
    more = Load(members=1)
    for number in range(1, LATE):
        more.raw("purchases", of_unknown_schema(number), Reason.UNKNOWN_SCHEMA)
    more.raw("purchases", raw(currency="EUR"), Reason.WRONG_CURRENCY)
    more.raw("shares", b"no framing", Reason.UNDECODABLE)
    publish(ready, more.messages)
    catch_up(ready)

    counts = rows("list", "--summary")
    assert [(row["reason"], row["topic"], row["records"]) for row in counts] == [
        ("unknown_schema", f"{ready.topic_prefix}purchases", LATE),
        ("undecodable", f"{ready.topic_prefix}shares", 1),
        ("wrong_currency", f"{ready.topic_prefix}purchases", 1),
    ]
    assert (
        chosen_ids(ready.database_url, Chosen(reason="unknown_schema", topics=(f"{ready.topic_prefix}shares",))) == []
    )

    known = CommittedSchemas({99: current_texts()["Purchase"]})
    monkeypatch.setattr(quarantine, "writer_schemas", lambda _url: known)
    transactions: list[int] = []
    commit_together = LiveTransaction.commit_together

    def counted(self: LiveTransaction, batches: Any) -> Any:
        outcomes = commit_together(self, batches)
        transactions.append(len(outcomes))
        return outcomes

    monkeypatch.setattr(LiveTransaction, "commit_together", counted)
    monkeypatch.setattr(quarantine, "RECORDS_AT_ONCE", 100)
    done = guerdon("release", "--reason", "unknown_schema", "--topic", "purchases", "--until", time_between)
    assert (done.exit_code, done.stdout) == (0, "0 records taken in, 0 refused\n")
    done = guerdon("release", "--reason", "unknown_schema", "--topic", "purchases", "--since", time_between)
    assert (done.exit_code, done.stdout) == (0, f"{LATE} records taken in, 0 refused\n")
    assert transactions == [100, 100, 100, 27]
    with transaction(ready.database_url) as cursor:
        cursor.execute("SELECT count(*) FROM guerdon.source_event WHERE kind = 'purchase'")
        assert cursor.fetchall() == [(LATE,)]
    assert {row["reason"] for row in rows("list")} == {"undecodable", "wrong_currency"}


def test_one_that_is_refused_stops_no_other_and_stays(ready: Settings) -> None:
    load = Load(members=1)
    soon_ms = int(time.time() * 1000) + 1_800_000
    for number in range(3):
        load.add(purchase(number, occurred_at=soon_ms), reason=Reason.FROM_THE_FUTURE, deliveries=1)
    value, reason = BAD["another currency"]
    load.raw("purchases", value, reason)
    publish(ready, load.messages)
    catch_up(ready)
    refused = guerdon("release", "--topic", f"{ready.topic_prefix}purchases")
    assert isinstance(refused.exception, AnswerIsNo)
    assert refused.stdout.endswith("0 records taken in, 4 refused\n")
    assert refused.stdout.count("is still not admitted (from_the_future") == 3
    settings = ready.model_copy(update={"future_tolerance_s": 3600})
    taken = quarantine.release_all(settings, chosen_ids(ready.database_url, Chosen()))
    assert [result.sentence for result in taken[:3]] == ["admitted"] * 3
    assert "wrong_currency" in taken[3].sentence
    assert [row["reason"] for row in rows("list")] == ["wrong_currency"]


def test_what_somebody_else_releases_meanwhile_counts_once(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(members=1)
    soon_ms = int(time.time() * 1000) + 1_800_000
    for number in range(3):
        load.add(purchase(number, occurred_at=soon_ms), reason=Reason.FROM_THE_FUTURE, deliveries=1)
    publish(ready, load.messages)
    catch_up(ready)
    settings = ready.model_copy(update={"future_tolerance_s": 3600})
    first, second, third = chosen_ids(ready.database_url, Chosen())
    commit_together = LiveTransaction.commit_together

    def released_meanwhile(self: LiveTransaction, batches: Any) -> Any:
        monkeypatch.setattr(LiveTransaction, "commit_together", commit_together)
        assert quarantine.release(settings, second) == "admitted"
        return commit_together(self, batches)

    monkeypatch.setattr(LiveTransaction, "commit_together", released_meanwhile)
    results = quarantine.release_all(settings, [first, second, third])
    assert [result.refused is None for result in results] == [True, False, True]
    assert "by somebody else meanwhile" in results[1].sentence
    assert sound(ready)
    with transaction(ready.database_url) as cursor:
        cursor.execute("SELECT count(*) FROM guerdon.source_event WHERE kind = 'purchase'")
        assert cursor.fetchall() == [(3,)]


def test_records_are_put_away_by_reason_with_why(ready: Settings) -> None:
    load = Load(members=1)
    for name in ("another currency", "a record cut off", "bytes after the record"):
        load.raw("purchases", *BAD[name])
    publish(ready, load.messages)
    catch_up(ready)
    done = guerdon("discard", "--reason", "undecodable", "--why", "a test of the tills")
    assert (done.exit_code, done.stdout) == (0, "2 records put away, 0 refused\n")
    assert [row["reason"] for row in rows("list")] == ["wrong_currency"]
    put_away = rows("list", "--all", "--reason", "undecodable")
    assert {(row["status"], row["resolved_why"]) for row in put_away} == {("discarded", "a test of the tills")}


def test_the_list_comes_in_pages_with_topic_and_partition(ready: Settings) -> None:
    load = Load(members=1)
    for value, reason in list(BAD.values())[:3]:
        load.raw("purchases", value, reason)
    publish(ready, load.messages)
    catch_up(ready)
    page = guerdon("list", "--limit", 2)
    first, second = rows("list", "--limit", 2)
    assert f"these are 2 records, and there are more: --after {second['id']} shows the next page" in page.stderr
    assert f"{ready.topic_prefix}purchases" in page.stdout
    (third,) = rows("list", "--limit", 2, "--after", second["id"])
    assert (first["partition"], first["id"] < second["id"] < third["id"]) == (0, True)
    assert guerdon("list", "--after", second["id"]).stderr == ""


def test_records_that_hold_their_members_are_marked_listed_and_released_by_themselves(ready: Settings) -> None:
    load = Load(members=1)
    for number in range(3):
        load.add(purchase(number, f"m{number}"), deliveries=1)
    load.raw("purchases", *BAD["another currency"])
    publish(ready, load.messages)
    with pytest.MonkeyPatch.context() as defect:
        defect.setattr(
            loading, "load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2)
        )
        catch_up(ready)

    assert [(row["reason"], row["seq"] is None) for row in rows("list")] == [
        ("wrong_currency", True), ("evaluation_failed", False),
    ]  # fmt: skip
    (held,) = rows("list", "--held")
    assert held["member_id"] == "m2"
    marked = [" the member " in f"{line} " for line in guerdon("list").stdout.splitlines() if "_" in line]
    assert marked == [False, True]
    assert guerdon("list", "--held", "--reason", "wrong_currency").stdout == "nothing is set aside\n"
    assert [count["records"] for count in rows("list", "--held", "--summary")] == [1]

    assert guerdon("release", "--held").stdout == "1 record taken in, 0 refused\n"
    assert rows("list", "--held") == []
    assert [row["id"] for row in rows("list", "--held", "--all")] == [held["id"]]
    assert "the member" not in guerdon("list", "--held", "--all").stdout, "it holds nobody any more"
    assert [row["reason"] for row in rows("list")] == ["wrong_currency"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("release",), "name the records by their ID, or choose them by --reason"),
        (("release", "1", "--reason", "undecodable"), "name the records by their ID, or choose them by --reason"),
        (("release", "1", "--held"), "name the records by their ID, or choose them by --reason"),
        (("discard", "--why", "x"), "name the records by their ID, or choose them by --reason"),
        (("list", "--reason", "undecodeable"), "there is no reason `undecodeable`; did you mean undecodable?"),
        (("list", "--since", "yesterday"), "--since"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(ready: Settings, words: tuple[str, ...], sentence: str) -> None:
    done = guerdon(*words)
    assert isinstance(done.exception, InputError), ready.home
    assert sentence in str(done.exception)


def test_many_that_cannot_be_judged_hold_their_members_and_all_others_are_taken_in(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(members=1)
    soon_ms = int(time.time() * 1000) + 1_800_000
    for number in range(2 * ATTEMPTS_MAX + 2):
        load.add(purchase(number, f"m{number}", occurred_at=soon_ms), reason=Reason.FROM_THE_FUTURE, deliveries=1)
    publish(ready, load.messages)
    catch_up(ready)

    def fails(event: Any) -> bool:
        return int(event.event_id.removeprefix("e")) > ATTEMPTS_MAX

    assert ATTEMPTS_MAX + 1 > IN_A_ROW_MAX, "of a worker's batches, one after the other, so many would end it"
    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.live.load.load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), fails)
        )
        settings = ready.model_copy(update={"future_tolerance_s": 3600})
        results = quarantine.release_all(settings, chosen_ids(ready.database_url, Chosen()))
    assert [result.sentence.split(";")[0] for result in results] == ["admitted"] * (2 * ATTEMPTS_MAX + 2)
    assert len([result for result in results if "its member is held by" in result.sentence]) == ATTEMPTS_MAX + 1
    again = quarantine.release_all(settings, chosen_ids(ready.database_url, Chosen()))
    assert len(again) == ATTEMPTS_MAX + 1
    assert all("is judged again" in result.sentence for result in again)
    assert rows("list") == []
    assert sound(ready)
