"""An owner without superuser gets along, with the roles that there are; what is missing is named as a GRANT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
import pytest

from engine.store.database import connect, migrate, transaction
from engine.store.revision import newest
from engine.store.roles import ROLES
from operations.services.postgresql import LocalPostgres
from schemas.errors import InputError
from tests.engine.store.session.test_encoding import administer
from tests.services import clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("roles")]


class Server:
    """Hold a server on which nobody has made Guerdon's roles yet."""

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url

    def run(self, *statements: str) -> None:
        for statement in statements:
            administer(self.admin_url, statement)

    def owner(self, name: str, rights: str = "") -> str:
        """Make a login and a database of its own, and return the URL of the one in the other."""
        self.run(f"CREATE ROLE {name} LOGIN PASSWORD 'x' {rights}", f"CREATE DATABASE of_{name} OWNER {name}")
        return f"postgresql://{name}:x@{self.admin_url.split('@')[1].rsplit('/', 1)[0]}/of_{name}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with clusters.folder() as home:
        service = LocalPostgres(home)
        try:
            yield Server(service.start().address)
        finally:
            service.kill()


@pytest.fixture(scope="module")
def migrated(server: Server) -> str:
    """Return the URL of a database that its owner has initialised, on a server with a guest beside."""
    url = server.owner("boss", "CREATEROLE")
    for role in ROLES:  # whichever test was first
        server.run(f"DO 'BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END'")
    server.run("GRANT guerdon_writer, guerdon_analyst TO boss", "CREATE ROLE guest LOGIN PASSWORD 'x'")
    server.run("GRANT guerdon_writer, guerdon_analyst TO guest")
    migrate(url)
    return url


def works(url: str) -> None:
    migrate(url)
    migrate(url)
    with transaction(url) as cursor:
        cursor.execute("SELECT current_user, session_user <> current_user, count(*) FROM guerdon.shard_head")
        assert cursor.fetchall() == [("guerdon_writer", True, 64)]


def follow(server: Server, url: str) -> None:
    """Run `init`, let a superuser run what its sentence names, and run it again."""
    with pytest.raises(InputError, match="let who may, such as a superuser, run `") as refused:
        migrate(url)
    statements = str(refused.value).split("`")[1]
    server.run(*filter(None, statements.split(";")))
    works(url)


def test_owners_of_every_right_get_along_on_one_server(server: Server) -> None:
    follow(server, server.owner("first"))  # a DBA has to make the roles, and the sentence says how
    server.run("DROP DATABASE of_first", "DROP ROLE guerdon_writer, guerdon_analyst")
    works(server.owner("managed", "CREATEROLE"))  # a fresh server: 16 and later give the maker no right to act as it
    follow(server, server.owner("second", "CREATEROLE"))  # the roles are there, and they are the first one's
    follow(server, server.owner("plain"))
    beforehand = server.owner("granted")
    server.run("GRANT guerdon_writer, guerdon_analyst TO granted WITH INHERIT FALSE, SET TRUE")
    works(beforehand)
    by_admin_alone = server.owner("administers")
    server.run("GRANT guerdon_writer, guerdon_analyst TO administers WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    works(by_admin_alone)


def test_who_may_not_make_schemas_is_told_the_grant(server: Server, migrated: str) -> None:
    shared = migrated.replace("boss:", "guest:").replace("of_boss", "shared")
    server.run("CREATE DATABASE shared OWNER boss")
    with pytest.raises(
        InputError, match=r'may not make schemas .* run `GRANT CREATE ON DATABASE "shared" TO "guest"`'
    ) as error:
        migrate(shared)
    server.run(str(error.value).split("`")[1])
    works(shared)


def test_a_grant_that_is_missing_at_connect_is_named(server: Server, migrated: str) -> None:
    server.run("CREATE ROLE worker LOGIN PASSWORD 'x'")
    url = migrated.replace("boss:", "worker:")
    with pytest.raises(
        InputError, match=r'"worker" may not act as guerdon_writer; .* run `GRANT guerdon_writer TO'
    ) as error:
        connect(url)
    server.run(str(error.value).split("`")[1])
    connect(url).close()
    server.run("ALTER ROLE guerdon_analyst RENAME TO gone")
    with pytest.raises(
        InputError, match=r"this server has no role guerdon_analyst, .* run `CREATE ROLE guerdon_analyst"
    ):
        connect(url, role="guerdon_analyst")
    server.run("ALTER ROLE gone RENAME TO guerdon_analyst")


def test_another_owners_tables_are_a_sentence(migrated: str) -> None:
    administer(migrated, "UPDATE guerdon.alembic_version SET version_num = '0012'")
    with pytest.raises(InputError, match="run `guerdon init` as the owner of the database and of Guerdon's tables"):
        migrate(migrated.replace("boss:", "guest:"))
    administer(migrated, f"UPDATE guerdon.alembic_version SET version_num = '{newest()}'")


def test_init_takes_a_url_with_two_hosts(server: Server, migrated: str) -> None:
    place = server.admin_url.split("@")[1].split("/")[0]
    url = migrated.replace(f"@{place}", f"@127.0.0.1:1,{place}")
    works(url)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):  # and it is not more than it should be
        administer(url, "CREATE ROLE another SUPERUSER")
