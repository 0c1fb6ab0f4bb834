"""What a scan has still to do: the directories open in it, and those that it has yet to come to.

What is renamed meanwhile goes on under its present path. One open directory a
level is kept, up to a bound, so that neither a deep Tree nor a Shard of 50,000
prefixes takes all descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.rule import Rule, Task

OPEN_LEVELS = 64


class Listing(Protocol):
    """What os.scandir returns for a descriptor: names are the bytes as os.fsdecode makes them."""

    def __iter__(self) -> Iterator[os.DirEntry[str]]: ...

    def close(self) -> None: ...


Frame = tuple[Listing, int, int, bytes, Rule, int]
"""A directory being listed: (entries, watch, inode, path with a "/" behind it, Rule, descriptor).

The entries are looked at by that descriptor, so it stays open as long as they do.
"""


class Agenda:
    """`frames`: what is open, the innermost last; `deep`: what is too deep to be open beside it.

    `has_moved`: to be set where a watch stands for another place than before, or for none.
    """

    def __init__(self, *, table: DirectoryTable) -> None:
        self.frames: list[Frame] = []
        self.deep: list[Task] = []
        self.has_moved = False
        self._tasks: list[Task] = []
        self._table = table

    @property
    def is_open(self) -> bool:
        """Whether something is left to scan."""
        return bool(self._tasks or self.frames or self.deep)

    def busy(self) -> set[int]:
        """Watches of the directories in which something is still to be scanned."""
        parents = {task.parent for task in (*self._tasks, *self.deep)}
        return parents | {frame[1] for frame in self.frames}

    def begin(self, task: Task, *, last: bool = False) -> None:
        """Scan this directory too: before what was asked for earlier, or after all of it."""
        if last:
            self.deep.insert(0, task)
        else:
            self._tasks.append(task)

    def take(self) -> Task | None:
        """The next directory to enter; None where those that are open come first."""
        # A Shard of 50,000 prefixes must not hold 50,000 directories open.
        if self.frames and not (self._tasks and len(self.frames) < OPEN_LEVELS):
            return None
        return (self._tasks or self.deep).pop()

    def abandon(self) -> None:
        """Forget all that was asked for."""
        self._tasks.clear()
        self.deep.clear()
        while self.frames:
            close(self.frames.pop())

    def displace(self, path: bytes, wd: int) -> None:
        """Another directory than `wd` was at `path`: what is listed there is not its content."""
        for number, frame in reversed([*enumerate(self.frames)]):
            if frame[3] == path + b"/" and frame[1] != wd:
                close(self.frames.pop(number))

    def begin_anew(self) -> None:
        """What is open was opened below another root than this: again, by its path."""
        while self.frames:
            task = self.task_of(self.frames[-1])
            self._tasks.append(replace(task, rule=replace(task.rule, whole=True)))
            close(self.frames.pop())

    def follow_moves(self) -> None:
        """Go on under their present paths with what was begun under others."""
        if not self.has_moved:
            return
        self.has_moved = False
        for number, frame in reversed([*enumerate(self.frames)]):
            entries, wd, inode, prefix, rule, fd = frame
            path = self._table.path(wd) if wd else prefix[:-1]
            if path is None:
                close(self.frames.pop(number))
            else:
                prefix = path + b"/" if path else b""
                self.frames[number] = entries, wd, inode, prefix, rule, fd
        for tasks in (self._tasks, self.deep):
            tasks[:] = [task for task in map(self._present, tasks) if task is not None]

    def _present(self, task: Task) -> Task | None:
        """The task at the path that it has now; None where it has none."""
        if task.parent <= 0:  # TOP, or a directory without a watch
            return task
        folder = self._table.path(task.parent)
        if folder is None:
            return None
        return replace(task, path=folder + b"/" + task.name if folder else task.name)

    def task_of(self, frame: Frame) -> Task:
        """To have the frame's directory scanned from its beginning."""
        _, wd, _, prefix, rule, _ = frame
        parent, name = self._table.binding(wd) or (TOP, prefix[:-1])
        above = self._table.inode(parent) if parent != TOP else 0
        return Task(parent, above, name, prefix[:-1], rule)


def close(frame: Frame) -> None:
    """Let go of an open directory."""
    frame[0].close()
    os.close(frame[5])
