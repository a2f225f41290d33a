"""Explain what was decided on a recorded event, rule by rule and lot by lot: `guerdon why`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_json
from schemas.display import visible
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.text import Text

HELD = "held"
_HANGING = 2
_LEAST_WIDTH = 20


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("why")(why)


def why(
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT_ID", help="The event's id, as its producer has sent it.")
    ] = None,
    *,
    source: Annotated[str, typer.Option("--source", help="The producer: the event's `source`.")] = "default",
    reward: Annotated[
        str | None, typer.Option("--reward", metavar="KEY", help="Explain the reward event with this key, in hex.")
    ] = None,
    member: Annotated[
        str | None, typer.Option("--member", metavar="ID", help="Explain this member's last events.")
    ] = None,
    last: Annotated[
        int,
        typer.Option(
            "--last",
            min=1,
            help="With --member: at most this many of the member's own events, and as many others that brought them"
            " something.",
        ),
    ] = 5,
    generation: Annotated[
        int | None,
        typer.Option(
            "--generation", metavar="GEN", help="Explain this generation's judgement (default: the live generation)."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Name the rules for other types of event, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Explain an event as it was judged: why each rule gave or did not, which amounts moved, what was refused.

    The member's recorded history is judged again up to the event, by the versions of the programme that judged it.
    With --member only the rules that gave, or nearly did, are explained.

    Example: `guerdon why p-7`
    """
    from operations.settings import load_settings
    from operations.why.event import why_event, why_member, why_reward

    if [event_id, reward, member].count(None) != 2:
        raise InputError("name one thing to explain: EVENT_ID, --reward KEY or --member ID; see `guerdon why --help`")

    url = load_settings().database_url
    if member is not None:
        answer: Any = why_member(url, member, last, generation=generation)
    elif reward is not None:
        answer = why_reward(url, reward, everything=everything, generation=generation)
    else:
        answer = why_event(url, event_id or "", source, everything=everything, generation=generation)

    if as_json:
        print_json(answer)
    if isinstance(answer, dict) and answer["status"] == HELD:
        raise AnswerIsNo(answer["notes"][0])
    if not as_json:
        print_explanations([answer] if isinstance(answer, dict) else answer)


def print_explanations(documents: Iterable[dict[str, Any]]) -> None:
    """Print for each event a heading, notes, and a sentence for each rule, claim and movement.

    On a terminal a long sentence is folded and its lines are indented; elsewhere each has one line, for `grep`.
    """
    from rich.console import Console

    console = Console(highlight=False)
    for number, document in enumerate(documents):
        if number:
            console.print()
        for indent, line in _lines(document):
            width = max(console.width - indent - _HANGING, _LEAST_WIDTH)
            for nth, part in enumerate(line.wrap(console, width) if console.is_terminal else [line]):
                part.rstrip()
                console.print(" " * (indent + (_HANGING if nth else 0)), part, sep="", soft_wrap=True)


def _lines(document: dict[str, Any]) -> Iterator[tuple[int, Text]]:
    """Yield the lines about an event, each with its indentation."""
    from rich.text import Text

    yield 0, Text(visible(_heading(document)), style="bold")
    for note in document.get("notes", ()):
        yield 2, Text(visible(note), style="yellow")
    for each in (*document["asked"], *document["claims"]):
        yield 2, Text(visible(each["sentence"]))
    for rule in document["rules"]:
        name, sentence = rule["rule"], rule["sentence"].removeprefix(f"{rule['rule']}: ")
        style = "green" if rule["outcome"] == "gave" else ""
        yield 2, Text.assemble((visible(name), "bold"), ": ", (visible(sentence), style))
    for move in document["moved"]:
        yield 4, Text(visible(move["sentence"]))
    if document["tier"] is not None:
        yield 2, Text(visible(f"after it: {document['tier']['sentence']}"))


def _heading(document: dict[str, Any]) -> str:
    of = f" of {document['member_id']}" if document["member_id"] else ""
    judged = f", judged by version {document['rule_version']}" if document["rule_version"] else ""
    return f"{document['event_id']}: {document['type']}{of}, occurred {document['occurred_at']}{judged}"
