"""Show the whole path on real data: services, topics, events, a programme, the worker, and figures that must agree."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.store.database import ANALYST, transaction
from operations.demo import check
from operations.demo.data import GroceryYear, data_folder
from operations.intake.producer import encoder_for
from operations.intake.publish import publish_events
from operations.member.view import member
from operations.rows import dictionaries
from operations.services.lifecycle import bring_up, take_down
from operations.services.state import make_home
from operations.settings import Settings
from operations.setup.initialise import initialise
from operations.setup.programmes import activate
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

PROGRAMME = Path(__file__).resolve().parents[2] / "examples/grocery/programme.yaml"
PARTITIONS = 4
TOP_MEMBERS = 5
REWARD_EVENTS_SHOWN = 8
LOG_LEVEL_ERROR = "3"
"""Syslog's number: at a lower level librdkafka would write lines of its own between those of the demo."""

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Narrator(Protocol):
    """Tell a person how far the demo is."""

    def stage(self, name: str, sentence: str) -> None:
        """Say the result of a stage."""

    def progress(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar of `total` events where there is a terminal; yield a function to call with how many are done."""


class Work(Protocol):
    """Run a worker until it has caught up, and report how many events are done; this room may not import the worker."""

    def __call__(self, settings: Settings, advance: Callable[[int], None]) -> Mapping[str, Any]:
        """Return how many events were `accepted`, `duplicate` and `quarantined`, and the number of `rewards`.

        `live_s` are the seconds until all of them were projected and published, `facts_s` those of their facts after.
        """


def run_demo(home: Path, work: Work, narrator: Narrator, *, small: bool, keep: bool) -> dict[str, Any]:
    """Run the demo on services of its own in `home`/demo, stop them in any case, and return all figures.

    Raises:
        AnswerIsNo: a figure does not agree, or another demo is running.
        InputError: the data or the example programme is not there.
        ServiceUnreachable: a service could not be started.
        KeyboardInterrupt: a signal stopped it; nothing is left running.
    """
    if not PROGRAMME.exists():
        raise InputError(f"the demo's programme {PROGRAMME.name} is not there; run the demo in a checkout of Guerdon")
    folder = data_folder()
    with _stopping_in_good_order(), _alone(home), _services(home / "demo", narrator, keep=keep) as settings:
        return _tour(settings, folder, work, narrator, small=small)


def _tour(settings: Settings, folder: Path, work: Work, narrator: Narrator, *, small: bool) -> dict[str, Any]:
    # prepare
    done = initialise(settings, PARTITIONS)
    narrator.stage("init", f"database {done['database']}; topics: {done['topics']}; schemas: {done['schemas']}")
    version = activate(settings.database_url, PROGRAMME)
    narrator.stage("activate", f"programme {version['programme']} judges from now on, as version {version['version']}")

    # from the data to the views
    year, published = _publish(settings, folder, narrator, small=small)
    worked = _work(settings, published["events"], work, narrator)

    # the figures, and the proof that they agree
    findings = _verify(settings, narrator)
    top_members = _top_members(settings.database_url)
    return {
        "data": asdict(year.counts),
        "published": published,
        "worked": worked,
        "top_members": top_members,
        "member": _member(settings.database_url, top_members[0]["member_id"]),
        "verify": findings,
        "check": compare(settings, folder, year.households, narrator),
    }


def _publish(
    settings: Settings, folder: Path, narrator: Narrator, *, small: bool
) -> tuple[GroceryYear, dict[str, Any]]:
    # convert and publish
    started_s = time.monotonic()
    year = GroceryYear(folder, small=small)
    counts = year.counts
    total = counts.households + counts.baskets
    with narrator.progress("publish", total) as advance:
        outcome = publish_events(
            settings.kafka_config(),
            encoder_for(settings.registry_url),
            year.events(),
            topic_prefix=settings.topic_prefix,
            on_progress=advance,
        )
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.published != total:
        raise ServiceUnreachable(f"Kafka took {outcome.published:,} of {total:,} events ({outcome.first_failure})")

    # say how it went
    seconds = time.monotonic() - started_s
    narrator.stage(
        "publish",
        f"{counts.households:,} signups and {counts.baskets:,} purchases with {counts.lines:,} lines, converted and "
        f"published as Avro in {seconds:.1f} s: {total / seconds:,.0f} events/s",
    )
    narrator.stage(
        "",
        f"on {counts.lines_below_zero:,} lines a coupon is worth more than its line and lowers the basket's others; "
        f"{counts.baskets_below_zero:,} baskets would fall below 0 and count as 0",
    )
    return year, {"events": total, "seconds": round(seconds, 2), "events_per_s": round(total / seconds)}


def _work(settings: Settings, events: int, work: Work, narrator: Narrator) -> dict[str, Any]:
    with narrator.progress("run", events) as advance:
        counts = work(settings, advance)
    live_s, facts_s = counts["live_s"], counts["facts_s"]

    narrator.stage(
        "run",
        f"{counts['accepted']:,} events consumed, judged, recorded and projected, their {counts['rewards']:,} reward "
        f"events published, in {live_s:.1f} s: {counts['accepted'] / live_s:,.0f} events/s",
    )
    narrator.stage("", f"facts of all events folded after that in {facts_s:.1f} s: {events / facts_s:,.0f} events/s")
    if counts["accepted"] != events or counts["duplicate"] or counts["quarantined"]:
        raise AnswerIsNo(
            f"{events:,} events were published, and {counts['accepted']:,} accepted, {counts['duplicate']:,} taken for "
            f"duplicates, {counts['quarantined']:,} set aside; run it again with --keep and see `guerdon status`"
        )
    return {**counts, "live_s": round(live_s, 2), "facts_s": round(facts_s, 2), "events_per_s": round(events / live_s)}


def _verify(settings: Settings, narrator: Narrator) -> list[dict[str, Any]]:
    started_s = time.monotonic()
    findings = verify(settings.database_url)
    for finding in findings:
        if finding["problem"]:
            raise AnswerIsNo(f"{finding['check']}: {finding['problem']}")
    rows = sum(finding["looked_at"] for finding in findings)
    narrator.stage(
        "verify", f"{len(findings)} checks over {rows:,} rows in {time.monotonic() - started_s:.1f} s: nothing is wrong"
    )
    return findings


def compare(settings: Settings, folder: Path, households: list[int], narrator: Narrator) -> dict[str, Any]:
    """Compare every member's balance with the independent computation.

    Raises:
        AnswerIsNo: they differ; the sentence names the first member.
    """
    baskets = check.read_baskets(folder / "transactions.parquet", households)
    expected = check.expected_points(baskets)
    balances = balances_in_view(settings.database_url)
    difference = check.first_difference(expected, balances)
    if difference:
        raise AnswerIsNo(
            f"the figures do not agree: {difference}; run it again with --keep and look with `guerdon member`"
        )

    points = sum(balances.values())
    narrator.stage(
        "compare",
        f"the balances of {len(balances):,} members, {points:,} points in all, equal an independent computation "
        f"over {len(baskets):,} baskets, member by member",
    )
    return {"members": len(balances), "points": points, "points_computed": sum(expected.values()), "agree": True}


def balances_in_view(database_url: str) -> dict[str, int]:
    """Return the points that each member can spend, as an analyst sees them."""
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute("SELECT member_id, available FROM reward.member_balance WHERE unit = 'points'")
        return {member_id: int(available) for member_id, available in cursor.fetchall()}


def _top_members(database_url: str) -> list[dict[str, Any]]:
    with transaction(database_url, role=ANALYST) as cursor:
        return dictionaries(
            cursor,
            """
            SELECT rank() OVER (ORDER BY available DESC) AS rank, member_id, granted, available, as_of
            FROM reward.member_balance WHERE unit = 'points' ORDER BY available DESC, member_id LIMIT %s
            """,
            (TOP_MEMBERS,),
        )


def _member(database_url: str, top_member: str) -> dict[str, Any]:
    """Return the history of the member whom the daily limits cost the most, or else of the top member."""
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute(
            """
            SELECT member_id, sum(amount) FROM reward.reward_event WHERE type = 'reward.refused'
            GROUP BY member_id ORDER BY sum(amount) DESC, member_id LIMIT 1
            """
        )
        refused = cursor.fetchone()
    chosen = refused[0] if refused else top_member
    why = f"whom the daily limits cost {refused[1]:,} points in the year" if refused else "the top member"
    return {"why": why, **member(database_url, chosen, REWARD_EVENTS_SHOWN)}


@contextmanager
def _services(home: Path, narrator: Narrator, *, keep: bool) -> Iterator[Settings]:
    """Start an empty Kafka and an empty PostgreSQL, and end them whatever happens.

    The settings are the defaults: neither the environment nor `guerdon.toml` may lead the demo to servers that somebody
    else uses.
    """
    settings = Settings.model_construct(home=home, kafka={"log_level": LOG_LEVEL_ERROR})
    try:
        _remove(home)
        started_s = time.monotonic()
        outcome = bring_up(settings)
        for note in outcome.notes:
            narrator.stage("", note)
        names = ", ".join(
            f"{service.name} ({service.origin}, {_place(service.address)})" for service in outcome.services
        )
        narrator.stage("services", f"{names} in {time.monotonic() - started_s:.1f} s")
        yield settings
    finally:
        with _undisturbed():
            if keep:
                take_down(home)
            else:
                _remove(home)
        narrator.stage(
            "end",
            f"stopped; look at what is kept: GUERDON_HOME={home} guerdon up"
            if keep
            else "stopped; the demo's data is removed",
        )


def _place(address: str | None) -> str:
    return (address or "").rsplit("@", 1)[-1]


def _remove(home: Path) -> None:
    take_down(home, volumes=True)
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Let one demo run in a home at a time; however this one ends, the kernel frees its lock."""
    make_home(home)
    descriptor = os.open(home / ".demo.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnswerIsNo(
                f"another demo is running in {home}; wait for its end, or set GUERDON_HOME to another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _stopping_in_good_order() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C: by default they would leave the services running.

    Only the first one counts: a second Ctrl-C would leave behind the services that the first one is stopping.
    """

    def interrupt(_number: int, _frame: object) -> None:
        for number in _INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nothing interrupt the end of a demo that no signal has stopped."""
    with _handling(signal.SIG_IGN):
        yield


@contextmanager
def _handling(action: Any) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _INTERRUPTS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN or number == signal.SIGINT:  # `nohup` ignores SIGHUP, and means it
            signal.signal(number, action)
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # a handler that was not set from Python cannot be set again
                signal.signal(number, handler)
