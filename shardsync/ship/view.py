"""The Tree's root as the Nodes share it, and as one Node with its subtree sees it.

Holds what is pinned and what was last wrong with it; nothing here ships.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator

from shardsync.clock import Clock
from shardsync.ship.look import Look, Looker
from shardsync.ship.root import RootGuard, RootTrouble

_JUST_NOW_SECONDS = 0.01


class TreeRoot:
    """One Tree's guarded root. `trouble`: what the newest check found, None where all is well."""

    def __init__(self, *, guard: RootGuard, clock: Clock) -> None:
        self.guard = guard
        self.trouble: RootTrouble | None = None
        self._clock = clock
        self._checked_at = -math.inf

    @property
    def was_well_just_now(self) -> bool:
        """Whether it was checked within the last milliseconds, and nothing was wrong."""
        age = self._clock.monotonic() - self._checked_at
        return self.trouble is None and self.guard.is_pinned and age < _JUST_NOW_SECONDS

    def check(self) -> RootTrouble | None:
        """Pin the root if it is not, and check it; a root with trouble is let go.

        Letting go makes it heal: what is mounted again at the path is another
        mount, which only a new pin can reach.
        """
        self._checked_at = self._clock.monotonic()
        self.trouble = self.guard.check() if self.guard.is_pinned else self.guard.pin()
        if self.trouble is not None:
            self.guard.release()
        return self.trouble

    def glance(self) -> RootTrouble | None:
        """Check the root without taking hold of it."""
        self.trouble = self.guard.check()
        return self.trouble

    def accept(self) -> RootTrouble | None:
        """Take what stands at the path now for the root."""
        self.trouble = self.guard.accept()
        return self.trouble

    @contextlib.contextmanager
    def looking(self) -> Iterator[Looker]:
        """A Looker for the whole Tree. Raises OSError where the root is not pinned."""
        looker = self.guard.looker()
        try:
            yield looker
        finally:
            looker.close()

    def release(self) -> None:
        """Let go: a plain umount is then possible."""
        self.guard.release()


class NodeView:
    """What one Node takes of the Tree. Paths are relative to its subtree."""

    def __init__(self, *, root: TreeRoot, subtree: bytes) -> None:
        self.root = root
        self._subtree = subtree

    def check(self) -> RootTrouble | None:
        """As `TreeRoot.check`."""
        return self.root.check()

    @contextlib.contextmanager
    def looking(self) -> Iterator[Looker]:
        """A Looker for one Batch. Raises OSError where root or subtree cannot be opened."""
        descriptor = self.root.guard.open_below(self._subtree)
        looker = Looker(root_fd=descriptor)
        try:
            yield looker
        finally:
            looker.close()
            os.close(descriptor)

    def look(self, path: bytes) -> Look:
        """One look. Raises OSError."""
        with self.looking() as looker:
            return looker.look(path)

    def names(self) -> list[tuple[bytes, bool]]:
        """(name, is a directory) of all that lies directly in it. Raises OSError."""
        return [
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
            for entry in self._entries(b"")
        ]

    def folders(self, path: bytes) -> list[bytes]:
        """Names of the directories directly in `path`, in order. Raises OSError.

        Files are passed over one by one: there may be a million.
        """
        with self._scanned(path) as entries:
            return sorted(
                os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)
            )

    def count_entries(self, below: bytes = b"") -> int:
        """How many entries it, or a folder in it, has at all depths: seconds for a million."""
        count = 0
        stack = [below]
        while stack:
            folder = stack.pop()
            try:
                entries = self._entries(folder)
            except OSError:
                # It went, or may not be read: it then counts as nothing, which is the safe side.
                continue
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    name = os.fsencode(entry.name)
                    stack.append(folder + b"/" + name if folder else name)
        return count

    def is_at_least(self, path: bytes, *, entries: int, size: int) -> bool:
        """Whether a folder has so many entries, or files of so many bytes; it looks no further.

        Raises OSError where the root or the subtree cannot be opened.
        """
        stack = [path]
        with self.looking() as looker:
            while stack and entries > 0 and size > 0:
                folder = stack.pop()
                try:
                    found = self._entries(folder)
                except OSError:
                    continue
                entries -= len(found)
                # The first that are many enough end it: no more than that are looked at.
                for entry in found if entries > 0 else ():
                    name = folder + b"/" + os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(name)
                    else:
                        size -= looker.look(name).size
        return entries <= 0 or size <= 0

    def find_inodes(self, wanted: frozenset[int]) -> list[tuple[bytes, int]]:
        """(path, inode) of every entry but directories whose inode number is wanted.

        By what readdir tells, without a stat. Raises OSError where the root cannot be read;
        directories that cannot be are passed over.
        """
        found: list[tuple[bytes, int]] = []
        stack = [b""]
        while stack:
            folder = stack.pop()
            try:
                entries = self._entries(folder)
            except OSError:
                if not folder:
                    raise
                continue
            for entry in entries:
                name = os.fsencode(entry.name)
                path = folder + b"/" + name if folder else name
                if entry.is_dir(follow_symlinks=False):
                    stack.append(path)
                elif entry.inode() in wanted:
                    found.append((path, entry.inode()))
        return found

    def _entries(self, folder: bytes) -> list[os.DirEntry[str]]:
        with self._scanned(folder) as entries:
            return list(entries)

    @contextlib.contextmanager
    def _scanned(self, folder: bytes) -> Iterator[Iterator[os.DirEntry[str]]]:
        below = b"/".join(part for part in (self._subtree, folder) if part)
        descriptor = self.root.guard.open_below(below)
        try:
            # O_PATH, which a scan refuses.
            reader = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        try:
            with os.scandir(reader) as entries:
                yield entries
        finally:
            os.close(reader)
