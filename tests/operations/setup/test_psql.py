"""`guerdon psql`: PostgreSQL's shell on the views, as somebody who reads and cannot write."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from psycopg2.extensions import parse_dsn

from operations import psql
from operations.services.postgresql import binaries
from operations.settings import load_settings
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from pathlib import Path


def run_psql(database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
    line, environment = psql.shell(load_settings(database_url=database_url), ["--no-psqlrc", *words])
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.postgres
def test_views_need_no_prefix_and_the_role_is_the_analysts(database_url: str) -> None:
    asked = run_psql(database_url, "--csv", "--command", "SELECT count(*), current_user FROM member_balance")
    assert (asked.returncode, asked.stdout) == (0, "count,current_user\n0,guerdon_analyst\n")


@pytest.mark.postgres
@pytest.mark.parametrize("statement", ["CREATE TEMPORARY TABLE mine (n int)", "SELECT * FROM guerdon.member_state"])
def test_nothing_is_written_and_no_table_is_read(statement: str, database_url: str) -> None:
    asked = run_psql(database_url, "--command", statement)
    assert asked.returncode != 0
    assert "read-only transaction" in asked.stderr or "permission denied" in asked.stderr


@pytest.mark.postgres
def test_the_password_is_in_the_environment_and_not_among_the_words(database_url: str) -> None:
    password = parse_dsn(database_url)["password"]
    line, environment = psql.shell(load_settings(database_url=database_url), [])
    assert environment["PGPASSWORD"] == password
    assert not any(password in word for word in line)


@pytest.mark.postgres
def test_where_the_machine_has_none_the_local_servers_own_is_taken_or_it_is_said_what_to_install(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(database_url=database_url)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert psql.shell(settings, [])[0][0] == str(binaries() / "psql")

    def none() -> Path:
        raise ServiceUnreachable("PostgreSQL's programs are missing")

    monkeypatch.setattr(psql, "binaries", none)
    with pytest.raises(InputError, match="psql is not on this machine: install it"):
        psql.shell(settings, [])
