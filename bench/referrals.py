"""Measure the cost of referrals to the live transaction: a mix of signups, shares and purchases, some to be forwarded.

One worker writes batches straight to PostgreSQL; with later batches and at the end it takes in the forwarded events.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing

from bench import load
from bench.databases import fresh, server
from engine.intake.batch import Admitted, ClockMove, admitted_from
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from schemas.codec import CommittedSchemas, Encoder
from schemas.events import Event, Purchase, Share, Signup
from schemas.partitioning import shard_of
from schemas.writer_schemas import committed_ids

EVENTS = 40_000
BATCH = 2_000
MEMBERS = 4_000
ROUNDS = 3
ONE_IN = 5
"""The first of five signups in a row has no referrer; one purchase in nine is by a member who signed up here."""

FRIEND = """\
- id: friend
  on: referral
  when: {referral.event: purchase, referral.number: {lte: 3}}
  give: [{points: 20}]
  limits: [{times: 100, per: member, every: year}]
"""
FAR_MS = 30_000_000_000_000
"""A time after everything is due."""


def main() -> None:
    """Print events per second, the median of the rounds, and the ratio to purchases alone."""
    kinds = {"purchases alone": False, "a mix with referrals": True}
    with server() as address:
        rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(ROUNDS):
            for kind, mixed in kinds.items():
                rounds[kind].append(_round(address, f"r{number}_{int(mixed)}", mixed=mixed))
        rates = {kind: statistics.median(results) for kind, results in rounds.items()}
        print(f"one worker, {EVENTS:,} events in batches of {BATCH:,}, {ROUNDS} rounds in turns:")
        for kind, rate in rates.items():
            print(f"  {kind:24s} {rate:10,.0f} events/s, {rate / rates['purchases alone']:.2f} of purchases alone")


def _round(address: str, name: str, *, mixed: bool) -> float:
    """Return events per second on a fresh database."""
    text = load.PROGRAMME.replace("rules:\n", "referral: {claim_window: 7d}\nrules:\n" + FRIEND, 1)
    url = fresh(address, name, text if mixed else load.PROGRAMME)
    batches = _batches(_mix() if mixed else list(load.purchases(EVENTS, MEMBERS)))
    with closing(LiveTransaction(url, CommittedSchemas().lookup)) as live:
        began = time.perf_counter()
        for batch in batches:
            live.commit(batch)
        # until no tick is left
        while live.commit(Batch(clock=ClockMove(0, everywhere=True, hourly=False, reached_ms=FAR_MS))).ticks:
            pass
        return EVENTS / (time.perf_counter() - began)


def _batches(events: list[Event]) -> list[Batch]:
    encoder, ids = Encoder(), committed_ids()
    admitted: list[Admitted] = []
    for event in events:
        shard = shard_of(event.member_id)  # type: ignore[attr-defined]  # all are of members
        admitted.append(admitted_from(event, shard, ids[type(event).__name__], encoder.encode(event), b"secret"))
    return [Batch(admitted[first : first + BATCH]) for first in range(0, len(admitted), BATCH)]


def _mix() -> list[Event]:
    """Return 5 % signups and 5 % shares among 90 % purchases, a ninth of them by members who signed up here."""
    events: list[Event] = []
    joined = shared = 0
    for number, event in enumerate(load.purchases(EVENTS, MEMBERS)):
        if number % 20 == 0:
            at = {"event_id": f"s{joined}", "member_id": f"new-{joined}", "occurred_at": event.occurred_at}
            # the first of five has referred the other four
            referrer_id = f"new-{joined - 1 - joined % ONE_IN}" if joined % ONE_IN and joined > ONE_IN else None
            events.append(Signup(**at, referrer_id=referrer_id))  # type: ignore[arg-type]  # each by its name
            joined += 1
        elif number % 20 == 10:
            at = {"event_id": f"h{shared}", "member_id": event.member_id, "occurred_at": event.occurred_at}
            events.append(Share(**at, object=f"o{shared}", channel="link", verified=True))  # type: ignore[arg-type]  # as above
            shared += 1
        elif number % ONE_IN == 0 and joined > ONE_IN:
            events.append(_by(event, f"new-{1 + number % (joined - 1)}"))
        else:
            events.append(event)
    return events


def _by(event: Purchase, member_id: str) -> Purchase:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return Purchase(**(fields | {"member_id": member_id}))


if __name__ == "__main__":
    main()
