"""A misspelt name brings one error, at its place, that names what is right or lists what is known there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.programme.conditions import Comparison, Every
from engine.programme.fields import FIELDS, MEMBER_FIELDS, TIME_FIELDS, TRIGGERS
from engine.programme.file.load import load_programme
from engine.programme.file.nodes import Mapping, Sequence, read_tree
from engine.programme.file.problems import Code, Problems, nearest
from engine.programme.model import Phase, Pick, Rounding
from tests.operations.simulate.test_examples import FOLDERS
from tests.programme_text import written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.conditions import Place
    from engine.programme.file.nodes import Node

AUTHORS = {"derived", "metrics", "segments"}
"""Sections whose names are the author's own: what names them is misspelt where one of them is."""
OWN = {"id", "seed", "salt", "programme", "benefits", "template", "sku", "badge", "gift"}
WORD = re.compile(r"[^\W\d][\w.]*\Z")
LANGUAGE = {
    *(test.value for test in Comparison), *(path for fields in FIELDS.values() for path in fields), *TIME_FIELDS,
    *MEMBER_FIELDS, *TRIGGERS, *(each.value for kind in (Every, Phase, Pick, Rounding) for each in kind),
}  # fmt: skip
Name = tuple[str, "Place"]


def names_in(node: Node, section: str = "") -> Iterator[Name]:
    """Yield every word of a tree that the language, or a definition elsewhere, has to know: names and plain values."""
    if isinstance(node, Mapping):
        for name, value in node.entries.items():
            if section not in AUTHORS and WORD.match(name):
                yield name, node.key_places[name]
            if name not in OWN:
                yield from names_in(value, name)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from names_in(item, section)
    elif node.plain and WORD.match(node.text):
        yield node.text, node.place


def tree_of(text: str) -> Node:
    tree = read_tree(text, Problems("p.yaml"))
    assert tree is not None
    return tree


TEXTS = {folder.name: (folder / "programme.yaml").read_text(encoding="utf-8") for folder in FOLDERS}
NAMES = {name: sorted(set(names_in(tree_of(text))), key=lambda each: each[1]) for name, text in TEXTS.items()}
KNOWN = LANGUAGE | {name for names in NAMES.values() for name, _ in names}


def misspelt(word: str, how: int, at: int) -> str:
    """Return a word with a letter too many, too few, another one, or two that changed places."""
    at %= len(word)
    letters = (word[:at] + "q" + word[at:], word[:at] + word[at + 1 :], word[:at] + "q" + word[at + 1 :],
               word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :])  # fmt: skip
    return letters[how % len(letters)]


def with_typo(text: str, name: Name, wrong: str) -> str:
    word, place = name
    lines = text.split("\n")
    line, column = lines[place.line - 1], place.column - 1
    assert line[column:].startswith(word)
    lines[place.line - 1] = line[:column] + wrong + line[column + len(word) :]
    return "\n".join(lines)


def check_typo(example: str, name: Name, wrong: str) -> bool:
    """Check what is said of a typo; return whether anything is: a text of the author's own is right however written."""
    errors = load_programme(with_typo(TEXTS[example], name, wrong), "p.yaml").errors
    if not errors:
        return False
    (error,) = errors
    assert (error.line, error.column) == (name[1].line, name[1].column)
    if error.code in (Code.UNKNOWN_FIELD, Code.UNKNOWN_VALUE):
        said = re.search(r'; (did you mean "(?P<meant>.+)"\?|known here: (?P<known>[^,]+.*))$', error.message)
        assert said is not None
        listed = (said["known"] or "").split(", ")
        assert len(listed) < 12 or listed[12:] in ([], ["…"])
    return True


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(TEXTS)), st.data())
def test_a_typo_in_any_name_of_any_example_brings_one_error_at_its_place(example: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES[example]))
    wrong = misspelt(name[0], data.draw(st.integers(0, 3)), data.draw(st.integers(0, 60)))
    if wrong and wrong not in KNOWN and WORD.match(wrong) and wrong not in ("yes", "no"):
        check_typo(example, name, wrong)


@pytest.mark.parametrize("example", sorted(TEXTS))
def test_most_names_of_an_example_are_held_to_the_letter(example: str) -> None:
    """Every third name is misspelt once: beside words for people nearly every one is found out."""
    hits = [
        check_typo(example, name, wrong)
        for name in NAMES[example][::3]
        if (wrong := misspelt(name[0], name[1].line, name[1].column)) not in KNOWN and WORD.match(wrong)
    ]
    assert sum(hits) > 0.7 * len(hits)


