"""Find out whether anything is stuck, and name it with the way out: `guerdon status` and its `--check`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from engine.store import quarantine
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import meanings
from engine.store.kafka.offsets import frontiers
from engine.store.kafka.short_form import expanded
from operations.intake import offsets
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.intake.batch import Partition
    from engine.store.cursor import Cursor
    from engine.store.kafka.offsets import Frontier
    from operations.settings import Settings

LIVES_WITHIN_S = 20.0
"""A worker writes its row every 5 s; one that has not written it for this long is dead, stopped, or cut off."""

TURNS_WITHIN_S = 30.0
"""A worker whose loop has not gone round for this long stands still."""

OLD_BATCH_S = 60.0
"""Where events wait for a worker that has committed nothing for this long, positions are watched for PATIENCE_S."""

PATIENCE_S = 3.0
"""Within this time, an event that came a moment ago is taken."""

LOOK_S = 0.25
PARTS = {
    "writer_why": "writer",
    "projector_why": "projector",
    "publisher_why": "publisher",
    "facts_why": "fold of facts",
}

Kind = Literal["other_meaning", "no_worker", "stuck", "stopped", "old_batch", "paused", "held", "lag"]
"""The kinds of troubles, the gravest first; docs/operations.md says of each what to do."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Hold the state of the installation, apart from services and lag."""

    workers: list[dict[str, Any]]
    """The rows of all workers that have not left, with ages in seconds, and whether each `lives`."""

    recorded_s: float | None
    """How long ago an event was last recorded; None: none ever was."""

    quarantine: dict[str, int]
    """Open records, by reason."""

    held: int
    """Members who are held."""

    generation: int
    """The live generation."""

    meaning: int
    """The meaning that has decided it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Name something that is stuck: its kind, for a machine, and a sentence with the way out."""

    kind: Kind
    sentence: str


class _Reader(NamedTuple):
    """Hold the partitions that are behind and that a living worker reads; `worker` is None for those nobody reads."""

    worker: str | None
    idle_s: float
    """The time since the worker's last batch; for partitions that nobody reads, since the last batch of anybody."""

    behind: dict[Partition, Mapping[str, Any]]
    """The rows of `offsets.listed`, by partition."""


def overview(settings: Settings) -> Overview:
    """Return the state of the installation, as the database knows it now.

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
        SELECT worker, group_id, version, partitions, writer_why, projector_why, publisher_why, facts_why,
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
    settings: Settings, state: Overview, lag: Sequence[Mapping[str, Any]], lag_max: int | None = None
) -> list[dict[str, str]]:
    """Return everything that is stuck, the gravest first.

    Args:
        settings: name the addresses.
        state: the document of `overview`.
        lag: the rows of `operations.intake.lag`.
        lag_max: a topic or projection that is further behind counts as stuck, too.

    Raises:
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    rows = offsets.listed(settings)
    stuck = [
        *_other_meaning(state),
        *_dead(state),
        *_stopped(rows),
        *_standing(settings, state, rows),
        *_paused(state),
        *_held(state),
        *([] if lag_max is None else _behind(lag, lag_max)),
    ]
    return [asdict(trouble) for trouble in stuck]


def _other_meaning(state: Overview) -> list[Trouble]:
    """Report that this release decides differently from the live generation's release, so that no worker goes on."""
    try:
        meanings.refuse_live(state.generation, state.meaning)
    except AnswerIsNo as why:
        return [Trouble("other_meaning", str(why))]
    return []


def _dead(state: Overview) -> list[Trouble]:
    """Report that no worker lives, or those workers whose loop stands still."""
    living = [row for row in state.workers if row["lives"]]
    if not living:
        last = min(state.workers, key=lambda row: float(row["seen_s"]), default=None)
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
    """Report stopped partitions; most of the reasons already name the partition and the way out."""
    return [
        Trouble("stopped", why if place in why else f"{place} is stopped: {why}")
        for row in rows
        if (why := row["stopped"]) and (place := f"{row['topic']} partition {row['partition']}")
    ]


