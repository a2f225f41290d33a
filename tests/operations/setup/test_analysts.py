"""`guerdon analyst`: logins that read the views and nothing else, made, renewed, listed and dropped."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import encrypt_password, parse_dsn
from typer.testing import CliRunner

from cli.main import app
from engine.store.database import migrate
from operations import analysts
from operations.export.run import export
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.liability.close import closed_months
from operations.services.postgresql import LocalPostgres
from operations.settings import Settings, load_settings
from schemas.errors import InputError
from tests.engine.store.session.test_encoding import administer
from tests.services import clusters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.store.cursor import Cursor

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("roles")]


@pytest.fixture(scope="module")
def owner_url() -> Iterator[str]:
    """Return the URL of a database's owner who may make roles and is no superuser, on a server of its own."""
    with clusters.folder() as home:
        service = LocalPostgres(home)
        try:
            admin_url = service.start().address
            administer(admin_url, "CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'x'")
            administer(admin_url, "CREATE DATABASE shop OWNER boss")
            url = f"postgresql://boss:x@{urlsplit(admin_url).hostname}:{urlsplit(admin_url).port}/shop"
            migrate(url)
            yield url
        finally:
            service.kill()


@pytest.fixture
def settings(owner_url: str, tmp_path: Path) -> Settings:
    return load_settings(database_url=owner_url, home=tmp_path)


@contextmanager
def session(url: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        yield cursor


def test_a_login_reads_the_views_by_their_names_and_nothing_else(settings: Settings) -> None:
    login = analysts.create(settings, "ann")
    with session(login.url) as cursor:
        cursor.execute("SELECT count(*) FROM member_balance")
        assert cursor.fetchone() == (0,)
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == (analysts.SETTINGS["statement_timeout"],)
    for statement, refusal in (
        ("SELECT * FROM guerdon.member_state", errors.InsufficientPrivilege),
        ("SELECT * FROM guerdon.pseudonym", errors.InsufficientPrivilege),
        ("SELECT guerdon.member_shown_as('x')", errors.InsufficientPrivilege),
        ("CREATE TABLE reward.mine (n int)", errors.ReadOnlySqlTransaction),
        ("SET default_transaction_read_only = off; COMMIT; CREATE TABLE reward.mine (n int)",
         errors.InsufficientPrivilege),
        ("SET ROLE guerdon_writer", errors.InsufficientPrivilege),
        ("CREATE ROLE another", (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)),
    ):  # fmt: skip
        with session(login.url) as cursor, pytest.raises(refusal):
            cursor.execute(statement)


def test_commands_that_act_as_the_writer_say_who_may_run_them(settings: Settings, tmp_path: Path) -> None:
    login = analysts.create(settings, "cid")
    refused = '"cid" is an analyst, .* let who runs Guerdon run it'
    with pytest.raises(InputError, match=refused):
        report(login.url, "engagement", Asked())
    with pytest.raises(InputError, match=refused):
        export(login.url, tmp_path / "export")
    with pytest.raises(InputError, match=refused):
        closed_months(login.url)


def test_no_more_sessions_than_the_limit(settings: Settings) -> None:
    login = analysts.create(settings, "busy")
    held = [psycopg2.connect(login.url) for _ in range(analysts.CONNECTIONS_MAX)]
    with pytest.raises(psycopg2.OperationalError, match="too many connections"):
        psycopg2.connect(login.url)
    for each in held:
        each.close()


def test_the_server_is_sent_a_verifier_and_never_the_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysts, "encrypt_password", lambda _, *rest: encrypt_password("of the verifier", *rest))
    login = analysts.create(settings, "quiet")
    password = str(parse_dsn(login.url)["password"])
    assert len(password) >= 32
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(login.url)
    with session(login.url.replace(password, "of%20the%20verifier")) as cursor:
        cursor.execute("SELECT 1")


def test_a_new_password_makes_the_old_one_worthless(settings: Settings) -> None:
    old = analysts.create(settings, "eve")
    new = analysts.renew(settings, "eve")
    with session(new.url) as cursor:
        cursor.execute("SELECT 1")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(old.url)


def test_a_dropped_login_loses_its_sessions_and_comes_in_no_more(settings: Settings) -> None:
    login = analysts.create(settings, "gone")
    with closing(psycopg2.connect(login.url)) as connection:
        assert analysts.drop(settings, "gone") == 1
        with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(login.url)
    assert "gone" not in [row["name"] for row in analysts.analysts(settings)]


