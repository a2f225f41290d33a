"""Tell what is wrong with data from what is wrong with PostgreSQL, the machine, or Guerdon's own statements."""

from __future__ import annotations

import psycopg2

from schemas.errors import GuerdonError

DATA_CLASSES = frozenset(("22", "23", "54"))
"""Classes of SQLSTATE that speak of what is written: a value, a constraint, a limit on the length of a row or key."""


def is_data(error: BaseException) -> bool:
    """Return whether `error` is about what is folded, and would come again wherever that is folded.

    psycopg2's own classes do not tell: a key that is too long for its index and a full disk are one to it.
    """
    if isinstance(error, psycopg2.Error):
        return str(error.pgcode or "")[:2] in DATA_CLASSES
    return isinstance(error, Exception) and not isinstance(error, OSError | MemoryError | GuerdonError)
