"""Read the derived fields of a programme: sums and differences of an event's fields, the language's only arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.conditions import NUMBERS, Difference, Field
from engine.programme.fields import field_of, other_trigger_of
from engine.programme.file.nodes import Mapping
from engine.programme.file.problems import Code, shown
from engine.programme.file.scalars import kind_of, text_of

if TYPE_CHECKING:
    from engine.programme.file.names import Names
    from engine.programme.file.nodes import Node
    from engine.programme.file.problems import Problems

TERMS_MAX = 20


def read_derived(node: Node, names: Names, problems: Problems) -> None:
    """Enter the derived fields at `node` into `names`, each with the event type whose fields it adds up."""
    if not isinstance(node, Mapping):
        example = "{net: purchase.amount - purchase.tax}"
        message = f"derived must be a mapping of name to sum, such as {example}, not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return
    for name, value in node.entries.items():
        # a broken one is entered, too: a rule that names it gets no second error
        names.derived[name] = _sum(name, value, names, problems)


def _sum(name: str, node: Node, names: Names, problems: Problems) -> tuple[str, Field] | None:
    """Return the type of event whose fields a derived field adds up, and the field; None where it is wrong."""
    text = text_of(node, f"derived {shown(name)}", problems)
    if text is None:
        return None

    # fields and signs in turn
    words = text.split()
    signs = [1, *(1 if word == "+" else -1 for word in words[1::2])]
    if len(words) % 2 == 0 or len(signs) > TERMS_MAX or any(word not in ("+", "-") for word in words[1::2]):
        message = f"derived {shown(name)} must be fields with + or - between them, with spaces, at most {TERMS_MAX}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return None

    # all fields of one type of event, and of one kind
    trigger = other_trigger_of(words[0]) or ""
    fields = [_term(path, trigger, node, names, problems) for path in words[0::2]]
    terms = [(sign, field) for sign, field in zip(signs, fields, strict=True) if field is not None]
    if len(terms) < len(fields):
        return None
    kind = terms[0][1].kind
    if any(field.kind is not kind for _, field in terms):
        message = f"derived {shown(name)} adds {' and '.join(dict.fromkeys(f.kind for _, f in terms))}; add like"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return None

    optional = any(field.optional for _, field in terms)
    return trigger, Field(f"derived.{name}", kind, Difference(tuple(terms)), optional=optional)


def _term(path: str, trigger: str, node: Node, names: Names, problems: Problems) -> Field | None:
    field = field_of(trigger, path)
    if field is None:
        return names.field(path, node.place, trigger, problems)
    if field.kind not in NUMBERS:
        problems.error(node.place, Code.WRONG_TYPE, f"{path} is {field.kind}; only numbers can be added")
        return None
    return field
