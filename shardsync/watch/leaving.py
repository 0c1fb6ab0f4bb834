"""What becomes of the watches of directories that leave: moved out, removed, or another Shard's.

One that was moved out is detached at once, so that nothing below it has a path any
more, and given up in one later pass with all that it took along.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardsync.watch.agenda import Agenda
from shardsync.watch.directories import DirectoryTable
from shardsync.watch.rule import Found
from shardsync.watch.sub_roots import SubRoots
from shardsync.watch.supply import WatchSupply


class Leaving:
    """`gone`: (sub-root, inode) of directories that the Journal is to remember no longer."""

    def __init__(
        self,
        *,
        watches: WatchSupply,
        table: DirectoryTable,
        agenda: Agenda,
        sub_roots: SubRoots,
        found: Found,
    ) -> None:
        self.gone: list[tuple[int, int]] = []
        self._watches = watches
        self._table = table
        self._agenda = agenda
        self._sub_roots = sub_roots
        self._found = found
        self._outside: Iterator[list[int]] | None = None

    def leave(self, wd: int) -> None:
        """It is outside from now on. Forgotten at once: at the same place it would be another."""
        self._forget_row(wd)
        self._table.detach(wd)
        self._agenda.has_moved = True

    def give_up(self, wd: int) -> None:
        """Have no watch on it any more."""
        self._watches.remove(wd)
        self.forget(wd)

    def forget(self, wd: int) -> None:
        """Its watch has ended."""
        self._forget_row(wd)
        self._table.forget(wd)
        self._agenda.has_moved = True
        self._found.suspects.discard(wd)

    def look_for_outside(self) -> None:
        """Begin to give up what was moved out of the territory, if anything was."""
        if self._table.detached and self._outside is None:
            self._outside = self._table.outside()

    @property
    def is_giving_up(self) -> bool:
        """Whether `give_up_outside` has something to do."""
        return self._outside is not None

    def give_up_outside(self) -> None:
        """Go through 4,096 directories, some ms: a million in one go would fill the queue."""
        if self._outside is None:
            return
        outside = next(self._outside, None)
        if outside is None:
            self._outside = None
        for wd in outside or ():
            self.give_up(wd)

    def _forget_row(self, wd: int) -> None:
        inode = self._table.inode(wd)
        # Inodes repeat across file systems; forgetting one too many costs a comparison later.
        self.gone += [(number, inode) for number in self._sub_roots.numbers()]
