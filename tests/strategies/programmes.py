"""Make programmes in today's language, as text, and histories of events that their rules can meet."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from schemas.events import INT64_MAX

TIMEZONES = ["UTC", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe"]
WORDS = ["app", "NO", "010", "会员"]
ATTRIBUTES = ["colour", "size"]
# 2024-03-09 to 2024-03-12 UTC: New York changes its clocks on the 10th.
FIRST_MS = 1_709_942_400_000
DAY_MS = 86_400_000


def _words(path: str) -> st.SearchStrategy[str]:
    """Make tests of a text."""
    one = st.sampled_from(WORDS).map(lambda word: f'"{word}"')
    several = st.lists(one, min_size=1, max_size=6, unique=True).map(lambda words: f"[{', '.join(words)}]")
    return st.one_of(
        one.map(lambda word: f"{path}: {word}"),
        several.map(lambda words: f"{path}: {words}"),
        st.tuples(st.sampled_from(["eq", "ne", "contains", "starts_with"]), one).map(
            lambda test: f"{path}: {{{test[0]}: {test[1]}}}"
        ),
        st.tuples(st.sampled_from(["in", "not_in"]), several).map(lambda test: f"{path}: {{{test[0]}: {test[1]}}}"),
        exists(path),
    )


def exists(path: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["true", "false"]).map(lambda wanted: f"{path}: {{exists: {wanted}}}")


def _sets(path: str) -> st.SearchStrategy[str]:
    """Make tests of a list of texts."""
    several = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map(
        lambda words: "[" + ", ".join(f'"{word}"' for word in words) + "]"
    )
    return st.one_of(
        st.sampled_from(WORDS).map(lambda word: f'{path}: {{contains: "{word}"}}'),
        st.tuples(st.sampled_from(["contains_any", "contains_all"]), several).map(
            lambda test: f"{path}: {{{test[0]}: {test[1]}}}"
        ),
        exists(path),
    )


def numbers(path: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Make tests of a number, a date or an instant; the texts of `values` are ordered as what they mean."""
    bounds = st.tuples(values, values).map(lambda pair: sorted(pair, key=lambda text: (len(text), text)))
    return st.one_of(
        st.tuples(st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), values).map(
            lambda test: f"{path}: {{{test[0]}: {test[1]}}}"
        ),
        values.map(lambda value: f"{path}: {value}"),
        bounds.map(lambda pair: f"{path}: {{between: [{pair[0]}, {pair[1]}]}}"),
        bounds.map(lambda pair: f"{path}: {{gte: {pair[0]}, lte: {pair[1]}}}"),
        st.lists(values, min_size=1, max_size=3, unique=True).map(lambda v: f"{path}: {{not_in: [{', '.join(v)}]}}"),
    )


_money = st.integers(0, 4_000).map(lambda cents: f"{cents // 100}.{cents % 100:02}")
_clocks = st.sampled_from(["00:00", "02:30", "17:00", "23:59"])
_TIMES = st.one_of(
    st.sampled_from(["sat", "[sat, sun]", "{ne: mon}", "{not_in: [tue, wed]}"]).map(lambda t: f"time.weekday: {t}"),
    st.tuples(_clocks, _clocks)
    .filter(lambda pair: pair[0] != pair[1])
    .map(lambda pair: f"time.clock: {{from: {pair[0]}, to: {pair[1]}}}"),
    numbers("time.date", st.integers(8, 22).map(lambda day: f"2024-03-{day:02}")),
    numbers("time.day", st.integers(8, 14).map(str)),
    st.sampled_from(["3", "{ne: 3}", "[2, 4]"]).map(lambda test: f"time.month: {test}"),
)


def _birthdays(path: str) -> st.SearchStrategy[str]:
    """Make tests of a day that comes back each year."""
    within = st.sampled_from(["0d", "1d", "3d", "1w", "183d"]).map(lambda days: f"{path}: {{within: {days}}}")
    return within | exists(path)


