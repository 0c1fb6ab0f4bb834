"""Scanning: watch a directory first, then look at what it holds, then go below.

One loop serves the start, the catch-up after a gap, directories that appear
while following, and the polling of what cannot be watched. It works in steps,
so that the kernel's queue is read in between, and keeps one open directory a
level, so that a directory of a million directories costs no memory. From there
it goes by bare names: the kernel walks no path, and no symlink leads it out.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from shardsync.beneath import LISTED
from shardsync.clock import Clock
from shardsync.failpoints import Point, reach
from shardsync.inotify import is_watch_limit
from shardsync.journal.writer import DirectoryRow
from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.gathered import Filter, Gathered
from shardsync.watch.ground import Ground, place
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.rule import COARSE_US, Found, Refused, Rule, Task, refused, with_files

_OPEN_LEVELS = 64
_LISTINGS_HELD = 50_000
"""Paths of directories that a pass holds back, some 10 MB; what is beyond is told at once."""
_ENTRIES_A_LOOK = 0x7F  # the clock is looked at once in 128 entries
_TYPE = 0o170000
_DIRECTORY = stat.S_IFDIR
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
_NO_SUBDIRECTORIES = 2
"""Link count of a directory without any: its name and its own ".", each ".." below adds one."""
_COUNTING_LINKS = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs"})
"""File systems whose directories count their subdirectories; btrfs, overlay and FUSE do not."""


class Watches(Protocol):
    """Where watches come from."""

    def add(self, path: bytes) -> int:
        """Watch the directory at a path of the kernel's. Raises OSError."""
        ...


class Memory(Protocol):
    """What the Journal remembers of directories."""

    def directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """(inode of the parent, name) of a directory as last seen."""
        ...

    def elders_directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """The same as the Shards remember it from which this one takes over."""
        ...

    def sub_root(self, path: bytes, identity: str) -> int:
        """The number of the sub-root at `path`."""
        ...


class _Listing(Protocol):
    """What os.scandir returns for a descriptor: names are the bytes as os.fsdecode makes them."""

    def __iter__(self) -> Iterator[os.DirEntry[str]]: ...

    def close(self) -> None: ...


_Frame = tuple[_Listing, int, int, bytes, Rule, int]
"""A directory being listed: (entries, watch, inode, path with a "/" behind it, Rule, descriptor).

The entries are looked at by that descriptor, so it stays open as long as they do.
"""


