"""Keep the versions of the programme, and turn one on in every shard at once."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import msgpack
from psycopg2.extras import Json

from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.rules.judge import moves_members
from engine.store.cursor import one
from engine.store.generations import live_generation
from engine.store.logs import source_log
from schemas.errors import AnswerIsNo
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from engine.programme.compile.module import CompiledJudge
    from engine.programme.conditions import Metric
    from engine.programme.model import Programme
    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import Head


class Version(NamedTuple):
    """Hold one activated version of the programme."""

    version: int
    programme: str
    currency: str
    digest: str
    file_name: str
    body: str
    activated_at: datetime


_SELECT = "SELECT version, programme, currency, digest, file_name, body, activated_at FROM guerdon.programme_version"


def versions(cursor: Cursor) -> list[Version]:
    """Return every version that was active, the oldest first."""
    cursor.execute(f"{_SELECT} WHERE NOT replayed ORDER BY version")
    return [Version(*row) for row in cursor.fetchall()]


def active(cursor: Cursor) -> Version | None:
    """Return the version by which the live generation judges what comes now; None before the first activation."""
    cursor.execute(
        f"""
        {_SELECT} WHERE version = (
            SELECT h.version FROM guerdon.generation_head h JOIN guerdon.generation g USING (generation)
            WHERE g.status = 'live' ORDER BY h.shard LIMIT 1
        )
        """
    )
    row = cursor.fetchone()
    return None if row is None else Version(*row)


def body_of(cursor: Cursor, version: int) -> str:
    """Return the file of `version` as it was activated."""
    (body,) = one(cursor, "SELECT body FROM guerdon.programme_version WHERE version = %s", (version,))
    return str(body)


def judged_as(cursor: Cursor, version: int) -> Programme:
    """Return the programme of a version, and beside its metrics those that a later version has had from the start.

    Raises:
        LookupError: the version can no longer be loaded.
    """
    programme = _loaded(body_of(cursor, version), version)
    cursor.execute(
        """
        SELECT version, body, backfilled FROM guerdon.programme_version
        WHERE version > %s AND backfilled <> '{}' ORDER BY version
        """,
        (version,),
    )
    for later, body, backfilled in cursor.fetchall():
        programme = with_metrics(programme, [each for each in _loaded(body, later).metrics if each.key in backfilled])
    return programme


def with_metrics(programme: Programme, metrics: Sequence[Metric]) -> Programme:
    """Return a programme that counts metrics beside its own, where it does not have them."""
    own = {metric.key for metric in programme.metrics}
    more = tuple(metric for metric in metrics if metric.key not in own)
    return replace(programme, metrics=programme.metrics + more) if more else programme


@lru_cache(maxsize=32)
def _loaded(body: str, version: int) -> Programme:
    programme = load_programme(body, f"version {version}").programme
    if programme is None:
        raise LookupError(f"version {version} of the programme can no longer be loaded by this release")
    return programme


def metrics_known(cursor: Cursor, generation: int) -> frozenset[str]:
    """Return the keys of all metrics that any version in a generation's schedule has counted."""
    cursor.execute(
        "SELECT DISTINCT version FROM guerdon.generation_schedule WHERE generation = %s ORDER BY version", (generation,)
    )
    versions_ = [version for (version,) in cursor.fetchall()]
    return frozenset(metric.key for version in versions_ for metric in judged_as(cursor, version).metrics)


def activate(
    cursor: Cursor,
    programme: Programme,
    body: str,
    file_name: str,
    backfilled: Sequence[str] = (),
    join: Callable[[dict[int, int]], None] = lambda _upto: None,
) -> int:
    """Store a version, put its activation into every shard, and return its number.

    It takes all heads, so it falls between two transactions of every worker: what a shard holds before it was judged by
    the old version, what comes after it, late events too, by the new one. What was due by itself up to the latest event
    or tick of the shard is still the old one's. Where its tiers or its days differ, the ticks that follow review every
    member.

    Args:
        cursor: of the transaction.
        programme: what is to judge.
        body: its file.
        file_name: what the file is called.
        backfilled: keys of metrics that are counted from the first event on.
        join: is called with every head held, and the seq of each; it brings those metrics into the states.

    Raises:
        AnswerIsNo: it is what is active already, or it counts in another currency than the log.
    """
    cursor.execute("SELECT shard, seq FROM guerdon.shard_head")
    read = {shard: (seq, source_log.latest_ms(cursor, shard, 0, seq)) for shard, seq in cursor.fetchall()}
    generation = live_generation.lock_live(cursor)
    cursor.execute("LOCK TABLE guerdon.programme_version IN SHARE ROW EXCLUSIVE MODE")  # one activation at a time
    before = active(cursor)
    if before is not None:
        _check_follows(before, programme)
    heads = source_log.lock_heads(cursor, range(SHARDS), generation)
    join({head.shard: head.seq for head in heads.values()})
    version = add(cursor, programme, body, file_name)
    if backfilled:
        cursor.execute(
            "UPDATE guerdon.programme_version SET backfilled = %s WHERE version = %s", (list(backfilled), version)
        )
    reached: dict[int, int] = {}
    for shard, head in heads.items():
        seq, known_ms = read[shard]  # read before anybody was held up, which leaves little to read now
        reached[shard] = max(known_ms, source_log.latest_ms(cursor, shard, seq, head.seq))
    rows = _activations(heads, reached, (version, programme.digest), live_generation.now_ms(cursor))
    if before is not None and _moves_members(before, programme):
        _review_everybody(cursor, reached)
    rows.write_events(cursor)
    source_log.save_heads(cursor, heads.values(), generation)
    cursor.execute(
        """
        INSERT INTO guerdon.generation_schedule (generation, shard, from_seq, version, at)
        SELECT h.generation, h.shard, h.seq, h.version, to_timestamp(r.reached_ms / 1000.0)
        FROM guerdon.generation_head h
        JOIN unnest(%s::smallint[], %s::bigint[]) AS r (shard, reached_ms) USING (shard)
        WHERE h.generation = %s
        """,
        (list(reached), list(reached.values()), generation),
    )
    return version


