"""Find out when all records that were in the topics at the start are taken, and the cause that holds up the rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from consumers.source.open_transactions import OpenTransactions
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.source.positions import Positions
    from engine.intake.batch import Partition
    from operations.kafka.ends import Ends

log = structlog.get_logger()

LOOK_S = 0.1
ASK_S = 1.0
PATIENCE_S = 90.0
"""How long to wait for an open transaction. A broker aborts one after the producer's `transaction.timeout.ms`, by
default 60 s; one that stays open for longer stays so until somebody ends it."""


class CatchingUp:
    """Compare how far the partitions are taken with their ends at the start, behind open transactions too."""

    def __init__(self, kafka: Mapping[str, str], topics: list[str], ends: Ends, positions: Positions) -> None:
        self._topics = topics
        self._ends = ends
        self._open = OpenTransactions(kafka, ends)
        self._positions = positions
        self._wanted: dict[Partition, int] = {}
        self._look_at = self._ask_at = 0.0
        self._blocked_since: float | None = None

    def begin(self) -> None:
        """Note the ends of all partitions that hold anything, whichever worker reads them.

        Raises:
            KafkaException: Kafka does not answer.
        """
        partitions = self._ends.partitions(self._topics)
        first, ends = self._ends.first(partitions), self._ends.true(partitions)
        self._wanted = {partition: end for partition, end in ends.items() if end > first[partition]}

    def is_done(self) -> bool:
        """Whether everything is taken.

        Raises:
            AnswerIsNo: the rest is stopped, or has waited behind an open transaction for PATIENCE_S.
            psycopg2.Error, KafkaException: PostgreSQL or Kafka does not answer.
        """
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S

        behind, stopped = self._positions.behind(self._wanted, self._topics)
        going = {partition: offset for partition, offset in behind.items() if partition[1] not in stopped}
        if behind and not going:
            raise AnswerIsNo(f"cannot catch up: {stopped[next(iter(behind))[1]]}")

        if going and now >= self._ask_at:
            self._ask_at = now + ASK_S
            self._look_for_open(going, now)
        return not behind

    def left(self) -> str:
        """Return in words what is left.

        Raises:
            psycopg2.Error: PostgreSQL does not answer.
        """
        behind, _ = self._positions.behind(self._wanted, self._topics)
        if not behind:
            return "what is due, projected and published was not seen through to its end"
        count = sum(self._wanted[partition] - offset for partition, offset in behind.items())
        topics = sorted({topic for topic, _ in behind})
        return f"{count:,} offsets of {', '.join(topics)} are left"

    def _look_for_open(self, going: Mapping[Partition, int], now: float) -> None:
        blocked = self._open.blocked(self._wanted, going)
        if len(blocked) < len(going):
            self._blocked_since = None  # something is still delivered
            return
        if self._blocked_since is None:
            self._blocked_since = now
            log.warning("waits for a transaction", why=blocked[0].sentence(), partitions=len(blocked))
        elif now - self._blocked_since >= PATIENCE_S:
            raise AnswerIsNo(f"cannot catch up: {blocked[0].sentence()}; then run again")
