"""Guerdon does all of its work on the oldest PostgreSQL that it names, and refuses an older one in a sentence."""

from __future__ import annotations

import re
import threading
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest

from engine.store.database import migrate, transaction
from engine.store.session.connect import OLDEST, refuse_version
from operations.replay.run import Request, replay
from operations.verify.checks import verify
from projections.runner import finish
from schemas.errors import InputError
from tests.places import ROOT
from tests.services import clusters
from tests.strategies.replays import WITH_EVERYTHING, events, work
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.clusters import Cluster

ROOMS = ("engine", "projections", "operations", "consumers", "bench")


@pytest.fixture(scope="module")
def oldest() -> Iterator[Cluster]:
    with clusters.cluster() as server:
        yield server


@pytest.mark.postgres
def test_the_oldest_version_does_everything_for_an_owner_who_is_no_superuser(oldest: Cluster) -> None:
    oldest.execute("CREATE ROLE keeper LOGIN CREATEROLE PASSWORD 'keeper'")
    oldest.execute("CREATE DATABASE rewards OWNER keeper")
    url = oldest.url("rewards", "keeper")

    assert migrate(url) == migrate(url)
    activate(url, WITH_EVERYTHING)
    work(url, events(150))
    finish(url, threading.Event())
    assert [finding for finding in verify(url) if finding["problem"]] == []

    repeated = replay(url, Request(cores=1))
    assert (repeated["shards_that_differ"], repeated["members_held"]) == (0, [])
    with transaction(url) as cursor:
        cursor.execute(
            "SELECT current_setting('server_version_num')::integer / 10000, count(*) FROM reward.reward_event"
        )
        version, rewards = cursor.fetchall()[0]
        cursor.execute("SELECT count(*) FROM reward.balance_as_of('member-1', now())")
        assert cursor.fetchall() != [(0,)]
    assert (version, rewards > 50) == (OLDEST, True)


def test_no_subquery_lacks_the_name_that_only_later_versions_do_without() -> None:
    nameless = []
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in {".py", ".sql"}):
        text = path.read_text(encoding="utf-8")
        for subquery in re.finditer(r"(?:FROM|JOIN|LATERAL)\s*\(\s*(?:SELECT|VALUES|WITH)\b", text):
            begin = text.index("(", subquery.start())
            depths = accumulate((letter == "(") - (letter == ")") for letter in text[begin:])
            end = begin + next(at for at, depth in enumerate(depths) if depth == 0)
            if not re.match(r"\s*(?:AS\s+)?[a-z_]\w*", text[end + 1 :]):
                nameless.append(f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, begin) + 1}")
    assert nameless == []


def test_an_older_version_is_refused_with_the_way_out() -> None:
    refuse_version(150_000)
    with pytest.raises(InputError, match=r"this PostgreSQL is 14\.11, and Guerdon needs 15 or later .*: upgrade"):
        refuse_version(140_011)
