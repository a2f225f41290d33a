"""Decide about an experiment: record for good who decided what and why, and what the report said then."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from engine.store.database import transaction
from operations.report.catalogue import report
from operations.report.decisions import check_words, instant_of_decision
from operations.report.frame import Asked
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Choice(StrEnum):
    """List what can be decided."""

    ADOPT = "adopt"
    """The rule is for everybody."""

    DROP = "drop"
    """The rule is for nobody."""


def decide(
    database_url: str, name: str, choice: Choice, *, actor: str, reason: str, known_at: datetime | None = None
) -> dict[str, Any]:
    """Record a decision about an experiment of the live generation, and return what was recorded.

    It activates nothing. Another decision may follow it, and none can be taken back.

    Args:
        database_url: of the database.
        name: the experiment's salt, or a rule that has it.
        choice: what is decided.
        actor: who decides it.
        reason: why, for who asks later.
        known_at: that of the report by which it is decided; by default all that is recorded now is known.

    Raises:
        InputError: there is no such experiment, or the actor, the reason or `known_at` cannot be used.
        AnswerIsNo: nobody has entered, or the sizes of the arms are wrong, so that nothing follows from it.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    check_words(actor=actor, reason=reason)
    with transaction(database_url) as cursor:
        decided_at = instant_of_decision(cursor)
    if known_at is not None and known_at > decided_at:
        raise InputError(f"--known-at {known_at.isoformat()} is yet to come: nobody can know that report")

    document = report(database_url, "experiments", Asked(known_at=known_at or decided_at))
    row = next(iter(named(document["data"], name).values()))
    _refuse(row)
    interval = row["always_valid"] or {"low": None, "high": None}
    members = sum(arm["n"] for arm in row["arms"].values())
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.experiment_decision
                (salt, decision, decided_at, actor, reason, known_at, generation, members, difference, low, high, due)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            (
                row["salt"], choice, decided_at, actor, reason, known_at or decided_at, document["generation"], members,
                (row["effect"] or {"difference": None})["difference"], interval["low"], interval["high"],
                _is_due(members, row["planned"], interval),
            ),
        )  # fmt: skip
        (recorded,) = dictionaries(
            cursor,
            "SELECT * FROM reward.experiment_decision WHERE salt = %s AND decided_at = %s",
            (row["salt"], decided_at),
        )
    return recorded


NONE_YET = "no rule has a cohort; docs/experiments.md says how to begin an experiment"


def named(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return of the report's data the rows of the experiment that has this salt, or a rule of this name.

    Raises:
        InputError: there is no such experiment.
    """
    rows = {rule: row for rule, row in data.items() if name in {rule, row["salt"]}}
    if not rows:
        known = ", ".join(dict.fromkeys(row["salt"] for row in data.values()))
        raise InputError(f'there is no experiment "{name}"; there are: {known}' if known else NONE_YET)
    return rows


def _refuse(row: Mapping[str, Any]) -> None:
    """Refuse to decide by an experiment from which nothing follows."""
    if not any(arm["n"] for arm in row["arms"].values()):
        raise AnswerIsNo(f'nobody has entered experiment "{row["salt"]}", so there is nothing to decide by')
    if row["srm"] is not None and row["srm"]["alarm"]:
        raise AnswerIsNo(
            f'the sizes of the arms of experiment "{row["salt"]}" do not fit the split, so nothing follows from it: '
            "find the fault, and begin again with another salt"
        )


def _is_due(members: int, planned: int | None, interval: Mapping[str, Any]) -> bool:
    """Whether the interval that holds at every look leaves 0 out, or the planned size is reached."""
    if planned is not None and members >= planned:
        return True
    return interval["low"] is not None and not interval["low"] <= 0 <= interval["high"]