_ATTRIBUTE_TESTS = st.sampled_from(ATTRIBUTES).flatmap(lambda name: _words(f"event.attributes.{name}"))
_quantities = st.sampled_from(["0", "0.5", "1", "2.000001", "12"])
_LINE_TESTS = st.one_of(
    _words("category"), _words("brand"), _words("sku"), numbers("quantity", _quantities), numbers("amount", _money)
)
_ITEMS = st.one_of(
    st.tuples(st.sampled_from(["some", "all", "none"]), _LINE_TESTS).map(
        lambda test: f"items: {{{test[0]}: {{{test[1]}}}}}"
    ),
    st.tuples(_LINE_TESTS, _money).map(lambda t: f"items: {{sum: amount, where: {{{t[0]}}}, gte: {t[1]}}}"),
    st.tuples(_LINE_TESTS, _quantities).map(lambda t: f"items: {{sum: quantity, where: {{{t[0]}}}, lt: {t[1]}}}"),
)
_SIMPLE: dict[str, st.SearchStrategy[str]] = {
    "purchase": st.one_of(
        numbers("purchase.tax", _money), exists("purchase.tax"), _words("purchase.channel"),
        numbers("purchase.amount", _money), numbers("purchase.tender.card", _money), _sets("purchase.categories"),
        _sets("purchase.brands"), _sets("purchase.coupons"), numbers("purchase.units", _quantities),
        numbers("derived.net", _money), _ITEMS, _ATTRIBUTE_TESTS, _TIMES,
    ),
    "signup": st.one_of(
        _words("signup.channel"), _ATTRIBUTE_TESTS, _TIMES, _words("signup.identity.email"),
        _words("signup.attributes.size"), _birthdays("signup.birthday"),
    ),
    "share": st.one_of(
        _words("share.object"), st.sampled_from(["true", "false", "{ne: true}"]).map(lambda t: f"share.verified: {t}"),
        _TIMES,
    ),
    "activity": st.one_of(
        numbers("activity.quantity", st.integers(0, 3).map(str)), numbers("activity.score", st.integers(0, 9).map(str)),
        _words("activity.kind"), _TIMES,
    ),
}  # fmt: skip


_counts = st.integers(0, 4).map(str)
_PAST = st.one_of(
    numbers("history.buys", _counts), numbers("history.buys_2d", _counts), numbers("history.spent", _money),
    numbers("history.spent_1mo", _money), numbers("history.days", _counts), numbers("history.weeks", _counts),
    numbers("member.balance", st.sampled_from(["0", "5", "300"])),
    st.sampled_from(["{lte: 1d}", "{gt: 6h}", "{within: 1mo}", "{exists: false}", "{between: [1h, 3d]}"]).flatmap(
        lambda test: st.sampled_from(["history.last_buy", "member.age"]).map(lambda path: f"{path}: {test}")
    ),
    st.sampled_from(["b", "vip"]).map(lambda item: f"member.held.{item}: true"),
    st.sampled_from(["member.tier: high", "member.tier: {ne: low}", "member.tier_rank: {gte: 1}"]),
    st.sampled_from(["{contains: rare}", "{contains: young}", "{contains_any: [rare, new]}", "{exists: false}"]).map(
        lambda test: f"member.segment: {test}"
    ),
)  # fmt: skip
_TOLD = st.sampled_from(
    [_birthdays("member.birthday"), *(_words(f"member.attributes.{name}") for name in ATTRIBUTES)]
).flatmap(lambda tests: tests)
METRICS = """metrics:
  buys: {count: purchase, where: {purchase.amount: {gte: 1.00}}}
  buys_2d: {count: purchase, over: 2d}
  spent: {sum: purchase.tax}
  spent_1mo: {sum: derived.net, over: 1mo}
  days: {streak: activity, unit: day}
  weeks: {streak: purchase, unit: week}
  last_buy: {last: purchase}
segments:
  rare: {history.buys_2d: {lte: 1}}
  new: {member.age: {lt: 2d}, history.spent: {lt: 10.00}}
  young: {any: [{member.birthday: {within: 2d}}, {member.attributes.size: app}]}
"""


def challenges(trigger: str) -> st.SearchStrategy[str]:
    """Make the challenge of a rule."""
    goals = ["count: 2", "count: 1"] + (["sum: derived.net, gte: 20.00"] if trigger == "purchase" else [])
    return st.tuples(
        st.sampled_from(goals),
        st.sampled_from(["", ", within: 1d", ", within: 6h"]),
        st.sampled_from(["", ", repeat: after_completion", ", repeat: never"]),
        conditions(trigger).map(lambda test: f", where: {{{test}}}") | st.just(""),
    ).map(lambda parts: f"{{{''.join(parts)}}}")


