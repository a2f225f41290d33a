"""Let a message wait while its schema cannot be had, and with it only its partition's number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Message

    from consumers.source.lanes import Lanes
    from consumers.source.source import Place, Source
    from engine.intake.batch import Partition

log = structlog.get_logger()

BACK_OFF_S_FIRST = 0.5
BACK_OFF_S_MAX = 10.0
SAY_AGAIN_S = 10.0


@dataclass(slots=True)
class _Wait:
    """Say when to ask for a message again, and how long to wait after that; `is_asked` while it is on its way again."""

    again_at: float
    back_off_s: float = BACK_OFF_S_FIRST
    is_asked: bool = False


class SchemaWaits:
    """Stop partitions at messages whose schema the registry does not give, and read these again from time to time.

    The rest of the partition waits behind such a message, and so does the same number of the other topics, as a
    member's events belong together.
    """

    def __init__(self, lanes: Lanes, source: Source) -> None:
        self._lanes = lanes
        self._source = source
        self._waits: dict[Partition, _Wait] = {}
        self._say_at = 0.0

    def __contains__(self, partition: Partition) -> bool:
        """Whether the messages that `partition` delivers now lie behind one that waits."""
        wait = self._waits.get(partition)
        return wait is not None and not wait.is_asked

    def begin(self, message: Message, place: Place, why: str, now: float) -> None:
        """Let `message` wait, or wait longer."""
        partition, offset = place
        if partition not in self._lanes:
            return  # revoked between the poll and now

        # wait twice as long each time
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
        """Let Kafka deliver again the messages whose wait is over."""
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
        """Forget partitions that another worker reads now, or that are read from the table's offset again."""
        for partition in partitions:
            self._waits.pop(partition, None)
