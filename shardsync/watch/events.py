"""Folding: a buffer of inotify events becomes Changes, pending files and calls for a look.

Pure but for its collaborators: everything that asks the kernel or the disk is
behind Surroundings, so literal event tuples test it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from shardsync import inotify as kernel
from shardsync.inotify import Event
from shardsync.model import Kind
from shardsync.watch.gathered import Gathered

_CONTENT = int(Kind.CONTENT)
_ATTRIBUTES = int(Kind.ATTRIBUTES)

_RARE = (
    kernel.ISDIR | kernel.MOVED_FROM | kernel.MOVED_TO | kernel.MOVE_SELF
    | kernel.IGNORED | kernel.UNMOUNT | kernel.OVERFLOW
)  # fmt: skip

Stamp = tuple[float, int]
"""Of an event: (monotonic seconds when it was read, Unix microseconds before which it was not)."""


class Surroundings(Protocol):
    """What folding asks of the directories; the Watcher answers."""

    def path(self, wd: int) -> bytes | None:
        """Path of a watched directory, None where it has none (any more)."""
        ...

    def directory_came(self, wd: int, name: bytes, *, moved: bool, origin: bytes | None) -> None:
        """A directory `name` appeared in `wd`: made, or (`moved`) renamed from `origin`."""
        ...

    def directory_moved(self, wd: int) -> None:
        """The watched directory itself was renamed; its MOVED_TO, if any, came before."""
        ...

    def attributes_changed(self, wd: int) -> None:
        """Those of the watched directory itself; that of the one above tells, if it is watched."""
        ...

    def watch_ended(self, wd: int, *, unmounted: bool) -> None:
        """The watch is no more: its directory is gone, or was unmounted."""
        ...

    def missed_directory(self, wd: int) -> None:
        """A directory appeared in `wd` at a time when `wd` had no path."""
        ...


@dataclass(frozen=True, slots=True)
class Departure:
    """A MOVED_FROM that waits for its MOVED_TO."""

    path: bytes
    is_dir: bool
    stamp: Stamp


class Fold:
    """Folds events into `gathered`, buffer by buffer.

    `fresh`: files created or modified and not closed, since when; `opened`:
    those found open for writing (the pending module's); `created`: those made
    in the last buffers, to be looked at now; `cookies`: names touched in the
    cookie directory, in order; `unpaired`: by inotify cookie.
    """

    def __init__(
        self,
        *,
        gathered: Gathered,
        surroundings: Surroundings,
        opened: dict[bytes, tuple[float, int]],
        cookie_wd: int,
    ) -> None:
        self.gathered = gathered
        self.fresh: dict[bytes, Stamp] = {}
        self.created: list[bytes] = []
        self.cookies: list[bytes] = []
        self.unpaired: dict[int, Departure] = {}
        self.overflowed = False
        self.count = 0
        self._surroundings = surroundings
        self._opened = opened
        self._cookie_wd = cookie_wd

    def fold(self, events: Iterable[Event], stamp: Stamp) -> None:  # noqa: C901 (the hot loop: 990,000 events a second as one, a third of it in methods)
        """Take one buffer's events, read at `stamp`, in order."""
        entries = self.gathered.entries
        fresh, opened = self.fresh, self._opened
        prefixes: dict[int, bytes | None] = {self._cookie_wd: None}
        for event in events:
            wd, mask, _, name = event
            if mask & _RARE:
                self._rare(event, stamp)
                prefixes = {self._cookie_wd: None}
                continue
            try:
                prefix = prefixes[wd]
            except KeyError:
                path = self._surroundings.path(wd)
                prefix = path + b"/" if path else path
                prefixes[wd] = prefix
            if prefix is None or not name:
                if wd == self._cookie_wd:
                    self.cookies.append(name)
                continue
            path = prefix + name
            if mask & kernel.CLOSE_WRITE:
                entries[path] = _CONTENT
                fresh.pop(path, None)
                if opened:
                    opened.pop(path, None)
            elif mask & kernel.MODIFY:
                if path not in fresh and path not in opened:
                    fresh[path] = stamp
            elif mask & kernel.CREATE:
                fresh[path] = stamp
                self.created.append(path)
            elif mask & kernel.DELETE:
                entries[path] = _CONTENT
                fresh.pop(path, None)
                opened.pop(path, None)
            elif mask & kernel.ATTRIB and path not in fresh and path not in opened:
                entries.setdefault(path, _ATTRIBUTES)

    def age(self, before: float) -> None:
        """Stop waiting for the second half of moves read before monotonic `before`."""
        for cookie, departure in list(self.unpaired.items()):
            if departure.stamp[0] < before:
                del self.unpaired[cookie]

    def _rare(self, event: Event, stamp: Stamp) -> None:
        wd, mask, cookie, name = event
        if mask & kernel.OVERFLOW:
            self.overflowed = True
        elif mask & (kernel.IGNORED | kernel.UNMOUNT):
            self._surroundings.watch_ended(wd, unmounted=bool(mask & kernel.UNMOUNT))
        elif mask & kernel.MOVE_SELF:
            self._surroundings.directory_moved(wd)
        elif wd == self._cookie_wd:
            self.cookies.append(name)
        elif name:
            self._named(wd, mask, cookie, name, stamp)
        elif mask & kernel.ATTRIB:
            self._surroundings.attributes_changed(wd)

    def _named(self, wd: int, mask: int, cookie: int, name: bytes, stamp: Stamp) -> None:
        """Moves of files, and all that happens to directories."""
        path = self._path(wd, name)
        if path is None:
            if mask & kernel.ISDIR and mask & (kernel.CREATE | kernel.MOVED_TO):
                self._surroundings.missed_directory(wd)
            return
        if mask & kernel.MOVED_FROM:
            self._departed(path, mask, cookie, stamp)
        elif mask & kernel.MOVED_TO:
            self._arrived(wd, name, path, mask, cookie)
        elif mask & kernel.CREATE:
            self.gathered.entry(path, is_dir=True)
            self._surroundings.directory_came(wd, name, moved=False, origin=None)
        elif mask & kernel.DELETE:
            self.gathered.entry(path, is_dir=True)
        elif mask & kernel.ATTRIB:
            self.gathered.attributes(path, is_dir=True)

    def _departed(self, path: bytes, mask: int, cookie: int, stamp: Stamp) -> None:
        is_dir = bool(mask & kernel.ISDIR)
        self.unpaired[cookie] = Departure(path, is_dir, stamp)
        if is_dir:
            self.gathered.tree(path)
            return
        self.gathered.entry(path)
        self.fresh.pop(path, None)
        self._opened.pop(path, None)

    def _arrived(self, wd: int, name: bytes, path: bytes, mask: int, cookie: int) -> None:
        departure = self.unpaired.pop(cookie, None)
        origin = departure.path if departure else None
        if mask & kernel.ISDIR:
            self.gathered.tree(path, moved_from=origin)
            self._surroundings.directory_came(wd, name, moved=True, origin=origin)
            return
        self.gathered.entry(path, moved_from=origin)
        self.fresh.pop(path, None)
        self._opened.pop(path, None)

    def _path(self, wd: int, name: bytes) -> bytes | None:
        folder = self._surroundings.path(wd)
        if folder is None:
            return None
        return folder + b"/" + name if folder else name
