"""What a look at the top of a Node finds otherwise than the Tree, and whether it proves a loss."""

from __future__ import annotations

from dataclasses import dataclass

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings
from shardsync.journal.records import Cursor, LinkedFile, Work
from shardsync.journal.state_reader import StateReader
from shardsync.ship.command import Purpose
from shardsync.ship.explained import explained_after
from shardsync.ship.findings import find
from shardsync.ship.footing import Footing
from shardsync.ship.janitor import InFlight
from shardsync.ship.journals import TreeJournals
from shardsync.ship.look import NOWHERE, LookKind
from shardsync.ship.shipping import Shipping
from shardsync.ship.view import NodeView

_LOST_AT_MOST = 1_000
_ASK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """What differed until `seen_us`; where the Cursors stood, and what was open, before.

    `missing`: those of `paths` that the Node had not at all.
    """

    paths: tuple[bytes, ...]
    missing: frozenset[bytes]
    cursors: dict[str, Cursor]
    work: tuple[Work, ...]
    seen_us: int


class Suspecting:
    """Compares, and reads the record; what is done about a loss, others decide."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        journals: TreeJournals,
        read: StateReader,
        transport: Shipping,
        view: NodeView,
        clock: Clock,
    ) -> None:
        self._node = node
        self._journals = journals
        self._read = read
        self._transport = transport
        self._view = view
        self._clock = clock
        self._ask_at = 0.0

    async def look_at(self, tops: list[bytes]) -> Suspicion | None:
        """Compare these levels; what differs, if anything."""
        cursors, work = self._read.cursors(self._node.key), tuple(self._read.work(self._node.key))
        found = await find(
            self._transport,
            Footing(key=self._node.key, view=self._view),
            tops,
            purpose=Purpose.COMPARE_LEVEL,
            most=_LOST_AT_MOST,
            in_flight=InFlight(),
        )
        if not found.changed:
            return None
        self._ask_at = 0.0
        return Suspicion(
            paths=tuple(found.changed),
            missing=frozenset(found.missing),
            cursors=cursors,
            work=work,
            seen_us=self._clock.wall_us(),
        )

    def is_ripe(self, suspicion: Suspicion) -> bool:
        """Whether all that had changed by then is journaled; asks for it where it is not.

        No sooner is it judged: a file that is being written, or what a Watcher has not read yet,
        differs without a Change.
        """
        if self._journals.watermark_us() >= suspicion.seen_us:
            return True
        self._ask_watermark()
        return False

    async def lost(self, suspicion: Suspicion) -> list[bytes]:
        """What of it no Change explains, pending or come meanwhile. Raises StateUnusable."""
        explained = await explained_after(
            self._journals,
            suspicion.cursors,
            subtree=self._node.subtree,
            work=suspicion.work,
            about=suspicion.paths,
        )
        return [
            path
            for path in suspicion.paths
            if not explained.explains(path) and not self._may_come(path, suspicion)
        ]

    def _may_come(self, path: bytes, suspicion: Suspicion) -> bool:
        """Whether it may be pending under another name: one that it has or had, as inotify tells
        of one, or one that it was given before its Watcher looked.
        """
        seen = self._view.look(path)
        if seen.kind in NOWHERE:
            return True
        if seen.kind is not LookKind.FILE or path in suspicion.missing:
            return False
        file = LinkedFile(device=seen.device, inode=seen.inode, links=seen.links)
        tree = self._node.tree
        return seen.links > 1 or bool(self._read.link_names(tree, file, with_gone=True))

    def _ask_watermark(self) -> None:
        """A flush waits for it, so not only by heartbeats; what is being written may hold it."""
        now = self._clock.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_SECONDS
            self._journals.ask_watermark()
