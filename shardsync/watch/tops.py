"""The directories at the tops of a Shard's prefixes: which are there, which came or went.

The Shard that owns the directory above journals the coming and going of the
name; here all that lies below a newcomer is journaled, and watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from shardsync.clock import Clock
from shardsync.journal.plan import covers
from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.gathered import Gathered
from shardsync.watch.rule import COARSE_US, Task
from shardsync.watch.scan import Scanner
from shardsync.watch.supply import WatchSupply


class Tops:
    """One watch for each prefix, 0 where it has none. `leave`: what becomes of one that went.

    `has_news`: a prefix may have come or gone, to be looked at now and not in a second.
    """

    def __init__(
        self,
        *,
        prefixes: Iterable[bytes],
        watches: WatchSupply,
        table: DirectoryTable,
        scanner: Scanner,
        gathered: Gathered,
        leave: Callable[[int], None],
        clock: Clock,
    ) -> None:
        self.has_news = False
        self._watch: dict[bytes, int] = dict.fromkeys(sorted(prefixes), 0)
        # Directories above prefixes: what they were like when all prefixes were looked at last.
        self._by_folder: dict[bytes | None, list[bytes]] | None = None
        self._seen: dict[bytes, tuple[tuple[int, int, int], list[bytes]]] = {}
        self._watches = watches
        self._table = table
        self._scanner = scanner
        self._ground = scanner.ground
        self._gathered = gathered
        self._leave = leave
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._watch)

    def __contains__(self, path: bytes) -> bool:
        return path in self._watch

    def find(self) -> None:
        """Learn the watches of all, after a scan that made them."""
        self.look_again()
        self._find(self._watch)

    def look_again(self) -> None:
        """Rely on nothing that was seen of the directories above."""
        self._seen.clear()

    def ended(self, prefix: bytes, wd: int) -> None:
        """The watch of the directory at a top ended."""
        if self._watch.get(prefix) == wd:
            self._watch[prefix] = 0
            self._seen.clear()
            self.has_news = True

    def covered(self, point: bytes) -> None:
        """Something else lies at `point` now, and at each prefix below it."""
        for prefix, top in self._watch.items():
            if top and covers(point, prefix):
                self._leave_top(prefix, top)
                self._watch[prefix] = 0
                self.has_news = True
        self._seen.clear()

    def follow(self, prefixes: Iterable[bytes]) -> None:
        """Have these from now on."""
        wanted = set(prefixes)
        for prefix in self._watch.keys() - wanted:
            self._leave_top(prefix, self._watch.pop(prefix))
        for prefix in wanted - self._watch.keys():
            self._watch[prefix] = 0
        self._by_folder = None
        self._seen.clear()

    def check(self) -> list[bytes]:
        """Prefixes that are not there now. One that came, or was replaced, is scanned whole."""
        missing = []
        self.has_news = False
        for folder, prefixes in self._folders().items():
            mark = None if folder is None else self._mark(folder)
            seen = None if folder is None else self._seen.get(folder)
            if mark is None or seen is None or seen[0] != mark:
                gone = self._check(prefixes)
                if folder is not None and mark is not None and self._all_stand(prefixes, gone):
                    self._seen[folder] = mark, gone
            else:
                gone = seen[1]
            missing += gone
        return missing

    def _folders(self) -> dict[bytes | None, list[bytes]]:
        """Prefixes by the directory above them; the root by none."""
        if self._by_folder is None:
            self._by_folder = {}
            for prefix in self._watch:
                folder = prefix.rpartition(b"/")[0] if prefix else None
                self._by_folder.setdefault(folder, []).append(prefix)
        return self._by_folder

    def _mark(self, folder: bytes) -> tuple[int, int, int] | None:
        """Changes whenever a prefix below is removed, made or replaced; None while it is young.

        One look a second instead of one for each of 100,000 prefixes.
        """
        found = self._ground.look(folder)
        if found is None or self._clock.wall_us() - found.st_ctime_ns // 1000 < COARSE_US:
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns

    def _all_stand(self, prefixes: list[bytes], missing: list[bytes]) -> bool:
        return sum(not self._watch[prefix] for prefix in prefixes) == len(missing)

    def _check(self, prefixes: list[bytes]) -> list[bytes]:
        missing = []
        self._find(prefixes)
        for prefix in prefixes:
            top = self._watch[prefix]
            found = self._ground.look(prefix)
            if found is not None and top and self._stands_for(top, prefix, found.st_ino):
                continue
            if top:
                self._leave_top(prefix, top)
                self._watch[prefix] = 0
            if found is None:
                missing.append(prefix)
            elif not self._scanner.is_open and not self._is_polled(prefix):
                self._gathered.tree(prefix)
                rule = replace(
                    self._scanner.sub_roots.rule_of_newcomers(device=found.st_dev), whole=True
                )
                self._scanner.agenda.begin(Task(TOP, 0, prefix, prefix, rule))
        return missing

    def _stands_for(self, wd: int, prefix: bytes, inode: int) -> bool:
        """Whether it is watched: one that went and came back was given up when it went."""
        return self._table.inode(wd) == inode and self._table.binding(wd) == (TOP, prefix)

    def _is_polled(self, prefix: bytes) -> bool:
        """Whether it has no watch for want of one, and is no newcomer for that."""
        found = self._scanner.found
        return prefix in found.unwatched or prefix in found.refused

    def _find(self, prefixes: Iterable[bytes]) -> None:
        for prefix in prefixes:
            top = self._watch[prefix]
            if not top or not self._table.knows(top):
                self._watch[prefix] = self._top(prefix)

    def _top(self, prefix: bytes) -> int:
        """The watch of a prefix, if it has one: adding it again tells the number."""
        wd = self._watches.of(prefix)
        return wd if self._table.binding(wd) == (TOP, prefix) else 0

    def _leave_top(self, prefix: bytes, wd: int) -> None:
        """Unless it was moved to below another prefix of this Shard, and is watched there."""
        if self._table.binding(wd) == (TOP, prefix):
            self._leave(wd)
