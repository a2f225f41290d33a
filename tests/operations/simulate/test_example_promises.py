"""Every sentence of every example's README is held: by cases of its programme.cases.yaml, or by a check here.

The sentences stand in example_promises.yaml. One that is changed or added fails until it is said there what holds it.
"""

from __future__ import annotations

import hmac
import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.programme.file.load import load_file, load_programme
from operations.demo.tour import PROGRAMME
from operations.simulate.cases import read_cases, run_case, run_cases
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate, simulate_lines
from schemas.scalars import instant_from_iso
from tests.engine.in_memory import event
from tests.operations.simulate.test_examples import FOLDERS, without_each_rule
from tests.places import EXAMPLES

Document = dict[str, list[dict[str, Any]]]
PROMISES = Path(__file__).parent / "example_promises.yaml"
NUMBERS = {"ten": 10, "eleven": 11, "twelve": 12, "九": 9}
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
END_OF_SENTENCE = re.compile(r"(?<=[.!?*])\s+(?=[A-Z`\[])|(?<=。)")


def sentences(folder: Path) -> list[str]:
    """Return what a README says, sentence by sentence: paragraphs, entries, rows of tables; no headings, no code."""
    text = FENCE.sub("", (folder / "README.md").read_text(encoding="utf-8"))
    found = []
    for block in re.split(r"\n\s*\n|\n(?=[|-])", text):
        said = " ".join(block.split()).removeprefix("- ")
        if said and not said.startswith(("#", "| who", "|---")):
            found += [each.strip() for each in END_OF_SENTENCE.split(said) if each.strip()]
    return found


def shown(name: str, until: str | None = None) -> Document:
    """Return what comes of an example's own events."""
    folder = EXAMPLES / name
    until_ms = None if until is None else instant_from_iso(until, "until")
    return simulate(folder / "programme.yaml", [folder / "events.jsonl"], until_ms).document()


def rows(document: Document, table: str, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in document[table] if all(row[name] == value for name, value in wanted.items())]


def has_a_word_on_each_rule(name: str) -> None:
    lines = (EXAMPLES / name / "programme.yaml").read_text(encoding="utf-8").splitlines()
    rules = [at for at, line in enumerate(lines) if line.startswith(("- id:", "- {id:"))]
    begin = lines.index("rules:")
    assert [lines[at] for at in rules if at > begin and not lines[at - 1].startswith("#")] == []


def has_a_word_on_each_part(name: str) -> None:
    has_a_word_on_each_rule(name)
    lines = (EXAMPLES / name / "programme.yaml").read_text(encoding="utf-8").splitlines()
    for part in ("points:", "refunds:", "tiers:", "reserve_for:"):
        (at,) = (at for at, line in enumerate(lines) if line.startswith(part))
        assert lines[at - 1].startswith("#")


