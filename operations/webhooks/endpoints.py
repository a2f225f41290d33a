"""Make webhooks, list them, change their secrets, pause them, go on, and send again from a position."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store import webhook_cursors
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import live_generation
from operations.rows import dictionaries
from operations.webhooks import addresses, signing
from schemas.errors import AnswerIsNo, InputError
from schemas.rewards import REWARD_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from engine.store.cursor import Cursor

WEBHOOKS_MAX = 50
OVERLAP = "1 day"
"""For how long a message carries the signature of a replaced secret, too."""


class NewWebhook(NamedTuple):
    """Hold a webhook's id, and its secret, which nobody is shown again."""

    webhook_id: str
    secret: str


def types_of(wanted: Sequence[str]) -> list[str]:
    """Return the types of reward events that are wanted; `points.*` stands for all of one unit.

    Raises:
        InputError: there is no such type.
    """
    types: list[str] = []
    for each in wanted:
        chosen = [name for name in REWARD_TYPES if name == each or (each[-2:] == ".*" and name.startswith(each[:-1]))]
        if not chosen:
            raise InputError(
                f'there is no type of reward events "{each}"; docs/views.md lists them, and `points.*` is all of points'
            )
        types += [name for name in chosen if name not in types]
    return types


def create(
    database_url: str, url: str, types: Sequence[str] = (), *, by: str, allow_private: bool = False
) -> NewWebhook:
    """Make a webhook: it gets what is logged from now on.

    Raises:
        InputError: the URL or a type cannot be used, or there are too many webhooks.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    chosen = types_of(types)
    try:
        addresses.target(url, allow_private=allow_private)
    except OSError as error:
        raise InputError(f"the host of {url} is not known ({error.strerror or error}): mend the URL") from error

    webhook_id, secret = f"wh_{secrets.token_hex(6)}", signing.new_secret()
    with transaction(database_url) as cursor:
        (count,) = one(cursor, "SELECT count(*) FROM guerdon.webhook")
        if count >= WEBHOOKS_MAX:
            raise InputError(f"there are {count} webhooks already, and no more can be made: remove one")
        cursor.execute(
            "INSERT INTO guerdon.webhook (webhook_id, url, types, created_by) VALUES (%s, %s, %s, %s)",
            (webhook_id, url, chosen, by),
        )
        _add_secret(cursor, webhook_id, secret)
        webhook_cursors.begin(cursor, webhook_id, live_generation.live(cursor))
    return NewWebhook(webhook_id, signing.shown(secret))


def rotate(database_url: str, webhook_id: str) -> NewWebhook:
    """Give a webhook a new secret; for a day its messages carry a signature of the old one, too.

    Raises:
        AnswerIsNo: there is no such webhook.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    secret = signing.new_secret()
    with transaction(database_url) as cursor:
        _need(cursor, webhook_id)
        cursor.execute(
            f"""
            UPDATE guerdon.webhook_secret SET expires_at = now() + interval '{OVERLAP}'
            WHERE webhook_id = %s AND expires_at IS NULL
            """,
            (webhook_id,),
        )
        cursor.execute("DELETE FROM guerdon.webhook_secret WHERE webhook_id = %s AND expires_at < now()", (webhook_id,))
        _add_secret(cursor, webhook_id, secret)
    return NewWebhook(webhook_id, signing.shown(secret))


def pause(database_url: str, webhook_id: str, why: str) -> None:
    """Stop sending to a webhook until somebody lets it go on.

    Raises:
        AnswerIsNo: there is no such webhook.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        _need(cursor, webhook_id)
        set_paused(cursor, webhook_id, why)


def set_paused(cursor: Cursor, webhook_id: str, why: str) -> None:
    """Mark a webhook as paused, unless it is already."""
    cursor.execute(
        "UPDATE guerdon.webhook SET paused_at = now(), why = %s WHERE webhook_id = %s AND paused_at IS NULL",
        (why, webhook_id),
    )


def resume(database_url: str, webhook_id: str) -> None:
    """Go on where a webhook was paused: nothing is left out.

    Raises:
        AnswerIsNo: there is no such webhook.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        _need(cursor, webhook_id)
        cursor.execute("UPDATE guerdon.webhook SET paused_at = NULL, why = NULL WHERE webhook_id = %s", (webhook_id,))
        cursor.execute(
            """
            UPDATE guerdon.webhook_cursor SET attempts = 0, failing_since = NULL, next_attempt_at = '-infinity'
            WHERE webhook_id = %s
            """,
            (webhook_id,),
        )


