"""Make programmes in today's language, as text, and histories of events that their rules can meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas.events import INT64_MAX, MemberEvent, Purchase, Share, Signup

TIMEZONES = ["UTC", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe"]
WORDS = ["app", "NO", "010", "会员"]
ATTRIBUTES = ["colour", "size"]
# 2024-03-09 to 2024-03-12 UTC: New York changes its clocks on the 10th.
FIRST_MS = 1_709_942_400_000
DAY_MS = 86_400_000

_texts = st.sampled_from(WORDS).map(lambda word: f'"{word}"')
_cents = st.integers(0, 4_000)
_money = _cents.map(lambda cents: f"{cents // 100}.{cents % 100:02}")
_bound_pairs = st.tuples(_cents, _cents).map(lambda pair: (min(pair), max(pair)))


def _text_test(path: str) -> st.SearchStrategy[str]:
    listed = st.lists(_texts, min_size=1, max_size=6, unique=True).map(", ".join)
    return st.one_of(_texts.map(lambda t: f"{path}: {t}"), listed.map(lambda t: f"{path}: [{t}]"))


def _money_test(path: str) -> st.SearchStrategy[str]:
    def both(pair: tuple[int, int]) -> str:
        return f"{path}: {{gte: {pair[0] // 100}.{pair[0] % 100:02}, lte: {pair[1] // 100}.{pair[1] % 100:02}}}"

    one = st.tuples(st.sampled_from(["gt", "gte", "lte", "eq"]), _money)
    return st.one_of(
        one.map(lambda test: f"{path}: {{{test[0]}: {test[1]}}}"),
        _money.map(lambda amount: f"{path}: {amount}"),
        _bound_pairs.map(both),
    )


_ATTRIBUTE_TESTS = st.sampled_from(ATTRIBUTES).flatmap(lambda name: _text_test(f"event.attributes.{name}"))
_CONDITIONS: dict[str, st.SearchStrategy[str]] = {
    "purchase": st.one_of(
        _money_test("purchase.tax"), _text_test("purchase.channel"), _money_test("purchase.amount"), _ATTRIBUTE_TESTS
    ),
    "signup": st.one_of(_text_test("signup.channel"), _ATTRIBUTE_TESTS),
    "share": st.one_of(
        _text_test("share.object"), st.sampled_from(["true", "false"]).map(lambda t: f"share.verified: {t}")
    ),
}
_fixed = st.integers(1, 400).map(lambda n: f"points: {n}") | st.just(f"points: {{amount: {INT64_MAX}}}")
_rates = st.sampled_from(["1", "0.29", "1.5", "2", "0.000001", "1000000", "100.5"])
_rated = st.builds(
    lambda rate, per, of, rounding: f"points: {{rate: {rate}, per: {per}, of: purchase.{of}{rounding}}}",
    _rates,
    st.sampled_from(["1.00", "0.01", "7.77", "10"]),
    st.sampled_from(["amount", "tax"]),
    st.sampled_from(["", ", round: floor", ", round: half_up", ", round: ceil"]),
)
_LIMITS = st.lists(
    st.one_of(
        st.tuples(
            st.just("max"), st.sampled_from([400, 450, 700]), st.sampled_from(["", ", over: trim", ", over: refuse"])
        ),
        st.tuples(st.just("times"), st.integers(1, 3), st.sampled_from(["", ", over: refuse"])),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda limit: limit[0],
).map(lambda limits: ", ".join(f"{{{kind}: {n}, per: member, every: day{over}}}" for kind, n, over in limits))


@st.composite
def rules(draw: st.DrawFn, identifier: str) -> str:
    """Make one rule, in flow style."""
    trigger = draw(st.sampled_from(["purchase", "purchase", "signup", "share"]))
    conditions = draw(
        st.lists(
            _CONDITIONS[trigger],
            max_size=draw(st.sampled_from([0, 0, 1, 2])),
            unique_by=lambda test: test.split(":")[0],
        )
    )
    gives = draw(st.lists(_rated | _fixed if trigger == "purchase" else _fixed, min_size=1, max_size=3))
    limits = draw(_LIMITS)
    parts = [f"id: {identifier}", f"on: {trigger}", f"priority: {draw(st.integers(-1, 1))}"]
    parts.append(f"when: {{{', '.join(conditions)}}}")
    parts.append(f"give: [{', '.join(f'{{{give}}}' for give in gives)}]")
    if draw(st.booleans()) and not ("refuse" in limits and any(str(INT64_MAX) in give for give in gives)):
        parts.append(f"limits: [{limits}]")
    if draw(st.booleans()):
        parts.append("campaign: spring")
    return f"- {{{', '.join(parts)}}}"


@st.composite
def programme_texts(draw: st.DrawFn) -> str:
    """Make a whole programme file."""
    identifiers = draw(st.lists(st.sampled_from(["a", "b", "B", "规则", "r-10", "r-9"]), min_size=1, unique=True))
    lines = ["schema: guerdon/1", "programme: p", f"timezone: {draw(st.sampled_from(TIMEZONES))}", "currency: USD"]
    return "\n".join([*lines, "rules:", *(draw(rules(identifier)) for identifier in identifiers)])


_amounts = st.sampled_from([0, 99, 150, 2_500, INT64_MAX]) | st.integers(0, 4_000) | st.integers(0, INT64_MAX)
_words = st.sampled_from(WORDS)
_head: dict[str, Any] = {
    "event_id": st.uuids().map(str),
    "member_id": st.sampled_from(["m1", "m1", "会员"]),
    "occurred_at": st.integers(FIRST_MS, FIRST_MS + 2 * DAY_MS) | st.integers(FIRST_MS, FIRST_MS + 12 * DAY_MS),
    "attributes": st.none() | st.dictionaries(st.sampled_from(ATTRIBUTES), _words),
}
member_events: st.SearchStrategy[MemberEvent] = st.one_of(
    st.builds(
        Purchase,
        **_head,
        order_id=st.uuids().map(str),
        currency=st.just("USD"),
        amount=_amounts,
        tax=st.none() | _amounts,
        channel=st.none() | _words,
    ),
    st.builds(Signup, **_head, channel=st.none() | _words),
    st.builds(Share, **_head, object=st.sampled_from(WORDS[:4]), channel=_words, verified=st.none() | st.booleans()),
)
histories = st.lists(member_events, min_size=1, max_size=16)
