"""Tell what a failure says: that the data cannot be written, that PostgreSQL is away, or that Guerdon must be mended.

psycopg2's classes do not tell them apart: a value that is too long for an index (`ProgramLimitExceeded`) and a full
disk (`DiskFull`) are both its `OperationalError`. The SQLSTATE does, by its first two characters.
Source: PostgreSQL documentation, Appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

import psycopg2

from schemas.errors import CannotGoOn, GuerdonError

DATA = frozenset(("22", "23", "54"))
"""Classes that speak of values: data exceptions, constraints, and limits such as how long an index entry may be."""

CONSTRAINT = "23"
"""The class that may be a race: another transaction wrote the same row first."""

PASSING = frozenset(("08", "40", "53", "55", "57", "58"))
"""Classes that end by themselves: the connection, a race, disk or memory, a lock, an operator, the system."""

PASSING_STATES = frozenset(("25006", "25P03"))
"""Of class 25, a state of the transaction: a read-only server (a standby), and a session ended since it idled."""


class StepFailed(Exception):  # noqa: N818  caught where the batch is taken in halves, never shown
    """Say in which step of a transaction the data failed, and with which error."""

    def __init__(self, step: str, error: Exception) -> None:
        super().__init__(f"{step}: {error_line(error)}")
        self.step = step
        self.error = error

    @property
    def may_be_race(self) -> bool:
        """Whether the same transaction, begun anew, may succeed."""
        return isinstance(self.error, psycopg2.Error) and (self.error.pgcode or "").startswith(CONSTRAINT)


def is_data(error: BaseException) -> bool:
    """Whether an error is owed to what was to be written, so that everything else can be written without it.

    All that Python raises counts, from a NUL in a text to a number that no field holds, but for what the system
    refuses, for too little memory, and for what Guerdon itself says in a sentence.
    """
    if isinstance(error, psycopg2.Error):
        return error.pgcode is not None and error.pgcode[:2] in DATA
    return isinstance(error, Exception) and not isinstance(error, OSError | MemoryError | GuerdonError)


def is_judging(error: BaseException) -> bool:
    """Whether judging an event failed by itself, and nothing that it asked PostgreSQL for: that voids a transaction."""
    return is_data(error) and not isinstance(error, psycopg2.Error)


def passes(error: BaseException) -> bool:
    """Whether an error of PostgreSQL ends by itself, or by mending the service: the worker waits for that."""
    if not isinstance(error, psycopg2.Error):
        return False
    if error.pgcode is None:  # no server spoke: the connection is gone, which during a COPY is a bare DatabaseError
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) or (
            type(error) is psycopg2.DatabaseError
        )
    return error.pgcode[:2] in PASSING or error.pgcode in PASSING_STATES


def error_line(error: BaseException) -> str:
    """Return an error's class and words for the quarantine, in one line that PostgreSQL can hold."""
    words = " ".join(str(error).replace("\0", "␀").split())
    return f"{type(error).__name__}: {words}".encode("utf-8", "backslashreplace").decode()


def words_of(error: BaseException) -> str:
    """Return an error's words for the log, on one line, and whose they are where they are PostgreSQL's."""
    words = " ".join(str(error).split()) or type(error).__name__
    return f"PostgreSQL: {words}" if isinstance(error, psycopg2.Error) else words


def cannot_go_on(error: BaseException) -> CannotGoOn:
    """Return the sentence with which a worker ends that neither waiting nor setting events aside would help."""
    if isinstance(error, MemoryError):
        return CannotGoOn(
            "this process has no memory left, so nothing of the batch was written or set aside: give it more, or lower "
            "`max_batch`, then start it again"
        )
    code = f"SQLSTATE {error.pgcode}, " if isinstance(error, psycopg2.Error) and error.pgcode else ""
    return CannotGoOn(
        f"PostgreSQL refuses what the worker does ({code}{error_line(error)}), which is no event's fault, so nothing "
        "was set aside: run `guerdon init` as the owner, or mend the server, then start the worker again"
    )
