"""Show erased members to analysts under pseudonyms only, in every view and in the questions as of then."""

from __future__ import annotations

from alembic import op

from engine.store.members import pseudonyms
from engine.store.migrations import masking, view_comments
from engine.store.migrations.sql_files import functions_in

revision = "0033"
down_revision = "0032"

TABLE = """
CREATE TABLE guerdon.pseudonym (                  -- under which name views show an erased member
    member_id text COLLATE "C" NOT NULL PRIMARY KEY,
    pseudonym text COLLATE "C" NOT NULL UNIQUE,
    shard     smallint NOT NULL
);
CREATE INDEX pseudonym_shard ON guerdon.pseudonym (shard);
GRANT SELECT, INSERT ON guerdon.pseudonym TO guerdon_writer;
"""


def upgrade() -> None:
    """Give all members who are erased by now their pseudonyms, and mask the views and functions."""
    op.execute(TABLE)
    op.execute(functions_in("v0033_identify_view"))
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        pseudonyms.give_all(cursor)
        masking.mask_all(cursor)
    op.execute(functions_in("v0033_as_of"))
    with driver.cursor() as cursor:
        view_comments.write_comments(cursor)
