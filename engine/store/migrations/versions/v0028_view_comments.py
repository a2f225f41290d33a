"""Say in the database what each view, column and function means."""

from __future__ import annotations

from alembic import op

from engine.store.migrations import view_comments

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Write the comments."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        view_comments.write_comments(cursor)