def replay(database_url: str, webhook_id: str, since: datetime) -> int:
    """Send again what was recorded from an instant on, and return how many reward events lie between.

    Raises:
        AnswerIsNo: there is no such webhook.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        _need(cursor, webhook_id)
        generation = live_generation.live(cursor)
        cursor.execute(
            """
            WITH first AS (
                SELECT shard, min(pos) - 1 AS pos FROM guerdon.reward_event
                WHERE generation = %(generation)s AND recorded_at >= %(since)s GROUP BY shard
            ), moved AS (
                UPDATE guerdon.webhook_cursor c
                SET pos = f.pos, attempts = 0, failing_since = NULL, next_attempt_at = '-infinity', lease = NULL
                FROM first f, (SELECT shard, pos AS until FROM guerdon.webhook_cursor WHERE webhook_id = %(webhook)s) b
                WHERE c.webhook_id = %(webhook)s AND c.generation = %(generation)s AND f.shard = c.shard
                  AND b.shard = c.shard AND f.pos < c.pos
                RETURNING b.until - f.pos AS events
            )
            SELECT coalesce(sum(events), 0)::bigint FROM moved
            """,
            {"webhook": webhook_id, "generation": generation, "since": since},
        )
        (events,) = cursor.fetchone() or (0,)
    return int(events)


def remove(database_url: str, webhook_id: str) -> None:
    """Remove a webhook with its secrets and its position.

    Raises:
        AnswerIsNo: there is no such webhook.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        _need(cursor, webhook_id)
        cursor.execute("DELETE FROM guerdon.webhook WHERE webhook_id = %s", (webhook_id,))


def webhooks(cursor: Cursor) -> list[dict[str, Any]]:
    """Return every webhook without its secrets: where it sends, how far it is, and why it waits."""
    return dictionaries(
        cursor,
        f"""
        SELECT w.webhook_id, w.url, w.types, w.created_at, w.created_by, w.paused_at, w.why,
               coalesce(sum(c.delivered), 0)::bigint AS delivered, max(c.delivered_at) AS delivered_at,
               coalesce(sum(greatest(h.pos - c.pos, 0)), 0)::bigint AS behind,
               min(c.failing_since) AS failing_since,
               (array_agg(c.error ORDER BY c.failing_since) FILTER (WHERE c.failing_since IS NOT NULL))[1] AS error
        FROM guerdon.webhook w LEFT JOIN guerdon.webhook_cursor c USING (webhook_id) {webhook_cursors.HEAD_OF_CURSOR}
        GROUP BY w.webhook_id ORDER BY w.created_at, w.webhook_id
        """,
    )


def valid_secrets(cursor: Cursor, webhook_id: str) -> list[bytes]:
    """Return the secrets that sign a webhook's messages, the newest first."""
    cursor.execute(
        """
        SELECT secret FROM guerdon.webhook_secret
        WHERE webhook_id = %s AND (expires_at IS NULL OR expires_at > now()) ORDER BY created_at DESC
        """,
        (webhook_id,),
    )
    return [bytes(secret) for (secret,) in cursor.fetchall()]


def _add_secret(cursor: Cursor, webhook_id: str, secret: bytes) -> None:
    cursor.execute("INSERT INTO guerdon.webhook_secret (webhook_id, secret) VALUES (%s, %s)", (webhook_id, secret))


def _need(cursor: Cursor, webhook_id: str) -> None:
    cursor.execute("SELECT FROM guerdon.webhook WHERE webhook_id = %s FOR UPDATE", (webhook_id,))
    if cursor.fetchone() is None:
        raise AnswerIsNo(f'there is no webhook "{webhook_id}"; `guerdon webhook list` names all')
