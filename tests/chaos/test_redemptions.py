"""Whatever is killed at any point of a redemption, it has one outcome, the same on repetition."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.database import migrate, transaction
from operations.access import keys
from operations.services.processes import free_port
from operations.settings import load_settings
from operations.setup.initialise import create_topics
from tests.api.shops import AT, BOUGHT_AT, PROGRAMME
from tests.chaos import crashing_server
from tests.chaos.conftest import FULL
from tests.system.load import activate
from tests.system.poison import STEPS
from tests.system.workers import Workers, eventually, other_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from operations.services.kafka import LocalKafka
    from operations.services.postgresql import LocalPostgres
    from operations.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(1_800 if FULL else 400)]

WORKERS_POINTS = [f"{side} {name}" for name in STEPS for side in ("before", "after")]
WORKERS_POINTS += ["before commit", "after commit", "after fold"]
SHORT = [
    "before look up", "after append source", "before commit", "after commit", "after fold", "after evaluate",
]  # fmt: skip
KILLS = 100 if FULL else 5
"""How often a worker is killed, and how often a server of the API."""

SERVERS_KILLS = 20 if FULL else 2
"""How often the broker or PostgreSQL is killed, in turns."""

PRICE, POINTS_AT_FIRST = 10, 100_000


class Till:
    """Ask the server at a port, and again under the same key until it answers.

    Args:
        settings: of the shop; the till has a key of its own there.
        port: of the server, which may be away.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings = settings
        self.port = port
        scopes = ["events:write", "redemptions:write"]
        self._headers = {
            "Authorization": f"Bearer {keys.create(settings.database_url, 'till', scopes).key}",
            "Content-Type": "application/json",
            "Prefer": "wait=2",
        }

    def post(self, path: str, body: dict[str, Any], key: str = "") -> tuple[int, dict[str, Any]] | None:
        """Return status and body of the answer; None: the server is away, or went away."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", path, json.dumps(body), {**self._headers, "Idempotency-Key": key})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def spend(self, name: str) -> tuple[int, dict[str, Any]] | None:
        """Spend a few points once."""
        body = {"action": "spend", "member_id": "ann", "redemption_id": name, "occurred_at": AT, "amount": PRICE}
        return self.post("/v1/redemptions", body, name)

    def outcome(self, name: str) -> dict[str, Any]:
        """Ask until there is an outcome."""
        found: list[dict[str, Any]] = []
        answer: tuple[int, dict[str, Any]] | None = None

        def is_told() -> bool:
            nonlocal answer
            answer = self.spend(name)
            assert answer is None or answer[0] in (200, 202, 409, 503), answer
            if answer is not None and answer[0] == 200:
                found.append(answer[1])
            return bool(found)

        try:
            eventually(is_told, f"the outcome of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the last answer was {answer}") from None
        return found[0]


@pytest.fixture(scope="module")
def api_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Return who starts servers in processes of their own."""
    found = Workers(tmp_path_factory.mktemp("servers"), "tests.chaos.crashing_server")
    yield found
    found.close()


@pytest.fixture
def till(settings: Settings, api_servers: Workers, workers: Workers) -> Till:
    """Return the till of a shop whose member has many points."""
    return opened(settings, api_servers, workers)


def opened(settings: Settings, api_servers: Workers, workers: Workers) -> Till:
    """Let a member earn many points in a shop that opens, and return its till."""
    create_topics(settings, 1)
    activate(settings.database_url, PROGRAMME)
    found = Till(settings, free_port())
    server = api_servers.start(settings, port=found.port)
    order = {
        "type": "purchase", "event_id": "p", "member_id": "ann", "occurred_at": BOUGHT_AT, "order_id": "o",
        "currency": "EUR", "amount": POINTS_AT_FIRST * 100,
    }  # fmt: skip
    eventually(lambda: found.post("/v1/events", {"events": [order]}) is not None, "the server")
    assert workers.wait(workers.start(other_group(settings, "first"), until_caught_up=True)) == 0, workers.said()
    api_servers.kill(server)
    return found


