"""What the Journal remembers of directories, as a scan asks for it; and what must be forgotten.

A directory without a watch can go when one poll looks and be back at its old
place when the next one does. The Nodes have deleted it by then, so it must not
count as one that merely changed: after each pass that found news without
watches, what is no longer where it was is forgotten.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Protocol

from shardsync.journal.writer import DirectoryRow


class Remembered(Protocol):
    """The Journal's memory."""

    def directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """(inode of the parent, name) of a directory as last seen."""
        ...

    def elders_directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """The same as the Shards remember it from which this one takes over."""
        ...

    def every_directory(self) -> Iterable[DirectoryRow]:
        """All that is remembered."""
        ...


class Recollection:
    """A Scanner's Memory that notes, 8 bytes each, which directories it was asked for."""

    def __init__(self, *, memory: Remembered) -> None:
        self._memory = memory
        self._asked = array("Q")

    def directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        self._asked.append(inode)
        return self._memory.directory(sub_root, inode)

    def elders_directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        return self._memory.elders_directory(sub_root, inode)

    def begin(self) -> None:
        """A pass begins."""
        self._asked = array("Q")

    def take_gone(
        self, look: Callable[[bytes], os.stat_result | None]
    ) -> list[tuple[DirectoryRow, bytes]]:
        """What lay in a directory asked for in this pass, and lies elsewhere; with its path then.

        One pass over all that is remembered; a look at each child of those directories.
        """
        asked = array("Q", sorted(set(self._asked)))
        self.begin()
        gone: list[tuple[DirectoryRow, bytes]] = []
        if not asked:
            return gone
        for row in self._memory.every_directory():
            place = bisect_left(asked, row[2])
            if place < len(asked) and asked[place] == row[2]:
                path = self.path(row)
                found = look(path) if path is not None else None
                if found is None or found.st_ino != row[1]:
                    gone.append((row, path or b""))
        return gone

    def path(self, row: DirectoryRow) -> bytes | None:
        """Where a directory was last seen, None where that is not known to its end."""
        sub_root, _, inode, name = row
        parts = [name]
        seen: set[int] = set()
        while inode and inode not in seen:
            seen.add(inode)
            above = self._memory.directory(sub_root, inode)
            if above is None:
                return None
            inode, name = above
            parts.append(name)
        parts.reverse()
        return b"/".join(part for part in parts if part)
