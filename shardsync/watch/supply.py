"""Where watches come from: the kernel, which has only so many for all programs of a user.

A Watcher that took the last one would leave none for the sync process and for
other Watchers' cookies. So from the moment that none is left (`is_exhausted`)
no new one is taken, and some are given back, until a pass tries again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from shardsync.inotify import Inotify
from shardsync.watch.directories import DirectoryTable
from shardsync.watch.ground import Ground

FREE_WATCHES = 64
"""So many are left to other programs of the user."""


class WatchSupply:
    """`add` is the kernel's own while there are watches: it stands in the hot loop."""

    def __init__(self, *, inotify: Inotify, table: DirectoryTable, ground: Ground) -> None:
        self.add: Callable[[bytes], int] = inotify.add
        self.is_exhausted = False
        self._inotify = inotify
        self._table = table
        self._ground = ground

    def renew(self) -> None:
        """Take watches again while there are any."""
        self.is_exhausted = False
        self.add = self._inotify.add

    def exhaust(self) -> None:
        """None was left: from now on only directories that have a watch get theirs."""
        self.is_exhausted = True
        self.add = self._known_only

    def remove(self, wd: int) -> None:
        """Give a watch back."""
        self._inotify.remove(wd)

    def of(self, path: bytes) -> int:
        """The watch of the directory at `path`, else 0: adding it again tells the number.

        It may stand for another path that the directory had, or has as well.
        """
        try:
            wd = self._ground.watch(path, self.add)
        except OSError:
            return 0
        if self._table.knows(wd):
            return wd
        self.remove(wd)
        return 0

    def at(self, path: bytes) -> int:
        """The watch that tells of the directory at `path` under this very path, else 0."""
        wd = self.of(path)
        return wd if wd and self._table.path(wd) == path else 0

    def _known_only(self, path: bytes) -> int:
        wd = self._inotify.add(path)
        if not self._table.knows(wd):
            self._inotify.remove(wd)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return wd
