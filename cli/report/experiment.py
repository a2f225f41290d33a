"""Show what an experiment did: `guerdon experiment`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.report.report import Generation, KnownAt, Length, Until, asked_for
from cli.terminal.decision import Actor, Why, login
from cli.terminal.output import JsonFlag, counted, print_json, print_rows, print_table, say
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operations.report.frame import Asked

Named = Annotated[
    str | None, typer.Argument(metavar="[RULE|SALT]", help="The experiment; without a name they are listed.")
]
Decide = Annotated[
    str | None,
    typer.Option(
        "--decide", metavar="CHOICE", help="Record a decision: adopt (the rule is for everybody) or drop (for nobody)."
    ),
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Show the results, though the sizes of the arms are wrong.")]

_PERIODS = 12
_COLUMNS = ["", "treated", "control", "difference", "low", "high", "p"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("experiment")(experiment)


def experiment(
    name: Named = None,
    *,
    until: Until = None,
    every: Length = "week",
    generation: Generation = None,
    known_at: KnownAt = None,
    anyway: Anyway = False,
    choice: Decide = None,
    why: Why = None,
    actor: Actor = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a cohort did: who entered, whether the split holds, the effect with its intervals, what it cost.

    An experiment is named by its salt, or by a rule that has it. `--known-at` prints an earlier report again.
    `--decide` records for good who decided what and why, by the report as it is now or at `--known-at`; it activates
    nothing.

    Examples: `guerdon experiment`, `guerdon experiment spring --known-at 2026-06-01T00:00:00Z`, and
    `guerdon experiment spring --decide adopt --why "2 % more net, as we hoped"`
    """
    from operations.report.catalogue import report
    from operations.report.experiments.decide import NONE_YET, named
    from operations.settings import load_settings

    asked = asked_for(until=until, every=every, generation=generation, known_at=known_at)
    if choice is not None:
        _decide(name, choice, why, actor, asked, as_json=as_json)
        return
    if why is not None or actor is not None:
        raise InputError("--why and --actor belong to a decision: name it by --decide")
    document = report(load_settings().database_url, "experiments", asked)
    if name is not None:
        document["data"] = named(document["data"], name)

    if as_json:
        print_json(document)
    elif name is None:
        print_rows([_line(rule, row) for rule, row in document["data"].items()], as_json=False, empty=NONE_YET)
    else:
        _print(document, next(iter(document["data"].values())), anyway=anyway)


def _decide(name: str | None, choice: str, why: str | None, actor: str | None, asked: Asked, *, as_json: bool) -> None:
    from operations.report.experiments.decide import Choice, decide
    from operations.settings import load_settings

    if name is None or why is None:
        missing = "the experiment" if name is None else "--why"
        raise InputError(f"{missing} is missing: `guerdon experiment SALT --decide CHOICE --why TEXT`")
    if asked.until is not None or asked.generation is not None:
        raise InputError("a decision goes by the whole report of the live generation: leave out --to and --generation")
    if choice not in set(Choice):
        raise InputError(f'"{choice}" is no decision; write --decide {" or ".join(Choice)}')

    recorded = decide(
        load_settings().database_url, name, Choice(choice), actor=login() if actor is None else actor, reason=why,
        known_at=asked.known_at,
    )  # fmt: skip
    if as_json:
        print_json(recorded)
        return
    say(f"recorded: {_said(recorded)}")
    if not recorded["due"]:
        say(NOT_DUE)
    say("nothing is activated by it: `guerdon programme activate` the rule without its cohort, or no such rule")


NOT_DUE = "the experiment did not say so: its interval held 0 or was missing, and the planned size was not reached"


def _said(decision: Mapping[str, Any]) -> str:
    """Return a decision in words."""
    interval = "without an interval for every look"
    if decision["low"] is not None:
        interval = f"between {_shown(decision['low'])} and {_shown(decision['high'])}"
    shown = "" if decision["difference"] is None else f", difference {_shown(decision['difference'])} {interval}"
    return (
        f"{decision['decision']}, by {decision['actor']} at {decision['decided_at']} ({decision['reason']}); as known "
        f"at {decision['known_at']}: {counted(decision['members'], 'member')}{shown}"
    )


def _line(rule: str, row: Mapping[str, Any]) -> dict[str, Any]:
    interval = row["always_valid"] or {"low": None, "high": None}
    return {
        "rule": rule,
        "salt": row["salt"],
        "treated": row["arms"]["treated"]["n"],
        "control": row["arms"]["control"]["n"],
        "split": "wrong" if _is_wrong(row) else "holds",
        "difference": _shown((row["effect"] or {}).get("difference")),
        "low": _shown(interval["low"]),
        "high": _shown(interval["high"]),
    }


def _print(document: Mapping[str, Any], row: Mapping[str, Any], *, anyway: bool) -> None:
    from operations.report.forms.tables import stands_on

    say(f'experiment "{row["salt"]}" of {", ".join(row["rules"])}: {stands_on(document)}')
    money = f"minor units of {document['currency']}" if row["metric"] == "net" else "orders"
    share = "all or none" if row["treat"] is None else f"{row['treat']:.2%}"
    begun = "" if row["begun_at"] is None else f" since {row['begun_at']}"
    say(f"{share} treated{begun}; compared by {row['metric']}, in {money}, a member since entering")
    for note in document["notes"]:
        if not note.startswith("experiment ") or f'"{row["salt"]}"' in note:
            say(f"note: {note}")

    for decision in row["decisions"]:
        say(f"decided: {_said(decision)}{'' if decision['due'] else '; ' + NOT_DUE}")

    # the sizes come first: where they are wrong, nothing else can be trusted
    _print_sizes(row)
    if _is_wrong(row) and not anyway:
        say("what follows from such arms is left out: find the fault first, or look with --anyway")
        return
    _print_effect(row)
    _print_segments(row)
    _print_money(row)
    _print_curve(row)


