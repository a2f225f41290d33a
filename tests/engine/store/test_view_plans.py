"""A view over many referrals reads each change a few times, and not all of them for each referral."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from psycopg2 import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

REFERRALS = 2_000


def rows_read(plan: dict[str, Any]) -> Iterator[int]:
    """Yield how many rows each scan of a plan has read."""
    if "Scan" in plan["Node Type"]:
        yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for child in plan.get("Plans", ()):
        yield from rows_read(child)


@pytest.mark.parametrize("view", ["referral", "referrer"])
def test_what_is_read_grows_with_the_referrals_and_no_faster(view: str, database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.referral_change (build, shard, pos, seq, type, member_id, item, occurred_at, day)
            SELECT b.build, n %% 64, 2 * n + t.nth, n, t.type, t.member_id, t.item, now(), current_date
            FROM guerdon.live_build b, generate_series(1, %(referrals)s) AS n, LATERAL (VALUES
                (0, 'referral.attributed', 'referee' || n, 'referrer' || n %% 50),
                (1, 'referral.qualified', 'referrer' || n %% 50, 'referee' || n)
            ) AS t (nth, type, member_id, item)
            WHERE b.projection = 'referral'
            """,
            {"referrals": REFERRALS},
        )
        cursor.execute(
            """
            INSERT INTO guerdon.attribution (shard, seq, referee_id, referrer_id, status, occurred_at)
            SELECT n %% 64, n, 'referee' || n, 'referrer' || n %% 50, 'attributed', now()
            FROM generate_series(1, %(referrals)s) AS n
            """,
            {"referrals": REFERRALS},
        )
        cursor.execute("ANALYZE guerdon.referral_change, guerdon.attribution")
        asked = sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM {}")
        cursor.execute(asked.format(sql.Identifier("reward", view)))
        ((plan,),) = cursor.fetchone() or ()
        assert sum(rows_read(plan["Plan"])) < 20 * REFERRALS
