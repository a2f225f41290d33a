"""List, show, release and discard the records in quarantine."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import msgpack

from engine.intake import admit
from engine.intake.batch import admitted_from
from engine.live.batch import Batch, Portion
from engine.live.release import release_member
from engine.live.safety_net import still_failing
from engine.live.transaction import ATTEMPTS_MAX, LiveTransaction
from engine.store import digest_secret, programmes, quarantine
from engine.store.campaigns import contests
from engine.store.cursor import one
from engine.store.database import RETRYABLE, transaction
from engine.store.logs.forwards import OWN_EVENTS, ROWS, Forwarding, row_of
from engine.store.members import personal
from engine.store.quarantine import Chosen
from engine.store.session.failures import StepFailed, is_data
from operations.rows import dictionaries, plain
from schemas.canonical import event_identity
from schemas.codec import Decoder
from schemas.errors import AnswerIsNo, CannotGoOn, GuerdonError, InputError
from schemas.events import key_of
from schemas.json_events import event_to_object
from schemas.partitioning import shard_of
from schemas.registry import writer_schemas
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.intake.batch import Admitted
    from engine.live.work import Outcome
    from engine.store.cursor import Cursor
    from operations.settings import Settings
    from schemas.codec import WriterSchemas
    from schemas.events import Event

PAYLOAD_BYTES_SHOWN = 256
_STORED = ("payload", "sealed")

RECORDS_AT_ONCE = 1_000
"""How many records one transaction takes in or puts away at most."""


class Result(NamedTuple):
    """Say in a sentence what was done with a record; `refused` is the reason where it stays as it was."""

    record_id: int
    sentence: str
    refused: GuerdonError | None = None


class NoEvent(Exception):  # caught here, never shown
    """Say that a record is about Guerdon's own work and holds no event that somebody sent."""


def listed(database_url: str, chosen: Chosen | None = None, *, most: int | None = None) -> list[dict[str, Any]]:
    """Return the open records, or those that fit `chosen`, the oldest first and without the payloads."""
    wanted = chosen or Chosen()
    with transaction(database_url) as cursor:
        records = quarantine.rows(cursor, wanted.where, wanted.parameters, most=most)
    return [_without_payload(record) for record in records]


def summary(database_url: str, chosen: Chosen | None = None) -> list[dict[str, Any]]:
    """Return the number of records by reason, stage and topic, with the oldest and the newest; the most first."""
    wanted = chosen or Chosen()
    with transaction(database_url) as cursor:
        return dictionaries(
            cursor,
            f"""
            SELECT reason, stage, topic, count(*)::bigint AS records, min(quarantined_at) AS oldest,
                   max(quarantined_at) AS newest
            FROM guerdon.quarantine WHERE {wanted.where}
            GROUP BY reason, stage, topic ORDER BY records DESC, reason, stage, topic
            """,
            wanted.parameters,
        )


def chosen_ids(database_url: str, chosen: Chosen) -> list[int]:
    """Return the ids of the records that fit now, without those that are set aside later."""
    with transaction(database_url) as cursor:
        return quarantine.ids(cursor, chosen)


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
            decoded = _own_record(str(record["kind"]), payload)
    return {
        **_without_payload(record),
        "event": decoded,
        "payload_bytes": len(payload),
        "payload_hex": payload[:PAYLOAD_BYTES_SHOWN].hex(" "),
    }


def _own_record(kind: str, payload: bytes) -> dict[str, Any] | str:
    """Return the content of a record about Guerdon's own work, or a sentence about it."""
    if kind in ROWS.values():
        row = row_of(kind, payload)
        return {**row._asdict(), "body": msgspec.to_builtins(msgpack.decode(row.body))}
    content = dict(msgspec.to_builtins(msgpack.decode(payload, type=OWN_EVENTS.get(kind) or dict[str, Any])))
    if "until_ms" in content:
        return "none: a tick moved the member's clock on, and what was due could not be performed"
    return content


