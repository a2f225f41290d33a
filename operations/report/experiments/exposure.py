"""Read who entered an experiment, and sum up by arm what members have bought and got since they entered.

An experiment is a salt of the programme's cohorts: rules that share it divide members alike. A member belongs to the
arm of the first `cohort.entered` of that salt. *Since* means from the entering event on, by (`occurred_at`, `seq`): the
order that let the member in counts, and a late order that lies before it does not.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.programme.model import Arm, CohortMetric
from engine.store import programmes
from operations.report.arithmetic import arms
from operations.report.orders import ORDERS
from operations.report.rewards import unknown_uses

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    from operations.report.frame import Frame

TREAT_ALL = 10_000

MEASURES = (
    "y", "x", "net", "sales", "refunded", "refusals", "redemptions", "points_redeemed", "cost", "profit",
)  # fmt: skip
"""Name the measures that are summed up over members.

`y` is the experiment's metric since entering, `x` the same before. All others are since then: net of orders, orders
with a net above 0, refunds, refusals, redemptions and their points, the cost of rewards, and margin x net less that.
"""

_SUMS = ", ".join(f"coalesce(sum({name}), 0), coalesce(sum({name} * {name}), 0)" for name in MEASURES)

ENTRY = """entry AS (
    SELECT DISTINCT ON (e.shard, e.member_id) e.shard, e.member_id, e.item AS arm, e.seq, e.occurred_at,
           min(e.item) OVER everyone <> max(e.item) OVER everyone AS is_crossed
    FROM guerdon.reward_event e JOIN guerdon.programme_version v ON v.version = e.rule_version
    WHERE e.generation = %(generation)s AND e.type = 'cohort.entered'
      AND e.item IS NOT NULL AND e.debit IS NULL  -- as the index has it
      AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
      AND v.cohorts -> e.rule_id ->> 'salt' = %(salt)s
    WINDOW everyone AS (PARTITION BY e.shard, e.member_id)
    ORDER BY e.shard, e.member_id, e.pos
)"""
"""Find who entered by salt, generation, known_at and cut; the first row a member is the one that counts."""

PURCHASE = f"""{ORDERS}, purchase AS (
    SELECT n.shard, n.member_id, n.arm, o.occurred_at, o.seq, o.net, o.amount - o.net AS refunded,
           (o.occurred_at, o.seq) >= (n.occurred_at, n.seq) AS is_since
    FROM entry n JOIN orders o ON o.shard = n.shard AND o.member_id = n.member_id
)"""
"""Find the orders of those who entered, each with its refunds as they are known, from before and since."""

_ARMS = f"""
WITH {ENTRY}, referral AS MATERIALIZED (          -- by hashed lookups, which no estimate turns into a loop over members
    SELECT r.member_id AS referee, r.item AS referrer,
           CASE WHEN r.member_id IN (SELECT member_id FROM entry WHERE arm = 'treated') THEN 'treated'
                WHEN r.member_id IN (SELECT member_id FROM entry WHERE arm = 'control') THEN 'control'
           END AS referee_arm,
           CASE WHEN r.item IN (SELECT member_id FROM entry WHERE arm = 'treated') THEN 'treated'
                WHEN r.item IN (SELECT member_id FROM entry WHERE arm = 'control') THEN 'control'
           END AS referrer_arm
    FROM guerdon.reward_event r
    WHERE r.generation = %(generation)s AND r.type = 'referral.attributed' AND r.reason IS DISTINCT FROM 'released'
      AND r.recorded_at < %(known_at)s AND r.occurred_at < %(cut)s
), pair AS MATERIALIZED (                         -- both are in the experiment
    SELECT referee, referrer, referee_arm <> referrer_arm AS is_across
    FROM referral WHERE referee_arm IS NOT NULL AND referrer_arm IS NOT NULL
), across AS (
    SELECT referee AS member_id FROM pair WHERE is_across UNION SELECT referrer FROM pair WHERE is_across
), {PURCHASE}, price AS (
    SELECT * FROM unnest(%(units)s::text[], %(items)s::text[], %(prices)s::numeric[]) AS p (unit, item, price)
), reward AS (
    SELECT n.shard, n.member_id, e.seq, e.type::text AS type, e.rule_id = ANY(%(rules)s) AS is_ours,
           CASE WHEN e.type::text LIKE '%%.restored' OR e.type = 'gift.revoked' THEN -e.amount ELSE e.amount END
           AS amount,
           CASE WHEN e.type = 'coupon.issued' THEN NULL WHEN e.type::text LIKE 'points.%%' THEN %(per_point)s::numeric
           WHEN e.type::text LIKE 'cash.%%' THEN 1 ELSE p.price END AS price
    FROM entry n
    JOIN guerdon.reward_event e ON e.generation = %(generation)s AND e.shard = n.shard AND e.member_id = n.member_id
    LEFT JOIN price p ON p.unit = e.unit AND p.item = e.item
    WHERE e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
      AND (e.occurred_at, e.seq) >= (n.occurred_at, n.seq)
      AND (e.type IN ('points.captured', 'points.restored', 'cash.captured', 'cash.restored', 'coupon.used',
                      'gift.awarded', 'gift.revoked')
           OR (e.type = 'coupon.issued' AND %(are_uses_unknown)s)  -- then each coupon may have cost something
           OR (e.type = 'reward.refused' AND e.reason <> 'cohort_control'))
), part AS (                                      -- a row for each thing of a member, to be added up once
    SELECT shard, member_id, arm, is_crossed, NULL::boolean AS is_since, 0::numeric AS amount, 0::numeric AS refunded,
           NULL::text AS type, NULL::bigint AS seq, false AS is_ours, NULL::numeric AS price
    FROM entry
    UNION ALL
    SELECT shard, member_id, NULL, NULL, is_since, net, refunded, 'purchase', NULL, false, NULL FROM purchase
    UNION ALL
    SELECT shard, member_id, NULL, NULL, NULL, amount, 0, type, seq, is_ours, price FROM reward
), added AS (
    SELECT member_id, max(arm) AS arm, bool_or(is_crossed) AS is_crossed,
           coalesce(sum(amount) FILTER (WHERE is_since), 0) AS net,
           coalesce(sum(amount) FILTER (WHERE NOT is_since), 0) AS net_before,
           (count(*) FILTER (WHERE is_since))::numeric AS orders,
           (count(*) FILTER (WHERE NOT is_since))::numeric AS orders_before,
           (count(*) FILTER (WHERE is_since AND amount > 0))::numeric AS sales,
           coalesce(sum(refunded) FILTER (WHERE is_since), 0) AS refunded,
           (count(*) FILTER (WHERE type = 'reward.refused'))::numeric AS refusals,
           (count(DISTINCT seq) FILTER (WHERE type = 'points.captured'))::numeric AS redemptions,
           coalesce(sum(amount) FILTER (WHERE type IN ('points.captured', 'points.restored')), 0) AS points_redeemed,
           coalesce(sum(amount * price) FILTER (WHERE type <> 'reward.refused'), 0) AS cost,
           coalesce(sum(amount * price) FILTER (WHERE type <> 'reward.refused' AND is_ours), 0) AS cost_of_rules,
           count(*) FILTER (WHERE type NOT IN ('reward.refused', 'purchase', 'coupon.issued') AND price IS NULL)
           AS unpriced,
           count(*) FILTER (WHERE type = 'coupon.issued') AS coupons
    FROM part GROUP BY shard, member_id
), member AS (
    SELECT a.*, member_id IN (SELECT member_id FROM across) AS is_across,
           CASE WHEN %(is_net)s THEN net ELSE orders END AS y,
           CASE WHEN %(is_net)s THEN net_before ELSE orders_before END AS x,
           %(margin)s::numeric * net - cost AS profit
    FROM added a
)
SELECT arm, is_across, count(*), count(*) FILTER (WHERE is_crossed), coalesce(sum(cost_of_rules), 0),
       coalesce(sum(unpriced), 0), coalesce(sum(coupons), 0),
       (SELECT count(*) FROM pair), (SELECT count(*) FROM pair WHERE pair.is_across),
       sum(x * y), sum(net * sales), {_SUMS}
