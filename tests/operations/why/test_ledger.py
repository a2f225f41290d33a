"""What `--why` tells of the ledger adds up to what moved, and every reward event has its sentence."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from engine.explain.ledger import LedgerNotes
from engine.explain.moves import sentence_of
from engine.explain.refusals import REASONS
from engine.explain.values import Wording
from engine.programme.file.load import load_programme
from engine.programme.rules.watch import Watch
from operations.simulate.run import simulate
from schemas.rewards import MOVES, REWARD_TYPES, Posting, RewardEvent
from tests.models.comparison import simulated
from tests.places import DOCS
from tests.programme_text import written
from tests.strategies.ledger_histories import History, histories, programmes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.models.comparison import Document, Row
    from tests.models.family import Settings

HEAD = """\
schema: guerdon/1
programme: shop
timezone: Europe/Berlin
currency: EUR
"""
RULE = "- {id: base, on: purchase, give: [{points: {rate: 10, per: 1.00, of: purchase.amount}}]}\n"
CATALOGUE = """\
catalogue:
- {id: pay, kind: money, points_per: {100: 1.00}, min_points: 200, max_share: 50%, min_order: 4.00}
- {id: mug, kind: gift, points: 150, stock: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("why")


def line(number: int, kind: str, **fields: Any) -> dict[str, Any]:
    """Return the line of an event of li's, a day after the one before."""
    head = {"type": kind, "event_id": f"e{number}", "member_id": "li", "occurred_at": f"2026-03-{number:02}T10:00:00Z"}
    return head | fields


def bought(number: int, amount: int, **fields: Any) -> dict[str, Any]:
    return line(number, "purchase", order_id=f"o{number}", currency="EUR", amount=amount, **fields)


def spent(number: int, action: str = "spend", **fields: Any) -> dict[str, Any]:
    return line(number, "redemption", action=action, **({"redemption_id": f"x{number}"} | fields))


def returned(number: int, order: int, **goods: Any) -> dict[str, Any]:
    return line(number, "refund", order_id=f"o{order}", refund_id=f"r{number}", **goods)


def why(folder: Path, programme: str, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the explanations of a history, event by event."""
    (folder / "one.yaml").write_text(HEAD + programme, encoding="utf-8")
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines), encoding="utf-8")
    told: list[dict[str, Any]] = simulate(folder / "one.yaml", [folder / "events.jsonl"], why=True).document()["why"]
    return told


def says(document: dict[str, Any]) -> list[str]:
    """Return the sentences about one event but those of its rules."""
    return [each["sentence"] for name in ("asked", "claims", "moved") for each in document[name]]


# The explanations add up to what moved


def told_keys(document: Document) -> Counter[tuple[str, str]]:
    """Return each reward event that an explanation tells of, with the event under which it does."""
    return Counter(
        (event["event_id"], each["reward_key"])
        for event in document["why"]
        for each in (
            *(award for rule in event["rules"] for award in (*rule["gave"], *rule["refused"])),
            *event["moved"],
        )
    )


def moved(event: Row, type_end: str, unit: str, reason: str | None = None) -> int:
    """Return how much of a unit an event's movements move."""
    return sum(
        each["amount"]
        for each in event["moved"]
        if each["type"].endswith(type_end) and each["unit"] == unit and reason in (None, each["reason"])
    )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
@given(drawn=programmes.flatmap(lambda each: histories(each).map(lambda history: (each, history))))
def test_what_is_told_is_what_was_done_no_more_and_no_less(folder: Path, drawn: tuple[Settings, History]) -> None:
    programme, history = drawn
    plain = simulated(programme, history, folder)
    explained = simulated(programme, history, folder, why=True)
    assert {name: rows for name, rows in explained.items() if name != "why"} == plain
    log = Counter((row["event_id"], row["reward_key"]) for row in plain["reward_events"])
    assert told_keys(explained) == log
    for event in explained["why"]:
        for unit in () if event["type"] == "decision" else ("points", "status"):
            claims = [claim for claim in event["claims"] if claim["unit"] == unit]
            assert sum(claim["taken"] for claim in claims) == moved(event, ".reversed", unit, "refund")
            forgiven = moved(event, "reward.refused", unit, "forgiven")
            assert sum(claim["claim"] - claim["taken"] for claim in claims) == forgiven
            for claim in claims:
                assert claim["claim"] == max(0, claim["awarded"] - claim["earned"] - claim["earlier"])
        for asked in event["asked"]:
            if asked.get("takes") and event["type"] == "redemption":
                assert asked["takes"] == moved(event, ".reserved", asked["unit"]) <= asked["available"]


# Every type and every reason has words


def every_reward() -> list[RewardEvent]:
    """Return reward events of every type and, where it moves points, between all accounts that it may."""
    found = []
    for kind in REWARD_TYPES:
        family, _, verb = kind.partition(".")
        unit = {"cash": "EUR", "reward": "points"}.get(family, family)
        accounts = MOVES[verb] if family in ("points", "status", "cash") else ((None, None),)
        for debit, credit in accounts:
            posting = Posting(
                type=kind, unit=unit, debit=debit, credit=credit, rule_id="base", rule_version=1,
                item=_item_of(unit), reason=_reason_of(kind),
            )  # fmt: skip
            grows = debit == "issued" or verb in ("issued", "awarded") or kind == "benefit.granted"
            lot = (
                None
                if grows or family in ("tier", "referral", "contest", "challenge", "cohort", "reward")
                else b"l" * 32
            )
            found.append(RewardEvent(posting, 7, b"k" * 32, 1_000, "o1", lot, 2_000, 3_000))
    return found


def _item_of(unit: str) -> str | None:
    if unit in ("points", "status", "EUR"):
        return None
    return "treated" if unit == "cohort" else "thing"


def _reason_of(kind: str) -> str | None:
    return {
        "tier.changed": "reached", "referral.rejected": "cycle", "contest.won": "rank 2", "reward.refused": "expired",
        "points.adjusted": "adjusted", "points.reversed": "refund", "benefit.granted": "tier",
    }.get(kind)  # fmt: skip


@pytest.mark.parametrize("reward", every_reward(), ids=lambda reward: f"{reward.posting.type} {reward.posting.debit}")
def test_every_reward_event_has_a_sentence(reward: RewardEvent) -> None:
    programme = load_programme(f"{HEAD}rules:\n{RULE}", "p.yaml").programme
    assert programme is not None
    sentence = sentence_of(reward, Wording.of(programme), "e1")
    assert re.fullmatch(r"[a-z0-9][^{}]*[^ .;:,]", sentence)
    assert "None" not in sentence
    names_its_origin = "they came with event e1, by rule base" in sentence or "it came with event e1" in sentence
    assert names_its_origin is (reward.lot is not None)


def test_every_reason_on_the_page_has_words_and_no_other() -> None:
    page = (DOCS / "ledger.md").read_text(encoding="utf-8").partition("## Refusals")[2]
    on_page = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert on_page - REASONS == set()
    assert REASONS - on_page == {"already_erased", "not_flagged", "not_referred"}


def test_nothing_that_the_ledger_tells_goes_unheard() -> None:
    hooks = {name for name in vars(Watch) if not name.startswith("_")}
    assert hooks - set(vars(LedgerNotes)) == set()


# Explanations of redemptions, refunds and refusals


def test_a_redemption_tells_what_was_asked_what_was_there_and_the_lots_in_their_order(folder: Path) -> None:
    events = [bought(1, 4_000), bought(2, 2_000), spent(3, reward="pay", order_amount=1_000)]
    *_, told = why(
        folder, written("points: {validity: 60d}\n${catalogue}rules:\n$rule", catalogue=CATALOGUE, rule=RULE), *events
    )
    assert says(told) == [
        (
            'redemption "x3": spend for "pay": 600 points available; in steps of 100 points for 1.00: at most 600 '
            "points as available, 500 points as 50% of 10.00; takes 500 points, pays 5.00"
        ),
        "400 points were reserved, valid until 2026-04-30 11:00; they came with event e1, by rule base",
        "100 points were reserved, valid until 2026-05-01 11:00; they came with event e2, by rule base",
        "400 points were spent; they came with event e1, by rule base",
        "100 points were spent; they came with event e2, by rule base",
    ]
    (asked,) = told["asked"]
    assert {name: asked[name] for name in ("available", "debt", "takes", "step", "pays_minor")} == {
        "available": 600, "debt": 0, "takes": 500, "step": 100, "pays_minor": 500,
    }  # fmt: skip
    first = told["moved"][0]
    assert (first["came_with"], first["rule"], first["expires_at"]) == ("e1", "base", "2026-04-30T09:00:00Z")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (spent(3, amount=900), "refused 900 points: 900 points asked for, 600 points available"),
        (spent(3, amount=0), "refused: neither a reward nor an amount above 0 is named"),
        (spent(3, reward="cup"), 'refused: the catalogue of version 1 has no reward "cup"'),
        (
            spent(3, reward="pay", order_amount=300),
            "refused: the order is 3.00 and it takes one of 4.00 or more",
        ),
        (
            spent(3, reward="pay", amount=150, order_amount=900),
            (
                "refused 150 points: in steps of 100 points for 1.00: at most 100 points as asked, 600 points as "
                "available, 400 points as 50% of 9.00, and at least 200 points are needed"
            ),
        ),
        (spent(3, "capture"), 'refused: no redemption "x3" was reserved'),
        (
            spent(3, unit="EUR", reward="mug"),
            (
                'refused: "EUR" cannot pay for it: rewards of the catalogue cost points, and else points or the '
                "programme's currency are paid out"
            ),
        ),
    ],
)  # fmt: skip
def test_a_redemption_that_is_refused_tells_why_with_the_numbers(folder: Path, asked: Row, reason: str) -> None:
    *_, told = why(folder, f"{CATALOGUE}rules:\n{RULE}", bought(1, 4_000), bought(2, 2_000), asked)
    assert [each["sentence"] for each in told["moved"]] == [reason]


