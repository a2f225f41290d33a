"""Whatever fails at night, nothing is lost, nothing doubles, and lag returns to nothing with nobody's help."""

from __future__ import annotations

import os
import random
import re
import signal
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from confluent_kafka import KafkaException

from engine.store.database import migrate
from operations.services import processes
from operations.settings import load_settings
from operations.simulate.from_log import simulate_log
from schemas.errors import ServiceUnreachable
from tests.chaos.conftest import FULL
from tests.chaos.faults import FAULTS, SLOW, Night, clock_of, services, wait_until_over
from tests.chaos.test_restarts import QUICK, parts_of, taken
from tests.models.oracle import assert_whole
from tests.operations.simulate.test_from_log import VIEWS, comparable, viewed
from tests.services import packages
from tests.system.load import PROGRAMME_OF_LEDGER, Load, activate, make_topics, publish
from tests.system.workers import Workers, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.system.load import Message

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(3600 if FULL else 600)]

HOLD_S = 12.0 if FULL else 0.3
EVENTS_A_ROUND = 1_500 if FULL else 60
HEALED_WITHIN_S = 180.0
ONLY_IN_FULL = pytest.mark.skipif(not FULL, reason="an hour or so with all others: run by `make chaos`")


@contextmanager
def a_night(**of_postgres: str) -> Iterator[Night]:
    """Run two workers on servers of the test's own, behind proxies; PostgreSQL alone gets the variables."""
    with tempfile.TemporaryDirectory(prefix="guerdon-night-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)
        found = stack.enter_context(services(folder, of_postgres))
        migrate(found.postgres.address)
        direct = load_settings(
            bootstrap_servers=found.kafka.address, database_url=found.postgres.address, home=folder / "home",
            max_batch=100,
        )  # fmt: skip
        make_topics(direct, 2)
        activate(direct.database_url, PROGRAMME_OF_LEDGER)
        workers = Workers(folder)
        stack.callback(workers.close)
        settings = direct.model_copy(
            update={
                "kafka_bootstrap_servers": f"{processes.HOST}:{found.to_kafka.port}",
                "guerdon_database_url": re.sub(r":\d+/", f":{found.to_postgres.port}/", direct.database_url),
                "kafka": QUICK,
            }
        )
        yield Night(settings, direct, workers, [workers.start(settings) for _ in range(2)], found)


@contextmanager
def publishing(night: Night, messages: Sequence[Message]) -> Iterator[None]:
    """Publish while something happens; the producer's own connections are not disturbed."""
    failed: list[BaseException] = []

    def send() -> None:
        try:
            eventually(lambda: is_published(night, messages), "a broker to publish to")
        except BaseException as error:  # noqa: BLE001  told to the test below
            failed.append(error)

    thread = threading.Thread(target=send, name="producer")
    thread.start()
    yield
    thread.join(120)
    assert not thread.is_alive()
    assert failed == []


def is_published(night: Night, messages: Sequence[Message]) -> bool:
    """Publish; False where the broker did not answer at the beginning, and nothing was sent."""
    try:
        publish(night.direct, messages)
    except KafkaException:
        return False
    return True


def hold(seconds: float) -> None:
    threading.Event().wait(seconds)  # how long a fault lasts: it is what the test is about, no wait for a condition


def leave(night: Night) -> None:
    """End the workers in good order."""
    for pid in night.running:
        os.kill(pid, signal.SIGTERM)
    assert {night.workers.wait(pid, 15) for pid in night.running} <= {0, -signal.SIGTERM}, night.workers.said()


def assert_nothing_is_wrong(night: Night, messages: Sequence[Message], folder: Path) -> None:
    """Hold the night's outcome to the oracle, to `verify` and to `simulate --from-log`, view by view."""
    assert_whole(night.direct, messages)
    file = folder / "programme.yaml"
    file.write_text(PROGRAMME_OF_LEDGER, "utf-8")
    document = simulate_log(night.direct.database_url, file).document()
    seen = viewed(night.direct.database_url)
    for name in VIEWS:
        assert comparable(document[name]) == seen[name], name


def healed(night: Night, published: int, names: str) -> float:
    return wait_until_over(night, lambda: is_taken(night, published), names, HEALED_WITHIN_S)


def is_taken(night: Night, published: int) -> bool:
    """Tell whether all is in the logs and the views; a server that has ended is started, as a supervisor would."""
    for place, pid in enumerate(night.running):
        if night.workers.ended(pid) is not None:  # it was started while a service was away, and said so
            assert "ServiceUnreachable" in night.workers.said(0), night.workers.said()
            night.running[place] = night.workers.start(night.settings)
    try:
        return taken(night.direct) == published
    except (psycopg2.Error, ServiceUnreachable):  # it recovers, or has ended
        for server in (night.services.postgres, night.services.kafka):
            if server.running() is None:
                server.start()
        return False


def live_through(
    folder: Path, rounds: Sequence[Sequence[str]], seed: int = 7
) -> tuple[dict[str, float], dict[str, str]]:
    """Let the faults of each round happen at once while events come in, and then the next round's.

    Returns how long each round took to heal, in s, and which faults could not happen here, with the reason.
    """
    load = Load(members=50, ledger=True, seed=seed).fill(EVENTS_A_ROUND * (len(rounds) + 1))
    first, *parts = parts_of(load.messages, len(rounds) + 1)
    took = {}
    with a_night() as night:
        publish(night.direct, first)
        published = len(first)
        eventually(lambda: is_taken(night, published), f"the first batch; workers said: {night.workers.said()}")
        for names, part in zip(rounds, parts, strict=True):
            with publishing(night, part), ExitStack() as stack:
                for name in names:
                    if name not in night.services.left_out:
                        stack.enter_context((FAULTS | SLOW)[name](night))
                hold(HOLD_S)
            published += len(part)
            took[" and ".join(names)] = healed(night, published, " and ".join(names))
        leave(night)
        assert_nothing_is_wrong(night, load.messages, folder)
        return took, night.services.left_out


def mixtures(seed: int, rounds: int) -> list[list[str]]:
    """Return what happens at once, by chance; a server that is not there is not filled, reset or stopped as well."""
    chance = random.Random(seed)  # noqa: S311  a test must repeat
    by_place = [[name for name in FAULTS if place in name] for place in ("worker", "PostgreSQL", "broker")]
    return [[chance.choice(names) for names in chance.sample(by_place, chance.randint(2, 3))] for _ in range(rounds)]


def tell(outcome: tuple[dict[str, float], dict[str, str]]) -> None:
    """Say how long healing took, for the report, and skip by name what could not happen here."""
    took, left_out = outcome
    print("healed after:", {name: round(seconds, 1) for name, seconds in took.items()})  # noqa: T201  for the report
    if left_out:
        pytest.skip("; ".join(f"{fault} was left out: {why}" for fault, why in left_out.items()))


def test_faults_one_after_another_and_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    tell(live_through(tmp_path, [[name] for name in FAULTS] + mixtures(seed=3, rounds=2)))


@ONLY_IN_FULL
def test_lost_bytes_lose_no_event(tmp_path: Path) -> None:
    tell(live_through(tmp_path, [[name] for name in SLOW]))


@ONLY_IN_FULL
@pytest.mark.parametrize("seed", range(4))
def test_long_nights_of_mixtures_lose_and_double_nothing(seed: int, tmp_path: Path) -> None:
    tell(live_through(tmp_path, mixtures(seed, rounds=10), seed))


@ONLY_IN_FULL
def test_a_clock_of_the_database_that_goes_wrong_loses_and_doubles_nothing(tmp_path: Path) -> None:
    clock = tmp_path.parent / f"{tmp_path.name}.clock"
    clock.write_text("+0")
    library = packages.library("*/faketime/libfaketime.so.1", "libfaketime")
    with a_night(**clock_of(library, clock)) as night:
        load = Load(members=50, ledger=True).fill(EVENTS_A_ROUND * 4)
        published = 0
        for by, part in zip(("-1h", "+1h", "-1d", "+0"), parts_of(load.messages, 4), strict=True):
            clock.write_text(by)
            publish(night.direct, part)
            hold(HOLD_S)
            published += len(part)
            healed(night, published, f"a clock moved by {by}")
        leave(night)
        assert_nothing_is_wrong(night, load.messages, tmp_path)