def release(settings: Settings, record_id: int) -> str:
    """Take a record in after all, by the same checks and the same transaction as any event; return a sentence on it.

    Raises:
        InputError: there is no such record.
        AnswerIsNo: it is not open, or it is still not admitted; the record stays as it was.
    """
    (result,) = release_all(settings, [record_id])
    if result.refused is not None:
        raise result.refused
    return result.sentence


def release_all(
    settings: Settings, record_ids: Sequence[int], report: Callable[[int, int], None] = lambda _done, _total: None
) -> list[Result]:
    """Take records in after all, many in a transaction; a record that is refused stays as it was and stops no other.

    Args:
        settings: name the addresses and bounds.
        record_ids: the ids of the records, in the order in which to record them.
        report: called with how many are done, and of how many.

    Raises:
        AnswerIsNo: no programme is active.
        ServiceUnreachable, psycopg2.OperationalError: PostgreSQL or the registry is away; earlier records are done.
    """
    schemas = writer_schemas(settings.registry_url)
    judged: set[str] = set()
    results: list[Result] = []
    with closing(LiveTransaction(settings.database_url, schemas.lookup)) as live:
        for at in range(0, len(record_ids), RECORDS_AT_ONCE):
            part = list(dict.fromkeys(record_ids[at : at + RECORDS_AT_ONCE]))

            # records that hold a member are in the log already and only judged; the others are admitted first
            done = _judge_held(settings, part, judged)
            done |= _admit_again(settings, schemas, live, [each for each in part if each not in done])
            results += [done[record_id] for record_id in part]
            report(at + len(part), len(record_ids))
    return results


def _judge_held(settings: Settings, record_ids: Sequence[int], judged: set[str]) -> dict[int, Result]:
    """Judge the events of each member whom one of the records holds; add to `judged` those who are held no more."""
    with transaction(settings.database_url) as cursor:
        records = quarantine.rows(cursor, "seq IS NOT NULL AND id = ANY(%s)", (list(record_ids),))
    results = {}
    for record in records:
        member_id, record_id = record["member_id"], record["id"]
        try:
            sentence = f"member {member_id} is judged again"
            if member_id not in judged:
                sentence = _judge_again(settings, record_id)
                judged.add(member_id)
            results[record_id] = Result(record_id, sentence)
        except AnswerIsNo as refused:
            results[record_id] = Result(record_id, str(refused), refused)
    return results


def _judge_again(settings: Settings, record_id: int) -> str:
    """Judge the events of the member who is held by the record."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            with transaction(settings.database_url) as cursor:
                record = _open_record(cursor, record_id)
                rewards = release_member(cursor, record["shard"], record["member_id"])
                for each in quarantine.rows(
                    cursor, f"{quarantine.SUSPENDS} AND member_id = %s", (record["member_id"],)
                ):
                    quarantine.resolve(cursor, each["id"], "released", None)
                return f"member {record['member_id']} is judged again: {rewards} reward events"
        except RETRYABLE:  # a worker had locked a budget that the member takes from, and waited for another budget
            if attempt == ATTEMPTS_MAX:
                raise
        except Exception as error:
            if not is_data(error):
                raise
            raise still_failing(record_id, StepFailed("release", error)) from error
    raise AssertionError("the last attempt has returned or raised")


def _admit_again(
    settings: Settings, schemas: WriterSchemas, live: LiveTransaction, record_ids: Sequence[int]
) -> dict[int, Result]:
    """Check events again and record them, all in one transaction, or one by one where that fails."""
    # which are admitted now
    results: dict[int, Result] = {}
    batches: list[Batch] = []
    with transaction(settings.database_url) as cursor:
        checks = _Checks(cursor, schemas, settings)
        for record_id in record_ids:
            try:
                batches.append(checks.batch(record_id))
            except (AnswerIsNo, InputError) as refused:
                results[record_id] = Result(record_id, str(refused), refused)

    # record them
    try:
        outcomes = live.commit_together(lambda _cursor: batches) if batches else []
        recorded = list(map(_result, batches, outcomes))
    except (AnswerIsNo, CannotGoOn):  # somebody else has resolved one of them meanwhile, or one fails again
        recorded = [_commit_alone(live, batch) for batch in batches]
    return results | _with_holds(settings, recorded)


def _commit_alone(live: LiveTransaction, batch: Batch) -> Result:
    try:
        return _result(batch, live.commit(batch))
    except AnswerIsNo as refused:
        return Result(batch.released or 0, str(refused), refused)


def _with_holds(settings: Settings, results: Sequence[Result]) -> dict[int, Result]:
    """Add to each result whether the record's member is held now, because judging it has failed."""
    with transaction(settings.database_url) as cursor:
        cursor.execute(
            """
            SELECT q.id, h.id, h.message FROM guerdon.quarantine q
            CROSS JOIN LATERAL (
                SELECT h.id, h.message FROM guerdon.quarantine h
                WHERE h.status = 'open' AND h.seq IS NOT NULL AND h.member_id = q.member_id AND h.id > q.id
                ORDER BY h.id LIMIT 1
            ) h
            WHERE q.id = ANY(%s)
            """,
            ([result.record_id for result in results if result.refused is None],),
        )
        holds = {record_id: f"; its member is held by record {by}: {why}" for record_id, by, why in cursor.fetchall()}
    return {each.record_id: each._replace(sentence=each.sentence + holds.get(each.record_id, "")) for each in results}


