"""One Node as operators' requests see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shardsync.errors import NodesFailed
from shardsync.journal.records import NodeKey
from shardsync.ship.first_contact import FirstContact
from shardsync.ship.fold import Pending, rebase
from shardsync.ship.journals import TreeJournals
from shardsync.ship.syncer import Syncer
from shardsync.ship.view import TreeRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One Node with the parts that requests concern."""

    syncer: Syncer
    first_contact: FirstContact
    journals: TreeJournals
    root: TreeRoot
    subtree: bytes = b""

    @property
    def key(self) -> NodeKey:
        return self.syncer.key

    def require_root(self) -> None:
        """Look at the Tree's root, and hold it. Raises NodesFailed where it is not what it was.

        Not while all Nodes of the Tree are paused: then nobody is to hold it.
        """
        trouble = self.root.check()
        if trouble is not None:
            raise NodesFailed(f"tree {self.key[0]}: {trouble.message}")

    def rebased(self, pending: Iterable[Pending]) -> Iterator[Pending]:
        """As this Node, which may take a subtree alone, sees it; what it does not take is left."""
        for item in pending:
            inside = rebase(item.path, item.want, self.subtree)
            if inside is not None:
                yield Pending(path=inside[0], want=inside[1], since=item.since)
