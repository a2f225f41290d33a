"""Prepare psql, PostgreSQL's own shell, for an analyst: its command line and its environment."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from psycopg2.extensions import make_dsn, parse_dsn

from engine.store.database import ANALYST, transaction
from operations.services.postgresql import binaries
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operations.settings import Settings


class Program(NamedTuple):
    """Hold a program's command line, and the environment to run it in."""

    line: list[str]
    environment: dict[str, str]


def shell(settings: Settings, words: Sequence[str]) -> Program:
    """Return a psql that reads the views and writes nothing.

    Args:
        settings: name the database.
        words: the person's own arguments, passed to psql as they are; see `psql --help`.

    Raises:
        InputError: psql is not on this machine, or there are no views yet, or the user may not act as an analyst.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    # connect once, as our errors are clearer than psql's
    with transaction(settings.database_url, role=ANALYST):
        pass

    # the password goes into the environment: every user of the machine can read a command line
    parameters = parse_dsn(settings.database_url)
    password = parameters.pop("password", None)
    role = f"-c role={ANALYST} -c search_path=reward -c default_transaction_read_only=on"
    options = f"{parameters.pop('options', '')} {role}"
    environment = {**os.environ, "PGOPTIONS": options.strip()}
    if password is not None:
        environment["PGPASSWORD"] = password
    return Program([_psql(), "--dbname", make_dsn(**parameters), *words], environment)


def _psql() -> str:
    """Return the path of psql: the machine's own, else the one that comes with the local server."""
    installed = shutil.which("psql")
    if installed is not None:
        return installed
    try:
        return str(binaries() / "psql")
    except ServiceUnreachable:
        raise InputError(
            "psql is not on this machine: install it (on Debian and Ubuntu the package postgresql-client), or read the "
            "views with any other tool that speaks SQL"
        ) from None
