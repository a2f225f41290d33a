"""Give the live transaction batches directly, without Kafka."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from msgspec import msgpack

from engine.intake.batch import Admitted, admitted_from
from engine.live.transaction import LiveTransaction
from engine.store.members.personal import OWN_FORMAT
from schemas.codec import CommittedSchemas, Encoder
from schemas.events import Decision, Event, Purchase, key_of
from schemas.partitioning import shard_of
from schemas.writer_schemas import committed_ids
from tests.system.load import START_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.live.batch import Batch
    from engine.live.work import Outcome

SECRET = b"secret of this test"
ENCODER = Encoder()
SCHEMAS = CommittedSchemas()


def admitted(event: Event) -> Admitted:
    """Return `event` as the worker would hand it over, or a decision as an operator's command would."""
    if isinstance(event, Decision):
        return admitted_from(event, shard_of(key_of(event)), OWN_FORMAT, msgpack.encode(event), SECRET)
    value = ENCODER.encode(event)
    return admitted_from(event, shard_of(key_of(event)), committed_ids()[type(event).__name__], value, SECRET)


def purchase(number: int, member_id: str = "m1", **fields: Any) -> Purchase:
    """Return a purchase of 10.00, number `number` of them all."""
    given: dict[str, Any] = {
        "event_id": f"e{number}", "order_id": f"o{number}", "currency": "USD", "amount": 1_000,
        "occurred_at": START_MS + number,
    }  # fmt: skip
    return Purchase(member_id=member_id, **(given | fields))


def commit(database_url: str, batch: Batch, observe: Callable[[str], None] = lambda _point: None) -> Outcome:
    """Write `batch` on a connection of its own."""
    with closing(LiveTransaction(database_url, SCHEMAS.lookup, observe=observe)) as live:
        return live.commit(batch)
