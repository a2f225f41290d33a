"""Judge a recorded log again, plainly and in memory, and compare everything that Guerdon wrote with it.

Nothing here shares code with the live transaction: it reads the tables row by row, decodes each event, walks the
programme with the interpreter, folds members with their books in memory, and adds up in dictionaries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import msgpack

from engine.evaluate import advance, fold
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import MemberState
from engine.programme.file.load import load_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.rules.occurrence import Occurrence
from engine.store.database import transaction
from engine.store.members import personal
from operations.intake import offsets
from operations.verify.checks import verify
from schemas.canonical import event_identity
from schemas.codec import CommittedSchemas, Decoder
from schemas.events import EVENT_TYPES, TOPIC_TYPES, Event, Purchase
from schemas.rewards import ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor
    from operations.settings import Settings
    from schemas.rewards import RewardEvent
    from tests.system.load import Message

TOPIC_OF = {kind: topic for topic, kinds in TOPIC_TYPES.items() for kind in kinds}
OUR_SOURCE = "guerdon"
MEMBERS_A_TICK = 1_000
Row = tuple[Any, ...]


@dataclass(slots=True)
class Judged:
    """Hold the expected outcome of a log: reward rows by shard, in order, and balances by member and unit."""

    rewards: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    accounts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    stock: dict[str, int] = field(default_factory=dict)

    def post(self, member_id: str, reward: RewardEvent) -> None:
        """Move the reward event's amount between the member's accounts."""
        posting = reward.posting
        for account, amount in ((posting.debit, -reward.amount), (posting.credit, reward.amount)):
            if account is not None:
                self.accounts[member_id, posting.unit, account] += amount

    @property
    def owners(self) -> set[tuple[str, str]]:
        """Return every member and unit with a balance."""
        return {(member_id, unit) for member_id, unit, _ in self.accounts}

    def balance(self, member_id: str, unit: str) -> tuple[int, ...]:
        """Return what the view says of a member and unit."""
        amounts = {account: self.accounts[member_id, unit, account] for account in ACCOUNTS}
        return (
            -amounts["issued"], amounts["pending"], amounts["active"], amounts["reserved"], amounts["spent"],
            amounts["expired"], amounts["reversed"], -amounts["debt"],
        )  # fmt: skip


@dataclass(slots=True)
class ShardJudge:
    """Fold one shard's source log with the interpreter."""

    shard: int
    judged: Judged
    programmes: dict[int, Interpreter]
    held_from: set[tuple[int, int]]
    states: dict[str, MemberState] = field(default_factory=dict)
    books: dict[str, MemoryBooks] = field(default_factory=dict)
    waiting: dict[str, list[tuple[Event, bytes, int]]] = field(default_factory=dict)
    version: int = 0

    def take(self, seq: int, recorded_ms: int, kind: str, member_id: str, event: Event | None, own: bytes) -> None:
        """Take the next row; `own` is what Guerdon wrote into a row of its own."""
        if kind == "activation":
            self.version = msgpack.decode(own)["version"]
        elif kind == "release":
            for earlier, identity, version in self.waiting.pop(member_id):
                self._judge(earlier, Occurrence(identity, seq, recorded_ms), version)
        elif kind == "tick":
            self._tick(seq, recorded_ms, msgpack.decode(own)["until_ms"])

        elif event is not None and member_id:
            identity = event_identity(event.source, event.event_id)
            if (self.shard, seq) in self.held_from:
                self.waiting.setdefault(member_id, [])
            if member_id in self.waiting:
                self.waiting[member_id].append((event, identity, self.version))
            else:
                self._judge(event, Occurrence(identity, seq, recorded_ms), self.version)

    def _judge(self, event: Event, occurrence: Occurrence, version: int) -> None:
        member_id: str = event.member_id  # type: ignore[attr-defined]
        state = self.states.setdefault(member_id, MemberState())
        books = self.books.setdefault(member_id, MemoryBooks(self.programmes.__getitem__, self.judged.stock))
        if isinstance(event, Purchase):
            books.record(event, version)
        rewards = fold(state, event, occurrence, self.programmes[version], books)  # type: ignore[arg-type]  # touches have no member
        self._write(member_id, event.event_id, occurrence, rewards)

    def _tick(self, seq: int, recorded_ms: int, until_ms: int) -> None:
        """Move the members that are due, the earliest first, up to `MEMBERS_A_TICK`."""
        event_id = f"tick-{self.shard}-{seq}"
        occurrence = Occurrence(event_identity(OUR_SOURCE, event_id), seq, recorded_ms)
        due = sorted(
            (state.due_ms, member_id)
            for member_id, state in self.states.items()
            if state.due_ms is not None and state.due_ms <= until_ms and member_id not in self.waiting
        )
        for _, member_id in due[:MEMBERS_A_TICK]:
            state, books = self.states[member_id], self.books[member_id]
            rewards = advance(member_id, state, occurrence, self.programmes[self.version], books, until_ms)
            self._write(member_id, event_id, occurrence, rewards)

    def _write(self, member_id: str, event_id: str, occurrence: Occurrence, rewards: Iterable[RewardEvent]) -> None:
        for reward in rewards:
            rows = self.judged.rewards[self.shard]
            rows.append(_reward_row(len(rows) + 1, member_id, event_id, occurrence, reward))
            self.judged.post(member_id, reward)


