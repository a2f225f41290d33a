"""Keep the versions of the programme, and turn one on in every shard at once."""

from __future__ import annotations

from dataclasses import asdict, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import msgpack
from psycopg2.extras import Json

from engine.explain.values import percent
from engine.programme.compile.module import compile_programme
from engine.programme.conditions import Every
from engine.programme.file.load import load_programme
from engine.programme.rules.budgets import budget_key, budget_of
from engine.programme.rules.cohorts import TREAT_OF
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
    enters_cohorts: bool


_SELECT = (
    "SELECT version, programme, currency, digest, file_name, body, activated_at, enters_cohorts "
    "FROM guerdon.programme_version"
)


def versions(cursor: Cursor) -> list[Version]:
    """Return every version that was activated, the oldest first."""
    cursor.execute(f"{_SELECT} WHERE NOT replayed ORDER BY version")
    return [Version(*row) for row in cursor.fetchall()]


def active(cursor: Cursor) -> Version | None:
    """Return the version that judges new events in the live generation; None before the first activation."""
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
    """Return the programme of a version with its own metrics and those that later versions have backfilled.

    Raises:
        LookupError: the version can no longer be loaded.
    """
    body, enters_cohorts = one(
        cursor, "SELECT body, enters_cohorts FROM guerdon.programme_version WHERE version = %s", (version,)
    )
    programme = replace(_loaded(body, version), enters_cohorts=enters_cohorts)
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
    """Return the programme with further metrics; one that it has already stays its own."""
    own = {metric.key for metric in programme.metrics}
    more = tuple(metric for metric in metrics if metric.key not in own)
    return replace(programme, metrics=programme.metrics + more) if more else programme


def as_stored(cursor: Cursor, programme: Programme) -> Programme:
    """Return a programme as the newest version of this very file judges; a new file judges as this release does."""
    cursor.execute(
        "SELECT enters_cohorts FROM guerdon.programme_version WHERE digest = %s ORDER BY version DESC LIMIT 1",
        (programme.digest,),
    )
    row = cursor.fetchone()
    return programme if row is None else replace(programme, enters_cohorts=row[0])


@lru_cache(maxsize=32)
def _loaded(body: str, version: int) -> Programme:
    programme = load_programme(body, f"version {version}", was_activated=True).programme
    if programme is None:
        raise LookupError(f"version {version} of the programme can no longer be loaded by this release")
    return programme


def metrics_known(cursor: Cursor, generation: int) -> frozenset[str]:
    """Return the keys of all metrics that the versions in a generation's schedule have counted."""
    cursor.execute(
        "SELECT DISTINCT version FROM guerdon.generation_schedule WHERE generation = %s ORDER BY version", (generation,)
    )
    numbers = [version for (version,) in cursor.fetchall()]
    return frozenset(metric.key for number in numbers for metric in judged_as(cursor, number).metrics)


def activate(
    cursor: Cursor,
    programme: Programme,
    body: str,
    file_name: str,
    backfilled: Sequence[str] = (),
    join: Callable[[dict[int, int]], None] = lambda _upto: None,
) -> int:
    """Store a version, put its activation into every shard, and return its number.

    The activation locks all heads, so it falls between two transactions of every worker. The old version has judged
    all events before it in a shard, and the new one judges all events after it, late ones too. The old version still
    performs all that was due up to the latest event or tick of the shard. If tiers or local days differ, the ticks that
    follow review every member.

    Args:
        cursor: belongs to the transaction.
        programme: the programme that judges from now on.
        body: the text of its file.
        file_name: the name of the file.
        backfilled: keys of metrics that are counted from the first event on.
        join: brings those metrics into the states; it is called with the seq of every shard, whose head is locked.

    Raises:
        AnswerIsNo: the programme is active already, counts in another currency than the log, or has another split
            under a salt than an earlier version.
    """
    # read the log before anybody is held up, which leaves little to read under the locks
    cursor.execute("SELECT shard, seq FROM guerdon.shard_head")
    latest = {shard: (seq, source_log.latest_ms(cursor, shard, 0, seq)) for shard, seq in cursor.fetchall()}

    # one activation at a time
    generation = live_generation.lock_live(cursor)
    cursor.execute("LOCK TABLE guerdon.programme_version IN SHARE ROW EXCLUSIVE MODE")
    before = active(cursor)
    if before is not None:
        _check_follows(before, programme)
    _check_splits(cursor, programme)

    # store the version, and count its backfilled metrics up to the heads
    heads = source_log.lock_heads(cursor, range(SHARDS), generation)
    join({head.shard: head.seq for head in heads.values()})
    version = add(cursor, programme, body, file_name)
    if backfilled:
        cursor.execute(
            "UPDATE guerdon.programme_version SET backfilled = %s WHERE version = %s", (list(backfilled), version)
        )

    # append the activation to every shard, with the instant up to which the old version performs what is due
    reached: dict[int, int] = {}
    for shard, head in heads.items():
        seq, latest_ms = latest[shard]
        reached[shard] = max(latest_ms, source_log.latest_ms(cursor, shard, seq, head.seq))
    rows = _activations(heads, reached, number=version, digest=programme.digest, now_ms=live_generation.now_ms(cursor))
    if before is not None and _moves_members(before, programme):
        _review_everybody(cursor, reached)
    rows.write_events(cursor)
    source_log.save_heads(cursor, heads.values(), generation)
    _add_to_schedule(cursor, generation, reached)
    return version


