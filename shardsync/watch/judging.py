"""What a directory's own inode tells a scan: that it is new, came from elsewhere, changed, or not.

The Journal remembers where each directory was last seen. One that is there still
and changed gained or lost an entry; any other is journaled whole.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Protocol

from shardsync.clock import Clock
from shardsync.journal.writer import DirectoryRow
from shardsync.watch.directories import TOP
from shardsync.watch.gathered import Gathered
from shardsync.watch.ground import Ground
from shardsync.watch.rule import COARSE_US, Found, Rule, Task
from shardsync.watch.sub_roots import SubRoots

_LISTINGS_HELD = 50_000
"""Paths of directories that a pass holds back, some 10 MB; what is beyond is told at once."""


class Memory(Protocol):
    """What the Journal remembers of directories."""

    def directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """(inode of the parent, name) of a directory as last seen."""
        ...

    def elders_directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """The same as the Shards remember it from which this one takes over."""
        ...


class Judge:
    """Journals directories that a scan comes to, and says by which Rule it goes on below.

    `known`: what is journaled already, path -> up to which ctime.
    """

    def __init__(
        self,
        *,
        ground: Ground,
        memory: Memory,
        sub_roots: SubRoots,
        gathered: Gathered,
        found: Found,
        clock: Clock,
    ) -> None:
        self.known: dict[bytes, int] = {}
        self._known_parents: dict[bytes, int] = {}
        self._listings: dict[bytes, None] = {}
        self._ground = ground
        self._memory = memory
        self._sub_roots = sub_roots
        self._gathered = gathered
        self._found = found
        self._clock = clock

    def recall(self, known: dict[bytes, int]) -> None:
        """What is journaled already: path -> up to which ctime. For the catch-up."""
        self.known = known
        parents: dict[bytes, int] = {}
        self._known_parents = parents
        for path, observed in known.items():
            folder = path.rpartition(b"/")[0]
            if parents.get(folder, 0) < observed:
                parents[folder] = observed

    def judge(self, task: Task, rule: Rule, found: os.stat_result) -> Rule:
        """Journal the directory itself where it changed; returns the rule for what is below."""
        changed = found.st_ctime_ns // 1000
        row = (rule.sub_root, found.st_ino, task.parent_inode, task.name)
        if rule.unknown:
            self._found.directories.append(row)
            if changed >= rule.since_us and not rule.everything:
                self._gather_unknown(task, row)
            return rule
        if changed < rule.since_us or self._is_explained(task.path, changed, rule):
            return rule
        self._found.has_news = True
        before = self._memory.directory(rule.sub_root, found.st_ino)
        if before == row[2:]:
            self._hold_listing(task.path)
            return rule
        self._found.directories.append(row)
        origin = self._origin(rule.sub_root, before) if before else None
        self._gathered.tree(task.path, moved_from=origin)
        if origin:  # where another one may be by now, and the Nodes have what this one was
            self._gathered.tree(origin)
        # The Syncer looks at all of it after now; only what changes from now on is our business.
        since = max(rule.since_us, self._just_now_us())
        return replace(rule, unknown=True, since_us=since) if before is None else rule

    def mounted(self, path: bytes, rule: Rule, found: os.stat_result) -> Rule:
        """Another device: inodes below belong to a file system of their own."""
        rule = self._sub_roots.fit(rule, found.st_dev)
        if rule.unknown or self._memory.directory(rule.sub_root, found.st_ino) is not None:
            return rule
        self._gathered.tree(path)  # mounted, or replaced, while nobody looked
        return replace(rule, unknown=True)

    def moved_in(self, task: Task, rule: Rule) -> Rule:
        """It was moved here, and no event will tell: all of it counts as changed."""
        self._gathered.tree(task.path)
        return replace(rule, everything=False, whole=True, since_us=self._just_now_us())

    def admit(self, task: Task, rule: Rule, found: os.stat_result) -> Rule:
        """It could not be entered before: all of it counts as changed, and as never seen."""
        self._gathered.tree(task.path)
        row = (rule.sub_root, found.st_ino, task.parent_inode, task.name)
        self._found.directories.append(row)
        return replace(rule, was_refused=False, unknown=True, since_us=self._just_now_us())

    def refuse(self, path: bytes) -> None:
        """Should it be entered by another process than this, it is to look new to that one."""
        found = self._ground.look(path)
        if found is not None:
            key = (self._sub_roots.number(found.st_dev), found.st_ino)
            if self._memory.directory(*key) is not None:
                self._found.forgotten.append(key)

    def tell_listings(self) -> None:
        """Journal the directories that gained or lost an entry, behind all that came."""
        for path in self._listings:
            self._gathered.listing(path)
            self._gathered.attributes(path, is_dir=True)
        self._listings.clear()

    def _hold_listing(self, path: bytes) -> None:
        """It gained or lost an entry, which may be a directory that the scan has yet to come to.

        Told of before that, the Nodes would lose it under its old name, and be sent it under the
        new one.
        """
        if len(self._listings) >= _LISTINGS_HELD:
            self.tell_listings()
        self._listings[path] = None

    def _gather_unknown(self, task: Task, row: DirectoryRow) -> None:
        """A changed directory that only the Shard which had it before can know."""
        before = self._memory.elders_directory(row[0], row[1])
        if before is not None and before in {row[2:], (0, task.path), self._place(task)}:
            self._hold_listing(task.path)
        else:
            self._gathered.tree(task.path)

    def _place(self, task: Task) -> tuple[int, bytes] | None:
        """Of a prefix, as the Shard saw it that had the directory above too."""
        if task.parent != TOP:
            return None
        folder, _, name = task.path.rpartition(b"/")
        found = self._ground.look(folder)
        return None if found is None else (found.st_ino, name)

    def _is_explained(self, path: bytes, changed: int, rule: Rule) -> bool:
        """After a clean stop all events before it were journaled, so one of them is why."""
        if changed >= rule.explained_until_us:
            return False
        return max(self.known.get(path, 0), self._known_parents.get(path, 0)) >= changed

    def _origin(self, sub_root: int, row: tuple[int, bytes]) -> bytes | None:
        """The path that a directory had, from what is remembered of its parents: a hint."""
        parts: list[bytes] = []
        seen: set[int] = set()
        parent, name = row
        while parent and parent not in seen:
            parts.append(name)
            seen.add(parent)
            above = self._memory.directory(sub_root, parent)
            if above is None:
                return None
            parent, name = above
        if name:
            parts.append(name)
        parts.reverse()
        return b"/".join(parts)

    def _just_now_us(self) -> int:
        return self._clock.wall_us() - COARSE_US