def _result(batch: Batch, outcome: Outcome) -> Result:
    record_id = batch.released or 0
    if not batch.admitted:
        return Result(record_id, f"it is taken in: {outcome.rewards} reward events")
    if outcome.quarantined:
        refused = AnswerIsNo(f"record {record_id} is still in conflict with what came before; discard it")
        return Result(record_id, str(refused), refused)
    return Result(record_id, "admitted" if outcome.accepted else "it was a duplicate of what came meanwhile")


class _Checks:
    """Check records by the rules of admission as they are now.

    Raises:
        AnswerIsNo: no programme is active.
    """

    def __init__(self, cursor: Cursor, schemas: WriterSchemas, settings: Settings) -> None:
        programme = programmes.active(cursor)
        if programme is None:
            raise AnswerIsNo("no programme is active; run `guerdon programme activate FILE` first")
        (now_ms,) = one(cursor, "SELECT guerdon.ms(clock_timestamp())")
        self._cursor, self._schemas, self._settings = cursor, schemas, settings
        self._secret, self._currency = digest_secret.read(cursor), programme.currency
        self._latest_ms = int(now_ms) + settings.future_tolerance_s * 1000

    def batch(self, record_id: int) -> Batch:
        """Return a batch that takes the record in: its event, or the row of Guerdon's own work that it holds.

        Raises:
            InputError: there is no such record.
            AnswerIsNo: it is not open, or its event is still not admitted.
        """
        record = _open_record(self._cursor, record_id)

        # work that fails is not an event: contests go on by themselves, rows are taken in alone
        if record["stage"] == contests.STAGE:
            raise AnswerIsNo(
                "workers close contests by themselves, and try again when they are started and when a period ends: "
                "install the release that mends it, restart them, and discard the record"
            )
        if record["kind"] in ROWS.values():
            row = row_of(record["kind"], bytes(record["payload"]))
            portion = Portion(forwarded=(row,)) if isinstance(row, Forwarding) else Portion(undecided=(row,))
            return Batch(released=record_id, portion=portion)

        return Batch(admitted=[self._admitted(record)], released=record_id, portion=Portion())

    def _admitted(self, record: dict[str, Any]) -> Admitted:
        record_id = record["id"]
        try:
            schema_id, event = _event_of(self._cursor, record, self._schemas, self._settings)
            admit.check(event, currency=self._currency, latest_ms=self._latest_ms)
        except Rejected as rejected:
            raise AnswerIsNo(
                f"record {record_id} is still not admitted ({rejected.reason}: {rejected.message}); "
                "correct it at its producer, or discard it"
            ) from None
        except personal.Erased:
            raise AnswerIsNo(f"record {record_id} belongs to an erased member; discard it") from None
        except Exception as error:
            if not is_data(error):
                raise
            raise still_failing(record_id, StepFailed(str(record["stage"]), error)) from error
        return admitted_from(event, shard_of(key_of(event)), schema_id, bytes(record["payload"]), self._secret)


