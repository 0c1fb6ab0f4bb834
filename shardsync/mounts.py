"""What /proc/self/mountinfo says: which file system a directory lies on, and the mounts below it.

Read-only; knows nothing of Trees.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterable
from dataclasses import dataclass

_OCTAL = re.compile(rb"\\([0-7]{3})")
_BY_UUID = "/dev/disk/by-uuid"
_FDINFO_BYTES = 1000
"""Position, flags and mount id come first, whatever else there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo (proc(5)). `point` is absolute.

    `device`: as `major:minor`, counts within one boot. `root`: the directory
    of the file system that is to be seen at `point`.
    """

    mount_id: int
    device: str
    root: bytes
    point: bytes
    kind: str
    source: bytes


def read_mounts() -> tuple[Mount, ...]:
    """All mounts that this process sees, in the order they were made. Raises OSError."""
    with open("/proc/self/mountinfo", "rb") as file:
        return tuple(parse_mounts(file))


class MountTable:
    """All mounts that this process sees, read again only when the kernel says they changed.

    Asking costs some microseconds, reading and parsing 0.2 ms; a Batch asks several times.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._news = select.poll()
        self._mounts: tuple[Mount, ...] = ()

    def read(self) -> tuple[Mount, ...]:
        """As `read_mounts`, no older than this call. Raises OSError."""
        if self._descriptor is None:
            self._descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._news.register(self._descriptor, select.POLLPRI)
        # POLLERR with the first question and after each change (proc(5)); asked before it is
        # read, so that what changes in between is read now or told next time.
        elif not self._news.poll(0):
            return self._mounts
        # Not splitlines, which takes a carriage return, that the kernel leaves in a path, for one.
        self._mounts = tuple(parse_mounts(self._whole(self._descriptor).split(b"\n")))
        return self._mounts

    def close(self) -> None:
        """Let go of its descriptor; the next `read` opens it again. Idempotent."""
        if self._descriptor is not None:
            self._news.unregister(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _whole(self, descriptor: int) -> bytes:
        os.lseek(descriptor, 0, os.SEEK_SET)
        pieces = iter(lambda: os.read(descriptor, 65_536), b"")
        return b"".join(pieces)


def parse_mounts(lines: Iterable[bytes]) -> Iterable[Mount]:
    """The mounts that `lines` of mountinfo describe; a malformed line is skipped."""
    for line in lines:
        left, dash, right = line.rstrip(b"\n").partition(b" - ")
        fields, more = left.split(b" "), right.split(b" ")
        if dash and len(fields) >= 6 and len(more) >= 2:
            yield Mount(
                mount_id=int(fields[0]),
                device=fields[2].decode("ascii", "replace"),
                root=_unescaped(fields[3]),
                point=_unescaped(fields[4]),
                kind=more[0].decode("ascii", "replace"),
                source=_unescaped(more[1]),
            )


def mount_of(descriptor: int, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that an open file lies on, None where it is no longer among `mounts`."""
    # Asked several times for each Batch: as text, and all of it, it takes twice as long.
    with open(f"/proc/self/fdinfo/{descriptor}", "rb", buffering=0) as file:
        mount_id = int(file.read(_FDINFO_BYTES).partition(b"mnt_id:")[2].split(None, 1)[0])
    return next((mount for mount in mounts if mount.mount_id == mount_id), None)


def filesystem_name(mount: Mount) -> str:
    """What names the file system beyond this boot: `uuid:...`, else its type and source."""
    uuid = _uuid_of(mount.source)
    if uuid:
        return f"uuid:{uuid}"
    return f"{mount.kind}:{os.fsdecode(mount.source)}"


def mounts_below(path: bytes, mounts: Iterable[Mount]) -> tuple[bytes, ...]:
    """Mount points below the absolute `path`, relative to it, sorted."""
    prefix = path.rstrip(b"/") + b"/"
    return tuple(
        sorted({mount.point[len(prefix) :] for mount in mounts if mount.point.startswith(prefix)})
    )


def _uuid_of(source: bytes) -> str:
    device = os.path.realpath(source)
    try:
        names = os.listdir(_BY_UUID)
    except OSError:
        return ""
    for name in names:
        if os.fsencode(os.path.realpath(f"{_BY_UUID}/{name}")) == device:
            return name
    return ""


def _unescaped(field: bytes) -> bytes:
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field)