def _standing(settings: Settings, state: Overview, rows: Sequence[Mapping[str, Any]]) -> list[Trouble]:
    """Report the workers for which events wait and which commit nothing, however well others do; watch them before."""
    # each worker by its own last batch: one that is held up shows nowhere while others commit
    readers = _readers(settings, state, rows)
    standing = [reader for reader in readers if reader.behind and reader.idle_s >= OLD_BATCH_S]

    # what waits may be taken in this moment
    deadline = time.monotonic() + PATIENCE_S
    while standing and time.monotonic() < deadline:
        positions = _positions(settings, standing)
        standing = [reader for reader in standing if not _has_moved(reader, positions)]
        time.sleep(LOOK_S)
    if not standing:
        return []

    # who is ahead in event time waits for those who work off what is earlier
    positions = _positions(settings, readers)
    going = [reader for reader in readers if reader.worker is not None and reader not in standing]
    earliest_ms = min(filter(None, (_at_ms(reader, positions) for reader in going)), default=None)
    if earliest_ms is not None:
        limit_ms = earliest_ms + settings.alignment_s * 1000
        standing = [reader for reader in standing if (_at_ms(reader, positions) or 0) <= limit_ms]
    return [Trouble("old_batch", _wait_of(reader)) for reader in standing]


def _readers(settings: Settings, state: Overview, rows: Sequence[Mapping[str, Any]]) -> list[_Reader]:
    """Return what is behind and not stopped, by the living worker that reads it; last, what nobody reads."""
    stopped = {row["partition"] for row in rows if row["stopped"]}
    behind = {(row["topic"], row["partition"]): row for row in rows if row["lag"] and row["partition"] not in stopped}
    living = [row for row in state.workers if row["lives"]]
    if not living:
        return []

    readers = []
    unread = dict(behind)
    for row in living:
        its = behind.keys() & expanded(row["partitions"], settings.topic_prefix)
        readers.append(_Reader(row["worker"], _idle_s(row), {each: behind[each] for each in sorted(its)}))
        for each in its:
            unread.pop(each, None)
    return [*readers, _Reader(None, min(map(_idle_s, living)), unread)]


def _idle_s(worker: Mapping[str, Any]) -> float:
    last_batch_s = worker["last_batch_s"]
    return float(worker["started_s"] if last_batch_s is None else last_batch_s)


def _positions(settings: Settings, readers: Sequence[_Reader]) -> dict[Partition, Frontier]:
    topics = {topic for reader in readers for topic, _ in reader.behind}
    with transaction(settings.database_url) as cursor:
        return frontiers(cursor, topics)


def _has_moved(reader: _Reader, positions: Mapping[Partition, Frontier]) -> bool:
    return any(positions[each].offset != row["next_offset"] for each, row in reader.behind.items())


def _at_ms(reader: _Reader, positions: Mapping[Partition, Frontier]) -> int | None:
    """Return the event time before which nothing more comes of what is behind; silent numbers hold nobody up."""
    silent = {each[1] for each in reader.behind if positions[each].is_silent}
    return min((positions[each].at_ms for each in reader.behind if each[1] not in silent), default=None)


def _wait_of(reader: _Reader) -> str:
    waiting = sum(row["lag"] for row in reader.behind.values())
    if reader.worker is None:
        return (
            f"{waiting:,} events wait in partitions that no worker reads, and nothing was committed for "
            f"{age(reader.idle_s)}: the workers' logs say which partitions were `assigned`"
        )
    return (
        f"{waiting:,} events wait for the worker {reader.worker}, which has committed nothing for "
        f"{age(reader.idle_s)}: its log says what it waits for"
    )


def pauses(worker: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the parts of a worker that pause, each with its reason in a line."""
    return [(part, " ".join(worker[name].split())) for name, part in PARTS.items() if worker[name]]


def _paused(state: Overview) -> list[Trouble]:
    return [
        Trouble("paused", f"the {part} of {row['worker']} pauses, and goes on when this is mended: {why}")
        for row in state.workers
        if row["lives"]
        for part, why in pauses(row)
    ]


def _held(state: Overview) -> list[Trouble]:
    if not state.held:
        return []
    who = "1 member is" if state.held == 1 else f"{state.held:,} members are"
    way_out = "`guerdon quarantine list --held` says why, `guerdon quarantine release ID` judges what waited"
    return [Trouble("held", f"{who} held, and their events wait: {way_out}")]


def _behind(lag: Sequence[Mapping[str, Any]], lag_max: int) -> list[Trouble]:
    """Report what is further behind, except facts that are off or let events go first."""
    return [
        Trouble(
            "lag",
            f"{row['what']} is {row['lag']:,} {row['unit']} behind, more than {lag_max:,}: start more workers, "
            "or see their logs for what holds them up",
        )
        for row in lag
        if row["lag"] > lag_max and not (row["what"] == "facts" and row["stopped"])
    ]


def age(seconds: float) -> str:
    """Return a time span as a person says it, in the largest unit that it has twice."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(seconds: float | None) -> str:
    """Return how long ago something was; "never" for None."""
    return "never" if seconds is None else f"{age(max(0.0, seconds))} ago"
