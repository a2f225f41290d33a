"""Say how psql, PostgreSQL's own shell, is begun as an analyst: by which command line, in which environment."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from psycopg2.extensions import make_dsn, parse_dsn

from engine.store.database import ANALYST, transaction
from operations.services.postgresql import binaries
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operations.settings import Settings

Begun = tuple[list[str], dict[str, str]]


def shell(settings: Settings, words: Sequence[str]) -> Begun:
    """Return the command line and the environment of a psql that reads the views and writes nothing.

    Args:
        settings: name the database.
        words: what the person gave, handed on as it is; see `psql --help`.

    Raises:
        InputError: psql is not on this machine, or there are no views yet, or the user may not act as an analyst.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(settings.database_url, role=ANALYST):
        pass  # says in a sentence what psql would say in its own way
    named = parse_dsn(settings.database_url)
    password = named.pop("password", None)
    options = f"{named.pop('options', '')} -c role={ANALYST} -c search_path=reward -c default_transaction_read_only=on"
    environment = {**os.environ, "PGOPTIONS": options.strip()}
    if password is not None:  # not among the words, which every user of the machine can read
        environment["PGPASSWORD"] = password
    return [_program(), "--dbname", make_dsn(**named), *words], environment


def _program() -> str:
    """Return the path of psql: the machine's own, or else the one that comes with the local server."""
    found = shutil.which("psql")
    if found is not None:
        return found
    try:
        return str(binaries() / "psql")
    except ServiceUnreachable:
        raise InputError(
            "psql is not on this machine: install it (on Debian and Ubuntu the package postgresql-client), or read the "
            "views with any other tool that speaks SQL"
        ) from None
