"""Let a message wait whose schema cannot be had now, with its partition's number and nobody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Message

    from consumers.source.lanes import Lanes
    from consumers.source.source import Source
    from engine.intake.batch import Partition

log = structlog.get_logger()

BACK_OFF_S_FIRST = 0.5
BACK_OFF_S_MAX = 10.0
SAY_AGAIN_S = 10.0


@dataclass(slots=True)
class _Wait:
    """Say when to ask again, and how long to wait after that; while `is_asked` the message is on its way again."""

    again_at: float
    back_off_s: float = BACK_OFF_S_FIRST
    is_asked: bool = False


class SchemaWaits:
    """Hold partitions at messages whose schema the registry does not give, and read them again from time to time.

    Whatever lies behind such a message in its partition waits, and the same number of the other topics, as a member's
    events belong together.
    """

    def __init__(self, lanes: Lanes, source: Source) -> None:
        self._lanes = lanes
        self._source = source
        self._waits: dict[Partition, _Wait] = {}
        self._say_at = 0.0

    def __contains__(self, partition: Partition) -> bool:
        """Whether what `partition` delivers now lies behind a message that waits."""
        wait = self._waits.get(partition)
        return wait is not None and not wait.is_asked

    def begin(self, message: Message, place: tuple[Partition, int], why: str, now: float) -> None:
        """Let `message` wait, or wait longer."""
        partition, offset = place
        if partition not in self._lanes:
            return  # revoked between the poll and now
        wait = self._waits.setdefault(partition, _Wait(now))
        wait.again_at = now + wait.back_off_s
        wait.back_off_s = min(2 * wait.back_off_s, BACK_OFF_S_MAX)
        wait.is_asked = False
        self._lanes.hold(partition)
        self._source.hold(partition)
        if now >= self._say_at:
            self._say_at = now + SAY_AGAIN_S
            log.warning(
                "decode pauses", topic=partition[0], partition=partition[1], offset=offset,
                schema_id=int.from_bytes((message.value() or b"")[1:5]), why=why, waiting=len(self._waits),
            )  # fmt: skip

    def ask_again(self, now: float) -> None:
        """Have the messages delivered again whose wait is over."""
        for partition, wait in list(self._waits.items()):
            if wait.is_asked or now < wait.again_at:
                continue
            offset = self._lanes.let_go(partition, now)
            if offset is None:
                del self._waits[partition]
                continue
            wait.is_asked = True
            try:
                self._source.read_again(partition, offset)
            except KafkaException:  # in this moment it is not read at all
                wait.is_asked, wait.again_at = False, now + wait.back_off_s
                self._lanes.hold(partition)
                self._source.hold(partition)

    def over(self, partition: Partition) -> None:
        """Note that the message of `partition` was taken."""
        self._waits.pop(partition, None)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions that are another worker's now, or are read anew."""
        for partition in partitions:
            self._waits.pop(partition, None)
