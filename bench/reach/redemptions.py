"""Measure how long a till waits for the outcome of a redemption over HTTP, and a shop for a quote.

A part of `make bench`: a broker, a PostgreSQL, one worker and one `serve`, first alone, then while events come in.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import load
from bench.latency import loaded
from bench.main import PARTITIONS, fresh_settings, services, start
from operations.access import keys
from operations.services.processes import free_port
from operations.setup.initialise import initialise
from operations.setup.programmes import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from operations.settings import Settings

MEMBERS = 2_000
TILLS = 8
"""How many requests are under way at the same time at most."""

POINTS = 100_000
STARTED_WITHIN_S = 30.0
WARM_UP = 50
PROGRAMME = (
    f"{load.PROGRAMME}points: {{validity: 12mo}}\ncatalogue:\n- {{id: pay, kind: money, points_per: {{10: 0.10}}}}\n"
)
SCOPES = ("events:write", "redemptions:write", "members:read")


class Client:
    """Call one server over one connection.

    Args:
        port: of the server on this machine.
        key: of a client of the API.
    """

    def __init__(self, port: int, key: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, path: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        """Return status and body of the answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self._connection.request("POST", path, json.dumps(body), {**self._headers, **named})
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            self._connection.close()  # the next request opens it again
            raise


def main(seconds: float = 20.0, rates: tuple[int, ...] = (0, 500), per_s: float = 20.0) -> None:
    """Print medians and 99th percentiles.

    Args:
        seconds: how long each measurement lasts.
        rates: events a second that come in meanwhile, one measurement each.
        per_s: redemptions, and then quotes, that are asked for a second.
    """
    with services() as home, ExitStack() as stack:
        settings = fresh_settings(home)
        _prepare(settings)
        port, key = free_port(), keys.create(settings.database_url, "bench", SCOPES).key
        stack.enter_context(_running(settings, "run"))
        stack.enter_context(_running(settings, "serve", "--listen", f"127.0.0.1:{port}"))
        new_client = partial(Client, port, key)
        _give_points(new_client())
        for rate in rates:
            with ExitStack() as loads:
                if rate:
                    loads.enter_context(loaded(settings, rate, MEMBERS))
                _report(f"redemptions, {rate:,} events/s", _paced(_spend, new_client, per_s, seconds))
                _report(f"quotes, {rate:,} events/s", _paced(_quote, new_client, per_s, seconds))


def _prepare(settings: Settings) -> None:
    initialise(settings, PARTITIONS)
    with tempfile.TemporaryDirectory() as folder:
        programme = Path(folder) / "programme.yaml"
        programme.write_text(PROGRAMME, "utf-8")
        activate(settings.database_url, programme)


@contextmanager
def _running(settings: Settings, *command: str) -> Iterator[None]:
    process = start("cli", settings, *command, GUERDON_API_REQUESTS_PER_S="1000000")
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _member(number: int) -> str:
    return f"member-{number % MEMBERS:06d}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _give_points(client: Client) -> None:
    """Let each member buy once, as soon as the server answers, and wait until the last can spend."""
    deadline_s = time.monotonic() + STARTED_WITHIN_S
    for first in range(0, MEMBERS, 500):
        orders = [
            {"type": "purchase", "event_id": f"first-{number}", "member_id": _member(number), "occurred_at": _now(),
             "order_id": f"first-{number}", "currency": "USD", "amount": POINTS, "channel": "app"}
            for number in range(first, first + 500)
        ]  # fmt: skip
        while True:
            try:
                status, answer = client.post("/v1/events", {"events": orders})
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)
                continue
            if status != 202:
                raise SystemExit(f"the events were not taken: {answer}")
            break
    for number in range(MEMBERS - 1, MEMBERS - 1 - WARM_UP, -1):
        _spend(client, -number)


def _spend(client: Client, number: int) -> None:
    name = f"x{number}-{time.time_ns()}"
    body = {
        "action": "spend", "member_id": _member(number), "redemption_id": name, "occurred_at": _now(), "reward": "pay",
        "amount": 10, "order_amount": 5_000,
    }  # fmt: skip
    status, answer = client.post("/v1/redemptions", body, Idempotency_Key=name, Prefer="wait=10")
    if status != 200 or answer["outcome"] != "accepted":
        raise SystemExit(f"a redemption was answered with {status}: {answer}")


def _quote(client: Client, number: int) -> None:
    lines = [{"line_id": str(line), "sku": f"s{line}", "quantity": "1", "amount": 1_900 + line} for line in range(5)]
    status, answer = client.post("/v1/quotes", {"member_id": _member(number), "items": lines, "channel": "app"})
    if status != 200 or not answer["earns"]:
        raise SystemExit(f"a quote was answered with {status}: {answer}")


def _paced(
    ask: Callable[[Client, int], None], new_client: Callable[[], Client], per_s: float, seconds: float
) -> list[float]:
    """Ask at an even rate, whether answers come or not, and return how long each took from when it was due, in ms."""
    clients = [new_client() for _ in range(TILLS)]
    started_s = time.perf_counter()

    def one(number: int) -> float:
        due_s = started_s + number / per_s
        time.sleep(max(0.0, due_s - time.perf_counter()))
        ask(clients[number % TILLS], number)
        return (time.perf_counter() - due_s) * 1000

    def till(index: int) -> list[float]:
        return [one(number) for number in range(index, int(per_s * seconds), TILLS)]

    with ThreadPoolExecutor(TILLS) as tills:
        return [took for each in tills.map(till, range(TILLS)) for took in each]


def _report(title: str, took_ms: list[float]) -> None:
    cuts = statistics.quantiles(took_ms, n=100)
    print(f"{title}: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, most {max(took_ms):.0f} ms, of {len(took_ms)}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
