"""The sync process: one Syncer per Node in one event loop, woken by what the Watchers commit.

It owns state.db. It never watches the Tree and never writes a Journal. Which
Nodes are served follows the settings while it runs: `take` has others.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import Coroutine, Iterable, Mapping

from shardsync.clock import Clock, rfc3339
from shardsync.config.marks import settings_mark, tree_mark
from shardsync.config.settings import NodeSettings, Settings
from shardsync.config.windows import Window, in_force
from shardsync.errors import ShardsyncError, StateUnusable
from shardsync.journal.locks import holder, is_held
from shardsync.journal.plan import Plan, read_plan
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import NodeKey
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.ship.assembly import Assembly, Post, ServedTree
from shardsync.ship.command import Capabilities
from shardsync.ship.observer import ShipObserver
from shardsync.ship.operator import Operator
from shardsync.ship.roster import compare_roster
from shardsync.ship.slots import RsyncSlots
from shardsync.ship.station import Station
from shardsync.ship.wakeup import Wakeup
from shardsync.ship.windows import window_columns

_HOUSEKEEPING_SECONDS = 2.0
_PRUNE_EVERY_SECONDS = 600.0
_BUSY_SECONDS = 0.05
_LINKS_LATER_SECONDS = 0.005
_STOP_SECONDS = 20.0


class SyncService:
    """All Syncers, and what they share. `serve()` returns after `stop()`."""

    def __init__(
        self,
        *,
        settings: Settings,
        state: StateWriter,
        observer: ShipObserver,
        environment: Mapping[str, str],
        clock: Clock,
        log: Log,
    ) -> None:
        self._settings = settings
        self._state_dir = StateDirectory(settings.state_dir)
        self._state = state
        self._observer = observer
        self._clock = clock
        self._log = log
        self._stopping = asyncio.Event()
        self._request_news = asyncio.Event()
        self._settings_news = asyncio.Event()
        self._trees: dict[str, ServedTree] = {}
        self._posts: dict[NodeKey, Post] = {}
        self._stations: dict[NodeKey, Station] = {}
        self._slots = self._new_slots()
        self._big_turns = self._new_big_turns()
        self._assembly = Assembly(
            state_dir=self._state_dir,
            state=state,
            observer=observer,
            environment=environment,
            clock=clock,
            log=log,
        )
        self._plan = Plan()
        self._tree_of_shard: dict[str, str] = {}
        self._pruned_at = 0.0
        self._said = ChangeOnly(clock=clock)
        self._said_unfit = ChangeOnly(clock=clock)
        self._to_compare: set[str] = set()
        self._operator = Operator(
            state_dir=self._state_dir,
            state=state,
            stations=self._stations,
            clock=clock,
            log=log,
        )

    def trees(self) -> tuple[ServedTree, ...]:
        """The Trees that are served."""
        return tuple(self._trees.values())

    def stop(self) -> None:
        """Finish the ticks under way, then return from `serve`."""
        self._stopping.set()
        self._request_news.set()
        self._settings_news.set()
        for post in self._posts.values():
            post.stop()
        for tree in self._trees.values():
            tree.work.stopping.set()

    def take(self, settings: Settings) -> None:
        """Serve what these ask for from now on; what they leave as it is goes on undisturbed.

        Returns at once; `StateReader.settings` has their mark when all of it is under way.
        """
        if settings != self._settings:
            self._settings = settings
            self._settings_news.set()

    async def serve(self) -> None:
        """Run until stopped. Raises StateUnusable where state.db cannot be written at first."""
        self._state.start(pid=os.getpid())
        # Before the first look at the Plan: one that is written meanwhile would be missed.
        wakeup = Wakeup(state_dir=self._state_dir, on_news=self._on_news, log=self._log)
        wakeup.start()
        try:
            self._follow_plan()
            await self._adapt()
            self._operator.recover()
            self._log.info("sync.started", trees=len(self._trees), nodes=len(self._posts))
            await self._work(wakeup)
        finally:
            wakeup.stop()

    async def _work(self, wakeup: Wakeup) -> None:
        tasks = [
            asyncio.create_task(self._guarded(what, work))
            for what, work in (
                ("operator", self._run_operator()),
                ("housekeeping", self._keep_house()),
                ("settings", self._keep_adapting()),
            )
        ]
        try:
            await self._stopping.wait()
            await asyncio.wait([*tasks, *self._all_tasks()], timeout=_STOP_SECONDS)
        finally:
            wakeup.stop()
            await self._close([*tasks, *self._all_tasks()])

    def _all_tasks(self) -> list[asyncio.Task[None]]:
        work = [post.work for post in self._posts.values()]
        work += [tree.work for tree in self._trees.values()]
        return [task for part in work for task in part.tasks]

    def _new_slots(self) -> RsyncSlots:
        return RsyncSlots(limit=self._settings.sync.max_rsyncs, observer=self._observer)

    def _new_big_turns(self) -> asyncio.Semaphore:
        """Big files take hours: they have turns of their own, so that no Batch waits for one."""
        return asyncio.Semaphore(max(1, self._settings.sync.max_rsyncs // 4))

    async def _keep_adapting(self) -> None:
        while not self._stopping.is_set():
            self._settings_news.clear()
            try:
                await self._adapt()
            except StateUnusable as error:
                if self._said_unfit.is_due(str(error)):
                    self._log.warning("settings.delayed", error=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settings_news.wait(), _HOUSEKEEPING_SECONDS)

    async def _adapt(self) -> None:
        """Bring what is served to what the settings ask for; whatever fits already goes on.

        Idempotent, so that whatever kept it from its end is made up for by the next call.
        Crash safety: a Node's rows are renamed or dropped after it stopped, each in one
        transaction; the mark is noted last.
        """
        settings = self._settings
        waiting = self._trees_waiting(settings)
        self._follow_windows(settings)
        unfit = [
            post
            for key, post in self._posts.items()
            if key[0] not in waiting and not self._fits(post, settings)
        ]
        await asyncio.gather(*(self._close_post(post) for post in unfit))
        await self._drop_trees(settings, waiting)
        if self._stopping.is_set() or settings is not self._settings:
            return
        if any(post.sync.max_rsyncs != settings.sync.max_rsyncs for post in unfit):
            self._slots = self._new_slots()
            self._big_turns = self._new_big_turns()
        self._muster(settings, waiting)
        self._fill_posts(settings, waiting)
        self._follow_windows(settings)
        self._compare_again(settings)
        if not waiting:
            self._note_settings(settings)

    def _trees_waiting(self, settings: Settings) -> frozenset[str]:
        """Trees whose Watchers still go by other settings: none of their Nodes is compared yet.

        What a Watcher leaves out until it takes the new excludes up is found by a
        comparison after that, and by none before.
        """
        waiting = set()
        wanted = {tree.name: tree_mark(settings, tree.name) for tree in settings.trees}
        for shard in self._plan.observing():
            served = self._trees.get(shard.tree)
            if served is None or shard.tree not in wanted:
                continue
            if not is_held(self._state_dir.lock(f"journal-{shard.id}")):
                continue
            if served.settings == settings.tree(shard.tree) or not served.fits(
                settings.tree(shard.tree)
            ):
                continue
            with contextlib.closing(JournalReader(self._state_dir.journal(shard.id))) as reader:
                if reader.progress().settings != wanted[shard.tree]:
                    waiting.add(shard.tree)
        if waiting and self._said_unfit.is_due(f"{sorted(waiting)}"):
            self._log.info(
                "settings.wait", trees=",".join(sorted(waiting)), until="its Watchers have them"
            )
        return frozenset(waiting)

    def _fits(self, post: Post, settings: Settings) -> bool:
        wanted = {node.key: node for node in settings.nodes}.get(post.node.key)
        trees = {tree.name: tree for tree in settings.trees}
        return (
            wanted is not None
            and (post.node, post.window) == self._as_of_now(wanted)
            and post.sync == settings.sync
            and post.tree.fits(trees.get(post.node.tree))
        )

    def _as_of_now(self, node: NodeSettings) -> tuple[NodeSettings, Window | None]:
        """The Node's settings at this hour, and the window that makes them so.

        At a window's edges a Node is served anew, so that an rsync under way does not go on for
        hours as it was begun.
        """
        found = in_force(node.windows, self._clock.wall_us())
        node = dataclasses.replace(node, windows=())
        if found is None:
            return node, None
        window, _ = found
        if not window.paused:
            node = dataclasses.replace(node, bandwidth=window.bandwidth)
        return node, window

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
                if node.key in self._posts:
                    self._posts[node.key].station.syncer.wake()

    async def _drop_trees(self, settings: Settings, waiting: frozenset[str]) -> None:
        """Let go of Trees that are gone or have another root; take up the others' settings."""
        wanted = {tree.name: tree for tree in settings.trees}
        for name, tree in list(self._trees.items()):
            if name in waiting:
                continue
            if tree.fits(wanted.get(name)):
                self._trees[name] = dataclasses.replace(tree, settings=wanted[name])
                continue
            del self._trees[name]
            tree.work.stopping.set()
            await _end(tree.work.tasks)
            tree.journals.close()
            tree.root.release()
            self._log.info("tree.dropped", tree=name)

    def _muster(self, settings: Settings, waiting: frozenset[str]) -> None:
        """Have the record name the same Nodes as the settings."""
        rows = {key: row for key, row in self._state.read.nodes().items() if key[0] not in waiting}
        roster = compare_roster(rows, settings.nodes)
        for key, new in roster.renamed.items():
            self._state.rename_node(key, new)
            self._stations.pop(key, None)
            self._operator.renamed(key, new)
            self._log.info("node.renamed", tree=key[0], was=key[1], now=new[1])
        for key in roster.gone:
            self._state.forget_node(key)
            self._stations.pop(key, None)
            self._log.warning(
                "node.removed", tree=key[0], node=key[1], kept="its files", dropped="its Cursors"
            )

    def _fill_posts(self, settings: Settings, waiting: frozenset[str]) -> None:
        """Build and start what is not served yet."""
        for tree in settings.trees:
            if tree.name not in self._trees:
                self._start_tree(self._assembly.tree(tree))
                if self._is_watched_by_other(settings, tree.name):
                    self._to_compare.add(tree.name)
                    self._log.warning(
                        "settings.watchers_behind", tree=tree.name, remedy="shardsync reload"
                    )
        for node in settings.nodes:
            if node.key in self._posts or node.tree in waiting:
                continue
            as_of_now, window = self._as_of_now(node)
            post = self._assembly.post(
                settings,
                as_of_now,
                window=window,
                tree=self._trees[node.tree],
                slots=self._slots,
                big_turns=self._big_turns,
            )
            self._posts[node.key] = post
            self._stations[node.key] = post.station
            post.work.tasks.append(self._begin("syncer", self._run_syncer(post)))
            post.work.tasks.append(self._begin("audit", post.auditor.run(post.work.stopping)))
            self._operator.replaced(node.key)

    def _is_watched_by_other(self, settings: Settings, tree: str) -> bool:
        """Whether a Watcher at work goes by other settings of this Tree than these, or may."""
        mark = tree_mark(settings, tree)
        for shard in self._plan.observing():
            lock = self._state_dir.lock(f"journal-{shard.id}")
            if shard.tree != tree or not is_held(lock):
                continue
            try:
                with contextlib.closing(
                    JournalReader(self._state_dir.journal(shard.id))
                ) as reader:
                    progress = reader.progress()
            except StateUnusable:
                # Its Watcher is about to make it anew, and says then.
                return True
            # What another process noted before is not this one's, which is only starting.
            if progress.pid == holder(lock) and progress.settings != mark:
                return True
        return False

    def _compare_again(self, settings: Settings) -> None:
        """Compare the Nodes of Trees whose Watchers have these settings by now, and had not when
        we began: what they left out until then was never journaled.
        """
        for name in sorted(self._to_compare & {tree.name for tree in settings.trees}):
            if self._is_watched_by_other(settings, name):
                continue
            self._to_compare.discard(name)
            rows = self._state.read.nodes()
            for key, post in self._posts.items():
                if key[0] == name and rows[key].contacted:
                    post.station.first_contact.reconcile()
                    post.station.syncer.wake()
            self._log.info("tree.compared_again", tree=name, reason="its Watchers were behind")

    def _start_tree(self, tree: ServedTree) -> None:
        self._trees[tree.name] = tree
        tree.journals.follow(self._plan)
        for work in (
            tree.links.run(tree.work.stopping),
            tree.links.follow(tree.journals, tree.work.stopping),
        ):
            tree.work.tasks.append(self._begin("links", work))

    def _begin(self, what: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guarded(what, work))

    def _note_settings(self, settings: Settings) -> None:
        mark = settings_mark(settings)
        if mark != self._state.read.settings():
            self._state.set_settings(mark)
            self._log.info("settings.taken", nodes=len(self._posts))

    async def _close_post(self, post: Post) -> None:
        """Stop serving a Node: the tick under way is finished, or cut off where it takes long.

        Its Station stays for the requests that concern it, until another takes its place.
        """
        self._posts.pop(post.node.key, None)
        post.stop()
        await _end(post.work.tasks)
        await post.transport.close()
        post.station.first_contact.close()

    async def _run_syncer(self, post: Post) -> None:
        await post.station.syncer.run(post.work.stopping)

    async def _run_operator(self) -> None:
        while not self._stopping.is_set():
            self._request_news.clear()
            self._operator.tick()
            if self._operator.is_busy:
                await asyncio.sleep(_BUSY_SECONDS)
            else:
                await self._request_news.wait()

    async def _keep_house(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look_at_roots()
                await self._warm_or_pause()
                self._prune()
            except StateUnusable as error:
                if self._state.is_at_fault(error):
                    raise
                # A full disk of ours: the Syncers wait it out, and so do we.
                if self._said.is_due(str(error)):
                    self._log.warning("sync.state_unusable", error=error)
            try:
                await asyncio.wait_for(self._stopping.wait(), _HOUSEKEEPING_SECONDS)
            except TimeoutError:
                continue

    def _look_at_roots(self) -> None:
        for tree in self._trees.values():
            if self._is_let_go(tree):
                tree.root.release()
                continue
            before = self._state.read.tree_halted(tree.name)
            trouble = tree.root.check()
            now = trouble.message if trouble is not None else ""
            if now != before:
                self._state.set_tree(tree.name, halted=now)
                if now:
                    self._log.error("tree.halted", tree=tree.name, reason=now)
                else:
                    self._log.info("tree.resumed", tree=tree.name)
                    self._wake(tree.name)
            known = tree.root.guard.identity
            identity = json.dumps(known.to_json()) if known is not None else ""
            if identity and identity != self._state.read.root_identity(tree.name):
                self._state.set_tree(tree.name, identity=identity)

    async def _warm_or_pause(self) -> None:
        """Keep an rsync warm for each Node that follows; let go of the others'."""
        rows = self._state.read.nodes()
        for post in list(self._posts.values()):
            row = rows.get(post.node.key)
            # A reload may have taken it away while another was waited for.
            if row is not None and not post.work.stopping.is_set():
                self._remember_capabilities(post, row.capabilities)
                if row.paused or row.halted or post.tree.root.trouble is not None:
                    await post.transport.pause()
                elif row.contacted and not row.attempts:
                    post.transport.resume()
                    post.transport.warm_up()

    def _remember_capabilities(self, post: Post, before: str) -> None:
        able = post.transport.capabilities
        now = json.dumps(dataclasses.asdict(able)) if able != Capabilities() else ""
        if now != before:
            self._state.set_node(post.station.key, capabilities=now)
            self._log.info("node.capabilities", node=post.station.key[1], able=now)

    def _is_let_go(self, tree: ServedTree) -> bool:
        """Whether all its Nodes are paused, so that its file system may be unmounted."""
        rows = self._state.read.nodes()
        keys = [key for key in self._posts if key[0] == tree.name]
        return bool(keys) and all(key in rows and rows[key].paused for key in keys)

    def _prune(self) -> None:
        now = self._clock.monotonic()
        if now - self._pruned_at >= _PRUNE_EVERY_SECONDS:
            self._pruned_at = now
            retention_us = int(self._settings.retention_seconds * 1_000_000)
            self._state.prune(before_us=self._clock.wall_us() - retention_us)

    def _on_news(self, kind: str, shard: str) -> None:
        if kind == "request":
            self._request_news.set()
        elif kind == "plan":
            self._follow_plan()
        else:
            self._wake(self._tree_of_shard.get(shard))

    def _follow_plan(self) -> None:
        try:
            plan = read_plan(self._state_dir.plan) or Plan()
        except StateUnusable as error:
            self._log.error("plan.unreadable", error=error)
            return
        self._plan = plan
        self._tree_of_shard = {shard.id: shard.tree for shard in plan.shards}
        for tree in self._trees.values():
            tree.journals.follow(plan)
        self._log.info("plan.followed", generation=plan.generation, shards=len(plan.shards))
        self._wake(None)

    def _wake(self, tree: str | None) -> None:
        for name, served in self._trees.items():
            if tree in {None, name}:
                # While rsync works, not before: it is no part of what the Nodes wait for.
                asyncio.get_running_loop().call_later(_LINKS_LATER_SECONDS, served.links.heed)
        for key, post in self._posts.items():
            if tree in {None, key[0]}:
                post.station.syncer.wake()

    async def _guarded(self, what: str, work: Coroutine[object, object, None]) -> None:
        """A bug in one part is logged and ends the process, for supervisord to start it anew."""
        try:
            await work
        except ShardsyncError as error:
            self._log.error("sync.failed", part=what, error=error, remedy=error.remedy)
            self.stop()
        except Exception:
            self._log.bug("sync.bug", part=what)
            self.stop()
            raise

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for post in self._posts.values():
            await post.transport.close()
        for tree in self._trees.values():
            tree.journals.close()
            tree.root.release()
        self._state.close()
        self._log.info("sync.stopped")


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for tasks that were told to stop; cut off what takes too long."""
    waiting = list(tasks)
    if waiting:
        await asyncio.wait(waiting, timeout=_STOP_SECONDS)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