FROM member GROUP BY arm, is_across
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


class Sums(NamedTuple):
    """Hold the sums over some members of one arm."""

    members: int
    crossed: int
    cost_of_rules: float
    """The cost of what the experiment's own rules gave, in minor units."""

    unpriced: int
    """Rewards whose cost the programme does not say."""

    coupons: int
    """Coupons that may have been used without the log saying so."""

    pairs: int
    """Referrers and referees who are both in the experiment, in either arm."""

    pairs_across: int
    sum_xy: float
    sum_net_sales: float
    sums: dict[str, float]
    squares: dict[str, float]

    def arm(self, y: str, x: str | None = None) -> arms.Arm:
        """Return the sums of measure `y` and of measure `x`, where their product was summed up, too."""
        product = {("y", "x"): self.sum_xy, ("net", "sales"): self.sum_net_sales}[y, x] if x else 0
        return arms.Arm(
            n=self.members,
            sum_y=self.sums[y],
            sum_y2=self.squares[y],
            sum_x=self.sums[x] if x else 0,
            sum_x2=self.squares[x] if x else 0,
            sum_xy=product,
        )


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
    rows = of.rows(
        _ARMS,
        salt=experiment.salt,
        rules=list(experiment.rules),
        is_net=experiment.metric is CohortMetric.NET,
        are_uses_unknown=bool(unknown_uses(of)),
        margin=_exact(money.margin),
        per_point=_exact(money.cost_per_point),
        units=[unit for unit, _, _ in prices],
        items=[item for _, item, _ in prices],
        prices=[price for _, _, price in prices],
    )
    parts = [(Arm(row[0]), row[1], _sums(row[2:])) for row in rows]
    whole = (_added(sums for name, _, sums in parts if name is arm) for arm in Arm)
    apart = (_added(sums for name, is_across, sums in parts if name is arm and not is_across) for arm in Arm)
    return Exposure(Both(*whole), Both(*apart))


