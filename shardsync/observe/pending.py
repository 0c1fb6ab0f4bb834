"""Which paths are on their way to a Node: what lies beyond its Cursors, and its open work."""

from __future__ import annotations

from collections.abc import Mapping

from shardsync.journal.plan import Plan
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import NodeKey
from shardsync.journal.state_reader import StateReader
from shardsync.layout import StateDirectory
from shardsync.model import Scope

_PAGE = 10_000


class PendingPaths:
    """Asked path by path; of what was on the disk at the last `renew`."""

    def __init__(self, *, state: StateDirectory, plan: Plan, node: NodeKey) -> None:
        self._database = StateReader(state.state_db)
        self._journals = {
            str(shard.id): JournalReader(state.journal(shard.id))
            for shard in plan.of_tree(node[0])
        }
        self._node = node
        self._known: Mapping[bytes, int] = {}

    def renew(self) -> None:
        """Read from the disk what is pending now. Raises StateUnusable."""
        self._known = self._read()

    def holds(self, path: bytes) -> bool:
        """Whether a Change or open work bade to look at `path`, when it was read last."""
        if path in self._known:
            return True
        folder = path.rpartition(b"/")[0]
        if path and self._known.get(folder, 0) & 1 << Scope.LISTING:
            return True
        while folder:
            if self._known.get(folder, 0) & 1 << Scope.TREE:
                return True
            folder = folder.rpartition(b"/")[0]
        return bool(self._known.get(b"", 0) & 1 << Scope.TREE)

    def close(self) -> None:
        """Let go of all files."""
        self._database.close()
        for reader in self._journals.values():
            reader.close()

    def _read(self) -> dict[bytes, int]:
        """Path -> its Scopes, a bit each."""
        found: dict[bytes, int] = {}
        for work in self._database.work(self._node):
            found[work.path] = found.get(work.path, 0) | 1 << work.scope
        for shard, cursor in self._database.cursors(self._node).items():
            reader = self._journals.get(shard)
            after = cursor.position
            while reader is not None and (rows := reader.read_rows(after=after, limit=_PAGE)):
                after = rows[-1][0]
                for _, path, scope, _, _, _ in rows:
                    found[path] = found.get(path, 0) | 1 << scope
        return found
