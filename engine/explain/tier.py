"""Say where a member stands among the tiers, and how much is missing to the next one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.explain.values import Wording
from engine.programme.conditions import Kind, Measure

if TYPE_CHECKING:
    from engine.programme.model import Programme
    from engine.programme.rules.tiers import TierReport
    from engine.programme.terms import Tiers


@dataclass(frozen=True, slots=True)
class TierExplanation:
    """Say where a member stands after an event; numbers are in the metric's unit, money in minor units."""

    tier: str
    qualifying: int
    next_tier: str | None
    to_next_tier: int | None
    sentence: str

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def explain_tier(programme: Programme, tier_report: TierReport | None) -> TierExplanation | None:
    """Return where a member stands and how much is missing to the next tier; None where the programme has no tiers."""
    tiers = programme.terms.tiers
    if tiers is None or tier_report is None:
        return None
    wording, kind = Wording.of(programme), _kind_of(tiers)
    unit = " status" if tiers.metric is None else ""

    def words(number: int) -> str:
        return f"{wording.number(kind, number)}{unit}"

    here = f"tier {tier_report.tier}, at {words(tier_report.qualifying)}"
    if tier_report.next_tier is None or tier_report.to_next_tier is None:
        sentence = f"{here}: the highest"
    elif tier_report.to_next_tier:
        sentence = f"{here}: {words(tier_report.to_next_tier)} more would have reached {tier_report.next_tier}"
    else:
        sentence = f"{here}: enough for {tier_report.next_tier} at the next review"

    return TierExplanation(
        tier_report.tier, tier_report.qualifying, tier_report.next_tier, tier_report.to_next_tier, sentence
    )


def _kind_of(tiers: Tiers) -> Kind:
    """Return the kind of the number that decides tiers: that of the field that a sum adds up, or a whole number."""
    metric = tiers.metric
    is_sum = metric is not None and metric.measure is Measure.SUM and metric.of is not None
    return metric.of.kind if is_sum else Kind.INTEGER  # type: ignore[union-attr]  # a sum is of a field
