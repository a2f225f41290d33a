"""A decision about an experiment is recorded for good, with what the report said by which it was made."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg2 import errors
from typer.testing import CliRunner

from cli.main import app
from cli.report.experiment import NOT_DUE
from engine.store.database import ANALYST, transaction
from operations.report.experiments.decide import Choice, decide
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError
from tests.operations.report.experiments.trial import PROGRAMME, bought, experiments, history, is_treated
from tests.projections.test_as_of import instant_after
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from schemas.events import Event

pytestmark = pytest.mark.postgres


def test_a_decision_holds_what_the_report_said_and_later_reports_show_it(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, PROGRAMME)
    events = history()
    record(events[:1500])
    decided = decide(database_url, "trial", Choice.ADOPT, actor="mia", reason="it pays")
    record(events[1500:])

    known_at = datetime.fromisoformat(decided["known_at"])
    then = experiments(database_url, known_at=known_at)["trial"]
    assert decided == {
        "salt": "spring", "decision": "adopt", "decided_at": decided["known_at"], "actor": "mia", "reason": "it pays",
        "known_at": decided["known_at"], "generation": 1, "members": sum(arm["n"] for arm in then["arms"].values()),
        "difference": then["effect"]["difference"], "low": then["always_valid"]["low"],
        "high": then["always_valid"]["high"], "due": False,
    }  # fmt: skip
    assert then["decisions"] == []
    assert experiments(database_url)["trial"]["decisions"] == [decided]
    with transaction(database_url, role=ANALYST) as cursor:
        assert dictionaries(cursor, "SELECT * FROM reward.experiment_decision") == [decided]


@pytest.mark.usefixtures("trial")
def test_an_earlier_report_can_be_decided_by_and_another_decision_can_follow(database_url: str) -> None:
    known_at = instant_after(database_url)
    first = decide(database_url, "spring", Choice.DROP, actor="mia", reason="too early", known_at=known_at)
    second = decide(database_url, "spring", Choice.ADOPT, actor="ben", reason="on second thoughts")
    assert datetime.fromisoformat(first["known_at"]) == known_at < datetime.fromisoformat(first["decided_at"])
    assert experiments(database_url)["trial"]["decisions"] == [first, second]
    with pytest.raises(InputError, match="is yet to come"):
        decide(
            database_url, "spring", Choice.DROP, actor="mia", reason="-", known_at=datetime.now(UTC) + timedelta(days=1)
        )


@pytest.mark.parametrize("planned", [100, 9_000])
def test_a_decision_is_due_at_the_planned_size_or_when_the_interval_leaves_0_out(
    database_url: str, record: Callable[[Sequence[Event]], None], planned: int
) -> None:
    activate(database_url, PROGRAMME.replace("planned: 2000", f"planned: {planned}"))

    def amount(number: int) -> int:
        gain = 0 if planned == 100 else 5_000 * is_treated(f"m{number}")
        return 1_000 + 7 * (number % 13) + gain

    record([bought(f"m{number}", number, amount=amount(number)) for number in range(250)])
    decided = decide(database_url, "spring", Choice.DROP, actor="mia", reason="planned")
    assert decided["due"]
    assert (decided["low"] < 0 < decided["high"]) is (planned == 100)


def test_nothing_is_decided_by_an_experiment_without_members_or_with_wrong_sizes(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, PROGRAMME)
    with pytest.raises(AnswerIsNo, match='nobody has entered experiment "spring"'):
        decide(database_url, "spring", Choice.DROP, actor="mia", reason="-")
    with pytest.raises(InputError, match='no experiment "autumn"; there are: spring'):
        decide(database_url, "autumn", Choice.DROP, actor="mia", reason="-")

    treated = [number for number in range(200) if is_treated(f"m{number}")]
    record([bought(f"m{number}", number) for number in treated])
    with pytest.raises(AnswerIsNo, match="do not fit the split"):
        decide(database_url, "spring", Choice.DROP, actor="mia", reason="-")


@pytest.mark.usefixtures("trial")
def test_a_decision_cannot_be_changed(database_url: str) -> None:
    decide(database_url, "spring", Choice.DROP, actor="mia", reason="it does not pay")
    for statement in ("UPDATE guerdon.experiment_decision SET actor = 'x'", "DELETE FROM guerdon.experiment_decision"):
        with pytest.raises(errors.InsufficientPrivilege), transaction(database_url) as cursor:
            cursor.execute(statement)


@pytest.mark.usefixtures("trial")
def test_the_command_records_and_shows_a_decision(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["experiment", *words])
        if isinstance(done.exception, Exception):
            raise done.exception
        return done.stdout

    for wrong, said in (
        (["spring", "--why", "x"], "belong to a decision"),
        (["spring", "--decide", "adopt"], "--why is missing"),
        (["--decide", "adopt", "--why", "x"], "the experiment is missing"),
        (["spring", "--decide", "maybe", "--why", "x"], '"maybe" is no decision; write --decide adopt or drop'),
        (["spring", "--decide", "adopt", "--why", "x", "--generation", "1"], "leave out --to and --generation"),
        (["spring", "--decide", "adopt", "--why", " "], "--why is empty"),
    ):
        with pytest.raises(InputError, match=said):
            run(*wrong)

    said = run("spring", "--decide", "drop", "--why", "too dear", "--actor", "mia")
    assert said.startswith("recorded: drop, by mia at ")
    assert NOT_DUE in said
    recorded: dict[str, Any] = json.loads(run("trial", "--decide", "adopt", "--why", "yet", "--actor", "mia", "--json"))
    assert recorded["decision"] == "adopt"
    shown = run("spring")
    assert shown.count("decided: ") == 2
    assert shown.index("decided: drop, by mia") < shown.index("decided: adopt, by mia") < shown.index("the sizes fit")
