"""Sort failures: the data cannot be written, PostgreSQL is away, or Guerdon must be mended.

psycopg2's classes do not separate them: a value that is too long for an index (`ProgramLimitExceeded`) and a full disk
(`DiskFull`) are both its `OperationalError`. The first two characters of the SQLSTATE do.
Source: PostgreSQL documentation, Appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

import psycopg2

from schemas.errors import CannotGoOn, GuerdonError

DATA = frozenset(("22", "23", "54"))
"""Classes of faults in values: data exceptions, constraints, and limits such as the length of an index entry."""

CONSTRAINT = "23"
"""The class that may also be a race: another transaction wrote the same row first."""

PASSING = frozenset(("08", "40", "53", "55", "57", "58"))
"""Classes that end by themselves: the connection, a race, disk or memory, a lock, an operator, the system."""

PASSING_STATES = frozenset(("25006", "25P03"))
"""Of class 25, a state of the transaction: a read-only server (a standby), and a session ended since it idled."""


class StepFailed(Exception):  # caught where the batch is taken in halves, never shown
    """Say which step of a transaction failed by its data, and with which error."""

    def __init__(self, step: str, error: Exception) -> None:
        super().__init__(f"{step}: {error_line(error)}")
        self.step = step
        self.error = error

    @property
    def may_be_race(self) -> bool:
        """Whether a second attempt at the same transaction may succeed."""
        return isinstance(self.error, psycopg2.Error) and (self.error.pgcode or "").startswith(CONSTRAINT)


def is_data(error: BaseException) -> bool:
    """Whether an error is the fault of the data, so that everything else can be written without it.

    All errors of Python count, from a NUL in a text to a number that no field holds, except refusals of the operating
    system, too little memory, and Guerdon's own sentences.
    """
    if isinstance(error, psycopg2.Error):
        return error.pgcode is not None and error.pgcode[:2] in DATA
    return isinstance(error, Exception) and not isinstance(error, OSError | MemoryError | GuerdonError)


def is_judging(error: BaseException) -> bool:
    """Whether judging an event failed by itself, and not by a question to PostgreSQL, which voids the transaction."""
    return is_data(error) and not isinstance(error, psycopg2.Error)


def passes(error: BaseException) -> bool:
    """Whether an error of PostgreSQL ends by itself or when the service is mended, so that the worker waits."""
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
    """Return an error's words for the log, on one line; PostgreSQL's own begin with its name."""
    words = " ".join(str(error).split()) or type(error).__name__
    return f"PostgreSQL: {words}" if isinstance(error, psycopg2.Error) else words


def cannot_go_on(error: BaseException) -> CannotGoOn:
    """Return the error with which a worker ends when neither waiting nor setting events aside helps."""
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
