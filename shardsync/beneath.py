"""Directories below a root, opened through no symlink on the way, whoever swaps what meanwhile."""

from __future__ import annotations

import ctypes
import errno
import os

FOUND = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""To look at a directory, or from it: no permission for itself is needed."""
LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""To read what a directory holds."""

_SYS_OPENAT2 = 437
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_NO_OPENAT2 = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})
"""Old kernels; sandboxes that forbid it."""


def open_beneath(root: int, path: bytes, flags: int = FOUND) -> int:
    """A descriptor of the directory `path` below `root`, through no symlink.

    `flags`: FOUND or LISTED. openat2(2) in one call, else name by name. Raises OSError.
    """
    if not path:
        return os.open(b".", flags, dir_fd=root)
    try:
        return _openat2(root, path, flags)
    except OSError as error:
        if error.errno not in _NO_OPENAT2 | {errno.ENAMETOOLONG}:
            raise
    return open_stepwise(root, path, flags)


def open_stepwise(root: int, path: bytes, flags: int = FOUND) -> int:
    """As `open_beneath`, one component after the other. Raises OSError."""
    *above, name = path.split(b"/")
    current = os.dup(root)
    try:
        for part in above:
            deeper = os.open(part, FOUND, dir_fd=current)
            os.close(current)
            current = deeper
        return os.open(name, flags, dir_fd=current)
    finally:
        os.close(current)


class _OpenHow(ctypes.Structure):
    """struct open_how, openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS
_HOW = {flags: _OpenHow(flags, 0, _RESOLVE) for flags in (FOUND, LISTED)}
_HOW_BYTES = ctypes.sizeof(_OpenHow)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t,
)  # fmt: skip


def _openat2(root: int, path: bytes, flags: int) -> int:
    descriptor: int = _syscall(_SYS_OPENAT2, root, path, _HOW[flags], _HOW_BYTES)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return descriptor
