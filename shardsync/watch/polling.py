"""Directories without a watch: looked at again and again, watched when watches are to be had."""

from __future__ import annotations

import os
from dataclasses import replace

from shardsync.clock import Clock
from shardsync.log import ChangeOnly, Log
from shardsync.model import ShardState
from shardsync.watch.cookies import Cookies
from shardsync.watch.directories import TOP
from shardsync.watch.mount_points import MountPoints
from shardsync.watch.recollection import Recollection
from shardsync.watch.rule import Task
from shardsync.watch.scan import Scanner
from shardsync.watch.standing import Standing
from shardsync.watch.territory import Territory

POLL_SECONDS = 60.0
MARGIN_US = 5_000_000
"""A write(2) of gigabytes has its ctime at its start and its event at its end."""

_REFUSED_SECONDS = 3600.0


class Polling:
    """Scans what has no watch each POLL_SECONDS, and at once where it is `wanted`.

    `directories`: how many have no watch, as the newest pass counted.
    """

    def __init__(
        self,
        *,
        standing: Standing,
        scanner: Scanner,
        territory: Territory,
        mount_points: MountPoints,
        recollection: Recollection,
        cookies: Cookies,
        clock: Clock,
        log: Log,
    ) -> None:
        self.directories = 0
        self.wanted = False
        self.last = 0.0
        self._standing = standing
        self._scanner = scanner
        self._territory = territory
        self._mount_points = mount_points
        self._recollection = recollection
        self._cookies = cookies
        self._covered: set[str] = set()
        self._clock = clock
        self._log = log
        self._refused_said = ChangeOnly(clock=clock, repeat_seconds=_REFUSED_SECONDS)

    def poll(self, now: float) -> None:
        """Begin a pass if one is due: of the unwatched, and of what could not be entered."""
        self._say_refused()
        unwatched, refused = self._scanner.found.unwatched, self._scanner.found.refused
        apart = self._mount_points.apart
        if not (unwatched or refused or apart):
            return
        if self._scanner.is_open or self._territory.catching_up:
            return
        if now - self.last < POLL_SECONDS and not self.wanted:
            return
        since = self._standing.polled_us or self._clock.wall_us()
        self._standing.polled_us = self._clock.wall_us()
        self.wanted = False
        self.last = now
        self._covered = set(self._cookies.flushes)
        self._scanner.polled = 0
        self._territory.take_watches()
        closed = [self._territory.as_named_now(each.task, each.wd) for each in refused.values()]
        tasks = [*unwatched.values(), *closed, *apart.values()]
        unwatched.clear()
        refused.clear()
        for task in tasks:
            self._again(task, since)

    def covers_flushes(self) -> bool:
        """Whether what has no watch was looked at since the flushes were touched; else it is soon.

        To be asked when no scan is open.
        """
        if self._standing.has_unseen and not self._covered.issuperset(self._cookies.flushes):
            self.wanted = True
            return False
        return True

    def forget_gone(self) -> None:
        """After a pass over directories without watches: forget what is no longer where it was."""
        if self._scanner.found.has_news and self._standing.has_unwatched:
            for row, path in self._recollection.take_gone(self._scanner.ground.look):
                self._territory.departed(row, path)
        self._scanner.found.has_news = False
        self._recollection.begin()

    def say_coverage(self) -> None:
        """Following where all is watched, polling where watches ran out."""
        self.directories = self._scanner.polled if self._standing.has_unwatched else 0
        unwatched = bool(self._scanner.found.unwatched)
        is_whole = not self._standing.has_unwatched
        state = ShardState.FOLLOWING if is_whole else ShardState.POLLING
        if state is self._standing.state:
            return
        self._standing.state = state
        if unwatched:
            self._log.warning(
                "watches.exhausted",
                polled=self.directories,
                every_seconds=POLL_SECONDS,
                remedy="raise fs.inotify.max_user_watches: shardsync tune --apply",
            )

    def _again(self, task: Task, since_us: int) -> None:
        """Scan where the task's directory is now; its parent may have been renamed."""
        folder = self._territory.path(task.parent) if task.parent != TOP else b""
        if folder is None:
            return
        path = folder + b"/" + task.name if folder else task.name
        rule = replace(
            task.rule,
            since_us=since_us - MARGIN_US,
            unknown=False,
            whole=True,
            everything=False,
            explained_until_us=0,
            only_directories=False,
            watched=path not in self._mount_points.apart,
        )
        self._scanner.agenda.begin(replace(task, path=path, rule=rule))

    def _say_refused(self) -> None:
        """Directories that cannot be entered are tried again with each poll, and never silent."""
        refused = self._scanner.found.refused
        if refused:
            path, first = next(iter(refused.items()))
            why = os.strerror(first.number)
            if self._refused_said.is_due(f"{len(refused)} {path!r} {why}"):
                self._log.warning("directory.refused", count=len(refused), first=path, why=why)
