"""Hold the terms of a programme beside its rules: how long points last, what refunds take, tiers, the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING

from engine.programme.conditions import Duration

if TYPE_CHECKING:
    from fractions import Fraction

    from engine.programme.conditions import Every, Metric


NINETY_DAYS = Duration(days=90)
SEVEN_DAYS = Duration(days=7)


class RoundExpiry(StrEnum):
    """Name the boundary to which an expiry is put off."""

    NONE = "none"
    DAY = "day"
    MONTH = "month"
    YEAR = "year"


class Negative(StrEnum):
    """Name how many points a refund may take back."""

    ONLY_PENDING = "only_pending"
    WITHIN_BALANCE = "within_balance"
    UNLIMITED = "unlimited"


class Downgrade(StrEnum):
    """Name how a member falls at a review."""

    NEVER = "never"
    ONE_DOWN = "one_down"
    BALANCE_BASED = "balance_based"


class TierWindow(StrEnum):
    """Name the time over which the number that decides tiers is added up."""

    LIFETIME = "lifetime"
    CALENDAR_YEAR = "calendar_year"
    ANNIVERSARY = "anniversary"
    ROLLING = "rolling"


class RewardKind(StrEnum):
    """Name what points can be spent on."""

    GIFT = "gift"
    COUPON = "coupon"
    MONEY = "money"


@dataclass(frozen=True, slots=True)
class PointsTerms:
    """Say how long points last from their release (None: for ever), and to which boundary that is put off.

    Reports alone read the cost of a point, `liability_per_point`, and the `price` at which it would sell by itself.
    Both are exact numbers of minor units, None where the file names none; a point without a price sells at its cost.
    """

    validity: Duration | None = None
    round_expiry: RoundExpiry = RoundExpiry.NONE
    liability_per_point: Fraction | None = None
    price: Fraction | None = None


@dataclass(frozen=True, slots=True)
class RefundTerms:
    """Say how long after a purchase a refund is accepted, and how many points it may take back."""

    window: Duration = NINETY_DAYS
    negative: Negative = Negative.UNLIMITED


@dataclass(frozen=True, slots=True)
class Level:
    """Hold one tier; `start` is the smallest number that reaches it, `benefits` what it brings."""

    id: str
    start: int
    benefits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tiers:
    """Say how members rise and fall: the number that decides, its window, and the levels from the lowest.

    `metric` is None where points of status are counted. `over` is the length of a rolling window.
    """

    metric: Metric | None
    window: TierWindow
    levels: tuple[Level, ...]
    over: Duration | None = None
    downgrade: Downgrade = Downgrade.BALANCE_BASED
    grace: Duration | None = None

    @property
    def basis(self) -> str:
        """Return a digest of the number counted and of its window."""
        return _short(f"{'' if self.metric is None else self.metric.key}|{self.window}|{self.over}")

    @property
    def terms(self) -> str:
        """Return a digest of everything that decides a member's level."""
        return _short(f"{self.basis}|{self.levels}|{self.downgrade}|{self.grace}")


@dataclass(frozen=True, slots=True)
class CatalogueReward:
    """Hold one reward that points can be spent on.

    A gift or coupon costs `points`. A `money` reward pays `money_minor` for each `points`, for at least `least` points
    and at most the fraction `share` of the order. `order_least_minor` is the smallest order for which it can be used,
    `stock` how many there are in all (None: any number).
    """

    id: str
    kind: RewardKind
    points: int
    money_minor: int = 0
    least: int = 0
    share: tuple[int, int] = (1, 1)
    order_least_minor: int = 0
    stock: int | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """Say in minor units what a gift costs, by sku, and what a coupon costs that is used, by template, for reports."""

    gifts: tuple[tuple[str, int], ...] = ()
    coupons: tuple[tuple[str, int], ...] = ()


class Touches(StrEnum):
    """Name the touch that counts where a signup brings no code."""

    FIRST_TOUCH = "first_touch"
    LAST_TOUCH = "last_touch"


class Block(StrEnum):
    """Name the reasons for which a referral is not attributed."""

    SELF = "self"
    EXISTING_MEMBER = "existing_member"
    SAME_IDENTITY = "same_identity"
    CYCLE = "cycle"


class Flag(StrEnum):
    """Name the suspicions that hold back a referral's rewards until an operator releases them."""

    SAME_DEVICE = "same_device"
    SAME_IP_AND_USER_AGENT = "same_ip_and_user_agent"
    BURST = "burst"


@dataclass(frozen=True, slots=True)
class ReferralTerms:
    """Say how members are attributed to their referrers.

    `claim_window` is how long after the signup a code may still be claimed (None: not at all), `times` how many
    referees a referrer may have in each period `every`, or within each rolling duration (None: any number).
    """

    attribution: Touches = Touches.FIRST_TOUCH
    touch_window: Duration = NINETY_DAYS
    claim_window: Duration | None = None
    times: int | None = None
    every: Every | Duration | None = None
    block: tuple[Block, ...] = tuple(Block)
    flag: tuple[Flag, ...] = ()


class ContestMetric(StrEnum):
    """Name the numbers that contests can rank by."""

    POINTS = "points"
    REFERRALS = "referrals"
    SHARES = "shares"
    SPEND = "spend"


@dataclass(frozen=True, slots=True)
class Contest:
    """Rank members by a number over each calendar period, or from one instant up to another; the first `winners` win.

    `every` is None where the contest has one period, from `from_ms` up to but not including `until_ms`.
    """

    id: str
    metric: ContestMetric
    winners: int
    every: Every | None = None
    from_ms: int = 0
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """Hold the terms of a programme; terms that the file leaves out have the language's defaults.

    Reports alone read `costs` and `margin`, the share of net sales that is left after the cost of goods (None:
    unknown).
    """

    points: PointsTerms = field(default_factory=PointsTerms)
    refunds: RefundTerms = field(default_factory=RefundTerms)
    tiers: Tiers | None = None
    catalogue: tuple[CatalogueReward, ...] = ()
    reserve_for: Duration = SEVEN_DAYS
    contests: tuple[Contest, ...] = ()
    referral: ReferralTerms | None = None
    costs: Costs = Costs()
    margin: tuple[int, int] | None = None

    def reward(self, identifier: str) -> CatalogueReward | None:
        """Return the catalogue's reward of that id, or None."""
        return next((reward for reward in self.catalogue if reward.id == identifier), None)


def _short(text: str) -> str:
    return blake2b(text.encode(), digest_size=6).hexdigest()
