"""Turn the events of a fold into changes of cells."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from projections.facts.rollups.cells import Cells
from projections.facts.rollups.days import NO_DAY, Days, month_of
from projections.facts.rollups.member import LastDays, Late
from projections.facts.rollups.standing import SURVEY, FirstSignup, History, measure_of, standing
from schemas.events import Activity, Erasure, Purchase, Redemption, Refund, Share, Signup, Touch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from engine.store.logs.bare_log import BareEvent
    from projections.facts.orders import Applied

    Owner = tuple[int, str]
    """A shard and a member_id."""

    Histories = Callable[[Collection[Owner]], Mapping[Owner, History]]
    """Returns the histories of members up to the fold."""

ORDER_MEASURES = ("order", "amount", "net", "gross", "net_positive", "gross_net_positive")
"""The sums of the orders of a day, in minor units or as a count, each a measure."""

_ACTS = (Activity, Share, Redemption)


class Batch:
    """Gather the changes of cells, and what is known of each member afterwards.

    Args:
        days: of the build's zone.
        before: by member, what an earlier fold has packed; members without a row are left out.
        histories: asked for members whose events go back to a day before their last.
    """

    def __init__(self, days: Days, before: Mapping[Owner, bytes | memoryview], histories: Histories) -> None:
        self._days = days
        self._before = before
        self._histories = histories
        self._members: dict[Owner, LastDays] = {}
        self._applied: defaultdict[tuple[int, int], list[Applied]] = defaultdict(list)
        self.cells = Cells()

    def take(self, events: Iterable[BareEvent], applied: Iterable[Applied]) -> Mapping[Owner, Sequence[BareEvent]]:
        """Take events, in the order of the log in each shard, and the refunds that were applied with them.

        Returns:
            The events by member.
        """
        for each in applied:
            self._applied[each.order.bare.shard, each.seq].append(each)
        by_member = self._plain(events)
        self._orders_lowered()

        # from event to event, and for who goes back by their whole history
        late: dict[Owner, int] = {}
        for owner, theirs in by_member.items():
            packed = self._before.get(owner)
            member = self._members[owner] = LastDays() if packed is None else LastDays.unpack(packed)
            for number, bare in enumerate(theirs):
                try:
                    self._follow(member, bare)
                except Late:
                    late[owner] = number
                    break
        if late:
            histories = self._histories(late)
            for owner, number in late.items():
                self._replay(self._members[owner], histories[owner], by_member[owner], number)
        return by_member

    def packed(self, owner: Owner) -> bytes:
        """Return what the next fold needs to know of a member who has an event in this one."""
        return self._members[owner].pack()

    def _plain(self, events: Iterable[BareEvent]) -> dict[Owner, list[BareEvent]]:
        """Count what needs nothing but the event, and return the events by member."""
        days, cells = self._days, self.cells
        by_member: dict[Owner, list[BareEvent]] = {}
        counts: defaultdict[tuple[int, int], int] = defaultdict(int)
        sums: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0] * len(ORDER_MEASURES))
        for bare in events:
            event: Any = bare.event
            kind, day, recorded = type(event), days(bare.occurred_us), days(bare.recorded_us)
            counts[day, recorded] += 1
            if days.is_midnight(bare.occurred_us):
                cells["midnight", day, NO_DAY, NO_DAY, "", recorded] += 1

            if kind is Purchase:
                amount, gross, of_day = event.amount, event.gross, sums[day, recorded]
                gross = amount if gross is None else gross
                of_day[0] += 1
                of_day[1] += amount
                of_day[2] += amount
                of_day[3] += gross
                if amount > 0:
                    of_day[4] += 1
                    of_day[5] += gross
            elif kind is Share:
                cells["share", day, NO_DAY, NO_DAY, event.channel, recorded] += 1
            elif kind is Touch:
                cells["touch", day, NO_DAY, NO_DAY, event.channel or "", recorded] += 1
                continue
            by_member.setdefault((bare.shard, event.member_id), []).append(bare)

        for (day, recorded), count in counts.items():
            cells["event", day, NO_DAY, NO_DAY, "", recorded] += count
        for (day, recorded), numbers in sums.items():
            for measure, number in zip(ORDER_MEASURES, numbers, strict=True):
                cells[measure, day, NO_DAY, NO_DAY, "", recorded] += number
        return by_member

    def _orders_lowered(self) -> None:
        """Lower the sums of the days on which returned orders were bought."""
        cells = self.cells
        for several in self._applied.values():
            for order, refund, left in several:
                day, recorded = self._days(order.bare.occurred_us), self._days(refund.applied_us or 0)
                amount, gross = refund.amount or 0, order.event.gross
                cells["net", day, NO_DAY, NO_DAY, "", recorded] -= amount
                if not left and amount:
                    cells["net_positive", day, NO_DAY, NO_DAY, "", recorded] -= 1
                    gross = order.event.amount if gross is None else gross
                    cells["gross_net_positive", day, NO_DAY, NO_DAY, "", recorded] -= gross
                cells["refund", self._days(refund.bare.occurred_us), NO_DAY, NO_DAY, "", recorded] += amount

    def _follow(self, member: LastDays, bare: BareEvent) -> None:
        event: Any = bare.event
        kind, cells, recorded = type(event), self.cells, self._days(bare.recorded_us)
        day = self._days(bare.occurred_us)
        self._be_there(member, bare)
        if kind is Purchase:
            member.act(cells, day, recorded)
            member.buy(cells, day, recorded, event.amount)
        elif kind in _ACTS:
            member.act(cells, day, recorded)
            if kind is Activity and event.kind == SURVEY:
                member.answer(cells, bare.occurred_us, day, recorded, measure_of(event.score))
        elif kind is Signup:
            member.join(cells, bare.occurred_us, day, recorded, event.channel or "")
        if self._applied and (kind is Purchase or kind is Refund):
            for order, refund, _ in self._applied.get((bare.shard, bare.seq), ()):
                member.return_some(cells, self._days(order.bare.occurred_us), recorded, refund.amount or 0)

    def _be_there(self, member: LastDays, bare: BareEvent) -> None:
        recorded = self._days(bare.recorded_us)
        member.be_there(self.cells, self._days(bare.occurred_us), recorded)
        if type(bare.event) is Erasure:
            member.be_erased(self.cells, recorded)

    def _replay(self, member: LastDays, history: History, events: Sequence[BareEvent], first: int) -> None:
        """Take a member's events from the `first` on, at which they went back, by the change of their standing."""
        for bare in events[:first]:
            self.extend(history, bare)

        # one difference for all that was recorded on a day
        before = standing(history)
        for recorded, several in groupby(events[first:], lambda bare: self._days(bare.recorded_us)):
            for bare in several:
                self._be_there(member, bare)
                self.extend(history, bare)
            after = standing(history)
            for place in before | after:
                change = after[place] - before[place]
                if change:
                    self.cells[*place, recorded] += change
            before = after
        member.take_from(history)

    def extend(self, history: History, bare: BareEvent) -> None:
        """Add an event to the history of its member, and what was applied with it."""
        event: Any = bare.event
        day = self._days(bare.occurred_us)
        if isinstance(event, Purchase):
            history.order_days.append(day)
            history.net_by_month[month_of(day)] += event.amount
        if isinstance(event, (Purchase, *_ACTS)):
            history.active.add(day)
            if isinstance(event, Activity) and event.kind == SURVEY:
                history.take_survey(day, bare.occurred_us, bare.seq, event.score)
        elif isinstance(event, Signup):
            history.join(FirstSignup(bare.occurred_us, bare.seq, day, event.channel or ""))
        for order, refund, _ in self._applied.get((bare.shard, bare.seq), ()):
            history.net_by_month[month_of(self._days(order.bare.occurred_us))] -= refund.amount or 0