def holds_events(name: str, count: str) -> None:
    lines = (EXAMPLES / name / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == NUMBERS[count]


def explains_its_cases(name: str) -> None:
    """Look for why above each case; two that follow each other on one comment share it."""
    lines = (EXAMPLES / name / "programme.cases.yaml").read_text(encoding="utf-8").splitlines()
    blocks = "\n".join(lines).split("\n\n")[1:]
    assert [block for block in blocks if not block.startswith("#")] == []
    assert sum(line.startswith("- id:") for line in lines) == len(run_cases(EXAMPLES / name / "programme.yaml"))


def tells_what_came_instead(name: str) -> None:
    """Take each rule out: a case that no longer holds says what was expected, what is, and which reward events came."""
    folder = EXAMPLES / name
    for rest in without_each_rule(folder / "programme.yaml").values():
        failed = [
            each for case in read_cases(folder / "programme.cases.yaml") if not (each := run_case(case, rest)).is_ok
        ]
        assert failed
        for outcome in failed:
            assert all(each.expected != each.got for each in outcome.differences)
            assert all("expected" in str(each) for each in outcome.differences)


def is_the_demos(name: str) -> None:
    assert (EXAMPLES / name / "programme.yaml").samefile(PROGRAMME)


def is_what_the_tour_shows(name: str) -> None:
    """Look for its files in the README's tour, which tests/pages/test_readme.py types."""
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    for command in ("programme activate", "publish", "simulate"):
        assert f"$ guerdon {command} examples/{name}/" in readme


def three_lines_are_wrong(name: str) -> None:
    assert len({error.line for error in load_file(EXAMPLES / name / "bad.yaml").errors}) == 3


def bakery_events(name: str) -> None:
    holds_events(name, "eleven")
    folder = EXAMPLES / name
    simulation = simulate(folder / "programme.yaml", [folder / "events.jsonl"])
    assert simulation.duplicates == 1
    assert [row["reason"] for row in simulation.document()["quarantined"]] == ["wrong_currency"]
    (referral,) = simulation.document()["referrals"]
    assert (referral["referrer_id"], referral["referee_id"]) == ("ann", "bob")


def grocery_events(name: str) -> None:
    holds_events(name, "twelve")
    folder = EXAMPLES / name
    simulation = simulate(folder / "programme.yaml", [folder / "events.jsonl"])
    assert simulation.duplicates == 1
    assert [row["reason"] for row in simulation.document()["quarantined"]] == ["wrong_currency"]
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    ann = [each["occurred_at"] for each in told if each["member_id"] == "ann"]
    assert sum(at < max(ann[:place]) for place, at in enumerate(ann) if place) == 1


def hotel_events(name: str) -> None:
    has_a_word_on_each_part(name)
    holds_events(name, "twelve")
    assert {row["member_id"] for row in shown(name)["reward_events"]} == {"ana", "rui"}


def both_have_lost_a_level(name: str) -> None:
    document = shown(name, "2028-03-01T00:00:00Z")
    for guest in ("ana", "rui"):
        changes = rows(document, "reward_events", member_id=guest, type="tier.changed")
        assert changes[-1]["reason"] == "review"
        assert changes[-1]["occurred_at"].endswith("-03-01T00:00:00Z"), "two months of grace behind the year"


def the_ledger_is_linked(name: str) -> None:
    assert (EXAMPLES / name / "../../docs/ledger.md").resolve().is_file()


def names_may_be_chinese(name: str) -> None:
    has_a_word_on_each_rule(name)
    loaded = load_file(EXAMPLES / name / "programme.yaml").programme
    assert loaded is not None
    assert all(not rule.id.isascii() for rule in loaded.rules)


def the_draw_can_be_recomputed(name: str) -> None:
    """Whoever knows seed, rule and event knows who wins; a second run says the same."""
    won = rows(shown(name), "reward_events", type="coupon.issued", rule_id="分享抽奖")
    lines = (EXAMPLES / name / "events.jsonl").read_text(encoding="utf-8").splitlines()
    shares = [each for line in lines if (each := json.loads(line))["type"] == "share" and each.get("verified")]
    wins = set()
    for share in shares:
        message = "\0".join(("分享抽奖", share.get("source", "default"), share["event_id"])).encode()
        first = int.from_bytes(hmac.digest("2024年6月".encode(), message, sha256)[:8])
        wins |= {share["event_id"]} if first * 5 < 2**64 else set()
    assert wins
    assert wins == {row["event_id"] for row in won}
    assert shown(name) == shown(name)


def a_committed_secret_is_not_judged_yet(name: str) -> None:
    text = (EXAMPLES / name / "programme.yaml").read_text(encoding="utf-8")
    committed = load_programme(text.replace("seed: 2024年6月", f"commit: {'0' * 64}"), "p.yaml")
    assert not committed.errors
    assert [problem.message.split(" is part")[0] for problem in committed.not_judged] == ["a draw by a secret (commit)"]


def one_budget_a_month_for_all(name: str) -> None:
    """220 friends of eleven members buy in one month: the budget holds 200 times 10.00, and 20 are refused."""
    events = [event(at, "signup", f"ann{at}", "2026-03-01T08:00:00Z") for at in range(11)]
    for friend in range(220):
        at = f"2026-03-{2 + friend // 11:02}T10:{friend % 11:02}:00Z"
        events.append(event(1000 + friend, "signup", f"bob{friend}", at, referrer_id=f"ann{friend % 11}"))
        buys = {"order_id": "o", "currency": "EUR", "amount": 2000}
        events.append(event(2000 + friend, "purchase", f"bob{friend}", at.replace("T10", "T11"), **buys))
    path = EXAMPLES / name / "programme.yaml"
    ordered = sorted(events, key=lambda each: each["occurred_at"])
    lines = [Line("e.jsonl", at, json.dumps(each).encode()) for at, each in enumerate(ordered, 1)]
    document = simulate_lines(path, lines).document()
    cash = rows(document, "reward_events", type="cash.granted")
    assert sum(row["amount"] for row in cash) == 200_000
    assert len(rows(document, "reward_events", type="reward.refused", rule_id="friend-first-order")) == 20


def ann_keeps_her_cash(name: str) -> None:
    document = shown(name, "2026-04-01T00:00:00Z")
    assert [row["amount"] for row in rows(document, "reward_events", member_id="ann", type="cash.granted")] == [1000]
    assert rows(document, "reward_events", member_id="ann", type="cash.reversed") == []


def ann_keeps_the_200_points(name: str) -> None:
    document = shown(name)
    (given,) = rows(document, "reward_events", member_id="ann", rule_id="friend-spends")
    assert (given["type"], given["amount"]) == ("points.granted", 200)


def a_claim_is_a_cycle(name: str) -> None:
    (row,) = rows(shown(name), "referrals", referee_id="ann")
    assert (row["status"], row["reason"]) == ("rejected", "cycle")


def promises() -> dict[str, list[dict[str, Any]]]:
    """Return, by example, its sentences in their order, each with what holds it."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(PROMISES.read_text(encoding="utf-8"))
    return found


HELD = promises()
CHECKS = [
    pytest.param(name, check, id=f"{name}-{check.replace(' ', '-')}")
    for name, held in HELD.items()
    for check in dict.fromkeys(check for each in held for check in each.get("checks", ()))
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_sentence_is_held(folder: Path) -> None:
    held = HELD[folder.name]
    assert sentences(folder) == [each["says"] for each in held]
    cases = {case.id for case in read_cases(folder / "programme.cases.yaml")}
    for each in held:
        assert set(each.get("cases", ())) <= cases
        assert each.get("cases") or each.get("checks")


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_a_sentence_is_true(name: str, check: str) -> None:
    function, *given = check.split()
    globals()[function](name, *given)
