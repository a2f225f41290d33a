"""List, show, release and discard what was set aside."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from engine import admit
from engine.batch import Batch, admitted_from
from engine.live import LiveTransaction, Outcome
from engine.release import release_member
from engine.store import history, personal, programmes, quarantine
from engine.store.database import connect, one, transaction
from operations.rows import plain
from schemas.canonical import event_identity
from schemas.codec import Decoder
from schemas.errors import AnswerIsNo
from schemas.json_events import event_to_object
from schemas.partitioning import shard_of
from schemas.events import key_of
from schemas.rejection import Rejected

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from operations.settings import Settings
    from schemas.codec import WriterSchemas
    from schemas.events import Event

PAYLOAD_BYTES_SHOWN = 512


def listed(database_url: str, *, everything: bool = False) -> list[dict[str, Any]]:
    """Return open records (or all), without their payloads."""
    with transaction(database_url) as cursor:
        found = quarantine.rows(cursor, "true" if everything else "status = 'open'")
    return [{name: plain(value) for name, value in row.items() if name not in {"payload", "sealed"}} for row in found]
