"""The shard of a member is the partition that Kafka's own default partitioner picks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.partitioning import SHARDS, murmur2, shard_of

# org.apache.kafka.common.utils.UtilsTest.testMurmur2
PUBLISHED = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("data", PUBLISHED)
def test_murmur2_equals_the_vectors_of_kafkas_own_tests(data: bytes) -> None:
    assert murmur2(data) == PUBLISHED[data]


def _murmur2_as_published(data: bytes) -> int:
    """Follow org.apache.kafka.common.utils.Utils.murmur2 line by line."""
    mask, m, h = 0xFFFFFFFF, 0x5BD1E995, 0x9747B28C ^ len(data)
    for at in range(0, len(data) - len(data) % 4, 4):
        k = data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24
        k = k * m & mask
        k ^= k >> 24
        k = k * m & mask
        h = h * m & mask
        h ^= k

    tail = data[len(data) - len(data) % 4 :]
    if len(tail) == 3:
        h ^= tail[2] << 16
    if len(tail) >= 2:
        h ^= tail[1] << 8
    if len(tail) >= 1:
        h = (h ^ tail[0]) * m & mask

    h ^= h >> 13
    h = h * m & mask
    h ^= h >> 15
    return h - 2**32 if h >= 2**31 else h


@given(st.binary(max_size=900))
def test_murmur2_equals_the_published_algorithm_at_any_length(data: bytes) -> None:
    assert murmur2(data) == _murmur2_as_published(data)


@pytest.mark.parametrize("partitions", [1, 2, 4, 8, 16, 32, 64])
@given(member_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_shard_lies_inside_one_partition_wherever_their_number_divides_64(partitions: int, member_id: str) -> None:
    partition = (murmur2(member_id.encode()) & 0x7FFFFFFF) % partitions
    assert shard_of(member_id) % partitions == partition


def test_many_members_reach_every_shard_about_evenly() -> None:
    members = [0] * SHARDS
    for number in range(64_000):
        members[shard_of(f"member-{number}")] += 1
    assert 800 < min(members) <= max(members) < 1_200