def test_what_cannot_be_captured_restored_or_done_again_is_told_with_what_is_reserved(folder: Path) -> None:
    events = [
        bought(1, 4_000), spent(2, "reserve", amount=100), spent(3, "capture", redemption_id="x2", amount=101),
        spent(4, "restore", redemption_id="x2"), spent(5, "capture", redemption_id="x2", amount=60),
        spent(6, "restore", redemption_id="x2", amount=61), spent(7, "void", redemption_id="x2"),
        spent(8, "reserve", redemption_id="x2", amount=7), spent(9, reward="mug"), spent(10, reward="mug"),
    ]  # fmt: skip
    told = {each["event_id"]: each for each in why(folder, f"{CATALOGUE}rules:\n{RULE}", *events)}
    assert {name: says(told[f"e{name}"])[-1] for name in (3, 4, 6, 7, 8, 10)} == {
        3: "refused 101 points: 101 points would be captured and 100 points are reserved",
        4: 'refused: redemption "x2" is only reserved: void it instead',
        6: "refused 61 points: 61 points would be restored and 60 points are captured",
        7: 'refused: redemption "x2" is captured already',
        8: 'refused 7 points: redemption "x2" came before with other content',
        10: "refused: all 1 of its stock were taken",
    }
    assert says(told["e5"]) == [
        'redemption "x2": capture; 100 points were reserved, it is reserved',
        "60 points were spent; they came with event e1, by rule base",
        "40 points were given back; they came with event e1, by rule base",
    ]
    assert says(told["e9"])[-1] == 'the programme (redeemed) gave gift "mug"'