def _reward_row(pos: int, member_id: str, event_id: str, occurrence: Occurrence, reward: RewardEvent) -> Row:
    posting = reward.posting
    return (
        pos, occurrence.seq, member_id, event_id, reward.order_id,
        posting.type, posting.unit, reward.amount, posting.debit, posting.credit, posting.rule_id,
        posting.rule_version, posting.campaign, posting.reason, reward.reward_key.hex(),
        reward.occurred_at_ms, occurrence.recorded_at_ms, posting.item, reward.lot and reward.lot.hex(),
        reward.available_at_ms, reward.expires_at_ms,
    )  # fmt: skip


def judge_log(cursor: Cursor) -> Judged:
    """Return the expected outcome of the source log in the database."""
    cursor.execute("SELECT version, body FROM guerdon.programme_version")
    programmes = {}
    for version, body in cursor.fetchall():
        programme = load_programme(body, "recorded").programme
        assert programme is not None
        programmes[version] = Interpreter(programme, version)

    cursor.execute("SELECT shard, seq FROM guerdon.generation_fact WHERE kind = 'member_held' AND generation = 1")
    held_from = set(cursor.fetchall())

    judged = Judged()
    shards: dict[int, ShardJudge] = {}
    for shard, seq, recorded_ms, kind, member_id, event, own in recorded(cursor):
        if shard not in shards:
            shards[shard] = ShardJudge(shard, judged, programmes, held_from)
        shards[shard].take(seq, recorded_ms, kind, member_id, event, own)
    return judged


def recorded(cursor: Cursor) -> list[tuple[int, int, int, str, str, Event | None, bytes]]:
    """Return the source log in order, decoded; personal fields stay sealed."""
    decoder = Decoder(CommittedSchemas(), 100_000_000)
    cursor.execute(
        """
        SELECT shard, seq, guerdon.ms(recorded_at), kind::text, member_id, schema_id, payload
        FROM guerdon.source_event ORDER BY shard, seq
        """
    )

    rows: list[tuple[int, int, int, str, str, Event | None, bytes]] = []
    for shard, seq, recorded_ms, kind, member_id, schema_id, payload in cursor.fetchall():
        event = None
        if schema_id != personal.OWN_FORMAT:
            _, event = decoder.decode(TOPIC_OF[kind], bytes(payload))
        elif kind in EVENT_TYPES:
            event = personal.unseal(kind, bytes(payload), None, b"", None)
        rows.append((shard, seq, recorded_ms, kind, member_id, event, bytes(payload)))
    return rows


def assert_judged(cursor: Cursor) -> None:
    """Assert that the reward log, the balances and the stock are those that the source log leads to (I6, I7, I12)."""
    judged = judge_log(cursor)
    cursor.execute(
        """
        SELECT shard, pos, seq, member_id, event_id, order_id, type::text, unit, amount, debit::text, credit::text,
               rule_id, rule_version, campaign, reason, encode(reward_key, 'hex'),
               guerdon.ms(occurred_at), guerdon.ms(recorded_at), item, encode(lot, 'hex'),
               guerdon.ms(available_at), guerdon.ms(expires_at)
        FROM guerdon.reward_event WHERE generation = 1 ORDER BY shard, pos
        """
    )

    # every reward event, shard by shard
    written: dict[int, list[Row]] = defaultdict(list)
    for shard, *row in cursor.fetchall():
        written[shard].append(tuple(row))
    for shard in sorted({*written, *judged.rewards}):
        for ours, theirs in zip(written[shard], judged.rewards[shard], strict=False):
            assert ours == theirs, f"shard {shard}, pos {ours[0]}: the log has {ours} and the oracle {theirs}"
        assert len(written[shard]) == len(judged.rewards[shard]), (
            f"shard {shard}: reward events are missing or too many"
        )
    cursor.execute(
        """
        SELECT member_id, unit, granted, pending, active, reserved, spent, expired, reversed, debt
        FROM guerdon.identified_member_balance
        """
    )
    balances = {(member_id, unit): tuple(map(int, numbers)) for member_id, unit, *numbers in cursor.fetchall()}
    assert balances == {owner: judged.balance(*owner) for owner in judged.owners}

    cursor.execute("SELECT reward, used FROM guerdon.stock")
    assert dict(cursor.fetchall()) == judged.stock


