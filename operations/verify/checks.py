"""Prove that the logs are whole and the balances are their sum; name the first position where they are not."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from psycopg2.errors import ReadOnlySqlTransaction

from engine.store.database import NO_LIMIT, connect, transaction
from engine.store.generations import live_generation, meanings
from engine.store.workers import note_verified
from operations.verify import chains, consumed, folds, identities, postings, references

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.cursor import Connection

WORK_MEM = "128MB"
"""How much memory a check may take before it sorts and joins on disk."""


@dataclass(frozen=True)
class Finding:
    """Hold the result of one check: how many rows were looked at, and the first problem, if any."""

    check: str
    looked_at: int
    problem: str | None


def verify(
    database_url: str, generation: int | None = None, progress: Callable[[str], None] = lambda _check: None
) -> list[dict[str, Any]]:
    """Check the logs and views of `generation` (the live one by default) as of one instant.

    A generation that is behind, a shadow or one that was live, is checked up to its own end.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
        InputError: there is no such generation.
    """
    with closing(connect(database_url, application="guerdon verify", statement_max=NO_LIMIT)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('work_mem', %s, false)", (WORK_MEM,))
            number = live_generation.live(cursor) if generation is None else generation
            live_generation.check_exists(cursor, number)
        findings = []
        for name, check in CHECKS.items():
            progress(name)
            findings.append(asdict(Finding(name, *check(connection, number))))
    if not any(finding["problem"] for finding in findings):
        _note_success(database_url, number)
    return findings


def meaning_of(database_url: str, generation: int | None) -> tuple[int, int]:
    """Return the number of a generation (the live one by default), and the meaning that it was begun with."""
    with transaction(database_url) as cursor:
        return meanings.live(cursor) if generation is None else (generation, meanings.of(cursor, generation))


def _note_success(database_url: str, generation: int) -> None:
    """Record when no problem was found, so that an operator sees how long ago that was; a standby records nothing."""
    with suppress(ReadOnlySqlTransaction), transaction(database_url) as cursor:
        note_verified(cursor, generation)


CHECKS: dict[str, Callable[[Connection, int], tuple[int, str | None]]] = {
    "source log: gapless, hashes recompute": chains.source_chain,
    "reward log: gapless, hashes recompute": chains.reward_chain,
    "audit: gapless, hashes recompute": chains.audit_chain,
    "offsets: each is accepted, duplicate, quarantined or passed": consumed.offsets,
    "identities: events, orders and rewards have one each": identities.unique,
    "references: facts and what is forwarded name events that there are": references.references,
    "movements: each goes from and to the accounts of its type": postings.movements,
    "lots: no movement takes more than its lot has": postings.lots,
    "postings: no account is negative": postings.accounts,
    "balances: the equations hold for every member and unit": folds.balances,
    "projections: each is the fold of its log": folds.projected,
    "facts: each is what its source event says": folds.facts,
    "set aside: what projections lack is in the log": folds.set_aside,
}
"""Every check by the promise that it proves, in the order in which they are made."""
