"""The pages on the ledger: every case on them holds, every log is what came, every reason is explained and drawn."""

from __future__ import annotations

import re

import pytest

from engine.programme.fields import FIELDS, OCCASION_TRIGGERS
from engine.programme.file.json_schema import json_schema
from engine.programme.file.terms import TERM_SECTIONS
from engine.programme.model import RefusalReason
from engine.programme.terms import Downgrade, Negative, RewardKind, RoundExpiry, TierWindow
from operations.simulate.cases import run_case
from schemas.rewards import ACCOUNTS
from tests.pages.ledger_pages import PAGES, Example, examples

EXAMPLES = [example for name, text in PAGES.items() for example in examples(name, text)]
LEDGER = PAGES["ledger.md"]
LOGGED = [example for example in EXAMPLES if example.log is not None]


def name_of(example: Example) -> str:
    return f"{example.page}:{example.line}"


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_a_case_holds_and_leaves_nothing_unsaid(example: Example) -> None:
    assert [str(problem) for problem in (*example.programme.errors, *example.programme.not_judged)] == []
    outcome = run_case(example.case, example.programme)
    assert [*map(str, outcome.differences), *outcome.notes] == []


@pytest.mark.parametrize("example", LOGGED, ids=name_of)
def test_a_log_is_what_came(example: Example) -> None:
    assert [" ".join(line.split()) for line in (example.log or "").splitlines()] == example.found()


def table_of(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    rows = re.search(rf"^## {heading}\n.*?\n\|---[-|]*\n(.*?)\n(?!\|)", LEDGER + "\n", re.DOTALL | re.MULTILINE)
    assert rows is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]


def drawn() -> set[str]:
    return {
        row["reason"]
        for example in EXAMPLES
        for row in example.simulation().document()["reward_events"]
        if row["type"] == "reward.refused"
    }


def test_every_reason_to_refuse_is_explained_and_every_one_of_the_ledgers_own_drawn() -> None:
    told = {cells[0].strip("`") for cells in table_of("Refusals")}
    assert drawn() | set(RefusalReason) == told
    assert told - drawn() <= set(RefusalReason)


def test_the_table_and_the_diagram_show_the_same_movements() -> None:
    diagram = re.search(r"```mermaid\n(.*?)```", LEDGER, re.DOTALL)
    assert diagram is not None
    arrows = re.findall(r"(\w+|\[\*\]) --> (\w+): (.+)", diagram[1])
    shown = {
        (verb, origin.replace("[*]", "issued"), account)
        for origin, account, verbs in arrows
        for verb in re.findall(r"granted|adjusted|reversed|[a-z]+ed\b", verbs.partition(", w")[0])
    }
    listed = set()
    for verb, accounts, _ in table_of("Lots and accounts"):
        origins, account = accounts.split(" → ") if "pending, or" not in accounts else ("issued", "pending, or active")
        for origin in re.split(r", | or ", origins):
            for entered in re.split(r", or ", account):
                listed.add((verb.strip("`").split("`")[0], origin, entered))
    assert shown == listed
    assert {account for _, *both in listed for account in both} == set(ACCOUNTS)


def test_every_movement_of_the_table_is_seen_in_a_log() -> None:
    logs = "\n".join(example.log or "" for example in LOGGED)
    verbs = {cells[0].strip("`").split("`")[0] for cells in table_of("Lots and accounts")}
    assert [verb for verb in sorted(verbs) if f"points.{verb}" not in logs] == []


def test_the_page_on_terms_names_all_that_the_sections_take() -> None:
    sections = {name: json_schema()["properties"][name] for name in TERM_SECTIONS}
    page = PAGES["programme/terms.md"]
    assert [name for name in sections if f"\n## {name}\n" not in page] == []
    names = {name for section in sections.values() for name in section.get("items", section).get("properties", ())}
    words = {word.value for kind in (RoundExpiry, Negative, Downgrade, TierWindow, RewardKind) for word in kind}
    assert [word for word in sorted(names | words) if not re.search(rf"`{word}[:` ]", page)] == []


def test_the_page_on_occasions_names_them_and_their_fields() -> None:
    page = PAGES["programme/occasions.md"]
    assert [name for name in OCCASION_TRIGGERS if f"\n## on: {name}\n" not in page] == []
    assert [path for name in OCCASION_TRIGGERS for path in FIELDS[name] if f"`{path}`" not in page] == []


PAGE = """
```yaml programme
rules:
- {id: base, on: purchase, give: [{points: 5}]}
```
```yaml case
events:
- {type: purchase, occurred_at: 2026-03-01T10:00:00Z, order_id: o1, amount: 2190}
expect: {balances: {ann: {points: {granted: 5}}}}
```
```text log
2026-03-01 10:00:00  points.granted  5  issued → active  by base
```
"""


def flaws(page: str) -> list[str]:
    (example,) = examples("page.md", page)
    wrong = [str(found) for found in run_case(example.case, example.programme).differences]
    return wrong + [line for line in example.found() if line not in " ".join((example.log or "").split())]


@pytest.mark.parametrize(
    ("says", "lies"), [("granted: 5", "granted: 6"), ("issued →", "debt →"), ("points: 5", "points: 4")]
)
def test_a_page_that_is_wrong_is_found(says: str, lies: str) -> None:
    assert flaws(PAGE) == []
    assert flaws(PAGE.replace(says, lies)) != []


@pytest.mark.parametrize(
    "page", [PAGE.replace("yaml case", "yaml"), PAGE.replace("text log", "text"), PAGE + "```yaml\n{}\n```\n"]
)
def test_a_block_that_nothing_executes_is_found(page: str) -> None:
    with pytest.raises(ValueError, match=r"page\.md:\d+: nothing executes this block"):
        list(examples("page.md", page))