def test_the_list_has_analysts_with_who_made_them_and_neither_the_owner_nor_workers(
    settings: Settings, owner_url: str
) -> None:
    administer(owner_url, "CREATE ROLE worker LOGIN IN ROLE guerdon_writer, guerdon_analyst")
    administer(owner_url, "CREATE ROLE by_hand LOGIN IN ROLE guerdon_analyst")
    analysts.create(settings, "listed")
    rows = {row["name"]: row for row in analysts.analysts(settings)}
    assert not {"boss", "worker"} & rows.keys()
    assert rows["by_hand"]["note"] is None
    assert rows["listed"]["note"].startswith("made by boss on ")
    assert (rows["listed"]["sessions"], rows["listed"]["sessions_max"]) == (0, analysts.CONNECTIONS_MAX)
    for name in ("worker", "boss", "nobody"):
        with pytest.raises(InputError, match=f'there is no analyst "{name}"'):
            analysts.drop(settings, name)


def test_a_name_that_is_taken_is_a_sentence(settings: Settings) -> None:
    analysts.create(settings, "twice")
    with pytest.raises(InputError, match="the server has a role twice already; take another name"):
        analysts.create(settings, "twice")


@pytest.mark.parametrize("name", ["", "Ann", "ann lee", "ann-lee", "1st", 'a"b', "a;b", "é", "pg_x", "public", "none",
                                  "guerdon_x", "a" * 64])  # fmt: skip
def test_a_name_with_odd_letters_is_a_sentence(name: str, settings: Settings) -> None:
    with pytest.raises(InputError, match="cannot be the name of an analyst: take small letters"):
        analysts.create(settings, name)


@pytest.mark.parametrize("name", ["user", "select", "a" * 63])
def test_a_word_of_sql_is_a_name_like_any_other(name: str, settings: Settings) -> None:
    with session(analysts.create(settings, name).url) as cursor:
        cursor.execute("SELECT session_user")
        assert cursor.fetchone() == (name,)
    analysts.drop(settings, name)


def test_who_may_not_make_roles_is_told_what_a_superuser_must_run(owner_url: str, tmp_path: Path) -> None:
    administer(owner_url, "CREATE ROLE plain LOGIN PASSWORD 'x'")
    administer(owner_url, "GRANT guerdon_writer, guerdon_analyst TO plain")
    plain = load_settings(database_url=owner_url.replace("boss:", "plain:"), home=tmp_path)
    with pytest.raises(InputError, match=r'the user "plain" may not do that .* run `ALTER ROLE "plain" CREATEROLE;'):
        analysts.create(plain, "fred")


def test_the_url_leads_where_the_operators_own_does_without_what_is_theirs(owner_url: str, tmp_path: Path) -> None:
    own = urlsplit(owner_url)
    query = "sslmode=prefer&application_name=mine&target_session_attrs=read-write"
    url = urlunsplit(own._replace(netloc=f"boss:x@127.0.0.1:1,{own.hostname}:{own.port}", query=query))
    login = analysts.create(load_settings(database_url=url, home=tmp_path), "far")
    made = parse_dsn(login.url)
    assert (made["user"], made["dbname"], made["host"], made["port"]) == (
        "far", "shop", f"127.0.0.1,{own.hostname}", f"1,{own.port}",
    )  # fmt: skip
    assert made["sslmode"] == "prefer"
    assert not {"application_name", "target_session_attrs"} & made.keys()
    with session(login.url) as cursor:
        cursor.execute("SELECT 1")


def test_the_command_prints_the_url_once(owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", owner_url)
    made = CliRunner().invoke(app, ["analyst", "create", "shown"])
    assert made.exit_code == 0
    (url,) = [line for line in made.stdout.splitlines() if line.startswith("postgresql://")]
    with session(url) as cursor:
        cursor.execute("SELECT 1")
    listed = CliRunner().invoke(app, ["analyst", "list"]).stdout
    assert "shown" in listed
    assert str(parse_dsn(url)["password"]) not in listed
    assert "can read nothing any more" in CliRunner().invoke(app, ["analyst", "drop", "shown"]).stdout
