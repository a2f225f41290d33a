"""Promote a generation as adjustments: members keep their history, and their balances become those of the generation.

Everything is one transaction, while nobody else evaluates: the difference, the source events that make it up, their
reward events, and the fact that it was done. A kill at any point leaves all of it or nothing.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import msgpack
from psycopg2.errors import LockNotAvailable

from engine.intake.batch import Admitted, ClockMove
from engine.ledger.adjustments import KIND, adjustment
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store import digest_secret, quarantine
from engine.store.database import NO_LIMIT, connect, transaction
from engine.store.eras import FOREGONE
from engine.store.generations import adjustments, live_generation, shadows
from engine.store.members import personal
from operations.replay.difference import add_up
from operations.replay.generations import LOCK_TIMEOUT_S, bring_up, check_held, locked_out
from operations.replay.run import fold_on, project
from schemas.canonical import content_digest, event_identity
from schemas.errors import AnswerIsNo
from schemas.events import INT64_MAX
from schemas.partitioning import shard_of
from schemas.rewards import ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from decimal import Decimal

    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation

BATCH_EVENTS = 2_000
"""How many adjustments are in memory at once; one transaction writes them all."""

_WANTED = """
SELECT m.member_id, m.unit, m.change FROM difference_member m
WHERE m.change <> 0 AND m.unit <> ALL(%(items)s) AND (%(is_status)s IS NULL OR (m.unit = 'status') = %(is_status)s)
  AND (m.change > 0 OR NOT %(keep_losses)s)
  AND NOT EXISTS (
      SELECT FROM guerdon.member_key k WHERE k.shard = m.shard AND k.member_id = m.member_id AND k.key IS NULL
  )
ORDER BY m.shard, m.member_id COLLATE "C", m.unit
"""


class Times(NamedTuple):
    """Say how long to wait for the locks that let the promotion begin, and how far ticks stay behind events."""

    lock_timeout_s: int = LOCK_TIMEOUT_S
    lateness_ms: int = 900_000


TIMES = Times()
"""The defaults."""


@dataclass
class Totals:
    """Count for each unit how many members gain and lose, and how much."""

    adjustments: int = 0
    units: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, unit: str, change: int) -> None:
        """Count one adjustment."""
        self.adjustments += 1
        counts = self.units.setdefault(unit, {"gain": 0, "lose": 0, "gained": 0, "lost": 0})
        counts["gain" if change > 0 else "lose"] += 1
        counts["gained" if change > 0 else "lost"] += abs(change)

    def document(self) -> dict[str, Any]:
        """Return the counts for JSON, the units sorted by name."""
        units = [{"unit": unit, **self.units[unit]} for unit in sorted(self.units)]
        return {"adjustments": self.adjustments, "units": units}


def promote_as_adjustments(
    database_url: str,
    number: int,
    *,
    keep_losses: bool = False,
    times: Times = TIMES,
    observe: Callable[[str], None] = lambda _point: None,
) -> dict[str, Any]:
    """Bring the balances of the live generation's members to those of a shadow, and return what was written.

    With `keep_losses` no member is worse off: losses are not taken. Called again, it writes nothing.

    Raises:
        InputError: there is no such generation.
        AnswerIsNo: it cannot be compared with the live one, it is not sound, it was promoted before with other losses,
            or a lock was not free in time; nothing was written.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with closing(connect(database_url, application="guerdon promote", statement_max=NO_LIMIT)) as holding:
        generation, base, done = _begin(holding, number, keep_losses=keep_losses)
        fact: dict[str, Any]
        if done is None:
            # while workers go on
            bring_up(database_url, generation)
            observe("before adjusting")

            # while they wait
            with closing(
                LiveTransaction(database_url, lambda _schema_id: None, observe=observe, statement_max=NO_LIMIT)
            ) as live:
                at_ms = _stand_still(database_url, generation, live, times, observe)
                promotion = _Promotion(generation, at_ms, observe, keep_losses=keep_losses)
                live.commit_together(promotion.batches)
            fact = promotion.fact
        else:
            fact = done
    project(database_url, base)
    return {"generation": number, "adjusted": base, "already": done is not None, **_without_name(fact)}


