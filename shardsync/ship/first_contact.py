"""How a Node and the Tree come together: first contact, reconcile, and how far they are.

Both become open work by subtree, stored with the Cursors from which the Node
is followed afterwards, so a kill in between starts nothing over.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings
from shardsync.journal.records import Compare, Cursor, NodeRow, Work, WorkReason
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import NodeState, Scope
from shardsync.ship.batch import IsExcluded
from shardsync.ship.command import Purpose
from shardsync.ship.delivery import NodeTrouble, RootLost, Shipping, differences
from shardsync.ship.fold import Pending, Want, fold, rebase
from shardsync.ship.journals import TreeJournals
from shardsync.ship.outcome import Outcome
from shardsync.ship.view import NodeView

_PENDING_LIMIT = 10_000
"""Per Shard; with more than that pending, a name may be missed and the Node compared in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What of the settings decides which files a Node holds, and where."""

    target: str
    root: str
    subtree: str
    filters: tuple[str, ...]

    @property
    def text(self) -> str:
        """For state.db."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Fingerprint | None:
        """What `text` gave; None for "" (a new Node)."""
        if not text:
            return None
        values = json.loads(text)
        return cls(**{**values, "filters": tuple(values["filters"])})


class FirstContact:
    """Opens and measures the comparing work of one Node; the Syncer does it."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        journals: TreeJournals,
        state: StateWriter,
        transport: Shipping,
        view: NodeView,
        is_excluded: IsExcluded,
        fingerprint: Fingerprint,
        clock: Clock,
        log: Log,
    ) -> None:
        self._node = node
        self._fingerprint = fingerprint
        self._journals = journals
        self._state = state
        self._transport = transport
        self._view = view
        self._is_excluded = is_excluded
        self._clock = clock
        self._log = log
        self._most = 0

    def adapt(self, row: NodeRow) -> bool:
        """Answer to settings that changed since the Node was last served; whether they did.

        Another target is another Node: first contact begins. Another root,
        subtree or set of patterns is compared; what is newly excluded stays.
        """
        if row.fingerprint == self._fingerprint.text:
            return False
        before = Fingerprint.parse(row.fingerprint)
        if row.contacted and before is not None:
            if before.target != self._fingerprint.target:
                self._log.warning("node.moved", was=before.target, now=self._fingerprint.target)
                self._state.set_node(
                    self._node.key,
                    contacted=0,
                    owned=None,
                    capabilities="",
                    state=NodeState.BOOTSTRAPPING.value,
                )
            else:
                self._log.info("node.reconcile", reason="its part of the tree was redefined")
                self.reconcile()
        self._state.set_node(self._node.key, fingerprint=self._fingerprint.text)
        return True

    async def look_again(self) -> bool:
        """After an outage: whether the Node lost what it had, which opens a reconcile.

        A name at the Tree's top that the Node should have and has not says that its
        disk was replaced or emptied meanwhile. Raises NodeTrouble.
        """
        listing = await self._transport.list_root()
        if listing.result.outcome is Outcome.NOTHING:
            raise NodeTrouble(listing.result)
        pending = self._pending_names()
        expected = {
            name
            for name, is_dir in self._view.names()
            if not self._is_excluded(name, is_dir)
            # What is pending of a directory may be itself alone, or one file of thousands.
            and not pending.get(name, Want(0)) & (Want.TREE if is_dir else ~Want(0))
        }
        lost = expected - set(listing.names)
        if listing.is_cut or not lost:
            return False
        self._log.warning(
            "node.changed_while_away", missing=len(lost), example=min(lost), answer="reconcile"
        )
        # Not following before something was sent: what answers may still refuse all of it.
        self.reconcile(state=NodeState.BACKING_OFF)
        return True

    def _pending_names(self) -> dict[bytes, Want]:
        """Names at the top that are pending themselves: the Node need not have them yet."""
        unread = self._journals.unread(
            self._state.read.cursors(self._node.key), limit=_PENDING_LIMIT
        )
        folded: dict[bytes, Pending] = {}
        fold(unread.rows, folded)
        subtree = os.fsencode(self._node.subtree)
        inside = (rebase(item.path, item.want, subtree) for item in folded.values())
        return {path: want for path, want in filter(None, inside) if b"/" not in path}

    def check_root(self) -> None:
        """Raise RootLost unless the Tree's root is what it was."""
        trouble = self._view.check()
        if trouble is not None:
            raise RootLost(trouble.message)

    async def begin(self) -> bool:
        """Meet the Node: note the Positions, find out whether it is owned, open the bootstrap.

        False, and nothing done, while a Shard does not watch all it owns yet:
        what changed there meanwhile would be missed. Raises RootLost, NodeTrouble.
        """
        if not self._journals.are_observing():
            return False
        self.check_root()
        cursors = self._journals.newest()
        is_empty = await self._is_empty()
        is_identical = not is_empty and await self._is_identical()
        work = [] if is_identical else await asyncio.to_thread(self._whole, WorkReason.BOOTSTRAP)
        self._state.clear_foreign(self._node.key)
        self._state.restart_node(
            self._node.key,
            cursors=cursors,
            work=work,
            state=NodeState.BOOTSTRAPPING if work else NodeState.FOLLOWING,
        )
        # Adopted before it could be met: that holds.
        row = self._state.read.nodes()[self._node.key]
        owned = is_empty or is_identical or bool(row.owned)
        self._state.set_node(
            self._node.key,
            contacted=1,
            owned=int(owned),
            last_error="",
            attempts=0,
            last_success=self._clock.wall_us(),
        )
        found = "empty" if is_empty else "identical" if is_identical else "different"
        self._log.info("node.contacted", found=found, owned=owned, pieces=len(work))
        if not owned:
            self._log.warning(
                "node.not_owned",
                reason="it held other files at first contact: what the tree lacks is kept there",
                remedy=f"shardsync resume {self._node.name} --adopt",
            )
        return True

    def reconcile(
        self,
        *,
        state: NodeState = NodeState.FOLLOWING,
        shards: Sequence[str] = (),
        path: bytes = b"",
        request: str = "",
    ) -> int:
        """Open the comparison of all below `path`; returns the number of pieces.

        `shards`: those whose Journals do not lead on: their Cursors move to the
        newest Change, noted before anything is compared.
        """
        newest = self._journals.newest() if shards else {}
        cursors: dict[str, Cursor] = {shard: newest[shard] for shard in shards}
        if path:
            inside = rebase(path, Want.TREE, os.fsencode(self._node.subtree))
            if inside is None:
                return 0
            path = inside[0]
        if path:
            work = [self._piece(path, Scope.TREE, WorkReason.RECONCILE, request)]
        else:
            self._state.clear_foreign(self._node.key)
            work = self._whole(WorkReason.RECONCILE, request)
        self._state.restart_node(self._node.key, cursors=cursors, work=work, state=state)
        return len(work)

    def progress(self) -> float:
        """Share of the opened pieces that are done, 1.0 where none is open."""
        reasons = self._state.read.work_reasons(self._node.key)
        left = reasons.get(WorkReason.BOOTSTRAP, 0) + reasons.get(WorkReason.RECONCILE, 0)
        self._most = max(self._most, left) if left else 0
        return 1.0 - left / self._most if self._most else 1.0

    async def _is_empty(self) -> bool:
        listing = await self._transport.list_root()
        if listing.result.outcome is Outcome.NOTHING:
            raise NodeTrouble(listing.result)
        return not listing.names

    async def _is_identical(self) -> bool:
        async with contextlib.aclosing(
            differences(self._transport, [b""], purpose=Purpose.COMPARE)
        ) as found:
            async for _ in found:
                return False
        return True

    def _whole(self, reason: WorkReason, request: str = "") -> list[Work]:
        """What lies directly in the root, then each directory there as a piece of its own."""
        pieces = [self._piece(b"", Scope.ENTRY, reason, request)]
        pieces += [
            self._piece(name, Scope.TREE, reason, request)
            for name, is_dir in sorted(self._view.names())
            if is_dir and not self._is_excluded(name, True)
        ]
        return pieces

    def _piece(self, path: bytes, scope: Scope, reason: WorkReason, request: str) -> Work:
        return Work(
            path=path,
            scope=scope,
            compare=Compare.ATTRIBUTES,
            reason=reason,
            since=self._clock.wall_us(),
            request=request,
        )
