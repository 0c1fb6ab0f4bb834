"""Bringing a slice of a comparison to its end: what differs is sent, what is beside the Tree goes.

One after the other, when all of the slice's runs have ended; then it is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardsync.clock import Clock
from shardsync.failpoints import Point, reach
from shardsync.journal.records import Gain, NodeKey, Work
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.delivery import Delivery
from shardsync.ship.explained import explained_after
from shardsync.ship.findings import Findings
from shardsync.ship.fold import Pending, Want
from shardsync.ship.journals import TreeJournals
from shardsync.ship.shipping import Delivered, Failed
from shardsync.ship.slices import Done, Slice, add

_COMMIT_SECONDS = 0.2
"""Until what changed a moment ago is in its Journal."""


class Repairing:
    """Call `repair` at the end of a slice, `finish` for pieces that have come to theirs before."""

    def __init__(
        self,
        *,
        key: NodeKey,
        state: StateWriter,
        delivery: Delivery,
        journals: TreeJournals,
        subtree: str,
        clock: Clock,
        log: Log,
    ) -> None:
        self._key = key
        self._state = state
        self._delivery = delivery
        self._journals = journals
        self._subtree = subtree
        self._clock = clock
        self._log = log

    async def repair(self, slice_: Slice) -> None:
        """What differs, by name, and what is beside the Tree: one after the other."""
        if not slice_.open:
            return
        row = slice_.row
        found = Findings()
        for done in slice_.open:
            found.join(done.found)
        rows = [item for done in slice_.open for item in done.rows]
        total = Delivered()
        for done in slice_.open:
            add(total, done.delivered)
        if row.owned is None:
            await self._judge_owned(slice_, found)
        pending = [
            Pending(path=path, want=Want.CONTENT, since=rows[0].since)
            for path in (*found.changed, *found.beside.paths)
        ]
        allow = all(item.since <= row.allow_delete for item in rows)
        if pending:
            delivered = await self._delivery.deliver(
                pending,
                owned=bool(row.owned),
                compare=rows[0].compare,
                allow_delete=allow,
                # A dry run tells how much goes with what is beside the Tree.
                again=found.has_deletions,
                live=False,
                find_extraneous=False,
                beyond=found.beside.beyond if row.owned else 0,
            )
            add(total, delivered)
        rows = _ended(slice_, rows, total, beyond=found.beside.beyond)
        if slice_.sweep and found.leftovers and row.owned:
            await self._sweep(found, total, allow=allow)
        for path, reason in found.unreadable.items():
            total.failed.setdefault(path, Failed(reason=reason, scope=Scope.TREE))
        slice_.open = [Done(rows=rows, delivered=total, found=found)]
        self.finish(slice_.open[0], slice_, pending)

    async def _judge_owned(self, slice_: Slice, found: Findings) -> None:
        """At first contact: what differs though nothing is pending there makes it a foreign one.

        If nothing does, the end of the round makes the Node owned.
        """
        await asyncio.sleep(_COMMIT_SECONDS)
        explained = await explained_after(self._journals, slice_.cursors, subtree=self._subtree)
        differing = [*found.changed, *found.beside.paths, *found.unreadable]
        if not any(done.delivered.shipped or done.delivered.failed for done in slice_.open):
            differing = [
                *(path for path in found.changed if not explained.explains(path)),
                *(path for path in found.beside.paths if not explained.explains_extraneous(path)),
                *(path for path in found.unreadable if not explained.explains(path)),
            ]
            if not differing and not found.beside.beyond:
                return
        self._state.set_node(self._key, owned=0)
        self._log.warning(
            "node.not_owned",
            reason="it held other files at first contact: what the tree lacks is kept there",
            remedy=f"shardsync resume {self._key[1]} --adopt",
            example=differing[0] if differing else b"",
        )

    async def _sweep(self, found: Findings, total: Delivered, *, allow: bool) -> None:
        """What killed runs of ours left goes from an owned Node.

        On another it may be a user's, as what is foreign there is only being found out.
        """
        left = [Pending(path=path, want=Want.CONTENT, since=0) for path in sorted(found.leftovers)]
        swept = await self._delivery.deliver(left, owned=True, allow_delete=allow, again=True)
        self._log.info("leftovers.swept", count=len(left), example=left[0].path)
        total.foreign = [path for path in total.foreign if path not in found.leftovers]
        add(total, swept)

    def finish(self, done: Done, slice_: Slice, pending: Sequence[Pending] = ()) -> None:
        """Record pieces as done, with what they add to the round."""
        reach(Point.SHIP_PIECE)
        now = self._clock.monotonic()
        delivered = done.delivered
        differences = done.found.count or int(bool(delivered.shipped)) + len(delivered.failed)
        slice_.record(
            done.rows,
            delivered,
            pending,
            Gain(
                done=len(done.rows),
                paths=slice_.files or delivered.files,
                bytes=slice_.file_bytes or delivered.file_bytes,
                sent_bytes=delivered.bytes_sent,
                differences=differences,
                busy_us=int((now - slice_.noted_at) * 1_000_000),
            ),
        )
        slice_.files = slice_.file_bytes = 0
        slice_.noted_at = now
        add(slice_.total, delivered)


def _ended(slice_: Slice, rows: list[Work], total: Delivered, *, beyond: int) -> list[Work]:
    """The rows that are done, less those of which the next look finds what was beyond this one's.

    Only if this one deleted something, and so comes to an end.
    """
    if not slice_.row.owned:
        total.unlisted += beyond
        return rows
    if not total.deleted:
        return rows
    left = {item.id for done in slice_.open if done.found.beside.beyond for item in done.rows}
    return [item for item in rows if item.id not in left]