def said(text: str) -> list[str]:
    """Return what is wrong with a programme's sections, without the place."""
    head = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: EUR\n"
    rules = "" if "rules:" in text else "\nrules: []\n"
    return [
        f"{each.line - 4}:{each.column}: {each.message}" for each in load_programme(head + text + rules, "p").errors
    ]


def rule(text: str, on: str = "purchase") -> str:
    return written(
        "rules:\n- {id: r, on: $on, $text, give: [{badge: b}], limits: [{times: 1, per: member}]}", on=on, text=text
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limits: {}", '1:1: unknown name in a programme "limits"; known here: '),
        (rule("when: {purchase.items.quantity: 1}"),
         '2:32: unknown field "purchase.items.quantity"; known here: purchase.'),
        (rule("when: {history.spent: 1}"), '2:32: unknown field "history.spent"; there is none here: add it to a sec'),
        (rule("when: {derived.net: 1}"), '2:32: unknown field "derived.net"; there is none here: add it to a sec'),
        (rule("when: {member.segment: {contains: rich}}"), '2:59: unknown segment "rich"; there is none here: add it'),
        (rule("when: {referral.member_id: ann}", "referral"),
         '2:32: unknown field "referral.member_id"; known here: referral.'),
        (rule("when: {purchase.amount: {starts_with: 5}}"), None),
        (rule("priority: 1", "time"), '2:15: unknown on "time"; known here: '),
        ("tiers: {metric: status, window: lifetime, upgrade: 1d, levels: [{id: a, from: 0}]}",
         '1:43: unknown name in tiers "upgrade"; known here: '),
        ("rules:\n- {id: r, on: share, give: [{points: 1}], limits: [{times: 1, per: programme}]}",
         '2:68: unknown per "programme"; known here: member, campaign, [member, FIELD]'),
    ],
)  # fmt: skip
def test_what_is_no_misspelling_is_told_what_is_known_in_its_place(text: str, says: str | None) -> None:
    (error,) = said(text)
    if says is not None:
        assert error.startswith(says)
        listed = error.partition("known here: ")[2].split(", ")
        assert len(listed) <= 13
        assert listed[12:] in ([], ["…"])


@pytest.mark.parametrize(
    "when",
    [
        "not: {purchase.coupons: {exists: yes}}", "not: {purchase.amount: {gte: much}}",
        "not: {all: [{purchase.tax: x}]}", "not: {history.wrong: {gte: 1}}", "not: {derived.wrong: 1.00}",
        "items: {none: {category: {gte: 1}}}", "items: {all: {colour: red}}", "not: {not: {purchase.units: many}}",
        "items: {sum: amount, where: {category: {gte: 1}}, gte: 5.00}", "any: [{not: {purchase.amount: x}}]",
    ],
)  # fmt: skip
def test_what_is_wrong_within_a_not_brings_one_error(when: str) -> None:
    section = "metrics: {wrong: {count: x}}\n" if "history" in when else "derived: {wrong: purchase.amount +}\n"
    assert len(said((section if "wrong" in when else "") + rule(written("when: {$when}", when=when)))) == 1


def test_a_wrong_segment_brings_one_error_wherever_it_is_named() -> None:
    section = (
        "segments: {rich: {not: {history.spent: {gte: x}}}, poor: {member.balance: 0}}\n"
        "metrics: {spent: {sum: purchase.amount}}\n"
    )
    for test in ("{exists: false}", "{contains: rich}", "{contains_any: [rich, poor]}"):
        assert len(said(section + rule(written("when: {not: {member.segment: $test}}", test=test)))) == 1


@pytest.mark.parametrize("text", ["tiers:\n\tmetric: status", "# 会员\ntiers:\n  a: 1\n\tmetric: status"])
def test_a_tab_is_called_a_tab(text: str) -> None:
    (error,) = said(text)
    assert error.endswith(":1: a tab stands here; indent with spaces")


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("purchse", ["purchase", "share"], "purchase"), ("time", ["tier", "share"], None),
        ("grnat", ["grant"], "grant"),
        ("upgrade", ["grace", "levels"], None), ("point", ["points"], "points"), ("grant", ["granted"], "granted"),
        ("referral.member_id", ["referral.number"], None), ("referral.numbr", ["referral.number"], "referral.number"),
        ("histry.visits", ["history.visits", "history.visit"], "history.visits"), ("of", ["on", "give"], "on"),
        ("a" * 61, ["a" * 61], None),
    ],
)  # fmt: skip
def test_a_name_is_suggested_where_it_is_near(name: str, known: list[str], meant: str | None) -> None:
    assert nearest(name, known) == meant