@st.composite
def conditions(draw: st.DrawFn, trigger: str) -> str:
    """Make an entry of a condition, nested ones among them."""
    return draw(_entries(draw(st.sampled_from([_PAST, _PAST, _TOLD, *[_SIMPLE[trigger]] * 4]))))


@st.composite
def _entries(draw: st.DrawFn, simple: st.SearchStrategy[str]) -> str:
    shape = draw(st.sampled_from(["plain", "plain", "plain", "all", "any", "not"]))
    tests: list[str] = draw(st.lists(simple, min_size=1, max_size=1 if shape in ("plain", "not") else 3))
    if shape == "plain":
        return tests[0]
    tests = [f"{{{test}}}" for test in tests]
    return f"not: {tests[0]}" if shape == "not" else f"{shape}: [{', '.join(tests)}]"


_fixed = st.integers(1, 400).map(lambda n: f"points: {n}") | st.just(f"points: {{amount: {INT64_MAX}}}")
_rates = st.sampled_from(["1", "0.29", "1.5", "2", "0.000001", "1000000", "100.5"])
_rated = st.builds(
    lambda rate, per, of, rounding: f"points: {{rate: {rate}, per: {per}, of: {of}{rounding}}}",
    _rates,
    st.sampled_from(["1.00", "0.01", "7.77", "10"]),
    st.sampled_from(["purchase.amount", "purchase.tax", "purchase.units", "derived.net", "history.spent_1mo"]),
    st.sampled_from(["", ", round: floor", ", round: half_up", ", round: ceil"]),
)
_POINTS_GIVES = _fixed | st.integers(1, 40).map(lambda n: f"status: {n}")
_OTHER_GIVES = st.sampled_from(
    [
        "cash: {amount: 0.05}", "coupon: {template: t, valid: 1mo}", "coupon: t", "gift: {sku: s, quantity: 3}",
        "badge: b", "benefit: {id: vip, for: 30d}", "benefit: vip",
    ]
)  # fmt: skip
_PURCHASE_GIVES = st.one_of(
    _rated,
    _rated.map(lambda give: give.replace("points", "status")),
    st.tuples(_LINE_TESTS, st.sampled_from(["only_items", "except_items"]), st.sampled_from(["amount", "units"])).map(
        lambda t: f"points: {{rate: 3, per: 1, of: purchase.{t[2]}, {t[1]}: {{{t[0]}}}}}"
    ),
    st.sampled_from(["", ", max: 3.00", ", max_share: 2%", ", round: ceil"]).map(
        lambda rest: f"cash: {{rate: 5.5%, of: derived.net{rest}}}"
    ),
)


def gives(trigger: str, phase: str) -> st.SearchStrategy[str]:
    """Make one give of a rule."""
    choices = [_fixed, _POINTS_GIVES, _OTHER_GIVES]
    if trigger == "purchase":
        choices += [_PURCHASE_GIVES, _PURCHASE_GIVES]
    if phase != "base":
        earlier = st.sampled_from(["base"] if phase == "boost" else ["base", "boost"])
        plain = st.tuples(earlier, st.sampled_from(["1", "1.5", "3"]), st.sampled_from(["", ", round: ceil"]))
        choices.append(plain.map(lambda t: f"multiply: {{phase: {t[0]}, by: {t[1]}{t[2]}}}"))
        by = "attributes.size, by: {app: 2, NO: 1.25}, round: half_up"
        of = st.sampled_from(["event", "member"])
        choices.append(st.tuples(earlier, of).map(lambda t: f"multiply: {{phase: {t[0]}, key: {t[1]}.{by}}}"))
        choices.append(earlier.map(lambda of: f"multiply: {{phase: {of}, key: member.tier, by: {{high: 1.5}}}}"))
    return st.one_of(choices)


_EVERY = ["day", "day", "week", "month", "quarter", "year", "lifetime", "24h", "2d", "1mo"]


