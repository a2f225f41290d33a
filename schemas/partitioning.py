"""Compute the shard of a member, which is also the Kafka partition in a topic with 64 partitions."""

from __future__ import annotations

from struct import unpack_from

SHARDS = 64
"""Fixed when the database is made; topics with 1, 2, 4 … 64 partitions keep each shard inside one partition."""

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_LAYOUTS = tuple(f"<{words}I" for words in range(51))


def murmur2(data: bytes) -> int:
    """Return the signed 32-bit murmur2 hash of `data` as Kafka's Java client computes it for its default partitioner.

    The source is `org.apache.kafka.common.utils.Utils.murmur2`; our tests use the vectors of Kafka's own tests.
    """
    length = len(data)
    words = length >> 2
    h = _SEED ^ length
    for k in unpack_from(_LAYOUTS[words] if words < 51 else f"<{words}I", data):
        k = k * _M & _MASK  # noqa: PLW2901  as the published algorithm names it
        h = h * _M & _MASK ^ (k ^ k >> 24) * _M & _MASK
    if length & 3:
        h = (h ^ int.from_bytes(data[words << 2 :], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - 0x1_0000_0000 if h & 0x8000_0000 else h


def shard_of(member_id: str) -> int:
    """Return the member's shard, 0 to 63: the partition that a murmur2 producer picks among 64."""
    return (murmur2(member_id.encode()) & 0x7FFFFFFF) % SHARDS
