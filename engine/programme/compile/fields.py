"""Generate the code that reads the fields of an event: each once, lines walked once, all into local variables."""

from __future__ import annotations

import ast
from datetime import date
from typing import TYPE_CHECKING, Any

from engine.member.state import attribute_of, birthday_of
from engine.member.windows import LATE_MS
from engine.programme.compile.syntax import (
    arithmetic,
    assign,
    attribute,
    both,
    call,
    choose,
    compare,
    constant,
    either,
    increase,
    increase_name,
    name,
    run,
    when,
)
from engine.programme.compile.when import condition_expression
from engine.programme.conditions import (
    Attribute,
    Difference,
    Every,
    History,
    Kind,
    Lines,
    LocalPart,
    LocalTime,
    Measure,
    MemberPart,
    MemberValue,
    Tender,
    TierValue,
)
from engine.programme.interpret.facts import (
    MONDAY_OF_DAY_ZERO,
    holds_item,
    millionths,
    referrer_of,
    tendered,
    tier_of,
    tier_rank_of,
)
from engine.programme.localtime import DAY_MS, DAY_ZERO, days_to_birthday, month_of
from engine.programme.rules import metrics
from engine.programme.rules.expiry import Expiry

if TYPE_CHECKING:
    from engine.programme.conditions import Duration, Field, Metric
    from engine.programme.localtime import Calendar
    from engine.programme.terms import RoundExpiry

GLOBALS: dict[str, Any] = {
    "NO_WINDOWS": metrics.NO_WINDOWS,
    "add_last": metrics.add_last,
    "add_streak": metrics.add_streak,
    "add_total": metrics.add_total,
    "add_window": metrics.add_window,
    "attribute_of": attribute_of,
    "birthday_of": birthday_of,
    "date": date,
    "days_to_birthday": days_to_birthday,
    "holds_item": holds_item,
    "referrer_of": referrer_of,
    "last_of": metrics.last_of,
    "millionths": millionths,
    "month_of": month_of,
    "streak_of": metrics.streak_of,
    "tendered": tendered,
    "tier_of": tier_of,
    "tier_rank_of": tier_rank_of,
    "total_of": metrics.total_of,
}
"""What the generated code of this module calls."""
_MONTHS = {Every.MONTH: 1, Every.QUARTER: 3, Every.YEAR: 12}


