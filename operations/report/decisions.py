"""Check the words of who decides by a report, and find the instant that parts what is known from what comes later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.store.cursor import one
from engine.store.generations import live_generation
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from datetime import datetime

    from engine.store.cursor import Cursor

ACTOR_CHARACTERS_MAX = 200
REASON_CHARACTERS_MAX = 500
WAIT_S_MAX = 5.0
"""How long a decision waits for PostgreSQL's clock to pass the last instant in the log."""


def check_words(*, actor: str, reason: str) -> None:
    """Refuse an actor or a reason that nobody could read later.

    Raises:
        InputError: one of them is empty, longer than a line, or has characters that cannot be printed.
    """
    for name, words, most in (("--actor", actor, ACTOR_CHARACTERS_MAX), ("--why", reason, REASON_CHARACTERS_MAX)):
        if not words.strip():
            raise InputError(f"{name} is empty: who asks later wants to know")
        if len(words) > most or not words.isprintable():
            raise InputError(f"{name}: write one line of at most {most} characters")


def instant_of_decision(cursor: Cursor) -> datetime:
    """Return an instant after all that was recorded so far and before all that will be.

    Evaluation is held still: whoever records later takes the time after this transaction. The instant is a whole
    millisecond, as those of the log are, and is over before anybody goes on.

    Raises:
        AnswerIsNo: PostgreSQL's clock is far behind the log, or the database is a restored archive.
    """
    live_generation.hold_evaluation(cursor)
    live_generation.writable(cursor)
    closed_at: datetime
    closed_at, wait_s = one(
        cursor,
        """
        SELECT closed_at, extract(epoch FROM closed_at - clock_timestamp())::double precision FROM (
            SELECT greatest(date_trunc('milliseconds', clock_timestamp()), max(recorded_at)) + interval '1 ms'
            FROM guerdon.shard_head
        ) h (closed_at)
        """,
    )
    if wait_s > WAIT_S_MAX:
        raise AnswerIsNo(f"PostgreSQL's clock is {wait_s:.0f} s behind the log; mend it, then decide")
    time.sleep(max(0.0, wait_s))
    while one(cursor, "SELECT clock_timestamp() < %s", (closed_at,)) == (True,):
        time.sleep(0.001)
    return closed_at
