"""Take an operator's correction, or opening balances from a file: `guerdon adjust`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_json, print_table, say
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from operations.member.adjust import DecisionOutcome
    from operations.settings import Settings

MEMBERS_SHOWN_MAX = 20
REFUSED_SHOWN_MAX = 20
_EVENT_COLUMNS = ("type", "unit", "amount", "reason", "available_at", "expires_at")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    # -50 is an amount here, not a row of options
    app.command("adjust", context_settings={"ignore_unknown_options": True})(adjust)


def adjust(
    member_id: Annotated[str | None, typer.Argument(metavar="MEMBER", help="The member's id.")] = None,
    amount: Annotated[
        str | None, typer.Argument(metavar="±N", help="The amount: +50 or -50; money with its digits, such as +5.00.")
    ] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="points, status or the programme's currency.")] = None,
    why: Annotated[str | None, typer.Option("--why", help="The reason; it is recorded in the log.")] = None,
    event_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="An id of your own: repeated with it, the command counts once."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Many at once: JSON lines, .csv, or - for standard input."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Correct a member's balance, or bring members over from another system with their opening balances.

    A file is checked first: where any line is wrong, all wrong lines are named and nothing is written. The same file
    again changes nothing.

    Examples: `guerdon adjust ann -50 --unit points --why "credited twice"` and `guerdon adjust --file opening.csv`
    """
    _refuse_options(member_id, amount)
    if file is not None:
        if any(each is not None for each in (member_id, amount, unit, why, event_id)):
            raise InputError("--file says everything; leave MEMBER, ±N, --unit, --why and --id out")
        _adjust_file(file, as_json=as_json)
        return

    arguments = {"MEMBER": member_id, "±N": amount, "--unit": unit, "--why": why}
    missing = [name for name, value in arguments.items() if value is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} missing: `guerdon adjust MEMBER ±N --unit points --why TEXT`, or --file"
        )
    _adjust_one(member_id or "", amount or "", unit or "", why or "", event_id, as_json=as_json)


def _refuse_options(*words: str | None) -> None:
    """Refuse words that look like options and are none: as an amount or a member they would only confuse."""
    for word in words:
        if word is not None and re.match(r"-{1,2}[A-Za-z]", word):
            raise InputError(f"no such option: {word}; see `guerdon adjust --help`")


def _adjust_one(member_id: str, amount: str, unit: str, why: str, event_id: str | None, *, as_json: bool) -> None:
    from operations.member.adjust import adjust as take
    from operations.member.adjust import balances
    from operations.settings import load_settings

    settings = load_settings()
    outcome = take(settings, member_id, _minor(settings, amount, unit), unit, why=why, event_id=event_id)

    rows = balances(settings, [outcome])
    if as_json:
        print_json({**_row(outcome), "balances": rows})
    else:
        _print_one(outcome)
        _print_balances(rows)

    if outcome.result == "set aside":
        raise AnswerIsNo("it was set aside; `guerdon quarantine list` says why")
    reasons = [event["reason"] for event in outcome.reward_events if event["type"] == "reward.refused"]
    if reasons:
        raise AnswerIsNo(f"refused ({', '.join(reasons)}): the log says how much, as shown above")


def _adjust_file(file: str, *, as_json: bool) -> None:
    from operations.member.adjust import BadFile, adjust_file, balances
    from operations.settings import load_settings

    settings = load_settings()
    try:
        outcomes = adjust_file(settings, file, _progress if sys.stderr.isatty() else lambda _taken: None)
    except BadFile as bad:
        for problem in bad.problems:
            say(str(problem), err=True)
        raise

    rows = balances(settings, outcomes)
    if as_json:
        print_json({"lines": [_row(outcome) for outcome in outcomes], "balances": rows})
    else:
        _print_file(outcomes)
        if len({row["member_id"] for row in rows}) <= MEMBERS_SHOWN_MAX:
            _print_balances(rows)

    refused = sum(outcome.refused for outcome in outcomes)
    if refused:
        raise AnswerIsNo(f"{refused:,} of {len(outcomes):,} did not take effect, or not whole, as said above")


