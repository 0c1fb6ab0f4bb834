"""The sync process: one Syncer per Node in one event loop, woken by what the Watchers commit.

It owns state.db. It never watches the Tree and never writes a Journal.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass

from shardsync.clock import Clock
from shardsync.config.patterns import node_filter
from shardsync.config.settings import NodeSettings, Settings, TreeSettings
from shardsync.errors import ShardsyncError, StateUnusable
from shardsync.journal.plan import Plan, read_plan
from shardsync.journal.records import NodeKey
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.ship.command import Capabilities
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.delivery import Delivery
from shardsync.ship.first_contact import Fingerprint, FirstContact
from shardsync.ship.journals import TreeJournals
from shardsync.ship.links import HardLinks
from shardsync.ship.observer import ShipObserver
from shardsync.ship.operator import Operator, Station
from shardsync.ship.root import RootGuard, RootIdentity
from shardsync.ship.slots import RsyncSlots
from shardsync.ship.syncer import Syncer
from shardsync.ship.transport import NodeTransport
from shardsync.ship.view import NodeView, TreeRoot
from shardsync.ship.wakeup import Wakeup

_HOUSEKEEPING_SECONDS = 2.0
_PRUNE_EVERY_SECONDS = 600.0
_BUSY_SECONDS = 0.05
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTree:
    """One Tree with what its Nodes share."""

    name: str
    root: TreeRoot
    journals: TreeJournals
    links: HardLinks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Post:
    """One Node with all its parts."""

    station: Station
    transport: NodeTransport


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
        self._environment = environment
        self._clock = clock
        self._log = log
        self._stopping = asyncio.Event()
        self._request_news = asyncio.Event()
        self._trees: dict[str, ServedTree] = {}
        self._posts: dict[NodeKey, _Post] = {}
        self._tree_of_shard: dict[str, str] = {}
        self._pruned_at = 0.0
        self._said = ChangeOnly(clock=clock)

    def trees(self) -> tuple[ServedTree, ...]:
        """The Trees that are served."""
        return tuple(self._trees.values())

    def stop(self) -> None:
        """Finish the ticks under way, then return from `serve`."""
        self._stopping.set()
        self._request_news.set()
        for post in self._posts.values():
            post.station.syncer.wake()

    async def serve(self) -> None:
        """Run until stopped. Raises StateUnusable where state.db cannot be written at first."""
        self._state.start(pid=os.getpid())
        self._build()
        self._follow_plan()
        operator = Operator(
            state_dir=self._state_dir,
            state=self._state,
            stations={key: post.station for key, post in self._posts.items()},
            clock=self._clock,
            log=self._log,
        )
        operator.recover()
        wakeup = Wakeup(state_dir=self._state_dir, on_news=self._on_news, log=self._log)
        wakeup.start()
        self._log.info("sync.started", trees=len(self._trees), nodes=len(self._posts))
        tasks = [
            asyncio.create_task(self._guarded("syncer", self._run_syncer(post)))
            for post in self._posts.values()
        ]
        for tree in self._trees.values():
            links = (
                tree.links.run(self._stopping),
                tree.links.follow(tree.journals, self._stopping),
            )
            tasks += [asyncio.create_task(self._guarded("links", work)) for work in links]
        tasks.append(asyncio.create_task(self._guarded("operator", self._run_operator(operator))))
        tasks.append(asyncio.create_task(self._guarded("housekeeping", self._keep_house())))
        try:
            await self._stopping.wait()
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        finally:
            wakeup.stop()
            await self._close(tasks)

    def _build(self) -> None:
        slots = RsyncSlots(limit=self._settings.sync.max_rsyncs, observer=self._observer)
        for tree in self._settings.trees:
            self._trees[tree.name] = self._tree(tree)
        for node in self._settings.nodes:
            self._posts[node.key] = self._post(node, self._trees[node.tree], slots)

    def _tree(self, tree: TreeSettings) -> ServedTree:
        log = self._log.bind(tree=tree.name)
        root = TreeRoot(
            guard=RootGuard(
                path=os.fsencode(tree.root),
                marker=tree.marker,
                known=_known(self._state.read.root_identity(tree.name)),
            )
        )
        return ServedTree(
            name=tree.name,
            root=root,
            journals=TreeJournals(tree=tree.name, state_dir=self._state_dir, log=log),
            links=HardLinks(
                tree=tree.name,
                view=NodeView(root=root, subtree=b""),
                state=self._state,
                clock=self._clock,
                log=log,
            ),
        )

    def _post(self, node: NodeSettings, tree: ServedTree, slots: RsyncSlots) -> _Post:
        log = self._log.bind(tree=node.tree, node=node.name)
        row = self._state.know_node(node.key)
        if node.paused is not row.pause_setting:
            # What an operator did since holds until the setting itself is changed.
            self._state.set_node(
                node.key,
                paused=int(node.paused),
                paused_until=None,
                pause_setting=int(node.paused),
            )
        subtree = os.fsencode(node.subtree)
        path_filter = node_filter(node).rebased(subtree)
        view = NodeView(root=tree.root, subtree=subtree)
        transport = NodeTransport(
            node=node,
            source=tree.root.guard,
            clock=self._clock,
            environment=self._environment,
            filters=tuple(path_filter.rsync_arguments()),
            capabilities=_capabilities(row.capabilities),
        )
        budget = DeletionBudget(
            key=node.key,
            limit=self._settings.sync.max_delete,
            state=self._state.read,
            count_entries=lambda: asyncio.to_thread(view.count_entries),
            clock=self._clock,
        )
        delivery = Delivery(
            node=node,
            transport=transport,
            view=view,
            is_excluded=path_filter.excludes,
            has_excludes=bool(path_filter.rsync_arguments()),
            budget=budget,
            limits=self._settings.sync,
            slots=slots,
            links=tree.links,
            log=log,
        )
        first_contact = FirstContact(
            node=node,
            journals=tree.journals,
            state=self._state,
            transport=transport,
            view=view,
            is_excluded=path_filter.excludes,
            fingerprint=Fingerprint(
                target=str(node.target),
                root=str(self._settings.tree(node.tree).root),
                subtree=node.subtree,
                filters=tuple(path_filter.rsync_arguments()),
            ),
            clock=self._clock,
            log=log,
        )
        syncer = Syncer(
            node=node,
            journals=tree.journals,
            state=self._state,
            delivery=delivery,
            first_contact=first_contact,
            links=tree.links,
            budget=budget,
            limits=self._settings.sync,
            observer=self._observer,
            clock=self._clock,
            log=log,
        )
        station = Station(
            syncer=syncer,
            first_contact=first_contact,
            journals=tree.journals,
            root=tree.root,
            subtree=subtree,
        )
        return _Post(station=station, transport=transport)

    async def _run_syncer(self, post: _Post) -> None:
        await post.station.syncer.run(self._stopping)

    async def _run_operator(self, operator: Operator) -> None:
        while not self._stopping.is_set():
            self._request_news.clear()
            operator.tick()
            if operator.is_busy:
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
        for name, tree in self._trees.items():
            posts = [post for key, post in self._posts.items() if key[0] == name]
            for post in posts:
                row = rows[post.station.key]
                self._remember_capabilities(post, row.capabilities)
                if row.paused or row.halted or tree.root.trouble is not None:
                    await post.transport.pause()
                elif row.contacted and not row.attempts:
                    post.transport.resume()
                    post.transport.warm_up()

    def _remember_capabilities(self, post: _Post, before: str) -> None:
        able = post.transport.capabilities
        now = json.dumps(dataclasses.asdict(able)) if able != Capabilities() else ""
        if now != before:
            self._state.set_node(post.station.key, capabilities=now)
            self._log.info("node.capabilities", node=post.station.key[1], able=now)

    def _is_let_go(self, tree: ServedTree) -> bool:
        """Whether all its Nodes are paused, so that its file system may be unmounted."""
        rows = self._state.read.nodes()
        keys = [key for key in self._posts if key[0] == tree.name]
        return bool(keys) and all(rows[key].paused for key in keys)

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
        self._tree_of_shard = {shard.id: shard.tree for shard in plan.shards}
        for tree in self._trees.values():
            tree.journals.follow(plan)
        self._log.info("plan.followed", generation=plan.generation, shards=len(plan.shards))
        self._wake(None)

    def _wake(self, tree: str | None) -> None:
        for name, served in self._trees.items():
            if tree in {None, name}:
                served.links.heed()
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


def _known(text: str) -> RootIdentity | None:
    return RootIdentity.from_json(json.loads(text)) if text else None


def _capabilities(text: str) -> Capabilities:
    """What was learned of the Node's rsync before; the best is assumed of a new one."""
    return Capabilities(**json.loads(text)) if text else Capabilities()
