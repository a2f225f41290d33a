"""Know the revision of the tables that this release works with, and refuse a database at another revision."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from schemas.errors import InputError

VERSIONS = Path(__file__).parent / "migrations" / "versions"


@cache
def newest() -> str:
    """Return the newest revision of this release, from the names of its migrations: `v0013_backfill.py`."""
    return max(path.name[1:5] for path in VERSIONS.glob("v[0-9][0-9][0-9][0-9]_*.py"))


def refuse_other(present: str | None) -> None:
    """Refuse a database by its revision.

    Raises:
        InputError: it is older or newer than this release.
    """
    if present == newest():
        return
    if present is None or (present.isdecimal() and int(present) < int(newest())):
        raise InputError(
            f"the database is at revision {present or 'none'} and this release works with {newest()}: end the workers "
            "of the earlier release and run `guerdon init`"
        )
    raise InputError(
        f"the database is at revision {present}, which is newer than this release ({newest()}): use the release that "
        "migrated it"
    )
