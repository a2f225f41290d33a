"""Whatever is sent is accounted for: decoded, admitted, recorded, judged and projected, with no safety net beneath.

Events of every type with fields at their edges go through decoding and admission into the live transaction on
PostgreSQL, under a programme with everything in it, and into every view. Whoever sends nothing odd is judged as ever.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from engine.intake import admit
from engine.intake.batch import NO_OFFSET, Admitted, ClockMove, SetAside, admitted_from
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.members.personal import OWN_FORMAT
from operations.rows import dictionaries
from operations.simulate.from_log import simulate_log
from operations.verify.checks import verify
from operations.why.event import why_member
from projections.runner import catch_up, connect_to_project, finish
from schemas.codec import Decoder
from schemas.events import ID_CHARACTERS_MAX, TOPIC_TYPES, TYPE_NAMES, Decision, Event, key_of
from schemas.json_events import decode_json
from schemas.partitioning import shard_of
from schemas.rejection import Reason, Rejected
from schemas.scalars import iso_from_instant
from tests.chaos.conftest import FULL
from tests.operations.simulate.test_from_log import CLOCKED, VIEWS
from tests.strategies.edges import DAY_MS, MEMBERS, histories
from tests.strategies.replays import repeated, rows
from tests.system.batches import ENCODER, SCHEMAS, SECRET, admitted
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = [pytest.mark.postgres, pytest.mark.chaos]

PROGRAMME = """\
schema: guerdon/1
programme: fuzz
timezone: America/New_York
currency: USD
points: {validity: 20d, round_expiry: day}
refunds: {window: 30d, negative: unlimited}
reserve_for: 2d
referral:
  claim_window: 3d
  max_per_referrer: {times: 5, every: month}
  block: [self, same_identity, cycle]
  flag: [same_device, same_ip_and_user_agent, burst]
contests:
- {id: spenders, metric: spend, period: week, winners: 3}
- {id: recruiters, metric: referrals, period: week, winners: 1}
- {id: sharers, metric: shares, period: week, winners: 1}
- {id: earners, metric: points, period: week, winners: 1}
metrics:
  recent: {sum: purchase.amount, over: 7d}
  recent_gross: {sum: purchase.gross, over: 7d}
  spend: {sum: purchase.amount}
  pieces: {sum: purchase.units, over: 30d}
  all_pieces: {sum: purchase.units}
  score: {sum: activity.score, over: 7d}
  done: {sum: activity.quantity}
  weeks: {streak: purchase, unit: week}
  last: {last: purchase}
tiers:
  metric: status
  window: rolling 10d
  downgrade: balance_based
  grace: 1d
  levels: [{id: a, from: 0}, {id: b, from: 100, benefits: [x]}, {id: c, from: 9223372036854775807, benefits: [x, y]}]
catalogue:
- {id: mug, points: 1, kind: gift, stock: 20}
- {id: off, points: 2, kind: coupon}
- {id: pay, kind: money, points_per: {100: 1.00}}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}],
   limits: [{max: 9223372036854775807, per: member, every: 7d}]}
- {id: most, on: purchase, give: [{points: {rate: 100, per: 0.01, of: purchase.amount}}, {cash: {rate: 5%, of: purchase.amount}},
   {status: {rate: 1, per: 0.01, of: purchase.amount}}], limits: [{times: 1000000, per: member, every: month}]}
- {id: pieces, on: purchase, give: [{points: {rate: 1, per: 1, of: purchase.units}}]}
- {id: shop, on: purchase, campaign: shops, when: {purchase.store: {exists: true}}, give: [{points: 3}],
   limits: [{times: 1, per: [member, purchase.store], every: day}, {max: 5000, per: campaign, every: month}]}
- {id: brand, on: purchase, campaign: brands, when: {purchase.brand: {exists: true}}, give: [{points: 9223372036854775807}],
   limits: [{max: 9223372036854775807, per: campaign, every: week}]}
