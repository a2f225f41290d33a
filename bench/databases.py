"""Start a PostgreSQL of a bench's own, and make databases in it."""

from __future__ import annotations

import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from engine.store.database import migrate
from operations.programmes import activate
from operations.services.postgresql import LocalPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def server() -> Iterator[str]:
    """Give the address of a server, and leave nothing of it behind."""
    home = Path(tempfile.mkdtemp(prefix="guerdon-bench-"))
    home.chmod(0o711)  # PostgreSQL, where root starts it, runs as another user
    made = LocalPostgres(home)
    try:
        yield made.start().address
    finally:
        made.stop()
        made.erase()


def fresh(address: str, name: str, programme: str) -> str:
    """Return the address of a new database of a server, in which a programme is active."""
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
