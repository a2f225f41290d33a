"""A message whose schema cannot be had waits by itself, with its partition's number, and nobody else does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from consumers.source import schema_waits, track
from engine.store.quarantine import Chosen
from operations.intake import offsets
from operations.intake.quarantine import listed
from operations.verify.checks import verify
from schemas.errors import ServiceUnreachable
from schemas.registry import NOBODYS_ID, REFUSED_FOR_S
from schemas.rejection import Reason, Rejected
from tests.consumers.test_worker import member_of
from tests.schemas.test_registry import NOT_FOUND, Answer, Clock, registry, schemas_at
from tests.system.batches import ENCODER, purchase
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from operations.settings import Settings

FORBIDDEN: Answer = (403, {"error_code": 40301, "message": "not your schema"})
WORDS = "HTTP 403, code 40301: not your schema"
ID = 555


def refusing(_method: str, path: str, _body: Any) -> Answer:
    return FORBIDDEN if path.startswith(f"/schemas/ids/{ID}") else NOT_FOUND


def under_id(number: int, member_id: str, schema_id: int) -> bytes:
    """Return a purchase that says it was written with that schema."""
    return b"\0" + schema_id.to_bytes(4) + ENCODER.encode(purchase(number, member_id))[5:]


def accepted(settings: Settings) -> dict[int, int]:
    """Return how many purchases were accepted of each partition."""
    topic = f"{settings.topic_prefix}purchases"
    return {row["partition"]: row["accepted"] for row in offsets.listed(settings) if row["topic"] == topic}


def a_message_of_a_schema_nobody_gives() -> Load:
    """Return a load in whose partition 0 the second of three messages has it; partition 1 has three good ones."""
    held, free = member_of(0), member_of(1)
    load = Load(members=1)
    load.add(purchase(1, held), deliveries=1)
    load.raw("purchases", under_id(2, held, ID), Reason.UNKNOWN_SCHEMA, held.encode())
    load.add(purchase(3, held), deliveries=1)
    for number in (11, 12, 13):
        load.add(purchase(number, free), deliveries=1)
    return load


@pytest.mark.kafka
def test_a_schema_that_the_registry_refuses_holds_its_own_number_and_its_message_is_set_aside_after_a_while(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_waits, "BACK_OFF_S_MAX", 0.2)
    make_topics(settings, 2)
    activate(settings.database_url)
    publish(settings, a_message_of_a_schema_nobody_gives().messages)
    clock = Clock()
    with registry(refusing) as server, capture_logs() as said:
        schemas = schemas_at(server.url, clock)
        with running(settings, schemas=schemas):
            eventually(lambda: accepted(settings) == {0: 1, 1: 3}, "all but the number of the message")
            asked = len(server.asked)
            eventually(lambda: len(server.asked) > asked + 2, "the next tries")
            more = Load(members=1)
            more.add(purchase(14, member_of(1)), deliveries=1)
            publish(settings, more.messages)
            eventually(lambda: accepted(settings) == {0: 1, 1: 4}, "what came since")
            clock.now_s += REFUSED_FOR_S
            eventually(lambda: accepted(settings) == {0: 2, 1: 4}, "what lay behind the message")
    lines = [each for each in said if each["event"] == "decode pauses"]
    assert len(lines) == 1, "twenty tries, one line"
    assert (lines[0]["topic"], lines[0]["partition"]) == (f"{settings.topic_prefix}purchases", 0)
    assert (lines[0]["offset"], lines[0]["schema_id"], lines[0]["waiting"]) == (1, ID, 1)
    assert WORDS in lines[0]["why"]
    (record,) = listed(settings.database_url)
    assert (record["reason"], record["stage"]) == ("unknown_schema", "decode")
    assert f"the Schema Registry refuses schema id {ID} ({WORDS})" in record["message"]
    assert [each for each in verify(settings.database_url) if each["problem"]] == []


@pytest.mark.kafka
def test_a_message_that_waited_is_taken_in_its_order_when_the_registry_comes_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from schemas.writer_schemas import current_texts  # noqa: PLC0415  beside what it answers

    monkeypatch.setattr(schema_waits, "BACK_OFF_S_MAX", 0.2)
    make_topics(settings, 2)
    activate(settings.database_url)
    publish(settings, a_message_of_a_schema_nobody_gives().messages)
    answers: list[Answer] = [(500, {"error_code": 50001, "message": "no"})]
    with registry(lambda *_: answers[-1]) as server, running(settings, schemas=schemas_at(server.url, Clock())):
        eventually(lambda: accepted(settings) == {0: 1, 1: 3}, "all but the number of the message")
        answers.append((200, {"schema": current_texts()["Purchase"]}))
        eventually(lambda: accepted(settings) == {0: 3, 1: 3}, "the message and what lay behind it")
    assert listed(settings.database_url, Chosen(everything=True)) == []


@pytest.mark.kafka
def test_a_message_that_waits_is_let_pass_while_the_worker_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_waits, "BACK_OFF_S_MAX", 0.2)
    monkeypatch.setattr(track, "COMPARE_S", 0.5)
    make_topics(settings, 2)
    activate(settings.database_url)
    publish(settings, a_message_of_a_schema_nobody_gives().messages)
    with registry(refusing) as server, running(settings, schemas=schemas_at(server.url, Clock())):
        eventually(lambda: accepted(settings) == {0: 1, 1: 3}, "all but the number of the message")
        offsets.let_pass(settings, f"{settings.topic_prefix}purchases", 0, 1, "nobody has its schema")
        eventually(lambda: accepted(settings) == {0: 2, 1: 3}, "what lay behind the message")
    assert listed(settings.database_url, Chosen(everything=True)) == []
    assert [each for each in verify(settings.database_url) if each["problem"]] == []


def test_one_id_that_is_refused_for_long_while_others_are_answered_is_the_messages_own_trouble() -> None:
    clock = Clock()
    with registry(refusing) as server:
        schemas = schemas_at(server.url, clock)
        with pytest.raises(ServiceUnreachable, match=f"refuses schema id {ID} .*{WORDS}"):
            schemas.lookup(ID)
        clock.now_s += REFUSED_FOR_S - 1
        with pytest.raises(ServiceUnreachable):
            schemas.lookup(ID)
        clock.now_s += 1
        for _ in range(2):
            with pytest.raises(Rejected) as caught:
                schemas.lookup(ID)
            assert (caught.value.reason, WORDS in caught.value.message) == (Reason.UNKNOWN_SCHEMA, True)
        assert [path for path in server.asked if str(NOBODYS_ID) in path] != []


@pytest.mark.parametrize("answer", [FORBIDDEN, (401, {"error_code": 401, "message": "who are you"})])
def test_a_registry_that_refuses_everything_sets_nothing_aside(answer: Answer) -> None:
    clock = Clock()
    with registry(lambda *_: answer) as server:
        schemas = schemas_at(server.url, clock)
        for _ in range(4):
            clock.now_s += REFUSED_FOR_S
            with pytest.raises(ServiceUnreachable, match="refuses schema id"):
                schemas.lookup(ID)


def test_a_registry_that_is_busy_has_refused_nothing() -> None:
    clock = Clock()
    with registry(lambda *_: (429, {"error_code": 42901, "message": "slow down"})) as server:
        schemas = schemas_at(server.url, clock)
        for _ in range(3):
            clock.now_s += REFUSED_FOR_S
            with pytest.raises(ServiceUnreachable, match="does not answer as one"):
                schemas.lookup(ID)


def test_a_registry_that_does_not_answer_is_not_asked_again_at_once() -> None:
    from schemas.registry import AWAY_FOR_S  # noqa: PLC0415  beside its use

    clock = Clock()
    schemas = schemas_at("http://127.0.0.1:1", clock)
    asked: list[int] = []
    ask = schemas._client.get_schema  # noqa: SLF001  counts what no server could

    def counted(schema_id: int) -> Any:
        asked.append(schema_id)
        return ask(schema_id)

    schemas._client.get_schema = counted  # type: ignore[method-assign,assignment]  # noqa: SLF001  as above
    for _ in range(3):
        with pytest.raises(ServiceUnreachable):
            schemas.lookup(ID)
    assert len(asked) == 1
    clock.now_s += AWAY_FOR_S
    with pytest.raises(ServiceUnreachable):
        schemas.lookup(ID)
    assert len(asked) == 2
