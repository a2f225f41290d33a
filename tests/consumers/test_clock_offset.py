"""One clock counts, PostgreSQL's: a worker whose own is wrong takes in and sets aside what every other one would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumers import worker as worker_module
from consumers.database_time import DIFFERS_MS, FRESH_S, DatabaseTime
from engine.store.database import migrate, transaction
from engine.store.generations import live_generation
from operations.intake.quarantine import listed
from operations.services.postgresql import LocalPostgres
from schemas.events import Purchase
from tests.services.packages import library
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from operations.settings import Settings
    from tests.services.servers import Servers

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


class Machine:
    """Stand for a machine with a clock of its own, and for PostgreSQL, whose clock is right."""

    def __init__(self, ahead_ms: float = 0.0) -> None:
        self.passed_s = 50.0
        self.ahead_ms = ahead_ms
        self.is_away = False
        self.asked = 0
        self.time = DatabaseTime(self._ask, lambda: self.passed_s, lambda: self.true_ms + self.ahead_ms)

    @property
    def true_ms(self) -> float:
        return NOW_MS + self.passed_s * 1000

    def _ask(self) -> int | None:
        self.asked += 1
        return None if self.is_away else int(self.true_ms)


@given(
    ahead_ms=st.floats(-1e10, 1e10),
    steps=st.lists(st.tuples(st.floats(0, 5), st.floats(-1e10, 1e10), st.booleans()), max_size=20),
)
def test_however_a_clock_is_set_the_time_is_postgresqls(
    ahead_ms: float, steps: list[tuple[float, float, bool]]
) -> None:
    machine = Machine(ahead_ms)
    machine.time.fresh_ms()
    for passed_s, machine.ahead_ms, machine.is_away in steps:
        machine.passed_s += passed_s
        assert abs(machine.time.now_ms() - machine.true_ms) < 2
        assert abs(machine.time.fresh_ms() - machine.true_ms) < 2


def test_an_answer_that_took_long_is_from_the_middle_of_its_time() -> None:
    machine = Machine()
    asked_s = machine.passed_s
    machine.passed_s += 1.0
    answered_ms = int(machine.true_ms)
    machine.passed_s += 1.0
    machine.time.note(answered_ms, asked_s)
    assert abs(machine.time.now_ms() - machine.true_ms) < 2


def test_a_reading_is_fresh_for_a_moment_and_without_any_the_own_clock_must_do() -> None:
    machine = Machine(ahead_ms=7_000)
    machine.is_away = True
    assert machine.time.now_ms() == int(machine.true_ms + 7_000)
    machine.is_away = False
    machine.time.fresh_ms()
    asked = machine.asked
    machine.time.fresh_ms()
    assert machine.asked == asked
    machine.passed_s += FRESH_S + 0.1
    machine.time.fresh_ms()
    assert machine.asked == asked + 1


def test_a_difference_is_told_once_and_again_when_it_grows_and_when_it_is_gone() -> None:
    machine = Machine(ahead_ms=-600_000)
    with capture_logs() as lines:
        for ahead_ms in (-600_000, -600_500, -600_000 - 2 * DIFFERS_MS, 0):
            machine.ahead_ms = ahead_ms
            machine.passed_s += 2
            machine.time.fresh_ms()
    assert [line["event"] for line in lines] == ["clock differs", "clock differs", "clock agrees"]
    assert lines[0]["why"].startswith("this machine's clock is 600 s behind PostgreSQL's, which counts")
    assert lines[0]["here"] < lines[0]["postgresql"]


@pytest.mark.kafka
@pytest.mark.parametrize(("set_by", "words"), [("+10m", "600 s behind"), ("-2d", "172800 s ahead of")])
def test_a_worker_with_another_clock_than_postgresql_judges_what_is_from_the_future_by_postgresqls(
    set_by: str, words: str, settings: Settings, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL runs under libfaketime, not the worker: librdkafka's waits do not end under it."""
    preloaded = library("*/faketime/libfaketimeMT.so.1", "libfaketime")
    make_topics(settings, 1)
    with servers.home() as home:
        server = LocalPostgres(home)
        with monkeypatch.context() as faked:
            faked.setenv("LD_PRELOAD", preloaded)
            faked.setenv("FAKETIME", set_by)
            server.start()
        try:
            url = server.address
            migrate(url)
            activate(url)
            with transaction(url) as cursor:
                now_ms = live_generation.now_ms(cursor)
            publish(settings, orders(now=now_ms, tomorrow=now_ms + DAY_MS).messages)
            with capture_logs() as lines:
                summary = catch_up(settings.model_copy(update={"guerdon_database_url": url, "publish_rewards": False}))
            assert (summary.accepted, summary.quarantined) == (1, 1)
            (record,) = listed(url)
        finally:
            server.kill()
    assert (record["event_id"], record["reason"]) == ("tomorrow", "from_the_future")
    assert "PostgreSQL's clock allows" in record["message"]
    differs = [line["why"] for line in lines if line["event"] == "clock differs"]
    assert any(words in why for why in differs), differs


def orders(**at_ms: int) -> Load:
    """Return a purchase for each name, at its time."""
    load = Load(members=1)
    for name, occurred_ms in at_ms.items():
        order = Purchase(
            event_id=name, member_id="m1", occurred_at=occurred_ms, order_id=name, currency="USD", amount=9_900
        )
        load.add(order, deliveries=1)
    return load


def test_no_clock_of_the_machine_decides_about_events() -> None:
    for path in sorted(Path(worker_module.__file__).parent.rglob("*.py")):
        if path.name != "database_time.py":
            assert "time.time()" not in path.read_text(encoding="utf-8"), path
