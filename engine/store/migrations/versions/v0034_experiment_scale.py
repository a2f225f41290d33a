"""Keep the scale of each experiment's always-valid interval as it was at the first look."""

from __future__ import annotations

from alembic import op

revision = "0034"
down_revision = "0033"

SCALE = """
CREATE TABLE guerdon.experiment_scale (
    scale       double precision NOT NULL CHECK (scale >= 0),  -- variance of the difference times members of both arms
    members     bigint      NOT NULL,
    known_at    timestamptz NOT NULL,             -- of the look
    recorded_at timestamptz NOT NULL DEFAULT now(),
    salt        text COLLATE "C" NOT NULL,
    metric      text COLLATE "C" NOT NULL,
    PRIMARY KEY (salt, metric)
);
SELECT guerdon.make_append_only('guerdon.experiment_scale');
GRANT SELECT, INSERT ON guerdon.experiment_scale TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the table."""
    op.execute(SCALE)