def test_a_refund_tells_the_award_the_rest_earlier_claims_the_claim_and_where_it_was_taken_from(folder: Path) -> None:
    events = [bought(1, 4_000), bought(2, 2_000), spent(3, amount=500), returned(4, 1, amount=3_000), returned(5, 1)]
    within = why(folder, written("refunds: {negative: within_balance}\nrules:\n$rule", rule=RULE), *events)
    assert says(within[3]) == [
        'refund "r4" of order o1, bought for 40.00: returns 30.00; 10.00 is left',
        "base: gave 400 points, the rest earns 100: 300 are claimed back, of which 200 are forgiven",
        "100 points were taken back, from what is active; they came with event e2, by rule base",
        "refused 200 points: no more is available, and refunds leave no debt (refunds.negative: within_balance)",
    ]
    assert says(within[4]) == [
        'refund "r5" of order o1, bought for 40.00: returns all that is left; nothing is left',
        "base: gave 400 points, the rest earns 0, 300 claimed before: 100 are claimed back, of which 100 are forgiven",
        "refused 100 points: no more is available, and refunds leave no debt (refunds.negative: within_balance)",
    ]
    (claim,) = within[4]["claims"]
    numbers = {name: claim[name] for name in ("awarded", "earned", "earlier", "claim", "taken")}
    assert numbers == {"awarded": 400, "earned": 0, "earlier": 300, "claim": 100, "taken": 0}
    owed = why(folder, f"rules:\n{RULE}", *events[:4])
    assert says(owed[3])[-1] == ("200 points were owed: no lot covers them; they came with event e1, by rule base")


