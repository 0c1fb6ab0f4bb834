"""Directories that came or went wait, as open work, while a Shard, or the Node, is catching up.

A rename of which two Shards saw one end each is in two Journals, each half written when its
Shard's own pass came to it, and read when the Node comes there. The half that leaves, shipped
first, would take from the Node what the other half could have been made of; the half that
comes, shipped first, would be sent whole. Let go together, they meet in one Batch
(`ship.moves`). What a Journal tells with its old name waits for nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.journal.records import Compare, Cursor, NodeKey, Work, WorkReason
from shardsync.journal.state_writer import StateWriter
from shardsync.model import Scope
from shardsync.ship.fold import Pending, Want, ancestors
from shardsync.ship.journals import TreeJournals

_LONGEST_US = 30_000_000
"""A Shard that takes longer, or never comes to its end, holds up nothing for more than that; a
million directories take one Shard some ten seconds."""
_ASK_SECONDS = 0.5
_START_SECONDS = 10.0
"""So long after our own start a Watcher may not have said yet that it catches up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halved:
    """What of a slice goes now, and the rows of what waits."""

    pending: list[Pending]
    waiting: list[Work] = field(default_factory=list)


class Halves:
    """What waits so of one Node. Used by its Syncer alone."""

    def __init__(
        self, *, key: NodeKey, journals: TreeJournals, state: StateWriter, clock: Clock
    ) -> None:
        self._key = key
        self._journals = journals
        self._state = state
        self._clock = clock
        self._began = clock.monotonic()
        self._began_us = clock.wall_us()
        self._ask_at = 0.0
        self._was_behind = False
        self._held: set[bytes] | None = None
        self._held_us = 0
        self._goal: dict[str, Cursor] = {}

    def hold(self, pending: list[Pending], *, is_cut: bool) -> Halved:
        """Take out of `pending` what may be one half, and what lies below that. Changes nothing.

        `is_cut`: more is journaled than this. Raises StateUnusable.
        """
        told = {item.moved_from for item in pending if item.moved_from}
        halves = {
            item.path: item
            for item in pending
            if (item.want & Want.LISTING or (item.wants_tree and item.path))
            and not item.moved_from
            and item.path not in told
        }
        held = self._paths()
        if not (halves or held):
            return Halved(pending=pending)
        self._was_behind = self._is_behind(is_cut=is_cut)
        if not (self._held_us or self._was_behind):
            return Halved(pending=pending)
        trees = held | {path for path, item in halves.items() if item.wants_tree}
        now, rows = [], []
        for item in pending:
            is_below = bool(trees) and any(above in trees for above in ancestors(item.path))
            if not (is_below or item.path in halves):
                now.append(item)
                continue
            rows.append(self._row(item))
            rest = item.want & ~Want.LISTING
            if rest and not (is_below or item.wants_tree):
                now.append(replace(item, want=rest))
        return Halved(pending=now, waiting=rows)

    def note(self, rows: Sequence[Work]) -> None:
        """These are in the work table now."""
        if rows:
            self._held = self._paths() | {row.path for row in rows if row.scope is Scope.TREE}
            if self._was_behind or not self._held_us:
                self._held_us = self._clock.wall_us()
                self._goal = {}

    def release(self, cursors: Mapping[str, Cursor]) -> None:
        """Let all go, once each Shard has journaled what had changed, and the Node has read that.

        Raises StateUnusable.
        """
        self._paths()
        if not self._held_us:
            return
        if not self._goal:
            if self._is_behind(is_cut=False) or self._journals.watermark_us() < self._held_us:
                self._ask_watermark()
                return
            with contextlib.suppress(StateUnusable):
                self._goal = self._journals.newest()
        if self._goal and all(
            shard in cursors and cursors[shard].position >= goal.position
            for shard, goal in self._goal.items()
        ):
            self._state.set_due(self._key, WorkReason.HALF)
            self._held, self._held_us, self._goal = set(), 0, {}

    def _paths(self) -> set[bytes]:
        """The directories that are held whole; those of an earlier process at the first call."""
        if self._held is None:
            rows = self._state.read.work_for(self._key, WorkReason.HALF)
            self._held = {row.path for row in rows if row.scope is Scope.TREE}
            self._held_us = self._clock.wall_us() if rows else 0
        return self._held

    def _is_behind(self, *, is_cut: bool) -> bool:
        """Whether a Shard may still have to tell what changed while it, or the Node, was away."""
        if len(self._journals.shard_ids()) == 1:
            return False
        if is_cut or self._journals.are_catching_up():
            return True
        is_new = self._clock.monotonic() - self._began < _START_SECONDS
        return is_new and self._journals.watermark_us() < self._began_us

    def _ask_watermark(self) -> None:
        now = self._clock.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_SECONDS
            self._journals.ask_watermark()

    def _row(self, item: Pending) -> Work:
        scope = Scope.LISTING if item.want & Want.LISTING else Scope.ENTRY
        return Work(
            path=item.path,
            scope=Scope.TREE if item.wants_tree else scope,
            compare=Compare.CONTENT,
            reason=WorkReason.HALF,
            since=item.since,
            not_before=self._clock.wall_us() + _LONGEST_US,
        )
