"""Prove that the stored identities, which expose repetitions, are the source log's, and that no reward has two rows."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fastavro import parse_schema, schemaless_reader

from engine.ledger import adjustments
from engine.store.cursor import one
from engine.store.logs.history import StoredSchemas
from schemas.canonical import IDENTITY_BYTES, order_identity
from schemas.codec import FRAME_BYTES
from schemas.events import EVENT_TYPES

if TYPE_CHECKING:
    from engine.store.cursor import Connection, Cursor

ROWS_A_FETCH = 5_000

_LOGGED = """
    SELECT shard, seq, kind, source, event_id,
           left(encode(sha256(
               '\\x6576656e7400'::bytea || convert_to(source, 'UTF8') || '\\x00'::bytea || convert_to(event_id, 'UTF8')
           ), 'hex'), 32)::uuid AS identity
    FROM guerdon.source_event WHERE kind = ANY(%(kinds)s::guerdon.source_kind[])
"""
"""Each event that was admitted, with its identity as `schemas.canonical.event_identity` makes it."""

_EVENTS = f"""
WITH elsewhere AS MATERIALIZED (
    SELECT l.shard, l.seq, l.source, l.event_id, i.shard AS there, i.seq AS there_seq
    FROM ({_LOGGED}) l LEFT JOIN guerdon.event_identity i USING (identity)
    WHERE (i.shard, i.seq) IS DISTINCT FROM (l.shard, l.seq)
)
SELECT * FROM elsewhere ORDER BY shard, seq LIMIT 1
"""
"""The first event that its identity does not name. All of them are computed, as finding one would be no faster."""

_ORDERS = f"""
WITH logged AS MATERIALIZED ({_LOGGED}), other AS (
    SELECT i.shard, i.seq, min(i.identity::text)::uuid AS identity, count(*) AS identities,
           min(i.digest::text) AS digest
    FROM guerdon.event_identity i WHERE NOT EXISTS (SELECT FROM logged l WHERE l.identity = i.identity)
    GROUP BY i.shard, i.seq
)
SELECT coalesce(o.shard, p.shard), coalesce(o.seq, p.seq), o.identity, o.identities,
       o.digest = e.digest::text, s.member_id, s.payload
FROM (SELECT * FROM logged WHERE kind = 'purchase') p
JOIN guerdon.event_identity e USING (identity)
JOIN guerdon.source_event s ON s.shard = p.shard AND s.seq = p.seq
FULL JOIN other o ON o.shard = p.shard AND o.seq = p.seq
"""
"""Each purchase with the identities at its place other than the event's: there must be its order's, and none elsewhere.
"""


def unique(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check that every event, order and reward has one identity, which says where it stands (I5)."""
    with connection.cursor() as cursor:
        (looked_at,) = one(
            cursor,
            """
            SELECT (SELECT count(*) FROM guerdon.event_identity)
                 + (SELECT count(*) FROM guerdon.reward_event WHERE generation = %s)
            """,
            (generation,),
        )
        problem = _event_elsewhere(cursor) or _order_elsewhere(connection) or _repeated_reward(cursor, generation)
    return looked_at, problem