@pytest.mark.parametrize(
    ("refund", "reason"),
    [
        (returned(4, 9), "refused: order o9 has not come; the refund waits, and is applied right after it"),
        (returned(4, 1, amount=9_000), "refused 90.00 EUR: 90.00 would be returned and 30.00 is left of the order"),
        (returned(3, 1, amount=1_000) | {"event_id": "e4"}, 'refund "r3" was taken before, with the same content'),
        (returned(3, 1, amount=999) | {"event_id": "e4"}, 'refund "r3" was taken before, with other content'),
        (
            returned(4, 1) | {"occurred_at": "2026-03-25T10:00:00Z"},
            (
                "refused: the order is of 2026-03-01 11:00 and its refunds are taken for 14d, until 2026-03-15 11:00; "
                "this one is of 2026-03-25 11:00"
            ),
        ),
        (
            returned(4, 2, items=[{"line_id": "a", "amount": 700}]),
            "refused 7.00 EUR: line a has 5.00 left and 7.00 would be returned",
        ),
        (returned(4, 2, items=[{"line_id": "z", "amount": 700}]), 'refused 7.00 EUR: the order has no line "z"'),
    ],
)  # fmt: skip
def test_a_refund_that_is_refused_tells_why_with_the_numbers(folder: Path, refund: Row, reason: str) -> None:
    items = [{"line_id": "a", "sku": "tea", "quantity": 1, "amount": 500}]
    events = [bought(1, 4_000), bought(2, 500, items=items), returned(3, 1, amount=1_000), refund]
    *_, told = why(folder, written("refunds: {window: 14d}\nrules:\n$rule", rule=RULE), *events)
    assert says(told)[-1].endswith(reason)


def test_what_time_does_by_itself_is_told_with_the_event_that_had_brought_it(folder: Path) -> None:
    programme = written("points: {validity: 10d}\nrules:\n$value", value=RULE.replace("give:", "hold: 3d, give:"))
    told = why(folder, programme, bought(1, 100), bought(20, 100))
    assert says(told[-1]) == [
        "10 points became available: their hold ended at 2026-03-04 11:00; they came with event e1, by rule base",
        "10 points lapsed: they were valid until 2026-03-14 11:00; they came with event e1, by rule base",
    ]


REFERRALS = """\
referral: {block: [self]}
tiers: {metric: status, window: lifetime, levels: [{id: low, from: 0}, {id: high, from: 50, benefits: [lounge]}]}
rules:
- {id: status, on: purchase, give: [{status: 30}]}
- {id: friend, on: referral, when: {referral.event: purchase}, give: [{points: 200}, {coupon: {template: tea, valid: 30d}}]}
- {id: day, on: birthday, give: [{points: 11}]}
"""  # noqa: E501  a programme has lines of its own length


def test_referrals_tiers_decisions_birthdays_and_an_erasure_are_told(folder: Path) -> None:
    bob = {"member_id": "bob"}
    void = {"action": "referral_void", "reason": "two accounts"}
    events = [
        line(1, "signup", birthday="1990-03-09"), line(2, "signup", referrer_id="li") | bob, bought(3, 100) | bob,
        bought(4, 4_000), bought(5, 4_000), returned(6, 5), line(7, "decision", **void) | bob,
        line(8, "decision", action="adjust", amount=-20, unit="points", reason="wrong till"),
        bought(10, 100), line(11, "erasure"),
    ]  # fmt: skip
    told = {each["event_id"]: each for each in why(folder, REFERRALS, *events)}
    voided, first = "as the referral was voided", "with event forwarded:default:e3, by rule friend"
    assert {name: says(each) for name, each in told.items() if says(each)} == {
        "attribution:default:e2": ['the member counts as referred by "li"'],
        "forwarded:default:e3": ['the referral of "bob" earned for the first time'],
        "e5": ["the tier became high: its number was reached", 'the programme (tier) gave benefit "lounge"'],
        "e6": [
            'refund "r6" of order o5, bought for 40.00: returns all that is left; nothing is left',
            "status: gave 30 status, the rest earns 0: 30 are claimed back",
            "30 status was taken back, from what is active; it came with event e5, by rule status",
            "the tier became low: a refund lowered the number",
            'benefit "lounge" was ended with the level; it came with event e5',
        ],
        "e7": ['decision: referral_void, "two accounts"'],
        "forwarded:default:e7": [
            'decision: referral_void, "two accounts"',
            "friend: gave 200 points, the rest earns 0: 200 are claimed back",
            'friend: gave coupon "tea", the rest earns 0: 1 is claimed back',
            f"200 points were taken back {voided}, from what is active; they came {first}",
            f'coupon "tea" was taken back {voided}; it came {first}',
            'the referral of "bob" was voided',
        ],
        "e8": [
            'decision: adjust of -20 points, "wrong till"',
            "20 points were owed by an operator's correction: no lot covers them",
        ],
        "e10": [
            "11 points paid a debt as they became available; they came by rule day",
            "the tier became high: its number was reached",
            'the programme (tier) gave benefit "lounge"',
        ],
        "e11": [
            "30 status ended as the member was erased; it came with event e4, by rule status",
            "30 status ended as the member was erased; it came with event e10, by rule status",
            'benefit "lounge" was ended as the member was erased; it came with event e10',
        ],
    }
    assert [rule["rule"] for rule in told["e10"]["rules"]] == ["day", "status"]
