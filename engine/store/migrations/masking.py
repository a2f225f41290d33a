"""Let every view of schema `reward` show erased members under their pseudonyms.

A view with members is two views. `guerdon.identified_NAME` has the true ids, for Guerdon's own commands and for the
topic of reward events. `reward.NAME` is made from it here, column by column, for analysts. A migration that changes
such a view replaces the identified one and calls `mask` again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg2 import sql

from engine.store.cursor import one

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


class Other(NamedTuple):
    """Name a column that holds another member's id, in all rows or in those of one unit."""

    column: str
    unit: str | None = None


class Mask(NamedTuple):
    """Describe the personal columns of a view."""

    view: str
    member: str = "member_id"
    """The column of the member whom a row is about; analysts look members up by it."""

    has_shard: bool = False
    """Whether a column `shard` has that member's shard: then a range of one shard meets its own erased members only."""

    others: tuple[Other, ...] = ()
    emptied: tuple[str, ...] = ()
    """Columns that are empty where a member of the row is erased."""

    is_grouped: bool = False
    """Whether rows are sums over a member's: then each erased member is asked for alone, as a join meets all sums."""

    is_computed_whole: bool = False
    """Whether no row can be computed alone, as in a ranking."""


MASKS = (
    Mask("reward_event", has_shard=True, others=(Other("item", unit="referral"),)),
    Mask("member_balance"),
    Mask("member_reward", emptied=("code",)),
    Mask("member_tier"),
    Mask("tier_history"),
    Mask("referral", member="referee_id", others=(Other("referrer_id"),), emptied=("code",)),
    Mask("referrer", member="referrer_id", is_computed_whole=True),
    Mask("member_code", emptied=("code",)),
    Mask("leaderboard", is_computed_whole=True),
    Mask("member", has_shard=True, others=(Other("referrer_id"),)),
    Mask("purchase", has_shard=True),
    Mask("purchase_line", has_shard=True),
    Mask("refund", has_shard=True),
    Mask("activity", has_shard=True),
    Mask("share", has_shard=True),
    Mask("touch", member="owner_id", emptied=("code",)),
    Mask("signup", has_shard=True, others=(Other("referrer_id"),), emptied=("code",)),
    Mask("lot", has_shard=True, is_grouped=True, others=(Other("order_member_id"),)),
    Mask("lot_age", has_shard=True, is_grouped=True),
    Mask("redemption", has_shard=True, is_grouped=True),
    Mask("cohort", has_shard=True, is_grouped=True),
    Mask("member_day", has_shard=True, is_grouped=True),
)
"""Every view with members but `alert`, which leaves erased ones out; a view stands after those that it reads."""


class _Column(NamedTuple):
    """Hold a column's name and its collation, None where the type has none."""

    name: str
    collation: str | None


def mask_all(cursor: Cursor) -> None:
    """Make the identified view of each new view with members, and mask the view.

    A new view is one that the database has by now, and that has no identified view yet.
    """
    names = [each.view for each in MASKS]
    for each in MASKS:
        (is_new,) = one(
            cursor,
            "SELECT to_regclass('reward.' || %(view)s) IS NOT NULL"
            " AND to_regclass('guerdon.identified_' || %(view)s) IS NULL",
            {"view": each.view},
        )
        if is_new:
            cursor.execute("SELECT guerdon.identify_view(%s, %s)", (each.view, names))
            mask(cursor, each)


def mask(cursor: Cursor, described: Mask) -> None:
    """Make a view of schema `reward` from its identified view, with the same columns in the same order."""
    cursor.execute(
        """
        SELECT a.attname, c.collname FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = nullif(a.attcollation, 0)
        WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """,
        (f"guerdon.identified_{described.view}",),
    )
    columns = [_Column(*row) for row in cursor.fetchall()]
    body = _joined(described, columns) if described.is_computed_whole else _in_two_parts(described, columns)
    view = sql.Identifier("reward", described.view)
    cursor.execute(sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(view, body))


