"""One shardsync per Tree root, whatever its state directory and user.

An abstract unix socket, unix(7), is the lock: the kernel drops it with its
holder, and it needs no open descriptor on the Tree. An flock on the root
itself would make a plain umount of it busy for as long as we run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
from pathlib import Path
from typing import Self

from shardsync.errors import AlreadyRunning

_PEER_CREDENTIALS = struct.Struct("3i")


class RootLock:
    """A Tree root that no other shardsync on this machine may watch."""

    def __init__(self, *, root: Path, sockets: contextlib.ExitStack) -> None:
        self.root = root
        self._sockets = sockets

    @classmethod
    def acquire(cls, root: Path) -> RootLock:
        """Take the root, by its path and by its inode, or raise AlreadyRunning with the holder.

        By inode too, because a bind mount gives one directory two paths.
        Raises OSError where the root cannot be looked at.
        """
        with contextlib.ExitStack() as sockets:
            for name in _names(root):
                sockets.enter_context(_bind(name, root))
            return cls(root=root, sockets=sockets.pop_all())

    def release(self) -> None:
        """Let go. Idempotent."""
        self._sockets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.release()


def _names(root: Path) -> list[bytes]:
    found = os.stat(root)
    keys = [os.path.realpath(os.fsencode(root)), b"%d:%d" % (found.st_dev, found.st_ino)]
    return [b"\0shardsync-root-" + hashlib.sha256(k).hexdigest()[:40].encode() for k in keys]


def _bind(name: bytes, root: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        bound.bind(name)
        # Nobody is ever accepted: listening lets SO_PEERCRED tell a second copy our pid.
        bound.listen(1)
    except OSError as error:
        bound.close()
        pid = _listener(name)
        by = f"process {pid}" if pid else "another shardsync"
        raise AlreadyRunning(f"root {root}: already watched by {by}") from error
    return bound


def _listener(name: bytes) -> int | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        with contextlib.suppress(OSError):
            asking.connect(name)
            credentials = asking.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size
            )
            pid: int = _PEER_CREDENTIALS.unpack(credentials)[0]
            return pid
    return None