def _is_wrong(row: Mapping[str, Any]) -> bool:
    return row["srm"] is not None and row["srm"]["alarm"]


def _print_sizes(row: Mapping[str, Any]) -> None:
    sizes = {arm: sums["n"] for arm, sums in row["arms"].items()}
    say(f"{counted(sizes['treated'], 'member')} treated, {counted(sizes['control'], 'member')} control")
    check = row["srm"]
    if check is None:
        say("no split is to be checked" if sum(sizes.values()) else "nobody has entered yet")
    elif check["alarm"]:
        say(
            f"ALARM: the sizes do not fit the split (p = {check['p']:.2g}; {check['deviation_points']:+.2f} points "
            "treated): members were lost or doubled on the way into an arm"
        )
    else:
        say(f"the sizes fit the split (p = {check['p']:.2g}; {check['deviation_points']:+.2f} points treated)")
    if row["crossed"]:
        say(f"{counted(row['crossed'], 'member')} changed arms since, as the split was changed: the first arm counts")


def _print_effect(row: Mapping[str, Any]) -> None:
    effect = row["effect"]
    if effect is None:
        return

    # the interval that may be looked at comes first, the one of a single look only where it is due
    interval = row["always_valid"]
    if interval is not None and interval["low"] is not None:
        say(
            f"difference {_shown(effect['difference'])}, at every look between {_shown(interval['low'])} and "
            f"{_shown(interval['high'])} (95 %); {interval['members']:,} of {interval['planned']:,} planned members"
        )
    is_due = interval is not None and interval["planned"] is not None and interval["members"] >= interval["planned"]
    say(
        "the planned size is reached: the intervals below hold for this one look"
        if is_due
        else "the intervals below hold for one look at the planned end, and not for looks on the way"
    )

    lines = [(row["metric"], _means(effect) | effect)]
    if row["cuped"] is not None:
        lines.append((f"{row['metric']}, the time before taken out", row["cuped"]))
    if row["winsorised"] is not None:
        name = f"{row['metric']}, at most {_shown(row['winsorised']['cap'])} a member"
        lines.append((name, _means(row["winsorised"]) | row["winsorised"]))
    if row["lift"] is not None:
        lines.append(("lift", row["lift"] | {"difference": row["lift"]["lift"]}))
    lines.append(("amount of an order", row["order_amount"]))
    lines += [(f"guardrail: {name}", each | {"p": each["p_holm"]}) for name, each in row["guardrails"].items()]
    without = row["interference"]["effect"]
    if without is not None and row["interference"]["pairs_across"]:
        lines.append((f"{row['metric']}, without referrals across", without))
    print_table(_COLUMNS, [[name, *(_shown(each.get(column)) for column in _COLUMNS[1:])] for name, each in lines])


def _means(effect: Mapping[str, Any]) -> dict[str, Any]:
    return {"treated": effect["mean_treated"], "control": effect["mean_control"]}


def _print_segments(row: Mapping[str, Any]) -> None:
    rows = []
    for kind in ("customer", "tier"):
        for value, each in row["segments"].get(kind, {}).items():
            members = each["members_treated"] + each["members_control"]
            shown = _means(each) | each | {"p": each["p_holm"]}
            rows.append([f"{kind}: {value}", members, *(_shown(shown[column]) for column in _COLUMNS[1:])])
    if rows:
        title = "by what members were when they entered: exploratory; what stands out wants an experiment of its own"
        print_table(["", "members", *_COLUMNS[1:]], rows, title=title)


def _print_money(row: Mapping[str, Any]) -> None:
    pairs = row["interference"]
    if pairs["pairs_across"]:
        say(
            f"{counted(pairs['pairs_across'], 'referral')} of {pairs['pairs']:,} join both arms: they carry the "
            f"treatment across; {counted(pairs['members_left_out'], 'member')} can be left out"
        )
    for name, words in (
        ("incremental_revenue", "net beyond the controls, of all treated"),
        ("cost_realised", "cost of the rewards so far"),
        ("iroas", "net beyond the controls for each unit of cost"),
        ("roi", "profit beyond the controls for each unit of cost"),
    ):
        if row[name] is not None:
            say(f"{words}: {_shown(row[name])}")
    size = row["size"]
    if size is not None:
        needed = ", ".join(f"{lift}: {number:,}" for lift, number in size["members_an_arm"].items())
        say(f"members an arm needs to show a lift, at {size['power']:.0%} power: {needed}")


def _print_curve(row: Mapping[str, Any]) -> None:
    points = row["curve"][-_PERIODS:]
    if len(points) > 1:
        rows = [[_shown(value) for value in point.values()] for point in points]
        print_table(
            ["period", *list(points[0])[1:]], rows, title="up to the end of each period: an effect of novelty fades"
        )


def _shown(value: Any) -> Any:
    """Return a number with as many digits as a person reads; `--json` has all."""
    from operations.report.forms.tables import rounded

    return rounded(value) if isinstance(value, float) else value
