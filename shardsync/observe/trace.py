"""Where is this file? When one path was modified, observed, journaled, and on each Node.

Read-only, from the Plan, the Journals and state.db; works while the daemons
are down. The path itself is only looked at, and no symlink followed on the way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shardsync.clock import rfc3339
from shardsync.errors import StateUnusable
from shardsync.escape import json_path
from shardsync.journal.plan import Plan, covers
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import NodeKey, Work
from shardsync.journal.state_reader import StateReader
from shardsync.layout import StateDirectory
from shardsync.model import Change, Scope
from shardsync.ship.look import descend


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTrace:
    """When the newest Change of the path was on one Node: None = not yet, or not remembered."""

    name: str
    shipped_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Times in Unix microseconds. `change`: the newest that bids to look at the path, or None.

    `modified_at_us` is None where the path does not exist (or cannot be looked at).
    """

    path: bytes
    modified_at_us: int | None
    change: Change | None = None
    shard: str | None = None
    journaled_at_us: int | None = None
    nodes: tuple[NodeTrace, ...] = ()


class Tracer:
    """Traces paths of one Tree."""

    def __init__(self, *, state: StateDirectory, plan: Plan, root: Path | None) -> None:
        self._state = state
        self._plan = plan
        self._root = root

    def trace(self, tree: str, path: bytes, nodes: Iterable[NodeKey]) -> Trace:
        """What is known of `path`. Raises StateUnusable where nothing can be read at all."""
        shard, change, journaled_at = self._newest(tree, path)
        found = Trace(
            path=path,
            modified_at_us=self._modified_at(path),
            change=change,
            shard=shard,
            journaled_at_us=journaled_at,
            nodes=tuple(NodeTrace(name=key[1], shipped_at_us=None) for key in nodes),
        )
        if shard is None or change is None or not self._state.state_db.exists():
            return found
        return Trace(
            path=path,
            modified_at_us=found.modified_at_us,
            change=change,
            shard=shard,
            journaled_at_us=journaled_at,
            nodes=self._nodes(nodes, path, shard, change.position),
        )

    def _newest(self, tree: str, path: bytes) -> tuple[str | None, Change | None, int | None]:
        """Across all Shards of the Tree: a path may have changed hands since."""
        best: tuple[str | None, Change | None, int | None] = (None, None, None)
        for shard in self._plan.of_tree(tree):
            with contextlib.closing(JournalReader(self._state.journal(shard.id))) as reader:
                try:
                    change = reader.newest_covering(path)
                    journaled_at = reader.journaled_at(change.position) if change else None
                except StateUnusable:
                    # One damaged Journal hides only what it holds; `status` names it.
                    continue
            if change and (best[1] is None or change.observed_at > best[1].observed_at):
                best = (shard.id, change, journaled_at)
        return best

    def _nodes(
        self, nodes: Iterable[NodeKey], path: bytes, shard: str, position: int
    ) -> tuple[NodeTrace, ...]:
        found = []
        with contextlib.closing(StateReader(self._state.state_db)) as database:
            for key in nodes:
                # The Cursor moves past what failed: as open work it is not on the Node yet.
                is_open = any(_is_covered(work, path) for work in database.work(key))
                at = None if is_open else database.shipped_at(key, shard, position)
                found.append(NodeTrace(name=key[1], shipped_at_us=at))
        return tuple(found)

    def _modified_at(self, path: bytes) -> int | None:
        if self._root is None:
            return None
        try:
            root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = descend(root, path or b".")
        finally:
            os.close(root)
        return found.mtime_ns // 1000 if found.mode else None


def trace_document(trace: Trace) -> dict[str, object]:
    """What `trace --json` prints: exactly the keys of the contract (and `path_b64` if needed)."""
    change = trace.change
    return {
        **json_path(trace.path),
        "modified_at": rfc3339(trace.modified_at_us),
        "observed_at": rfc3339(change.observed_at if change else None),
        "journaled_at": rfc3339(trace.journaled_at_us),
        "shard": trace.shard,
        "position": change.position if change else None,
        "nodes": [
            {"name": node.name, "shipped_at": rfc3339(node.shipped_at_us)} for node in trace.nodes
        ],
    }


def _is_covered(work: Work, path: bytes) -> bool:
    if work.scope is Scope.TREE:
        return covers(work.path, path)
    if work.scope is Scope.LISTING and path:
        return path.rpartition(b"/")[0] == work.path or work.path == path
    return work.path == path
