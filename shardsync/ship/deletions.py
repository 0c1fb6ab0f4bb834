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
        self._deleted = 0
        self._had = 0
        self._stale_at = 0.0

    async def refuses(self, entries: int) -> bool:
        """Whether `spend` would raise."""
        total = self._recent() + entries
        return total > await self._allowed(total)

    async def spend(self, entries: int, *, allow: bool) -> None:
        """Ask for `entries` deletions before anything of them is sent.

        The entries that the Tree has are counted only once the floor is passed, and anew
        only when that was ten minutes ago or would refuse: a walk of a million costs seconds,
        which a Batch of each hundred temporary files must not take. Raises TooManyDeletions.
        """
        total = self._recent() + entries
        if not allow and total > await self._allowed(total):
            raise TooManyDeletions(
                f"node {self._key[1]}: {total} deletions within 10 minutes"
                f" are more than max_delete allows ({self._described()})"
            )

    def free_entries(self) -> int:
        """How many more may be deleted without anything being counted first."""
        most = self._limit.floor if self._limit.entries is None else self._limit.entries
        return max(0, most - self._recent())

    def note_deleted(self, entries: int) -> None:
        """So many entries are really gone from the Node: what counts against later Batches."""
        self._deleted += entries

    def take_deleted(self) -> int:
        """What was deleted since the last call: what the Batch's record must add.

        What was asked for and never was on the Node (temporary files) is forgotten.
        """
        deleted, self._deleted = self._deleted, 0
        return deleted

    def _recent(self) -> int:
        since = self._clock.wall_us() - WINDOW_US
        return self._state.deleted_since(self._key, since) + self._deleted

    async def _allowed(self, total: int) -> int:
        if self._limit.entries is not None:
            return self._limit.entries
        if total <= self._limit.floor:
            return self._limit.floor
        if self._clock.monotonic() >= self._stale_at or total > self._share_of(self._had):
            entries = await self._count_entries()
            self._had = entries + self._recent()
            self._stale_at = self._clock.monotonic() + WINDOW_US / 1e6
            # What is asked for is gone from the Tree already.
            return max(self._limit.floor, self._share_of(entries + total))
        return self._share_of(self._had)

    def _share_of(self, entries: int) -> int:
        return int((self._limit.share or 0.0) * entries)

    def _described(self) -> str:
        if self._limit.entries is not None:
            return f"{self._limit.entries}"
        return f"{(self._limit.share or 0.0):.0%} of the Tree, at least {self._limit.floor}"
