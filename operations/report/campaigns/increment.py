"""Say what campaigns have brought beyond their controls, where a rule of theirs has a cohort."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from operations.report.experiments.compared import compare
from operations.report.experiments.exposure import Money, experiments_of
from operations.report.experiments.worth import worth
from operations.report.money import margin

if TYPE_CHECKING:
    from operations.report.experiments.exposure import Experiment
    from operations.report.frame import Frame

_WORTH = (
    "incremental_revenue", "incremental_revenue_interval", "cost_realised", "iroas", "iroas_interval", "roi",
    "roi_interval",
)  # fmt: skip


def increments(of: Frame) -> dict[str, dict[str, Any]]:
    """Return by campaign and salt what each experiment of the campaign's rules has brought, and what it has cost.

    These are the numbers of the report of experiments, since members entered, whenever the report begins. Where the
    sizes of the arms are wrong, nothing follows from them: they are None, and a note says so.
    """
    campaigns = _campaigns(of) if of.facts is not None else {}
    found = [experiment for experiment in experiments_of(of) if experiment.salt in campaigns]
    if not found:
        return {}

    # the report of campaigns has its note where nobody knows what a point costs
    money = Money(of.programme.terms.points.liability_per_point, margin(of))
    rows: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for experiment in found:
        row = _row(of, experiment, money)
        for campaign in campaigns[experiment.salt]:
            rows[campaign][experiment.salt] = row
    return rows


def _row(of: Frame, experiment: Experiment, money: Money) -> dict[str, Any]:
    compared = compare(of, experiment, money)
    is_wrong = compared.split is not None and compared.split.alarm
    if is_wrong:
        of.notes.append(
            f'experiment "{experiment.salt}": the arms do not fit the split, so it says nothing of a campaign'
        )
    numbers = dict.fromkeys(_WORTH) if is_wrong else worth(of, compared)
    return {
        "rules": ", ".join(experiment.rules),
        "members_treated": compared.treated.n,
        "members_control": compared.control.n,
        "planned": experiment.planned,
    } | {name: numbers[name] for name in _WORTH}


def _campaigns(of: Frame) -> dict[str, list[str]]:
    """Return by salt the campaigns of the rules that have it, in any version of the report's generation."""
    rows = of.rows(
        """
        SELECT DISTINCT v.cohorts -> r.key ->> 'salt', r.value ->> 'campaign'
        FROM guerdon.programme_version v, jsonb_each(v.rules) r
        WHERE v.cohorts ? r.key AND r.value ->> 'campaign' IS NOT NULL AND v.version IN (
            SELECT s.version FROM guerdon.generation_schedule s WHERE s.generation = %(generation)s
        )
        ORDER BY 1, 2
        """
    )
    campaigns: dict[str, list[str]] = {}
    for salt, campaign in rows:
        campaigns.setdefault(salt, []).append(campaign)
    return campaigns
