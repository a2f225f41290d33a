"""What cannot be taken is set aside with its reason, its neighbours count, and an operator decides about the rest."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import admin as kafka_admin
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from cli.main import app
from engine.live import load as loading
from engine.live import release
from engine.store.database import transaction
from engine.store.logs.history import History
from engine.store.members import personal
from engine.store.programmes import load_judge
from operations.intake import quarantine
from operations.member.view import member
from operations.verify.checks import verify
from schemas.codec import CommittedSchemas, encode_record
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Erasure, Event, Profile, Purchase, Share, Signup
from schemas.partitioning import shard_of
from schemas.rejection import Reason
from schemas.writer_schemas import committed_ids, current_texts
from tests.engine.books import Refusing, fails_on_e2
from tests.models.oracle import assert_nowhere, assert_whole
from tests.system.batches import purchase
from tests.system.load import START_MS, Load, activate, make_topics, publish
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from operations.settings import Settings

pytestmark = pytest.mark.kafka

BIRTHDAY = "1971-02-03"
EMAIL = "5e884898da28047151d0e56f8dc62927"
YEAR_1_MS = -62_135_596_800_000
YEAR_9999_MS = 253_370_764_800_000


@pytest.fixture
def ready(settings: Settings) -> Settings:
    make_topics(settings, 1)
    activate(settings.database_url)
    return settings


@pytest.fixture
def guerdon(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what runs a command as an operator does, and gives its JSON, or raises its error."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", ready.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", ready.bootstrap_servers)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", ready.topic_prefix)
    monkeypatch.setenv("GUERDON_HOME", str(ready.home))

    def run(*words: object) -> Any:
        done = CliRunner().invoke(app, [*map(str, words), "--json"])
        if isinstance(done.exception, Exception):
            raise done.exception
        return json.loads(done.stdout)

    return run


def raw(**fields: Any) -> bytes:
    """Return a purchase as a producer that checks nothing writes it."""
    record = {
        "event_id": "raw", "member_id": "m0", "occurred_at": START_MS, "order_id": "raw", "currency": "USD",
        "amount": 100,
    }  # fmt: skip
    return encode_record(committed_ids()["Purchase"], current_texts()["Purchase"], record | fields)


def line(**fields: Any) -> dict[str, Any]:
    return {"line_id": "1", "sku": "shoe", "quantity": "1", "amount": 100} | fields


def allow_large_messages(settings: Settings) -> None:
    kafka: Any = kafka_admin  # what it offers is not all in its type hints
    entry = kafka.ConfigEntry("max.message.bytes", "20000000", incremental_operation=kafka.AlterConfigOpType.SET)
    name = f"{settings.topic_prefix}purchases"
    topic = kafka.ConfigResource(kafka.ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient({**settings.kafka_config()})
    for done in admin.incremental_alter_configs([topic]).values():
        done.result()


BAD: dict[str, tuple[bytes, Reason]] = {
    "a record cut off": (raw()[:-2], Reason.UNDECODABLE),
    "bytes after the record": (raw() + b"\0", Reason.UNDECODABLE),
    "no framing": (b'{"type": "purchase"}', Reason.UNDECODABLE),
    "an empty value": (b"", Reason.UNDECODABLE),
    "random bytes": (b"\0\x47\x55\0\x02" + bytes(range(255, 55, -1)), Reason.UNDECODABLE),
    "a schema that nobody knows": (b"\0\0\0\0\x63" + raw()[5:], Reason.UNKNOWN_SCHEMA),
    "a schema of another topic": (b"\0" + committed_ids()["Share"].to_bytes(4) + raw()[5:], Reason.UNKNOWN_SCHEMA),
    "ten megabytes": (raw(attributes={"x": "y" * 10_000_000}), Reason.TOO_LARGE),
    "NUL in event_id": (raw(event_id="a\0b"), Reason.OUT_OF_RANGE),
    "NUL in member_id": (raw(member_id="a\0b"), Reason.OUT_OF_RANGE),
    "NUL in order_id": (raw(order_id="a\0b"), Reason.OUT_OF_RANGE),
    "NUL in source": (raw(source="a\0b"), Reason.OUT_OF_RANGE),
    "a line break in an id": (raw(member_id="a\nb"), Reason.OUT_OF_RANGE),
    "an empty id": (raw(member_id=""), Reason.OUT_OF_RANGE),
    "an id of 201 characters": (raw(member_id="x" * 201), Reason.OUT_OF_RANGE),
    "a negative amount": (raw(amount=-1), Reason.OUT_OF_RANGE),
    "NaN": (raw(items=[line(quantity="NaN")]), Reason.WRONG_TYPE),
    "a negative quantity": (raw(items=[line(quantity="-1")]), Reason.OUT_OF_RANGE),
    "another currency": (raw(currency="EUR"), Reason.WRONG_CURRENCY),
    "lines that do not add up": (raw(items=[line(), line(line_id="2")]), Reason.ITEMS_MISMATCH),
    "the year 1": (raw(occurred_at=YEAR_1_MS), Reason.OUT_OF_RANGE),
    "the year 9999": (raw(occurred_at=YEAR_9999_MS), Reason.OUT_OF_RANGE),
    "tomorrow": (raw(occurred_at=int(time.time() * 1000) + 86_400_000), Reason.FROM_THE_FUTURE),
    "an id that came with other content": (raw(event_id="e0", amount=7), Reason.ID_CONFLICT),
    "an order that came with other content": (raw(event_id="f", member_id="m1", order_id="o0"), Reason.ID_CONFLICT),
}


@pytest.mark.parametrize("max_batch", [10_000, 3])
def test_each_bad_input_is_set_aside_with_its_reason_and_its_neighbours_count(ready: Settings, max_batch: int) -> None:
    allow_large_messages(ready)
    load = Load(members=1)
    load.add(purchase(0), deliveries=1)
    for number, (value, reason) in enumerate(BAD.values(), 1):
        load.raw("purchases", value, reason)
        load.add(purchase(number), deliveries=1)
    publish(ready, load.messages)
    summary = catch_up(ready.model_copy(update={"max_batch": max_batch}))
    assert (summary.accepted, summary.quarantined) == (len(BAD) + 1, len(BAD))
    rows = quarantine.listed(ready.database_url)
    by_offset = {row["offset"]: row["reason"] for row in rows}
    assert [by_offset[2 * number + 1] for number in range(len(BAD))] == [str(reason) for _, reason in BAD.values()]
    assert all(row["message"].isprintable() for row in rows)
    assert_whole(ready, load.messages)


@pytest.mark.parametrize("policy", ["pass", "quarantine"])
def test_a_tombstone_is_passed_or_set_aside_by_policy(ready: Settings, policy: str) -> None:
    load = Load(members=1)
    load.add(purchase(1), deliveries=1)
    load.raw("purchases", None, None if policy == "pass" else Reason.UNDECODABLE)
    load.add(purchase(2), deliveries=1)
    load.raw("purchases", None, None if policy == "pass" else Reason.UNDECODABLE)
    publish(ready, load.messages)
    catch_up(ready.model_copy(update={"tombstones": policy}))
    assert_whole(ready, load.messages)
    with transaction(ready.database_url) as cursor:
        cursor.execute("SELECT sum(passed), sum(quarantined) FROM guerdon.consumer_offset")
        assert cursor.fetchone() == ((2, 0) if policy == "pass" else (0, 2))


@pytest.mark.parametrize("field", ["event_id", "member_id", "source"])
def test_a_persons_event_with_nul_in_an_id_stops_nobody_and_stays_sealed(ready: Settings, field: str) -> None:
    load = Load(members=1)
    ids: dict[str, Any] = {"event_id": "s", "member_id": "m1", "source": "till"} | {field: "a\0b"}
    load.add(Signup(**ids, occurred_at=START_MS, birthday=BIRTHDAY), reason=Reason.OUT_OF_RANGE, deliveries=1)
    load.add(purchase(1), deliveries=1)
    publish(ready, load.messages)
    catch_up(ready)
    assert_whole(ready, load.messages)
    assert_nowhere(ready.database_url, BIRTHDAY)
    (row,) = quarantine.listed(ready.database_url)
    assert quarantine.shown(ready, row["id"])["event"]["birthday"] == BIRTHDAY


# What an operator does


def take(settings: Settings, *events: Event, reason: Reason | None = None) -> Load:
    """Publish and take events, once each."""
    load = Load(members=1)
    for event in events:
        load.add(event, reason=reason, deliveries=1)
    publish(settings, load.messages)
    catch_up(settings)
    return load


def test_an_event_from_the_future_is_released_when_the_clock_allows_and_counts_once(
    ready: Settings, guerdon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    soon_ms = int(time.time() * 1000) + 1_800_000
    early = purchase(1, occurred_at=soon_ms)
    person = Signup(event_id="s", member_id="m2", occurred_at=soon_ms, birthday=BIRTHDAY, identity={"email": EMAIL})
    load = take(ready, early, person, reason=Reason.FROM_THE_FUTURE)
    first, second = guerdon("quarantine", "list")
    assert {first["reason"], second["reason"]} == {"from_the_future"}
    assert_nowhere(ready.database_url, BIRTHDAY, EMAIL)
    with pytest.raises(AnswerIsNo, match="1 of 1 were refused"):
        guerdon("quarantine", "release", first["id"])
    monkeypatch.setenv("GUERDON_FUTURE_TOLERANCE_S", "3600")
    released = guerdon("quarantine", "release", first["id"], second["id"])
    assert [row["result"] for row in released] == ["admitted", "admitted"]
    assert guerdon("quarantine", "list") == []
    assert {row["status"] for row in guerdon("quarantine", "list", "--all")} == {"released"}
    with pytest.raises(AnswerIsNo):
        guerdon("quarantine", "release", first["id"])
    publish(ready, load.messages)  # the producer sends both again: they are known now
    summary = catch_up(ready.model_copy(update={"future_tolerance_s": 3600}))
    assert (summary.accepted, summary.duplicate, summary.quarantined) == (0, 2, 0)
    assert member(ready.database_url, "m2")["balances"][0]["granted"] == 100
    assert_nowhere(ready.database_url, BIRTHDAY, EMAIL)
    assert sound(ready)


def test_an_event_of_an_unknown_schema_is_released_once_somebody_knows_it(
    ready: Settings, guerdon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(members=1)
    load.raw("purchases", b"\0\0\0\0\x63" + raw()[5:], Reason.UNKNOWN_SCHEMA)
    publish(ready, load.messages)
    catch_up(ready)
    (row,) = guerdon("quarantine", "list")
    assert "unknown_schema: nobody knows schema id 99" in guerdon("quarantine", "show", row["id"])["event"]
    with pytest.raises(AnswerIsNo, match="refused"):
        guerdon("quarantine", "release", row["id"])
    known = CommittedSchemas({99: current_texts()["Purchase"]})
    monkeypatch.setattr(quarantine, "writer_schemas", lambda _url: known)
    assert guerdon("quarantine", "show", row["id"])["event"]["event_id"] == "raw"
    (done,) = guerdon("quarantine", "release", row["id"])
    assert done["result"] == "admitted"
    assert sound(ready)
    with transaction(ready.database_url) as cursor:
        recorded = History(cursor).at(shard_of("m0"), member(ready.database_url, "m0")["last_seq"])
    assert recorded.event is not None
    assert recorded.event.event_id == "raw"


def test_a_record_is_discarded_with_the_reason_and_never_released_after_that(
    ready: Settings, guerdon: Callable[..., Any]
) -> None:
    take(ready, purchase(1, currency="EUR"), reason=Reason.WRONG_CURRENCY)
    (row,) = guerdon("quarantine", "list")
    guerdon("quarantine", "discard", row["id"], "--why", "a test of the tills")
    (put_away,) = guerdon("quarantine", "list", "--all")
    assert (put_away["status"], put_away["resolved_why"]) == ("discarded", "a test of the tills")
    with pytest.raises(AnswerIsNo):
        guerdon("quarantine", "release", row["id"])
    with pytest.raises(InputError, match="there is no record 99 in quarantine"):
        guerdon("quarantine", "show", 99)


def test_a_member_whose_event_cannot_be_judged_waits_and_is_judged_in_order_after_release(
    ready: Settings, guerdon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as defect:
        for module in (loading, release):
            defect.setattr(
                module, "load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2)
            )
        load = Load(members=1)
        for number in range(1, 5):
            load.add(purchase(number, amount=15_000), deliveries=1)  # 150 points of at most 300 a day
        load.add(purchase(9, "m2"), deliveries=1)
        publish(ready, load.messages)
        catch_up(ready)
        assert member(ready.database_url, "m2")["balances"][0]["granted"] == 10
        held = member(ready.database_url, "m1")
        assert [row["event_id"] for row in held["held_because"]] == ["e2"]
        assert held["balances"][0]["granted"] == 175
        (row,) = guerdon("quarantine", "list")
        assert (row["stage"], row["reason"], row["message"]) == (
            "evaluate", "evaluation_failed", "ZeroDivisionError: by m1␀",
        )  # fmt: skip
        with pytest.raises(AnswerIsNo, match="refused"):
            guerdon("quarantine", "release", row["id"])
        with pytest.raises(AnswerIsNo, match="refused"):
            guerdon("quarantine", "discard", row["id"], "--why", "no")
    (done,) = guerdon("quarantine", "release", row["id"])
    assert done["result"].startswith("member m1 is judged again")
    load.add(purchase(5, amount=15_000), deliveries=1)
    publish(ready, load.messages[-1:])
    catch_up(ready)
    after = member(ready.database_url, "m1")
    assert after["held_because"] == []
    assert after["balances"][0]["granted"] == 300 + 5 * 25
    assert_whole(ready, load.messages)


# What is personal


def test_what_is_personal_is_sealed_everywhere_and_unreadable_after_erasure(ready: Settings) -> None:
    fields: dict[str, Any] = {"member_id": "m1", "occurred_at": START_MS}
    signup = Signup(**fields, event_id="s", birthday=BIRTHDAY, identity={"email": EMAIL}, attributes={"city": "Oslo"})
    profile = Profile(**fields, event_id="p", birthday=BIRTHDAY, attributes={"city": "Trondheim"})
    future = Profile(member_id="m1", occurred_at=int(time.time() * 1000) + 86_400_000, event_id="f", birthday=BIRTHDAY)
    load = Load(members=1)
    for event in (signup, profile):
        load.add(event, deliveries=2)
    load.add(future, reason=Reason.FROM_THE_FUTURE, deliveries=1)
    publish(ready, load.messages)
    catch_up(ready)
    assert_nowhere(ready.database_url, BIRTHDAY, EMAIL, "Oslo", "Trondheim")
    shard = shard_of("m1")
    with transaction(ready.database_url) as cursor:
        kept = [recorded.event for recorded in History(cursor).of_member(shard, 3)]
    assert kept == [profile, signup]
    load.add(Erasure(**fields, event_id="x"), deliveries=2)
    load.add(
        Share(**fields, event_id="after", object="shoe", channel="link"), reason=Reason.MEMBER_ERASED, deliveries=1
    )
    load.add(Profile(**fields, event_id="late", birthday=BIRTHDAY), reason=Reason.MEMBER_ERASED, deliveries=2)
    publish(ready, load.messages[-5:])
    catch_up(ready)
    assert_nowhere(ready.database_url, BIRTHDAY, EMAIL, "Oslo", "Trondheim")
    assert_whole(ready, load.messages)
    with transaction(ready.database_url) as cursor:
        cursor.execute("SELECT key FROM guerdon.member_key")
        assert cursor.fetchall() == [(None,)]
        with pytest.raises(personal.Erased):
            History(cursor).at(shard, 2)
    for row in quarantine.listed(ready.database_url):
        shown = quarantine.shown(ready, row["id"])
        if row["kind"] == "profile" and row["reason"] == "from_the_future":
            assert shown["event"] == "the member was erased; what was personal cannot be read by anybody"
        with pytest.raises(AnswerIsNo):
            quarantine.release(ready.model_copy(update={"future_tolerance_s": 10**6}), row["id"])


def sound(settings: Settings) -> bool:
    return [finding for finding in verify(settings.database_url) if finding["problem"]] == []


def test_a_purchase_after_erasure_is_set_aside(ready: Settings) -> None:
    take(ready, purchase(1))
    take(ready, Erasure(event_id="x", member_id="m1", occurred_at=START_MS + 10))
    take(ready, purchase(2), reason=Reason.MEMBER_ERASED)
    (row,) = quarantine.listed(ready.database_url)
    assert (row["event_id"], row["reason"], row["stage"]) == ("e2", "member_erased", "append")
    assert isinstance(purchase(2), Purchase)
    assert sound(ready)
