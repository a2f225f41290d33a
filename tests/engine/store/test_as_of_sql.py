"""The SQL that reads the engine's own formats, and its calendar, agree with the engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from engine.live.batch import Batch
from engine.programme.conditions import Duration
from engine.programme.file.load import load_programme
from engine.programme.localtime import calendar_of
from engine.store import revision
from engine.store.cursor import one
from engine.store.database import migrate, transaction
from engine.store.generations import meanings
from engine.store.programmes import tiers_document
from tests.engine.store.test_ledgers import DAY_MS
from tests.engine.store.test_migrations import migrate_to
from tests.operations.member.test_member import PROGRAMME
from tests.projections.test_as_of import instant_after
from tests.projections.test_tier_as_of import programme, tiers
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres

_letters = st.characters(exclude_characters="\0", codec="utf-8")
_plain = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(_letters, max_size=300)
_values = st.recursive(
    _plain | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.integers(-9, 9_999), inner, max_size=20),
    max_leaves=40,
)
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo")
_spans = (
    st.builds(Duration, months=st.integers(1, 40))
    | st.builds(Duration, days=st.integers(1, 500))
    | st.builds(Duration, ms=st.integers(1, 10**10))
)
_many = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def cursor(database_url: str) -> Iterator[Cursor]:
    with transaction(database_url) as opened:
        yield opened


def as_json(value: Any) -> Any:
    """Return a value as SQL reads it: bytes as hex, keys as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    return value


@_many
@given(value=_values)
def test_messagepack_is_read_as_it_was_written(cursor: Cursor, value: Any) -> None:
    body = msgpack.encode(value)
    read, end, skipped = one(
        cursor,
        "SELECT u.value::text, u.at, guerdon.packed_end(%(body)s, 0) FROM guerdon.unpacked(%(body)s, 0) u",
        {"body": body},
    )
    assert json.loads(read) == as_json(value)
    assert end == skipped == len(body)


@_many
@given(items=st.lists(_values, min_size=1, max_size=20), wanted=st.sets(st.integers(0, 19), min_size=1))
def test_items_are_found_by_their_index(cursor: Cursor, items: list[Any], wanted: set[int]) -> None:
    indexes = sorted(index for index in wanted if index < len(items)) or [0]
    (read,) = one(cursor, "SELECT guerdon.packed_items(%s, %s)::text", (msgpack.encode(items), indexes))
    assert json.loads(read) == [as_json(items[index]) for index in indexes]


@_many
@given(zone=st.sampled_from(ZONES), at_ms=st.integers(946_684_800_000, 1_900_000_000_000), span=_spans)
def test_calendars_agree(cursor: Cursor, zone: str, at_ms: int, span: Duration) -> None:
    """Months are clamped, days are local, and where clocks change the first of two times counts."""
    written = json.dumps({"months": span.months, "days": span.days, "ms": span.ms})
    calendar = calendar_of(zone)
    moved = one(
        cursor,
        """
        SELECT guerdon.moved_by_span(%(at)s, %(span)s, 1, %(zone)s),
               guerdon.moved_by_span(%(at)s, %(span)s, -1, %(zone)s)
        """,
        {"at": at_ms, "span": written, "zone": zone},
    )
    assert moved == (calendar.after(at_ms, span), calendar.before(at_ms, span))


def test_a_metrics_past_is_told_as_far_as_the_log_holds_it(database_url: str) -> None:
    """The log has the changes and not the number; where a review may come, nothing can be said."""
    activate(database_url, programme("calendar", "spent"))
    commit(database_url, Batch([admitted(purchase(1, amount=20_000))]))
    known_at = instant_after(database_url)
    commit(database_url, Batch([admitted(purchase(2, amount=30_000, occurred_at=START_MS + DAY_MS))]))
    with transaction(database_url) as cursor:
        (now,) = tiers(cursor, "m1", START_MS + DAY_MS)
        (then,) = tiers(cursor, "m1", START_MS + DAY_MS, known_at)
        (next_years,) = tiers(cursor, "m1", 2_000_000_000_000, known_at)
        (lapsed,) = tiers(cursor, "m1", 2_000_000_000_000)
    assert (now["tier"], now["qualifying"], now["next_tier"]) == ("high", 50_000, None)
    assert (then["tier"], then["next_tier"]) == ("middle", "high")
    assert (then["until"], then["qualifying"], then["to_next_tier"]) == (None, None, None)
    assert next_years == dict.fromkeys(next_years) | {"member_id": "m1"}
    assert (lapsed["tier"], lapsed["qualifying"]) == ("low", 0)


def test_another_window_begins_empty_and_the_past_keeps_its_own(database_url: str) -> None:
    activate(database_url, programme("lifetime"))
    commit(database_url, Batch([admitted(purchase(1, amount=50_000))]))
    known_at = instant_after(database_url)
    activate(database_url, programme("calendar"))
    commit(database_url, Batch([admitted(purchase(2, amount=1_200, occurred_at=START_MS + DAY_MS))]))
    between = instant_after(database_url)
    commit(database_url, Batch([admitted(purchase(3, amount=100, occurred_at=START_MS + 2 * DAY_MS))]))
    with transaction(database_url) as cursor:
        view = one(cursor, "SELECT tier, qualifying FROM reward.member_tier")
        rows = [
            tiers(cursor, "m1", START_MS + day * DAY_MS, at)[0] for day, at in ((1, known_at), (1, between), (2, None))
        ]
    assert [(row["tier"], row["qualifying"]) for row in rows] == [("middle", 500), ("middle", 12), view]


def insert_versions(database_url: str) -> None:
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.programme_version (version, programme, currency, digest, tzdata, file_name, body)
            VALUES (1, 'counter', 'USD', '', '', 'p.yaml', %s), (2, 'plain', 'USD', '', '', 'p.yaml', %s)
            """,
            (PROGRAMME, PROGRAMME.partition("tiers:")[0] + "rules: []\n"),
        )


def test_versions_of_an_earlier_release_get_what_decides_their_tiers(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate_to(empty_database_url, "0010")
    with monkeypatch.context() as earlier:
        earlier.setattr(revision, "newest", lambda: "0010")
        earlier.setattr(meanings, "refuse_newer", lambda _cursor: None)  # it knew of no meanings
        insert_versions(empty_database_url)
    migrate(empty_database_url)
    loaded = load_programme(PROGRAMME, "p.yaml").programme
    assert loaded is not None
    with transaction(empty_database_url) as cursor:
        cursor.execute("SELECT tiers, timezone FROM guerdon.programme_version ORDER BY version")
        assert cursor.fetchall() == [(tiers_document(loaded), "America/New_York"), (None, "America/New_York")]
