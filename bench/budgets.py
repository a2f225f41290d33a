"""Measure the cost of a campaign's budget to the live transaction: without one, far from its end, and used up.

Workers write batches straight to PostgreSQL, each with shards of its own, so that they share only the budget.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ProcessPoolExecutor

from bench import load
from bench.databases import Share, fresh, server, write_share

EVENTS = 40_000
BATCH = 2_000
MEMBERS = 4_000
WORKERS = (1, 2)
ROUNDS = 3
OWN = "limits: [{max: 500, per: member, every: day}]"
KINDS = {
    "no budget": None,
    "a budget with enough left": "{max: 1000000000, per: campaign, every: year}",
    "a budget that ends half-way": "{max: %d, per: campaign}",
    "a budget that is used up": "{times: 1, per: campaign}",
}


def main() -> None:
    """Print events per second and CPU time of the workers per event, the median of the rounds."""
    with server() as address:
        for workers in WORKERS:
            print(f"\n{workers} workers, {EVENTS:,} events in batches of {BATCH:,}, {ROUNDS} rounds in turns:")
            rounds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
            for number in range(ROUNDS):
                for kind, results in rounds.items():
                    results.append(_round(address, f"b{workers}_{number}_{len(kind)}", kind, workers))
            for kind, results in rounds.items():
                rate, cpu = (statistics.median(values) for values in zip(*results, strict=True))
                print(f"  {kind:30s} {rate:10,.0f} events/s {cpu:8.1f} µs of the workers' CPU per event")


def _round(address: str, name: str, kind: str, workers: int) -> tuple[float, float]:
    """Return events per second and CPU µs per event of a fresh database."""
    url = fresh(address, name, _programme(kind))
    with ProcessPoolExecutor(workers) as pool:
        spent = list(pool.map(_work, [url] * workers, range(workers), [workers] * workers))
    return EVENTS / max(wall for wall, _ in spent), sum(cpu for _, cpu in spent) / EVENTS * 1e6


def _programme(kind: str) -> str:
    limit = KINDS[kind]
    if limit is None:
        return load.PROGRAMME
    limit = limit % _half() if "%" in limit else limit
    return load.PROGRAMME.replace(OWN, OWN.replace("]", f", {limit}]"))


def _half() -> int:
    """Return half of the points that the rule would give for all events."""
    return sum(event.amount // 100 for event in load.purchases(EVENTS, MEMBERS)) // 2


def _work(url: str, number: int, workers: int) -> tuple[float, float]:
    return write_share(url, Share(number, workers), load.purchases(EVENTS, MEMBERS), BATCH)


if __name__ == "__main__":
    main()
