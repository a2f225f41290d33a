"""Give a PostgreSQL server a streaming standby, cut it off, and let it take the primary's place."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg2

from operations.services import postgresql, processes
from operations.services.postgresql import LocalPostgres
from tests.system.workers import eventually

if TYPE_CHECKING:
    from pathlib import Path


def make_standby(primary: LocalPostgres, home: Path) -> LocalPostgres:
    """Copy a running server and start the copy as its standby."""
    standby = LocalPostgres(home)
    standby.folder.mkdir(parents=True)
    user = postgresql._unprivileged_user() if processes.is_root() else None  # noqa: SLF001  as the server itself does
    shutil.copy(primary.folder / "password", standby.folder / "password")
    if user is not None:
        shutil.chown(standby.folder, user)
        shutil.chown(standby.folder / "password", user)
    program = postgresql.binaries() / "pg_basebackup"
    command: list[str | Path] = [
        program,
        "-D",
        standby.folder / "data",
        "-R",
        "-X",
        "stream",
        "-c",
        "fast",
        "-d",
        primary.address,
    ]
    subprocess.run(command, check=True, cwd=standby.folder, **processes.run_as(user))
    standby.start()
    return standby


def wait_for(primary: LocalPostgres, standby: LocalPostgres) -> None:
    """Wait until the standby has all that the primary has written."""
    (at,) = ask(primary, "SELECT pg_current_wal_flush_lsn()")
    eventually(
        lambda: ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{at}'") == (True,),
        "the standby at the primary's end",
    )


def cut(standby: LocalPostgres) -> None:
    """Let the standby get nothing more, as a network that fails does."""
    ask(standby, "ALTER SYSTEM SET primary_conninfo = ''")
    ask(standby, "SELECT pg_reload_conf()")
    eventually(lambda: ask(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == (0,), "the end of streaming")


def promote(standby: LocalPostgres) -> None:
    """Let the standby take writes."""
    assert ask(standby, "SELECT pg_promote(true, 60)") == (True,)


def url_of_both(primary: LocalPostgres, standby: LocalPostgres) -> str:
    """Return a URL that finds whichever of the two takes writes."""
    first, second = urlsplit(primary.address), urlsplit(standby.address)
    hosts = f"{first.hostname}:{first.port},{second.hostname}:{second.port}"
    return f"postgresql://{first.username}:{first.password}@{hosts}{first.path}?target_session_attrs=read-write"


def ask(server: LocalPostgres, query: str) -> tuple[object, ...]:
    """Return the first row of a query on one server, or nothing where it has none."""
    connection = psycopg2.connect(server.address, connect_timeout=5)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return (cursor.fetchone() or ()) if cursor.description else ()
    finally:
        connection.close()


def dump(address: str, file: Path) -> None:
    """Write a dump of a database."""
    _run("pg_dump", "--format=custom", f"--dbname={address}", f"--file={file}")


def restore(address: str, file: Path) -> None:
    """Bring a dump into an empty database."""
    _run("pg_restore", "--exit-on-error", f"--dbname={address}", str(file))


def _run(program: str, *words: str) -> None:
    path = postgresql.binaries() / program  # the server's own, of its version
    subprocess.run([path, *words], check=True, env=os.environ | {"PGCONNECT_TIMEOUT": "10"})
