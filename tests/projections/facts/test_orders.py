"""Refunds lower an order's net as far as something is left of it, whatever the programme made of them."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store.logs.bare_log import BareEvent
from projections.facts.orders import Order, RefundFact
from schemas.events import Item, Purchase, Refund, RefundItem

NOW_MS = 1_700_000_000_000
LINES = (("1", 700), ("2", 301), ("3", 0))
_seqs = count(2)


def order(lines: tuple[tuple[str, int], ...] | None = LINES, amount: int = 1_001) -> Order:
    items = None if lines is None else tuple(
        Item(line_id=line, sku="a", quantity="1", amount=part) for line, part in lines
    )  # fmt: skip
    bought = Purchase(
        event_id="p", occurred_at=NOW_MS, member_id="m", order_id="o", currency="USD", amount=amount, items=items
    )
    return Order(BareEvent(0, 1, 0, 500, bought), bought, 1)


def refund(
    refund_id: str = "r1", amount: int | None = None, lines: tuple[tuple[str, int], ...] | None = None, at: int = 900
) -> RefundFact:
    items = None if lines is None else tuple(RefundItem(line_id=line, amount=part) for line, part in lines)
    seq = next(_seqs)
    event = Refund(
        event_id=f"e{seq}", occurred_at=NOW_MS, member_id="m", order_id="o", refund_id=refund_id, amount=amount,
        items=items,
    )  # fmt: skip
    return RefundFact(BareEvent(0, seq, 0, at, event), event)


def outcome(of: Order, fact: RefundFact) -> tuple[str, int | None]:
    of.take(fact)
    return fact.outcome, fact.amount


def test_a_refund_without_amount_returns_the_whole_rest() -> None:
    bought = order()
    assert outcome(bought, refund("r1", amount=301)) == ("applied", 301)
    assert outcome(bought, refund("r2")) == ("applied", 700)
    assert bought.returned == 1_001
    assert outcome(bought, refund("r3")) == ("applied", 0)


def test_a_refund_of_more_than_is_left_lowers_nothing() -> None:
    bought = order()
    assert outcome(bought, refund("r1", amount=1_000)) == ("applied", 1_000)
    assert outcome(bought, refund("r2", amount=2)) == ("exceeds", 2)
    assert outcome(bought, refund("r3", lines=(("1", 1), ("2", 1)))) == ("exceeds", 2)
    assert outcome(bought, refund("r4", lines=(("9", 0),))) == ("exceeds", 0)
    assert outcome(bought, refund("r5", amount=1)) == ("applied", 1)
    assert bought.returned == 1_001


def test_an_id_that_an_applied_refund_has_with_other_content_is_a_conflict() -> None:
    bought = order()
    bought.take(refund("r1", amount=100))
    assert outcome(bought, refund("r1", amount=50)) == ("conflict", 50)
    assert outcome(bought, refund("r1")) == ("conflict", None)
    assert bought.has(refund("r1", amount=100))
    assert not bought.has(refund("r2", amount=100))
    assert bought.returned == 100


def test_an_id_whose_refund_lowered_nothing_is_free() -> None:
    bought = order()
    assert outcome(bought, refund("r1", amount=5_000)) == ("exceeds", 5_000)
    assert outcome(bought, refund("r1", amount=10)) == ("applied", 10)


def test_a_refund_counts_from_the_later_of_both_events_on() -> None:
    early, late = refund("r1", amount=1, at=100), refund("r2", amount=1, at=900)
    bought = order()
    bought.take(early)
    bought.take(late)
    assert (early.applied_us, late.applied_us) == (500, 900)
    assert early.purchase_seq == late.purchase_seq == 1


@pytest.mark.parametrize(
    ("refunds", "lines"),
    [
        ([refund(lines=(("1", 100),))], [100, 0, 0]),
        ([refund(amount=500)], [349, 151, 0]),  # 349.65 and the rest
        ([refund("r1", lines=(("1", 100),)), refund("r2", amount=901)], [700, 301, 0]),
        ([refund("r1", amount=10), refund("r2", lines=(("2", 301),))], [10, 301, 0]),
        ([refund()], [700, 301, 0]),
    ],
)
def test_the_lines_share_what_refunds_by_amount_return(refunds: list[RefundFact], lines: list[int]) -> None:
    bought = order()
    for fact in refunds:
        bought.take(fact)
    assert bought.returned_of_lines() == lines


_refunds = st.lists(
    st.tuples(
        st.sampled_from(("r1", "r2", "r3", "r4")),
        st.none() | st.integers(0, 400) | st.lists(st.tuples(st.sampled_from("123"), st.integers(0, 300)), min_size=1),
    )
)


@given(_refunds)
def test_whatever_is_returned_is_what_a_plain_count_says_and_what_the_lines_add_up_to(
    drawn: list[tuple[str, int | list[tuple[str, int]] | None]],
) -> None:
    bought, left, ids = order(), 1_001, dict[str, object]()
    of_lines, by_amount = dict(LINES), 0
    for refund_id, what in drawn:
        by_line = what if isinstance(what, list) else []
        amount = None if isinstance(what, list) else what
        fact = refund(refund_id, amount, tuple(by_line) or None)
        if bought.has(fact):
            continue
        bought.take(fact)

        # counted plainly: a whole rest takes all, lines what they have, amounts what no line has given back
        asked = left if what is None else amount if amount is not None else sum(part for _, part in by_line)
        rest = {line: of_lines[line] - sum(part for of, part in by_line if of == line) for line in of_lines}
        fits = min(rest.values()) >= 0 and asked <= left
        if refund_id in ids and ids[refund_id] != what:
            assert fact.outcome == "conflict"
        elif not fits:
            assert fact.outcome == "exceeds"
        else:
            assert (fact.outcome, fact.amount) == ("applied", asked)
            ids[refund_id] = what
            left -= asked
            of_lines = rest
            by_amount += 0 if by_line else asked

    assert bought.returned == 1_001 - left
    lines = bought.returned_of_lines()
    assert sum(lines) == bought.returned
    assert all(0 <= part <= whole for part, (_, whole) in zip(lines, LINES, strict=True))
