"""What a path holds now, seen through the pinned root and never through a symlink. An adapter.

Every deletion rests on it: only ENOENT, seen here without any cache, means missing;
whatever else goes wrong is UNREADABLE and deletes nothing.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from shardsync.beneath import FOUND, open_beneath

_KEPT_DIRECTORIES = 128
_KEPT_ABSENT = 10_000


class LookKind(enum.Enum):
    """What is there."""

    MISSING = "missing"
    """ENOENT, while its directory is there."""
    MISSING_ANCESTOR = "missing_ancestor"
    """`ancestor` is the shallowest directory above it that is missing."""
    NOT_DIRECTORY_ANCESTOR = "not_directory_ancestor"
    """`ancestor` is the shallowest above it that is a file, a symlink or the like."""
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    UNREADABLE = "unreadable"
    """Nothing is known: `error` is the errno (EIO, EACCES, ESTALE, ENAMETOOLONG...)."""


GONE = frozenset({LookKind.MISSING, LookKind.MISSING_ANCESTOR})
"""Only this deletes."""
NOWHERE = GONE | {LookKind.NOT_DIRECTORY_ANCESTOR}
"""The Tree has nothing at such a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at one path. Figures are 0 where there is nothing to have them."""

    kind: LookKind
    ancestor: bytes = b""
    error: int = 0
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0
    links: int = 0


class OpenDirectory(Protocol):
    """Opens the directory `path` below the descriptor `root`, through no symlink."""

    def __call__(self, root: int, path: bytes) -> int: ...


class Looker:
    """Looks for one Batch; keeps the directories it went through open, a bounded number.

    Make one per Batch and `close()` it: a directory renamed meanwhile is still seen where it
    was, so what is called missing is looked at once more along the whole path.
    Not for several threads.
    """

    def __init__(self, *, root_fd: int, open_directory: OpenDirectory | None = None) -> None:
        self._root_fd = root_fd
        self._open_directory = open_directory or open_beneath
        self._directories: OrderedDict[bytes, int] = OrderedDict()
        self._absent: dict[bytes, LookKind] = {}

    def look(self, path: bytes) -> Look:
        """What `path` holds. Raises ValueError for a path that is not relative and clean."""
        if path and not is_clean(path):
            raise ValueError(f"not a clean relative path: {path!r}")
        folder, _, name = path.rpartition(b"/")
        absent = self._known_absent(folder)
        if absent is not None:
            return absent
        try:
            status = self._status(folder, name)
        except FileNotFoundError:
            return self._look_uncached(path)
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                return self._look_uncached(path)
            return _unreadable(error)
        return seen(status)

    def close(self) -> None:
        """Let go of all directories. Idempotent."""
        while self._directories:
            os.close(self._directories.popitem()[1])
        self._absent.clear()

    def _status(self, folder: bytes, name: bytes) -> os.stat_result:
        if not name:
            return os.fstat(self._root_fd)
        return os.stat(name, dir_fd=self._directory(folder), follow_symlinks=False)

    def _directory(self, folder: bytes) -> int:
        if not folder:
            return self._root_fd
        descriptor = self._directories.get(folder)
        if descriptor is None:
            descriptor = self._open_directory(self._root_fd, folder)
            if len(self._directories) >= _KEPT_DIRECTORIES:
                os.close(self._directories.popitem(last=False)[1])
            self._directories[folder] = descriptor
        else:
            self._directories.move_to_end(folder)
        return descriptor

    def _look_uncached(self, path: bytes) -> Look:
        """Descend name by name from the root; the first that is no directory decides."""
        forgotten = self._directories.pop(path.rpartition(b"/")[0], None)
        if forgotten is not None:
            os.close(forgotten)
        found = descend(self._root_fd, path)
        if found.ancestor and len(self._absent) < _KEPT_ABSENT:
            self._absent[found.ancestor] = found.kind
        return found

    def _known_absent(self, folder: bytes) -> Look | None:
        if not self._absent:
            return None
        end = len(folder)
        while end > 0:
            kind = self._absent.get(folder[:end])
            if kind is not None:
                return Look(kind=kind, ancestor=folder[:end])
            end = folder.rfind(b"/", 0, end)
        return None


def descend(root_fd: int, path: bytes) -> Look:
    """Look at `path` one component at a time, as long as it may be."""
    parts = path.split(b"/")
    current = os.dup(root_fd)
    try:
        for depth, part in enumerate(parts[:-1], start=1):
            try:
                deeper = os.open(part, FOUND, dir_fd=current)
            except OSError as error:
                return _stopped(error, b"/".join(parts[:depth]))
            os.close(current)
            current = deeper
        try:
            return seen(os.stat(parts[-1], dir_fd=current, follow_symlinks=False))
        except FileNotFoundError:
            return Look(kind=LookKind.MISSING)
        except OSError as error:
            return _unreadable(error)
    finally:
        os.close(current)


def is_clean(path: bytes) -> bool:
    """Whether `path` is relative, without empty, `.` and `..` components and zero bytes."""
    # Asked for each path of each Batch: 0.5 us, where splitting costs 3.
    whole = b"/" + path + b"/"
    return not (b"//" in whole or b"/./" in whole or b"/../" in whole or b"\0" in path)


def seen(status: os.stat_result) -> Look:
    """A Look from what lstat(2) told."""
    if stat.S_ISREG(status.st_mode):
        kind = LookKind.FILE
    elif stat.S_ISDIR(status.st_mode):
        kind = LookKind.DIRECTORY
    elif stat.S_ISLNK(status.st_mode):
        kind = LookKind.SYMLINK
    else:
        kind = LookKind.OTHER
    return Look(
        kind=kind,
        mode=status.st_mode,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        device=status.st_dev,
        links=status.st_nlink,
    )


def _stopped(error: OSError, ancestor: bytes) -> Look:
    if error.errno == errno.ENOENT:
        return Look(kind=LookKind.MISSING_ANCESTOR, ancestor=ancestor)
    # O_NOFOLLOW with O_DIRECTORY: a symlink says ENOTDIR, or ELOOP where it is not asked for.
    if error.errno in {errno.ENOTDIR, errno.ELOOP}:
        return Look(kind=LookKind.NOT_DIRECTORY_ANCESTOR, ancestor=ancestor)
    return _unreadable(error)


def _unreadable(error: OSError) -> Look:
    return Look(kind=LookKind.UNREADABLE, error=error.errno or errno.EIO)
