"""The Tree's directories by their paths, reached from the root through no symlink on the way.

Whoever writes in the Tree may swap a directory for a symlink at any moment:
what is outside is neither listed nor watched for that. Nothing stays open in
between, for that would keep the root's file system busy.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from shardsync.beneath import FOUND, LISTED, open_beneath
from shardsync.watch.guard import look_at

_PATH_MAX = 4096
_NAME_MAX = 255
_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})


class Ground:
    """The directories below `root`, an absolute path. `near_limit`: longer paths may be too long.

    A path that is longer than the kernel takes is refused although it could be
    walked: rsync could not send what is there.
    """

    def __init__(self, *, root: bytes) -> None:
        self._root = root.rstrip(b"/") or b"/"
        self._longest = _PATH_MAX - 1 - len(self._root.rstrip(b"/")) - 1
        self.near_limit = self._longest - _NAME_MAX

    def check(self, path: bytes) -> None:
        """Raises OSError (ENAMETOOLONG) for a path that is longer than the kernel takes."""
        if len(path) > self._longest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)

    def open(self, path: bytes, flags: int = LISTED) -> int:
        """A descriptor of the directory `path`. Raises OSError: ENOENT, ENOTDIR, ELOOP, EACCES."""
        self.check(path)
        root = os.open(self._root, FOUND)
        try:
            return open_beneath(root, path, flags)
        finally:
            os.close(root)

    def look(self, path: bytes) -> os.stat_result | None:
        """The directory at `path` itself, None where there is none or it is something else."""
        try:
            descriptor = self.open(path, FOUND)
        except OSError as error:
            # A directory is not gone for want of a descriptor, and nothing is listed for a look.
            return look_at(self._absolute(path)) if error.errno in _NONE_LEFT else None
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def watch(self, path: bytes, add: Callable[[bytes], int]) -> int:
        """Have `add`, which takes any path, watch the directory at `path`. Raises OSError."""
        descriptor = self.open(path, FOUND)
        try:
            return add(place(descriptor))
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def listing(self, path: bytes) -> Iterator[Iterator[os.DirEntry[str]]]:
        """The entries of the directory `path`, names as os.fsdecode makes them. Raises OSError."""
        descriptor = self.open(path)
        try:
            with os.scandir(descriptor) as entries:
                yield entries
        finally:
            os.close(descriptor)

    def subdirectories(self, path: bytes) -> list[bytes]:
        """Names of the real directories in `path`. Raises OSError."""
        with self.listing(path) as entries:
            return [os.fsencode(e.name) for e in entries if e.is_dir(follow_symlinks=False)]

    def _absolute(self, path: bytes) -> bytes:
        return self._root.rstrip(b"/") + b"/" + path if path else self._root


def place(descriptor: int) -> bytes:
    """A path of an open directory for calls that take none; its last part is no symlink."""
    return b"/proc/self/fd/%d/." % descriptor
