"""List the reports that there are, and make one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store.database import NO_LIMIT, snapshot
from operations.report.alerts.report import alerts
from operations.report.campaigns.report import campaigns
from operations.report.changes import changes
from operations.report.completeness import is_complete
from operations.report.customers.predicted import predicted_value
from operations.report.customers.report import customers
from operations.report.engagement import engagement
from operations.report.experiments import scales
from operations.report.experiments.report import experiments
from operations.report.frame import Asked, Frame, document, frame
from operations.report.liability.report import liability, problem
from operations.report.redemption.report import redemption
from operations.report.referrals import referrals
from operations.report.rewards import rewards
from operations.report.rollups import lag_of_rewards
from operations.report.split import BY_FACTS, OF_GRANTS, OF_MEMBERS
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.store.cursor import Cursor


class Report(NamedTuple):
    """Describe a report."""

    meaning: str
    """Its subject, in a few words for the help."""

    compute: Callable[[Frame], Mapping[str, Any]]
    by: tuple[str, ...] = ()
    """The splits that its rows can have, such as tier."""

    needs_facts: bool = True
    """Whether it reads the source facts, also where it is not split by something of theirs."""

    has_rollups: bool = False
    """Whether numbers of it are read from rollups where they can be."""

    is_of_recording: bool = False
    """Whether it covers the time in which something was recorded, and not that in which it happened."""

    problem: Callable[[Mapping[str, Any]], str | None] | None = None
    """Returns in a sentence why its data must not be used; None: nothing is wrong with them."""

    keep: Callable[[str, Mapping[str, Any]], None] | None = None
    """Stores by the database's URL what is decided once, at the first look at a document."""


REPORTS: dict[str, Report] = {
    "alerts": Report("early warnings: misuse, and rules that cost more than meant", alerts, has_rollups=True),
    "campaigns": Report(
        "what each campaign gave, in which orders, what it costs, what is left",
        campaigns,
        (*OF_MEMBERS, "channel"),
        has_rollups=True,
    ),
    "changes": Report("what changed since yesterday", changes, is_of_recording=True),
    "clv_predicted": Report("how often and how much customers will buy, and how well that is known", predicted_value),
    "customers": Report(
        "orders, how often and how long members buy, what they are worth, what they say",
        customers,
        (*OF_MEMBERS, "channel"),
        has_rollups=True,
    ),
    "engagement": Report(
        "who takes part, what they earn, burn and let lapse, and what is outstanding",
        engagement,
        OF_MEMBERS,
        has_rollups=True,
    ),
    "experiments": Report("cohorts: sizes, effects with intervals, costs", experiments, keep=scales.keep),
    "liability": Report(
        "points outstanding: how they came about, when they lapse, and how many will be redeemed",
        liability,
        has_rollups=True,
        problem=problem,
    ),
    "redemption": Report(
        "what became of the points of each month, by age", redemption, OF_GRANTS, needs_facts=False, has_rollups=True
    ),
    "referrals": Report(
        "from shares to qualified referees, the K-factor, cycle time, rejections", referrals, has_rollups=True
    ),
    "rewards": Report("coupons issued and used", rewards, needs_facts=False, has_rollups=True),
}
"""Every report by the name that `guerdon report` takes."""


def report(database_url: str, name: str, asked: Asked) -> dict[str, Any]:
    """Return a report as one document, read in one snapshot.

    Args:
        database_url: of the database.
        name: one of `REPORTS`.
        asked: by the reader.

    Raises:
        InputError: there is no such report, generation or split, or the time ends before it begins.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    check_asked(name, asked)
    with snapshot(database_url, statement_max=NO_LIMIT) as cursor:
        printed = read_report(cursor, name, asked)
    keep_decided(database_url, name, printed)
    return printed


def check_asked(name: str, asked: Asked) -> None:
    """Refuse a report that there is not, and a split that the report does not have.

    Raises:
        InputError: with the reports, or the splits, that there are.
    """
    if name not in REPORTS:
        raise InputError(f'there is no report "{name}"; there are: {", ".join(REPORTS)}')
    chosen = REPORTS[name]
    if asked.by is not None and asked.by not in chosen.by:
        splits = f"by {', '.join(chosen.by)}" if chosen.by else "by nothing"
        raise InputError(f'the report {name} cannot be split by "{asked.by}"; it can be split {splits}')


def read_report(cursor: Cursor, name: str, asked: Asked) -> dict[str, Any]:
    """Return the same as `report`, read by `cursor`; `keep_decided` follows, in a transaction that may write.

    Raises:
        InputError: there is no such report, generation or split, or the time ends before it begins.
    """
    check_asked(name, asked)
    chosen = REPORTS[name]
    of = frame(cursor, asked, is_of_recording=chosen.is_of_recording)
    if chosen.needs_facts or asked.by in BY_FACTS:
        _note_what_facts_lack(of)
    if chosen.has_rollups:
        _note_rollups(of)
    return document(name, of, chosen.compute(of), complete=is_complete(of))


def keep_decided(database_url: str, name: str, printed: Mapping[str, Any]) -> None:
    """Store what a report decides once, at the first look at it."""
    keep = REPORTS[name].keep
    if keep is not None:
        keep(database_url, printed)


def _note_rollups(of: Frame) -> None:
    """Add a note where the logs are read, or where the sums by day have not followed the reward log."""
    if of.why_logs is not None:
        if not of.notes:
            of.notes.append(of.why_logs)
        return
    lag = lag_of_rewards(of.cursor, of.generation)
    if lag:
        of.notes.append(
            f"the sums by day lack the newest {lag} reward events, and the report counts what they have: they follow "
            "at once while a worker runs"
        )


def _note_what_facts_lack(of: Frame) -> None:
    """Add a note where facts have not followed the log: the newest orders, signups and activities are missing then."""
    ((lag,),) = of.rows("SELECT coalesce(sum(lag), 0)::bigint FROM reward.freshness WHERE projection = 'facts'")
    if lag:
        of.notes.append(
            f"the facts lack the newest {lag} source events, and the report counts what they have: they follow while a "
            "worker runs that is caught up, and has `facts = true`"
        )
