"""Measure how many reads a second one process of `guerdon serve` answers, and how long each takes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from threading import Event as Flag
from typing import TYPE_CHECKING

import psutil
import psycopg2

from bench.databases import Share, cpu_s, fresh, postmaster, server, write_share
from bench.reach.generator import Answers, ask, nothing, requests
from operations.access.keys import create
from operations.access.scopes import Scope
from projections.runner import finish
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMBERS = 2_000
PURCHASES = 30
BUSY = 40_000
"""The events of one member who has done far more than all others."""

BATCH = 2_000
CONNECTIONS = 8
SECONDS = 10.0
HOUR_MS = 3_600_000
PROGRAMME = """\
schema: guerdon/1
programme: reads
timezone: Europe/Berlin
currency: EUR
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: cash, on: purchase, when: {purchase.amount: {gte: 80.00}}, give: [{cash: {amount: 0.50}}]}
- {id: five, on: purchase, limits: [{times: 2, per: member}], give: [{coupon: {template: five-off, valid: 30d}}]}
- {id: ten, on: purchase, challenge: {count: 10, repeat: after_completion}, give: [{badge: regular}]}
points: {validity: 365d}
referral: {claim_window: 30d}
tiers: {metric: status, window: lifetime, levels: [{id: basic, from: 0}, {id: gold, from: 1500}]}
catalogue:
- {id: mug, points: 120, kind: gift}
- {id: pay, kind: money, points_per: {10: 0.10}}
"""

READS = {
    "a member": "/v1/members/{}", "balances": "/v1/members/{}/balances", "tier": "/v1/members/{}/tier",
    "lots": "/v1/members/{}/lots", "history": "/v1/members/{}/events", "catalogue": "/v1/catalogue?member_id={}",
}  # fmt: skip


def main() -> None:
    """Print the rates and times of reads of many members, and the times of reads of one with a long past."""
    with server() as address:
        url = fresh(address, "reads", PROGRAMME)
        for events in (_many(), _busy()):
            write_share(url, Share(0, 1), events, BATCH)
        finish(url, Flag())
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            postgres = postmaster(connection)
            with connection.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE")
        key = create(url, "bench", list(Scope)).key

        print(
            f"\n{CONNECTIONS} connections, {MEMBERS:,} members with {PURCHASES} purchases each, {SECONDS:.0f} s each:"
        )
        for port in nothing(1_500):
            _print("nothing", ask(port, requests(["/"], key), connections=CONNECTIONS, for_s=SECONDS))
        with _serving(url) as (port, process):
            for name, path in READS.items():
                wanted = requests([path.format(f"member-{number}") for number in range(MEMBERS)], key)
                ask(port, wanted, connections=CONNECTIONS, for_s=1.0)
                own_s, postgres_s = _cpu_s(process), cpu_s(postgres)
                answers = ask(port, wanted, connections=CONNECTIONS, for_s=SECONDS)
                count = answers.per_s * SECONDS
                costs = ((_cpu_s(process) - own_s) / count, (cpu_s(postgres) - postgres_s) / count)
                _print(name, answers, costs)

            print(f"one member with {BUSY:,} purchases, one connection:")
            for name, path in READS.items():
                _print(name, ask(port, requests([path.format("busy")], key), connections=1, for_s=SECONDS / 4))


def _many() -> Iterator[Purchase]:
    chance = random.Random(17)  # noqa: S311  a load, not a secret
    for number in range(MEMBERS * PURCHASES):
        yield _purchase(f"member-{number % MEMBERS}", number, chance.randrange(500, 9_000))


def _busy() -> Iterator[Purchase]:
    for number in range(BUSY):
        yield _purchase("busy", number, 1_000)


def _purchase(member_id: str, number: int, amount: int) -> Purchase:
    now_ms = int(time.time() * 1000) - 90 * 24 * HOUR_MS
    return Purchase(
        event_id=f"{member_id}-{number}", member_id=member_id, occurred_at=now_ms + number * 1_000,
        order_id=f"o{number}", currency="EUR", amount=amount, channel="web",
    )  # fmt: skip


@contextmanager
def _serving(url: str) -> Iterator[tuple[int, psutil.Process]]:
    """Yield the port and the process of a server, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "GUERDON_DATABASE_URL": url, "GUERDON_API_REQUESTS_PER_S": "1000000"}
    command = [sys.executable, "-m", "cli", "serve", "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(  # noqa: S603  a command of our own
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None  # it is a pipe
        process.stdout.readline()
        try:
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _print(name: str, answers: Answers, costs: tuple[float, float] | None = None) -> None:
    line = f"  {name:10s} {answers.per_s:8,.0f}/s, p50 {answers.p50_ms:6.1f} ms, p99 {answers.p99_ms:6.1f} ms"
    if costs is not None:
        own_us, postgres_us = (round(cost * 1e6) for cost in costs)
        line += f", {own_us:,} µs of CPU a read and {postgres_us:,} µs of PostgreSQL's: {1e6 / own_us:,.0f}/s a core"
    print(line + (f"; {answers.failed} FAILED" if answers.failed else ""))


if __name__ == "__main__":
    main()