def _in_two_parts(described: Mask, columns: list[_Column]) -> sql.Composable:
    """Return the rows of members who are not erased, with their ids as they are, and then those of erased members.

    So a question for one member finds the id in the index of the table, and the pseudonym in that of pseudonyms. A
    pseudonym put in place of the id in a single query would be compared row by row.
    """
    of_erased = "JOIN {identified} n ON n.{member} = e.member_id {in_shard}"
    if described.is_grouped:  # OFFSET keeps the planner from making a join of it
        of_erased = (
            "CROSS JOIN LATERAL (SELECT * FROM {identified} n WHERE n.{member} = e.member_id {in_shard} OFFSET 0) n"
        )
    return sql.SQL(
        f"""
        SELECT {{present}} FROM {{identified}} n {{others}}
        WHERE NOT EXISTS (SELECT FROM guerdon.pseudonym e WHERE e.member_id = n.{{member}} {{in_shard}})
        UNION ALL
        SELECT {{erased}} FROM guerdon.pseudonym e {of_erased} {{others}}
        """
    ).format(
        present=_listed(described, columns, member=sql.SQL("n.{}").format(sql.Identifier(described.member))),
        erased=_listed(described, columns, member=sql.SQL("e.pseudonym"), is_erased=True),
        identified=sql.Identifier("guerdon", f"identified_{described.view}"),
        others=_others(described),
        member=sql.Identifier(described.member),
        in_shard=sql.SQL("AND e.shard = n.shard" if described.has_shard else ""),
    )


def _joined(described: Mask, columns: list[_Column]) -> sql.Composable:
    """Return all rows, each with its pseudonym if it has one: what is computed whole is not computed twice."""
    as_pseudonym = sql.SQL("coalesce(e.pseudonym, n.{})").format(sql.Identifier(described.member))
    return sql.SQL("SELECT {} FROM {} n LEFT JOIN guerdon.pseudonym e ON e.member_id = n.{} {}").format(
        _listed(described, columns, member=as_pseudonym),
        sql.Identifier("guerdon", f"identified_{described.view}"),
        sql.Identifier(described.member),
        _others(described),
    )


def _others(described: Mask) -> sql.Composable:
    """Return the joins that find the pseudonyms of other members in a row."""
    joins = []
    for number, other in enumerate(described.others):
        only = sql.SQL("" if other.unit is None else "AND n.unit = {}").format(sql.Literal(other.unit))
        joins.append(
            sql.SQL("LEFT JOIN guerdon.pseudonym {name} ON {name}.member_id = n.{column} {only}").format(
                name=_other(number), column=sql.Identifier(other.column), only=only
            )
        )
    return sql.SQL(" ").join(joins)


def _listed(
    described: Mask, columns: list[_Column], *, member: sql.Composable, is_erased: bool = False
) -> sql.Composable:
    """Return the expression of each column, under its name and in its collation."""
    numbers = {other.column: number for number, other in enumerate(described.others)}
    nobody_else = sql.SQL(" AND ").join(
        [sql.SQL("{}.member_id IS NULL").format(_other(number)) for number in numbers.values()] or [sql.SQL("true")]
    )

    listed = []
    for column in columns:
        name = sql.Identifier(column.name)
        value: sql.Composable = sql.SQL("n.{}").format(name)
        if column.name == described.member:
            value = member
        elif column.name in numbers:
            value = sql.SQL("coalesce({}.pseudonym, n.{})").format(_other(numbers[column.name]), name)
        elif column.name in described.emptied:
            value = sql.SQL("CASE WHEN {} THEN n.{} END").format(sql.SQL("false") if is_erased else nobody_else, name)
        if column.collation is not None:
            value = sql.SQL("{} COLLATE {}").format(value, sql.Identifier(column.collation))
        listed.append(sql.SQL("{} AS {}").format(value, name))
    return sql.SQL(", ").join(listed)


def _other(number: int) -> sql.Identifier:
    return sql.Identifier(f"o{number}")
