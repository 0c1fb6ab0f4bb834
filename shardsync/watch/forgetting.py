"""Dropping from the Journal's memory, after a pass, the directories that it did not come across.

A directory that went while nobody looked may come back to the very place it
had, when the Nodes have long deleted it; remembered, it would pass for one
that never left. And where it was, another may be made by now, which must not
inherit what the Nodes still have of it, so its going is journaled as `tree`.
Works in slices, for a million directories take a second in
which the kernel's queue would fill up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat

from shardsync.journal.writer import DirectoryRow
from shardsync.watch.directories import DirectoryTable

_SLICE = 4096
_BITS = 9
_LAST = (1 << _BITS) - 1

_Key = tuple[int, int]
"""(sub-root, inode) of a directory."""

Gone = tuple[DirectoryRow, bool]
"""A directory that is to be forgotten, and whether the one that it lay in is still there."""


class Forgetting:
    """Call `begin` after a pass, then `step` until it is not `is_open`.

    `remembered(after, limit)`: keys in order. `tops`: watch -> sub-root, of the
    topmost directories of each, for inodes repeat across file systems. What is
    made meanwhile may be forgotten with the rest, which costs one comparison
    some day; what the pass did not find never stays.
    """

    def __init__(
        self,
        *,
        table: DirectoryTable,
        remembered: Callable[[_Key, int], list[DirectoryRow]],
        tops: Mapping[int, int],
    ) -> None:
        self._table = table
        self._tops = tops
        self._remembered = remembered
        self._slices: Iterator[list[Gone]] | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is left to do."""
        return self._slices is not None

    def begin(self) -> None:
        """Begin, anew where it was under way."""
        self._slices = self._absent()

    def abandon(self) -> None:
        """Another pass begins: it will tell better."""
        self._slices = None

    def step(self) -> list[Gone]:
        """Do one slice, about 5 ms; what it found."""
        if self._slices is None:
            return []
        found = next(self._slices, None)
        if found is None:
            self._slices = None
        return found or []

    def _absent(self) -> Iterator[list[Gone]]:
        # A bit for each inode: 40 bytes for 512 inodes that lie close together, as on most disks.
        here: dict[int, dict[int, int]] = {number: {} for number in self._tops.values()}
        for page in self._pages(*here):
            for number, inode in page:
                bits = here.setdefault(number, {})
                bits[inode >> _BITS] = bits.get(inode >> _BITS, 0) | 1 << (inode & _LAST)
            yield []
        after = (-1, -1)
        while rows := self._remembered(after, _SLICE):
            yield [
                (row, not row[2] or _is_among(here, row[0], row[2]))
                for row in rows
                if not _is_among(here, row[0], row[1])
            ]
            after = rows[-1][:2]

    def _pages(self, *numbers: int) -> Iterator[Iterable[_Key]]:
        if len(numbers) == 1:
            return (zip(repeat(numbers[0]), page) for page in self._table.inode_pages())
        return iter(self._table.inodes_by_top(self._tops))


def _is_among(here: dict[int, dict[int, int]], number: int, inode: int) -> bool:
    bits = here.get(number)
    return bits is not None and bool(bits.get(inode >> _BITS, 0) >> (inode & _LAST) & 1)
