"""List, show, release and discard what was set aside."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import msgpack

from engine import admit
from engine.batch import Batch, admitted_from
from engine.live import ATTEMPTS_MAX, LiveTransaction
from engine.release import release_member
from engine.store import personal, programmes, quarantine
from engine.store.database import RETRYABLE, one, transaction
from engine.store.forwards import OWN_EVENTS
from operations.rows import plain
from schemas.canonical import event_identity
from schemas.codec import Decoder
from schemas.errors import AnswerIsNo, InputError
from schemas.events import key_of
from schemas.json_events import event_to_object
from schemas.partitioning import shard_of
from schemas.registry import writer_schemas
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from operations.settings import Settings
    from schemas.codec import WriterSchemas
    from schemas.events import Event

PAYLOAD_BYTES_SHOWN = 256
_STORED = ("payload", "sealed")


class NoEvent(Exception):  # noqa: N818  caught here, never shown
    """Say that a record is about something that nobody sent."""


def listed(database_url: str, *, everything: bool = False) -> list[dict[str, Any]]:
    """Return what is open (or everything), without the payloads."""
    with transaction(database_url) as cursor:
        found = quarantine.rows(cursor, "true" if everything else "status = 'open'")
    return [_without_payload(row) for row in found]


def shown(settings: Settings, record_id: int) -> dict[str, Any]:
    """Return one record with its event, where it can be decoded, and the first bytes of its payload in hex.

    Raises:
        InputError: there is no such record.
    """
    with transaction(settings.database_url) as cursor:
        record = _record(cursor, record_id)
        payload = bytes(record["payload"] or b"")
        decoded: dict[str, Any] | str
        try:
            _, event = _event_of(cursor, record, writer_schemas(settings.registry_url), settings)
            decoded = event_to_object(event)
        except Rejected as rejected:
            decoded = f"{rejected.reason}: {rejected.message}"
        except personal.Erased:
            decoded = "the member was erased; what was personal cannot be read by anybody"
        except NoEvent:
            decoded = _told_of_own(str(record["kind"]), payload)
    return {
        **_without_payload(record),
        "event": decoded,
        "payload_bytes": len(payload),
        "payload_hex": payload[:PAYLOAD_BYTES_SHOWN].hex(" "),
    }


def _told_of_own(kind: str, payload: bytes) -> dict[str, Any] | str:
    """Return what is to be known of a record that is about something Guerdon itself has written."""
    told = dict(msgspec.to_builtins(msgpack.decode(payload, type=OWN_EVENTS.get(kind) or dict[str, Any])))
    if "until_ms" in told:
        return "none: a tick moved the member's clock on, and what was due could not be performed"
    return told


def release(settings: Settings, record_id: int) -> str:
    """Take a record in after all, by the same checks and the same transaction as any event; return what it came to.

    Raises:
        InputError: there is no such record.
        AnswerIsNo: it is not open, or it is still not admitted; the record stays as it was.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            released = _judge_again(settings, record_id)
        except RETRYABLE:  # a worker held a budget that the member takes from, and waited for another of them
            if attempt == ATTEMPTS_MAX:
                raise
        else:
            break
    return _admit_again(settings, record_id) if released is None else released


def _judge_again(settings: Settings, record_id: int) -> str | None:
    """Judge the events of a member who is held by the record; None where nobody is."""
    with transaction(settings.database_url) as cursor:
        record = _open_record(cursor, record_id)
        if record["stage"] != "evaluate":
            return None
        rewards = release_member(cursor, record["shard"], record["member_id"])
        for held in quarantine.rows(
            cursor, "status = 'open' AND stage = 'evaluate' AND member_id = %s", (record["member_id"],)
        ):
            quarantine.resolve(cursor, held["id"], "released", None)
        return f"member {record['member_id']} is judged again: {rewards} reward events"


def _admit_again(settings: Settings, record_id: int) -> str:
    schemas = writer_schemas(settings.registry_url)
    with transaction(settings.database_url) as cursor:
        record = _open_record(cursor, record_id)
        programme = programmes.active(cursor)
        if programme is None:
            raise AnswerIsNo("no programme is active; run `guerdon programme activate FILE` first")
        (secret,) = one(cursor, "SELECT value FROM guerdon.setting WHERE name = 'digest_secret'")
        (now_ms,) = one(cursor, "SELECT guerdon.ms(clock_timestamp())")
        try:
            schema_id, event = _event_of(cursor, record, schemas, settings)
            admit.check(event, currency=programme.currency, latest_ms=int(now_ms) + settings.future_tolerance_s * 1000)
        except Rejected as rejected:
            raise AnswerIsNo(
                f"record {record_id} is still not admitted ({rejected.reason}: {rejected.message}); "
                "correct it at its producer, or discard it"
            ) from None
        except personal.Erased:
            raise AnswerIsNo(f"record {record_id} belongs to an erased member; discard it") from None
    admitted = admitted_from(event, shard_of(key_of(event)), schema_id, bytes(record["payload"]), bytes(secret))
    batch = Batch(admitted=[admitted], released=record_id)
    with closing(LiveTransaction(settings.database_url, schemas.lookup)) as live:
        outcome = live.commit(batch)
    if outcome.quarantined:
        raise AnswerIsNo(f"record {record_id} is still in conflict with what came before; discard it")
    return "admitted" if outcome.accepted else "it was a duplicate of what came meanwhile"


def discard(database_url: str, record_id: int, why: str) -> None:
    """Put a record away for good, with the reason.

    Raises:
        InputError: there is no such record.
        AnswerIsNo: it is not open, or its member is held by it, and only a release ends that.
    """
    with transaction(database_url) as cursor:
        record = _open_record(cursor, record_id)
        if record["stage"] == "evaluate":
            raise AnswerIsNo(
                f"record {record_id} holds member {record['member_id']}: its event is in the log already and cannot be "
                f"discarded; run `guerdon quarantine release {record_id}`"
            )
        quarantine.resolve(cursor, record_id, "discarded", why)


def _event_of(cursor: Cursor, record: dict[str, Any], schemas: WriterSchemas, settings: Settings) -> tuple[int, Event]:
    if record["kind"] == quarantine.TICK or record["kind"] in OWN_EVENTS:
        raise NoEvent
    payload = bytes(record["payload"] or b"")
    if record["schema_id"] == personal.OWN_FORMAT:
        shard, member_id = shard_of(record["member_id"]), record["member_id"]
        key = personal.keys_for(cursor, [(shard, member_id)])[shard, member_id]
        identity = event_identity(record["source"], record["event_id"])
        try:
            event = personal.unseal(record["kind"], payload, _bytes(record["sealed"]), identity, key)
        except msgspec.ValidationError as error:  # a text that is longer than any that is taken in
            raise Rejected(Reason.OUT_OF_RANGE, str(error)) from error
        return personal.OWN_FORMAT, event
    topic = str(record["topic"]).removeprefix(settings.topic_prefix)
    return Decoder(schemas, settings.message_bytes_max).decode(topic, payload)


def _bytes(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def _record(cursor: Cursor, record_id: int) -> dict[str, Any]:
    found = quarantine.rows(cursor, "id = %s", (record_id,))
    if not found:
        raise InputError(f"there is no record {record_id} in quarantine; `guerdon quarantine list --all` shows them")
    return found[0]


def _open_record(cursor: Cursor, record_id: int) -> dict[str, Any]:
    record = _record(cursor, record_id)
    if record["status"] != "open":
        raise AnswerIsNo(f"record {record_id} was {record['status']} already; nothing was changed")
    return record


def _without_payload(record: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in record.items() if name not in _STORED}
