"""What a worker answers over HTTP: whether its loop turns, whether it is ready, and its metrics, named and bounded."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import psycopg2
import pytest
import yaml
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from consumers.health import heartbeat
from consumers.health.listen import Address, Listener, pages_of
from consumers.health.metrics import Metrics
from consumers.health.watch import StepTimes, Watch
from consumers.worker import Worker
from engine.intake.batch import OffsetMove
from engine.live.batch import Batch
from engine.live.work import Detail, Outcome, together
from engine.store import quarantine, revision
from engine.store.database import migrate, transaction
from operations import figures
from operations.figures import Figures
from operations.settings import load_settings
from schemas.codec import CommittedSchemas
from schemas.rejection import Reason
from tests.places import ROOT
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, Load, activate, make_topics, publish
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.intake.batch import Partition
    from operations.services.postgresql import LocalPostgres
    from operations.settings import Settings

NAMES = {
    "guerdon_events_total": ("counter", ("outcome", "topic")),
    "guerdon_batch_seconds": ("histogram", ()),
    "guerdon_batch_events": ("histogram", ()),
    "guerdon_lag_events": ("gauge", ("partition", "topic")),
    "guerdon_lag_seconds": ("gauge", ()),
    "guerdon_visible_seconds": ("histogram", ()),
    "guerdon_rewards_total": ("counter", ("type",)),
    "guerdon_refusals_total": ("counter", ("reason",)),
    "guerdon_quarantine_open": ("gauge", ("reason",)),
    "guerdon_partitions_stopped": ("gauge", ()),
    "guerdon_members_held": ("gauge", ()),
    "guerdon_tick_delay_seconds": ("gauge", ()),
    "guerdon_projection_lag_positions": ("gauge", ("projection",)),
    "guerdon_publish_lag_positions": ("gauge", ()),
    "guerdon_budget_used_ratio": ("gauge", ("campaign",)),
    "guerdon_liability_points": ("gauge", ("unit",)),
    "guerdon_verify_last_success_timestamp_seconds": ("gauge", ()),
    "guerdon_build_info": ("gauge", ("revision", "version")),
    "guerdon_up": ("gauge", ("service",)),
}
"""Every metric that a worker tells, its type and its labels. The list grows; nothing leaves it or changes its name."""

FIGURES = Figures({"too_large": 3}, 1, 2, 5.0, {"referral": 7}, 4, {"spring": 0.5}, 1.7e9)


class Page(NamedTuple):
    status: int
    body: str


def ask(port: int, path: str, method: str = "GET") -> Page:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  as above
            return Page(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        return Page(error.code, error.read().decode())


Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(text: str) -> Series:
    """Return each sample of the text format by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def by(found: Series, name: str, label: str) -> dict[str, float]:
    """Return the values of a metric, added up by one of its labels."""
    added: dict[str, float] = {}
    for (sample, labels), value in found.items():
        if sample == name:
            added[dict(labels)[label]] = added.get(dict(labels)[label], 0) + value
    return added


