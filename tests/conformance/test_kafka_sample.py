"""A sample of the acceptance cases through Kafka and PostgreSQL: the views say what `simulate` says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.database import transaction
from operations.intake.producer import encoder_for
from operations.intake.publish import BadLine, Reading, publish_events
from operations.rows import dictionaries
from operations.setup.programmes import activate
from operations.simulate.expectations import differences
from operations.simulate.run import simulate
from tests.conformance.cases import programme_of, write
from tests.conformance.test_cases import ALL
from tests.system.load import make_topics
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from pathlib import Path

    from operations.settings import Settings

pytestmark = pytest.mark.kafka

SAMPLE = [
    "earn-rounding-modes", "earn-discount-but-not-tender", "earn-missing-field",
    "stack-multipliers-add-on-the-base", "stack-group-first", "stack-group-best",
    "limit-month-trims", "limit-over-refuse", "limit-day-is-local", "limit-rolling-hours",
    "engage-share-once-per-object", "engage-challenge-repeats", "engage-streak-of-days", "engage-segment",
    "input-exact-duplicate", "input-conflicting-duplicate", "input-late-event-has-its-own-weekday",
    "input-refund-reasons", "lots-soonest-first", "redeem-capture-less", "redeem-capture-more", "redeem-void",
    "redeem-restore-after-expiry", "redeem-catalogue-price", "redeem-pay-with-points", "refund-square-amounts",
    "refund-split-does-not-matter", "refund-yotpo-nobull", "refund-within-balance", "refund-debt-then-settled",
    "refund-by-line", "limit-gives-back-on-refund",
    "limit-campaign-budget-across-members", "tier-spend-table", "tier-status-and-distance",
    "tier-falls-with-a-refund", "tier-rule-and-benefit", "stack-tier-multiplier-from-the-next-event",
    "ref-first-order", "ref-below-the-threshold", "ref-welcome-for-the-referee", "ref-self-and-unknown",
    "ref-cycle-of-two", "ref-referrer-limit", "found-challenge-earlier-order-returned",
    "found-challenge-undone-and-done-again", "found-loops-of-a-level-pay-nothing", "found-refund-behind-the-clock",
    "found-signup-that-waited", "found-tier-reward-goes-with-the-level", "found-returned-but-for-a-cent",
]  # fmt: skip
ONE_OF_EACH_KIND = [
    "earn-rounding-modes", "stack-group-best", "limit-month-trims", "engage-challenge-repeats", "input-refund-reasons",
    "lots-soonest-first", "redeem-capture-less", "refund-by-line", "tier-spend-table", "ref-cycle-of-two",
    "found-signup-that-waited",
]  # fmt: skip
PLACED = ("shard", "pos", "seq", "recorded_at")
"""Where and when the log took a reward event: not the case's business."""


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return reward events as both must tell them, each member's in order, without the last clock of `simulate`."""
    ordered = sorted(rows, key=lambda row: (row["member_id"], row["shard"], row["pos"]))
    judged = [row for row in ordered if not row["event_id"].startswith("tick-")]
    return [{name: value for name, value in row.items() if name not in PLACED} for row in judged]


def through_kafka(settings: Settings, programme: Path, events: Path, workers: int = 1) -> dict[str, Any]:
    """Publish the events as Avro, let workers judge them, and return what the views then say."""
    make_topics(settings, 2)
    activate(settings.database_url, programme, from_now=True)
    bad: list[BadLine] = []
    read = Reading([str(events)], bad.append).events()
    published = publish_events(
        settings.kafka_config(), encoder_for(None), list(read), topic_prefix=settings.topic_prefix
    )
    assert (published.failed, bad) == (0, [])
    with ThreadPoolExecutor(workers) as pool:  # by the wall's clock, what expires would be gone long since
        for done in [pool.submit(catch_up, settings, "events") for _ in range(workers)]:
            done.result()
    with transaction(settings.database_url) as cursor:
        return {
            "balances": dictionaries(cursor, "SELECT * FROM reward.member_balance"),
            "tiers": dictionaries(cursor, "SELECT * FROM reward.member_tier"),
            "rewards": dictionaries(cursor, "SELECT * FROM reward.member_reward"),
            "referrals": dictionaries(cursor, "SELECT * FROM reward.referral"),
            "reward_events": dictionaries(cursor, "SELECT * FROM reward.reward_event"),
            "quarantined": dictionaries(cursor, "SELECT event_id, reason FROM guerdon.quarantine"),
        }


@pytest.mark.parametrize("case_id", SAMPLE)
def test_the_views_say_what_the_case_expects_and_what_simulate_says(
    case_id: str, settings: Settings, tmp_path: Path
) -> None:
    assert_alike(case_id, settings, tmp_path)


@pytest.mark.parametrize("case_id", ONE_OF_EACH_KIND)
def test_three_workers_come_to_the_same(case_id: str, settings: Settings, tmp_path: Path) -> None:
    assert_alike(case_id, settings, tmp_path, workers=3)


def assert_alike(case_id: str, settings: Settings, tmp_path: Path, workers: int = 1) -> None:
    """Hold the views to what the case expects, and what was logged to what `simulate` says."""
    case = ALL[case_id]
    assert programme_of(case).errors == ()
    programme, events = write(case, tmp_path)
    seen = through_kafka(settings, programme, events, workers)
    assert differences(case.expect, seen) == []
    simulated = simulate(programme, [events]).document()
    assert in_order(seen["reward_events"]) == in_order(simulated["reward_events"])
    assert {(row["event_id"], row["reason"]) for row in seen["quarantined"]} == {
        (row["event_id"], row["reason"]) for row in simulated["quarantined"]
    }


def test_the_sample_is_of_every_kind_and_of_what_only_the_views_can_tell() -> None:
    assert {case_id.partition("-")[0] for case_id in SAMPLE} == {
        "earn", "stack", "limit", "engage", "input", "lots", "redeem", "ref", "refund", "tier", "found",
    }  # fmt: skip
    assert {case_id.partition("-")[0] for case_id in ONE_OF_EACH_KIND} == {
        case_id.partition("-")[0] for case_id in SAMPLE
    }
    told = {name for case_id in SAMPLE for name in ALL[case_id].expect}
    assert told == {"balances", "counts", "refused", "quarantined", "tiers", "rewards", "referrals"}