def _add_to_schedule(cursor: Cursor, generation: int, reached_ms: Mapping[int, int]) -> None:
    """Add the version of each saved head to the live schedule, with the instant that its shard had reached."""
    cursor.execute(
        """
        INSERT INTO guerdon.generation_schedule (generation, shard, from_seq, version, at)
        SELECT h.generation, h.shard, h.seq, h.version, to_timestamp(r.reached_ms / 1000.0)
        FROM guerdon.generation_head h
        JOIN unnest(%s::smallint[], %s::bigint[]) AS r (shard, reached_ms) USING (shard)
        WHERE h.generation = %s
        """,
        (list(reached_ms), list(reached_ms.values()), generation),
    )


def _activations(
    heads: Mapping[int, Head], reached_ms: Mapping[int, int], *, number: int, digest: str, now_ms: int
) -> source_log.SourceRows:
    """Return the activation of a version as each shard's next source event; the heads are moved on to it."""
    rows = source_log.SourceRows()
    version = {"version": number, "digest": digest, "tzdata": package_version("tzdata")}
    for shard, head in heads.items():
        head.record_at(max(head.recorded_ms, now_ms))
        head.version = number
        payload = msgpack.encode({**version, "reached_ms": reached_ms[shard]})
        rows.append_own("activation", head, event_id=f"activation-{number}", payload=payload)
    return rows


def _check_follows(before: Version, programme: Programme) -> None:
    """Refuse a programme that is active already, or that counts in another currency.

    The file of a version that does not write who enters its cohorts can be activated again, to begin with that.
    """
    begins_entries = programme.has_cohorts and not before.enters_cohorts
    if before.digest == programme.digest and not begins_entries:
        raise AnswerIsNo(
            f"version {before.version} is this very programme and is active already; edit the file to change it"
        )
    if before.currency != programme.currency:
        raise AnswerIsNo(
            f"the log counts in {before.currency} and the file in {programme.currency}; "
            "a programme keeps its currency: use a database of its own"
        )


def _check_splits(cursor: Cursor, programme: Programme) -> None:
    """Refuse a programme that does not divide members as the latest version with the same salt divides them."""
    cohorts = [(rule.id, rule.cohort) for rule in programme.rules if rule.cohort is not None]
    cursor.execute(
        """
        SELECT v.version, c.value->>'salt', (c.value->>'treat')::integer
        FROM guerdon.programme_version v, jsonb_each(v.cohorts) c
        WHERE NOT v.replayed AND c.value->>'salt' = ANY(%s) ORDER BY v.version
        """,
        ([cohort.salt for _, cohort in cohorts],),
    )

    # of each salt the splits in the latest version that has it
    splits: dict[str, tuple[int, set[int]]] = {}
    for version, salt, treat in cursor.fetchall():
        latest, treats = splits.get(salt, (0, set()))
        splits[salt] = (version, {treat} | (treats if latest == version else set()))

    # under one salt, another split would move members who are in the experiment to the other arm
    for rule_id, cohort in cohorts:
        version, treats = splits.get(cohort.salt, (0, {cohort.treat}))
        if cohort.treat not in treats:
            was, becomes = percent(max(treats), TREAT_OF), percent(cohort.treat, TREAT_OF)
            raise AnswerIsNo(
                f"the cohort of rule {rule_id} treats {becomes} of members, and version {version} treats {was} under "
                f'the same salt "{cohort.salt}": members would change arms; give the cohort another salt'
            )


