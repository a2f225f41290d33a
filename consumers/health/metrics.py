"""Count what a worker does for Prometheus, and add the figures that PostgreSQL knows.

Labels name topics, types, reasons and campaigns, which are few; never a member, an order or an event.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from engine.store import revision
from schemas.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from engine.intake.batch import Partition
    from engine.live.batch import Batch
    from engine.live.work import Outcome
    from operations.figures import Figures

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, which nobody needs

OUTCOMES = ("accepted", "duplicate", "quarantined", "passed")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
VISIBLE_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600)
EVENTS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


class Lags(Protocol):
    """Know how far a worker is behind."""

    lags: Mapping[Partition, int]
    """Offsets that are left of each partition."""

    def lag_seconds(self) -> float:
        """Return in seconds how long the oldest record received and not committed has waited.

        Where a partition that is behind has stood still for longer, that time counts.
        """


class Metrics(Collector):
    """Hold a worker's counters in a registry of its own; its heartbeat sets `figures`, `liability` and `why_away`.

    A figure that is not known is left out: an absent series says more than a stale one.
    """

    def __init__(self) -> None:
        self.figures: Figures | None = None
        self.liability: dict[str, float] = {}
        self.why_away: Callable[[str], str | None] = lambda service: f"{service} was not asked yet"
        self._lags_of: Lags | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._build = (version("guerdon"), revision.newest())
        self._events = Counter(
            "guerdon_events_total",
            "Records taken out of a topic; passed: tombstones, offsets without a message, and what operators let pass.",
            ("topic", "outcome"),
            registry=self._registry,
        )
        self._batch_seconds = Histogram(
            "guerdon_batch_seconds",
            "From a batch's hand-over to its commit, with all attempts.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batch_events = Histogram(
            "guerdon_batch_events", "Records in a committed batch.", buckets=EVENTS, registry=self._registry
        )
        self.visible = Histogram(
            "guerdon_visible_seconds",
            "From a record's Kafka timestamp to the commit of the views that show it; measured for the first and the "
            "last record of each poll.",
            buckets=VISIBLE_SECONDS,
            registry=self._registry,
        )
        self._rewards = Counter(
            "guerdon_rewards_total", "Reward events written, by their type.", ("type",), registry=self._registry
        )
        self._refusals = Counter(
            "guerdon_refusals_total",
            "Reward events that refuse something, by their reason.",
            ("reason",),
            registry=self._registry,
        )
        self._registry.register(self)

    def report_lags_of(self, lags_of: Lags) -> None:
        """Report the lags of a worker, too."""
        self._lags_of = lags_of

    def count(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        """Count a committed batch."""
        self._batch_seconds.observe(seconds)
        self._batch_events.observe(outcome.accepted + outcome.duplicate + outcome.quarantined)
        for (topic, _), counts in outcome.detail.counts.items():
            for name, count in zip(OUTCOMES, counts, strict=False):
                if count and topic:
                    self._events.labels(topic, name).inc(count)
        for (topic, _), move in batch.moves.items():
            if move.passed:
                self._events.labels(topic, "passed").inc(move.passed)
        self.count_rewards(outcome)

    def count_rewards(self, outcome: Outcome) -> None:
        """Count the reward events of a committed transaction, and the refusals among them."""
        for kind, count in outcome.detail.rewards.items():
            self._rewards.labels(kind).inc(count)
        for reason, count in outcome.detail.refusals.items():
            self._refusals.labels(reason).inc(count)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format; asks no service."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges that are known now."""
        yield _gauge("guerdon_build_info", {self._build: 1})
        yield _gauge("guerdon_up", {(name.lower(),): self.why_away(name) is None for name in ("Kafka", "PostgreSQL")})
        if self._lags_of is not None:
            lags = self._lags_of.lags.items()
            yield _gauge("guerdon_lag_events", {(topic, str(number)): lag for (topic, number), lag in lags})
            yield _gauge("guerdon_lag_seconds", {(): self._lags_of.lag_seconds()})
        if self.figures is not None:
            yield from _shared(self.figures)
            yield _gauge("guerdon_liability_points", _by_one(self.liability))


GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "guerdon_build_info": (("version", "revision"), "The release, and the migration that it needs; always 1."),
    "guerdon_up": (("service",), "Whether a service answers this worker."),
    "guerdon_lag_events": (
        ("topic", "partition"), "Offsets of this worker's partitions, up to the broker's end, not yet committed.",
    ),
    "guerdon_lag_seconds": (
        (),
        "Age of the oldest record received and not committed, or how long a partition that is behind has stood still.",
    ),
    "guerdon_quarantine_open": (("reason",), "Records that are set aside."),
    "guerdon_partitions_stopped": ((), "Partitions that nobody reads on."),
    "guerdon_members_held": ((), "Members whose events wait for a release."),
    "guerdon_tick_delay_seconds": (
        (), "How long the oldest overdue work of any member (a release, an expiry, …) has waited.",
    ),
    "guerdon_projection_lag_positions": (("projection",), "Events of its log that a projection does not show yet."),
    "guerdon_publish_lag_positions": ((), "Reward events that their topic does not have yet."),
    "guerdon_budget_used_ratio": (("campaign",), "Which part of its budget a campaign has used in the present period."),
    "guerdon_liability_points": (("unit",), "What members hold: pending, active and reserved."),
    "guerdon_verify_last_success_timestamp_seconds": ((), "When `guerdon verify` last found the live logs whole."),
}  # fmt: skip
"""The gauges by name: labels and meaning. The counters stand in `Metrics`."""


def _shared(figures: Figures) -> Iterator[Metric]:
    """Yield the figures that PostgreSQL knows: they are the same for every worker."""
    reasons = dict.fromkeys(map(str, Reason), 0) | dict(figures.quarantined)
    yield _gauge("guerdon_quarantine_open", _by_one(reasons))
    yield _gauge("guerdon_partitions_stopped", {(): figures.stopped})
    yield _gauge("guerdon_members_held", {(): figures.held})
    yield _gauge("guerdon_tick_delay_seconds", {(): figures.tick_delay_s})
    yield _gauge("guerdon_projection_lag_positions", _by_one(figures.projections))
    yield _gauge("guerdon_budget_used_ratio", _by_one(figures.budgets))
    if figures.unpublished is not None:
        yield _gauge("guerdon_publish_lag_positions", {(): figures.unpublished})
    if figures.verified_s is not None:
        yield _gauge("guerdon_verify_last_success_timestamp_seconds", {(): figures.verified_s})


def _by_one(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(name,): value for name, value in values.items()}


def _gauge(name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    labels, meaning = GAUGES[name]
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
