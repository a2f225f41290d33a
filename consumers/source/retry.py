"""Ask PostgreSQL and Kafka again until they answer."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import structlog
from confluent_kafka import KafkaException

from engine.store.database import INFRASTRUCTURE
from engine.store.session.failures import words_of
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from consumers.health.watch import Watch
    from consumers.source.positions import Positions

log = structlog.get_logger()

RETRY_S = 0.5

T = TypeVar("T")


class Retry:
    """Repeat a question of the polling thread for as long as a service is away.

    Args:
        positions: reconnects to PostgreSQL between two attempts.
        watch: hears that the worker's loop is alive although it waits.
        stop: ends the wait.
        why: puts an error of Kafka's into a sentence.
    """

    def __init__(
        self, positions: Positions, watch: Watch, stop: threading.Event, why: Callable[[KafkaException], str]
    ) -> None:
        self._positions = positions
        self._watch = watch
        self._stop = stop
        self._why = why

    def __call__(self, ask: Callable[[], T]) -> T | None:
        """Return the answer of `ask`; None when the worker stops before there is one."""
        while not self._stop.is_set():
            try:
                return ask()
            except (*INFRASTRUCTURE, ServiceUnreachable, KafkaException) as error:
                self._watch.turn()
                why = self._why(error) if isinstance(error, KafkaException) else words_of(error)
                log.warning("worker pauses", why=why)
                self._stop.wait(RETRY_S)
                with suppress(*INFRASTRUCTURE, ServiceUnreachable):
                    self._positions.reconnect()
        return None
