"""Write the programmes and events for measuring the language."""

from __future__ import annotations

from schemas.events import Purchase

MEMBERS = 2_000
FIRST_MS = 1_709_942_400_000
MINUTE_MS = 60_000
HEAD = "schema: guerdon/1\nprogramme: bench\ntimezone: America/New_York\ncurrency: USD\n"


def thousand_rules() -> str:
    """Return a programme of 1,000 rules for a chain of some 200 stores: 10 rules for every store, the rest for one."""
    everywhere = [
        f"- {{id: all-{n}, on: purchase, when: {{purchase.amount: {{gte: {150 + n}.00}}}}, give: [{{points: 1}}]}}"
        for n in range(10)
    ]
    of_stores = [
        f"- {{id: r{n:04}, on: purchase,"
        f" when: {{purchase.store: store-{n % 198}, purchase.amount: {{gte: {n % 90}.00}}}},"
        " give: [{points: 5}]}"
        for n in range(990)
    ]
    return HEAD + "rules:\n" + "\n".join(everywhere + of_stores)


def twenty_rules() -> str:
    """Return a programme of 20 rules with several tests each; few rules match."""
    rules = [
        f"- {{id: r{n}, on: purchase, when: {{purchase.channel: [app, web], purchase.amount: {{gte: {100 + n}.00}},"
        f" purchase.brand: {{ne: b{n}}}}}, give: [{{points: 5}}]}}"
        for n in range(20)
    ]
    return HEAD + "rules:\n" + "\n".join(rules)


def decisions() -> str:
    """Return a programme that reads 3 windows, keeps 2 limits and picks from a group for every event."""
    return HEAD + (
        "metrics:\n"
        "  buys_7d: {count: purchase, over: 7d}\n"
        "  spent_30d: {sum: purchase.amount, over: 30d}\n"
        "  spent_1d: {sum: purchase.amount, over: 24h}\n"
        "rules:\n"
        "- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}],"
        " limits: [{max: 500, per: member, every: day}]}\n"
        "- {id: often, on: purchase, when: {history.buys_7d: {gte: 3}}, group: {id: g, pick: best},"
        " give: [{points: 10}], limits: [{times: 20, per: member, every: month}]}\n"
        "- {id: much, on: purchase, when: {history.spent_30d: {gte: 500.00}}, group: {id: g, pick: best},"
        " give: [{points: 25}]}\n"
        "- {id: today, on: purchase, when: {history.spent_1d: {gte: 100.00}}, give: [{points: 1}]}\n"
    )


def remembering() -> str:
    """Return a programme that remembers in every way: windows, streaks, totals, challenges, limits of all kinds."""
    return HEAD + (
        "metrics:\n"
        "  buys_1y: {count: purchase, over: 1y}\n"
        "  spent_90d: {sum: purchase.amount, over: 90d}\n"
        "  spent: {sum: purchase.amount}\n"
        "  days: {streak: purchase, unit: day}\n"
        "  weeks: {streak: purchase, unit: week}\n"
        "  latest: {last: purchase}\n"
        "rules:\n"
        "- {id: past, on: purchase, give: [{points: 1}],"
        " when: {history.buys_1y: {gte: 1}, history.spent_90d: {gte: 1.00}, history.spent: {gte: 1.00},"
        " history.days: {gte: 1}, history.weeks: {gte: 1}, history.latest: {lte: 1y}},"
        " limits: [{max: 1000000, per: member, every: 30d}, {times: 9999, per: member, every: day}]}\n"
        "- {id: stamps, on: purchase, give: [{points: 1}],"
        " challenge: {count: 10, within: 30d, repeat: after_completion}}\n"
        "- {id: saver, on: purchase, give: [{badge: saver}, {points: 1}],"
        " challenge: {sum: purchase.amount, gte: 100000000.00}}\n"
        "- {id: stores, on: purchase, give: [{points: 1}],"
        " limits: [{times: 5, per: [member, purchase.store], every: day}]}\n"
        "- {id: brands, on: purchase, give: [{points: 1}],"
        " limits: [{times: 5, per: [member, purchase.brand], every: 7d}]}\n"
    )


def purchases(count: int) -> list[Purchase]:
    """Return purchases of `MEMBERS` members, in rising order of time."""
    return [
        Purchase(
            event_id=f"e{n}", member_id=f"m{n * 7 % MEMBERS}", occurred_at=FIRST_MS + n * MINUTE_MS, order_id=f"o{n}",
            currency="USD", amount=n * 37 % 12_000, channel=("app", "web", "till")[n % 3], store=f"store-{n % 200}",
            brand=f"b{n % 30}",
        )
        for n in range(count)
    ]  # fmt: skip


def purchases_of_one(count: int) -> list[Purchase]:
    """Return purchases of one member, seven minutes apart, in 5,000 stores and of 2,000 brands."""
    return [
        Purchase(
            event_id=f"e{n}", member_id="m", occurred_at=FIRST_MS + n * 7 * MINUTE_MS, order_id=f"o{n}",
            currency="USD", amount=100, store=f"store-{n % 5_000}", brand=f"b{n * 7 % 2_000}",
        )
        for n in range(count)
    ]  # fmt: skip
