"""Each class of SQLSTATE, raised by PostgreSQL itself: data goes aside, everything else pauses or ends the worker."""

from __future__ import annotations

import threading
from contextlib import closing

import psycopg2
import pytest

from consumers.writer import Stopped, Writer
from engine.live import load, transaction
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.programmes import load_judge
from engine.store.session.failures import error_line, is_data, passes
from operations.intake import quarantine
from operations.verify.checks import verify
from schemas.errors import CannotGoOn, InputError
from tests.system.batches import SCHEMAS, admitted, purchase
from tests.system.load import activate
from tests.system.poison import Topic, fail_in, with_event
from tests.system.workers import eventually

pytestmark = pytest.mark.postgres

DATA = ["22003", "22021", "22P02", "22P05", "23502", "23503", "23505", "23514", "23P01", "54000", "54001", "54023"]
PASSES = [
    "08000", "08006", "25006", "25P03", "40001", "40P01", "53000", "53100", "53200", "53300", "55000", "55006",
    "55P03", "57014", "57P01", "57P03", "58000", "58030",
]  # fmt: skip
ENDS = ["0A000", "25001", "25P02", "28000", "42501", "42601", "42703", "42P01", "P0001", "XX000", "XX001", "XX002"]


def raise_for(database_url: str, event_id: str, code: str | None) -> None:
    """Let PostgreSQL refuse an event with a SQLSTATE when its row is written, or with None take it again."""
    with closing(psycopg2.connect(database_url)) as owner, owner, owner.cursor() as cursor:
        cursor.execute("DROP TRIGGER IF EXISTS poison ON guerdon.source_event")
        if code is not None:
            cursor.execute(
                f"""
                CREATE OR REPLACE FUNCTION guerdon.poison() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    IF NEW.event_id = '{event_id}' THEN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END IF;
                    RETURN NEW;
                END $$;
                CREATE TRIGGER poison BEFORE INSERT ON guerdon.source_event
                    FOR EACH ROW EXECUTE FUNCTION guerdon.poison()
                """
            )


def test_each_class_of_data_sets_its_event_aside_and_takes_the_others(database_url: str) -> None:
    activate(database_url)
    topic = Topic(database_url)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for number, code in enumerate(DATA):
            events = [purchase(10 * number + n, f"m{n}") for n in range(4)]
            raise_for(database_url, events[1].event_id, code)
            assert worker.commit(topic.batch(events)).accepted == 3, code
            record = quarantine.listed(database_url)[-1]
            assert (record["event_id"], record["stage"]) == (events[1].event_id, "append source"), code
            assert ": refused " in record["message"]
    assert topic.is_taken(database_url)
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


def test_every_other_class_sets_nothing_aside_and_moves_no_offset(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same attempt succeeds as soon as the cause has gone."""
    activate(database_url)
    monkeypatch.setattr(transaction, "ATTEMPTS_MAX", 2)
    events = [purchase(n, f"m{n}") for n in range(4)]
    batch = Topic(database_url).batch(events)

    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for code in (*PASSES, *ENDS):
            raise_for(database_url, "e1", code)
            with pytest.raises(psycopg2.Error) as caught:
                worker.commit(batch)
            assert caught.value.pgcode == code
            assert passes(caught.value) == (code in PASSES), code
            assert not is_data(caught.value)

        assert quarantine.listed(database_url) == []
        raise_for(database_url, "e1", None)
        assert worker.commit(batch).accepted == 4


def test_a_writer_waits_for_what_passes_and_ends_with_a_sentence_for_what_does_not(database_url: str) -> None:
    activate(database_url)
    stop = threading.Event()
    with closing(Writer(database_url, SCHEMAS.lookup, stop)) as writer:
        batch = Topic(database_url).batch([purchase(1)])

        # a full disk: the writer waits until it is stopped
        raise_for(database_url, "e1", "53100")
        writing = writer.begin(batch)
        stop.set()
        with pytest.raises(Stopped):
            writing.result(30)

        # a missing right: the writer ends
        raise_for(database_url, "e1", "42501")
        with pytest.raises(CannotGoOn, match=r"SQLSTATE 42501, InsufficientPrivilege: refused.* nothing was set aside"):
            writer.begin(batch).result(30)

        raise_for(database_url, "e1", None)
        assert writer.begin(batch).result(30).accepted == 1
    assert quarantine.listed(database_url) == []


def test_a_server_whose_disk_is_full_is_waited_for_and_the_event_is_taken_once_it_is_not(database_url: str) -> None:
    activate(database_url)
    attempts: list[str] = []
    with closing(Writer(database_url, SCHEMAS.lookup, threading.Event(), attempts.append)) as writer:
        raise_for(database_url, "e1", "53100")
        writing = writer.begin(Topic(database_url).batch([purchase(1)]))
        eventually(lambda: attempts.count("before append source") > 1, "a second attempt")
        raise_for(database_url, "e1", None)
        assert writing.result(30).accepted == 1
    assert quarantine.listed(database_url) == []


def test_too_little_memory_is_no_events_fault(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    activate(database_url)
    fail_in(monkeypatch, "evaluate", with_event("e1"), MemoryError)
    with closing(Writer(database_url, SCHEMAS.lookup, threading.Event())) as writer:
        writing = writer.begin(Topic(database_url).batch([purchase(1), purchase(2)]))
        with pytest.raises(CannotGoOn, match="no memory left, so nothing of the batch was written or set aside"):
            writing.result(30)
    assert quarantine.listed(database_url) == []


def test_a_connection_lost_while_an_event_is_judged_holds_nobody(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question to PostgreSQL during judging may fail for PostgreSQL's reasons, which say nothing about the event."""
    activate(database_url)
    lost = [psycopg2.OperationalError("server closed the connection unexpectedly")]

    class Losing:
        def __init__(self, judge: object) -> None:
            self._judge = judge

        def __getattr__(self, name: str) -> object:
            if name == "rewards_for" and lost:
                raise lost.pop()
            return getattr(self._judge, name)

    monkeypatch.setattr(load, "load_judge", lambda cursor, version: Losing(load_judge(cursor, version)))
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        with pytest.raises(psycopg2.OperationalError, match="closed the connection"):
            worker.commit(Batch([admitted(purchase(1))]))
        assert worker.commit(Batch([admitted(purchase(1))])).rewards == 1
    assert quarantine.listed(database_url) == []


@pytest.mark.parametrize(
    ("error", "data", "waits"),
    [
        (ValueError("a"), True, False),
        (OverflowError("a"), True, False),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), True, False),
        (KeyError("a"), True, False),
        (RecursionError("a"), True, False),
        (MemoryError(), False, False),
        (KeyboardInterrupt(), False, False),
        (InputError("a"), False, False),
        (psycopg2.OperationalError("server closed the connection unexpectedly"), False, True),
        (psycopg2.InterfaceError("connection already closed"), False, True),
        (psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq"), False, True),
        (psycopg2.ProgrammingError("can't adapt type 'set'"), False, False),
    ],
)
def test_errors_without_a_sqlstate_are_told_apart_by_their_class(
    error: BaseException, *, data: bool, waits: bool
) -> None:
    assert (is_data(error), passes(error)) == (data, waits)


def test_what_is_told_of_an_error_is_one_line_that_postgresql_can_hold() -> None:
    assert error_line(ValueError("a\0b\nc  \ud800")) == "ValueError: a␀b c \\ud800"
