"""Tell an end that a time limit of PostgreSQL's has put to a statement or a session from other failures."""

from __future__ import annotations

_LIMITS = {
    "57014": "statement_timeout",
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
}


def limit_of(error: BaseException) -> str | None:
    """Return the name of the limit that `error` tells of; None where it tells of something else.

    It is known by its SQLSTATE: the words are in the server's language.
    """
    return _LIMITS.get(getattr(error, "pgcode", None) or "")
