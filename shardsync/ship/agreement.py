"""Whether the Watchers go by the same settings as the sync process: what they leave out, it lacks.

A Node of a Tree whose Watchers are behind is compared after they have caught up, and not
before: what they left out until then was never journaled.
"""

from __future__ import annotations

import contextlib

from shardsync.clock import Clock
from shardsync.config.marks import tree_mark
from shardsync.config.settings import Settings
from shardsync.errors import StateUnusable
from shardsync.journal.locks import holder, is_held
from shardsync.journal.progress import Progress
from shardsync.journal.reader import JournalReader
from shardsync.journal.state_reader import StateReader
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.ship.served import Served


class Agreement:
    """Reads from the Journals by which settings each is written."""

    def __init__(
        self,
        *,
        state_dir: StateDirectory,
        read: StateReader,
        served: Served,
        clock: Clock,
        log: Log,
    ) -> None:
        self._state_dir = state_dir
        self._read = read
        self._served = served
        self._log = log
        self._said = ChangeOnly(clock=clock)
        self._to_compare: set[str] = set()

    def waiting(self, settings: Settings) -> frozenset[str]:
        """Trees whose Watchers still go by other settings: none of their Nodes is compared yet.

        What a Watcher leaves out until it takes the new excludes up is found by a
        comparison after that, and by none before.
        """
        waiting = set()
        wanted = {tree.name: tree_mark(settings, tree.name) for tree in settings.trees}
        for shard in self._served.plan.observing():
            served = self._served.trees.get(shard.tree)
            if served is None or shard.tree not in wanted:
                continue
            if not is_held(self._state_dir.lock(f"journal-{shard.id}")):
                continue
            if served.settings == settings.tree(shard.tree) or not served.fits(
                settings.tree(shard.tree)
            ):
                continue
            if self._progress(shard.id).settings != wanted[shard.tree]:
                waiting.add(shard.tree)
        if waiting and self._said.is_due(f"{sorted(waiting)}"):
            self._log.info(
                "settings.wait", trees=",".join(sorted(waiting)), until="its Watchers have them"
            )
        return frozenset(waiting)

    def note_begun(self, settings: Settings, tree: str) -> None:
        """A Tree is served from now on: whatever its Watchers go by at this moment."""
        if self._is_watched_by_other(settings, tree):
            self._to_compare.add(tree)
            self._log.warning("settings.watchers_behind", tree=tree, remedy="shardsync reload")

    def compare_again(self, settings: Settings) -> None:
        """Compare the Nodes of Trees whose Watchers have these settings by now, and had not when
        we began: what they left out until then was never journaled.
        """
        for name in sorted(self._to_compare & {tree.name for tree in settings.trees}):
            if self._is_watched_by_other(settings, name):
                continue
            self._to_compare.discard(name)
            rows = self._read.nodes()
            for key, post in self._served.posts.items():
                if key[0] == name and rows[key].contacted:
                    post.station.first_contact.reconcile()
                    post.station.syncer.wake()
            self._log.info("tree.compared_again", tree=name, reason="its Watchers were behind")

    def _is_watched_by_other(self, settings: Settings, tree: str) -> bool:
        """Whether a Watcher at work goes by other settings of this Tree than these, or may."""
        mark = tree_mark(settings, tree)
        for shard in self._served.plan.observing():
            lock = self._state_dir.lock(f"journal-{shard.id}")
            if shard.tree != tree or not is_held(lock):
                continue
            try:
                progress = self._progress(shard.id)
            except StateUnusable:
                # Its Watcher is about to make it anew, and says then.
                return True
            # What another process noted before is not this one's, which is only starting.
            if progress.pid == holder(lock) and progress.settings != mark:
                return True
        return False

    def _progress(self, shard: str) -> Progress:
        """As the Watcher committed it last. Raises StateUnusable."""
        with contextlib.closing(JournalReader(self._state_dir.journal(shard))) as reader:
            return reader.progress()