@st.composite
def limits(draw: st.DrawFn, trigger: str, written: list[str]) -> str:
    """Make the limits of a rule whose gives are `written`."""
    kinds = dict.fromkeys(give.split(":")[0].replace("multiply", "points") for give in written)
    field = {"purchase": "purchase.channel", "signup": "signup.channel", "share": "share.object"}.get(trigger)
    made: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 2))):
        every, by = draw(st.sampled_from(_EVERY)), draw(st.booleans()) and field
        per = f"[member, {field}]" if by else "member"
        if draw(st.integers(0, 2)) == 0:
            per, every = "campaign", draw(st.sampled_from(_EVERY[:7]))
        scope = f"per: {per}, every: {every}"

        # a number of times, or a maximum of one unit
        if draw(st.booleans()):
            made[f"times {scope}"] = f"{{times: {draw(st.integers(1, 3))}, {scope}}}"
            continue

        unit = draw(st.sampled_from(list(kinds)))
        least = 400 if unit in ("points", "status") else 4
        most = draw(st.sampled_from([least, least + 50, least + 300]))
        over = draw(st.sampled_from(["", ", over: trim", ", over: refuse"]))
        if any(str(INT64_MAX) in give for give in written):
            over = ""
        made[f"max {unit} {scope}"] = f"{{max: {most}, {scope}, unit: {unit}{over}}}"
    return ", ".join(made.values())


_PARTS = {
    "active": st.sampled_from(["{from: 2024-03-10}", "{until: 2024-03-11}", "{from: 2024-03-10T05:00:00Z}"]),
    "cohort": st.sampled_from(
        ["{salt: s1, treat: 50%}", "{salt: s3, treat: 20%}", "{salt: s2, treat: 0%}", "{salt: s2, treat: 100%}"]
    ),
    "draw": st.sampled_from(["{chance: 1/2, seed: s1}", "{chance: 30%, seed: s2}", "{chance: 1/1, seed: s2}"]),
}


@st.composite
def rules(draw: st.DrawFn, identifier: str) -> str:
    """Make one rule, in flow style."""
    trigger = draw(st.sampled_from(["purchase", "purchase", "purchase", "signup", "share", "activity"]))
    phase = draw(st.sampled_from(["base", "base", "boost", "bonus"]))
    tests = draw(
        st.lists(
            conditions(trigger),
            max_size=draw(st.sampled_from([0, 0, 1, 2])),
            unique_by=lambda test: test.split(":")[0],
        )
    )
    written = draw(st.lists(gives(trigger, phase), min_size=1, max_size=3))

    # what every rule has
    parts = [f"id: {identifier}", f"on: {trigger}", f"phase: {phase}", f"priority: {draw(st.integers(-1, 1))}"]
    parts.append(f"when: {{{', '.join(tests)}}}")
    parts.append(f"give: [{', '.join(f'{{{give}}}' for give in written)}]")

    # what some rules have
    if draw(st.booleans()):
        parts.append(f"limits: [{draw(limits(trigger, written))}]")
    parts += [f"{name}: {draw(part)}" for name, part in _PARTS.items() if draw(st.integers(0, 5)) == 0]
    if draw(st.integers(0, 4)) == 0:
        parts.append(f"challenge: {draw(challenges(trigger))}")
    if draw(st.booleans()):
        pick = draw(st.sampled_from(["best", "best", "first", "all"]))
        parts.append(f"group: {{id: {phase}-{pick}, pick: {pick}}}")
    if draw(st.booleans()):
        parts.append("campaign: spring")
    if draw(st.integers(0, 3)) == 0:
        parts.append(f"hold: {draw(st.sampled_from(['6h', '1d', '1mo']))}")
    return f"- {{{', '.join(parts)}}}"


_TIER_WINDOWS = ["lifetime", "calendar_year", "anniversary", "rolling 2d"]


