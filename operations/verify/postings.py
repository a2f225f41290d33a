"""Prove that each movement is one that the ledger knows, and that no movement takes more than its lot has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one
from schemas.rewards import MOVES

if TYPE_CHECKING:
    from engine.store.cursor import Connection, Cursor

_WAYS = [
    f"{unit}.{verb} {debit} {credit}"
    for unit in ("points", "status", "cash")
    for verb, ways in MOVES.items()
    for debit, credit in ways
]


def movements(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check that each movement goes between the accounts of its type, and that no other reward event moves anything.

    A movement takes from one account what it adds to the other, so a member's accounts then sum to zero (I4).
    """
    with connection.cursor() as cursor:
        (looked_at,) = one(
            cursor,
            "SELECT count(*) FROM guerdon.reward_event WHERE generation = %s AND debit IS NOT NULL",
            (generation,),
        )
        cursor.execute(
            """
            SELECT shard, pos, member_id, type::text,
                   coalesce(debit::text, 'nowhere'), coalesce(credit::text, 'nowhere')
            FROM guerdon.reward_event
            WHERE generation = %s AND CASE
                WHEN split_part(type::text, '.', 1) IN ('points', 'status', 'cash')
                THEN concat(type, ' ', debit, ' ', credit) <> ALL(%s)
                ELSE debit IS NOT NULL OR credit IS NOT NULL
            END
            ORDER BY shard, pos LIMIT 1
            """,
            (generation, _WAYS),
        )
        row = cursor.fetchone()
    if row is None:
        return looked_at, None
    shard, pos, member_id, kind, debit, credit = row
    return looked_at, (
        f"reward log, shard {shard}, pos {pos}: {kind} of member {member_id} moves from {debit} to {credit}, which no "
        "movement of its type does"
    )


def lots(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check that no account of a lot is below 0 after any movement, and that items end once (I4, I12).

    Only lots from which something was taken are added up: an untouched lot still has its whole grant.
    """
    with connection.cursor() as cursor:
        (looked_at,) = one(
            cursor,
            """
            SELECT (SELECT count(*) FROM guerdon.reward_event WHERE generation = %(g)s AND debit = 'issued')
                 + (SELECT count(*) FROM guerdon.item_movement WHERE generation = %(g)s AND opens)
            """,
            {"g": generation},
        )
        cursor.execute(
            """
            WITH taken AS MATERIALIZED (
                SELECT shard, pos, member_id, unit, coalesce(lot, reward_key) AS lot, debit::text AS account, amount
                FROM guerdon.reward_event WHERE generation = %(g)s AND debit NOT IN ('issued', 'debt')
            ), change AS (
                SELECT shard, pos, member_id, unit, lot, account, -amount AS amount FROM taken
                UNION ALL
                SELECT shard, pos, member_id, unit, coalesce(lot, reward_key), credit::text, amount
                FROM guerdon.reward_event
                WHERE generation = %(g)s AND credit NOT IN ('issued', 'debt')
                  AND coalesce(lot, reward_key) IN (SELECT lot FROM taken)
                UNION ALL
                SELECT shard, pos, member_id, unit, lot, 'held', CASE WHEN opens THEN amount ELSE -amount END
                FROM guerdon.item_movement WHERE generation = %(g)s AND (opens OR ends)
            )
            SELECT shard, pos, member_id, unit, encode(lot, 'hex'), account, holds FROM (
                SELECT *, sum(amount) OVER (PARTITION BY shard, member_id, unit, lot, account ORDER BY pos) AS holds
                FROM change
            ) AS added_up
            WHERE holds < 0 ORDER BY shard, pos LIMIT 1
            """,
            {"g": generation},
        )
        row = cursor.fetchone()
    if row is None:
        return looked_at, None
    shard, pos, member_id, unit, lot, account, holds = row
    return looked_at, (
        f"reward log, shard {shard}, pos {pos}: lot {lot} of member {member_id}, {unit}, would have {holds} {account}: "
        "more was taken than it has"
    )


_CHANGE = """
    SELECT shard, pos, member_id, unit, credit AS account, amount
    FROM guerdon.reward_event WHERE generation = %(g)s AND credit IS NOT NULL
    UNION ALL
    SELECT shard, pos, member_id, unit, debit, -amount
    FROM guerdon.reward_event WHERE generation = %(g)s AND debit IS NOT NULL
"""


def accounts(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check per member and unit that no account is negative that must not be (I4, I12).

    The sums show accounts that are below 0 at the end. An account that was below 0 on the way has a lot that was, too,
    which `lots` finds.
    """
    with connection.cursor() as cursor:
        looked_at, is_wrong = one(
            cursor,
            f"""
            SELECT count(*), bool_or(holds < 0 AND account NOT IN ('issued', 'debt')) FROM (
                SELECT account, sum(amount) AS holds FROM ({_CHANGE}) change GROUP BY shard, member_id, unit, account
            ) summed
            """,
            {"g": generation},
        )
        return looked_at, _first_below(cursor, generation) if is_wrong else None


def _first_below(cursor: Cursor, generation: int) -> str:
    """Name the first movement after which an account is below 0."""
    shard, pos, member_id, unit, account, holds = one(
        cursor,
        f"""
        SELECT shard, pos, member_id, unit, account::text, holds FROM (
            SELECT *, sum(amount) OVER (PARTITION BY shard, member_id, unit, account ORDER BY pos) AS holds
            FROM ({_CHANGE}) change
        ) added_up
        WHERE holds < 0 AND account NOT IN ('issued', 'debt') ORDER BY shard, pos LIMIT 1
        """,
        {"g": generation},
    )
    return f"reward log, shard {shard}, pos {pos}: member {member_id}, {unit}: account {account} would stand at {holds}"
