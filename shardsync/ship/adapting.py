"""Bringing what is served to what the settings ask for; whatever fits already goes on undisturbed.

The settings may change while the sync process runs, and by the hour with their windows.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine

from shardsync.clock import Clock, rfc3339
from shardsync.config.marks import settings_mark
from shardsync.config.settings import Settings
from shardsync.errors import StateUnusable
from shardsync.journal.state_writer import StateWriter
from shardsync.log import ChangeOnly, Log
from shardsync.ship.agreement import Agreement
from shardsync.ship.assembly import Assembly
from shardsync.ship.observer import ShipObserver
from shardsync.ship.operator import Operator
from shardsync.ship.post import Post, ServedTree
from shardsync.ship.roster import compare_roster
from shardsync.ship.served import Served
from shardsync.ship.slots import RsyncSlots
from shardsync.ship.windows import as_of_now, window_columns

_ADAPT_SECONDS = 2.0


class Adapting:
    """Call `adapt` once, then `run`; `take` has other settings. `begin`: starts a task."""

    def __init__(
        self,
        *,
        settings: Settings,
        state: StateWriter,
        served: Served,
        assembly: Assembly,
        agreement: Agreement,
        operator: Operator,
        observer: ShipObserver,
        begin: Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]],
        stopping: asyncio.Event,
        clock: Clock,
        log: Log,
    ) -> None:
        self._settings = settings
        self._state = state
        self._served = served
        self._assembly = assembly
        self._agreement = agreement
        self._operator = operator
        self._observer = observer
        self._begin = begin
        self._stopping = stopping
        self._clock = clock
        self._log = log
        self._news = asyncio.Event()
        self._said = ChangeOnly(clock=clock)
        self.slots = self._new_slots()
        self._big_turns = self._new_big_turns()

    def take(self, settings: Settings) -> None:
        """Serve what these ask for from now on, as soon as `run` comes to it."""
        self._settings = settings
        self._news.set()

    def stop(self) -> None:
        """Have `run` see that it is to end."""
        self._news.set()

    async def run(self) -> None:
        """Adapt whenever there are other settings, and every other second. Until stopped."""
        while not self._stopping.is_set():
            self._news.clear()
            try:
                await self.adapt()
            except StateUnusable as error:
                if self._said.is_due(str(error)):
                    self._log.warning("settings.delayed", error=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _ADAPT_SECONDS)

    async def adapt(self) -> None:
        """Bring what is served to what the settings ask for; whatever fits already goes on.

        Idempotent, so that whatever kept it from its end is made up for by the next call.
        Crash safety: a Node's rows are renamed or dropped after it stopped, each in one
        transaction; the mark is noted last.
        """
        settings = self._settings
        waiting = self._agreement.waiting(settings)
        self._follow_windows(settings)
        unfit = [
            post
            for key, post in self._served.posts.items()
            if key[0] not in waiting and not self._fits(post, settings)
        ]
        await asyncio.gather(*(self._close_post(post) for post in unfit))
        await self._drop_trees(settings, waiting)
        if self._stopping.is_set() or settings is not self._settings:
            return
        if any(post.sync.max_rsyncs != settings.sync.max_rsyncs for post in unfit):
            self.slots = self._new_slots()
            self._big_turns = self._new_big_turns()
        self._muster(settings, waiting)
        self._fill_posts(settings, waiting)
        self._follow_windows(settings)
        self._agreement.compare_again(settings)
        if not waiting:
            self._note_settings(settings)

    def _fits(self, post: Post, settings: Settings) -> bool:
        wanted = {node.key: node for node in settings.nodes}.get(post.node.key)
        trees = {tree.name: tree for tree in settings.trees}
        return (
            wanted is not None
            and (post.node, post.window) == as_of_now(wanted, self._clock.wall_us())
            and post.sync == settings.sync
            and post.tree.fits(trees.get(post.node.tree))
        )

    def _follow_windows(self, settings: Settings) -> None:
        """Begin and end the pauses that are due by the hour."""
        rows = self._state.read.nodes()
        now = self._clock.wall_us()
        for node in settings.nodes:
            row = rows.get(node.key)
            columns = window_columns(row, node.windows, now) if row is not None else {}
            if columns:
                self._state.set_node(node.key, **columns)
                until = rfc3339(int(str(columns["window_pause"])) or None) or "-"
                self._log.info("node.window", tree=node.tree, node=node.name, paused_until=until)
                if node.key in self._served.posts:
                    self._served.posts[node.key].station.syncer.wake()

    async def _drop_trees(self, settings: Settings, waiting: frozenset[str]) -> None:
        """Let go of Trees that are gone or have another root; take up the others' settings."""
        wanted = {tree.name: tree for tree in settings.trees}
        for name, tree in list(self._served.trees.items()):
            if name in waiting:
                continue
            if tree.fits(wanted.get(name)):
                self._served.trees[name] = dataclasses.replace(tree, settings=wanted[name])
                continue
            del self._served.trees[name]
            tree.work.stopping.set()
            await tree.work.end()
            tree.journals.close()
            tree.root.release()
            self._log.info("tree.dropped", tree=name)

    def _muster(self, settings: Settings, waiting: frozenset[str]) -> None:
        """Have the record name the same Nodes as the settings."""
        rows = {key: row for key, row in self._state.read.nodes().items() if key[0] not in waiting}
        roster = compare_roster(rows, settings.nodes)
        for key, new in roster.renamed.items():
            self._state.rename_node(key, new)
            self._served.stations.pop(key, None)
            self._operator.renamed(key, new)
            self._log.info("node.renamed", tree=key[0], was=key[1], now=new[1])
        for key in roster.gone:
            self._state.forget_node(key)
            self._served.stations.pop(key, None)
            self._log.warning(
                "node.removed", tree=key[0], node=key[1], kept="its files", dropped="its Cursors"
            )

    def _fill_posts(self, settings: Settings, waiting: frozenset[str]) -> None:
        """Build and start what is not served yet."""
        for tree in settings.trees:
            if tree.name not in self._served.trees:
                self._start_tree(self._assembly.tree(tree))
                self._agreement.note_begun(settings, tree.name)
        for node in settings.nodes:
            if node.key in self._served.posts or node.tree in waiting:
                continue
            present, window = as_of_now(node, self._clock.wall_us())
            post = self._assembly.post(
                settings,
                present,
                window=window,
                tree=self._served.trees[node.tree],
                slots=self.slots,
                big_turns=self._big_turns,
            )
            self._served.posts[node.key] = post
            self._served.stations[node.key] = post.station
            post.work.tasks.append(self._begin("syncer", self._run_syncer(post)))
            post.work.tasks.append(self._begin("audit", post.auditor.run(post.work.stopping)))
            self._operator.replaced(node.key)

    def _start_tree(self, tree: ServedTree) -> None:
        self._served.trees[tree.name] = tree
        tree.journals.follow(self._served.plan)
        for work in (
            tree.links.run(tree.work.stopping),
            tree.links.follow(tree.journals, tree.work.stopping),
        ):
            tree.work.tasks.append(self._begin("links", work))

    def _note_settings(self, settings: Settings) -> None:
        mark = settings_mark(settings)
        if mark != self._state.read.settings():
            self._state.set_settings(mark)
            self._log.info("settings.taken", nodes=len(self._served.posts))

    async def _close_post(self, post: Post) -> None:
        """Stop serving a Node: the tick under way is finished, or cut off where it takes long.

        Its Station stays for the requests that concern it, until another takes its place.
        """
        self._served.posts.pop(post.node.key, None)
        post.stop()
        await post.work.end()
        await post.transport.close()
        post.station.first_contact.close()

    async def _run_syncer(self, post: Post) -> None:
        await post.station.syncer.run(post.work.stopping)

    def _new_slots(self) -> RsyncSlots:
        return RsyncSlots(limit=self._settings.sync.max_rsyncs, observer=self._observer)

    def _new_big_turns(self) -> asyncio.Semaphore:
        """Big files take hours: they have turns of their own, so that no Batch waits for one."""
        return asyncio.Semaphore(max(1, self._settings.sync.max_rsyncs // 4))