@contextmanager
def answering(settings: Settings) -> Iterator[tuple[Worker, int]]:
    """Run a worker that answers, for as long as the block takes, and yield it with its port."""
    watch = Watch(settings, metrics=Metrics())
    listener = Listener(Address("127.0.0.1", 0))
    worker = Worker(settings, CommittedSchemas(), watch=watch)
    listener.serve(pages_of(watch, worker.heartbeat))
    thread = Thread(target=worker.run, name="worker")
    thread.start()
    try:
        yield worker, listener.port
    finally:
        worker.stop()
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers look at their services often, so that a test need not wait for it."""
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.1)
    monkeypatch.setattr(heartbeat, "FIGURES_EVERY_S", 0.1)
    monkeypatch.setattr(heartbeat, "SUMS_EVERY_S", 0.1)


def labels_of(metrics: Metrics) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return name, type and labels of each metric in the text."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, tuple(sorted(labels)))
    return found


def test_metrics_have_the_names_types_and_labels_that_are_listed_and_no_others(settings_alone: Settings) -> None:
    metrics = Metrics()
    watch = Watch(settings_alone, "w", metrics)
    watch.lags = {("t", 0): 3}
    detail = Detail({("t", 0): [1, 0, 0]}, {}, {"points.granted": 1}, {"insufficient": 1})
    metrics.count(Batch(moves={("t", 0): OffsetMove(0, 2, 0, 1)}), Outcome(1, 0, 0, 1, detail=detail), 0.1)
    metrics.figures, metrics.liability = FIGURES, {"points": 10.0}
    assert labels_of(metrics) == NAMES
    page = (ROOT / "docs/operations.md").read_text("utf-8").partition("\n## Health\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| `(guerdon_\w+)(?:\{([\w,]*)\})?` \|", page, re.MULTILINE))
    assert {name: tuple(sorted(filter(None, documented[name].split(",")))) for name in documented} == {
        name: labels for name, (_, labels) in NAMES.items()
    }


def test_the_alerts_in_the_page_name_metrics_and_labels_that_there_are() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    (block,) = re.findall(r"^```yaml\n(groups:.*?)^```", page, re.MULTILINE | re.DOTALL)
    rules = yaml.safe_load(block)["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        for name, labels in re.findall(r"(guerdon_\w+)(?:\{(\w+)=)?", rule["expr"]):
            assert name.removesuffix("_bucket") in NAMES
            assert not labels or labels in NAMES[name][1]
        for label in re.findall(r"by \((\w+)\)", rule["expr"]):
            assert label == "le" or any(label in names for _, names in NAMES.values())


def test_what_is_not_known_is_left_out_and_a_label_never_names_a_member_or_an_event(settings_alone: Settings) -> None:
    metrics = Metrics()
    Watch(settings_alone, "w", metrics)
    found = series(metrics.text().decode())
    assert {name for name, _ in found if name.startswith("guerdon_quarantine")} == set()
    assert {value for (name, _), value in found.items() if name == "guerdon_up"} == {0.0}
    labels = {label for _, names in NAMES.values() for label in names}
    assert labels.isdisjoint({"member", "member_id", "order", "order_id", "event", "event_id", "worker"})
    metrics.figures = FIGURES
    assert set(by(series(metrics.text().decode()), "guerdon_quarantine_open", "reason")) == set(map(str, Reason))


def test_how_far_a_partition_is_behind_is_left_out_where_it_cannot_be_told(settings_alone: Settings) -> None:
    watch = Watch(settings_alone)
    batch = Batch(moves={("t", number): OffsetMove(0, 5, 0) for number in range(4)})
    ends = {0: 12, 1: None, 2: 3}

    def known_end(partition: Partition) -> int | None:
        if partition[1] not in ends:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))  # noqa: SLF001  its public name
        return ends[partition[1]]

    with capture_logs() as lines:
        watch.note_batch(batch, Outcome(1, 0, 0, 0), StepTimes(), known_end, 0)
    assert watch.lags == {("t", 0): 7, ("t", 2): 0}
    assert lines[0]["lag"] == 7


@pytest.fixture
def settings_alone(tmp_path: Path) -> Settings:
    """Return settings that name no service."""
    return load_settings(
        database_url="postgresql://nobody@127.0.0.1:1/none", bootstrap_servers="127.0.0.1:1", home=tmp_path
    )


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_what_a_worker_tells_is_what_the_database_says(settings: Settings) -> None:
    make_topics(settings, 2)
    activate(settings.database_url)
    load = Load(members=8, ledger=True).fill(300)
    with answering(settings) as (worker, port):
        eventually(lambda: ask(port, "/readyz") == Page(200, "ready\n"), "the worker is ready")
        publish(settings, load.messages)
        eventually(lambda: _all_told(port, settings, len(load.messages)), "all is counted and shown")
        found = series(ask(port, "/metrics").body)
        with transaction(settings.database_url) as cursor:
            cursor.execute(
                """
                SELECT sum(accepted)::int, sum(duplicate)::int, sum(quarantined)::int, sum(passed)::int
                FROM guerdon.consumer_offset
                """
            )
            counts = dict(zip(("accepted", "duplicate", "quarantined", "passed"), cursor.fetchone() or (), strict=True))
            cursor.execute("SELECT type, count(*) FROM reward.reward_event GROUP BY type")
            rewards = dict(cursor.fetchall())
            cursor.execute("SELECT reason, count(*) FROM reward.reward_event WHERE type = 'reward.refused' GROUP BY 1")
            refusals = dict(cursor.fetchall())
            opened = quarantine.counts(cursor)
            owed = figures.liability(cursor)
        assert by(found, "guerdon_events_total", "outcome") == {name: count for name, count in counts.items() if count}
        assert by(found, "guerdon_rewards_total", "type") == rewards
        assert by(found, "guerdon_refusals_total", "reason") == refusals
        assert min(len(refusals), len(opened)) > 0
        shown = by(found, "guerdon_quarantine_open", "reason")
        assert {reason: count for reason, count in shown.items() if count} == opened
        assert by(found, "guerdon_liability_points", "unit") == owed
        assert set(by(found, "guerdon_up", "service").items()) == {("kafka", 1.0), ("postgresql", 1.0)}
        assert by(found, "guerdon_build_info", "revision") == {revision.newest(): 1.0}
        assert found["guerdon_batch_events_sum", ()] == len(load.messages)
        assert found["guerdon_batch_seconds_count", ()] == worker.summary.batches
        assert 0 < found["guerdon_visible_seconds_count", ()] <= 2 * len(load.messages)
        assert found["guerdon_visible_seconds_sum", ()] / found["guerdon_visible_seconds_count", ()] < 60
        assert found["guerdon_lag_seconds", ()] == 0
        worker.stop()
        eventually(lambda: ask(port, "/readyz").body.endswith("the worker is leaving\n"), "it says that it leaves")
        assert ask(port, "/readyz").status == 503
        assert ask(port, "/livez").status == 200


def _taken(port: int) -> float:
    return sum(by(series(ask(port, "/metrics").body), "guerdon_events_total", "outcome").values())


def _all_told(port: int, settings: Settings, count: int) -> bool:
    found = series(ask(port, "/metrics").body)
    taken = by(found, "guerdon_events_total", "outcome")
    done = sum(taken.get(outcome, 0) for outcome in ("accepted", "duplicate", "quarantined"))
    late = [found.get((name, ()), -1) for name in ("guerdon_publish_lag_positions", "guerdon_lag_seconds")]
    lags = [*by(found, "guerdon_lag_events", "topic").values(), *late]
    with transaction(settings.database_url) as cursor:
        opened = sum(quarantine.counts(cursor).values())
    lags += by(found, "guerdon_projection_lag_positions", "projection").values()
    shown = sum(by(found, "guerdon_quarantine_open", "reason").values())
    seen = found.get(("guerdon_visible_seconds_count", ()), 0)  # a fold begun before the commit sees none
    return done == count and not any(lags) and shown == opened and seen > 0


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_while_postgresql_is_away_a_scrape_answers_with_what_is_known_and_the_worker_is_not_ready_but_lives(
    kafka_bootstrap: str, postgres_service: LocalPostgres, topic_prefix: str, tmp_path: Path
) -> None:
    settings = load_settings(
        database_url=postgres_service.address, bootstrap_servers=kafka_bootstrap, topic_prefix=topic_prefix,
        group_id=topic_prefix, home=tmp_path,
    )  # fmt: skip
    migrate(settings.database_url)
    make_topics(settings, 1)
    activate(settings.database_url)
    load = Load(members=2, bad=False).fill(10)
    publish(settings, load.messages)
    with answering(settings) as (_, port):
        eventually(lambda: ask(port, "/readyz").status == 200, "the worker is ready")
        eventually(lambda: "guerdon_members_held 0.0" in ask(port, "/metrics").body, "the database's figures")
        eventually(lambda: _taken(port) >= len(load.messages), "all is taken")
        postgres_service.kill()
        eventually(lambda: ask(port, "/readyz").status == 503, "it is not ready")
        began = time.monotonic()
        ready, metrics = ask(port, "/readyz"), series(ask(port, "/metrics").body)
        assert time.monotonic() - began < 5
        assert "PostgreSQL" in ready.body
        assert ask(port, "/livez") == Page(200, "the loop goes round\n")
        assert by(metrics, "guerdon_up", "service") == {"kafka": 1.0, "postgresql": 0.0}
        assert sum(by(metrics, "guerdon_events_total", "outcome").values()) >= len(load.messages)
        assert ("guerdon_members_held", ()) not in metrics
        postgres_service.start()
        eventually(lambda: ask(port, "/readyz") == Page(200, "ready\n"), "it is ready again")
        eventually(lambda: "guerdon_members_held 0.0" in ask(port, "/metrics").body, "the figures are back")


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_a_worker_is_not_ready_on_a_database_of_another_revision(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    load = Load(members=2, bad=False).fill(10)
    publish(settings, load.messages)
    with answering(settings) as (_, port):
        eventually(lambda: ask(port, "/readyz").status == 200, "the worker is ready")
        eventually(lambda: _taken(port) >= len(load.messages), "its writer has a session: another one would be refused")
        for other, way_out in (("0013", "run `guerdon init`"), ("9999", "use the release that migrated it")):
            with closing(psycopg2.connect(settings.database_url)) as session, session, session.cursor() as cursor:
                cursor.execute("UPDATE guerdon.alembic_version SET version_num = %s", (other,))
            eventually(lambda way_out=way_out: way_out in ask(port, "/readyz").body, "it says so")  # type: ignore[misc]
            assert ask(port, "/readyz").status == 503


@pytest.mark.postgres
def test_a_campaigns_budget_is_told_by_the_part_that_is_used_and_what_is_due_by_how_late_it_is(
    database_url: str,
) -> None:
    rule = (
        "- {id: r%d, on: purchase, campaign: %s, give: [{points: 7}], limits: [{max: %d, per: campaign, every: %s}]}\n"
    )
    body = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\npoints: {validity: 1d}\nrules:\n"
    activate(database_url, body + rule % (1, "spring", 28, "lifetime") + rule % (2, "past", 28, "day"))
    commit(database_url, Batch([admitted(purchase(1)), admitted(purchase(2))]))
    with transaction(database_url) as cursor:
        found = figures.read(cursor)
        assert found.budgets == {"spring": 0.5, "past": 0.0}  # the events' day is over
        cursor.execute("SELECT guerdon.ms(clock_timestamp())")
        (now_ms,) = cursor.fetchone() or (0,)
    late_s = (now_ms - START_MS) / 1000 - 86_400
    assert late_s - 60 < found.tick_delay_s <= late_s + 60
    assert (found.held, found.stopped, found.verified_s, found.quarantined) == (0, 0, None, {})


NUMBERS = st.dictionaries(st.sampled_from("abc"), st.integers(1, 9))
COUNTS = st.dictionaries(
    st.tuples(st.sampled_from("tu"), st.integers(0, 1)), st.lists(st.integers(0, 9), min_size=3, max_size=3)
)
DETAILS = st.builds(Detail, COUNTS, NUMBERS, NUMBERS, NUMBERS)


@given(st.lists(st.builds(Outcome, *[st.integers(0, 9)] * 4, detail=DETAILS), max_size=4))
def test_a_batch_that_was_taken_in_parts_tells_as_much_as_one_that_was_not(parts: list[Outcome]) -> None:
    whole = together(parts)
    assert whole.accepted == sum(part.accepted for part in parts)
    for kind in ("reasons", "rewards", "refusals"):
        numbers = [getattr(part.detail, kind) for part in parts]
        for name in "abc":
            assert getattr(whole.detail, kind).get(name, 0) == sum(each.get(name, 0) for each in numbers)
    for column in range(3):
        total = sum(counts[column] for counts in whole.detail.counts.values())
        assert total == sum(counts[column] for part in parts for counts in part.detail.counts.values())
