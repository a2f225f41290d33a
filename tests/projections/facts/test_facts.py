"""Facts are the fold of the source log, whatever its cuts were, and a rebuild says the same."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine.live.batch import Batch
from engine.store.cursor import one
from engine.store.database import transaction
from operations.setup import projections
from operations.verify.checks import verify
from projections import runner
from projections.facts import rows
from projections.rebuild import rebuild
from projections.runner import finish
from schemas.events import Erasure, Event, Purchase, Refund, Signup, Touch
from tests.projections.facts.stored import fold, tables
from tests.strategies.source_histories import Act, append, histories, written
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.postgres

_examples = itertools.count()
DAY_MS = 86_400_000
TIERED = """\
schema: guerdon/1
programme: tiered
timezone: UTC
currency: USD
refunds: {window: 30d}
tiers: {metric: status, window: lifetime, levels: [{id: regular, from: 0}, {id: silver, from: 10}]}
rules:
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""
EVERYTHING = [
    *(Act(kind, 0, 1, 0, 1) for kind in ("signup", "profile", "share", "touch", "activity", "redemption", "purchase")),
    Act("refund", 0, 0, 0, 2),  # applied
    Act("refund", 0, 3, 0, 1),  # of the same id, for another amount
    Act("refund", 0, 2, 0, 3),  # by lines that are not there
    Act("refund", 0, 2, 2, 5),  # of an order that is not there
]


