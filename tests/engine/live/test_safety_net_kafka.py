"""With real workers: poison stops nobody, a fault of ours stops the worker and sets nothing aside, an offset passes."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli import main
from consumers.database_time import DatabaseTime
from consumers.intake import Intake
from engine.live.in_a_row import IN_A_ROW_MAX
from engine.store.database import transaction
from operations.intake import offsets, quarantine
from operations.verify.checks import verify
from schemas.codec import CommittedSchemas, Decoder, Encoder
from schemas.errors import AnswerIsNo, CannotGoOn, InputError
from schemas.rejection import Reason
from tests.engine.store.session.test_failures import raise_for
from tests.models.oracle import assert_whole
from tests.system.batches import purchase
from tests.system.load import Load, activate, make_topics, publish
from tests.system.poison import fail_in
from tests.system.workers import catch_up, eventually, running

if TYPE_CHECKING:
    from operations.settings import Settings

pytestmark = pytest.mark.kafka


@pytest.fixture
def ready(settings: Settings) -> Settings:
    make_topics(settings, 1)
    activate(settings.database_url)
    return settings


def send(settings: Settings, load: Load, numbers: range, bad: frozenset[int] = frozenset()) -> None:
    """Publish purchases, and say which of them are to be set aside."""
    before = len(load.messages)
    for number in numbers:
        reason = Reason.FAILED if number in bad else None
        load.add(purchase(number, f"m{number % 5}"), reason=reason, deliveries=1)
    publish(settings, load.messages[before:])


def counters(settings: Settings) -> tuple[int, int, int]:
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT sum(accepted), sum(quarantined), sum(passed) FROM guerdon.consumer_offset")
        accepted, quarantined, passed = cursor.fetchone() or (0, 0, 0)
        return int(accepted or 0), int(quarantined or 0), int(passed or 0)


def test_a_poisoned_message_goes_aside_while_its_worker_takes_the_others_and_counts_when_released(
    ready: Settings,
) -> None:
    load = Load(members=5)
    send(ready, load, range(20), bad=frozenset({7}))
    raise_for(ready.database_url, "e7", "22003")
    with running(ready):
        eventually(lambda: counters(ready)[:2] == (19, 1), "all but the poisoned one")
        send(ready, load, range(20, 30))
        eventually(lambda: counters(ready)[:2] == (29, 1), "what came after it")
    (record,) = quarantine.listed(ready.database_url)
    assert (record["event_id"], record["stage"], record["offset"]) == ("e7", "append source", 7)
    assert_whole(ready, load.messages)
    raise_for(ready.database_url, "e7", None)
    assert quarantine.release(ready, record["id"]) == "admitted"


def test_a_worker_for_whom_everything_fails_ends_with_exit_code_3_and_sets_nothing_aside(
    ready: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send(ready, Load(members=5), range(30))
    monkeypatch.setenv("GUERDON_DATABASE_URL", ready.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", ready.bootstrap_servers)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", ready.topic_prefix)
    monkeypatch.setenv("GUERDON_GROUP_ID", ready.group_id)
    monkeypatch.setenv("GUERDON_HOME", str(ready.home))
    for kept in ("consumers.health.logging.log_to_stderr", "signal.signal"):  # both are this process's own
        monkeypatch.setattr(kept, lambda *_, **__: None)
    monkeypatch.setattr("sys.argv", ["guerdon", "run", "--until-caught-up", "--clock", "events"])
    with monkeypatch.context() as defect:
        fail_in(defect, "append rewards", lambda work: bool(work.batch.admitted))
        with pytest.raises(SystemExit) as left:
            main.run()
    assert left.value.code == 3
    said = capsys.readouterr().err
    assert f"(the last, {ready.topic_prefix}purchases partition 0, offset " in said
    assert "at step `append rewards`: ValueError: poison␀), so the fault is not theirs and nothing of" in said
    assert "Traceback" not in said
    assert quarantine.listed(ready.database_url) == []
    assert counters(ready) == (0, 0, 0)
    assert catch_up(ready).accepted == 30


def test_what_decoding_raises_sets_that_message_aside_and_no_other(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(members=5)
    send(ready, load, range(10), bad=frozenset({3}))
    poisoned = load.messages[3].value
    decode = Decoder.decode

    def failing(self: Decoder, topic: str, value: bytes) -> Any:
        if value == poisoned:
            raise RecursionError("too deep\0")
        return decode(self, topic, value)

    with monkeypatch.context() as defect:
        defect.setattr(Decoder, "decode", failing)
        summary = catch_up(ready)
        assert (summary.accepted, summary.quarantined) == (9, 1)
        (record,) = quarantine.listed(ready.database_url)
        assert (record["stage"], record["reason"], record["message"]) == (
            "decode",
            "failed",
            "RecursionError: too deep␀",
        )
        with pytest.raises(AnswerIsNo, match=r"still cannot be taken \(decode: RecursionError: too deep␀\)"):
            quarantine.release(ready, record["id"])
    assert_whole(ready, load.messages)
    assert quarantine.release(ready, record["id"]) == "admitted"


class Received:
    """Stand in for a message of librdkafka's."""

    def value(self) -> bytes:
        return Encoder().encode(purchase(1))


