"""Keep the scale of each experiment's always-valid interval: it is chosen at the first look, once and for good.

The interval holds at every look because its parameter does not follow from what comes later. So the scale is stored
for a salt and its metric, and not for a generation: the live one may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store.database import transaction

if TYPE_CHECKING:
    from collections.abc import Mapping


def keep(database_url: str, document: Mapping[str, Any]) -> None:
    """Store the scale of every experiment that a report looked at for the first time; one that is stored stays.

    Args:
        database_url: of the database.
        document: of the report `experiments`.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    rows = {
        (row["salt"], row["metric"]): row["always_valid"]
        for row in document["data"].values()
        if row["always_valid"] is not None and row["always_valid"]["is_first_look"]
    }
    if not rows:
        return
    with transaction(database_url) as cursor:
        for (salt, metric), interval in rows.items():
            cursor.execute(
                """
                INSERT INTO guerdon.experiment_scale (salt, metric, scale, members, known_at)
                VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
                """,
                (salt, metric, interval["scale"], interval["members"], document["known_at"]),
            )
