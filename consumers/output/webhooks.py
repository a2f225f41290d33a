"""Send reward events to webhooks over HTTP: signed, in the order of each shard, at least once.

Any number of processes may do it at once: a shard of a webhook is lent to one thread at a time, and its position stands
in PostgreSQL. A refused message is sent again after growing pauses; the events behind it in its shard wait.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from engine.store import webhook_cursors
from engine.store.cursor import one
from engine.store.database import INFRASTRUCTURE, RETRYABLE, connect
from engine.store.session.failures import words_of
from engine.store.webhook_cursors import Progress
from operations.rows import dictionaries
from operations.webhooks import endpoints
from operations.webhooks.sending import ANSWER_WITHIN_S, Endpoint, Message
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.cursor import Connection, Cursor
    from engine.store.webhook_cursors import Lease
    from operations.settings import Settings

log = structlog.get_logger()

THREADS = 4
IDLE_S = 0.5
EVENTS_A_LEASE = 100
SEND_FOR_S = 15.0
"""How long one lease is used; with the last answer it stays within `webhook_cursors.LEASE_S`."""

PAUSE_FIRST_S = 5.0
PAUSE_MAX_S = 4 * 3_600.0
GIVE_UP_AFTER = timedelta(hours=24)

RETRY_S = 5.0


class Webhooks:
    """Deliver in threads of their own until `stop`.

    Args:
        settings: of the database, and whether private addresses are allowed.
        count: is called with a webhook's id and `delivered` or `failed` after each message.
        threads: messages that are under way at once.
    """

    def __init__(
        self, settings: Settings, count: Callable[[str, str], None] = lambda _id, _outcome: None, threads: int = THREADS
    ) -> None:
        self._settings = settings
        self._count = count
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"webhooks {number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to deliver."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the messages under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_WITHIN_S + RETRY_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(self._connected()) as connection:
                    while not self._stop.is_set():
                        if not self._deliver_next(connection):
                            self._stop.wait(IDLE_S)
            except (InputError, ServiceUnreachable, *INFRASTRUCTURE, *RETRYABLE) as error:
                why = words_of(error)
            except Exception as error:  # noqa: BLE001  a thread that died would leave webhooks standing, unseen
                why = f"{type(error).__name__}: {error}"
            else:
                return
            log.warning("webhooks pause", why=why, retry_s=RETRY_S)
            self._stop.wait(RETRY_S)

    def _connected(self) -> Connection:
        return connect(self._settings.database_url, application="guerdon webhooks")

    def _deliver_next(self, connection: Connection) -> bool:
        """Deliver what one shard of one webhook has, and return whether there was any."""
        with connection, connection.cursor() as cursor:
            lease = webhook_cursors.take(cursor)
            if lease is None:
                return False
            upto = min(lease.upto_pos, lease.pos + EVENTS_A_LEASE)
            events = dictionaries(cursor, _EVENTS, {**lease._asdict(), "upto": upto})
            secrets = endpoints.valid_secrets(cursor, lease.webhook_id)

        # no transaction is open while the endpoint thinks
        allow_private = self._settings.webhook_allow_private
        with Endpoint(lease.url, secrets, allow_private=allow_private) as endpoint:
            progress, is_gone = self._send_all(endpoint, lease, events, upto)
        with connection, connection.cursor() as cursor:
            if webhook_cursors.give_back(cursor, lease, progress) and progress.error is not None:
                _maybe_pause(cursor, lease, progress.error, is_gone=is_gone)
        return True

    def _send_all(
        self, endpoint: Endpoint, lease: Lease, events: list[dict[str, Any]], upto: int
    ) -> tuple[Progress, bool]:
        """Send events one by one, until one fails or the time is over; return also whether no more is wanted."""
        begun_s = time.monotonic()
        pos, delivered = lease.pos, 0
        for event in events:
            if lease.types and event["type"] not in lease.types:
                pos = event["pos"]
                continue
            if self._stop.is_set() or time.monotonic() - begun_s > SEND_FOR_S:
                return Progress(pos, delivered), False

            outcome = endpoint.send(message(lease.generation, event))
            self._count(lease.webhook_id, "failed" if outcome.error else "delivered")
            if outcome.error is not None:
                attempts = 0 if delivered else lease.attempts
                pause_s = min(PAUSE_FIRST_S * 2**attempts, PAUSE_MAX_S)
                return Progress(pos, delivered, outcome.error, pause_s), outcome.is_gone
            pos, delivered = event["pos"], delivered + 1
        return Progress(upto, delivered), False


_EVENTS = """
SELECT * FROM guerdon.identified_reward_event
WHERE shard = %(shard)s AND pos > %(pos)s AND pos <= %(upto)s ORDER BY pos
"""


def message(generation: int, event: dict[str, Any]) -> Message:
    """Return the message that tells of a reward event; its id names the event's place in the log, and the event."""
    place = f"g{generation}.{event['shard']}.{event['pos']}.{event['reward_key'][:12]}"
    document = {
        "type": event["type"],
        "timestamp": event["occurred_at"],
        "data": {"generation": generation, **event},
    }
    return Message(place, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _maybe_pause(cursor: Cursor, lease: Lease, error: str, *, is_gone: bool) -> None:
    """Pause a webhook that wants no more, or that has not taken one message in GIVE_UP_AFTER."""
    failing_since, now = one(
        cursor,
        "SELECT failing_since, now() FROM guerdon.webhook_cursor WHERE webhook_id = %s AND shard = %s",
        (lease.webhook_id, lease.shard),
    )
    if is_gone:
        why = "the endpoint answered 410: it wants no more"
    elif now - failing_since >= GIVE_UP_AFTER:
        why = f"one message failed for {GIVE_UP_AFTER // timedelta(hours=1)} h; the last error: {error}"
    else:
        return
    endpoints.set_paused(cursor, lease.webhook_id, why)
    log.warning("webhook paused", webhook=lease.webhook_id, why=why)