def planned(database_url: str, number: int, *, keep_losses: bool = False) -> dict[str, Any]:
    """Return the adjustments that `promote_as_adjustments` would write, the largest change first.

    The shadow is brought up to the live head; nothing else is written. Events that arrive meanwhile may be missing, and
    so are rewards of a tier that only the adjusted status reaches.

    Raises:
        InputError, AnswerIsNo, ServiceUnreachable: as `promote_as_adjustments`.
    """
    with closing(
        connect(database_url, application="guerdon promote", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
    ) as holding:
        generation, base, done = _begin(holding, number, keep_losses=keep_losses)
        changes: list[dict[str, Any]] = []
        totals = Totals()
        if done is None:
            bring_up(database_url, generation)
            with holding, holding.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                _check_all_are_judged(cursor, generation)
                add_up(cursor, base, number)
                cursor.execute(_WANTED, _parameters(None, keep_losses=keep_losses))
                for member_id, unit, change in cursor:
                    totals.add(unit, int(change))
                    changes.append({"member_id": member_id, "unit": unit, "change": int(change)})
    changes.sort(key=lambda row: -abs(row["change"]))
    plan = {"losses": _losses(keep_losses=keep_losses), **totals.document(), "changes": changes}
    return {"generation": number, "adjusted": base, "already": done is not None, **plan}


def _begin(holding: Any, number: int, *, keep_losses: bool) -> tuple[Generation, int, dict[str, Any] | None]:
    """Lock a generation for this connection; return it, the live one, and the record of an earlier promotion."""
    with holding, holding.cursor() as cursor:
        # it must be a shadow that judges otherwise
        generation = shadows.get(cursor, number)
        live = live_generation.writable(cursor)
        if generation.status == "live":
            raise AnswerIsNo(f"generation {number} is live: members have what it gives; name a shadow")
        if generation.base is None:
            raise AnswerIsNo(
                f"generation {number} was live before, and may have adjustments of its own; `--as swap` brings it "
                "back; to adjust, replay its file anew and promote what comes out"
            )
        if generation.repeats:
            raise AnswerIsNo(f"generation {number} repeats generation {generation.base}: there is nothing to adjust")

        shadows.lock(cursor, number)
        done = adjustments.recorded(cursor, live, number)

    if done is not None and done["losses"] != _losses(keep_losses=keep_losses):
        raise AnswerIsNo(
            f"generation {number} was promoted as adjustments before, with `--losses {done['losses']}`; to compare "
            f"anew, discard it and replay its file again"
        )
    return generation, live, done


def _check_all_are_judged(cursor: Cursor, generation: Generation) -> None:
    """Refuse to go on while a member is held on one of the two sides, so that their balance is not known yet."""
    check_held(cursor, generation)
    members = quarantine.suspended_members(cursor)
    if members:
        raise AnswerIsNo(
            f"members are held whose events wait ({', '.join(members[:5])}), so that what they have is not known yet; "
            "nothing was written: see `guerdon quarantine list` and release them first"
        )


def _losses(*, keep_losses: bool) -> str:
    return "keep" if keep_losses else "take"


def _without_name(fact: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fact.items() if name not in {"towards", "rule_version"}}


def _parameters(is_status: bool | None, *, keep_losses: bool) -> dict[str, Any]:  # noqa: FBT001  None: all units
    return {"items": list(ITEM_UNITS), "is_status": is_status, "keep_losses": keep_losses}


def _stand_still(
    database_url: str, generation: Generation, live: LiveTransaction, times: Times, observe: Callable[[str], None]
) -> int:
    """Let nobody else evaluate, bring both generations to one place in the log and in time, and return that time.

    Ticks perform what is due in both of them: otherwise a lot that has lapsed in one generation only would count as
    kept in the other.
    """
    # nobody else evaluates from here on
    try:
        live.hold_still(times.lock_timeout_s)
    except LockNotAvailable as error:
        raise locked_out(database_url, times.lock_timeout_s) from error
    observe("after lock")

    # to the end of the log
    fold_on(database_url, generation, is_still=True)
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        at_ms = adjustments.reached_ms(cursor, times.lateness_ms)
        due = adjustments.due(cursor, generation, at_ms)

    # to one time: a tick in the live generation is a source event, which the shadow folds
    while due:
        for shard in due:
            live.commit(Batch(clock=ClockMove(at_ms, hourly=False, reached_ms=at_ms, shards=(shard,))))
        observe("after ticks")
        fold_on(database_url, generation, is_still=True)

        # each round must leave less
        before = sum(due.values())
        with transaction(database_url, statement_max=NO_LIMIT) as cursor:
            due = adjustments.due(cursor, generation, at_ms)
        if sum(due.values()) >= before:
            raise AnswerIsNo(
                f"what is due for members of shard {min(due)} could not be performed; nothing was written: see "
                "`guerdon quarantine list`"
            )
    observe("after drain")
    return at_ms


class _Promotion:
    """Yield the adjustments of one promotion, within the transaction that writes them."""

    def __init__(
        self, generation: Generation, at_ms: int, observe: Callable[[str], None], *, keep_losses: bool
    ) -> None:
        self._generation = generation
        self._at_ms = at_ms
        self._keep_losses = keep_losses
        self._observe = observe
        self.fact: dict[str, Any] = {}

    def batches(self, cursor: Cursor) -> Iterator[Batch]:
        """Yield the batches, and record at the end that it was done.

        Raises:
            AnswerIsNo: a member's balance is not known on one of the two sides.
        """
        # both generations must be at the same place
        live, number = live_generation.live(cursor), self._generation.number
        if shadows.positions(cursor, number) != shadows.positions(cursor, live):
            raise AnswerIsNo(f"generation {number} did not reach the live head; nothing was written: try again")
        _check_all_are_judged(cursor, self._generation)
        secret = digest_secret.read(cursor)

        # status first: a tier that it reaches may give points by a rule, and these must not be given twice
        totals = Totals()
        for is_status in (True, False):
            for batch in self._differing(cursor, live, secret, is_status=is_status):
                for each in batch.admitted:
                    totals.add(each.event.unit, each.event.amount)  # type: ignore[attr-defined]  # an adjustment
                yield batch
            self._observe(f"after {'status' if is_status else 'balances'}")

        self.fact = {
            "towards": number,
            "rule_version": self._generation.file_version,
            "losses": _losses(keep_losses=self._keep_losses),
            **totals.document(),
        }
        adjustments.record(cursor, live, self.fact)

    def _differing(self, cursor: Cursor, live: int, secret: bytes, *, is_status: bool) -> Iterator[Batch]:
        """Yield the adjustments of status, or of all other units, by the difference at the time of the call."""
        _set_joins(cursor, "on")
        add_up(cursor, live, self._generation.number)
        with cursor.connection.cursor("adjustments") as rows:
            rows.itersize = BATCH_EVENTS
            rows.execute(_WANTED, _parameters(is_status, keep_losses=self._keep_losses))
            _set_joins(cursor, "off")
            while page := rows.fetchmany(BATCH_EVENTS):
                yield Batch([self._admitted(row, secret) for row in page])

    def _admitted(self, row: tuple[str, str, Decimal], secret: bytes) -> Admitted:
        member_id, unit, change = row
        amount = max(-INT64_MAX, min(INT64_MAX, int(change)))
        event = adjustment(self._generation.number, member_id, unit, amount, self._at_ms)
        return Admitted(
            event=event,
            kind=KIND,
            member_id=member_id,
            shard=shard_of(member_id),
            identity=event_identity(event.source, event.event_id),
            digest=content_digest(event, secret),
            order_identity=None,
            schema_id=personal.OWN_FORMAT,
            payload=msgpack.encode(event),
        )


def _set_joins(cursor: Cursor, value: str) -> None:
    """Allow the joins that sums over both logs need, or forbid them again for statements that look up few rows."""
    for name in FOREGONE:
        cursor.execute("SELECT set_config(%s, %s, true)", (name, value))
