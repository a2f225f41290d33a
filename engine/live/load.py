"""Load what a batch concerns: heads, members, programme versions, books, profiles and keys."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.live import concerned, own_work, ticks
from engine.store import digest_secret, quarantine
from engine.store.campaigns.budgets import StoredBudgets
from engine.store.members import ledgers, member_states, personal, profiles
from engine.store.members.books import StoredBooks
from engine.store.members.member_states import MemberCache
from engine.store.programmes import load_judge
from engine.store.referrals.attribution import Referrals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.live.work import Work
    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Cursor
    from engine.store.members.personal import Owner


class Loader:
    """Load one batch after the other, and remember between them what stays true.

    Attributes:
        judges: the judges of the versions that were needed so far.
    """

    def __init__(self) -> None:
        self.judges: dict[int, CompiledJudge] = {}
        self._cache = MemberCache()
        self._digest_secret: bytes | None = None

    def load(self, cursor: Cursor, work: Work) -> None:
        """Put everything that the batch concerns into `work`, locked where it will change."""
        # lock the heads, and take in ticks and events forwarded by other shards
        work.heads = ticks.lock_heads_of(cursor, work.batch, work.generation)
        own_work.take_ticks_and_forwards(cursor, work)

        # read the members, but for those whom the cache has
        for shard, head in work.heads.items():
            head.record_at(max(head.recorded_ms, work.recorded_ms))
            work.members[shard] = self._cache.of_shard(shard, (work.generation, head.seq))
        _load_members(cursor, work, concerned.own(work) + concerned.senders(work))

        # take in signups that waited for a referrer, with their members
        work.referrals = Referrals(cursor, self._secret(cursor), work.members)
        own_work.take_waiting(cursor, work)
        _load_members(cursor, work, concerned.own(work))

        # compile the versions in force
        versions = {head.version for head in work.heads.values()}
        self._load_judges(cursor, versions)
        work.judges = self.judges

        # read the referrers that signups name, and the members who may get forwarded events
        programmes = [self.judges[version].programme for version in versions]
        work.referrals.prepare(work.batch.admitted, work.waited or [], programmes)
        work.referrers = concerned.referrers(work)
        _load_members(cursor, work, work.referrers)

        # open the books, with the ledgers of members whose lots will move; lock the stock that may be taken
        budgets = StoredBudgets(cursor, work.locked_budgets)
        work.books = StoredBooks(cursor, work.generation, partial(self.judge, cursor), budgets)
        ledgers.open_ledgers(cursor, concerned.movers(work).values())
        work.books.lock_stock(concerned.stocked(work))

        # open the profiles that change or that a rule reads, and fetch the keys that seal them
        owners = {(event.shard, event.member_id) for event in work.batch.admitted if personal.is_personal(event.event)}
        readers = sorted(owners | concerned.readers(work))
        profiles.open_profiles(cursor, [work.members[shard][member_id] for shard, member_id in readers])
        owners |= {owner for record in work.set_aside if (owner := quarantine.personal_owner(record)) is not None}
        work.keys = personal.keys_for(cursor, owners)

    def judge(self, cursor: Cursor, version: int) -> CompiledJudge:
        """Return the judge of an activated version."""
        judge = self.judges.get(version)
        if judge is None:
            judge = self.judges[version] = load_judge(cursor, version)
        return judge

    def keep_members(self, work: Work) -> None:
        """Let the cache keep the members as `work` has changed them, now that this is committed."""
        self._cache.keep({shard: (work.generation, head.seq) for shard, head in work.heads.items()})
        for member in work.touched.values():
            member.stored = True

    def forget_members(self) -> None:
        """Read all members again: those in memory may not be what is stored."""
        self._cache.forget()

    def _load_judges(self, cursor: Cursor, versions: set[int]) -> None:
        if max(versions, default=0) > max(self.judges, default=0):
            self.judges.clear()  # versions activated later may have metrics that earlier versions count from now on
        for version in sorted(versions):
            self.judge(cursor, version)

    def _secret(self, cursor: Cursor) -> bytes:
        if self._digest_secret is None:
            self._digest_secret = digest_secret.read(cursor)
        return self._digest_secret


def _load_members(cursor: Cursor, work: Work, owners: Iterable[Owner]) -> None:
    """Read members, but for those who are in the cache or were read before."""
    missing = {owner for owner in owners if owner[1] not in work.members[owner[0]]}
    for member in member_states.load(cursor, sorted(missing)):
        work.members[member.shard][member.member_id] = member
