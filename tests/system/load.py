"""Make the events of a test run, say of each what must become of it, and put them into Kafka."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from engine.programme.file.load import load_programme
from engine.store import programmes
from engine.store.database import transaction
from operations.setup.initialise import OUTPUT_TOPIC, create_topics
from schemas.codec import Encoder
from schemas.events import (
    EVENT_TYPES,
    TOPIC_TYPES,
    Activity,
    Erasure,
    Event,
    Profile,
    Purchase,
    Redemption,
    Refund,
    Share,
    Signup,
    Touch,
    key_of,
)
from schemas.rejection import Reason
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

    from operations.settings import Settings

START_MS = 1_714_521_600_000  # 2024-05-01T00:00:00Z
MINUTE_MS = 60_000
TOPIC_OF = {EVENT_TYPES[name]: topic for topic, names in TOPIC_TYPES.items() for name in names}

PROGRAMME = """\
schema: guerdon/1
programme: chaos
timezone: America/New_York
currency: USD
rules:
- {id: welcome, on: signup, give: [{points: 100}], limits: [{times: 1, per: member, every: day}]}
- id: spend
  on: purchase
  give: [{points: {rate: 1, per: 1.00, of: purchase.amount, round: floor}}]
  limits: [{max: 300, per: member, every: day}]
- {id: big, on: purchase, when: {purchase.amount: {gte: 50.00}}, give: [{points: 25}]}
- {id: share, on: share, when: {share.channel: [email, link]}, give: [{points: 5}],
   limits: [{times: 3, per: member, every: day}]}
"""
"""A programme whose limits make the order of a member's events matter."""

PROGRAMME_WITHOUT_ORDER = """\
schema: guerdon/1
programme: chaos-without-order
timezone: America/New_York
currency: USD
rules:
- {id: welcome, on: signup, give: [{points: 100}]}
- {id: spend, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount, round: half_up}}]}
- {id: big, on: purchase, when: {purchase.amount: {gte: 50.00}}, give: [{points: 25}]}
- {id: share, on: share, give: [{points: 5}]}
"""
"""The same without limits: what an event gives depends on nothing but the event."""


