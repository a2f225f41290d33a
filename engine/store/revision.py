"""Know the revision of the tables that this release works with, and refuse a database that is at another."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from schemas.errors import InputError

VERSIONS = Path(__file__).parent / "migrations" / "versions"


@cache
def newest() -> str:
    """Return the newest revision that this release brings, by the names of its files: `v0013_backfill.py`."""
    return max(path.name[1:5] for path in VERSIONS.glob("v[0-9][0-9][0-9][0-9]_*.py"))


def refuse_other(found: str | None) -> None:
    """Refuse a database by its revision.

    Raises:
        InputError: it is older or newer than this release.
    """
    if found == newest():
        return
    if found is None or (found.isdecimal() and int(found) < int(newest())):
        raise InputError(
            f"the database is at revision {found or 'none'} and this release works with {newest()}: end the workers "
            "of the earlier release and run `guerdon init`"
        )
    raise InputError(
        f"the database is at revision {found}, which is newer than this release ({newest()}): use the release that "
        "migrated it"
    )
