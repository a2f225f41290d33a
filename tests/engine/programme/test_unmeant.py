"""What a rule may say and probably does not mean is told as a warning, and what it may well mean is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from engine.programme.file.load import load_programme
from engine.programme.file.problems import Severity
from tests.engine.in_memory import HEAD, balance, event, judged
from tests.pages.programme_guide import GUIDE
from tests.programme_text import written

if TYPE_CHECKING:
    from pathlib import Path

ONCE = "limits: [{times: 1, per: member}]"
A_DAY = "limits: [{max: 500, per: member, every: day}]"
BASE = written(
    "- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}], $a_day}\n", a_day=A_DAY
)
TENFOLD = BASE.replace("rate: 1,", "rate: 10,")


def warnings(rules: str, sections: str = "") -> list[str]:
    loaded = load_programme(f"{HEAD.format('UTC')}{sections}rules:\n{rules}", "p.yaml")
    assert [str(error) for error in loaded.errors] == []
    return [problem.message for problem in loaded.problems if problem.severity is Severity.WARNING]


def multiplier(factor: str, more: str = "") -> str:
    return written(
        "- {id: more, on: purchase, phase: boost, give: [{multiply: {phase: base, $factor$more}}]}\n",
        factor=factor,
        more=more,
    )


@pytest.mark.parametrize(
    ("rule", "is_warned"),
    [
        ("{id: r, on: signup, give: [{points: 100}]}", True),
        ("{id: r, on: signup, give: [{badge: b}], when: {signup.channel: app}}", True),
        (written("{id: r, on: signup, give: [{points: 100}], $once}", once=ONCE), False),
        ("{id: r, on: signup, give: [{points: 100}], limits: [{times: 1, per: member, every: day}]}", False),
        ("{id: r, on: signup, give: [{points: 100}], limits: [{max: 100, per: member}]}", False),
        ("{id: r, on: signup, give: [{points: 9}, {status: 9}], limits: [{max: 9, per: member, unit: points}]}", True),
        ("{id: r, on: signup, give: [{points: 100}], when: {member.age: {exists: false}}}", False),
        ("{id: r, on: signup, give: [{points: 100}], challenge: {count: 1}}", False),
        ("{id: r, on: share, give: [{points: 100}]}", False),
    ],
)
def test_a_welcome_that_comes_with_each_signup_is_told(rule: str, *, is_warned: bool) -> None:
    messages = warnings(f"- {rule}")
    assert bool(messages) is is_warned
    assert all("with every signup" in each and "limits: [{times: 1, per: member}]" in each for each in messages)


def test_a_signup_may_come_again_as_the_warning_says() -> None:
    rule = "- {id: r, on: signup, give: [{points: 100}]}"
    events = [event(1, "signup", "ann", "2026-03-01"), event(2, "signup", "ann", "2026-03-02")]
    assert balance(judged(f"rules:\n{rule}", events), "ann")["granted"] == 200


def test_a_rule_on_referrals_needs_somebody_who_is_attributed() -> None:
    rule = written("- {id: r, on: referral, when: {referral.event: purchase}, give: [{points: 1}], $once}\n", once=ONCE)
    (messages,) = warnings(rule)
    assert 'without a section "referral" nobody is attributed' in messages
    assert warnings(rule, "referral: {}\n") == []


@pytest.mark.parametrize(
    ("rules", "needed"),
    [
        (BASE + multiplier("by: 1.1"), 10), (BASE + multiplier("by: 1.2"), 5), (BASE + multiplier("by: 1.25"), None),
        (BASE + multiplier("by: 1.1", ", round: ceil"), None), (BASE + multiplier("by: 1.1", ", round: half_up"), 5),
        (BASE + multiplier("by: 1.2", ", round: half_up"), None), (BASE + multiplier("by: 2"), None),
        (BASE + multiplier("by: 1"), None), (TENFOLD + multiplier("by: 1.1"), None),
        (BASE + multiplier("key: purchase.store, by: {north: 2, south: 1.05}"), 20),
        (written("- {id: base, on: purchase, give: [{points: 5}], $once}\n", once=ONCE) + multiplier("by: 1.1"), 10),
        (written("- {id: base, on: purchase, give: [{points: 10}], $once}\n", once=ONCE) + multiplier("by: 1.1"), None),
        (BASE + written("- {id: ten, on: purchase, give: [{points: 10}], $o}\n", o=ONCE) + multiplier("by: 1.1"), None),
    ],
)  # fmt: skip
def test_a_factor_that_adds_nothing_to_most_events_is_told(rules: str, needed: int | None) -> None:
    messages = warnings(rules)
    assert [re.findall(r"fewer than (\d+) points", each) for each in messages] == (
        [] if needed is None else [[str(needed)]]
    )


def test_so_many_points_are_the_first_to_which_something_is_added() -> None:
    for more, needed in (("", 10), (", round: half_up", 5)):
        for points, added in ((needed - 1, 0), (needed, 1)):
            order = event(1, "purchase", "ann", "2026-03-01", order_id="o", currency="EUR", amount=points * 100)
            document = judged("rules:\n" + BASE + multiplier("by: 1.1", more), [order])
            assert balance(document, "ann")["granted"] == points + added


def test_what_has_no_limit_is_named_and_what_has_one_is_not() -> None:
    two = "[{points: {rate: 1, per: 1.00, of: purchase.amount}}, {status: {rate: 1, per: 1.00, of: purchase.amount}}]"
    (messages,) = warnings(
        written("- {id: r, on: purchase, give: $two, limits: [{max: 9, per: member, unit: points}]}", two=two)
    )
    assert messages == 'rule "r" gives status by a rate and has no limit on status: one large order gives without bound'


@pytest.mark.parametrize(
    "path", [GUIDE.parent / "ledger.md", GUIDE.parents[1] / "README.md", *sorted(GUIDE.glob("*.md"))]
)
def test_no_welcome_of_the_guides_comes_twice(path: Path) -> None:
    """A reader copies what they see first: no example of a page gives with every signup, but the one of the warning."""
    blocks = re.findall(r"```yaml(?! rule)[a-z ]*\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    messages = []
    for block in blocks:
        text = block if block.startswith("schema:") else HEAD.format("UTC") + re.sub(r"^timezone:.*\n", "", block)
        messages += [
            each.message for each in load_programme(text, path.name).problems if "every signup" in each.message
        ]
    assert messages == []
