"""Sum up by arm what the members of an experiment have bought and got since they entered it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.programme.model import Arm, CohortMetric
from engine.store import programmes
from operations.report.arithmetic import arms
from operations.report.experiments.members import members
from operations.report.rewards import unknown_uses
from operations.report.split import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from fractions import Fraction

    from operations.report.frame import Frame

TREAT_ALL = 10_000

MEASURES = (
    "y", "x", "capped", "net", "sales", "refunded", "refusals", "redemptions", "points_redeemed", "cost",
    "cost_of_rules", "profit",
)  # fmt: skip
"""Name the measures that are summed up over members.

`y` is the experiment's metric since entering, `x` the same before, and `capped` is `y` or the cap, if that is less. All
others are since entering: net of orders, orders with a net above 0, refunds, refusals, redemptions and their points,
the cost of rewards, that of the rewards of the experiment's own rules, and margin x net less the cost.
"""

PRODUCTS = (("y", "x"), ("net", "sales"), ("net", "cost_of_rules"), ("profit", "cost_of_rules"))
"""The measures whose products are summed up over members, too."""

CAPPED_AT = 0.99
"""The share of members, of both arms together, whose metric is at most the cap."""

SEGMENTS = ("customer", "tier")
"""Name the segments of members by their state when they entered: new or returning customers, and their tier."""

_SUMS = ", ".join(
    [f"coalesce(sum({name}), 0), coalesce(sum({name} * {name}), 0)" for name in MEASURES]
    + [f"coalesce(sum({one} * {other}), 0)" for one, other in PRODUCTS]
)

_ARMS = f"""
SELECT arm, is_across, {", ".join(SEGMENTS)},
       (SELECT min(occurred_at) FROM entry), (SELECT y FROM cap),
       (SELECT count(*) FROM pair), (SELECT count(*) FROM pair WHERE pair.is_across),
       count(*), count(*) FILTER (WHERE is_crossed), sum(treat), count(*) FILTER (WHERE y > cap),
       coalesce(sum(unpriced), 0), coalesce(sum(coupons), 0), {_SUMS}
FROM member GROUP BY arm, is_across, {", ".join(SEGMENTS)} ORDER BY arm, is_across, {", ".join(SEGMENTS)}
"""


class Experiment(NamedTuple):
    """Describe an experiment as the newest version of the programme that has its salt."""

    salt: str
    treat: int | None
    """How many members of 10,000 are to be treated; None where some rules treat everybody and others nobody."""

    rules: tuple[str, ...]
    """Every rule that ever had the salt."""

    planned: int | None
    metric: CohortMetric


class Money(NamedTuple):
    """Hold what the programme says of money; None where it says nothing."""

    cost_per_point: Fraction | None
    """In minor units."""

    margin: Fraction | None


class Counts(NamedTuple):
    """Count some members of one arm, and what they have."""

    members: int
    crossed: int
    """Members whom a rule has since treated as of the other arm."""

    treats: int
    """By how many of 10,000 each member was to be treated when they entered, over all members."""

    beyond_cap: int
    unpriced: int
    """Rewards whose cost the programme does not say."""

    coupons: int
    """Coupons that may have been used without the log saying so."""


class Sums(NamedTuple):
    """Hold the sums over some members of one arm."""

    counts: Counts
    sums: Mapping[str, float]
    squares: Mapping[str, float]
    products: Mapping[tuple[str, str], float]

    def arm(self, y: str, x: str | None = None) -> arms.Arm:
        """Return the sums of measure `y` and of measure `x`, where their product was summed up, too."""
        return arms.Arm(
            n=self.counts.members,
            sum_y=self.sums[y],
            sum_y2=self.squares[y],
            sum_x=self.sums[x] if x else 0,
            sum_x2=self.squares[x] if x else 0,
            sum_xy=self.products[y, x] if x else 0,
        )


class Referrals(NamedTuple):
    """Count referrers and referees who are both in the experiment."""

    pairs: int
    pairs_across: int
    """Those with one of them treated and the other not."""


class Pair(NamedTuple):
    """Hold the sums of one measure, or of two, in both arms."""

    treated: arms.Arm
    control: arms.Arm


class Both(NamedTuple):
    """Hold the sums of both arms."""

    treated: Sums
    control: Sums

    def of(self, y: str, x: str | None = None) -> Pair:
        """Return the sums of measure `y` and of measure `x` in both arms."""
        return Pair(self.treated.arm(y, x), self.control.arm(y, x))


class Exposure(NamedTuple):
    """Hold the sums of both arms."""

    whole: Both
    """Of all members."""

    apart: Both
    """Without the members whom referrals join across the arms."""

    segments: Mapping[str, Mapping[str, Both]]
    """By each of SEGMENTS, and by the value that members have of it."""

    begun_at: datetime | None
    """The instant at which the first member entered; None where nobody has."""

    cap: float | None
    """The cap of the metric; None where nobody has entered."""

    referrals: Referrals


def experiments_of(of: Frame) -> list[Experiment]:
    """Return every experiment that the versions of the report's generation have, the oldest first."""
    rows = of.rows(
        """
        SELECT v.version, c.key, c.value ->> 'salt', (c.value ->> 'treat')::integer
        FROM guerdon.programme_version v, jsonb_each(v.cohorts) c
        WHERE v.version <= %(version)s
          AND v.version IN (SELECT version FROM guerdon.generation_schedule WHERE generation = %(generation)s)
        ORDER BY v.version, c.key
        """,
        version=of.version,
    )
    by_salt: dict[str, list[tuple[int, str, int]]] = {}
    for version, rule_id, salt, treat in rows:
        by_salt.setdefault(salt, []).append((version, rule_id, treat))

    found = []
    for salt, mentions in by_salt.items():
        newest = mentions[-1][0]
        treats = {treat for version, _, treat in mentions if version == newest}
        rules = programmes.judged_as(of.cursor, newest).rules
        cohort = next(rule.cohort for rule in rules if rule.cohort is not None and rule.cohort.salt == salt)
        names = tuple(dict.fromkeys(rule_id for _, rule_id, _ in mentions))
        found.append(Experiment(salt, treats.pop() if len(treats) == 1 else None, names, cohort.planned, cohort.metric))
    return found


