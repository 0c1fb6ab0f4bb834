"""What is served at present: the Trees and Nodes by their names, and the Plan that they follow."""

from __future__ import annotations

import asyncio

from shardsync.errors import StateUnusable
from shardsync.journal.plan import Plan, read_plan
from shardsync.journal.records import NodeKey
from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.ship.post import Post, ServedTree
from shardsync.ship.station import Station

_LINKS_LATER_SECONDS = 0.005


class Served:
    """Who is added and taken away, others decide.

    `stations`: also of a Node whose Post ended, for the requests that concern it, until
    another takes its place.
    """

    def __init__(self, *, state_dir: StateDirectory, log: Log) -> None:
        self.trees: dict[str, ServedTree] = {}
        self.posts: dict[NodeKey, Post] = {}
        self.stations: dict[NodeKey, Station] = {}
        self.plan = Plan()
        self._tree_of_shard: dict[str, str] = {}
        self._state_dir = state_dir
        self._log = log

    def follow_plan(self) -> None:
        """Read the Plan anew, and go by it."""
        try:
            plan = read_plan(self._state_dir.plan) or Plan()
        except StateUnusable as error:
            self._log.error("plan.unreadable", error=error)
            return
        self.plan = plan
        self._tree_of_shard = {shard.id: shard.tree for shard in plan.shards}
        for tree in self.trees.values():
            tree.journals.follow(plan)
        self._log.info("plan.followed", generation=plan.generation, shards=len(plan.shards))
        self.wake(None)

    def has_news(self, shard: str) -> None:
        """A Journal was written: wake the Nodes of its Tree, all where it is not in the Plan."""
        self.wake(self._tree_of_shard.get(shard))

    def wake(self, tree: str | None) -> None:
        """Have the Syncers of a Tree, or of all, look whether there is something to do."""
        for name, served in self.trees.items():
            if tree in {None, name}:
                # While rsync works, not before: it is no part of what the Nodes wait for.
                asyncio.get_running_loop().call_later(_LINKS_LATER_SECONDS, served.links.heed)
        for key, post in self.posts.items():
            if tree in {None, key[0]}:
                post.station.syncer.wake()

    def tasks(self) -> list[asyncio.Task[None]]:
        """All that is under way."""
        work = [post.work for post in self.posts.values()]
        work += [tree.work for tree in self.trees.values()]
        return [task for part in work for task in part.tasks]

    def stop(self) -> None:
        """Have all tasks end, each with what it is about."""
        for post in self.posts.values():
            post.stop()
        for tree in self.trees.values():
            tree.work.stopping.set()

    async def close(self) -> None:
        """Let go of all that is open, once no task is left."""
        for post in self.posts.values():
            await post.transport.close()
        for tree in self.trees.values():
            tree.journals.close()
            tree.root.release()
