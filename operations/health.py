"""Tell whether everything moves, and name what does not with the way out: `guerdon status` and its `--check`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.store import quarantine
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import meanings
from operations.intake import offsets
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.store.cursor import Cursor
    from operations.settings import Settings

LIVES_WITHIN_S = 20.0
"""A worker tells of itself every 5 s; one that has not for so long is dead, or stopped, or cut off."""

TURNS_WITHIN_S = 30.0
OLD_BATCH_S = 60.0
"""With nothing committed for so long while events wait, it is looked whether anything moves at all."""

PATIENCE_S = 3.0
"""How long that look takes: an event that came a moment ago is taken within it."""

LOOK_S = 0.25
PARTS = {"writer_why": "writer", "projector_why": "projector", "publisher_why": "publisher"}


@dataclass(frozen=True, slots=True)
class Overview:
    """Hold what there is to know beside services and lag.

    `workers` are the rows of all that have told of themselves and not left, with the ages of what they told in
    seconds and `lives`; `recorded_s` is how long ago anything was last recorded, by whomever, None: nothing ever was.
    `generation` is live, and was decided by `meaning`.
    """

    workers: list[dict[str, Any]]
    recorded_s: float | None
    quarantine: dict[str, int]
    held: int
    generation: int
    meaning: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Name something that does not move: its kind, for a machine, and a sentence with the way out."""

    kind: str
    sentence: str


def overview(settings: Settings) -> Overview:
    """Return what the database knows now.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
        InputError: the database has no tables of Guerdon's, or not yet those of this release.
    """
    with transaction(settings.database_url) as cursor:
        if one(cursor, "SELECT to_regclass('guerdon.worker') IS NULL") == (True,):
            raise InputError("the database is of an earlier release: run `guerdon init`, which migrates it")
        (recorded_s,) = one(
            cursor,
            """
            SELECT extract(epoch FROM clock_timestamp() - max(recorded_at))::float FROM guerdon.shard_head WHERE seq > 0
            """,
        )
        aside, held = quarantine.counts(cursor), quarantine.count_suspended(cursor)
        return Overview(_workers(cursor), recorded_s, aside, held, *meanings.live(cursor))


def _workers(cursor: Cursor) -> list[dict[str, Any]]:
    rows = dictionaries(
        cursor,
        """
        SELECT worker, group_id, version, partitions, writer_why, projector_why, publisher_why,
               extract(epoch FROM clock_timestamp() - started_at)::float AS started_s,
               extract(epoch FROM clock_timestamp() - seen_at)::float AS seen_s,
               extract(epoch FROM clock_timestamp() - turned_at)::float AS turned_s,
               extract(epoch FROM clock_timestamp() - last_batch_at)::float AS last_batch_s
        FROM guerdon.worker ORDER BY started_at, worker
        """,
    )
    for row in rows:
        row["lives"] = row["seen_s"] < LIVES_WITHIN_S
    return rows


