"""Let the view of referrals find the outcome of each by its index again."""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"

# The index takes the first 200 characters of an item, as the item of a rejected signup may be any text (revision 0015).
# Revision 0024 asked by the whole item, which reads all changes once for each referral.
REFERRAL = """
CREATE OR REPLACE VIEW reward.referral AS
SELECT a.member_id AS referee_id, d.referrer_id, d.code, d.channel,
       CASE WHEN a.type = 'referral.rejected' THEN 'rejected'
            WHEN v.occurred_at IS NOT NULL    THEN 'voided'
            WHEN a.reason IS NOT NULL AND r.occurred_at IS NULL THEN 'flagged'
            WHEN q.occurred_at IS NOT NULL    THEN 'qualified'
            ELSE 'attributed'
       END AS status,
       coalesce(v.reason, CASE WHEN r.occurred_at IS NULL THEN a.reason END) AS reason,
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
    SELECT min(c.occurred_at) AS occurred_at, min(c.reason) AS reason FROM guerdon.referral_change c
    WHERE c.build = a.build AND left(c.item, 200) = left(a.member_id, 200) AND c.item = a.member_id
      AND c.type = 'referral.voided'
) v ON a.type = 'referral.attributed'
WHERE a.type = 'referral.rejected' OR (a.type = 'referral.attributed' AND a.reason IS DISTINCT FROM 'released');
"""


def upgrade() -> None:
    """Replace the view; its columns, comments and rights stay."""
    op.execute(REFERRAL)