class FieldReader:
    """Collect the fields that one function needs; `statements` reads them all, before any rule is judged."""

    def __init__(self, calendar: Calendar, module: dict[str, Any]) -> None:
        self._module = module
        self._calendar = calendar
        module |= GLOBALS
        module |= {"calendar_after": calendar.after, "calendar_before": calendar.before}
        module |= {"instant_near": calendar.instant_near, "offset_at": calendar.offset_at}
        self.reads_profile = False
        self._locals: dict[Field, str] = {}
        self._reads: list[ast.stmt] = []
        self._lines: dict[Lines, str] = {}
        self._line_locals: dict[Field, str] = {}
        self._line_tests: list[ast.stmt] = []
        self._parts: dict[str, ast.stmt] = {}
        self._windows: dict[str, str] = {}

    def local(self, field: Field) -> ast.expr:
        """Return the local variable that holds a field's value."""
        known = self._locals.get(field)
        if known is None:
            expression = self._expression(field)
            if field.kind is Kind.RECURRING:
                expression = call(name("days_to_birthday"), expression, self.local_day())
            if isinstance(expression, ast.Name):
                known = expression.id
            else:
                known = f"field_{len(self._locals)}"
                self._reads.append(assign(known, expression))
            self._locals[field] = known
        return name(known)

    def constant(self, value: object) -> ast.expr:
        """Put a value into the module's globals and return the name that reads it."""
        identifier = f"value_{len(self._module)}"
        self._module[identifier] = value
        return name(identifier)

    def local_day(self) -> ast.expr:
        """Return the variable of the event's local day."""
        found = arithmetic(self._local_ms(), "//", constant(DAY_MS))
        self._parts.setdefault("local_day", assign("period_day", found))
        return name("period_day")

    def _local_ms(self) -> ast.expr:
        """Return the event's local time, in ms since 1970-01-01 00:00 on its wall."""
        self._offset()
        return arithmetic(name("at_ms"), "+", name("offset_ms"))

    def _offset(self) -> None:
        parts: list[ast.expr] = [ast.Name(local, ast.Store()) for local in ("offset_ms", "steady_ms", "until_ms")]
        found = ast.Assign([ast.Tuple(parts, ast.Store())], call(name("offset_at"), name("at_ms")))
        self._parts.setdefault("offset", found)

    def local_date(self) -> ast.expr:
        """Return the variable of the event's local date."""
        day = self.local_day()
        found = call(attribute(name("date"), "fromordinal"), arithmetic(day, "+", constant(DAY_ZERO)))
        self._parts.setdefault("local_date", assign("local_date", found))
        return name("local_date")

    def period(self, every: Every) -> ast.expr:
        """Return what numbers the event's calendar period."""
        if every is Every.LIFETIME:
            return constant(0)
        if every is Every.DAY:
            return self.local_day()
        if every is Every.WEEK:
            return arithmetic(arithmetic(self.local_day(), "+", constant(MONDAY_OF_DAY_ZERO)), "//", constant(7))
        month = call(name("month_of"), self.local_day())
        self._parts.setdefault("local_month", assign("period_month", month))
        months = _MONTHS[every]
        return name("period_month") if months == 1 else arithmetic(name("period_month"), "//", constant(months))

    def window_start(self, length: Duration) -> ast.expr:
        """Return the instant at which a rolling window that ends with the event begins, itself outside."""
        if length.ms:
            return arithmetic(name("at_ms"), "-", constant(length.ms))
        local = f"before_{length.months}_{length.days}"
        if local not in self._parts:
            since: ast.expr = call(name("calendar_before"), name("at_ms"), self.constant(length))
            if not length.months:
                days_before = arithmetic(name("at_ms"), "-", constant(length.days * DAY_MS))
                earlier = arithmetic(self._local_ms(), "-", constant(length.days * DAY_MS))
                elsewhere = call(name("instant_near"), earlier, name("offset_ms"))
                since = choose(compare(days_before, ">=", name("steady_ms")), days_before, elsewhere)
            self._parts[local] = assign(local, since)
        return name(local)

    def after(self, instant: ast.expr, length: Duration) -> ast.expr:
        """Return the instant so long after another."""
        if length.ms:
            return arithmetic(instant, "+", constant(length.ms))
        return call(name("calendar_after"), instant, self.constant(length))

    def expiry(self, validity: Duration, rounding: RoundExpiry) -> Expiry:
        """Return what computes when points lapse."""
        return Expiry(self._calendar, validity, rounding)

    def _window(self, metric: Metric) -> ast.expr:
        """Return the variable of a metric's window, None while nothing was entered; only the metric itself enters."""
        local = f"window_{metric.key}"
        if local not in self._parts:
            memory = attribute(name("state"), "memory")
            known = choose(compare(memory, "is", constant(None)), name("NO_WINDOWS"), attribute(memory, "windows"))
            self._parts.setdefault("windows", assign("windows", known))
            self._windows[metric.key] = f"window_{len(self._windows)}"
            found = call(attribute(name("windows"), "get"), constant(metric.key))
            self._parts[local] = assign(self._windows[metric.key], found)
        return name(self._windows[metric.key])

    def statements(self) -> list[ast.stmt]:
        """Read everything that was asked for."""
        return [*self._parts.values(), *self._line_walk(), *self._reads]

    def _expression(self, field: Field) -> ast.expr:  # noqa: PLR0911  one answer for each source
        source = field.source
        if isinstance(source, Attribute):
            value = attribute(name("event"), source.name)
            if source.key is None:
                return either([value, constant(None)]) if field.kind is Kind.TEXTS else value  # an empty one is missing
            found = call(attribute(value, "get"), constant(source.key))
            return choose(compare(value, "is", constant(None)), constant(None), found)
        if isinstance(source, Tender):
            return call(name("tendered"), attribute(name("event"), "tenders"), constant(source.kind))
        if isinstance(source, LocalTime):
            return self._local_time(source.part)
        if isinstance(source, Lines):
            return self._line_query(source)
        if isinstance(source, History):
            return self._history(source.metric)
        if isinstance(source, MemberValue):
            return self._member(source)
        if isinstance(source, TierValue):
            function = "tier_rank_of" if source.ranked else "tier_of"
            return call(name(function), name("state"), self.constant(source.levels))
        return self._difference(source)

    def entering(self, metric: Metric, *, is_tiers: bool) -> list[ast.stmt]:
        """Let a metric take the event in, after everything else; `is_tiers`: tiers go by it."""
        state, key, at = name("state"), constant(metric.key), name("at_ms")
        value = constant(1) if metric.of is None else self.local(metric.of)
        if metric.measure is Measure.LAST:
            entered = call(name("add_last"), state, key, at)
        elif metric.unit is not None:
            entered = call(name("add_streak"), state, key, self.period(Every(metric.unit)))
        elif metric.over is None:
            entered = call(name("add_total"), state, key, value)
        else:
            return self._entering_window(metric, metric.over, value)  # tiers go by no metric that has a window
        return self._where(metric, self._gained(metric, value, run(entered), is_tiers=is_tiers))

    def _gained(self, metric: Metric, value: ast.expr, entered: ast.stmt, *, is_tiers: bool) -> list[ast.stmt]:
        """Count for the tiers, too, what a metric takes in that they go by."""
        if not is_tiers:
            return [entered]
        gained = value if metric.of is None or not metric.of.optional else either([value, constant(0)])
        return [entered, increase(name("state"), "gained", gained)]

    def _where(self, metric: Metric, entered: list[ast.stmt]) -> list[ast.stmt]:
        condition = condition_expression(metric.where, self.local, self.constant)
        return entered if condition is None else [when(condition, entered)]

    def _entering_window(self, metric: Metric, over: Duration, value: ast.expr) -> list[ast.stmt]:
        """Enter the event; where its value is surely there and within 64 bits, into the window itself."""
        at, since = name("at_ms"), self.window_start(over)
        entered = run(call(name("add_window"), name("state"), constant(metric.key), value, since, at))
        plain = metric.of is None or (isinstance(metric.of.source, Attribute) and not metric.of.optional)
        if not plain:
            return self._where(metric, [entered])
        window = self._window(metric)
        keep_from = arithmetic(since, "-", constant(LATE_MS))
        direct = run(call(attribute(window, "enter"), at, value, constant(1), keep_from))
        return self._where(metric, [when(compare(window, "is", constant(None)), [entered], [direct])])

    def _history(self, metric: Metric) -> ast.expr:
        state, key = name("state"), constant(metric.key)
        if metric.measure is Measure.LAST:
            return call(name("last_of"), state, key)
        if metric.unit is not None:
            return call(name("streak_of"), state, key, self.period(Every(metric.unit)))
        if metric.over is None:
            return call(name("total_of"), state, key)
        window, since = self._window(metric), self.window_start(metric.over)
        inside = call(attribute(window, "amount"), since, name("at_ms"))
        return choose(compare(window, "is", constant(None)), constant(0), inside)

    def _local_time(self, part: LocalPart) -> ast.expr:
        if part is LocalPart.DATE:
            return self.local_day()
        if part in (LocalPart.DAY, LocalPart.MONTH):
            return attribute(self.local_date(), part.value)
        if part is LocalPart.WEEKDAY:
            return arithmetic(arithmetic(self.local_day(), "+", constant(MONDAY_OF_DAY_ZERO)), "%", constant(7))
        return arithmetic(self._local_ms(), "%", constant(DAY_MS))

    def _member(self, source: MemberValue) -> ast.expr:
        state = name("state")
        if source.part is MemberPart.AGE:
            return attribute(state, "signup_ms")
        if source.part is MemberPart.REFERRER:
            return call(name("referrer_of"), state)
        if source.part is MemberPart.BALANCE:
            return attribute(state, "available")
        if source.part is MemberPart.HELD:
            return call(name("holds_item"), state, constant(source.item), name("at_ms"))
        self.reads_profile = True
        if source.part is MemberPart.BIRTHDAY:
            return call(name("birthday_of"), state)
        return call(name("attribute_of"), state, constant(source.item))

    def _difference(self, source: Difference) -> ast.expr:
        (first_sign, first), *others = source.terms
        total = self.local(first)
        if first_sign < 0:
            total = arithmetic(constant(0), "-", total)
        for sign, field in others:
            total = arithmetic(total, "+" if sign > 0 else "-", self.local(field))
        present = [compare(self.local(field), "is not", constant(None)) for _, field in source.terms if field.optional]
        return choose(both(present), total, constant(None)) if present else total

    def _line_query(self, source: Lines) -> ast.expr:
        known = self._lines.get(source)
        if known is None:
            known = self._lines[source] = f"lines_{len(self._lines)}"
            condition = condition_expression(source.where, self._line_local, self.constant)
            by: ast.expr = constant(1)
            if source.sum == "quantity":
                by = call(name("millionths"), attribute(name("line"), "quantity"))
            elif source.sum is not None:
                by = attribute(name("line"), source.sum)
            adding = increase_name(known, by)
            self._line_tests.append(adding if condition is None else when(condition, [adding]))
        return name(known)

    def _line_local(self, field: Field) -> ast.expr:
        local = self._line_locals.setdefault(field, f"line_{len(self._line_locals)}")
        return name(local)

    def _line_walk(self) -> list[ast.stmt]:
        """Walk the lines once for everything that asks about them; without a line all of it is missing."""
        if not self._lines:
            return []
        body = [assign(local, _line_value(field)) for field, local in self._line_locals.items()]
        items = attribute(name("event"), "items")
        walking = ast.For(ast.Name("line", ast.Store()), items, [*body, *self._line_tests], [])
        zeros = [assign(local, constant(0)) for local in self._lines.values()]
        missing = [assign(local, constant(None)) for local in self._lines.values()]
        return [when(items, [*zeros, walking], missing)]


def _line_value(field: Field) -> ast.expr:
    assert isinstance(field.source, Attribute)  # noqa: S101  lines have nothing else
    value = attribute(name("line"), field.source.name)
    return call(name("millionths"), value) if field.kind is Kind.DECIMAL else value
