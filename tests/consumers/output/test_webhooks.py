"""Hold that webhooks get every reward event, signed and in order, whatever the endpoint does."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks import Webhook

from consumers.output import webhooks as delivering
from consumers.output.webhooks import Webhooks
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store import webhook_cursors
from engine.store.database import connect, transaction
from operations.replay.generations import promote
from operations.replay.run import Request, replay
from operations.settings import load_settings
from operations.webhooks import endpoints
from schemas.errors import AnswerIsNo, InputError
from tests.places import DOCS
from tests.system.batches import SCHEMAS, admitted, purchase
from tests.system.load import activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from operations.settings import Settings

pytestmark = pytest.mark.postgres


class Receiver:
    """Be an endpoint that keeps every message it takes, and answers as `answer` says."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[dict[str, Any]], int] = lambda _: 200
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                message = json.loads(body)
                status = receiver.answer(message)
                with receiver._lock:
                    if status == 200:
                        receiver.messages.append(message)
                        receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                        receiver.bodies.append(body)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook?shop=7"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def places(self) -> list[tuple[int, int]]:
        """Return shard and position of each message, in the order in which they came."""
        return [(message["data"]["shard"], message["data"]["pos"]) for message in self.messages]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def inside(database_url: str, tmp_path: Path) -> Settings:
    """Return settings that allow addresses inside the network, of a database with a programme."""
    activate(database_url)
    return load_settings(database_url=database_url, home=tmp_path, webhook_allow_private=True)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "IDLE_S", 0.02)
    monkeypatch.setattr(delivering, "PAUSE_FIRST_S", 0.05)


@contextmanager
def delivered_by(settings: Settings, threads: int = 4) -> Iterator[Webhooks]:
    """Deliver for as long as the block takes."""
    counted: list[tuple[str, str]] = []
    webhooks = Webhooks(settings, lambda webhook_id, outcome: counted.append((webhook_id, outcome)), threads)
    webhooks.start()
    try:
        yield webhooks
    finally:
        webhooks.stop()