def _repeated_event(cursor: Cursor) -> str | None:
    """Name the first event that stands in the log twice."""
    cursor.execute(
        """
        SELECT shard, seq, source, event_id, times FROM (
            SELECT shard, seq, source, event_id, count(*) OVER same AS times, row_number() OVER same_in_order AS nth
            FROM guerdon.source_event WHERE kind = ANY(%(kinds)s::guerdon.source_kind[])
            WINDOW same AS (PARTITION BY source, event_id), same_in_order AS (same ORDER BY recorded_at, shard, seq)
        ) counted WHERE nth = 2 ORDER BY shard, seq LIMIT 1
        """,
        _kinds(),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    shard, seq, source, event_id, times = row
    return f"{_place(shard, seq)}: event {event_id} of source {source} stands in the log {times} times"


def _event_elsewhere(cursor: Cursor) -> str | None:
    """Name the first event whose identity is missing or names another place, as of an event that was taken twice."""
    cursor.execute(_EVENTS, _kinds())
    row = cursor.fetchone()
    if row is None:
        return None
    shard, seq, source, event_id, there, there_seq = row
    where = f"{_place(shard, seq)}: the identity of event {event_id} of source {source}"
    if there is None:
        return f"{where} is missing: the event would be taken again"
    return _repeated_event(cursor) or f"{where} says shard {there}, seq {there_seq}"


def _order_elsewhere(connection: Connection) -> str | None:
    """Name the first place whose identities are not the event's and, for a purchase, its order's."""
    first: tuple[int, int, str] | None = None
    with connection.cursor() as schemas, connection.cursor("orders") as rows:
        order_ids = _OrderIds(StoredSchemas(schemas))
        rows.itersize = ROWS_A_FETCH
        rows.execute(_ORDERS, _kinds())
        for shard, seq, *order in rows:
            problem = _order_problem(order_ids, *order)
            if problem is not None and (first is None or (shard, seq) < first[:2]):
                first = (shard, seq, problem)
    return None if first is None else f"{_place(*first[:2])}: {first[2]}"


def _order_problem(
    order_ids: _OrderIds, identity: str | None, identities: int | None, same: Any, member_id: str | None, payload: Any
) -> str | None:
    """Return the problem with the identities of orders at a place; without `member_id` no purchase is there."""
    if member_id is None:
        return f"identity {identity} is of no event and of no order there"
    if identity is None:
        return "the identity of its order is missing: the order would be taken again"
    if identities != 1:
        return f"{identities} identities of orders stand where one should"
    order_id = order_ids.of(bytes(payload))
    if order_id is None:
        return "the purchase cannot be read, so that nothing tells which order it is"
    if identity.replace("-", "") != order_identity(member_id, order_id)[:IDENTITY_BYTES].hex():
        return f"the identity of order {order_id} is missing, and {identity} stands in its place"
    return None if same else f"order {order_id} and its event have different digests"


class _OrderIds:
    """Read the order_id of purchases from their bytes: no column holds it.

    A record is its fields one after the other. So a schema that ends at order_id reads it up to there, in a tenth of
    the time.
    """

    def __init__(self, schemas: StoredSchemas) -> None:
        self._schemas = schemas
        self._read_by: dict[int, Any] = {}

    def of(self, payload: bytes) -> str | None:
        """Return the order_id in the bytes of a purchase; None where they cannot be read."""
        schema_id = int.from_bytes(payload[1:FRAME_BYTES])
        try:
            schema = self._read_by.get(schema_id) or self._read(schema_id)
            body = BytesIO(payload)
            body.seek(FRAME_BYTES)
            record: Any = schemaless_reader(body, schema, None)
            return str(record["order_id"])
        except Exception:  # noqa: BLE001  fastavro raises anything on bad bytes or a bad schema, and those are the cause
            return None

    def _read(self, schema_id: int) -> Any:
        """Return the writer's schema up to its order_id."""
        record = json.loads(self._schemas.lookup(schema_id) or "")
        names = [field["name"] for field in record["fields"]]
        beginning = record | {"fields": record["fields"][: names.index("order_id") + 1]}
        schema = self._read_by[schema_id] = parse_schema(beginning)
        return schema


def _repeated_reward(cursor: Cursor, generation: int) -> str | None:
    """Name the first position whose reward_key stands at an earlier position, too."""
    cursor.execute(
        """
        WITH twice AS (
            SELECT reward_key, count(*) AS times FROM guerdon.reward_event WHERE generation = %(g)s
            GROUP BY reward_key HAVING count(*) > 1
        )
        SELECT e.shard, e.pos, encode(t.reward_key, 'hex'), t.times
        FROM twice t JOIN guerdon.reward_event e ON e.generation = %(g)s AND e.reward_key = t.reward_key
        ORDER BY row_number() OVER (PARTITION BY t.reward_key ORDER BY e.shard, e.pos) <> 2, e.shard, e.pos LIMIT 1
        """,
        {"g": generation},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    shard, pos, key, times = row
    return f"reward log, shard {shard}, pos {pos}: reward_key {key} stands in the log {times} times"


def _kinds() -> dict[str, list[str]]:
    return {"kinds": [*EVENT_TYPES, adjustments.KIND]}


def _place(shard: int, seq: int) -> str:
    return f"source log, shard {shard}, seq {seq}"
