"""Contests: what counts in which period, who wins, ties, refunds, and what comes after the closing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.contests import Score, ranked
from engine.programme.conditions import Duration, Every
from engine.programme.file.load import load_programme
from engine.programme.localtime import calendar_of
from engine.programme.periods import Ended, end_of, next_end, period_at
from engine.programme.terms import Contest, ContestMetric
from operations.simulate.run import simulate
from schemas.scalars import instant_from_iso
from tests.programme_text import written

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: Europe/Rome\ncurrency: EUR\n"
PRIZES = "- {id: prize, on: contest, when: {contest.rank: {lte: 3}}, give: [{gift: trophy}]}\n"
CALENDAR = calendar_of("Europe/Rome")


def contest(metric: str, winners: int = 1, period: str = "month") -> str:
    return HEAD + (
        written(
            """\
contests: [{id: race, metric: $metric, period: $period, winners: $winners}]
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
""",
            metric=metric,
            period=period,
            winners=winners,
        )
        + PRIZES
    )


def event(number: int, kind: str, who: str, at: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "event_id": f"e{number}", "member_id": who, "occurred_at": at, **fields}


def purchase(number: int, who: str, at: str, amount: int) -> dict[str, Any]:
    return event(number, "purchase", who, at, order_id=f"o{number}", currency="EUR", amount=amount)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def found(programme: str, events: list[dict[str, Any]], until: str) -> list[dict[str, Any]]:
        (tmp_path / "p.yaml").write_text(programme, encoding="utf-8")
        (tmp_path / "e.jsonl").write_text("\n".join(json.dumps(each) for each in events), encoding="utf-8")
        simulation = simulate(tmp_path / "p.yaml", [tmp_path / "e.jsonl"], instant_from_iso(until, "until"))
        return simulation.document()["reward_events"]

    return found


def won(rows: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(row["member_id"], row["reason"], row["amount"]) for row in rows if row["type"] == "contest.won"]


# A month ends at local midnight: 31 March 23:30 in Rome is March, although it is 21:30 UTC; 00:30 is April.
def test_a_period_ends_at_local_midnight(run: Any) -> None:
    rows = run(
        contest("spend"),
        [
            purchase(1, "ann", "2024-03-31T23:30:00+02:00", 1000),
            purchase(2, "bob", "2024-04-01T00:30:00+02:00", 5000),
        ],
        "2024-04-15T00:00:00Z",
    )
    assert won(rows) == [("ann", "rank 1", 1000)]
    (row,) = (row for row in rows if row["type"] == "contest.won")
    assert row["occurred_at"] == "2024-03-31T22:00:00Z"


def test_points_count_less_what_a_refund_takes_back_of_them_in_the_month_of_their_grant(run: Any) -> None:
    rows = run(
        contest("points"),
        [
            purchase(1, "ann", "2024-03-10T10:00:00Z", 5000),
            purchase(2, "bob", "2024-03-11T10:00:00Z", 3000),
            event(3, "refund", "ann", "2024-03-20T10:00:00Z", order_id="o1", refund_id="r", amount=2500),
        ],
        "2024-04-15T00:00:00Z",
    )
    assert won(rows) == [("bob", "rank 1", 30)]


def test_a_metric_beside_a_contest_is_no_score(run: Any) -> None:
    counted = contest("spend").replace("rules:", "metrics: {often: {count: purchase}}\nrules:")
    counted += "- {id: keen, on: purchase, when: {history.often: {gte: 1}}, give: [{points: 1}]}\n"
    rows = run(counted, [purchase(1, "ann", "2024-03-10T10:00:00Z", 900)], "2024-04-15T00:00:00Z")
    assert won(rows) == [("ann", "rank 1", 900)]


def test_only_verified_shares_count(run: Any) -> None:
    share = {"object": "post", "channel": "wechat"}
    rows = run(
        contest("shares"),
        [
            event(1, "share", "ann", "2024-03-10T10:00:00Z", verified=True, **share),
            event(2, "share", "bob", "2024-03-10T11:00:00Z", verified=False, **share),
            event(3, "share", "bob", "2024-03-10T12:00:00Z", **share),
        ],
        "2024-04-15T00:00:00Z",
    )
    assert won(rows) == [("ann", "rank 1", 1)]


def test_each_period_is_closed_once_and_late_events_within_a_quarter_of_an_hour_still_count(run: Any) -> None:
    rows = run(
        contest("spend"),
        [
            purchase(1, "ann", "2024-03-10T10:00:00Z", 1000),
            purchase(2, "cat", "2024-03-31T22:10:00Z", 100),  # ten minutes into April, by Rome's clock
            purchase(3, "bob", "2024-03-31T21:59:00Z", 4000),  # late, and in time
            purchase(4, "cat", "2024-04-20T10:00:00Z", 100),
            purchase(5, "ann", "2024-03-31T21:00:00Z", 9000),  # too late
        ],
        "2024-06-01T00:00:00Z",
    )

    assert won(rows) == [("bob", "rank 1", 4000), ("cat", "rank 1", 200)]
    refused = [row for row in rows if row["type"] == "reward.refused"]
    assert [(row["member_id"], row["reason"], row["item"], row["amount"]) for row in refused] == [
        ("ann", "contest_closed", "race", 9000)
    ]


def test_an_erased_member_wins_nothing_and_the_next_one_does(run: Any) -> None:
    rows = run(
        contest("spend"),
        [
            purchase(1, "ann", "2024-03-10T10:00:00Z", 9000),
            purchase(2, "bob", "2024-03-11T10:00:00Z", 1000),
            event(3, "erasure", "ann", "2024-03-12T10:00:00Z"),
        ],
        "2024-04-15T00:00:00Z",
    )
    assert won(rows) == [("bob", "rank 1", 1000)]


RACE = Contest("race", ContestMetric.SPEND, 3, Every.MONTH)
SCORES = st.dictionaries(
    st.sampled_from("abcdef"), st.builds(Score, st.just("race"), st.just(1), st.integers(0, 3), st.integers(0, 3))
)


@given(SCORES)
def test_winners_are_ranked_by_value_then_by_who_was_there_first_then_by_id(scores: dict[str, Score]) -> None:
    winners = ranked(scores.items(), Ended(RACE, 1, 99))
    assert [each.rank for each in winners] == list(range(1, len(winners) + 1))
    assert len(winners) == min(3, sum(score.value > 0 for score in scores.values()))
    keys = [(-scores[each.member_id].value, scores[each.member_id].reached_ms, each.member_id) for each in winners]
    assert keys == sorted(keys)
    left = [(-score.value, score.reached_ms, who) for who, score in scores.items() if score.value]
    assert keys == sorted(left)[:3]


@given(st.sampled_from([every for every in Every if every is not Every.LIFETIME]), st.integers(0, 2_000_000_000_000))
def test_a_period_holds_every_instant_before_its_end_and_none_after(every: Every, at_ms: int) -> None:
    race = Contest("race", ContestMetric.SPEND, 1, every)
    period = period_at(race, at_ms, CALENDAR)
    assert period is not None
    end_ms = end_of(race, period, CALENDAR)
    assert at_ms < end_ms
    assert period_at(race, end_ms - 1, CALENDAR) == period
    assert period_at(race, end_ms, CALENDAR) == period + 1
    assert end_ms <= CALENDAR.after(at_ms, Duration(months=12, days=1))


def test_the_next_end_is_that_of_the_contest_that_ends_first() -> None:
    loaded = load_programme(
        contest("spend").replace("period: month", "period: {from: 2024-05-01, until: 2024-05-03}"), "p"
    )
    assert loaded.programme is not None
    assert next_end(loaded.programme, instant_from_iso("2024-01-01T00:00:00Z", "at")) == instant_from_iso(
        "2024-05-02T22:00:00Z", "at"
    )
    assert next_end(loaded.programme, instant_from_iso("2024-06-01T00:00:00Z", "at")) is None


def test_a_contest_that_is_named_wrongly_is_found_by_check() -> None:
    loaded = load_programme(contest("spend").replace("contest.rank: {lte: 3}", "contest.id: rce"), "p")
    assert [problem.message for problem in loaded.errors] == ['unknown contest "rce"; did you mean "race"?']