- {id: times, on: purchase, phase: boost, give: [{multiply: {phase: base, by: 100}}]}
- {id: recent, on: purchase, when: {history.recent: {gte: 1.00}, history.recent_gross: {gte: 0.00}}, give: [{badge: q}]}
- {id: spent, on: purchase, when: {history.spend: {gte: 1.00}, history.pieces: {gte: 1}, history.all_pieces: {gte: 1}}, give: [{points: 2}]}
- {id: often, on: purchase, when: {history.weeks: {gte: 1}, history.last: {exists: true}}, give: [{points: 1}]}
- {id: card, on: purchase, challenge: {count: 3, repeat: after_completion}, give: [{coupon: {template: t, valid: 5d}}]}
- {id: much, on: purchase, challenge: {sum: purchase.amount, gte: 92233720368547758.07, within: 30d, repeat: after_completion}, give: [{points: 5}]}
- {id: bulk, on: purchase, challenge: {sum: purchase.units, gte: 5, within: 30d, repeat: after_completion}, give: [{points: 5}]}
- {id: held, on: purchase, hold: 3d, give: [{points: {amount: 40, validity: 6d}}, {gift: {sku: s, quantity: 9223372036854775807}}]}
- {id: kind, on: activity, give: [{points: {rate: 1, per: 1, of: activity.quantity}}], limits: [{times: 2, per: [member, activity.kind], every: day}]}
- {id: scored, on: activity, when: {history.score: {gte: 1}, history.done: {gte: 1}}, give: [{points: 1}]}
- {id: share, on: share, give: [{points: 1}], limits: [{times: 1, per: [member, share.object], every: lifetime}]}
- {id: welcome, on: signup, give: [{points: 5}], limits: [{times: 1, per: member}]}
- {id: born, on: birthday, give: [{points: 7}]}
- {id: years, on: anniversary, give: [{points: 7}]}
- {id: friend, on: referral, when: {referral.event: purchase}, give: [{points: {rate: 1, per: 1.00, of: referral.amount}}]}
- {id: friends, on: referral, when: {referral.spend: {gte: 100.00}}, give: [{cash: {amount: 1.00}}], limits: [{times: 9, per: member}]}
- {id: risen, on: tier, when: {tier.to: b}, give: [{points: 7}, {status: 5}]}
- {id: prize, on: contest, give: [{points: 9}, {badge: winner}]}
"""  # noqa: E501  a programme has lines of its own length

LATEST_MS = START_MS + 100 * DAY_MS
EXAMPLES, EVENTS_A_BATCH = (250, 40) if FULL else (14, 30)
PACE_MS = min(3_600_000, 90 * DAY_MS // (EXAMPLES * (EVENTS_A_BATCH + 1)))
"""How far the clock moves an event: all batches lie before LATEST_MS."""
SEED = int(os.environ.get("GUERDON_FUZZ_SEED", "1"))
"""What is found with one seed is found with it again."""
LATER_THAN_ADMISSION = (Reason.ID_CONFLICT, Reason.MEMBER_ERASED)
TOPIC_OF = {kind: topic for topic, kinds in TOPIC_TYPES.items() for kind in kinds}
WITNESS = "witness"
BATCHES_OF_A_LIFE = 4


class WholePath:
    """Send events the whole way, and count what becomes of them."""

    def __init__(self, database_url: str) -> None:
        self._worker = LiveTransaction(database_url, SCHEMAS.lookup)
        self._projector = connect_to_project(database_url)
        self._decoder = Decoder(SCHEMAS, bytes_max=1_000_000)
        self.sent = 0
        self.witnessed = 0
        self.became = Counter[str]()

    def close(self) -> None:
        self._worker.close()
        self._projector.close()

    def take(self, history: list[dict[str, Any]]) -> None:
        """Take in a batch with one event of a member who sends nothing odd, let time go on, and project."""
        batch = Batch()
        for spelt in [*history, self._witness()]:
            found = self._decoded(self._renamed(spelt))
            if isinstance(found, Admitted):
                batch.admitted.append(found)
            else:
                batch.set_aside.append(found)
        self.sent += len(history) + 1
        outcome = self._worker.commit(batch)
        assert outcome.accepted + outcome.duplicate + outcome.quarantined == len(history) + 1
        self.became.update(accepted=outcome.accepted, duplicate=outcome.duplicate)
        self.became["set aside"] += outcome.quarantined
        self.move_clocks(self._now_ms())
        catch_up(self._projector)

    def _now_ms(self) -> int:
        return START_MS + self.sent * PACE_MS

    def move_clocks(self, until_ms: int) -> int:
        """Let ticks move all clocks, and forwarded events be taken in; return how many there were."""
        clock = ClockMove(until_ms, everywhere=True, hourly=False, reached_ms=until_ms)
        return self._worker.commit(Batch(clock=clock)).ticks

    def _renamed(self, spelt: dict[str, Any]) -> dict[str, Any]:
        """Return an event of another name than in earlier batches; one in ten has the same, and may be a duplicate.

        Its members are others after a few batches: some of each have asked for erasure by then.
        """
        found = dict(spelt)
        for name in ("member_id", "referrer_id"):
            if found.get(name) in MEMBERS:
                life = self.witnessed // BATCHES_OF_A_LIFE
                found[name] = f"{life}{found[name]}"[:ID_CHARACTERS_MAX]
        if len(found["event_id"]) in (36, ID_CHARACTERS_MAX) and self.witnessed % 10:
            found["event_id"] = f"{self.witnessed}{found['event_id']}"[:ID_CHARACTERS_MAX]
        return found

    def _witness(self) -> dict[str, Any]:
        self.witnessed += 1
        name = f"w{self.witnessed}"
        return {
            "type": "purchase", "event_id": name, "member_id": WITNESS, "order_id": name, "currency": "USD",
            "amount": 100, "occurred_at": iso_from_instant(self._now_ms()),
        }  # fmt: skip

    def _decoded(self, spelt: dict[str, Any]) -> Admitted | SetAside:
        """Return an event as the worker would have it: read from JSON, through Avro, and admitted or set aside."""
        line = json.dumps(spelt).encode()
        event: Event | None = None
        stage = "decode"
        try:
            event = decode_json(line)
            value, schema_id = line, OWN_FORMAT
            if not isinstance(event, Decision):
                value = ENCODER.encode(event)
                schema_id, decoded = self._decoder.decode(TOPIC_OF[TYPE_NAMES[type(event)]], value)
                assert decoded == event
            stage = "admit"
            admit.check(event, currency="USD", latest_ms=LATEST_MS)
        except Rejected as rejected:
            return SetAside(stage, rejected.reason, rejected.message, None, NO_OFFSET, NO_OFFSET, line, event)
        if isinstance(event, Decision):
            return admitted(event)
        return admitted_from(event, shard_of(key_of(event)), schema_id, value, SECRET)


@pytest.mark.timeout(3_600 if FULL else 300)
def test_whatever_is_sent_is_accounted_for_and_stops_nobody(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PROGRAMME)
    with closing(WholePath(database_url)) as path:

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @seed(SEED)
        @given(histories(EVENTS_A_BATCH))
        def take(history: list[dict[str, Any]]) -> None:
            path.take(history)

        take()
        while path.move_clocks(LATEST_MS + 40 * DAY_MS):
            pass

    with transaction(database_url) as cursor:
        cursor.execute("SELECT stage, reason, count(*) FROM guerdon.quarantine GROUP BY 1, 2")
        aside = cursor.fetchall()
        recorded = one(
            cursor, "SELECT count(*) FROM guerdon.source_event WHERE member_id = %s AND kind = 'purchase'", (WITNESS,)
        )
        rewarded = one(
            cursor,
            """
            SELECT count(*) FROM guerdon.reward_event
            WHERE member_id = %s AND rule_id = 'base' AND type = 'points.granted'
            """,
            (WITNESS,),
        )
    assert sum(path.became.values()) == path.sent
    assert sum(count for *_, count in aside) == path.became["set aside"]
    late = [(stage, reason) for stage, reason, _ in aside if stage not in ("decode", "admit")]
    assert {reason for _, reason in late} <= {str(reason) for reason in LATER_THAN_ADMISSION}
    assert path.became["accepted"] > path.sent // 2
    assert recorded == (path.witnessed,)
    assert rewarded == (path.witnessed,)

    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    result = repeated(database_url)
    assert result["shards_that_differ"] == 0
    assert rows(database_url, result["generation"]) == rows(database_url, 1)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id FROM guerdon.member_state ORDER BY seq DESC, member_id LIMIT 12")
        busiest = [member_id for (member_id,) in cursor.fetchall()]
    for member_id in busiest:
        assert all(each["log_agrees"] is not False for each in why_member(database_url, member_id, 10)), member_id
    file = tmp_path / "programme.yaml"
    file.write_text(PROGRAMME, "utf-8")
    simulated = simulate_log(database_url, file).document()
    with transaction(database_url) as cursor:
        for name, view in VIEWS.items():
            seen = dictionaries(cursor, f"SELECT * FROM guerdon.identified_{view}")
            assert told(simulated[name]) == told(seen), name


def told(found: list[dict[str, Any]]) -> list[str]:
    """Return rows as sorted text; two rows of a view may be alike, as two events of one day may."""
    return sorted(json.dumps({k: v for k, v in sorted(row.items()) if k not in CLOCKED}) for row in found)
