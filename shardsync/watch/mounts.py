"""File systems mounted below the root: no event tells of them, /proc/self/mountinfo does.

What lies at a mount point is another directory after a mount or an unmount,
so all of it is journaled as `tree` and watched anew; what that means for
deletions is the sync process's to judge, which guards the mounts it knew.
A mount that shows a directory of the Tree a second time shares its inodes,
hence its watches: it is scanned apart, without watches, and polled.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterable
from dataclasses import dataclass

from shardsync.journal.plan import covers
from shardsync.log import Log
from shardsync.mounts import Mount, mount_of, read_mounts
from shardsync.watch.mount_points import MountPoints
from shardsync.watch.territory import Territory

_MOUNTINFO = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class Mounted:
    """What is to be seen at one mount point below the root. `shown`: directory of `device`."""

    mount_id: int
    device: str
    shown: bytes
    file_system: str

    def identity(self) -> list[str]:
        """What tells it beyond this process; the device only within one boot."""
        return [f"{self.file_system} {os.fsdecode(self.shown)}", self.device]


class MountTable:
    """The mounts below one root as this process sees them. An adapter."""

    def __init__(self, *, root: bytes) -> None:
        self._root = root

    def read(self) -> tuple[Mounted | None, dict[bytes, Mounted]]:
        """(what the root itself shows, mount point below it -> what it shows). Raises OSError.

        Of mounts stacked on one another only the uppermost counts, and none
        that lies below what was mounted over it.
        """
        mounts = read_mounts()
        prefix = self._root.rstrip(b"/") + b"/"
        below: dict[bytes, Mounted] = {}
        for point in {mount.point for mount in mounts if mount.point.startswith(prefix)}:
            seen = _mount_at(point, mounts)
            if seen is not None and seen.point == point:
                below[point[len(prefix) :]] = _mounted(seen, point)
        top = _mount_at(self._root, mounts)
        return (_mounted(top, self._root) if top else None), below


class MountsBelow:
    """Notices what is mounted and unmounted below the root, and has those MountPoints looked at.

    `fd`: becomes ready (POLLPRI) when something was mounted anywhere.
    `is_unsaved`: whether `saved` has changed since it was last committed.
    """

    def __init__(
        self, *, table: MountTable, points: MountPoints, territory: Territory, log: Log
    ) -> None:
        self.fd = -1
        self.is_unsaved = False
        self._table = table
        self._points = points
        self._territory = territory
        self._log = log
        self._known: dict[bytes, Mounted] = {}
        self._news: dict[bytes, None] = {}
        self._ours = -1
        self._poller = select.poll()

    def start(self, saved: str, *, same_boot: bool) -> list[bytes]:
        """Begin to notice. Returns the points that show something else than when `saved`.

        Raises OSError where mountinfo cannot be read.
        """
        # Two, for a poll that tells of a change makes that descriptor forget it.
        self.fd = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._ours = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poller.register(self._ours, select.POLLPRI)
        self._known = self._take()
        self.is_unsaved = True
        if not saved:
            return []
        return _differing(json.loads(saved), self._known, same_boot=same_boot)

    def close(self) -> None:
        """Idempotent."""
        for descriptor in (self.fd, self._ours):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self._ours = -1

    def saved(self) -> str:
        """What the next start compares with."""
        return json.dumps(
            {os.fsdecode(point): seen.identity() for point, seen in self._known.items()}
        )

    def tick(self) -> None:
        """Look whether something was mounted, and answer it when no scan is under way.

        Called after the queue was read: what was mounted before a flush was
        touched is known before the flush is answered.
        """
        if self._poller.poll(0):
            self._notice()
        self._points.have_changed = bool(self._news)
        if not self._news or self._territory.catching_up:
            return
        news, self._news = self._news, {}
        self._points.have_changed = False
        for point in sorted(news):
            if not any(other != point and covers(other, point) for other in news):
                self._points.look_anew(point)

    def _notice(self) -> None:
        try:
            now = self._take()
        except OSError as error:
            self._log.error("mounts.unreadable", error=error)
            return
        before, self._known = self._known, now
        for point in before.keys() | now.keys():
            if before.get(point) == now.get(point):
                continue
            self._news[point] = None
            self.is_unsaved = True
            if point not in now:
                self._log.warning("mount.lost", path=point)
            else:
                self._log.info("mount.came", path=point, file_system=now[point].file_system)

    def _take(self) -> dict[bytes, Mounted]:
        """The mounts of now; those that show the Tree again are set apart."""
        top, below = self._table.read()
        doubles = _doubles(top, below, first=self._points.doubles)
        for point in doubles - self._points.doubles:
            self._log.warning(
                "mount.polled", path=point,
                why="it shows a directory of the Tree again, whose watches it would take",
            )  # fmt: skip
        for point in self._points.set_apart(doubles):
            self._news[point] = None
        return below


def _doubles(
    top: Mounted | None, below: dict[bytes, Mounted], *, first: Iterable[bytes]
) -> frozenset[bytes]:
    """The points that show what the Tree shows elsewhere; those of `first` before others."""
    shown = [top] if top else []
    doubles: set[bytes] = set()
    known = set(first)
    for point, seen in sorted(below.items(), key=lambda item: (item[0] in known, item[0])):
        if any(_overlap(seen, other) for other in shown):
            doubles.add(point)
        else:
            shown.append(seen)
    return frozenset(doubles)


def _overlap(one: Mounted, other: Mounted) -> bool:
    if one.device != other.device:
        return False
    first, second = one.shown.strip(b"/"), other.shown.strip(b"/")
    return covers(first, second) or covers(second, first)


def _differing(
    saved: dict[str, list[str]], now: dict[bytes, Mounted], *, same_boot: bool
) -> list[bytes]:
    length = 2 if same_boot else 1
    before = {os.fsencode(point): identity[:length] for point, identity in saved.items()}
    after = {point: seen.identity()[:length] for point, seen in now.items()}
    points = before.keys() | after.keys()
    return sorted(point for point in points if before.get(point) != after.get(point))


def _mount_at(path: bytes, mounts: tuple[Mount, ...]) -> Mount | None:
    """The mount on which the directory at `path` lies, as a walk to it finds it."""
    with contextlib.suppress(OSError):
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            return mount_of(descriptor, mounts)
        finally:
            os.close(descriptor)
    return None


def _mounted(mount: Mount, path: bytes) -> Mounted:
    inside = os.path.relpath(path, mount.point)
    shown = mount.root if inside == b"." else mount.root.rstrip(b"/") + b"/" + inside
    return Mounted(
        mount_id=mount.mount_id,
        device=mount.device,
        shown=shown,
        file_system=f"{mount.kind} {os.fsdecode(mount.source)}",
    )
