"""The runs of rsync that one Batch takes: each begun on firm ground, its outcome taken to account.

What is sent or deleted its callers decide, and hand over by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from shardsync.config.settings import SyncSettings
from shardsync.failpoints import Point, reach
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.batch import chunks
from shardsync.ship.command import Purpose
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.footing import Footing
from shardsync.ship.look import LookKind
from shardsync.ship.messages import FailureKind
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.shipping import (
    DEADLINE_SECONDS,
    Delivered,
    Failed,
    NodeTrouble,
    Shipping,
)

_FEW_DELETIONS = 5_000
_WHOLE = frozenset({Purpose.TREE, Purpose.TREE_CHECKSUM, Purpose.TREE_ANEW})


class Runs:
    """Runs of one Node's Batch, one after the other.

    `was_cut_off`: whether one since `begin` was ended before its time, and may have left
    something of ours.
    """

    def __init__(
        self,
        *,
        transport: Shipping,
        footing: Footing,
        budget: DeletionBudget,
        limits: SyncSettings,
        has_excludes: bool,
        slots: contextlib.AbstractAsyncContextManager[None],
        log: Log,
    ) -> None:
        self._transport = transport
        self._footing = footing
        self._budget = budget
        self._limits = limits
        self._has_excludes = has_excludes
        self._slots = slots
        self._log = log
        self._entries_allowed = 0
        self.was_cut_off = False

    def begin(self) -> None:
        """Forget the Batch before."""
        self._entries_allowed = 0
        self.was_cut_off = False

    def expect(self, entries: int) -> None:
        """So many entries were counted, and may go in one run."""
        self._entries_allowed = max(self._entries_allowed, entries)

    def chunks(self, paths: Iterable[bytes], sizes: Mapping[bytes, int]) -> Iterable[list[bytes]]:
        """A flat list, cut into what one run takes."""
        return chunks(
            paths, sizes, max_paths=self._limits.batch_paths, max_bytes=self._limits.batch_bytes
        )

    async def run(
        self,
        paths: Sequence[bytes],
        gone: Sequence[bytes],
        purpose: Purpose,
        delivered: Delivered,
        *,
        beside: bool = False,
        moved_entries: int = 0,
    ) -> None:
        """One run; where it does not tell which paths failed, halves of it until it does.

        `moved_entries`: so many that go with `gone` the Node has under new names. Raises
        RootLost, NodeTrouble.
        """
        async with self._slots:
            # Here, and not before the wait for a slot: a mount may have gone meanwhile.
            self._footing.check()
            reach(Point.SHIP_RUN)
            result = await self._transport.ship(
                paths,
                gone=gone,
                purpose=purpose,
                deadline_seconds=DEADLINE_SECONDS,
                # What was counted and allowed is the brake, with room for what came since; a
                # small number stays below the warm rsync's own.
                max_delete=self._brake(moved_entries),
                beside=beside,
            )
        reach(Point.SHIP_ENDED)
        self._footing.check_after_run()
        self.was_cut_off |= result.cut_off
        if result.outcome is Outcome.NOTHING:
            await self._halve(paths, gone, purpose, delivered, result, beside=beside)
            return
        delivered.shipped += len(paths)
        delivered.deleted += result.deleted
        delivered.bytes_sent += result.bytes_sent
        delivered.files += result.files
        delivered.file_bytes += result.file_bytes
        self._budget.note_deleted(max(0, result.deleted - moved_entries))
        kept = await self._kept_by_excludes(gone, result)
        for path, failure in result.failed.items():
            if path not in kept:
                delivered.failed[path] = self.failed(path, failure.reason, purpose)

    async def count(self, paths: Sequence[bytes], *, gone: Sequence[bytes]) -> int:
        """How many entries the Node would lose, those below included: a dry run tells.

        Raises NodeTrouble.
        """
        async with self._slots:
            result = await self._transport.count_deletions(
                paths, gone=gone, deadline_seconds=DEADLINE_SECONDS
            )
        if result.outcome is Outcome.NOTHING:
            raise NodeTrouble(result)
        self.expect(result.deleted)
        return result.deleted

    def failed(self, path: bytes, reason: str, purpose: Purpose) -> Failed:
        """A directory that failed inside a tree stands for all below it."""
        try:
            kind = self._footing.view.look(path).kind
        except OSError:
            # The root was let go of meanwhile: nothing is known of what is below.
            kind = LookKind.DIRECTORY
        is_whole = purpose in _WHOLE and kind is LookKind.DIRECTORY
        return Failed(reason=reason, scope=Scope.TREE if is_whole else Scope.ENTRY)

    def _brake(self, moved_entries: int) -> int | None:
        if moved_entries:
            return moved_entries + self._budget.free_entries()
        return 2 * self._entries_allowed if self._entries_allowed > _FEW_DELETIONS else None

    async def _kept_by_excludes(self, gone: Sequence[bytes], result: RunResult) -> set[bytes]:
        """Directories that are gone, and that excluded files of the Node hold: all is done there.

        Nothing else can be deleted in them, says a dry run; without excludes it is not asked.
        """
        held = {
            path
            for path, failure in result.failed.items()
            if failure.kind is FailureKind.NOT_EMPTY
        } & set(gone)
        if not held or not self._has_excludes or result.stopped_deletions:
            return set()
        left = await self.count((), gone=sorted(held))
        return set() if left else held

    async def _halve(
        self,
        paths: Sequence[bytes],
        gone: Sequence[bytes],
        purpose: Purpose,
        delivered: Delivered,
        result: RunResult,
        *,
        beside: bool,
    ) -> None:
        if result.trouble is not Trouble.UNATTRIBUTED:
            raise NodeTrouble(result)
        everything = [*paths, *gone]
        if len(everything) == 1:
            path = everything[0]
            delivered.failed[path] = self.failed(path, result.message, purpose)
            return
        self._log.warning("batch.halved", paths=len(everything), error=result.message)
        present = len(paths)
        middle = len(everything) // 2
        for part, start in ((everything[:middle], 0), (everything[middle:], middle)):
            cut = max(0, min(len(part), present - start))
            await self.run(part[:cut], part[cut:], purpose, delivered, beside=beside)
