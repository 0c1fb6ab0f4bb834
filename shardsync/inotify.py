"""inotify(7) as the Watcher uses it: one instance, byte paths, big reads, plain tuples.

The one module that touches pyinotify, of which only the constants and the
ctypes binding are used: its Notifier loses the rest of a buffer at a name that
is not UTF-8, its WatchManager scans before it watches.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
import warnings

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # it imports asyncore, and uses none of it here
    import pyinotify

logging.getLogger("pyinotify").handlers.clear()  # it adds one of its own at import

Event = tuple[int, int, int, bytes]
"""(watch descriptor, mask, cookie, name); the name is b"" for the directory itself."""

ATTRIB: int = pyinotify.IN_ATTRIB
MODIFY: int = pyinotify.IN_MODIFY
CLOSE_WRITE: int = pyinotify.IN_CLOSE_WRITE
CREATE: int = pyinotify.IN_CREATE
DELETE: int = pyinotify.IN_DELETE
DELETE_SELF: int = pyinotify.IN_DELETE_SELF
MOVED_FROM: int = pyinotify.IN_MOVED_FROM
MOVED_TO: int = pyinotify.IN_MOVED_TO
MOVE_SELF: int = pyinotify.IN_MOVE_SELF
ISDIR: int = pyinotify.IN_ISDIR
IGNORED: int = pyinotify.IN_IGNORED
UNMOUNT: int = pyinotify.IN_UNMOUNT
OVERFLOW: int = pyinotify.IN_Q_OVERFLOW
ONLYDIR: int = pyinotify.IN_ONLYDIR
DONT_FOLLOW: int = pyinotify.IN_DONT_FOLLOW
EXCL_UNLINK: int = pyinotify.IN_EXCL_UNLINK

TREE_MASK = (
    ATTRIB | MODIFY | CLOSE_WRITE | CREATE | DELETE | MOVED_FROM | MOVED_TO | MOVE_SELF
    | ONLYDIR | DONT_FOLLOW | EXCL_UNLINK
)  # fmt: skip
"""For directories of the Tree. The end of one is told by IN_IGNORED, so no DELETE_SELF."""

COOKIE_MASK = CREATE | ATTRIB | MOVED_TO | ONLYDIR
"""For the cookie directory: one event for a new file, one for each touch of an old one."""

READ_BYTES = 512 * 1024
_LONGEST_EVENT = 16 + 256
_HEADER = struct.Struct("iIII")
_NO_INSTANCE = (
    "no inotify instance is left: raise fs.inotify.max_user_instances (shardsync tune --apply),"
    " or the limit of open files"
)
_NO_WATCH = "no inotify watch is left: raise fs.inotify.max_user_watches (shardsync tune --apply)"
_INIT_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # IN_CLOEXEC and IN_NONBLOCK are these


class _Libc(pyinotify._CtypesLibcINotifyWrapper):  # type: ignore[misc] # noqa: SLF001 (its private binding is what we take of it)
    """pyinotify's binding with inotify_init1, byte paths and no search for libc by subprocess."""

    def init(self) -> bool:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._get_errno_func = ctypes.get_errno
        for name, arguments in (
            ("inotify_init1", [ctypes.c_int]),
            ("inotify_add_watch", [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]),
            ("inotify_rm_watch", [ctypes.c_int, ctypes.c_int]),
        ):
            function = getattr(self._libc, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
        self.add_watch = self._libc.inotify_add_watch
        return True

    def _inotify_init(self) -> int:
        return int(self._libc.inotify_init1(_INIT_FLAGS))


class Inotify:
    """One inotify instance. Not thread-safe."""

    def __init__(self, *, libc: _Libc, descriptor: int) -> None:
        self.fd = descriptor
        self._libc = libc
        self._add_watch = libc.add_watch

    @classmethod
    def open(cls) -> Inotify:
        """A new instance. Raises OSError (EMFILE: fs.inotify.max_user_instances)."""
        libc = _Libc()
        libc.init()
        descriptor = int(libc.inotify_init())
        if descriptor < 0:
            number = libc.get_errno()
            if number == errno.EMFILE:
                raise OSError(number, _NO_INSTANCE)
            _raise(number, b"inotify_init1")
        return cls(libc=libc, descriptor=descriptor)

    def add(self, path: bytes, mask: int = TREE_MASK) -> int:
        """Watch a directory; the watch descriptor of the inode, an old one if it has one.

        Raises OSError: ENOSPC where no watches are left, ENOENT, ENOTDIR, EACCES.
        """
        wd: int = self._add_watch(self.fd, path, mask)
        if wd < 0:
            number = ctypes.get_errno()
            if number == errno.ENOSPC:
                raise OSError(number, _NO_WATCH, path)
            _raise(number, path)
        return wd

    def remove(self, wd: int) -> bool:
        """Drop a watch; False where the kernel had dropped it already."""
        return bool(self._libc.inotify_rm_watch(self.fd, wd) == 0)

    def read(self) -> bytes:
        """What is queued, at most READ_BYTES; b"" when nothing is."""
        try:
            return os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Give the instance and all its watches back. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def emptied_the_queue(buffer: bytes) -> bool:
    """Whether a read that returned `buffer` left nothing behind at that moment."""
    return len(buffer) <= READ_BYTES - _LONGEST_EVENT


def decode(buffer: bytes) -> list[Event]:
    """The events in one buffer. 640,000 a second as a plain loop, 53,000 with pyinotify's."""
    events: list[Event] = []
    append = events.append
    unpack = _HEADER.unpack_from
    offset = 0
    end = len(buffer)
    while offset < end:
        wd, mask, cookie, length = unpack(buffer, offset)
        offset += 16
        if length:
            append((wd, mask, cookie, buffer[offset : offset + length].rstrip(b"\0")))
            offset += length
        else:
            append((wd, mask, cookie, b""))
    return events


def is_watch_limit(error: OSError) -> bool:
    """Whether adding a watch failed because none are left."""
    return error.errno in {errno.ENOSPC, errno.ENOMEM}


def _raise(number: int, path: bytes) -> None:
    raise OSError(number, os.strerror(number), path)
