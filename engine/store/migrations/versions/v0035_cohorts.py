"""Know the cohorts of each version, and which versions write who enters them."""

from __future__ import annotations

from alembic import op
from psycopg2.extras import Json
from sqlalchemy import text

from engine.programme.file.load import load_programme
from engine.store.migrations import view_comments
from engine.store.programmes import cohorts_document

revision = "0035"
down_revision = "0034"

TYPE = "ALTER TYPE guerdon.reward_type ADD VALUE IF NOT EXISTS 'cohort.entered' BEFORE 'contest.won'"

COHORTS = """
ALTER TABLE guerdon.programme_version
    ADD COLUMN cohorts jsonb NOT NULL DEFAULT '{}',              -- by rule: salt, and members of 10,000 in treat
    ADD COLUMN enters_cohorts boolean NOT NULL DEFAULT false;    -- whether cohort.entered is written
"""


def upgrade() -> None:
    """Present versions write no entries, so that what they have judged can be repeated byte for byte."""
    op.execute(TYPE)
    op.execute(COHORTS)

    connection = op.get_bind()
    for version, body in connection.execute(text("SELECT version, body FROM guerdon.programme_version")).fetchall():
        programme = load_programme(body, f"version {version}", was_activated=True).programme
        if programme is not None and programme.has_cohorts:
            connection.execute(
                text("UPDATE guerdon.programme_version SET cohorts = :cohorts WHERE version = :version"),
                {"cohorts": Json(cohorts_document(programme)), "version": version},
            )

    # the comments of views name the new type
    driver = connection.connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        view_comments.write_comments(cursor)
