"""Entering a directory in a scan: watch it first, then look at it, then open its listing.

What happens in it before it is watched is in the listing, what happens after is an event.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import Protocol

from shardsync.beneath import LISTED
from shardsync.failpoints import Point, reach
from shardsync.inotify import is_watch_limit
from shardsync.watch.agenda import Frame
from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.ground import Ground, place
from shardsync.watch.judging import Judge
from shardsync.watch.rule import Found, Refused, Rule, Task, refused, with_files
from shardsync.watch.sub_roots import SubRoots


class Watches(Protocol):
    """Where watches come from."""

    def add(self, path: bytes) -> int:
        """Watch the directory at a path of the kernel's. Raises OSError."""
        ...


class Entering:
    """Call `enter` for a directory that is to be listed."""

    def __init__(
        self,
        *,
        ground: Ground,
        watches: Watches,
        table: DirectoryTable,
        judge: Judge,
        sub_roots: SubRoots,
        found: Found,
    ) -> None:
        self._ground = ground
        self._watches = watches
        self._table = table
        self._judge = judge
        self._sub_roots = sub_roots
        self._found = found

    def enter(self, task: Task, folder: int | None = None) -> Frame | None:
        """Watch a directory, judge its own inode, open its listing.

        `folder`: a descriptor of the one that it lies in; else its path is walked.
        """
        fd, wd = -1, 0
        frame = None
        try:
            fd = self._open(task, folder)
            wd, rule = self._watch(task, fd)
            reach(Point.WATCH_ADDED)
            found = os.fstat(fd)
            if found.st_dev != rule.device:
                rule = self._judge.mounted(task.path, rule, found)
            fitting = self._bind(wd, task, rule, found.st_ino) if wd else rule
            if fitting is not None:
                below = self._judge.judge(task, fitting, found)
                path = task.path + b"/" if task.path else b""
                frame = os.scandir(fd), wd, found.st_ino, path, below, fd
        except OSError as error:
            self.refuse(task, error, wd)
        if frame is None:
            if fd >= 0:
                os.close(fd)
            return None
        if below.was_refused:
            frame = *frame[:4], self._judge.admit(task, below, found), fd
        return frame

    def refuse(self, task: Task, error: OSError, wd: int) -> None:
        """Why a directory could not be entered, or read to its end: gone, or to be tried again."""
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            if task.parent != TOP:
                self._found.suspects.add(task.parent)
            else:
                # A prefix that is gone, and all below it: no other directory here tells.
                self._found.has_news = True
            return
        self._found.refused[task.path] = Refused(refused(task), error.errno or 0, wd)
        self._judge.refuse(task.path)

    def _open(self, task: Task, folder: int | None) -> int:
        """The task's directory, to be listed. Raises OSError."""
        if folder is None:
            return self._ground.open(task.path)
        self._ground.check(task.path)
        return os.open(task.name, LISTED, dir_fd=folder)

    def _watch(self, task: Task, fd: int) -> tuple[int, Rule]:
        """The watch and the rule to go on with; watch 0 where none are left. Raises OSError."""
        rule = task.rule
        if not rule.watched:
            return 0, rule
        try:
            return self._watches.add(place(fd)), rule
        except OSError as error:
            if not is_watch_limit(error):
                raise
        self._found.unwatched[task.path] = with_files(task)
        return 0, replace(rule, watched=False)

    def _bind(self, wd: int, task: Task, rule: Rule, inode: int) -> Rule | None:
        """Bind; returns the rule for what is below, None where that is watched already.

        While a new directory is scanned, one that is known was not made in it
        but moved into it before its watch: no event will tell, and what is
        below is bound already, so all of it is journaled as `tree`.
        """
        before = self._table.binding(wd)
        is_known = self._table.knows(wd)
        self._table.bind(wd, task.parent, task.name, inode)
        if task.parent == TOP or rule.device != task.rule.device:
            self._sub_roots.tops[wd] = rule.sub_root
        if rule.whole:
            return rule
        if before == (task.parent, task.name):
            return None
        return self._judge.moved_in(task, rule) if is_known else rule