def add(cursor: Cursor, programme: Programme, body: str, file_name: str, *, replayed: bool = False) -> int:
    """Store a version and return its number; with `replayed` it judges a replay only, until the replay is promoted."""
    (version,) = one(cursor, "SELECT coalesce(max(version), 0) + 1 FROM guerdon.programme_version")
    tiers = tiers_document(programme)
    cursor.execute(
        """
        INSERT INTO guerdon.programme_version
            (version, programme, currency, digest, tzdata, file_name, body, lowest_tier, tiers, timezone, replayed,
             cohorts, rules, enters_cohorts, costs, budgets)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            *(version, programme.id, programme.currency, programme.digest, package_version("tzdata")),
            *(file_name, body, programme.lowest_tier, tiers and Json(tiers), programme.timezone, replayed),
            *(Json(cohorts_document(programme)), Json(rules_document(programme)), programme.enters_cohorts),
            *(Json(costs_document(programme)), Json(budgets_document(programme))),
        ),
    )
    return int(version)


def tiers_document(programme: Programme) -> dict[str, Any] | None:
    """Return the terms of tiers as `reward.tier_as_of` reads them; None for a programme without tiers."""
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


def cohorts_document(programme: Programme) -> dict[str, dict[str, Any]]:
    """Return by rule the salt of its cohort, and how many members of 10,000 it treats."""
    return {
        rule.id: {"salt": rule.cohort.salt, "treat": rule.cohort.treat}
        for rule in programme.rules
        if rule.cohort is not None
    }


def rules_document(programme: Programme) -> dict[str, dict[str, Any]]:
    """Return by rule its campaign and its phase, as `reward.rule` shows them beside its cohort."""
    return {rule.id: {"campaign": rule.campaign, "phase": rule.phase.value} for rule in programme.rules}


def costs_document(programme: Programme) -> dict[str, str]:
    """Return in decimals the cost of a point in minor units and the margin of sales, as far as the programme says."""
    per_point, margin = programme.terms.points.liability_per_point, programme.terms.margin
    said = {"per_point": per_point, "margin": None if margin is None else Fraction(*margin)}
    return {
        name: str(Decimal(share.numerator) / share.denominator) for name, share in said.items() if share is not None
    }


def budgets_document(programme: Programme) -> list[dict[str, Any]]:
    """Return the budgets of campaigns in the order of the rules, each with the rules that share it.

    Where rules of one campaign allow different amounts, the greatest is the budget's.
    """
    budgets: dict[str, dict[str, Any]] = {}
    for rule in programme.rules:
        for limit in rule.limits:
            scope = limit.scope
            if scope.is_shared and rule.campaign is not None and isinstance(scope.every, Every):
                budget = budgets.setdefault(budget_key(rule, scope), {"most": 0, "rules": []})
                budget |= {"campaign": rule.campaign, "unit": scope.unit, "every": scope.every.value}
                budget["most"] = max(budget["most"], budget_of(rule, limit).most)
                budget["rules"].append(rule.id)
    return list(budgets.values())


def complete(cursor: Cursor) -> None:
    """Read cohorts, rules, costs and budgets of versions from their files, where an earlier release has kept none."""
    cursor.execute("SELECT version, body FROM guerdon.programme_version WHERE budgets IS NULL ORDER BY version")
    for version, body in cursor.fetchall():
        programme = load_programme(body, f"version {version}", was_activated=True).programme
        if programme is not None:
            cursor.execute(
                """
                UPDATE guerdon.programme_version SET cohorts = %s, rules = %s, costs = %s, budgets = %s
                WHERE version = %s
                """,
                (
                    Json(cohorts_document(programme)), Json(rules_document(programme)),
                    Json(costs_document(programme)), Json(budgets_document(programme)), version,
                ),
            )  # fmt: skip


def with_digest(cursor: Cursor, digest: str) -> int | None:
    """Return the newest version with this digest, None where there is none."""
    cursor.execute("SELECT max(version) FROM guerdon.programme_version WHERE digest = %s", (digest,))
    row = cursor.fetchone()
    return None if row is None or row[0] is None else int(row[0])


def number_for(cursor: Cursor, programme: Programme) -> int:
    """Return the number that a programme has, or would have if it became the next version."""
    present = with_digest(cursor, programme.digest)
    if present is not None:
        return present
    (newest,) = one(cursor, "SELECT coalesce(max(version), 0) FROM guerdon.programme_version")
    return int(newest) + 1


def _moves_members(before: Version, programme: Programme) -> bool:
    old = load_programme(before.body, f"version {before.version}", was_activated=True).programme
    return old is None or moves_members(old, programme)


def _review_everybody(cursor: Cursor, reached_ms: Mapping[int, int]) -> None:
    """Make ticks review every member once all is done that was due by the activation; the caller holds all heads."""
    for shard, at_ms in reached_ms.items():
        cursor.execute(
            """
            UPDATE guerdon.member_state SET due_at = least(due_at, to_timestamp(%s / 1000.0)) WHERE shard = %s
            """,
            (at_ms + 1, shard),
        )


def load_judge(cursor: Cursor, version: int) -> CompiledJudge:
    """Compile the programme of `version`, with the metrics that later versions have backfilled."""
    return compile_programme(judged_as(cursor, version), version)