def _progress(taken: int) -> None:
    say(f"{taken:,} decisions taken", err=True)


def _minor(settings: Settings, text: str, unit: str) -> int:
    """Return the integer that `text` spells, in minor units where `unit` is the currency.

    Money without its digits is refused: +5 might mean 5.00 or 0.05.
    """
    from engine.programme.file.currencies import MINOR_DIGITS
    from operations.member.adjust import currency_of
    from operations.member.decisions import integer_of

    digits = MINOR_DIGITS.get(unit, 0) if unit == currency_of(settings) else 0
    pattern = rf"([+-]?\d{{1,30}})\.(\d{{{digits}}})" if digits else r"([+-]?\d{1,40})()"
    match = re.fullmatch(pattern, text, re.ASCII)
    if match is None:
        wanted = f"an amount of {unit} with {digits} digits, such as +5.{'0' * digits}" if digits else "a whole number"
        raise InputError(f"±N: {text!r} is not {wanted}")
    return integer_of(match[1] + match[2])


def _row(outcome: DecisionOutcome) -> dict[str, Any]:
    decision = outcome.line.decision
    place = {"line": outcome.line.number} if outcome.line.file else {}
    return {
        **place,
        "event_id": decision.event_id,
        "member_id": decision.member_id,
        "result": outcome.result,
        "new_member": outcome.new_member,
        "reward_events": outcome.reward_events,
    }


def _print_one(outcome: DecisionOutcome) -> None:
    decision = outcome.line.decision
    say(f"{decision.event_id}: {outcome.result}")
    if outcome.new_member:
        say(f'nothing was recorded of a member "{decision.member_id}" before; ids are compared as they are')
    if outcome.result == "held":
        say(f"member {decision.member_id} is held: it is judged after `guerdon quarantine release`")
    if outcome.reward_events:
        rows = [[event[name] for name in _EVENT_COLUMNS] for event in outcome.reward_events]
        print_table(list(_EVENT_COLUMNS), rows)
    elif outcome.result == "accepted":
        say("it led to no reward event")


def _print_file(outcomes: list[DecisionOutcome]) -> None:
    # how many of each result
    results = Counter(outcome.result for outcome in outcomes)
    counts = [f"{results.pop(name, 0):,} {name}" for name in ("accepted", "duplicate")]
    counts += [f"{count:,} {name}" for name, count in sorted(results.items())]
    say(f"{len(outcomes):,} decision{'' if len(outcomes) == 1 else 's'}: {', '.join(counts)}")

    # what they have moved
    sums: dict[tuple[str, str, str], list[int]] = {}
    for outcome in outcomes:
        for event in outcome.reward_events:
            total = sums.setdefault((event["type"], event["unit"], event["reason"] or ""), [0, 0])
            total[0] += 1
            total[1] += event["amount"]
    if sums:
        print_table(["type", "unit", "reason", "events", "amount"], [[*key, *sums[key]] for key in sorted(sums)])

    # which had no effect
    refused = [outcome for outcome in outcomes if outcome.refused]
    if refused:
        rows = [_refusal(outcome) for outcome in refused[:REFUSED_SHOWN_MAX]]
        hidden = len(refused) - REFUSED_SHOWN_MAX
        caption = f"the first {REFUSED_SHOWN_MAX}; {hidden:,} more follow, --json shows all" if hidden > 0 else None
        print_table(["line", "member id", "result", "reason"], rows, title="without effect", caption=caption)


def _refusal(outcome: DecisionOutcome) -> list[Any]:
    reasons = [event["reason"] for event in outcome.reward_events if event["type"] == "reward.refused"]
    place = f"{outcome.line.file}:{outcome.line.number}"
    return [place, outcome.line.decision.member_id, outcome.result, ", ".join(reasons)]


def _print_balances(rows: list[dict[str, Any]]) -> None:
    if rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
