"""Start a PostgreSQL for one benchmark, make databases in it, and write a load to them."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import psycopg2
from psycopg2 import sql

from engine.intake.batch import Admitted, admitted_from
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import migrate
from operations.services.postgresql import LocalPostgres
from operations.setup.programmes import activate
from schemas.codec import CommittedSchemas, Encoder
from schemas.partitioning import shard_of
from schemas.writer_schemas import committed_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.store.cursor import Connection
    from schemas.events import Purchase


@contextmanager
def server() -> Iterator[str]:
    """Yield the address of a server, and leave nothing of it behind."""
    home = Path(tempfile.mkdtemp(prefix="guerdon-bench-"))
    home.chmod(0o711)  # PostgreSQL, where root starts it, runs as another user
    postgres = LocalPostgres(home)
    try:
        yield postgres.start().address
    finally:
        postgres.stop()
        postgres.erase()


def fresh(address: str, name: str, programme: str) -> str:
    """Make a database in which a programme is active, and return its address."""
    with closing(psycopg2.connect(address)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            cursor.execute("CHECKPOINT")  # each round begins with the same distance to the next one
    url = f"{address.rpartition('/')[0]}/{name}"
    migrate(url)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "programme.yaml"
        file.write_text(programme, "utf-8")
        activate(url, file)
    return url


class Share(NamedTuple):
    """Name a worker's part of the shards: those whose number has the remainder `number` by `workers`."""

    number: int
    workers: int


def write_share(url: str, share: Share, events: Iterable[Purchase], batch: int) -> tuple[float, float]:
    """Write one worker's share of the load as workers do, straight to PostgreSQL.

    Args:
        url: the address of the database.
        share: the worker's part of the shards.
        events: the whole load.
        batch: events per transaction.

    Returns:
        Wall and CPU seconds of the transactions alone.
    """
    encoder, ids = Encoder(), committed_ids()
    mine: list[Admitted] = []
    for event in events:
        shard = shard_of(event.member_id)
        if shard % share.workers == share.number:
            mine.append(admitted_from(event, shard, ids["Purchase"], encoder.encode(event), b"secret"))

    with closing(LiveTransaction(url, CommittedSchemas().lookup)) as live:
        wall, cpu = time.perf_counter(), time.process_time()
        for first in range(0, len(mine), batch):
            live.commit(Batch(mine[first : first + batch]))
        return time.perf_counter() - wall, time.process_time() - cpu


def postmaster(connection: Connection) -> psutil.Process:
    """Return PostgreSQL's main process: its children do the work of the connections."""
    with connection.cursor() as cursor:
        (pid,) = one(cursor, "SELECT pg_backend_pid()")
    parent = psutil.Process(pid).parent()
    assert parent is not None  # a backend has one
    return parent


def cpu_s(postgres: psutil.Process) -> float:
    """Return the CPU seconds of all of PostgreSQL's processes, with those that have ended."""
    own = postgres.cpu_times()
    spent = float(own.children_user + own.children_system)
    for child in postgres.children():
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            spent += times.user + times.system
    return spent