def intake(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Intake:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("engine.intake.admit.check", failing)
    return Intake(
        Decoder(CommittedSchemas(), 1 << 20), topic_prefix="t.", currency="USD", secret=b"s", future_tolerance_ms=0,
        tombstones="pass", time=DatabaseTime(lambda: None),
    )  # fmt: skip


def test_messages_that_fail_one_after_another_say_that_the_fault_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    taking = intake(monkeypatch, KeyError("a"))
    for offset in range(IN_A_ROW_MAX):
        assert taking.take(Received(), (("t.purchases", 0), offset)).stage == "admit"  # type: ignore[arg-type,union-attr]
    with pytest.raises(CannotGoOn, match="21 messages in a row cannot be read"):
        taking.take(Received(), (("t.purchases", 0), 20))  # type: ignore[arg-type]


def test_too_little_memory_to_read_a_message_is_not_the_messages_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotGoOn, match=r"t\.purchases partition 0, offset 0: .* memory .* `guerdon offsets pass`"):
        intake(monkeypatch, MemoryError()).take(Received(), (("t.purchases", 0), 0))  # type: ignore[arg-type]


# The last resort


def test_one_record_passes_by_an_operators_decision_while_its_worker_runs(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{ready.topic_prefix}purchases"
    send(ready, Load(members=5), range(5))
    raise_for(ready.database_url, "e3", "58030")  # as a broken disk under one page: it is waited for, and stays
    monkeypatch.setenv("GUERDON_DATABASE_URL", ready.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", ready.bootstrap_servers)
    paused = threading.Event()

    class Log:
        def __getattr__(self, name: str) -> Any:
            return self._say

        @staticmethod
        def _say(event: str, **_: object) -> None:
            if event == "writer pauses":
                paused.set()

    monkeypatch.setattr("consumers.writer.log", Log())
    with running(ready):
        assert paused.wait(60)
        for wrong, refusal in (((topic, 0, 99), "ends at 5"), (("nowhere", 0, 3), "nothing was read of nowhere")):
            with pytest.raises(InputError, match=refusal):
                offsets.let_pass(ready, *wrong, "no")
        done = CliRunner().invoke(
            main.app, ["offsets", "pass", topic, "0", "3", "--why", "its page cannot be written", "--json"]
        )
        assert json.loads(done.stdout)["stands_at"] == 0
        eventually(lambda: counters(ready) == (4, 0, 1), "all but the one that was let pass")
        with pytest.raises(AnswerIsNo, match="offset 3 is let pass already"):
            offsets.let_pass(ready, topic, 0, 3, "again")
        with pytest.raises(AnswerIsNo, match="offset 2 was taken already"):
            offsets.let_pass(ready, topic, 0, 2, "late")
    (row,) = [row for row in offsets.listed(ready) if row["topic"] == topic]
    assert (row["next_offset"], row["passed"], row["let_pass"]) == (5, 1, "3: its page cannot be written")
    assert_accounted(ready)


def test_a_record_that_ends_the_worker_when_it_is_read_passes_unread_when_the_next_one_starts(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{ready.topic_prefix}purchases"
    load = Load(members=5)
    send(ready, load, range(5))
    decode = Decoder.decode

    def failing(self: Decoder, name: str, value: bytes) -> Any:
        if value == load.messages[4].value:
            raise MemoryError
        return decode(self, name, value)

    monkeypatch.setattr(Decoder, "decode", failing)
    with pytest.raises(CannotGoOn, match="offset 4"):
        catch_up(ready)
    offsets.let_pass(ready, topic, 0, 4, "too large for this machine")
    assert catch_up(ready).accepted == 4
    assert counters(ready) == (4, 0, 1)
    assert_accounted(ready)


def assert_accounted(settings: Settings) -> None:
    """What is let pass is counted, so that each offset is still exactly one thing."""
    assert [finding for finding in verify(settings.database_url) if finding["problem"]] == []
