"""Files that were created or modified and not closed: when to journal them nevertheless.

Hard links, O_TMPFILE with linkat, truncate(2), fifos and devices never give a
CLOSE_WRITE; a log file held open for days gives one too late.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import signal
import stat
from typing import Protocol

from shardsync.watch.events import Stamp

LOOK_AFTER_SECONDS = 0.1
"""A close follows a small write within this: a look before it would be for nothing."""


class Look(enum.Enum):
    """What a look at a pending path found."""

    DONE = "done"
    """Nobody has it open for writing, or it is no regular file, or gone: journal it."""
    WRITING = "writing"
    UNKNOWN = "unknown"
    """Not ours to lease: it may be open for writing."""


class Probe(Protocol):
    """Looks at files of the Tree."""

    def look(self, path: bytes) -> Look:
        """Whether somebody has the file at `path` open for writing."""
        ...

    def kind(self, path: bytes) -> os.stat_result | None:
        """The inode at `path`, None where there is none. Follows no symlink."""
        ...


class FileProbe:
    """The real thing, below `root`."""

    def __init__(self, *, root: bytes) -> None:
        self._prefix = root.rstrip(b"/") + b"/"

    @staticmethod
    def ignore_lease_signals() -> None:
        """Once per process: an opener that meets our lease of a microsecond sends us SIGIO."""
        signal.signal(signal.SIGIO, signal.SIG_IGN)

    def kind(self, path: bytes) -> os.stat_result | None:
        try:
            return os.lstat(self._prefix + path)
        except OSError:
            return None

    def look(self, path: bytes) -> Look:
        """Ask for a read lease: the kernel refuses it iff somebody writes, fcntl(2) F_SETLEASE."""
        found = self.kind(path)
        if found is None or not stat.S_ISREG(found.st_mode):
            return Look.DONE
        try:
            descriptor = _open_quietly(self._prefix + path)
        except OSError as error:
            gone = error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
            return Look.DONE if gone else Look.UNKNOWN
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return Look.WRITING if error.errno == errno.EAGAIN else Look.UNKNOWN
        finally:
            os.close(descriptor)  # gives the lease back too
        return Look.DONE


class PendingFiles:
    """Decides, by time and a look, which pending paths become Changes now.

    `fresh` is filled by the Fold in order of time; `opened` holds what a look
    found open: (monotonic time by which it is journaled, wall clock of its
    first event).
    """

    def __init__(self, *, probe: Probe, max_open_seconds: float) -> None:
        self.opened: dict[bytes, tuple[float, int]] = {}
        self._probe = probe
        self._max_open_seconds = max_open_seconds

    def due(self, fresh: dict[bytes, Stamp], now: float) -> list[bytes]:
        """Take out of `fresh` and `opened` what must be journaled at monotonic `now`."""
        due = []
        for path, (since, wall_us) in list(_older(fresh, now - LOOK_AFTER_SECONDS)):
            del fresh[path]
            if self._probe.look(path) is Look.DONE:
                due.append(path)
            else:
                self.opened[path] = (since + self._max_open_seconds, wall_us)
        overdue = [path for path, (deadline, _) in self.opened.items() if deadline <= now]
        for path in overdue:
            del self.opened[path]
        return due + overdue

    def all(self, fresh: dict[bytes, Stamp]) -> list[bytes]:
        """Take out everything: a Flush wants files as they are now, open or not."""
        paths = [*fresh, *self.opened]
        fresh.clear()
        self.opened.clear()
        return paths

    def oldest_us(self, fresh: dict[bytes, Stamp]) -> int | None:
        """Wall clock of the oldest pending event, which the Watermark must not pass."""
        stamps = [wall_us for _, wall_us in self.opened.values()]
        first = next(iter(fresh.values()), None)
        if first is not None:
            stamps.append(first[1])
        return min(stamps, default=None)

    def wait_seconds(self, fresh: dict[bytes, Stamp], now: float) -> float | None:
        """How long nothing can become due; None where nothing is pending."""
        deadlines = [deadline for deadline, _ in self.opened.values()]
        first = next(iter(fresh.values()), None)
        if first is not None:
            deadlines.append(first[0] + LOOK_AFTER_SECONDS)
        return max(0.0, min(deadlines) - now) if deadlines else None


def _older(fresh: dict[bytes, Stamp], before: float) -> list[tuple[bytes, Stamp]]:
    """The entries of `fresh`, oldest first, up to the first that is not before `before`."""
    found = []
    for path, stamp in fresh.items():
        if stamp[0] > before:
            break
        found.append((path, stamp))
    return found


def _open_quietly(path: bytes) -> int:
    """Open for reading without waiting, following or changing the access time."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    with contextlib.suppress(PermissionError):  # O_NOATIME is for owners, open(2)
        return os.open(path, flags | os.O_NOATIME)
    return os.open(path, flags)