def members_of(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """Return what events say of each member, counted plainly."""
    by_member: dict[str, list[Any]] = {}
    for event in events:
        if not isinstance(event, Touch):
            by_member.setdefault(event.member_id, []).append(event)  # type: ignore[attr-defined]
    return [
        (
            member_id,
            min(event.occurred_at for event in theirs),
            next((event.occurred_at for event in theirs if isinstance(event, Signup)), None),
            sum(isinstance(event, Purchase) for event in theirs),
            sum(event.gross or event.amount for event in theirs if isinstance(event, Purchase)),
            max((event.occurred_at for event in theirs if isinstance(event, Purchase)), default=None),
            any(isinstance(event, Erasure) for event in theirs),
        )
        for member_id, theirs in sorted(by_member.items())
    ]


def hold(database_url: str, data: st.DataObject) -> None:
    """Log a history in up to four transactions, and hold the facts of its members to what its events say."""
    prefix = f"x{next(_examples)}-"
    events = written(data.draw(histories), prefix, data.draw(st.lists(st.integers(0, 2), max_size=1)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    for begin, end in itertools.pairwise((0, *cuts, len(events))):
        append(database_url, events[begin:end])
        fold(database_url)

    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT member_id, guerdon.ms(first_event_at), guerdon.ms(joined_at), orders, gross::bigint,
                   guerdon.ms(last_order_at), erased
            FROM reward.member WHERE starts_with(member_id, %s) ORDER BY member_id
            """,
            (prefix,),
        )
        assert cursor.fetchall() == members_of(events)
        cursor.execute(
            """
            SELECT m.member_id FROM reward.member m
            LEFT JOIN (SELECT member_id, sum(net) AS net FROM reward.purchase GROUP BY member_id) p USING (member_id)
            WHERE m.net <> coalesce(p.net, 0)
            UNION ALL
            SELECT p.order_id FROM reward.purchase p
            LEFT JOIN (
                SELECT member_id, order_id, sum(amount) AS amount FROM reward.refund WHERE outcome = 'applied'
                GROUP BY member_id, order_id
            ) r USING (member_id, order_id)
            LEFT JOIN (SELECT shard, seq, sum(refunded) AS refunded FROM reward.purchase_line GROUP BY shard, seq) l
              USING (shard, seq)
            WHERE p.refunded <> coalesce(r.amount, 0) OR l.refunded <> p.refunded
            """
        )
        assert cursor.fetchall() == []


@pytest.mark.parametrize(("seqs_max", "examples"), [(1, 8), (3, 15), (1_000, 40)])
def test_the_facts_say_the_same_of_any_history_whatever_its_cuts(
    seqs_max: int, examples: int, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url)
    append(database_url, written(EVERYTHING, "all-"))
    with monkeypatch.context() as patched:
        patched.setattr(runner, "SEQS_MAX", seqs_max)
        settings(max_examples=examples, deadline=None)(given(st.just(database_url), st.data())(hold))()
    incremental = tables(database_url)
    assert all(incremental.values()), "a table without rows proves nothing"
    outcomes = {row[rows.REFUND.columns.index("outcome") - 1] for row in incremental["fact_refund"]}
    assert outcomes == {"applied", "waiting", "exceeds", "conflict"}

    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    assert projections.difference(database_url, "facts") is None
    with transaction(database_url) as cursor:
        (events,) = one(cursor, "SELECT sum(seq)::bigint FROM guerdon.shard_head")
    assert rebuild(database_url, "facts") == events
    assert tables(database_url) == incremental
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(DISTINCT build) FROM guerdon.fact_member") == (1,)
    with monkeypatch.context() as patched:
        patched.setattr("projections.facts.difference._of_table", None)  # no row is taken apart where all are right
        assert projections.difference(database_url, "facts") is None


def test_a_refund_waits_for_its_purchase_and_lowers_it_from_its_recording_on(database_url: str) -> None:
    head: dict[str, Any] = {"member_id": "m1", "occurred_at": START_MS}
    early = Refund(event_id="r1", order_id="o1", refund_id="r1", **head)
    append(database_url, [early, structs.replace(early, event_id="r2")])
    fold(database_url)
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT outcome, amount, applied_at, points_outcome FROM reward.refund") == (
            "waiting", None, None, "applied",
        )  # fmt: skip
    append(database_url, [purchase(1)])
    fold(database_url)
    with transaction(database_url) as cursor:
        assert one(
            cursor,
            """
            SELECT r.outcome, r.amount, r.applied_at = p.recorded_at, p.net, m.net::bigint FROM reward.refund r
            JOIN reward.purchase p USING (member_id, order_id) JOIN reward.member m USING (member_id)
            """,
        ) == ("applied", 1_000, True, 0, 0)


def test_several_projectors_at_once_fold_each_event_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SEQS_MAX", 2)
    append(database_url, [purchase(number, f"m{number % 7}") for number in range(60)])
    threads = [threading.Thread(target=fold, args=(database_url,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*), sum(orders)::int FROM reward.member") == (7, 60)
    assert projections.difference(database_url, "facts") is None


def test_tiers_and_outcomes_are_those_of_the_live_generation(database_url: str) -> None:
    activate(database_url, TIERED)
    late = Refund(
        event_id="r1", member_id="m1", occurred_at=START_MS + 40 * DAY_MS, order_id="o1", refund_id="r1", amount=400
    )
    assert [purchase(number).amount for number in (1, 2)] == [1_000, 1_000]
    commit(database_url, Batch([admitted(event) for event in (purchase(1), purchase(2), late)]))
    finish(database_url, threading.Event())
    with transaction(database_url) as cursor:
        cursor.execute("SELECT order_id, tier, net FROM reward.purchase ORDER BY number")
        assert cursor.fetchall() == [("o1", "regular", 600), ("o2", "silver", 1_000)]
        assert one(cursor, "SELECT tier FROM reward.member") == ("silver",)
        assert one(cursor, "SELECT outcome, points_outcome FROM reward.refund") == ("applied", "refund_window_closed")


def test_the_codes_and_visitors_of_an_erased_member_are_shown_no_more(database_url: str) -> None:
    head: dict[str, Any] = {"occurred_at": START_MS}
    append(
        database_url,
        [
            Touch(event_id="t1", referral_code="c1", visitor="v1", **head),
            Signup(event_id="s1", member_id="ann", visitor="v1", referral_code="c1", **head),
            Signup(event_id="s2", member_id="bob", visitor="v2", referral_code="c1", **head),
        ],
    )
    fold(database_url)
    shown = """
        SELECT member_id, code, visitor FROM reward.signup
        UNION ALL SELECT owner_id, code, visitor FROM reward.touch ORDER BY 1 NULLS LAST
    """
    with transaction(database_url) as cursor:
        cursor.execute("INSERT INTO guerdon.member_code (code, member_id) VALUES ('c1', 'cat')")
        cursor.execute(shown)
        assert cursor.fetchall() == [("ann", "c1", "v1"), ("bob", "c1", "v2"), ("cat", "c1", "v1")]

    append(database_url, [Erasure(event_id="e1", member_id="ann", **head)])
    fold(database_url)
    with transaction(database_url) as cursor:
        cursor.execute(shown)
        assert cursor.fetchall() == [("ann", None, None), ("bob", "c1", "v2"), ("cat", "c1", None)]
        cursor.execute("SELECT member_id, erased FROM reward.member ORDER BY member_id")
        assert cursor.fetchall() == [("ann", True), ("bob", False)]

    append(database_url, [Erasure(event_id="e2", member_id="cat", **head)])
    fold(database_url)
    with transaction(database_url) as cursor:
        cursor.execute(shown)
        assert cursor.fetchall() == [("ann", None, None), ("bob", None, "v2"), ("cat", None, None)]


def test_an_event_that_cannot_be_decoded_is_set_aside_alone(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def garbled(event: Event) -> Any:
        made = admitted(event)
        return structs.replace(made, payload=made.payload[:-1]) if event.event_id == "e3" else made

    monkeypatch.setattr("tests.strategies.source_histories.admitted", garbled)
    append(database_url, [purchase(number, f"m{number % 2}") for number in range(6)])
    fold(database_url)
    gaps = projections.events_set_aside(database_url, "facts")
    assert [(gap["member_id"], gap["first_pos"] == gap["last_pos"] == gap["seq"]) for gap in gaps] == [("m1", True)]
    with transaction(database_url) as cursor:
        cursor.execute("SELECT event_id, number FROM reward.purchase ORDER BY event_id")
        assert cursor.fetchall() == [("e0", 1), ("e1", 1), ("e2", 2), ("e4", 3), ("e5", 2)]
    assert projections.difference(database_url, "facts") is None
    assert {row["projection"]: row["set_aside"] for row in projections.listed(database_url)}["facts"] == 1


def test_a_fact_that_is_not_what_its_event_says_is_named_and_mended(database_url: str) -> None:
    append(database_url, written([Act("purchase", 0, 1, 0, 1)], ""))
    fold(database_url)
    for statement, words in (
        ("UPDATE guerdon.fact_purchase SET amount = 9", "amount 9 and the log says amount 1001"),
        ("UPDATE guerdon.fact_purchase_line SET quantity = 7 WHERE line = 1", "7 and the log says quantity 1.5"),
        ("UPDATE guerdon.fact_member SET net = -10000.5", "net -10000.5 and the log says net 1001"),
        ("DELETE FROM guerdon.fact_purchase_line WHERE line = 2", "line 2: the projection says nothing and the log"),
    ):
        with transaction(database_url) as cursor:
            cursor.execute(statement)
        sentence = projections.difference(database_url, "facts")
        assert sentence is not None
        assert words in sentence
        assert [finding["problem"] for finding in verify(database_url) if finding["problem"]] == [sentence]
        rebuild(database_url, "facts")
        assert projections.difference(database_url, "facts") is None
