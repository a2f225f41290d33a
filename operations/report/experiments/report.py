"""Report what experiments did: who entered, whether the split holds, the effect with its intervals, and what it cost.

Everything is computed from the sums of `exposure`, so a reader can compute it again. docs/experiments.md says what each
number means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.arithmetic import always_valid
from operations.report.arithmetic.comparison import Effect, compare_ratios, cuped, holm, lift, welch
from operations.report.experiments.compared import compare, record
from operations.report.experiments.curve import curve_of
from operations.report.experiments.decisions import decisions_of
from operations.report.experiments.exposure import CAPPED_AT, TREAT_ALL, Both, Money, experiments_of
from operations.report.experiments.worth import worth
from operations.report.money import cost_per_point, margin
from operations.report.split import UNKNOWN
from operations.rows import plain
from schemas.errors import InputError

if TYPE_CHECKING:
    from operations.report.experiments.compared import Compared
    from operations.report.experiments.exposure import Experiment
    from operations.report.frame import Frame

FIRST_LOOK_MEMBERS = 100
"""The members that each arm must have at the look that decides the scale of the always-valid interval."""

GUARDRAILS = ("refunded", "refusals", "redemptions", "points_redeemed", "cost")
LIFTS = {"1%": 0.01, "2%": 0.02, "5%": 0.05, "10%": 0.10, "20%": 0.20}
"""Lifts for which the report says how many members an arm needs."""


def experiments(of: Frame) -> dict[str, Any]:
    """Return by rule the experiment that the rule's salt is; rules that share a salt have the same numbers.

    Raises:
        InputError: the facts of orders are turned off.
    """
    if of.facts is None:
        raise InputError(
            "an experiment is judged by orders, and `facts = false` has turned off their facts: set `facts = true`"
        )
    data: dict[str, Any] = {}
    found = experiments_of(of)
    money = Money(cost_per_point(of), margin(of)) if found else Money(None, None)
    for experiment in found:
        row = _row(of, experiment, money)
        data |= dict.fromkeys(experiment.rules, row)
    return data


def _row(of: Frame, experiment: Experiment, money: Money) -> dict[str, Any]:
    compared = compare(of, experiment, money)
    treated, control = compared.treated, compared.control
    _note(of, compared)
    return {
        "salt": experiment.salt,
        "treat": None if experiment.treat is None else experiment.treat / TREAT_ALL,
        "rules": list(experiment.rules),
        "metric": str(experiment.metric),
        "planned": compared.experiment.planned,
        "begun_at": plain(compared.exposure.begun_at),
        "arms": _arms(compared),
        "srm": record(compared.split),
        "effect": _of_means(compared),
        "lift": record(lift(treated, control)),
        "cuped": _cuped(compared),
        "winsorised": _winsorised(compared),
        "always_valid": _always_valid(of, compared),
        **worth(of, compared),
        "decisions": decisions_of(of, experiment.salt),
        "crossed": sum(sums.counts.crossed for sums in compared.exposure.whole),
        "order_amount": _order_amount(compared),
        "guardrails": _guardrails(compared),
        "interference": _interference(compared),
        "segments": _segments(compared),
        "size": _size(compared),
        "curve": curve_of(of, experiment),
    }


def _note(of: Frame, compared: Compared) -> None:
    """Say under the report what is missing, and what must not be read."""
    salt = compared.experiment.salt
    if min(compared.treated.n, compared.control.n) < 2:
        of.notes.append(f'experiment "{salt}": an arm has fewer than two members, so nothing is compared yet')
    elif compared.effect is not None and not compared.effect.se:
        of.notes.append(f'experiment "{salt}": all members of an arm have the same amount, so there is no interval')
    if compared.experiment.planned is None:
        of.notes.append(f'experiment "{salt}": no size is planned (cohort.planned), so no interval holds at every look')


def _arms(compared: Compared) -> dict[str, dict[str, float]]:
    """Return the sums of both arms."""
    arms = (compared.treated, compared.control)
    return {
        name: {
            "n": arm.n,
            "sum_y": arm.sum_y,
            "sum_y2": arm.sum_y2,
            "sum_x": arm.sum_x,
            "sum_x2": arm.sum_x2,
            "sum_xy": arm.sum_xy,
            "points_redeemed": points.sum_y,
        }
        for name, arm, points in zip(Both._fields, arms, compared.exposure.whole.of("points_redeemed"), strict=True)
    }


def _of_means(compared: Compared) -> dict[str, Any] | None:
    if compared.effect is None:
        return None
    means = {"mean_treated": compared.treated.mean_y, "mean_control": compared.control.mean_y}
    return means | compared.effect._asdict()


def _cuped(compared: Compared) -> dict[str, Any] | None:
    found = cuped(compared.treated, compared.control)
    return None if found is None else {"theta": found.theta} | found.effect._asdict()


def _winsorised(compared: Compared) -> dict[str, Any] | None:
    """Return the effect where no member counts for more than the cap; None where the cap is 0, as of few buyers."""
    cap = compared.exposure.cap
    pair = compared.exposure.whole.of("capped")
    found = welch(*pair)
    if found is None or not cap:
        return None
    return {
        "percentile": 100 * CAPPED_AT,
        "cap": cap,
        "members_capped": sum(sums.counts.beyond_cap for sums in compared.exposure.whole),
        "mean_treated": pair.treated.mean_y,
        "mean_control": pair.control.mean_y,
    } | found._asdict()


def _always_valid(of: Frame, compared: Compared) -> dict[str, Any] | None:
    """Return the interval that holds at every look; None before the first look with enough members in each arm.

    Its scale is that of the first look, which `scales.keep` stores for good.
    """
    effect, planned = compared.effect, compared.experiment.planned
    if effect is None or not effect.se or min(compared.treated.n, compared.control.n) < FIRST_LOOK_MEMBERS:
        return None

    now = always_valid.scale_of(effect, compared.members)
    kept = of.rows(
        "SELECT scale FROM guerdon.experiment_scale WHERE salt = %(salt)s AND metric = %(metric)s",
        salt=compared.experiment.salt,
        metric=str(compared.experiment.metric),
    )
    scale = kept[0][0] if kept else now
    half = None
    if planned is not None:
        rho = always_valid.mixing_parameter(planned, scale)
        half = always_valid.half_width(now, compared.members, rho)
    return {
        "planned": planned,
        "members": compared.members,
        "scale": scale,
        "is_first_look": not kept,
        "half_width": half,
        "low": None if half is None else effect.difference - half,
        "high": None if half is None else effect.difference + half,
    }


def _order_amount(compared: Compared) -> dict[str, Any]:
    """Return the mean net of orders with a net above 0 in both arms, which is a ratio of sums over members."""
    pair = compared.exposure.whole.of("net", "sales")
    means = {name: arm.sum_y / arm.sum_x if arm.sum_x else None for name, arm in pair._asdict().items()}
    return means | (record(compare_ratios(*pair)) or {})


def _guardrails(compared: Compared) -> dict[str, Any]:
    """Return the means of what may go wrong, with p adjusted by Holm's method for how many there are."""
    rows: dict[str, dict[str, Any]] = {}
    for name in GUARDRAILS:
        pair = compared.exposure.whole.of(name)
        found = welch(*pair)
        if found is not None and (name != "cost" or compared.is_priced):
            rows[name] = {"treated": pair.treated.mean_y, "control": pair.control.mean_y} | found._asdict()

    adjusted = holm({name: row["p"] for name, row in rows.items() if row["p"] is not None})
    return {name: row | {"p_holm": adjusted.get(name)} for name, row in rows.items()}