def _activations(
    heads: Mapping[int, Head], reached_ms: Mapping[int, int], version: tuple[int, str], recorded_ms: int
) -> source_log.SourceRows:
    """Return the activation of a version, by number and digest, as each shard's next source event."""
    rows, (number, digest) = source_log.SourceRows(), version
    told = {"version": number, "digest": digest, "tzdata": package_version("tzdata")}
    for shard, head in heads.items():
        head.record_at(max(head.recorded_ms, recorded_ms))
        head.version = number
        payload = msgpack.encode({**told, "reached_ms": reached_ms[shard]})
        rows.append_own("activation", head, "", 0, f"activation-{number}", payload)
    return rows


def _check_follows(before: Version, programme: Programme) -> None:
    """Refuse what is active already, or counts in another currency."""
    if before.digest == programme.digest:
        raise AnswerIsNo(
            f"version {before.version} is this very programme and is active already; edit the file to change it"
        )
    if before.currency != programme.currency:
        raise AnswerIsNo(
            f"the log counts in {before.currency} and the file in {programme.currency}; "
            "a programme keeps its currency: use a database of its own"
        )


def add(cursor: Cursor, programme: Programme, body: str, file_name: str, *, replayed: bool = False) -> int:
    """Store a version and return its number; with `replayed` it judges in a replay only, until that is promoted."""
    (version,) = one(cursor, "SELECT coalesce(max(version), 0) + 1 FROM guerdon.programme_version")
    tiers = tiers_document(programme)
    cursor.execute(
        """
        INSERT INTO guerdon.programme_version
            (version, programme, currency, digest, tzdata, file_name, body, lowest_tier, tiers, timezone, replayed)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            *(version, programme.id, programme.currency, programme.digest, package_version("tzdata")),
            *(file_name, body, programme.lowest_tier, tiers and Json(tiers), programme.timezone, replayed),
        ),
    )
    return int(version)


def tiers_document(programme: Programme) -> dict[str, Any] | None:
    """Return what decides tiers, as `reward.tier_as_of` reads it; None where there are none."""
    tiers = programme.terms.tiers
    if tiers is None:
        return None
    return {
        "metric": None if tiers.metric is None else tiers.metric.key,
        "window": tiers.window.value,
        "over": None if tiers.over is None else asdict(tiers.over),
        "downgrade": tiers.downgrade.value,
        "grace": None if tiers.grace is None else asdict(tiers.grace),
        "levels": [[level.id, level.start] for level in tiers.levels],
    }


def with_digest(cursor: Cursor, digest: str) -> int | None:
    """Return the newest version with this content, None where there is none."""
    cursor.execute("SELECT max(version) FROM guerdon.programme_version WHERE digest = %s", (digest,))
    row = cursor.fetchone()
    return None if row is None or row[0] is None else int(row[0])


def number_for(cursor: Cursor, programme: Programme) -> int:
    """Return the number that a programme has, or would have if it became the next version."""
    known = with_digest(cursor, programme.digest)
    if known is not None:
        return known
    (newest,) = one(cursor, "SELECT coalesce(max(version), 0) FROM guerdon.programme_version")
    return int(newest) + 1


def _moves_members(before: Version, programme: Programme) -> bool:
    old = load_programme(before.body, f"version {before.version}").programme
    return old is None or moves_members(old, programme)


def _review_everybody(cursor: Cursor, reached_ms: Mapping[int, int]) -> None:
    """Let ticks find every member when what was due by the activation's instant is done; the caller holds all heads."""
    for shard, at_ms in reached_ms.items():
        cursor.execute(
            """
            UPDATE guerdon.member_state SET due_at = least(due_at, to_timestamp(%s / 1000.0)) WHERE shard = %s
            """,
            (at_ms + 1, shard),
        )


def load_judge(cursor: Cursor, version: int) -> CompiledJudge:
    """Compile the programme that was activated as `version`, with what later versions have counted from the start."""
    return compile_programme(judged_as(cursor, version), version)