class Scanner:
    """Scans what `begin` names, in steps.

    `sub_roots`: device -> number; `tops`: watch -> number, of the directories
    that begin a sub-root or a prefix. `overlaps`: it went by paths while
    events were not read that may tell of their renames; whoever reads all of
    them unsets it. `has_moved`: to be set where a watch stands for another
    place than before, or for none.
    """

    def __init__(
        self,
        *,
        ground: Ground,
        watches: Watches,
        table: DirectoryTable,
        memory: Memory,
        gathered: Gathered,
        excluded: Filter,
        clock: Clock,
        prefixes: Prefixes,
        identify: Callable[[int], str],
    ) -> None:
        self.found = Found()
        self.known: dict[bytes, int] = {}
        self.known_parents: dict[bytes, int] = {}
        self.sub_roots: dict[int, int] = {}
        self.tops: dict[int, int] = {}
        self.has_news = False
        self.overlaps = False
        self.has_moved = False
        self.done = 0
        self.polled = 0
        self.ground = ground
        self._root: tuple[int, int] | None = None
        self._watches = watches
        self._table = table
        self._memory = memory
        self._gathered = gathered
        self._excluded = excluded
        self._clock = clock
        self.prefixes = prefixes
        self._identify = identify
        self._counts_links: dict[int, bool] = {}
        self._tasks: list[Task] = []
        self._deep: list[Task] = []
        self._frames: list[_Frame] = []
        self._listings: dict[bytes, None] = {}

    @property
    def is_open(self) -> bool:
        """Whether something is left to scan."""
        return bool(self._tasks or self._frames or self._deep)

    def busy(self) -> set[int]:
        """Watches of the directories in which something is still to be scanned."""
        parents = {task.parent for task in (*self._tasks, *self._deep)}
        return parents | {frame[1] for frame in self._frames}

    def begin(self, task: Task, *, last: bool = False) -> None:
        """Scan this directory too: before what was asked for earlier, or after all of it."""
        if last:
            self._deep.insert(0, task)
        else:
            self._tasks.append(task)

    def abandon(self) -> None:
        """Forget all that was asked for."""
        self._tasks.clear()
        self._deep.clear()
        while self._frames:
            _close(self._frames.pop())

    def displace(self, path: bytes, wd: int) -> None:
        """Another directory than `wd` was at `path`: what is listed there is not its content."""
        for number, frame in reversed([*enumerate(self._frames)]):
            if frame[3] == path + b"/" and frame[1] != wd:
                _close(self._frames.pop(number))

    def _follow_moves(self) -> None:
        """Go on under their present paths with what was begun under others."""
        if not self.has_moved:
            return
        self.has_moved = False
        for number, frame in reversed([*enumerate(self._frames)]):
            entries, wd, inode, prefix, rule, fd = frame
            path = self._table.path(wd) if wd else prefix[:-1]
            if path is None:
                _close(self._frames.pop(number))
            else:
                prefix = path + b"/" if path else b""
                self._frames[number] = entries, wd, inode, prefix, rule, fd
        for tasks in (self._tasks, self._deep):
            tasks[:] = [task for task in map(self._present, tasks) if task is not None]

    def _present(self, task: Task) -> Task | None:
        """The task at the path that it has now; None where it has none."""
        if task.parent <= 0:  # TOP, or a directory without a watch
            return task
        folder = self._table.path(task.parent)
        if folder is None:
            return None
        return replace(task, path=folder + b"/" + task.name if folder else task.name)

    def recall(self, known: dict[bytes, int]) -> None:
        """What is journaled already: path -> up to which ctime. For the catch-up."""
        self.known = known
        parents: dict[bytes, int] = {}
        self.known_parents = parents
        for path, observed in known.items():
            folder = path.rpartition(b"/")[0]
            if parents.get(folder, 0) < observed:
                parents[folder] = observed

    def rule_of_newcomers(self, *, device: int, everything: bool = False) -> Rule:
        """For a subtree that appears while following: made just now, or moved in just now."""
        return Rule(
            everything=everything,
            since_us=self._clock.wall_us() - COARSE_US,
            unknown=True,
            sub_root=self.sub_roots.get(device, 0),
            device=device,
        )

    def step(self, seconds: float) -> bool:
        """Scan for about that long. Returns whether all is done."""
        deadline = self._clock.monotonic() + seconds
        self._follow_moves()
        self.overlaps = self.overlaps or self.is_open
        self._look_at_root()
        try:
            self._go_on(deadline)
        finally:
            os.chdir(b"/")  # a process that stands in the root keeps its file system busy
        if self.is_open:
            return False
        self._tell_listings()
        return True

    def _look_at_root(self) -> None:
        """What is open below another root than this one is begun anew, by its path."""
        found = self.ground.look(b"") if self.is_open else None
        root = None if found is None else (found.st_dev, found.st_ino)
        if root != self._root:
            self._root = root
            while self._frames:
                task = self._task_of(self._frames[-1])
                self._tasks.append(replace(task, rule=replace(task.rule, whole=True)))
                _close(self._frames.pop())

    def _go_on(self, deadline: float) -> None:
        while self.is_open:
            # A Shard of 50,000 prefixes must not hold 50,000 directories open.
            if not self._frames or (self._tasks and len(self._frames) < _OPEN_LEVELS):
                frame = self._enter((self._tasks or self._deep).pop())
                if frame is not None:
                    self._frames.append(frame)
            else:
                self._walk(deadline)
            if self._clock.monotonic() >= deadline:
                break

    def _walk(self, deadline: float) -> None:
        """Go on with the open directories until all are listed or time is up."""
        while self._frames:
            try:
                if not self._list(deadline):
                    return
            except OSError as error:
                self._unreadable(self._frames.pop(), error)

    def _list(self, deadline: float) -> bool:  # noqa: C901, PLR0912, PLR0915 (the hot loop)
        """List the innermost open directory, and those below it; False where time is up.

        All on local names and in one function: a call in between for each entry
        and a frame object for each directory cost more than twice as much. Of a
        directory that need not be listed only the watch and lstat(2) are left, by
        its bare name from where the process stands, 3 us; else it is opened once,
        as no symlink, and its files are looked at from there. Whatever is not plain
        (changed, on another device, refused) goes through `_enter`, which begins
        anew: adding a watch and binding it are idempotent. Raises OSError where
        the listing itself fails.
        """
        frames, found_directories = self._frames, self.found.directories
        add, bind, lstat, scandir = self._watches.add, self._table.bind, os.lstat, os.scandir
        open_, close, fstat, fchdir = os.open, os.close, os.fstat, os.fchdir
        listed, suspects = self.prefixes.listed, self._excluded.suspects
        excludes, gathered, known = self._excluded.excludes, self._gathered, self.known
        near_limit = self.ground.near_limit
        monotonic = self._clock.monotonic
        current: Rule | None = None
        standing = -1  # the descriptor of the frame in whose directory the process stands
        count = 1
        while frames:
            entries, wd, inode, prefix, rule, fd = frames[-1]
            if rule is not current:
                current = rule
                everything, unknown, since = rule.everything, rule.unknown, rule.since_us
                is_plain = rule.whole and rule.watched and not everything
                since_ns, device, sub_root = 1000 * since, rule.device, rule.sub_root
                no_files = rule.only_directories and not everything
                has_leaves = no_files and rule.counts_links
            if not count & _ENTRIES_A_LOOK and monotonic() >= deadline:
                return False
            goes_below = is_plain and len(frames) < _OPEN_LEVELS and len(prefix) < near_limit
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    if everything:
                        name = entry.name.encode(_ENCODING, _ERRORS)
                        self.found.appeared.append(prefix + name)
                    elif not no_files:
                        try:
                            changed = entry.stat(follow_symlinks=False).st_ctime_ns
                        except OSError:
                            continue  # gone since: the watch came first, so its event is queued
                        if changed >= since_ns:
                            child = prefix + entry.name.encode(_ENCODING, _ERRORS)
                            if known.get(child, 0) < changed // 1000:
                                gathered.entry(child)
                    count += 1
                    if not count & _ENTRIES_A_LOOK and monotonic() >= deadline:
                        return False
                    continue
                name = entry.name.encode(_ENCODING, _ERRORS)
                child = prefix + name
                if child in listed or (suspects(name) and excludes(child, True)):
                    continue
                if goes_below:
                    below = -1
                    try:
                        if standing != fd:
                            fchdir(fd)
                            standing = fd
                        new = add(name)
                        if has_leaves:
                            found = lstat(name)
                            is_leaf = found.st_nlink == _NO_SUBDIRECTORIES
                        else:
                            below, is_leaf = open_(name, LISTED), False
                            found = fstat(below)
                        if (
                            found.st_ctime_ns < since_ns
                            and found.st_dev == device
                            and found.st_mode & _TYPE == _DIRECTORY
                        ):
                            if not is_leaf:
                                if below < 0:
                                    below = _open_same(name, found)
                                listing = scandir(below)
                            bind(new, wd, name, found.st_ino)
                            if unknown:
                                found_directories.append((sub_root, found.st_ino, inode, name))
                            self.done += 1
                            count += 1
                            if is_leaf:
                                if not count & _ENTRIES_A_LOOK and monotonic() >= deadline:
                                    return False
                                continue
                            frame = listing, new, found.st_ino, child + b"/", rule, below
                            frames.append(frame)
                            break
                    except OSError:
                        pass  # _enter meets it again, and knows what to do
                    if below >= 0:
                        close(below)
                if everything:
                    gathered.entry(child, is_dir=True)
                task = Task(wd, inode, name, child, rule)
                if len(frames) >= _OPEN_LEVELS:
                    self._deep.append(task)
                    continue
                entered = self._enter(task, fd)
                if entered is not None:
                    frames.append(entered)
                    break
            else:
                frames.pop()
                close(fd)
                if standing == fd:  # the number may be another directory's soon
                    standing = -1
                count += 1
        return True

    def _unreadable(self, frame: _Frame, error: OSError) -> None:
        """A listing that broke off: its directory is tried again with the next poll."""
        _close(frame)
        self._refused(self._task_of(frame), error, frame[1])

    def _task_of(self, frame: _Frame) -> Task:
        _, wd, _, prefix, rule, _ = frame
        parent, name = self._table.binding(wd) or (TOP, prefix[:-1])
        above = self._table.inode(parent) if parent != TOP else 0
        return Task(parent, above, name, prefix[:-1], rule)

    def _enter(self, task: Task, folder: int | None = None) -> _Frame | None:
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
                rule = self._sub_root(rule, task.path, found)
            fitting = self._bind(wd, task, rule, found.st_ino) if wd else rule
            if fitting is not None:
                below = self._judge(task, fitting, found)
                path = task.path + b"/" if task.path else b""
                frame = os.scandir(fd), wd, found.st_ino, path, below, fd
        except OSError as error:
            self._refused(task, error, wd)
        if frame is None:
            if fd >= 0:
                os.close(fd)
            return None
        if below.was_refused:
            frame = *frame[:4], self._admit(task, below, found), fd
        self.done += 1
        if not wd:
            self.polled += 1
        return frame

    def _open(self, task: Task, folder: int | None) -> int:
        """The task's directory, to be listed. Raises OSError."""
        if folder is None:
            return self.ground.open(task.path)
        self.ground.check(task.path)
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
        self.found.unwatched[task.path] = with_files(task)
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
            self.tops[wd] = rule.sub_root
        if rule.whole:
            return rule
        if before == (task.parent, task.name):
            return None
        if not is_known:
            return rule
        self._gathered.tree(task.path)
        since = self._clock.wall_us() - COARSE_US
        return replace(rule, everything=False, whole=True, since_us=since)

    def _judge(self, task: Task, rule: Rule, found: os.stat_result) -> Rule:
        """Journal the directory itself where it changed; returns the rule for what is below."""
        changed = found.st_ctime_ns // 1000
        row = (rule.sub_root, found.st_ino, task.parent_inode, task.name)
        if rule.unknown:
            self.found.directories.append(row)
            if changed >= rule.since_us and not rule.everything:
                self._gather_unknown(task, row)
            return rule
        if changed < rule.since_us or self._is_explained(task.path, changed, rule):
            return rule
        self.has_news = True
        before = self._memory.directory(rule.sub_root, found.st_ino)
        if before == row[2:]:
            self._hold_listing(task.path)
            return rule
        self.found.directories.append(row)
        origin = self._origin(rule.sub_root, before) if before else None
        self._gathered.tree(task.path, moved_from=origin)
        if origin:  # where another one may be by now, and the Nodes have what this one was
            self._gathered.tree(origin)
        # The Syncer looks at all of it after now; only what changes from now on is our business.
        since = max(rule.since_us, self._clock.wall_us() - COARSE_US)
        return replace(rule, unknown=True, since_us=since) if before is None else rule

    def _hold_listing(self, path: bytes) -> None:
        """It gained or lost an entry, which may be a directory that the scan has yet to come to.

        Told of before that, the Nodes would lose it under its old name, and be sent it under the
        new one.
        """
        if len(self._listings) >= _LISTINGS_HELD:
            self._tell_listings()
        self._listings[path] = None

    def _tell_listings(self) -> None:
        """Journal the directories that gained or lost an entry, behind all that came."""
        for path in self._listings:
            self._gathered.listing(path)
            self._gathered.attributes(path, is_dir=True)
        self._listings.clear()

    def _admit(self, task: Task, rule: Rule, found: os.stat_result) -> Rule:
        """It could not be entered before: all of it counts as changed, and as never seen."""
        self._gathered.tree(task.path)
        self.found.directories.append((rule.sub_root, found.st_ino, task.parent_inode, task.name))
        since = self._clock.wall_us() - COARSE_US
        return replace(rule, was_refused=False, unknown=True, since_us=since)

    def _gather_unknown(self, task: Task, row: DirectoryRow) -> None:
        """A changed directory that only the Shard which had it before can know."""
        before = self._memory.elders_directory(row[0], row[1])
        if before is not None and before in {row[2:], (0, task.path), self._place(task)}:
            self._hold_listing(task.path)
        else:
            self._gathered.tree(task.path)

    def _place(self, task: Task) -> tuple[int, bytes] | None:
        """Of a prefix, as the Shard saw it that had the directory above too."""
        if task.parent != TOP:
            return None
        folder, _, name = task.path.rpartition(b"/")
        found = self.ground.look(folder)
        return None if found is None else (found.st_ino, name)

    def _is_explained(self, path: bytes, changed: int, rule: Rule) -> bool:
        """After a clean stop all events before it were journaled, so one of them is why."""
        if changed >= rule.explained_until_us:
            return False
        return max(self.known.get(path, 0), self.known_parents.get(path, 0)) >= changed

    def _origin(self, sub_root: int, row: tuple[int, bytes]) -> bytes | None:
        """The path that a directory had, from what is remembered of its parents: a hint."""
        parts: list[bytes] = []
        seen: set[int] = set()
        parent, name = row
        while parent and parent not in seen:
            parts.append(name)
            seen.add(parent)
            above = self._memory.directory(sub_root, parent)
            if above is None:
                return None
            parent, name = above
        if name:
            parts.append(name)
        parts.reverse()
        return b"/".join(parts)

    def _sub_root(self, rule: Rule, path: bytes, found: os.stat_result) -> Rule:
        """Another device: inodes below belong to a file system of their own."""
        number = self.sub_roots.get(found.st_dev)
        if number is None:
            identity = self._identify(found.st_dev)
            self._counts_links[found.st_dev] = identity.partition(" ")[0] in _COUNTING_LINKS
            number = self._memory.sub_root(os.fsencode(identity), identity)
            self.sub_roots[found.st_dev] = number
        unknown = rule.unknown or self._memory.directory(number, found.st_ino) is None
        if unknown and not rule.unknown:  # mounted, or replaced, while nobody looked
            self._gathered.tree(path)
        return replace(
            rule,
            sub_root=number,
            device=found.st_dev,
            unknown=unknown,
            counts_links=self._counts_links[found.st_dev],
        )

    def _refused(self, task: Task, error: OSError, wd: int) -> None:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            if task.parent != TOP:
                self.found.suspects.add(task.parent)
            else:
                # A prefix that is gone, and all below it: no other directory here tells.
                self.has_news = True
            return
        self.found.refused[task.path] = Refused(refused(task), error.errno or 0, wd)
        self._forget(task.path)

    def _forget(self, path: bytes) -> None:
        """Should it be entered by another process than this, it is to look new to that one."""
        found = self.ground.look(path)
        if found is not None:
            key = (self.sub_roots.get(found.st_dev, 0), found.st_ino)
            if self._memory.directory(*key) is not None:
                self.found.forgotten.append(key)


def _open_same(name: bytes, found: os.stat_result) -> int:
    """The directory `name`, where the process stands, if it is `found` still. Raises OSError."""
    fd = os.open(name, LISTED)
    if os.path.samestat(os.fstat(fd), found):
        return fd
    os.close(fd)
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)


def _close(frame: _Frame) -> None:
    frame[0].close()
    os.close(frame[5])
