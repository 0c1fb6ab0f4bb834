"""A Shard's directories where something is mounted: journaled and watched anew when that changes.

A mount that shows the Tree itself again has no watches, for an inode has one, which
tells of it under its other path: it is scanned on its own, with each poll.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.gathered import Filter, Gathered
from shardsync.watch.leaving import Leaving
from shardsync.watch.rule import Task
from shardsync.watch.scan import Scanner
from shardsync.watch.supply import WatchSupply
from shardsync.watch.tops import Tops


class MountPoints:
    """`apart`: what is scanned on its own. `have_changed`: some are still to be looked at."""

    def __init__(
        self,
        *,
        watches: WatchSupply,
        table: DirectoryTable,
        scanner: Scanner,
        tops: Tops,
        leaving: Leaving,
        gathered: Gathered,
        excluded: Filter,
    ) -> None:
        self.have_changed = False
        self.apart: dict[bytes, Task] = {}
        self._watches = watches
        self._table = table
        self._scanner = scanner
        self._tops = tops
        self._leaving = leaving
        self._gathered = gathered
        self._excluded = excluded

    @property
    def doubles(self) -> frozenset[bytes]:
        """What `set_apart` was told last."""
        return self._scanner.prefixes.apart

    def set_apart(self, points: frozenset[bytes]) -> frozenset[bytes]:
        """These show the Tree again: no scan from above enters them. Returns what is new in it.

        Their inodes have one watch each, which tells of them under their other path.
        """
        before = self._scanner.prefixes.apart
        self._scanner.prefixes.set_apart(points)
        self.find_apart()
        return before ^ points

    def look_anew(self, point: bytes) -> None:
        """Something else lies at `point`, by a mount or an unmount: journal and watch it whole."""
        self._tops.covered(point)
        if not self.journal_mount(point):
            return
        folder, _, name = point.rpartition(b"/")
        above = self._scanner.ground.look(folder)
        if above is None:
            return
        wd = self._watches.at(folder)
        for old in self._table.bound_to(wd, name) if wd else ():
            self._leaving.leave(old)
        task = self.apart.get(point)
        if task is not None:
            self._scanner.agenda.begin(task)
        elif wd:
            rule = replace(
                self._scanner.sub_roots.rule_of_newcomers(device=above.st_dev), whole=True
            )
            self._scanner.agenda.begin(Task(wd, above.st_ino, name, point, rule))

    def journal_mount(self, point: bytes) -> bool:
        """Something else lies at `point` than before: all of it, if it is this Shard's."""
        if self._is_mine(point):
            self._gathered.tree(point)
            return True
        return False

    def find_apart(self) -> None:
        """Learn which of those are this Shard's, by its prefixes of now."""
        self.apart = {}
        for point in self._scanner.prefixes.apart:
            found = self._scanner.ground.look(point)
            if found is not None and self._is_mine(point):
                rule = self._scanner.sub_roots.rule_of_newcomers(device=found.st_dev)
                # A number of its own: under the file system's the inodes have their real place.
                number = -1 - zlib.crc32(point)
                rule = replace(rule, watched=False, whole=True, sub_root=number)
                self.apart[point] = Task(TOP, 0, point, point, rule)

    def _is_mine(self, path: bytes) -> bool:
        """Whether this Shard owns the directory, and it is not excluded, nor one above it."""
        if path in self._tops or not self._scanner.prefixes.owns(path):
            return False
        parts = path.split(b"/")
        above = (b"/".join(parts[:length]) for length in range(1, len(parts) + 1))
        return not any(self._excluded.excludes(directory, True) for directory in above)
