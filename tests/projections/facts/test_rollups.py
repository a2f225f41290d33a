"""The cells of rollups are what each member's whole history contributes, whatever came late."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.store.database import as_owner, transaction
from operations.report.periods import Every, add_months, begin_of, next_begin
from operations.setup import projections
from projections.facts.rollups.cells import merge
from projections.facts.rollups.days import Days, date_of, month_of
from projections.facts.rollups.history import histories
from projections.facts.rollups.standing import History, next_of, previous_of, standing
from projections.zones import fixed_zone
from tests.projections.facts.stored import fold
from tests.strategies import source_histories
from tests.strategies.source_histories import append, stretched, written
from tests.system.load import activate

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from projections.facts.rollups.standing import Place

OF_HISTORIES = (
    "active", "asked", "bought", "buyer", "detractor", "joined", "passive", "promoter", "revenue", "second", "stayed",
)  # fmt: skip
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_examples = itertools.count()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York"])
def test_a_local_day_is_that_of_the_zone(zone: str) -> None:
    days = Days(zone)

    @given(st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  as it asks
    def hold(at: datetime) -> None:
        at_us = (at - _EPOCH) // (datetime.resolution)
        for _ in range(2):  # the second answer comes from memory
            assert date_of(days(at_us)) == at.astimezone(days.zone).date()
        assert month_of(days(at_us)) <= days(at_us)
        assert date_of(month_of(days(at_us))) == at.astimezone(days.zone).date().replace(day=1)

    hold()


def test_a_day_begins_at_midnight() -> None:
    days, day_us = Days("Europe/Berlin"), 86_400_000_000
    assert [days.is_midnight(day_us + hour * 3_600_000_000) for hour in (-2, -1, 0)] == [False, True, False]
    assert not days.is_midnight(day_us - 3_600_000_000 + 1)


@given(st.dates(date(2001, 1, 1), date(2030, 1, 1)), st.integers(1, 800), st.integers(0, 40))
def test_days_before_and_after_say_in_which_periods_they_lie(day: date, apart: int, months: int) -> None:
    number = (day - date(2000, 1, 1)).days
    before, after = date_of(previous_of(number, number - apart)), date_of(next_of(number, number + apart))
    for every in Every:
        begin = begin_of(every, day)
        assert (before < begin) == (day - timedelta(apart) < begin), every
        end = next_begin(every, begin)
        assert (after < end) == (day + timedelta(apart) < end), every

    # and before or after the begin of any month
    first = add_months(day, -months)
    assert (before < first) == (day - timedelta(apart) < first)
    last = add_months(day, 1 + months)
    assert (after < last) == (day + timedelta(apart) < last)


def test_a_member_without_history_contributes_nothing() -> None:
    assert standing(History()) == {}


def stored(cursor: Cursor, build: int) -> Counter[Place]:
    """Return all cells of OF_HISTORIES, whenever they were recorded."""
    number = "CASE WHEN {0} = '-infinity' THEN -2147483648 ELSE {0} - date '2000-01-01' END"
    days = ", ".join(number.format(name) for name in ("day", "later", "previous"))
    cursor.execute(
        f"""
        SELECT measure, {days}, name, sum(amount)::bigint FROM guerdon.rollup
        WHERE build = %s AND measure = ANY(%s) GROUP BY measure, day, later, previous, name HAVING sum(amount) <> 0
        """,
        (build, list(OF_HISTORIES)),
    )
    return Counter({tuple(place): amount for *place, amount in cursor.fetchall()})


@pytest.mark.postgres
def test_cells_are_what_whole_histories_contribute(database_url: str) -> None:
    activate(database_url)

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def hold(data: st.DataObject) -> None:
        events = written(data.draw(source_histories.histories), f"x{next(_examples)}-")
        events = stretched(events, data.draw(st.sampled_from((1, 12))))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
        for begin, end in itertools.pairwise((0, *cuts, len(events))):
            append(database_url, events[begin:end], 3_600_000)
            fold(database_url)
        with transaction(database_url) as cursor:
            cursor.execute("SELECT build, shard, member_id FROM guerdon.fact_member")
            build, owners = 0, []
            for build, shard, member_id in cursor.fetchall():  # noqa: B007  all rows have the same
                owners.append((shard, member_id))
            days = Days(fixed_zone(cursor, build) or "")
            expected: Counter[Place] = Counter()
            for history in histories(cursor, build, days, owners).values():
                expected.update(standing(history))
            assert stored(cursor, build) == Counter({place: amount for place, amount in expected.items() if amount})

    hold()


@pytest.mark.postgres
def test_a_merge_changes_no_sum_and_verify_sees_each_changed_cell(database_url: str) -> None:
    activate(database_url)
    append(database_url, written([source_histories.Act("purchase", 0, 1, 0, 1)], "a-"))
    append(database_url, written([source_histories.Act("share", 1, 30, 0, 1)], "b-"))
    fold(database_url)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT max(build) FROM guerdon.rollup_change")
        ((build,),) = cursor.fetchall()
        before = stored(cursor, build)
        merge(cursor, build)
        merge(cursor, build)
        assert stored(cursor, build) == before
        cursor.execute(
            "SELECT (SELECT count(*) FROM guerdon.rollup_change), (SELECT count(*) > 0 FROM guerdon.rollup_cell)"
        )
        assert cursor.fetchall() == [(0, True)]
    assert projections.difference(database_url, "facts") is None

    # another amount, another day of recording, and a cell that is missing
    changes = (
        "UPDATE guerdon.rollup_cell SET amount = amount + 1 WHERE measure = 'net'",
        "UPDATE guerdon.rollup_cell SET recorded = recorded + 1 WHERE measure = 'share'",
        "DELETE FROM guerdon.rollup_cell WHERE measure = 'bought'",
    )
    for change in changes:
        with as_owner(database_url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE cell_before AS TABLE guerdon.rollup_cell")
            cursor.execute(change)
            connection.commit()
            sentence = projections.difference(database_url, "facts")
            assert sentence is not None
            assert sentence.startswith("rollup, measure ")
            cursor.execute("DELETE FROM guerdon.rollup_cell; INSERT INTO guerdon.rollup_cell TABLE cell_before")
            cursor.execute("DROP TABLE cell_before")
            connection.commit()
    assert projections.difference(database_url, "facts") is None