def discard(database_url: str, record_id: int, why: str) -> None:
    """Put a record away for good, with the reason.

    Raises:
        InputError: there is no such record.
        AnswerIsNo: it is not open, or it holds its member, and only a release ends that.
    """
    (result,) = discard_all(database_url, [record_id], why)
    if result.refused is not None:
        raise result.refused


def discard_all(
    database_url: str,
    record_ids: Sequence[int],
    why: str,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Result]:
    """Put records away for good, with the reason, many in a transaction; a record that is refused stops no other."""
    results = []
    for at in range(0, len(record_ids), RECORDS_AT_ONCE):
        part = list(dict.fromkeys(record_ids[at : at + RECORDS_AT_ONCE]))
        with transaction(database_url) as cursor:
            discarded = quarantine.discard(cursor, part, why)
            for record_id in part:
                refused = None if record_id in discarded else _why_not_discarded(cursor, record_id)
                results.append(Result(record_id, "discarded" if refused is None else str(refused), refused))
        report(at + len(part), len(record_ids))
    return results


def _why_not_discarded(cursor: Cursor, record_id: int) -> GuerdonError:
    try:
        record = _open_record(cursor, record_id)
    except (AnswerIsNo, InputError) as error:
        return error
    return AnswerIsNo(
        f"record {record_id} holds member {record['member_id']}: its event is in the log already and cannot be "
        f"discarded; run `guerdon quarantine release {record_id}`"
    )


def _event_of(cursor: Cursor, record: dict[str, Any], schemas: WriterSchemas, settings: Settings) -> tuple[int, Event]:
    """Return the id of the schema and the event of a record; raises `Rejected`, `personal.Erased` or `NoEvent`."""
    if record["kind"] == quarantine.TICK or record["kind"] in OWN_EVENTS or record["kind"] in ROWS.values():
        raise NoEvent

    # in Guerdon's own format, with the personal part sealed by the member's key
    payload = bytes(record["payload"] or b"")
    if record["schema_id"] == personal.OWN_FORMAT:
        shard, member_id = shard_of(record["member_id"]), record["member_id"]
        key = personal.keys_for(cursor, [(shard, member_id)])[shard, member_id]
        identity = event_identity(record["source"], record["event_id"])
        sealed = None if record["sealed"] is None else bytes(record["sealed"])
        try:
            event = personal.unseal(record["kind"], payload, sealed, identity, key)
        except msgspec.ValidationError as error:  # a text that is longer than the limit of admission
            raise Rejected(Reason.OUT_OF_RANGE, str(error)) from error
        return personal.OWN_FORMAT, event

    # as Kafka delivered it
    topic = str(record["topic"]).removeprefix(settings.topic_prefix)
    return Decoder(schemas, settings.message_bytes_max).decode(topic, payload)


def _record(cursor: Cursor, record_id: int) -> dict[str, Any]:
    records = quarantine.rows(cursor, "id = %s", (record_id,))
    if not records:
        raise InputError(f"there is no record {record_id} in quarantine; `guerdon quarantine list --all` shows them")
    return records[0]


def _open_record(cursor: Cursor, record_id: int) -> dict[str, Any]:
    record = _record(cursor, record_id)
    if record["status"] != "open":
        raise AnswerIsNo(f"record {record_id} was {record['status']} already; nothing was changed")
    return record


def _without_payload(record: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in record.items() if name not in _STORED}
