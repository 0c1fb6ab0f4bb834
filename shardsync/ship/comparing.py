"""Bootstrap and reconcile of one Node, a slice at a time: several pieces side by side.

A piece is compared first (a dry run); one that is identical is done with that. A
few differences are sent by name, many by a run of the whole piece. Deletion
is never done side by side: what pieces find beside the Tree is collected,
and goes through `Delivery` when all of the slice's runs have ended.

It is safe to run beside each other what is written here: the pieces' subtrees
are disjoint, live Batches wait for the slice, and the directories above the
pieces get their attributes last, by rows that a kill leaves open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from shardsync.clock import Clock
from shardsync.journal.records import Compare, NodeKey, NodeRow, RoundKind, Work
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.batch import IsExcluded
from shardsync.ship.command import Purpose
from shardsync.ship.delivery import Delivery
from shardsync.ship.findings import Findings, find
from shardsync.ship.fold import Pending, Want
from shardsync.ship.footing import Footing
from shardsync.ship.janitor import InFlight
from shardsync.ship.journals import TreeJournals
from shardsync.ship.lanes import Lanes
from shardsync.ship.look import LookKind
from shardsync.ship.pieces import Piece, disjoint, held
from shardsync.ship.repairing import Repairing
from shardsync.ship.shipping import Delivered, Failed, Shipping
from shardsync.ship.slices import MANY, Done, Record, Slice, add
from shardsync.ship.view import NodeView


class Comparing:
    """Does comparing work of one Node. Used by its OpenWork alone."""

    def __init__(
        self,
        *,
        key: NodeKey,
        state: StateWriter,
        delivery: Delivery,
        transport: Shipping,
        view: NodeView,
        journals: TreeJournals,
        subtree: str,
        is_excluded: IsExcluded,
        in_flight: InFlight,
        clock: Clock,
        log: Log,
    ) -> None:
        self._key = key
        self._state = state
        self._delivery = delivery
        self._transport = transport
        self._view = view
        self._footing = Footing(key=key, view=view)
        self._is_excluded = is_excluded
        self._in_flight = in_flight
        self._clock = clock
        self._lanes = Lanes(clock=clock, log=log)
        self._repairing = Repairing(
            key=key,
            state=state,
            delivery=delivery,
            journals=journals,
            subtree=subtree,
            clock=clock,
            log=log,
        )

    async def run(
        self,
        row: NodeRow,
        due: Sequence[Work],
        *,
        sweep: bool,
        has_news: Callable[[], bool],
        record: Record,
    ) -> Delivered:
        """Do what of `due` fits into a slice, each piece recorded as it is done.

        `due`: rows of one comparison, levels first, then trees, then what is above them.
        `sweep`: runs for them may have been killed. `has_news`: whether Changes may wait.
        Raises as `Delivery.deliver` does; what was recorded before stays so.
        """
        scope = due[0].scope
        rows = [item for item in due if item.scope is scope]
        slice_ = Slice(
            row=row,
            sweep=sweep,
            has_news=has_news,
            began=self._clock.monotonic(),
            cursors=self._state.read.cursors(self._key),
            record=record,
        )
        if scope is Scope.LISTING:
            slice_.open.append(await self._levels(rows, slice_))
        elif scope is Scope.TREE:
            await self._trees(rows, slice_)
        else:
            await self._frame(rows, slice_)
        await self._repairing.repair(slice_)
        return slice_.total

    async def _levels(self, rows: list[Work], slice_: Slice) -> Done:
        """What lies directly in the frame's directories, before any tree is put into them."""
        paths = [item.path for item in rows]
        compare = rows[0].compare
        done = Done(rows=rows, delivered=Delivered())
        purpose = Purpose.COMPARE_LEVEL
        if compare is Compare.CHECKSUM:
            purpose = Purpose.COMPARE_LEVEL_CHECKSUM
        folders = frozenset(paths)
        if compare is not Compare.EMPTY:
            done.found = await self._find(paths, purpose, slice_, known=folders)
            if not done.found.is_cut:
                return done
        await self._send_levels(paths, done)
        if compare is Compare.EMPTY and not slice_.sweep:
            return done
        done.found = await self._find(paths, purpose, slice_, known=folders)
        return done

    async def _send_levels(self, paths: list[bytes], done: Done) -> None:
        below = [path for path in paths if path]
        if below:
            add(
                done.delivered,
                await self._delivery.ship_whole(below, Purpose.LEVEL, beside=False),
            )
        if b"" in paths:
            pending = Pending(path=b"", want=Want.CONTENT, since=done.rows[0].since)
            root = await self._delivery.deliver(
                [pending],
                owned=False,
                compare=Compare.ATTRIBUTES,
                live=False,
                find_extraneous=False,
            )
            add(done.delivered, root)

    async def _trees(self, rows: list[Work], slice_: Slice) -> None:
        """Runs side by side; each takes the next pieces until the slice is over."""
        pieces = {_piece(item): item for item in rows}
        queue = [pieces[piece] for piece in disjoint(pieces)]

        async def do(some: list[Work]) -> None:
            done = await self._tree(some, slice_)
            if done.found.is_empty and not slice_.may_be_owned(done):
                self._repairing.finish(done, slice_)
            else:
                slice_.open.append(done)

        await self._lanes.go(queue, do, is_over=lambda: slice_.is_over(self._clock.monotonic()))

    async def _tree(self, rows: list[Work], slice_: Slice) -> Done:
        compare = rows[0].compare
        done = Done(rows=rows, delivered=Delivered())
        paths = await asyncio.to_thread(self._paths, rows)
        if not paths:
            return done
        if compare is Compare.EMPTY:
            await self._send_trees(paths, compare, done)
            if not slice_.sweep:
                return done
        purpose = Purpose.COMPARE_CHECKSUM if compare is Compare.CHECKSUM else Purpose.COMPARE
        done.found = await self._find(paths, purpose, slice_)
        if done.found.is_cut:
            await self._send_trees(paths, compare, done)
            done.found = await self._find(paths, purpose, slice_)
        if done.found.is_cut:
            # Its file system cannot hold what was sent, or all of it changes all the time.
            differing = Failed(reason="differs right after it was sent", scope=Scope.TREE)
            done.delivered.failed.update(dict.fromkeys(paths, differing))
            done.found.changed.clear()
        return done

    async def _send_trees(self, paths: list[bytes], compare: Compare, done: Done) -> None:
        purpose = Purpose.TREE_CHECKSUM if compare is Compare.CHECKSUM else Purpose.TREE
        add(done.delivered, await self._delivery.ship_whole(paths, purpose, beside=True))

    def _paths(self, rows: Iterable[Work]) -> list[bytes]:
        """What the pieces hold now, as a list for rsync."""
        return held(map(_piece, rows), self._view.folders, self._is_excluded)

    async def _frame(self, rows: list[Work], slice_: Slice) -> None:
        """The directories above the pieces, whose times those spoiled; and single paths."""
        compared = self._state.read.round(self._key, RoundKind.COMPARE)
        folders = [item for item in rows if self._view.look(item.path).kind is LookKind.DIRECTORY]
        are_folders = len(folders) == len(rows)
        if are_folders and compared is not None and not compared.differences:
            self._repairing.finish(Done(rows=rows, delivered=Delivered()), slice_)
            return
        paths = dict.fromkeys(item.path for item in rows)
        found = Findings(changed=paths, has_deletions=not are_folders)
        slice_.open.append(Done(rows=rows, delivered=Delivered(), found=found))

    async def _find(
        self,
        paths: list[bytes],
        purpose: Purpose,
        slice_: Slice,
        *,
        known: frozenset[bytes] | None = None,
    ) -> Findings:
        found = await find(
            self._transport,
            self._footing,
            paths,
            purpose=purpose,
            most=MANY,
            in_flight=self._in_flight,
            known=known,
        )
        slice_.files += found.files
        slice_.file_bytes += found.file_bytes
        return found


def _piece(row: Work) -> Piece:
    return Piece(path=row.path, scope=row.scope, first=row.first, beyond=row.beyond)
