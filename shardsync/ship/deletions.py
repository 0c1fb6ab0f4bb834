"""`max_delete`: how many entries one Node may lose within ten minutes, counted before it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shardsync.clock import Clock
from shardsync.config.settings import DeleteLimit
from shardsync.errors import NodesFailed
from shardsync.journal.records import NodeKey
from shardsync.journal.state_reader import StateReader

WINDOW_US = 600_000_000


class TooManyDeletions(NodesFailed):
    """A Batch would delete more than `max_delete` allows: the Node is halted, nothing is sent."""

    hint = (
        "look whether the Tree is what it should be, then `shardsync resume NODE --allow-delete`"
    )


class DeletionBudget:
    """Counts deletions of one Node against its limit."""

    def __init__(
        self,
        *,
        key: NodeKey,
        limit: DeleteLimit,
        state: StateReader,
        count_entries: Callable[[], Awaitable[int]],
        clock: Clock,
    ) -> None:
        self._key = key
        self._limit = limit
        self._state = state
        self._count_entries = count_entries
        self._clock = clock
        self._spent = 0

    async def spend(self, entries: int, *, allow: bool) -> None:
        """Ask for `entries` deletions before anything of them is sent.

        The entries that the Tree has are counted only once the floor is passed:
        a walk of a million costs seconds. Raises TooManyDeletions.
        """
        recent = self._state.deleted_since(self._key, self._clock.wall_us() - WINDOW_US)
        total = recent + self._spent + entries
        if not allow and total > await self._allowed(total):
            raise TooManyDeletions(
                f"node {self._key[1]}: {total} deletions within 10 minutes"
                f" are more than max_delete allows ({self._described()})"
            )
        self._spent += entries

    def take_spent(self) -> int:
        """Entries asked for since the last call: what the Batch's record must add."""
        spent, self._spent = self._spent, 0
        return spent

    async def _allowed(self, total: int) -> int:
        if self._limit.entries is not None:
            return self._limit.entries
        if total <= self._limit.floor:
            return self._limit.floor
        before = await self._count_entries() + total
        return max(self._limit.floor, int((self._limit.share or 0.0) * before))

    def _described(self) -> str:
        if self._limit.entries is not None:
            return f"{self._limit.entries}"
        return f"{(self._limit.share or 0.0):.0%} of the Tree, at least {self._limit.floor}"