def _interference(compared: Compared) -> dict[str, Any]:
    """Return how many referrals join both arms, and the effect without the members whom they join."""
    apart = compared.exposure.apart
    return {
        **compared.exposure.referrals._asdict(),
        "members_left_out": compared.members - sum(sums.counts.members for sums in apart),
        "effect": record(welch(*apart.of("y", "x"))),
    }


def _segments(compared: Compared) -> dict[str, Any]:
    """Return the effect among members of one kind, by what they were when they entered: a search, and no proof.

    p is adjusted by Holm's method for the number of all segments.
    """
    known = {name: values for name, values in compared.exposure.segments.items() if set(values) - {UNKNOWN}}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, values in known.items():
        for value, both in values.items():
            pair = both.of("y")
            rows[name, value] = {
                "members_treated": pair.treated.n,
                "members_control": pair.control.n,
                "mean_treated": pair.treated.mean_y if pair.treated.n else None,
                "mean_control": pair.control.mean_y if pair.control.n else None,
            } | (record(welch(*pair)) or dict.fromkeys(Effect._fields))

    adjusted = holm({place: row["p"] for place, row in rows.items() if row["p"] is not None})
    segments: dict[str, dict[str, Any]] = {name: {} for name in known}
    for (name, value), row in rows.items():
        segments[name][value] = row | {"p_holm": adjusted.get((name, value))}
    return {"exploratory": True} | segments


def _size(compared: Compared) -> dict[str, Any] | None:
    """Return what arms of this size can show, and how many members an arm needs to show a lift.

    Both follow from the spread among the controls; of arms that differ in size, the smaller one counts.
    """
    control = compared.control
    if compared.effect is None or control.mean_y <= 0:
        return None
    sigma = control.var_y() ** 0.5
    members, planned = min(compared.treated.n, control.n), compared.experiment.planned
    treat = compared.experiment.treat or 0
    share = min(treat, TREAT_ALL - treat) / TREAT_ALL
    return {
        "sigma": sigma,
        "power": always_valid.POWER,
        "difference_seen": always_valid.difference_seen(sigma, members),
        "difference_seen_as_planned": always_valid.difference_seen(sigma, planned * share)
        if planned and share
        else None,
        "members_an_arm": {
            name: always_valid.members_needed(sigma, control.mean_y * lifted) for name, lifted in LIFTS.items()
        },
    }