def assert_delivered(cursor: Cursor, messages: Iterable[Message]) -> None:
    """Assert that the log has each valid message once, and quarantine each invalid one as often as it came."""
    sent = list(messages)
    wanted = {(each.event.source, each.event.event_id) for each in sent if each.event and each.reason is None}

    # the log has each wanted event once
    cursor.execute("SELECT source, event_id FROM guerdon.source_event WHERE source <> %s", (OUR_SOURCE,))
    logged = Counter(cursor.fetchall())
    assert {identity: count for identity, count in logged.items() if count > 1} == {}, "logged more than once"
    assert wanted - logged.keys() == set(), "lost"
    assert logged.keys() - wanted == set(), "never published"

    # quarantine has the others, each time they came
    cursor.execute("SELECT reason, count(*) FROM guerdon.quarantine WHERE stage <> 'evaluate' GROUP BY reason")
    assert dict(cursor.fetchall()) == dict(Counter(str(each.reason) for each in sent if each.reason is not None))

    # and the counts of the offsets add up to what was sent
    empty = sum(each.value is None and each.reason is None for each in sent)
    valid = [each for each in sent if each.event is not None and each.reason is None]
    cursor.execute("SELECT sum(accepted), sum(duplicate), sum(quarantined), sum(passed) FROM guerdon.consumer_offset")
    accepted, duplicate, quarantined, passed = map(int, cursor.fetchone() or ())
    assert accepted == len(wanted)
    assert duplicate == len(valid) - len(wanted)
    assert quarantined == len(sent) - len(valid) - empty
    assert passed >= empty


def assert_in_partition_order(cursor: Cursor) -> None:
    """Assert that the log has each member's events from one partition in that partition's order (I9)."""
    cursor.execute(
        """
        SELECT member_id, event_id FROM (
            SELECT s.member_id, s.event_id, s.offset_,
                   lag(s.offset_) OVER in_log AS before
            FROM guerdon.source_event s JOIN guerdon.topic_of_kind t USING (kind) WHERE s.partition >= 0
            WINDOW in_log AS (PARTITION BY s.shard, s.member_id, t.topic, s.partition ORDER BY s.seq)
        ) AS neighbours WHERE offset_ < before
        """
    )
    assert cursor.fetchall() == []


def assert_whole(settings: Settings, messages: Iterable[Message]) -> None:
    """Assert that everything is as if each event had come once and no process had ever died."""
    problems = [finding for finding in verify(settings.database_url) if finding["problem"]]
    assert problems == []
    with transaction(settings.database_url) as cursor:
        assert_judged(cursor)
        assert_delivered(cursor, messages)
        assert_in_partition_order(cursor)
        cursor.execute("SELECT coalesce(sum(lag), 0) FROM reward.freshness")
        assert cursor.fetchone() == (0,)
    assert [row for row in offsets.listed(settings) if row["lag"] or row["stopped"]] == []


def rewards_by_member(database_url: str) -> dict[str, list[Row]]:
    """Return each member's reward events in order, without the fields that depend on the batches they came in."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT member_id, event_id, type, unit, amount, rule_id, reason, reward_key
            FROM guerdon.identified_reward_event ORDER BY shard, pos
            """
        )
        rewards: dict[str, list[Row]] = defaultdict(list)
        for member_id, *row in cursor.fetchall():
            rewards[member_id].append(tuple(row))
        return dict(rewards)


def prefix(database_url: str) -> dict[str, dict[tuple[int, int], bytes]]:
    """Return the hash of every row of both logs by place; no fault may change it (I8)."""
    with transaction(database_url) as cursor:
        cursor.execute("SELECT shard, seq, hash FROM guerdon.source_event")
        source = {(shard, seq): bytes(row_hash) for shard, seq, row_hash in cursor.fetchall()}
        cursor.execute("SELECT shard, pos, hash FROM guerdon.reward_event WHERE generation = 1")
        reward = {(shard, pos): bytes(row_hash) for shard, pos, row_hash in cursor.fetchall()}
    return {"source": source, "reward": reward}


def assert_nowhere(database_url: str, *texts: str) -> None:
    """Assert that no row of any table has one of `texts` in plain."""
    with transaction(database_url) as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = 'guerdon'::regnamespace AND relkind = 'r'")
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT t::text FROM guerdon.{table} t")
            for (row,) in cursor.fetchall():
                for text in texts:
                    assert text not in row, f"{text} stands in {table}"
                    assert text.encode().hex() not in row, f"{text} stands in {table}"
