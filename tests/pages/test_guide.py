"""The guide of the programme language: every page has examples, and each does what the page says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from engine.programme.conditions import Comparison, Every
from engine.programme.fields import FIELDS, LINE, MEMBER_FIELDS, TIME_FIELDS
from engine.programme.file.load import load_programme
from engine.programme.model import Phase, Pick, RefusalReason, Rounding
from tests.pages.programme_guide import GUIDE, Example, examples, framed

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "README.md"
WITH_EXAMPLES_OF_ANOTHER_KIND = {
    "errors.md", "generated.md", "occasions.md", "referrals.md", "terms.md", "tests.md", "why.md",
}  # fmt: skip
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(GUIDE.glob("*.md"))}
EXAMPLES = [
    example
    for name, text in PAGES.items()
    if name not in WITH_EXAMPLES_OF_ANOTHER_KIND
    for example in examples(name, text)
]
WHOLE = "\n".join(PAGES.values())


def differences(example: Example, folder: Path) -> list[str]:
    """Return each line of which page and run say something different."""
    wanted, found = (example.outcome or "").splitlines(), example.found(folder).splitlines()
    padded = [lines + [""] * (max(len(wanted), len(found)) - len(lines)) for lines in (wanted, found)]
    return [f'the page says "{says}" and it is "{is_}"' for says, is_ in zip(*padded, strict=True) if says != is_]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.page}:{example.line}")
def test_an_example_does_what_its_page_says(example: Example, tmp_path: Path) -> None:
    assert differences(example, tmp_path) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.page}:{example.line}")
def test_an_example_could_be_activated(example: Example) -> None:
    loaded = [load_programme(framed(text), name) for name, text in example.programmes.items()]
    assert [str(problem) for each in loaded for problem in (*each.errors, *each.not_judged)] == []


@pytest.mark.parametrize("name", sorted(PAGES.keys() - WITH_EXAMPLES_OF_ANOTHER_KIND))
def test_every_page_has_an_example(name: str) -> None:
    assert [example.page for example in EXAMPLES if example.page == name]


def test_the_index_leads_to_every_page_and_every_link_leads_to_one() -> None:
    assert PAGES.keys() - {INDEX} == set(re.findall(r"\]\(([\w-]+\.md)\)", PAGES[INDEX]))
    assert set(re.findall(r"\]\(([\w-]+\.md)", WHOLE)) <= PAGES.keys()


def named(word: str) -> bool:
    """Whether the guide shows `word` as code."""
    return re.search(rf"[`{{\s(\[]{re.escape(word)}[`:}}\s,)\]]", WHOLE) is not None


@pytest.mark.parametrize(
    "words",
    [
        [test.value for test in Comparison if test is not Comparison.CLOCK],
        [path for trigger, fields in FIELDS.items() if trigger != LINE for path in fields],
        [*TIME_FIELDS, *MEMBER_FIELDS, "member.segment", *FIELDS[LINE]],
        [each.value for kind in (Every, Phase, Pick, Rounding, RefusalReason) for each in kind],
        ["points", "status", "multiply", "cash", "coupon", "gift", "badge", "benefit"],
        ["all", "any", "not", "items", "some", "none", "sum", "count", "streak", "last"],
    ],
    ids=["tests", "fields of events", "other fields", "choices", "gives", "nesting and metrics"],
)
def test_the_guide_names_the_whole_language(words: list[str]) -> None:
    assert [word for word in words if not named(word)] == []


PAGE = """
```yaml programme
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
```
```json events
{"type": "purchase", "occurred_at": "2026-03-02T10:00:00Z", "amount": 1999}
{"type": "purchase", "occurred_at": "2026-03-02T11:00:00Z", "amount": 99}
```
```text outcome
e1 anna: 19 points by base
e2 anna: nothing
```
"""


@pytest.mark.parametrize(
    ("says", "lies"),
    [
        ("e1 anna: 19 points", "e1 anna: 20 points"), ("by base", "by bass"), ("\ne2 anna: nothing", ""),
        ("nothing\n", "nothing\ne3 anna: nothing\n"), ('"amount": 1999', '"amount": 2000'), ("rate: 1", "rate: 2"),
    ],
)  # fmt: skip
def test_an_example_that_is_wrong_is_found(says: str, lies: str, tmp_path: Path) -> None:
    (right,) = examples("page.md", PAGE)
    (wrong,) = examples("page.md", PAGE.replace(says, lies))
    assert differences(right, tmp_path) == []
    assert differences(wrong, tmp_path) != []


@pytest.mark.parametrize(
    "page",
    [
        PAGE.replace("text outcome", "outcome"), PAGE[: PAGE.index("```text")], PAGE + "```yaml\nrules: []\n```\n",
        PAGE[: PAGE.index("```text")] + PAGE, PAGE.replace("yaml programme", "yaml"), PAGE + "```text outcome\n```\n",
    ],
)  # fmt: skip
def test_a_block_that_nothing_executes_is_found(page: str) -> None:
    with pytest.raises(ValueError, match=r"page\.md:\d+: (nothing executes this block|this example has no outcome)"):
        list(examples("page.md", page))