def _exact(share: Fraction | None) -> Decimal | None:
    return None if share is None else Decimal(share.numerator) / share.denominator


def _sums(row: tuple[Any, ...]) -> Sums:
    values = [_plain(value) for value in row]
    members, crossed, cost_of_rules, unpriced, coupons, pairs, pairs_across, sum_xy, sum_net_sales, *sums = values
    return Sums(
        members=int(members),
        crossed=int(crossed),
        cost_of_rules=cost_of_rules,
        unpriced=int(unpriced),
        coupons=int(coupons),
        pairs=int(pairs),
        pairs_across=int(pairs_across),
        sum_xy=sum_xy,
        sum_net_sales=sum_net_sales,
        sums=dict(zip(MEASURES, sums[0::2], strict=True)),
        squares=dict(zip(MEASURES, sums[1::2], strict=True)),
    )


def _plain(value: int | Decimal) -> float:
    """Return a sum as an integer where it is one, so that nothing is lost of it."""
    return int(value) if value == int(value) else float(value)


def _added(parts: Iterable[Sums]) -> Sums:
    """Return the sums over all members of the parts; none over no part. Pairs are the same in each part."""
    nothing: dict[str, float] = dict.fromkeys(MEASURES, 0)
    total = Sums(0, 0, 0, 0, 0, 0, 0, 0, 0, nothing, nothing)
    for part in parts:
        total = Sums(
            members=total.members + part.members,
            crossed=total.crossed + part.crossed,
            cost_of_rules=total.cost_of_rules + part.cost_of_rules,
            unpriced=total.unpriced + part.unpriced,
            coupons=total.coupons + part.coupons,
            pairs=part.pairs,
            pairs_across=part.pairs_across,
            sum_xy=total.sum_xy + part.sum_xy,
            sum_net_sales=total.sum_net_sales + part.sum_net_sales,
            sums={name: total.sums[name] + part.sums[name] for name in MEASURES},
            squares={name: total.squares[name] + part.squares[name] for name in MEASURES},
        )
    return total
