"""A directory as rsync is to read it: through no symlink, whoever swaps one in. An adapter.

Between a look at a path and rsync's own opening of it, whoever writes in the tree can put
a symlink in a directory's place, and rsync would read on where that leads. So rsync is
handed the directory through a mount of its own, attached nowhere, on which the kernel
follows no symlink (mount_setattr(2), MOUNT_ATTR_NOSYMFOLLOW) and nothing can be written. It ends
with the last descriptor of it. 35 us, and only with CAP_SYS_ADMIN and Linux 5.14: else the
directory is handed over as it is, and rsync reads what its own user may read.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

_SYS_OPEN_TREE = 428
_SYS_MOUNT_SETATTR = 442
_OPEN_TREE_CLONE = 0x1
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_RDONLY = 0x1
_NOSYMFOLLOW = 0x200000
_ATTRIBUTES = struct.pack("QQQQ", _RDONLY | _NOSYMFOLLOW, 0, 0, 0)
"""struct mount_attr: set, clear, propagation, user namespace."""
_UNABLE = frozenset({errno.EPERM, errno.ENOSYS, errno.EINVAL})
"""No such right; an old kernel; a mount that cannot be cloned, or is not in the namespace now."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def sealed(directory: int, *, mounts: Iterable[bytes] = ()) -> int:
    """A descriptor of the same directory to read through; `directory` is closed. Raises OSError.

    What is mounted below is there too, as it is at this moment; where one of `mounts`, the
    paths of these, cannot be, as it is unbindable (mount_namespaces(7)), nothing is sealed:
    all below it would count as missing.
    """
    try:
        descriptor = seal(directory)
        if all(_same(directory, descriptor, point) for point in mounts):
            return descriptor
        os.close(descriptor)
        return os.dup(directory)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        return os.dup(directory)
    finally:
        os.close(directory)


def _same(one: int, other: int, path: bytes) -> bool:
    """Whether a path below leads to the same directory through both."""
    return _identity(one, path) == _identity(other, path)


def _identity(directory: int, path: bytes) -> tuple[int, int] | None:
    try:
        found = os.stat(path, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def seal(directory: int) -> int:
    """As `sealed`, but raises OSError where it cannot be done, and leaves `directory` open."""
    descriptor = _call(
        _SYS_OPEN_TREE,
        ctypes.c_int(directory),
        ctypes.c_char_p(b""),
        ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE),
    )
    try:
        _call(
            _SYS_MOUNT_SETATTR,
            ctypes.c_int(descriptor),
            ctypes.c_char_p(b""),
            ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE),
            ctypes.c_char_p(_ATTRIBUTES),
            ctypes.c_size_t(len(_ATTRIBUTES)),
        )
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _call(number: int, *arguments: object) -> int:
    result: int = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