def buy(settings: Settings, numbers: range, members: int = 5) -> None:
    """Judge a purchase for each number."""
    with closing(LiveTransaction(settings.database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch([admitted(purchase(number, f"m{number % members}")) for number in numbers]))


def logged(settings: Settings) -> list[tuple[int, int]]:
    """Return shard and position of every reward event of the live log."""
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT shard, pos FROM guerdon.identified_reward_event ORDER BY shard, pos")
        return cursor.fetchall()


def create(settings: Settings, receiver: Receiver, *types: str) -> endpoints.NewWebhook:
    return endpoints.create(settings.database_url, receiver.url, types, by="test", allow_private=True)


def listed(settings: Settings) -> dict[str, Any]:
    with transaction(settings.database_url) as cursor:
        (row,) = endpoints.webhooks(cursor)
    return row


def test_every_event_comes_once_in_the_order_of_its_shard_and_signed(inside: Settings, receiver: Receiver) -> None:
    made = create(inside, receiver)
    buy(inside, range(40))
    with delivered_by(inside):
        eventually(lambda: sorted(receiver.places) == logged(inside), "everything is delivered")
    by_shard = defaultdict(list)
    for shard, pos in receiver.places:
        by_shard[shard].append(pos)
    assert all(positions == sorted(positions) for positions in by_shard.values())
    assert len(by_shard) > 1

    # a library of the standard accepts each message, and its id is its own
    library = Webhook(made.secret)
    for body, headers in zip(receiver.bodies, receiver.headers, strict=True):
        assert library.verify(body, headers)
        assert len(body) < 20_000
    ids = [headers["webhook-id"] for headers in receiver.headers]
    assert len(set(ids)) == len(ids)
    message = receiver.messages[0]
    assert set(message) == {"type", "timestamp", "data"}
    assert message["data"]["type"] == message["type"]
    assert listed(inside) | {"delivered": 0} == listed(inside) | {"behind": 0, "delivered": 0, "error": None}


def test_what_was_logged_before_is_not_sent(inside: Settings, receiver: Receiver) -> None:
    buy(inside, range(5))
    create(inside, receiver)
    before = logged(inside)
    buy(inside, range(5, 10))
    with delivered_by(inside):
        eventually(lambda: len(receiver.places) == len(logged(inside)) - len(before), "the new ones are delivered")
    assert not set(receiver.places) & set(before)


def test_a_filter_lets_only_its_types_through(shop_url: str, tmp_path: Path, receiver: Receiver) -> None:
    shop = load_settings(database_url=shop_url, home=tmp_path, webhook_allow_private=True)
    made = create(shop, receiver, "tier.changed", "coupon.*")
    with transaction(shop_url) as cursor:
        cursor.execute(
            """
            SELECT shard, pos, type = 'tier.changed' OR starts_with(type, 'coupon.')
            FROM guerdon.identified_reward_event ORDER BY shard, pos
            """
        )
        rows = cursor.fetchall()
    wanted = [(shard, pos) for shard, pos, is_wanted in rows if is_wanted]
    assert 0 < len(wanted) < len(rows)

    endpoints.replay(shop_url, made.webhook_id, datetime(2000, 1, 1, tzinfo=UTC))
    with delivered_by(shop):
        eventually(lambda: listed(shop)["behind"] == 0, "everything was looked at")
    assert sorted(receiver.places) == wanted


def test_a_type_that_is_not_there_is_refused(inside: Settings, receiver: Receiver) -> None:
    with pytest.raises(InputError, match=r'no type of reward events "point\.granted"'):
        create(inside, receiver, "point.granted")


def test_after_a_promotion_it_goes_on_at_the_end_of_the_promoted_log(inside: Settings, receiver: Receiver) -> None:
    create(inside, receiver)
    buy(inside, range(6))
    with delivered_by(inside):
        eventually(lambda: sorted(receiver.places) == logged(inside), "everything is delivered")
    run = replay(inside.database_url, Request())
    promote(inside.database_url, run["generation"])
    before = len(receiver.places)
    known = logged(inside)
    buy(inside, range(6, 12))
    with delivered_by(inside):
        eventually(lambda: listed(inside)["behind"] == 0, "everything is delivered")
    assert sorted(receiver.places[before:]) == sorted(set(logged(inside)) - set(known))
    assert {message["data"]["generation"] for message in receiver.messages[before:]} == {run["generation"]}


@pytest.mark.parametrize("status", [500, 302, 404])
def test_a_refused_message_is_sent_again_and_what_follows_in_its_shard_waits(
    inside: Settings, receiver: Receiver, status: int
) -> None:
    made = create(inside, receiver)
    refusals: defaultdict[tuple[int, int], int] = defaultdict(int)

    def answer(message: dict[str, Any]) -> int:
        place = (message["data"]["shard"], message["data"]["pos"])
        refusals[place] += 1
        return 200 if refusals[place] > 2 else status

    receiver.answer = answer
    buy(inside, range(10))
    with delivered_by(inside):
        eventually(lambda: listed(inside)["error"] is not None, "the failure is shown")
        assert listed(inside)["error"] == f"the endpoint answered {status}"
        eventually(lambda: sorted(receiver.places) == logged(inside), "everything is delivered in the end")
    assert listed(inside)["error"] is None
    assert Webhook(made.secret).verify(receiver.bodies[-1], receiver.headers[-1])


def test_an_endpoint_that_is_away_and_one_that_says_nothing_are_tried_again(
    inside: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.webhooks.sending.ANSWER_WITHIN_S", 0.3)
    silence = threading.Event()
    first = threading.Event()

    def answer(_: dict[str, Any]) -> int:
        if not first.is_set():
            first.set()
            silence.wait(5)
        return 200

    receiver.answer = answer
    create(inside, receiver)
    buy(inside, range(3), members=1)
    with delivered_by(inside, threads=1):
        eventually(lambda: listed(inside)["error"] is not None, "the silence is an error")
        silence.set()
        eventually(lambda: set(receiver.places) == set(logged(inside)), "everything is delivered")


def test_after_a_day_of_failures_it_is_paused_and_goes_on_without_a_gap(inside: Settings, receiver: Receiver) -> None:
    made = create(inside, receiver)
    receiver.answer = lambda _: 503
    buy(inside, range(3), members=1)
    with delivered_by(inside, threads=1):
        eventually(lambda: listed(inside)["failing_since"] is not None, "it fails")
        with transaction(inside.database_url) as cursor:
            cursor.execute("UPDATE guerdon.webhook_cursor SET failing_since = now() - interval '25 hours'")
        eventually(lambda: listed(inside)["paused_at"] is not None, "it is paused")
        assert listed(inside)["why"] == "one message failed for 24 h; the last error: the endpoint answered 503"
        receiver.answer = lambda _: 200
        buy(inside, range(3, 6), members=1)
        endpoints.resume(inside.database_url, made.webhook_id)
        eventually(lambda: sorted(receiver.places) == logged(inside), "everything is delivered")


def test_an_endpoint_that_is_gone_is_paused_at_once(inside: Settings, receiver: Receiver) -> None:
    create(inside, receiver)
    receiver.answer = lambda _: 410
    buy(inside, range(1))
    with delivered_by(inside):
        eventually(lambda: listed(inside)["why"] is not None, "it is paused")
    assert listed(inside)["why"] == "the endpoint answered 410: it wants no more"


def test_a_process_that_dies_keeps_its_shard_for_the_lease_only(inside: Settings, receiver: Receiver) -> None:
    create(inside, receiver)
    buy(inside, range(3), members=1)
    with closing(connect(inside.database_url)) as connection, connection, connection.cursor() as cursor:
        lease = webhook_cursors.take(cursor)
        assert lease is not None
        assert webhook_cursors.take(cursor) is None, "the only shard is lent"
    with delivered_by(inside):
        buy(inside, range(10, 13), members=1)
        with transaction(inside.database_url) as cursor:
            cursor.execute("UPDATE guerdon.webhook_cursor SET leased_until = now() WHERE lease IS NOT NULL")
        eventually(lambda: sorted(receiver.places) == logged(inside), "another process has taken it over")

    # and the one that comes back too late changes nothing
    with transaction(inside.database_url) as cursor:
        assert not webhook_cursors.give_back(cursor, lease, webhook_cursors.Progress(1, 1))


def test_a_secret_is_replaced_without_a_message_that_only_one_side_accepts(
    inside: Settings, receiver: Receiver
) -> None:
    old = create(inside, receiver)
    new = endpoints.rotate(inside.database_url, old.webhook_id)
    buy(inside, range(2))
    with delivered_by(inside):
        eventually(lambda: sorted(receiver.places) == logged(inside), "everything is delivered")
    for secret in (old.secret, new.secret):
        assert Webhook(secret).verify(receiver.bodies[0], receiver.headers[0])
    with transaction(inside.database_url) as cursor:
        cursor.execute("UPDATE guerdon.webhook_secret SET expires_at = now() WHERE expires_at IS NOT NULL")
        assert len(endpoints.valid_secrets(cursor, old.webhook_id)) == 1


def test_a_replay_sends_the_same_ids_again(inside: Settings, receiver: Receiver) -> None:
    made = create(inside, receiver)
    buy(inside, range(6))
    with delivered_by(inside):
        eventually(lambda: sorted(receiver.places) == logged(inside), "everything is delivered")
        first = sorted(headers["webhook-id"] for headers in receiver.headers)
        with transaction(inside.database_url) as cursor:
            cursor.execute("SELECT min(recorded_at) FROM guerdon.reward_event")
            (since,) = cursor.fetchone() or (None,)
        assert endpoints.replay(inside.database_url, made.webhook_id, since) == len(first)
        eventually(lambda: len(receiver.headers) == 2 * len(first), "everything is delivered again")
    assert sorted(headers["webhook-id"] for headers in receiver.headers) == sorted(first * 2)


def test_a_webhook_that_is_not_there_is_told(inside: Settings) -> None:
    for act in (endpoints.resume, endpoints.remove, endpoints.rotate):
        with pytest.raises(AnswerIsNo, match='no webhook "wh_0"'):
            act(inside.database_url, "wh_0")


def test_the_receiver_of_the_page_knows_genuine_messages(inside: Settings, receiver: Receiver) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (DOCS / "webhooks.md").read_text(encoding="utf-8"), re.DOTALL)
    page: dict[str, Any] = {}
    exec(lines, page)  # noqa: S102  the page's own lines, as they stand
    made = create(inside, receiver)
    buy(inside, range(1))
    with delivered_by(inside):
        eventually(lambda: sorted(receiver.places) == logged(inside), "everything is delivered")
    headers, body = receiver.headers[0], receiver.bodies[0]
    assert page["is_genuine"](made.secret, headers, body)
    assert not page["is_genuine"](made.secret, headers, body + b" ")
    assert not page["is_genuine"](made.secret, headers | {"webhook-timestamp": "1700000000"}, body)