def exposure_of(of: Frame, experiment: Experiment, money: Money) -> Exposure:
    """Return the sums of an experiment's arms as known at the report's `known_at`, up to its cut."""
    costs = of.programme.terms.costs
    prices = [*(("gift", *each) for each in costs.gifts), *(("coupon", *each) for each in costs.coupons)]
    tiers = split(replace(of, by="tier"))
    rows = of.rows(
        members(tiers) + _ARMS,
        salt=experiment.salt,
        rules=list(experiment.rules),
        is_net=experiment.metric is CohortMetric.NET,
        are_uses_unknown=bool(unknown_uses(of)),
        margin=_exact(money.margin),
        per_point=_exact(money.cost_per_point),
        units=[unit for unit, _, _ in prices],
        items=[item for _, item, _ in prices],
        prices=[price for _, _, price in prices],
        capped_at=CAPPED_AT,
        **tiers.parameters,
    )
    parts = [_Part(Arm(row[0]), row[1], dict(zip(SEGMENTS, row[2:4], strict=True)), _sums(row[8:])) for row in rows]
    return Exposure(
        whole=_both(parts),
        apart=_both(part for part in parts if not part.is_across),
        segments={
            name: {
                value: _both(part for part in parts if part.segments[name] == value)
                for value in sorted({part.segments[name] for part in parts})
            }
            for name in SEGMENTS
        },
        begun_at=rows[0][4] if rows else None,
        cap=_plain(rows[0][5]) if rows else None,
        referrals=Referrals(*rows[0][6:8]) if rows else Referrals(0, 0),
    )


class _Part(NamedTuple):
    """Hold the sums of members who are alike in their arm, in their segments, and in whether a referral joins arms."""

    arm: Arm
    is_across: bool
    segments: Mapping[str, str]
    sums: Sums


def _exact(share: Fraction | None) -> Decimal | None:
    return None if share is None else Decimal(share.numerator) / share.denominator


def _sums(row: tuple[Any, ...]) -> Sums:
    counts = len(Counts._fields)
    sums = [_plain(value) for value in row[counts:]]
    of_measures, products = sums[: 2 * len(MEASURES)], sums[2 * len(MEASURES) :]
    return Sums(
        Counts(*map(int, row[:counts])),
        sums=dict(zip(MEASURES, of_measures[0::2], strict=True)),
        squares=dict(zip(MEASURES, of_measures[1::2], strict=True)),
        products=dict(zip(PRODUCTS, products, strict=True)),
    )


def _plain(value: int | Decimal) -> float:
    """Return a sum as an integer where it is one, so that nothing is lost of it."""
    return int(value) if value == int(value) else float(value)


def _both(parts: Iterable[_Part]) -> Both:
    """Return the sums over all members of the parts, arm by arm."""
    by_arm: dict[Arm, list[Sums]] = {arm: [] for arm in Arm}
    for part in parts:
        by_arm[part.arm].append(part.sums)
    return Both(*(_added(sums) for sums in by_arm.values()))


def _added(parts: list[Sums]) -> Sums:
    nothing = Counts(0, 0, 0, 0, 0, 0)
    return Sums(
        Counts(*map(sum, zip(nothing, *(part.counts for part in parts), strict=True))),
        sums={name: sum(part.sums[name] for part in parts) for name in MEASURES},
        squares={name: sum(part.squares[name] for part in parts) for name in MEASURES},
        products={pair: sum(part.products[pair] for part in parts) for pair in PRODUCTS},
    )
