"""Dropping from the Journal's memory, after a pass, the directories that it did not come across.

A directory that went while nobody looked may come back to the very place it
had, when the Nodes have long deleted it; remembered, it would pass for one
that never left. Works in slices, for a million directories take a second in
which the kernel's queue would fill up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat

from shardsync.watch.directories import DirectoryTable

_SLICE = 4096
_BITS = 9
_LAST = (1 << _BITS) - 1

Key = tuple[int, int]
"""(sub-root, inode) of a directory."""


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
        remembered: Callable[[Key, int], list[Key]],
        tops: Mapping[int, int],
    ) -> None:
        self._table = table
        self._tops = tops
        self._remembered = remembered
        self._slices: Iterator[list[Key]] | None = None

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

    def step(self) -> list[Key]:
        """Do one slice, about 5 ms; the keys to forget that it found."""
        if self._slices is None:
            return []
        found = next(self._slices, None)
        if found is None:
            self._slices = None
        return found or []

    def _absent(self) -> Iterator[list[Key]]:
        # A bit for each inode: 40 bytes for 512 inodes that lie close together, as on most disks.
        here: dict[int, dict[int, int]] = {number: {} for number in self._tops.values()}
        for page in self._pages(*here):
            for number, inode in page:
                bits = here.setdefault(number, {})
                bits[inode >> _BITS] = bits.get(inode >> _BITS, 0) | 1 << (inode & _LAST)
            yield []
        nothing: dict[int, int] = {}
        after = (-1, -1)
        while rows := self._remembered(after, _SLICE):
            yield [
                key
                for key in rows
                if not here.get(key[0], nothing).get(key[1] >> _BITS, 0) >> (key[1] & _LAST) & 1
            ]
            after = rows[-1]

    def _pages(self, *numbers: int) -> Iterator[Iterable[Key]]:
        if len(numbers) == 1:
            return (zip(repeat(numbers[0]), page) for page in self._table.inode_pages())
        return iter(self._table.inodes_by_top(self._tops))
