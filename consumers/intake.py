"""Turn a Kafka record into an admitted event or one to set aside: decode, then admit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.intake import admit
from engine.intake.batch import Admitted, SetAside, admitted_from
from engine.live.in_a_row import IN_A_ROW_MAX, our_fault
from engine.store import digest_secret
from engine.store.database import transaction
from engine.store.generations.live_generation import writable
from engine.store.programmes import active
from engine.store.session.failures import StepFailed, error_line, is_data
from schemas.codec import Decoder
from schemas.errors import AnswerIsNo, CannotGoOn
from schemas.events import key_of
from schemas.partitioning import shard_of
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from confluent_kafka import Message

    from consumers.database_time import DatabaseTime
    from consumers.source.source import Place
    from operations.settings import Settings
    from schemas.codec import WriterSchemas
    from schemas.events import Event

SHARDS_CACHED_MAX = 200_000


class Intake:
    """Decode and admit records one at a time; no record depends on an earlier one.

    Args:
        decoder: decodes a message's value.
        topic_prefix: stands before the topics' names.
        currency: the currency of the programme; amounts in another one are not admitted.
        secret: keys the digest of an event's content.
        future_tolerance_ms: how far ahead of PostgreSQL's clock an event may be.
        tombstones: `pass` lets messages without a value pass; else they are set aside.
        time: PostgreSQL's clock.
    """

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
        self._failed_in_a_row = 0

    def take(self, message: Message, place: Place) -> Admitted | SetAside | None:
        """Return the event of `message`, or the record to set aside; None for a tombstone that the policy lets pass.

        A tombstone only says that a key is gone.

        Raises:
            schemas.errors.ServiceUnreachable: the Schema Registry is away; ask again later.
            CannotGoOn: too many messages in a row fail, so that the fault must be Guerdon's, or memory is out.
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
            record = admitted_from(event, self._shard(event), schema_id, value, self._secret)
        except Rejected as rejected:
            return SetAside(
                stage, rejected.reason, rejected.message, topic, partition, offset, value, event, schema_id
            )  # fmt: skip
        except MemoryError as error:
            raise CannotGoOn(
                f"{topic} partition {partition}, offset {offset}: this process has no memory left to read it: give it "
                "more; if no memory is enough, `guerdon offsets pass` lets this record pass"
            ) from error
        except Exception as error:
            if not is_data(error):
                raise
            self._failed_in_a_row += 1
            if self._failed_in_a_row > IN_A_ROW_MAX:
                where = f"{topic} partition {partition}, offset {offset}"
                what = f"{self._failed_in_a_row} messages in a row cannot be read"
                raise our_fault(what, StepFailed(stage, error), where) from error
            return SetAside(stage, Reason.FAILED, error_line(error), topic, partition, offset, value, event, schema_id)

        self._failed_in_a_row = 0
        record.topic = topic
        record.partition = partition
        record.offset = offset
        return record

    def _latest_ms(self, event: Event) -> int:
        """Return the latest time that an event may have; PostgreSQL is asked again before `event` is refused for it."""
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


def make_intake(settings: Settings, writer_schemas: WriterSchemas, time: DatabaseTime) -> Intake:
    """Return an intake by the active programme.

    Raises:
        AnswerIsNo: no programme is active, the database came from an archive and is not complete yet, or another
            meaning has decided the live generation.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(settings.database_url) as cursor:
        writable(cursor)
        programme = active(cursor)
        secret = digest_secret.read(cursor)
    if programme is None:
        raise AnswerIsNo(
            "no programme is active, so nothing can be judged; run `guerdon programme activate FILE` first"
        )

    return Intake(
        Decoder(writer_schemas, settings.message_bytes_max),
        topic_prefix=settings.topic_prefix,
        currency=programme.currency,
        secret=bytes(secret),
        future_tolerance_ms=settings.future_tolerance_s * 1000,
        tombstones=settings.tombstones,
        time=time,
    )