def assert_each_counted_once(till: Till, told: dict[str, dict[str, Any]]) -> None:
    """Hold that the log has each redemption once, and that its outcome is the one that was told."""
    with transaction(till.settings.database_url) as cursor:
        cursor.execute(
            "SELECT event_id, sum(amount)::bigint FROM guerdon.reward_event "
            "WHERE type = 'points.captured' GROUP BY event_id"
        )
        assert dict(cursor.fetchall()) == dict.fromkeys(told, PRICE)
        cursor.execute("SELECT count(*) FROM guerdon.quarantine")
        assert cursor.fetchone() == (0,)
    left = [outcome["available"] for outcome in told.values()]
    assert sorted(left, reverse=True) == [POINTS_AT_FIRST - PRICE * number for number in range(1, len(told) + 1)]
    for name, outcome in told.items():
        assert till.outcome(name) == outcome, name


def test_a_worker_killed_at_any_point_leaves_one_outcome(till: Till, api_servers: Workers, workers: Workers) -> None:
    api_servers.start(till.settings, port=till.port)
    eventually(lambda: till.post("/v1/nothing", {}) is not None, "the server")
    groups = (other_group(till.settings, str(number)) for number in count())
    points = WORKERS_POINTS if FULL else SHORT
    told: dict[str, dict[str, Any]] = {}
    for number in range(KILLS):
        # it dies by itself, on this redemption or on an idle tick, and another one takes its place
        name, point = f"w{number}", points[number % len(points)]
        dying = workers.start(next(groups), point)
        till.spend(name)
        workers.wait(dying)
        following = workers.start(next(groups))
        told[name] = till.outcome(name)
        workers.kill(following)
    assert_each_counted_once(till, told)


def test_a_server_killed_at_any_point_leaves_one_outcome(till: Till, api_servers: Workers, workers: Workers) -> None:
    workers.start(other_group(till.settings, "steady"))
    told: dict[str, dict[str, Any]] = {}
    for number in range(KILLS):
        name, point = f"s{number}", crashing_server.POINTS[number % len(crashing_server.POINTS)]
        dying = api_servers.start(till.settings, point, port=till.port)
        eventually(lambda: till.post("/v1/nothing", {}) is not None, "the server")
        assert till.spend(name) is None, "it dies before it answers"
        assert api_servers.wait(dying) == -signal.SIGKILL, api_servers.said()

        # the till asks again, under the same key
        following = api_servers.start(till.settings, port=till.port)
        told[name] = till.outcome(name)
        if number + 1 < KILLS:
            api_servers.kill(following)
    assert_each_counted_once(till, told)


@pytest.fixture
def own(kafka_service: LocalKafka, postgres_service: LocalPostgres, tmp_path: Path) -> Settings:
    """Return settings with a broker and a PostgreSQL of this test's own."""
    migrate(postgres_service.address)
    return load_settings(bootstrap_servers=kafka_service.address, database_url=postgres_service.address, home=tmp_path)


def test_a_broker_and_a_database_killed_during_a_redemption_leave_one_outcome(
    own: Settings, kafka_service: LocalKafka, postgres_service: LocalPostgres, api_servers: Workers, workers: Workers
) -> None:
    till = opened(own, api_servers, workers)
    api_servers.start(own, port=till.port)
    eventually(lambda: till.post("/v1/nothing", {}) is not None, "the server")
    workers.start(own)
    told: dict[str, dict[str, Any]] = {}
    for number in range(SERVERS_KILLS):
        # the service dies somewhere between the request and its answer
        name, service = f"k{number}", (kafka_service, postgres_service)[number % 2]
        pause_s = (number // 2 * 0.01) % 0.2
        with ThreadPoolExecutor(1) as other:
            asked = other.submit(till.spend, name)
            time.sleep(pause_s)
            service.kill()
            service.start()
            asked.result()
        told[name] = till.outcome(name)
    assert_each_counted_once(till, told)
