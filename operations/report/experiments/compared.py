"""Hold the two arms of an experiment side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.arithmetic.arms import srm
from operations.report.arithmetic.comparison import welch
from operations.report.experiments.exposure import TREAT_ALL, exposure_of

if TYPE_CHECKING:
    from operations.report.arithmetic.arms import Arm, Srm
    from operations.report.arithmetic.comparison import Effect
    from operations.report.experiments.exposure import Experiment, Exposure, Money
    from operations.report.frame import Frame


class Compared(NamedTuple):
    """Hold what is compared: the experiment, its sums, and those of both arms by the experiment's metric."""

    experiment: Experiment
    money: Money
    exposure: Exposure
    treated: Arm
    control: Arm
    effect: Effect | None

    @property
    def members(self) -> int:
        """Return the members of both arms."""
        return self.treated.n + self.control.n

    @property
    def split(self) -> Srm | None:
        """Say whether the arms have the sizes of the split, under which each member entered; None: there is none."""
        if self.experiment.treat is None:
            return None
        treats = sum(sums.counts.treats for sums in self.exposure.whole)
        return srm((self.treated.n, self.control.n), (treats, TREAT_ALL * self.members - treats))

    @property
    def is_priced(self) -> bool:
        """Whether it is known what all the rewards cost that members of either arm have got."""
        is_unknown = any(sums.counts.unpriced or sums.counts.coupons for sums in self.exposure.whole)
        return self.money.cost_per_point is not None and not is_unknown

    def difference(self, measure: str) -> Effect | None:
        """Return by how much the treated differ from the controls in another measure."""
        return welch(*self.exposure.whole.of(measure))


def compare(of: Frame, experiment: Experiment, money: Money) -> Compared:
    """Return an experiment with its arms, as known at the report's `known_at`, up to its cut."""
    exposure = exposure_of(of, experiment, money)
    treated, control = exposure.whole.of("y", "x")
    return Compared(experiment, money, exposure, treated, control, welch(treated, control))


def record(result: Any) -> dict[str, Any] | None:
    """Return a result as a record; None where there is none."""
    return None if result is None else dict(result._asdict())
