"""Scanning: going through the directories of a Shard, each watched first, then listed.

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

from shardsync.beneath import LISTED
from shardsync.clock import Clock
from shardsync.watch.agenda import OPEN_LEVELS, Agenda, Frame, close
from shardsync.watch.directories import DirectoryTable
from shardsync.watch.entering import Entering, Watches
from shardsync.watch.gathered import Filter, Gathered
from shardsync.watch.ground import Ground
from shardsync.watch.judging import Judge
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.rule import Found, Rule, Task
from shardsync.watch.sub_roots import SubRoots

_ENTRIES_A_LOOK = 0x7F  # the clock is looked at once in 128 entries
_TYPE = 0o170000
_DIRECTORY = stat.S_IFDIR
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
_NO_SUBDIRECTORIES = 2
"""Link count of a directory without any: its name and its own ".", each ".." below adds one."""


class Scanner:
    """Scans what its Agenda holds, in steps.

    `overlaps`: it went by paths while events were not read that may tell of their
    renames; whoever reads all of them unsets it. `done`: how many directories it
    went through, `polled`: those of them without a watch.
    """

    def __init__(
        self,
        *,
        ground: Ground,
        watches: Watches,
        table: DirectoryTable,
        agenda: Agenda,
        judge: Judge,
        entering: Entering,
        sub_roots: SubRoots,
        found: Found,
        gathered: Gathered,
        excluded: Filter,
        clock: Clock,
        prefixes: Prefixes,
    ) -> None:
        self.overlaps = False
        self.done = 0
        self.polled = 0
        self.ground = ground
        self.agenda = agenda
        self.sub_roots = sub_roots
        self.found = found
        self.prefixes = prefixes
        self._root: tuple[int, int] | None = None
        self._watches = watches
        self._table = table
        self._judge = judge
        self._entering = entering
        self._gathered = gathered
        self._excluded = excluded
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether something is left to scan."""
        return self.agenda.is_open

    @property
    def has_news(self) -> bool:
        """Whether it came across what nobody had told of."""
        return self.found.has_news

    def recall(self, known: dict[bytes, int]) -> None:
        """What is journaled already: path -> up to which ctime. For the catch-up."""
        self._judge.recall(known)

    def step(self, seconds: float) -> bool:
        """Scan for about that long. Returns whether all is done."""
        deadline = self._clock.monotonic() + seconds
        self.agenda.follow_moves()
        self.overlaps = self.overlaps or self.is_open
        self._look_at_root()
        try:
            self._go_on(deadline)
        finally:
            os.chdir(b"/")  # a process that stands in the root keeps its file system busy
        if self.is_open:
            return False
        self._judge.tell_listings()
        return True

    def _look_at_root(self) -> None:
        """What is open below another root than this one is begun anew, by its path."""
        found = self.ground.look(b"") if self.is_open else None
        root = None if found is None else (found.st_dev, found.st_ino)
        if root != self._root:
            self._root = root
            self.agenda.begin_anew()

    def _go_on(self, deadline: float) -> None:
        while self.is_open:
            task = self.agenda.take()
            if task is not None:
                frame = self._enter(task)
                if frame is not None:
                    self.agenda.frames.append(frame)
            else:
                self._walk(deadline)
            if self._clock.monotonic() >= deadline:
                break

    def _walk(self, deadline: float) -> None:
        """Go on with the open directories until all are listed or time is up."""
        while self.agenda.frames:
            try:
                if not self._list(deadline):
                    return
            except OSError as error:
                self._unreadable(self.agenda.frames.pop(), error)

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
        frames, found_directories = self.agenda.frames, self.found.directories
        add, bind, lstat, scandir = self._watches.add, self._table.bind, os.lstat, os.scandir
        open_, close_fd, fstat, fchdir = os.open, os.close, os.fstat, os.fchdir
        listed, suspects = self.prefixes.listed, self._excluded.suspects
        excludes, gathered, known = self._excluded.excludes, self._gathered, self._judge.known
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
            goes_below = is_plain and len(frames) < OPEN_LEVELS and len(prefix) < near_limit
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
                        close_fd(below)
                if everything:
                    gathered.entry(child, is_dir=True)
                task = Task(wd, inode, name, child, rule)
                if len(frames) >= OPEN_LEVELS:
                    self.agenda.deep.append(task)
                    continue
                entered = self._enter(task, fd)
                if entered is not None:
                    frames.append(entered)
                    break
            else:
                frames.pop()
                close_fd(fd)
                if standing == fd:  # the number may be another directory's soon
                    standing = -1
                count += 1
        return True

    def _unreadable(self, frame: Frame, error: OSError) -> None:
        """A listing that broke off: its directory is tried again with the next poll."""
        close(frame)
        self._entering.refuse(self.agenda.task_of(frame), error, frame[1])

    def _enter(self, task: Task, folder: int | None = None) -> Frame | None:
        frame = self._entering.enter(task, folder)
        if frame is not None:
            self.done += 1
            if not frame[1]:
                self.polled += 1
        return frame


def _open_same(name: bytes, found: os.stat_result) -> int:
    """The directory `name`, where the process stands, if it is `found` still. Raises OSError."""
    fd = os.open(name, LISTED)
    if os.path.samestat(os.fstat(fd), found):
        return fd
    os.close(fd)
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)
