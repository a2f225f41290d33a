"""Turn a Kafka record into an admitted event or one to set aside: decode, then admit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import admit
from engine.batch import Admitted, SetAside, admitted_from
from schemas.events import key_of
from schemas.partitioning import shard_of
from schemas.rejection import Rejected

if TYPE_CHECKING:
    from confluent_kafka import Message

    from consumers.database_time import DatabaseTime
    from engine.batch import Partition
    from schemas.codec import Decoder
    from schemas.events import Event

SHARDS_CACHED_MAX = 200_000


class Intake:
    """Decode and admit records one at a time; nothing of it depends on what came before."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        topic_prefix: str,
        currency: str,
        secret: bytes,
        future_tolerance_ms: int,
        tombstones: str,
        time: DatabaseTime,
    ) -> None:
        self._decoder = decoder
        self._prefix_length = len(topic_prefix)
        self._currency = currency
        self._secret = secret
        self._future_tolerance_ms = future_tolerance_ms
        self._time = time
        self._tombstones_pass = tombstones == "pass"
        self._shards: dict[str, int] = {}

    def take(self, message: Message, place: tuple[Partition, int]) -> Admitted | SetAside | None:
        """Return what `message` is; None for a tombstone, which the policy lets pass: it only says that a key is gone.

        Raises:
            schemas.errors.ServiceUnreachable: the Schema Registry is away; ask again later.
        """
        value = message.value()
        if value is None:
            if self._tombstones_pass:
                return None
            value = b""
        (topic, partition), offset = place
        event: Event | None = None
        schema_id: int | None = None
        stage = "decode"
        try:
            schema_id, event = self._decoder.decode(topic[self._prefix_length :], value)
            stage = "admit"
            admit.check(event, currency=self._currency, latest_ms=self._latest_ms(event))
        except Rejected as rejected:
            return SetAside(
                stage, rejected.reason, rejected.message, topic, partition, offset, value, event, schema_id
            )  # fmt: skip
        record = admitted_from(event, self._shard(event), schema_id, value, self._secret)
        record.topic = topic
        record.partition = partition
        record.offset = offset
        return record

    def _latest_ms(self, event: Event) -> int:
        """Return the latest time that is not from the future; before an event is one, PostgreSQL is asked again."""
        latest_ms = self._time.now_ms() + self._future_tolerance_ms
        if event.occurred_at > latest_ms:
            latest_ms = self._time.fresh_ms() + self._future_tolerance_ms
        return latest_ms

    def _shard(self, event: Event) -> int:
        key = key_of(event)
        shard = self._shards.get(key)
        if shard is None:
            if len(self._shards) >= SHARDS_CACHED_MAX:
                self._shards.clear()
            shard = self._shards[key] = shard_of(key)
        return shard