PROGRAMME_OF_LEDGER = (
    PROGRAMME
    + """\
- {id: held, on: purchase, hold: 90m, give: [{points: {amount: 40, validity: 6h}}, {coupon: {template: T, valid: 5h}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: tiered, on: purchase, phase: boost, give: [{multiply: {phase: base, key: member.tier, by: {gold: 1.5}}}]}
- {id: risen, on: tier, when: {tier.to: gold}, give: [{points: 50}, {badge: gold}]}
points: {validity: 12h}
refunds: {window: 1d}
reserve_for: 2h
tiers:
  metric: status
  window: rolling 8h
  grace: 1h
  levels: [{id: basic, from: 0}, {id: gold, from: 150, benefits: [lounge]}]
catalogue:
- {id: mug, points: 30, kind: gift, stock: 1000000}
- {id: pay, kind: money, points_per: {10: 0.10}}
"""
)
"""The same with all that a point can go through, in hours: a load is a day or two long. The stock is never used up,
as which shard takes the last one is not in the source log."""


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one message as it is sent, and the reason code with which it must be set aside; None: it must count once."""

    topic: str
    key: bytes
    value: bytes | None
    event: Event | None = None
    reason: Reason | None = None


@dataclass(slots=True)
class Load:
    """Make a load of `members` members' events; the same seed makes the same load.

    `bad` adds what must be set aside, `late` events that happened before others of their partition, `ledger` refunds of
    orders that were made, and redemptions that are reserved, captured, voided and restored.
    """

    members: int
    seed: int = 7
    deliveries_max: int = 5
    bad: bool = True
    late: bool = True
    ledger: bool = False
    messages: list[Message] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _encoder: Encoder = field(default_factory=Encoder)
    _number: int = 0
    _at_ms: int = START_MS
    _orders: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  a test must repeat

    def fill(self, events: int) -> Load:
        """Add about `events` messages of all types, one in eight delivered more than once, one in twenty bad."""
        while len(self.messages) < events:
            member_id = f"member-{self._random.randrange(self.members)}"
            self.add(self._event(member_id))
            if self.bad and self._random.random() < 0.05:
                self._bad(member_id)
        if self.bad:
            self._leavers()
        return self

    def add(self, event: Event, *, reason: Reason | None = None, deliveries: int | None = None) -> None:
        """Add `event`, delivered as often as named, or by chance; repeats come later in the same partition."""
        if deliveries is None:
            deliveries = self._random.randint(2, self.deliveries_max) if self._random.random() < 0.12 else 1
        message = Message(TOPIC_OF[type(event)], key_of(event).encode(), self._encoder.encode(event), event, reason)
        self.messages.append(message)
        for _ in range(deliveries - 1):
            place = self._random.randint(max(0, len(self.messages) - 20), len(self.messages))
            self.messages.insert(max(place, self.messages.index(message) + 1), message)

    def raw(self, topic: str, value: bytes | None, reason: Reason | None, key: bytes = b"member-0") -> None:
        """Add bytes as they are."""
        self.messages.append(Message(topic, key, value, None, reason))

    def _event(self, member_id: str) -> Event:
        if self.ledger and self._random.random() < 0.35:
            return self._moving(member_id)
        kind = self._random.choices(
            (Purchase, Share, Signup, Profile, Refund, Activity, Redemption, Touch), (10, 3, 2, 1, 1, 1, 1, 1)
        )[0]
        fields = self._fields(member_id)
        if kind is Touch:
            del fields["member_id"]
        if kind is Purchase:
            self._orders.setdefault(member_id, []).append(f"o{self._number}")
        return kind(**fields, **self._own_fields(kind, member_id))

    def _moving(self, member_id: str) -> Event:
        """Return what moves lots: of the member's last orders and redemptions, so that most of it finds them."""
        fields, chance = self._fields(member_id), self._random
        order_id = chance.choice(self._orders.get(member_id, ["none"])[-4:])
        if chance.random() < 0.4:
            amount = chance.choice((None, chance.randrange(1, 5_000)))
            return Refund(**fields, order_id=order_id, refund_id=f"r{self._number}", amount=amount)
        what = chance.choice(({"reward": "mug"}, {"reward": "pay", "order_id": order_id}, {"amount": 20}))
        return Redemption(
            **fields,
            action=chance.choice(("reserve", "capture", "void", "spend", "restore")),
            redemption_id=f"{member_id}-{chance.randrange(self._number // 400 + 2)}",
            **what,
        )

    def _fields(self, member_id: str) -> dict[str, Any]:
        self._number += 1
        self._at_ms += self._random.randrange(1, 5 * MINUTE_MS)
        late_ms = self._random.choice((0, 0, 0, 60 * MINUTE_MS)) if self.late else 0
        return {
            "event_id": f"e{self._number}",
            "member_id": member_id,
            "occurred_at": self._at_ms - late_ms,
            "source": self._random.choice(("default", "till")),
        }

    def _own_fields(self, kind: type[Event], member_id: str) -> dict[str, Any]:
        order = {"order_id": f"o{self._number}"}
        person = {"birthday": "1990-04-01", "identity": {"email": f"hash-of-{member_id}"}}
        by_kind: dict[type[Event], dict[str, Any]] = {
            Purchase: {**order, "currency": "USD", "amount": self._random.randrange(12_000)},
            Share: {"object": "shoe", "channel": self._random.choice(("email", "link", "sms"))},
            Signup: person,
            Profile: {"attributes": {"city": "Oslo", "old": None}},
            Refund: {**order, "refund_id": f"r{self._number}"},
            Activity: {"kind": "review"},
            Redemption: {"action": "spend", "redemption_id": f"r{self._number}", "amount": 5},
            Touch: {"referral_code": f"code-of-{member_id}", "visitor": "hash"},
        }
        return by_kind[kind]

    def _bad(self, member_id: str) -> None:
        purchase = Purchase(
            **self._fields(member_id), order_id=f"o{self._number}", currency="USD", amount=self._random.randrange(9_000)
        )
        value = self._encoder.encode(purchase)
        choice = self._random.randrange(5)
        if choice == 0:
            self.raw("purchases", value[:-3], Reason.UNDECODABLE, member_id.encode())
        elif choice == 1:
            self.raw("purchases", b"\0\0\0\0\x09" + value[5:], Reason.UNKNOWN_SCHEMA, member_id.encode())
        elif choice == 2:
            self.add(_changed(purchase, currency="EUR"), reason=Reason.WRONG_CURRENCY)
        elif choice == 3:
            self.add(_changed(purchase, member_id=f"{member_id}\0"), reason=Reason.OUT_OF_RANGE)
        else:
            self.add(purchase, deliveries=1)
            self.add(_changed(purchase, amount=purchase.amount + 1), reason=Reason.ID_CONFLICT, deliveries=2)

    def _leavers(self) -> None:
        """Let a few members join, be erased, and send something after that, all in one partition."""
        for number in range(max(1, self.members // 20)):
            member_id = f"leaver-{number}"
            self.add(Signup(**self._fields(member_id), birthday="1980-12-31"), deliveries=1)
            self.add(Erasure(**self._fields(member_id)), deliveries=2)
            self.add(Profile(**self._fields(member_id), birthday="1981-01-01"), reason=Reason.MEMBER_ERASED)


def _changed(purchase: Purchase, **fields: Any) -> Purchase:
    values = {name: getattr(purchase, name) for name in purchase.__struct_fields__}
    return Purchase(**(values | fields))


def make_topics(settings: Settings, partitions: int = 4) -> None:
    """Create the topics, and wait until the broker names them all."""
    create_topics(settings, partitions)
    await_topics(settings.kafka_config(), [settings.topic_prefix + name for name in (*TOPIC_TYPES, OUTPUT_TOPIC)])


def await_topics(kafka: dict[str, Any], topics: Iterable[str]) -> None:
    """Wait until the broker names the topics: it says that they are made a moment before it knows them itself."""
    client = AdminClient({**kafka, "log_level": 0})
    eventually(lambda: client.list_topics(timeout=10).topics.keys() >= set(topics), "the broker names the topics")


def activate(database_url: str, body: str = PROGRAMME) -> int:
    """Make the programme in `body` the active one, and return its version."""
    programme = load_programme(body, "test").programme
    assert programme is not None
    with transaction(database_url) as cursor:
        return programmes.activate(cursor, programme, body, "test.yaml")


def publish(settings: Settings, messages: Iterable[Message], partitioner: str = "murmur2_random") -> int:
    """Send the messages in their order, and return how many they are; `partitioner` "random" scatters them by number.

    Scattered, the repeats of one event land in other partitions than the first.
    """
    producer = producer_of(settings, partitioner="murmur2_random" if partitioner == "random" else partitioner)
    partitions = {name: len(topic.partitions) for name, topic in _topics(producer).items()}
    scatter = random.Random(11)  # noqa: S311  a test must repeat
    sent = 0
    for message in messages:
        topic = settings.topic_prefix + message.topic
        target: dict[str, Any] = {"partition": scatter.randrange(partitions[topic])} if partitioner == "random" else {}
        producer.produce(topic, message.value, message.key, **target)
        producer.poll(0)
        sent += 1
    assert producer.flush(120) == 0
    return sent


def _topics(producer: Producer) -> dict[str, Any]:
    """Return the broker's topics; one that was started a moment ago may close the first connections."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            topics: dict[str, Any] = producer.list_topics(timeout=30).topics
        except KafkaException:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)
        else:
            return topics


def producer_of(settings: Settings, **more: Any) -> Producer:
    """Return a producer that keeps order and loses nothing."""
    return Producer(
        {**settings.kafka_config(), "enable.idempotence": True, "log_level": 0, "message.max.bytes": 20_000_000, **more}
    )
