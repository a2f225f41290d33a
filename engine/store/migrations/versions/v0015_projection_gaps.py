"""Keep what a projection could not fold, and keep texts of any length out of indexes."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0013"

GAPS = """
CREATE TABLE guerdon.projection_gap (             -- what of one source event a build does not have of one member
    build     integer  NOT NULL,
    shard     smallint NOT NULL,
    first_pos bigint   NOT NULL,
    last_pos  bigint   NOT NULL,
    seq       bigint   NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    reason    text     NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (build, shard, first_pos)
);
CREATE TABLE guerdon.projection_streak (          -- how much was set aside since something of the build was folded
    build    integer NOT NULL PRIMARY KEY,
    in_a_row integer NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.projection_gap, guerdon.projection_streak TO guerdon_writer;
"""

# Only these two name a member, and they are looked up by it; what a rejected signup asked for may be any text.
INDEX = """
DROP INDEX guerdon.referral_change_item;
CREATE INDEX referral_change_item ON guerdon.referral_change (build, left(item, 200), type)
WHERE type IN ('referral.qualified', 'referral.voided');
"""

REFERRAL = """
CREATE OR REPLACE VIEW reward.referral AS
SELECT a.member_id AS referee_id, d.referrer_id, d.code, d.channel,
       CASE WHEN a.type = 'referral.rejected' THEN 'rejected'
            WHEN v.occurred_at IS NOT NULL    THEN 'voided'
            WHEN a.reason IS NOT NULL AND r.occurred_at IS NULL THEN 'flagged'
            WHEN q.occurred_at IS NOT NULL    THEN 'qualified'
            ELSE 'attributed'
       END AS status,
       CASE WHEN r.occurred_at IS NULL THEN a.reason END AS reason,
       CASE WHEN a.type = 'referral.attributed' THEN a.occurred_at END AS attributed_at,
       q.occurred_at AS qualified_at
FROM guerdon.referral_change a
JOIN guerdon.live_build b ON b.projection = 'referral' AND b.build = a.build
LEFT JOIN guerdon.attribution d ON d.shard = a.shard AND d.seq = a.seq
LEFT JOIN LATERAL (
    SELECT min(c.occurred_at) AS occurred_at FROM guerdon.referral_change c
    WHERE c.build = a.build AND c.member_id = a.member_id AND c.type = 'referral.attributed' AND c.reason = 'released'
) r ON a.type = 'referral.attributed'
LEFT JOIN LATERAL (
    SELECT min(c.occurred_at) AS occurred_at FROM guerdon.referral_change c
    WHERE c.build = a.build AND left(c.item, 200) = left(a.member_id, 200) AND c.item = a.member_id
      AND c.type = 'referral.qualified'
) q ON a.type = 'referral.attributed'
LEFT JOIN LATERAL (
    SELECT min(c.occurred_at) AS occurred_at FROM guerdon.referral_change c
    WHERE c.build = a.build AND left(c.item, 200) = left(a.member_id, 200) AND c.item = a.member_id
      AND c.type = 'referral.voided'
) v ON a.type = 'referral.attributed'
WHERE a.type = 'referral.rejected' OR (a.type = 'referral.attributed' AND a.reason IS DISTINCT FROM 'released');
"""


def upgrade() -> None:
    """Add tables, and make an index and the views that read by it anew."""
    for part in (GAPS, INDEX, REFERRAL):
        op.execute(part)
