"""What is looked after every other second while Nodes are served: roots, warm rsyncs, the record.

A Tree whose root is lost is halted here, and resumed when it is back; a Node that is
paused lets go of what it has open, so that its file system can be unmounted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.journal.state_writer import StateWriter
from shardsync.log import ChangeOnly, Log
from shardsync.ship.command import Capabilities
from shardsync.ship.post import Post, ServedTree
from shardsync.ship.served import Served

HOUSEKEEPING_SECONDS = 2.0
_PRUNE_EVERY_SECONDS = 600.0


class Housekeeping:
    """Call `run`. `retention_seconds`: how long the record is kept, as the settings have it."""

    def __init__(
        self,
        *,
        state: StateWriter,
        served: Served,
        retention_seconds: float,
        clock: Clock,
        log: Log,
    ) -> None:
        self.retention_seconds = retention_seconds
        self._state = state
        self._served = served
        self._clock = clock
        self._log = log
        self._pruned_at = 0.0
        self._said = ChangeOnly(clock=clock)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until stopped. Raises StateDamaged."""
        while not stopping.is_set():
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
                await asyncio.wait_for(stopping.wait(), HOUSEKEEPING_SECONDS)
            except TimeoutError:
                continue

    def _look_at_roots(self) -> None:
        for tree in self._served.trees.values():
            before = self._state.read.tree_halted(tree.name)
            if self._is_let_go(tree):
                # What was wrong may be mended meanwhile, and an operator looks whether it is.
                trouble = tree.root.glance() if before else None
                tree.root.release()
            else:
                trouble = tree.root.check()
            now = trouble.message if trouble is not None else ""
            if now != before:
                self._state.set_tree(tree.name, halted=now)
                if now:
                    self._log.error("tree.halted", tree=tree.name, reason=now)
                else:
                    self._log.info("tree.resumed", tree=tree.name)
                    self._served.wake(tree.name)
            known = tree.root.guard.identity
            identity = json.dumps(known.to_json()) if known is not None else ""
            if identity and identity != self._state.read.root_identity(tree.name):
                self._state.set_tree(tree.name, identity=identity)

    async def _warm_or_pause(self) -> None:
        """Keep an rsync warm for each Node that follows; let go of the others'."""
        rows = self._state.read.nodes()
        for post in list(self._served.posts.values()):
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
        keys = [key for key in self._served.posts if key[0] == tree.name]
        return bool(keys) and all(key in rows and rows[key].paused for key in keys)

    def _prune(self) -> None:
        now = self._clock.monotonic()
        if now - self._pruned_at >= _PRUNE_EVERY_SECONDS:
            self._pruned_at = now
            retention_us = int(self.retention_seconds * 1_000_000)
            self._state.prune(before_us=self._clock.wall_us() - retention_us)