def troubles(
    settings: Settings, found: Overview, lag: Sequence[Mapping[str, Any]], lag_max: int | None = None
) -> list[dict[str, str]]:
    """Return what does not move, the gravest first; nothing where everything does.

    Args:
        settings: addresses.
        found: what the database says.
        lag: the rows of `operations.intake.lag`.
        lag_max: what is further behind than this is named, too.

    Raises:
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    rows = offsets.listed(settings)
    named = [
        *_otherwise(found),
        *_dead(found),
        *_stopped(rows),
        *_standing(settings, found, rows),
        *_paused(found),
        *_held(found),
        *([] if lag_max is None else _behind(lag, lag_max)),
    ]
    return [asdict(trouble) for trouble in named]


def _otherwise(found: Overview) -> list[Trouble]:
    """Name that this release decides otherwise than what is live was decided, so that no worker goes on."""
    try:
        meanings.refuse_live(found.generation, found.meaning)
    except AnswerIsNo as why:
        return [Trouble("other_meaning", str(why))]
    return []


def _dead(found: Overview) -> list[Trouble]:
    """Name that no worker lives, or those whose loop stands still."""
    living = [row for row in found.workers if row["lives"]]
    if not living:
        last = min(found.workers, key=lambda row: float(row["seen_s"]), default=None)
        seen = "" if last is None else f" ({last['worker']} was last seen {ago(last['seen_s'])})"
        return [Trouble("no_worker", f"no worker lives{seen}: start one with `guerdon run`")]
    return [
        Trouble(
            "stuck",
            f"the worker {row['worker']} lives, but its loop has not gone round for {age(row['turned_s'])}: "
            "see its log, then start it anew",
        )
        for row in living
        if row["turned_s"] - row["seen_s"] > TURNS_WITHIN_S
    ]


def _stopped(rows: Sequence[Mapping[str, Any]]) -> list[Trouble]:
    """Name what is stopped; most of the reasons name the partition and the way out themselves."""
    return [
        Trouble("stopped", why if place in why else f"{place} is stopped: {why}")
        for row in rows
        if (why := row["stopped"]) and (place := f"{row['topic']} partition {row['partition']}")
    ]


def _standing(settings: Settings, found: Overview, rows: Sequence[Mapping[str, Any]]) -> list[Trouble]:
    """Name that events wait and none was taken for long, while somebody lives who should; look twice before."""
    stopped = {row["partition"] for row in rows if row["stopped"]}
    behind = {
        (row["topic"], row["partition"]): row["next_offset"]
        for row in rows
        if row["lag"] and row["partition"] not in stopped
    }
    idle_s = min((_idle_s(row) for row in found.workers if row["lives"]), default=None)
    if not behind or idle_s is None or idle_s < OLD_BATCH_S:
        return []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if _moved(settings, behind):
            return []
        time.sleep(LOOK_S)
    waiting = sum(row["lag"] for row in rows if (row["topic"], row["partition"]) in behind)
    return [
        Trouble(
            "old_batch",
            f"{waiting:,} events wait and the last batch was committed {age(idle_s)} ago or longer: "
            "the workers' logs say what they wait for",
        )
    ]


def _idle_s(worker: Mapping[str, Any]) -> float:
    last_batch_s = worker["last_batch_s"]
    return float(worker["started_s"] if last_batch_s is None else last_batch_s)


def _moved(settings: Settings, behind: Mapping[tuple[str, int], int]) -> bool:
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT topic, partition, next_offset FROM guerdon.consumer_offset")
        return any(behind.get((topic, number), at) != at for topic, number, at in cursor.fetchall())


def pauses(worker: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return which parts of a worker do not go on, each with its reason in a line."""
    return [(part, " ".join(worker[name].split())) for name, part in PARTS.items() if worker[name]]


def _paused(found: Overview) -> list[Trouble]:
    return [
        Trouble("paused", f"the {part} of {row['worker']} pauses, and goes on when this is mended: {why}")
        for row in found.workers
        if row["lives"]
        for part, why in pauses(row)
    ]


def _held(found: Overview) -> list[Trouble]:
    if not found.held:
        return []
    who = "1 member is" if found.held == 1 else f"{found.held:,} members are"
    way_out = "`guerdon quarantine list` says why, `guerdon quarantine release ID` judges what waited"
    return [Trouble("held", f"{who} held, and their events wait: {way_out}")]


def _behind(lag: Sequence[Mapping[str, Any]], lag_max: int) -> list[Trouble]:
    return [
        Trouble(
            "lag",
            f"{row['what']} is {row['lag']:,} {row['unit']} behind, more than {lag_max:,}: start more workers, "
            "or see their logs for what holds them up",
        )
        for row in lag
        if row["lag"] > lag_max
    ]


def age(seconds: float) -> str:
    """Return a time span as a person says it, in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(seconds: float | None) -> str:
    """Return how long ago something was; "never" where it was not."""
    return "never" if seconds is None else f"{age(max(0.0, seconds))} ago"
