"""The directories of one Watcher: which are watched as what, as events and scans tell of them.

Answers the Fold's questions, keeps the table true to the disk, and starts
scans where directories appear. Watches follow the inode, so a directory that
was renamed within the territory comes back from inotify_add_watch under its
old number.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from shardsync.inotify import is_watch_limit
from shardsync.journal.writer import DirectoryRow
from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.forgetting import Forgetting
from shardsync.watch.gathered import Filter, Gathered
from shardsync.watch.leaving import Leaving
from shardsync.watch.mount_points import MountPoints
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.rule import Refused, Rule, Task, refused
from shardsync.watch.scan import Scanner
from shardsync.watch.supply import FREE_WATCHES, WatchSupply
from shardsync.watch.tops import Tops


class Territory:
    """Implements Surroundings on the real inotify instance and disk."""

    def __init__(
        self,
        *,
        watches: WatchSupply,
        table: DirectoryTable,
        scanner: Scanner,
        tops: Tops,
        leaving: Leaving,
        mount_points: MountPoints,
        forgetting: Forgetting,
        gathered: Gathered,
        excluded: Filter,
    ) -> None:
        self.catching_up = False
        self.tops = tops
        self._leaving = leaving
        self._mount_points = mount_points
        self._watches = watches
        self._table = table
        self._scanner = scanner
        self._ground = scanner.ground
        self._forgetting = forgetting
        self._gathered = gathered
        self._excluded = excluded

    # What the Fold asks.

    def path(self, wd: int) -> bytes | None:
        """Path of a directory; None while a catch-up has not come to it: it will look itself."""
        if self.catching_up and not self._table.is_seen(wd):
            return None
        return self._table.path(wd)

    def as_named_now(self, task: Task, wd: int) -> Task:
        """The task under the name that the directory with this watch has now."""
        binding = self._table.binding(wd) if wd else None
        if binding is None:
            return task
        parent, name = binding
        inode = self._table.inode(parent) if parent != TOP else 0
        return replace(task, parent=parent, parent_inode=inode, name=name)

    def missed_directory(self, wd: int) -> None:
        if self._table.knows(wd):
            self._scanner.found.suspects.add(wd)

    def watch_ended(self, wd: int, *, unmounted: bool) -> None:  # noqa: ARG002 (see below)
        """Nothing is journaled here: a deletion was told by the parent, an unmount is none.

        What lies at the mount point after an unmount, mountinfo tells (MountPoints).
        """
        if not self._table.knows(wd):
            return
        parent, name = self._table.binding(wd) or (0, b"")
        self._leaving.forget(wd)
        if parent == TOP:
            self.tops.ended(name, wd)

    def attributes_changed(self, wd: int) -> None:
        """Of a prefix, too: the Shard of the directory above may not be there to tell."""
        parent, name = self._table.binding(wd) or (0, b"")
        if parent == TOP:
            self._gathered.attributes(name, is_dir=True)

    def directory_moved(self, wd: int) -> None:
        path = self._table.path(wd)
        if path is None:
            return
        found = self._ground.look(path)
        if found is None or found.st_ino != self._table.inode(wd):
            self._lose(wd)

    def directory_came(self, wd: int, name: bytes, *, moved: bool, origin: bytes | None) -> None:
        folder = self._table.path(wd)
        if folder is None:
            return
        path = folder + b"/" + name if folder else name
        if self._excluded.excludes(path, True) or self._scanner.prefixes.is_foreign(path):
            self.tops.has_news = self.tops.has_news or path in self._scanner.prefixes.mine
            return
        above = self._ground.look(folder)
        if above is None or above.st_ino != self._table.inode(wd):
            # The parent itself was renamed: this path is another place until its event comes.
            self.missed_directory(wd)
            return
        if self.catching_up or self._forgetting.is_open:
            # Of what it takes the place of, no event may have told that it went.
            self._gathered.tree(path)
        rule = self._scanner.sub_roots.rule_of_newcomers(device=above.st_dev, everything=not moved)
        task = Task(wd, above.st_ino, name, path, rule)
        if self._scanner.prefixes.touches_foreign(path, origin):
            task = replace(task, rule=replace(rule, whole=True))
        self._settle(task, created=not moved)

    # What the Watcher asks.

    @property
    def directories(self) -> int:
        """How many are watched."""
        return len(self._table)

    def begin_catch_up(self, rule: Rule) -> None:
        """Scan all prefixes anew, binding every watch anew."""
        self.take_watches()
        self.tops.look_again()
        self._scanner.agenda.abandon()
        self._scanner.found.suspects.clear()
        self._scanner.found.unwatched.clear()
        closed = [each.task for each in self._scanner.found.refused.values()]
        self._scanner.found.refused.clear()
        self._table.begin_round()
        self.catching_up = True
        for prefix in self.tops:
            self._scanner.agenda.begin(Task(TOP, 0, prefix, prefix, rule))
        for task in closed:
            again = replace(rule, was_refused=True, sub_root=task.rule.sub_root)
            again = replace(again, device=task.rule.device, only_directories=False)
            self._scanner.agenda.begin(replace(task, rule=again), last=True)
        for task in self._mount_points.apart.values():
            own = task.rule
            apart = replace(rule, watched=False, sub_root=own.sub_root, device=own.device)
            self._scanner.agenda.begin(replace(task, rule=apart))

    def end_catch_up(self) -> None:
        """Give up the watches that the scan did not come across."""
        self.catching_up = False
        for wd in self._table.unseen():
            self._leaving.give_up(wd)
        self.tops.find()

    def departed(self, row: DirectoryRow, path: bytes | None) -> None:
        """A directory is not where it was remembered, and its `path` was, if that says anything.

        Journaled as `tree`, not only as an entry that its directory lacks: should another be
        made in its place before that is shipped, the Nodes still have the old one's. What went
        to another Shard by the Plan has not gone.
        """
        self._leaving.gone.append(row[:2])
        if path and self._scanner.prefixes.owns(path):
            self._gathered.tree(path)

    def spare_watches(self) -> None:
        """Once watches ran out: give FREE_WATCHES of ours back, and poll those directories too.

        What they told of and was not read yet, a poll finds: it looks at what
        changed since the pass before began, and the Watermark waits for it.
        """
        found = self._scanner.found
        if not found.unwatched or self._watches.is_exhausted:
            return
        self._watches.exhaust()
        above = {task.parent for task in found.unwatched.values()}
        above |= {each.task.parent for each in found.refused.values()}
        busy = above | self._scanner.agenda.busy() | found.suspects
        for wd in self._table.last_leaves(FREE_WATCHES, but=busy):
            path, binding = self._table.path(wd), self._table.binding(wd)
            if path is None or binding is None:
                continue
            device = self._device(path)
            rule = replace(self._scanner.sub_roots.rule_of_newcomers(device=device), whole=True)
            parent, name = binding
            found.unwatched[path] = Task(parent, self._table.inode(parent), name, path, rule)
            self._scanner.polled += 1
            self._watches.remove(wd)
            self._table.forget(wd)  # remembered all the same: it is where it was

    def _device(self, path: bytes) -> int:
        found = self._ground.look(path)
        return found.st_dev if found is not None else 0

    def take_watches(self) -> None:
        """Try to watch all from now on, until watches run out again."""
        self._watches.renew()

    def look_at_suspects(self) -> None:
        """List anew the directories in which a directory may have been missed."""
        suspects = self._scanner.found.suspects
        for wd in list(suspects):
            suspects.discard(wd)
            path = self.path(wd)
            if path is None:
                if self._table.knows(wd):
                    suspects.add(wd)  # until it has a path again, or is given up
                continue
            found = self._ground.look(path)
            if found is None or found.st_ino != self._table.inode(wd):
                self._lose(wd)
                suspects.add(wd)
                continue
            self._list_suspect(wd, path, found)

    def live_suspects(self) -> bool:
        """Whether a directory inside the territory still has to be listed anew."""
        return any(self.path(wd) is not None for wd in self._scanner.found.suspects)

    def follow(self, prefixes: Prefixes) -> None:
        """Own other prefixes from now on: drop what went, take what came as `tree`."""
        old, self._scanner.prefixes = self._scanner.prefixes, prefixes
        prefixes.set_apart(old.apart)
        self._mount_points.find_apart()
        for prefix in prefixes.foreign - old.foreign:
            wd = self._watches.of(prefix)
            if wd:
                self._leaving.leave(wd)
        self.tops.follow(prefixes.mine)
        for prefix in (old.foreign | old.mine) - prefixes.foreign - prefixes.mine:
            if prefixes.owns(prefix):
                self._take_over(prefix)

    def _take_over(self, prefix: bytes) -> None:
        folder, _, name = prefix.rpartition(b"/")
        wd = self._watches.at(folder)
        if wd:
            self._gathered.tree(prefix)
            self.directory_came(wd, name, moved=True, origin=None)

    def _settle(self, task: Task, *, created: bool) -> None:
        """Bind or scan the directory that is at the task's path now."""
        try:
            wd = self._ground.watch(task.path, self._watches.add)
        except OSError as error:
            self._not_watched(task, error)
            return
        self._scanner.agenda.displace(task.path, wd)
        before = self._table.binding(wd)
        # A scan under way took what lay at the path for what lies in the directory; and of one
        # that was outside, what lies in it may have been given up.
        mixed_up = (self._scanner.overlaps and not created) or before is None
        must_scan = mixed_up or task.rule.whole
        seen = not self.catching_up or self._table.is_seen(wd)
        if seen and not must_scan and before == (task.parent, task.name):
            return
        whole = replace(task, rule=replace(task.rule, whole=True))
        if not seen:
            self._scanner.agenda.begin(whole)
        elif not self._table.knows(wd):
            self._scanner.agenda.begin(task)
        elif self._bind_anew(wd, task, created=created) and must_scan:
            self._scanner.agenda.begin(whole)

    def _bind_anew(self, wd: int, task: Task, *, created: bool) -> bool:
        """Bind a known directory to the task's place; False where it is gone from there."""
        found = self._ground.look(task.path)
        if found is None:
            self.missed_directory(task.parent)
            return False
        if created:  # not the directory that was made: one that was moved here since
            self._gathered.tree(task.path)
        self._table.bind(wd, task.parent, task.name, found.st_ino)
        self._scanner.agenda.has_moved = True
        row = (task.rule.sub_root, found.st_ino, task.parent_inode, task.name)
        self._scanner.found.directories.append(row)
        return True

    def _list_suspect(self, wd: int, path: bytes, found: os.stat_result) -> None:
        rule = self._scanner.sub_roots.rule_of_newcomers(device=found.st_dev)
        try:
            names = self._ground.subdirectories(path)
        except OSError:
            self._scanner.found.suspects.add(wd)
            return
        for name in names:
            child = path + b"/" + name if path else name
            if self._excluded.excludes(child, True) or self._scanner.prefixes.is_foreign(child):
                continue
            self._settle_missed(Task(wd, found.st_ino, name, child, rule))

    def _settle_missed(self, task: Task) -> None:
        try:
            known = self._table.binding(self._ground.watch(task.path, self._watches.add))
        except OSError as error:
            self._not_watched(task, error)
            return
        if known != (task.parent, task.name):
            self._gathered.tree(task.path)
            self._settle(task, created=False)

    def _not_watched(self, task: Task, error: OSError) -> None:
        if is_watch_limit(error):
            self._scanner.found.unwatched[task.path] = task
        elif error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            self.missed_directory(task.parent)
        else:
            self._scanner.found.refused[task.path] = Refused(refused(task), error.errno or 0)

    def _lose(self, wd: int) -> None:
        """It is not where it should be: moved away, or only one of those above it was renamed.

        In that case no event of its own will tell, so the one above is listed again.
        Events of what was in it may be unread, and from now on they have no path.
        """
        binding, path = self._table.binding(wd), self._table.path(wd)
        if path is not None and binding is not None and binding[0] != TOP:
            self._gathered.tree(path)  # what becomes of a root or a prefix, others look after
        self._leaving.leave(wd)
        if binding is not None:
            self.missed_directory(binding[0])
