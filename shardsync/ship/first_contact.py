"""How a Node and the Tree come together: first contact, reconcile, and how far they are.

Both become open work by subtree, stored with the Cursors from which the Node
is followed afterwards, so a kill in between starts nothing over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Container, Sequence

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings
from shardsync.failpoints import Point, reach
from shardsync.journal.records import Compare, Cursor, NodeRow, RoundKind, WorkReason
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import NodeState
from shardsync.ship.dividing import Dividing
from shardsync.ship.fingerprint import Fingerprint
from shardsync.ship.fold import Want, rebase
from shardsync.ship.journals import TreeJournals
from shardsync.ship.outcome import Outcome
from shardsync.ship.shipping import NodeTrouble, RootLost, Shipping
from shardsync.ship.suspicion import Suspecting, Suspicion
from shardsync.ship.target_folder import TargetFolder
from shardsync.ship.view import NodeView

_GLANCE_SECONDS = 600.0
"""Each time one short run of rsync; whoever empties a Node by hand is noticed so soon."""


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
        dividing: Dividing,
        folder: TargetFolder,
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
        self._dividing = dividing
        self._suspecting = Suspecting(
            node=node,
            journals=journals,
            read=state.read,
            transport=transport,
            view=view,
            clock=clock,
        )
        self._folder = folder
        self._clock = clock
        self._log = log
        self._has_looked = False
        self._suspicion: Suspicion | None = None
        self._was_lost = False
        self._glance_at = clock.monotonic() + _GLANCE_SECONDS

    def close(self) -> None:
        """The Node is not served any more."""
        self._folder.close()

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

    @property
    def has_looked(self) -> bool:
        """Whether the Node was met, or looked at, since this process began."""
        return self._has_looked

    @property
    def is_in_doubt(self) -> bool:
        """Whether the Node may have lost something that nothing pending tells of."""
        if self._suspicion is not None or not self._has_looked or self._folder.is_in_doubt:
            return True
        reasons = self._state.read.work_reasons(self._node.key) if self._was_lost else {}
        self._was_lost = WorkReason.RECONCILE in reasons
        return self._was_lost

    def ask(self) -> None:
        """What `is_other` will want to know takes a moment: have it looked up meanwhile."""
        self._folder.ask()

    async def is_other(self, *, named: Container[bytes] = ()) -> bool:
        """Whether something says that the target is not what was met: `look_again` then.

        Before a Batch, and before it counts. `named`: what the Batch was to make there.
        """
        self._folder.explain(named)
        await self._folder.look()
        if self._folder.is_in_doubt:
            self._has_looked = False
        return not self._has_looked

    async def look_again(self) -> bool:
        """After an outage, or a start: whether the Node lost what it had; opens a reconcile then.

        Two levels are compared: a file or directory there that the Node has not, or has
        otherwise, with nothing pending around it, says that its disk was replaced or emptied,
        or restored from a copy. Raises NodeTrouble, RootLost.
        """
        tops = dict.fromkeys([*await asyncio.to_thread(self._dividing.tops), *self._folder.made])
        self._has_looked = False
        await self._folder.meet()
        suspicion = await self._look_at(list(tops))
        self._has_looked = True
        self._suspicion = suspicion
        return await self.judge()

    async def glance(self) -> None:
        """Now and then, whether or not anything changed, see whether the top level is still there.

        Nothing else tells of a target that was emptied where it stands, behind a daemon or ssh,
        while only files of the top level change. What ails the Node the next Batch will tell.
        """
        if self._clock.monotonic() < self._glance_at or self._suspicion is not None:
            return
        self._glance_at = self._clock.monotonic() + _GLANCE_SECONDS
        with contextlib.suppress(NodeTrouble):
            self._suspicion = await self._look_at([b""])

    async def _look_at(self, tops: list[bytes]) -> Suspicion | None:
        self._glance_at = self._clock.monotonic() + _GLANCE_SECONDS
        return await self._suspecting.look_at(tops)

    async def judge(self) -> bool:
        """Whether what the last look found is a loss; opens a reconcile then.

        Not before it can be judged. Raises StateUnusable.
        """
        suspicion = self._suspicion
        if suspicion is None:
            return False
        if not self._suspecting.is_ripe(suspicion):
            return False
        self._suspicion = None
        lost = await self._suspecting.lost(suspicion)
        self._was_lost = bool(lost)
        if not lost:
            return False
        self._log.warning(
            "node.changed_while_away", differing=len(lost), example=min(lost), answer="reconcile"
        )
        # Not following before something was sent: what answers may still refuse all of it.
        self.reconcile(state=NodeState.BACKING_OFF)
        return True

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
        listing = await self._transport.list_root()
        if listing.result.outcome is Outcome.NOTHING:
            raise NodeTrouble(listing.result)
        await self._folder.meet(is_missing=listing.is_missing)
        is_empty = not listing.names
        compare = Compare.EMPTY if is_empty else Compare.ATTRIBUTES
        work = await asyncio.to_thread(self._dividing.work, b"", WorkReason.BOOTSTRAP, compare)
        reach(Point.SHIP_CONTACT)
        self._state.foreign.clear(self._node.key)
        self._state.restart_node(
            self._node.key, cursors=cursors, work=work, state=NodeState.BOOTSTRAPPING
        )
        reach(Point.SHIP_CONTACTED)
        self._has_looked = True
        # Adopted before it could be met: that holds.
        row = self._state.read.nodes()[self._node.key]
        # What is not empty is owned if all of it proves to be identical.
        owned = True if is_empty or row.owned else None
        self._state.set_node(
            self._node.key,
            contacted=1,
            owned=None if owned is None else int(owned),
            last_error="",
            attempts=0,
            last_success=self._clock.wall_us(),
        )
        self._log.info(
            "node.contacted", found="empty" if is_empty else "not empty", pieces=len(work)
        )
        return True

    def reconcile(
        self,
        *,
        state: NodeState = NodeState.FOLLOWING,
        shards: Sequence[str] = (),
        path: bytes = b"",
        request: str = "",
        is_exact: bool = False,
    ) -> int:
        """Open the comparison of all below `path`; returns the number of pieces.

        `shards`: those whose Journals do not lead on: their Cursors move to the
        newest Change, noted before anything is compared. `is_exact`: by the files' bytes.
        """
        newest = self._journals.newest() if shards else {}
        cursors: dict[str, Cursor] = {shard: newest[shard] for shard in shards}
        if path:
            inside = rebase(path, Want.TREE, os.fsencode(self._node.subtree))
            if inside is None:
                return 0
            path = inside[0]
        if not path:
            self._state.foreign.clear(self._node.key)
        compare = Compare.CHECKSUM if is_exact else Compare.ATTRIBUTES
        work = self._dividing.work(path, WorkReason.RECONCILE, compare, request)
        self._state.restart_node(
            self._node.key, cursors=cursors, work=work, state=state, is_whole=not path
        )
        return len(work)

    def progress(self) -> float:
        """Share of the opened pieces that are done, 1.0 where none is open."""
        compared = self._state.read.round(self._node.key, RoundKind.COMPARE)
        return 1.0 if compared is None else compared.ratio
