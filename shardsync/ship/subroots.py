"""File systems mounted below a Tree's root: each has the root's guards. An adapter.

What is mounted may go, be covered or be swapped while the root itself stays, and
all that was in it then seems to be deleted. So each mount point is remembered with
what was seen there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from shardsync.beneath import open_beneath
from shardsync.escape import printable
from shardsync.mounts import Mount, filesystem_name, mount_of, mounts_below

_AT_EMPTY_PATH = 0x1000
_STATX_MNT_ID_UNIQUE = 0x4000
_STATX_MNT_ID_AT = 0x90
_STATX_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRoot:
    """What is mounted at `point`, relative to the root. Goes to JSON and back.

    `device` counts only within one boot; `had_entries`: it was once seen not empty.
    """

    point: bytes
    filesystem: str
    inode: int
    device: int
    had_entries: bool

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "point": os.fsdecode(self.point),
            "filesystem": self.filesystem,
            "inode": self.inode,
            "device": self.device,
            "had_entries": self.had_entries,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises KeyError, TypeError, ValueError."""
        return cls(
            point=os.fsencode(values["point"]),
            filesystem=str(values["filesystem"]),
            inode=int(values["inode"]),
            device=int(values["device"]),
            had_entries=bool(values["had_entries"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBelow:
    """What one look at all mount points found.

    `unreadable`: points of which nothing can be said now (EIO, a dead server):
    they are neither lost nor well. `ids`: a number for each mount that no other
    has had since the boot, 0 where the kernel does not tell (before 6.8).
    """

    found: tuple[SubRoot, ...]
    unreadable: frozenset[bytes]
    ids: tuple[tuple[bytes, int], ...]


def see_below(root_fd: int, mounts: tuple[Mount, ...]) -> SeenBelow:
    """Look at what is mounted below the root that is open as `root_fd`."""
    found = []
    ids = []
    unreadable = set()
    # As the kernel writes it in mountinfo, whatever links led here.
    path = os.readlink(b"/proc/self/fd/%d" % root_fd)
    for point in mounts_below(path, mounts):
        try:
            descriptor = open_beneath(root_fd, point)
        except (FileNotFoundError, NotADirectoryError):
            # A file has no mounts below and hides none; what is covered is not to be seen.
            continue
        except OSError:
            unreadable.add(point)
            continue
        try:
            found.append(_seen(descriptor, point, mounts))
            ids.append((point, mount_number(descriptor)))
        except OSError:
            unreadable.add(point)
        finally:
            os.close(descriptor)
    return SeenBelow(found=tuple(found), unreadable=frozenset(unreadable), ids=tuple(ids))


def trouble_below(
    known: Iterable[SubRoot], now: SeenBelow, *, same_boot: bool
) -> tuple[str, str] | None:
    """(what is wrong, of which mount) in words for the operator; None where all is well.

    What is wrong: "lost", "replaced" or "empty".
    """
    before = {subroot.point: subroot for subroot in known}
    there = {subroot.point: subroot for subroot in now.found}
    for point in sorted(before.keys() - there.keys() - now.unreadable):
        return "lost", f"no longer has a mount at {printable(point)}"
    for point, subroot in sorted(there.items()):
        old = before.get(point)
        at = printable(point)
        if old is None:
            if not subroot.had_entries:
                return "empty", f"has an empty file system newly mounted at {at}"
        elif not _is_same(old, subroot, same_boot=same_boot):
            return "replaced", f"has another file system mounted at {at} than before"
        elif old.had_entries and not subroot.had_entries:
            return "empty", f"has a file system at {at} that is empty, and was not before"
    return None


def kept_in_mind(known: Iterable[SubRoot], now: SeenBelow) -> tuple[SubRoot, ...]:
    """What is to be known from now on, where there is no trouble."""
    before = {subroot.point: subroot for subroot in known}
    kept = [before[point] for point in now.unreadable if point in before]
    return tuple(sorted([*now.found, *kept], key=lambda subroot: subroot.point))


def has_entries(descriptor: int) -> bool:
    """Whether an open directory (O_PATH) holds anything. Raises OSError."""
    reader = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        with os.scandir(reader) as entries:
            return next(entries, None) is not None
    finally:
        os.close(reader)


def mount_number(descriptor: int) -> int:
    """The number of the mount that an open file lies on, unique since the boot; 0: not told."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    done = _LIBC.statx(
        ctypes.c_int(descriptor),
        ctypes.c_char_p(b""),
        ctypes.c_int(_AT_EMPTY_PATH),
        ctypes.c_uint(_STATX_MNT_ID_UNIQUE),
        buffer,
    )
    told = int.from_bytes(buffer.raw[:4], "little") & _STATX_MNT_ID_UNIQUE
    if done != 0 or not told:
        return 0
    return int.from_bytes(buffer.raw[_STATX_MNT_ID_AT : _STATX_MNT_ID_AT + 8], "little")


_LIBC = ctypes.CDLL(None, use_errno=True)


def _seen(descriptor: int, point: bytes, mounts: tuple[Mount, ...]) -> SubRoot:
    status = os.fstat(descriptor)
    mount = mount_of(descriptor, mounts)
    return SubRoot(
        point=point,
        filesystem="unknown" if mount is None else filesystem_name(mount),
        inode=status.st_ino,
        device=status.st_dev,
        had_entries=has_entries(descriptor),
    )


def _is_same(old: SubRoot, now: SubRoot, *, same_boot: bool) -> bool:
    """Device numbers tell file systems without a UUID apart, and only within one boot."""
    if (old.filesystem, old.inode) != (now.filesystem, now.inode):
        return False
    return not same_boot or old.filesystem.startswith("uuid:") or old.device == now.device