@st.composite
def programme_texts(draw: st.DrawFn) -> str:
    """Make a whole programme file."""
    identifiers = draw(st.lists(st.sampled_from(["a", "b", "B", "规则", "r-10", "r-9"]), min_size=1, unique=True))
    lines = ["schema: guerdon/1", "programme: p", f"timezone: {draw(st.sampled_from(TIMEZONES))}", "currency: USD"]
    lines.append("derived: {net: purchase.amount - purchase.tender.card + purchase.tax}")
    lines.append(METRICS)
    lines.append(f"points: {{validity: {draw(st.sampled_from(['none', '12h', '3d', '1mo']))}, round_expiry: day}}")
    written = "\n".join([*lines, "rules:", *(draw(rules(identifier)) for identifier in identifiers)])
    if draw(st.booleans()):
        return re.sub(r"member[.]tier(_rank)?: ({[^}]*}|high)", "member.balance: {gte: 0}", written).replace(
            "key: member.tier, by: {high: 1.5}", "by: 1.5"
        )
    metric, window = draw(st.sampled_from(["status", "buys", "spent"])), draw(st.sampled_from(_TIER_WINDOWS))
    levels = f"[{{id: low, from: 0}}, {{id: high, from: {'2' if metric == 'buys' else '30'}, benefits: [vip]}}]"
    tiers = f"tiers: {{metric: {metric}, window: {window}, grace: 1d, levels: {levels}}}\n"
    return tiers + written + "\n- {id: risen, on: tier, when: {tier.to: high}, give: [{points: 9}, {badge: b}]}"


@st.composite
def profile_texts(draw: st.DrawFn) -> str:
    """Make a programme whose rules all read members' profiles."""
    lines = ["schema: guerdon/1", "programme: p", f"timezone: {draw(st.sampled_from(TIMEZONES))}", "currency: USD"]
    lines += ["segments: {told: {any: [{member.birthday: {within: 2d}}, {member.attributes.size: app}]}}", "rules:"]
    for number in range(draw(st.integers(1, 6))):
        trigger = draw(st.sampled_from(["purchase", "share", "signup"]))
        of_signup = [_birthdays("signup.birthday"), _words("signup.identity.email"), _words("signup.attributes.size")]
        tests = [_TOLD, _TOLD, st.just("member.segment: {contains: told}"), *(of_signup if trigger == "signup" else [])]
        entry = draw(_entries(draw(st.sampled_from(tests))))
        lines.append(f"- {{id: r{number}, on: {trigger}, when: {{{entry}}}, give: [{{points: 3}}]}}")
    lines += [
        f"- {{id: keyed-{trigger}, on: {trigger}, phase: boost,"
        " give: [{multiply: {phase: base, key: member.attributes.size, by: {app: 2, NO: 3}}}]}"
        for trigger in ("purchase", "share")
    ]
    return "\n".join(lines)


_OF_REFEREES = st.one_of(
    numbers("referral.number", st.integers(1, 3).map(str)), numbers("referral.amount", _money),
    numbers("referral.spend", _money), _words("referral.channel"), _words("referral.referee.channel"), _TIMES,
    st.sampled_from(["purchase", "[signup, activity]", "{ne: refund}"]).map(lambda test: f"referral.event: {test}"),
    st.sampled_from(["{lte: 1d}", "{gt: 6h}", "{exists: false}"]).map(lambda test: f"referral.age: {test}"),
)  # fmt: skip


@st.composite
def referral_texts(draw: st.DrawFn) -> str:
    """Make a programme with rules on what referees do, and on who referred a member."""
    lines = ["schema: guerdon/1", "programme: p", f"timezone: {draw(st.sampled_from(TIMEZONES))}", "currency: USD"]
    lines += ["referral: {claim_window: 7d}", "metrics: {buys: {count: purchase}}", "rules:"]
    for number in range(draw(st.integers(1, 5))):
        entry = draw(_entries(_OF_REFEREES | numbers("history.buys", st.integers(0, 3).map(str))))
        give = draw(_fixed | st.just("points: {rate: 3, per: 1.00, of: referral.amount}") | st.just("badge: b"))
        limit = draw(st.sampled_from(["", ", limits: [{times: 2, per: [member, referral.channel], every: week}]"]))
        hold = draw(st.sampled_from(["", ", hold: 6h"]))
        lines.append(f"- {{id: r{number}, on: referral, when: {{{entry}}}, give: [{{{give}}}]{limit}{hold}}}")
    of = draw(st.sampled_from(["m2", "{exists: true}", "{ne: m2}", "{exists: false}"]))
    lines.append(f"- {{id: own, on: purchase, when: {{member.referrer: {of}}}, give: [{{points: 5}}]}}")
    return "\n".join(lines)
