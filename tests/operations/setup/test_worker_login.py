"""The login that docker-compose.yml makes for its workers: its very command, run by hand."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import yaml
from psycopg2.extensions import parse_dsn

from engine.store.database import connect
from operations.services.postgresql import binaries
from tests.places import ROOT

LOGIN = "guerdon_worker"
PASSWORD = "it's $HOME; \"a\" \\ 'b'"  # noqa: S105  a test's own, with all that a shell, SQL or a URL might take amiss


def make_login(database_url: str, password: str) -> None:
    """Run the command of the container `login`, as Compose would: what it writes as `$$` is one."""
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["login"]
    named = parse_dsn(database_url)
    environment = {
        "PATH": f"{binaries()}:{os.environ['PATH']}",
        "PGHOST": named["host"],
        "PGPORT": named["port"],
        "PGUSER": named["user"],
        "PGPASSWORD": named["password"],
        "PGDATABASE": named["dbname"],
        "PGOPTIONS": service["environment"]["PGOPTIONS"],
        "GUERDON_WORKER_PASSWORD": password,
    }
    command = [word.replace("$$", "$") for word in service["command"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.postgres
def test_the_worker_acts_as_the_writer_owns_nothing_and_may_be_given_another_password(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = parse_dsn(database_url)
    worker_url = f"postgresql://{LOGIN}@{named['host']}:{named['port']}/{named['dbname']}"
    try:
        for password in (PASSWORD, "another"):
            make_login(database_url, password)
            monkeypatch.setenv("PGPASSWORD", password)
            with closing(connect(worker_url)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT session_user, current_user")
                assert cursor.fetchone() == (LOGIN, "guerdon_writer")
                owners = (LOGIN, "guerdon_writer")
                cursor.execute("SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) IN %s", (owners,))
                assert cursor.fetchone() == (0,)
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute("DELETE FROM guerdon.source_event")
    finally:  # roles belong to the server, which other tests share
        with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(f"DROP ROLE {LOGIN}")
