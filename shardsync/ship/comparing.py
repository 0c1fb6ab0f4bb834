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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shardsync.clock import Clock
from shardsync.errors import ShardsyncError
from shardsync.failpoints import Point, reach
from shardsync.journal.records import (
    Compare,
    Cursor,
    Gain,
    NodeKey,
    NodeRow,
    RoundKind,
    Work,
)
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.batch import IsExcluded
from shardsync.ship.command import Purpose
from shardsync.ship.delivery import Delivery
from shardsync.ship.explained import explained_after
from shardsync.ship.findings import Findings, find
from shardsync.ship.fold import Pending, Want
from shardsync.ship.footing import Footing
from shardsync.ship.janitor import InFlight
from shardsync.ship.journals import TreeJournals
from shardsync.ship.look import LookKind
from shardsync.ship.outcome import Trouble
from shardsync.ship.pieces import Piece, disjoint, held
from shardsync.ship.shipping import Delivered, Failed, NodeTrouble, Shipping
from shardsync.ship.view import NodeView

_LANES = 4
_SLICE_SECONDS = 10.0
_NEWS_SECONDS = 1.0
"""After so long a slice begins nothing more once a Change waits."""
_SHORT_SECONDS, _LONG_SECONDS = 1.0, 4.0
"""A run that is shorter takes more pieces the next time, one that is longer takes fewer."""
_FIRST_TOGETHER = 4
_MANY = 5_000
"""More differences than that in one run, and the whole is sent instead of a list."""

_COMMIT_SECONDS = 0.2
"""Until what changed a moment ago is in its Journal."""


@dataclass(slots=True)
class _Done:
    """Pieces that a run brought to their end, or whose rest is in `found`."""

    rows: list[Work]
    delivered: Delivered
    found: Findings = field(default_factory=Findings)


Record = Callable[[Sequence[Work], Delivered, Sequence[Pending], Gain], None]
"""(rows that are done, what was delivered, the paths it was for, what it adds to the round)."""


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
        self._journals = journals
        self._subtree = subtree
        self._is_excluded = is_excluded
        self._in_flight = in_flight
        self._clock = clock
        self._log = log
        self._lanes = _LANES
        self._together = _FIRST_TOGETHER
        self._trouble: ShardsyncError | OSError | None = None

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
        self._trouble = None
        scope = due[0].scope
        rows = [item for item in due if item.scope is scope]
        slice_ = _Slice(
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
        if self._trouble is not None:
            raise self._trouble
        await self._repair(slice_)
        return slice_.total

    async def _levels(self, rows: list[Work], slice_: _Slice) -> _Done:
        """What lies directly in the frame's directories, before any tree is put into them."""
        paths = [item.path for item in rows]
        compare = rows[0].compare
        done = _Done(rows=rows, delivered=Delivered())
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

    async def _send_levels(self, paths: list[bytes], done: _Done) -> None:
        below = [path for path in paths if path]
        if below:
            _add(
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
            _add(done.delivered, root)

    async def _trees(self, rows: list[Work], slice_: _Slice) -> None:
        """Runs side by side; each takes the next pieces until the slice is over."""
        pieces = {_piece(item): item for item in rows}
        queue = [pieces[piece] for piece in disjoint(pieces)]
        async with asyncio.TaskGroup() as group:
            for _ in range(self._lanes):
                group.create_task(self._lane(queue, slice_))

    async def _lane(self, queue: list[Work], slice_: _Slice) -> None:
        while queue and self._trouble is None and not self._is_over(slice_):
            rows = queue[: self._together]
            del queue[: self._together]
            began = self._clock.monotonic()
            try:
                done = await self._tree(rows, slice_)
                if done.found.is_empty and not slice_.may_be_owned(done):
                    self._finish(done, slice_)
                else:
                    slice_.open.append(done)
            except (ShardsyncError, OSError) as error:
                self._give_way(error)
                return
            self._pace(self._clock.monotonic() - began)

    def _is_over(self, slice_: _Slice) -> bool:
        seconds = self._clock.monotonic() - slice_.began
        found = sum(len(done.found.changed) + len(done.found.beside.paths) for done in slice_.open)
        return (
            seconds > _SLICE_SECONDS
            or found > _MANY
            or (seconds > _NEWS_SECONDS and slice_.has_news())
        )

    def _pace(self, seconds: float) -> None:
        if seconds < _SHORT_SECONDS:
            self._together *= 2
        elif seconds > _LONG_SECONDS:
            self._together = max(1, self._together // 2)

    def _give_way(self, error: ShardsyncError | OSError) -> None:
        """A Node that takes fewer connections gets fewer; any other trouble is the Node's."""
        if isinstance(error, NodeTrouble) and error.trouble is Trouble.BUSY and self._lanes > 1:
            self._lanes = max(1, self._lanes // 2)
            self._log.info("node.fewer_lanes", lanes=self._lanes, reason=error)
            return
        self._trouble = self._trouble or error

    async def _tree(self, rows: list[Work], slice_: _Slice) -> _Done:
        compare = rows[0].compare
        done = _Done(rows=rows, delivered=Delivered())
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

    async def _send_trees(self, paths: list[bytes], compare: Compare, done: _Done) -> None:
        purpose = Purpose.TREE_CHECKSUM if compare is Compare.CHECKSUM else Purpose.TREE
        _add(done.delivered, await self._delivery.ship_whole(paths, purpose, beside=True))

    def _paths(self, rows: Iterable[Work]) -> list[bytes]:
        """What the pieces hold now, as a list for rsync."""
        return held(map(_piece, rows), self._view.folders, self._is_excluded)

    async def _frame(self, rows: list[Work], slice_: _Slice) -> None:
        """The directories above the pieces, whose times those spoiled; and single paths."""
        compared = self._state.read.round(self._key, RoundKind.COMPARE)
        folders = [item for item in rows if self._view.look(item.path).kind is LookKind.DIRECTORY]
        are_folders = len(folders) == len(rows)
        if are_folders and compared is not None and not compared.differences:
            self._finish(_Done(rows=rows, delivered=Delivered()), slice_)
            return
        paths = dict.fromkeys(item.path for item in rows)
        found = Findings(changed=paths, has_deletions=not are_folders)
        slice_.open.append(_Done(rows=rows, delivered=Delivered(), found=found))

    async def _find(
        self,
        paths: list[bytes],
        purpose: Purpose,
        slice_: _Slice,
        *,
        known: frozenset[bytes] | None = None,
    ) -> Findings:
        found = await find(
            self._transport,
            self._footing,
            paths,
            purpose=purpose,
            most=_MANY,
            in_flight=self._in_flight,
            known=known,
        )
        slice_.files += found.files
        slice_.file_bytes += found.file_bytes
        return found

    async def _repair(self, slice_: _Slice) -> None:
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
            _add(total, done.delivered)
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
            _add(total, delivered)
        rows = _ended(slice_, rows, total, beyond=found.beside.beyond)
        if slice_.sweep and found.leftovers and row.owned:
            await self._sweep(found, total, allow=allow)
        for path, reason in found.unreadable.items():
            total.failed.setdefault(path, Failed(reason=reason, scope=Scope.TREE))
        slice_.open = [_Done(rows=rows, delivered=total, found=found)]
        self._finish(slice_.open[0], slice_, pending)

    async def _judge_owned(self, slice_: _Slice, found: Findings) -> None:
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
        _add(total, swept)

    def _finish(self, done: _Done, slice_: _Slice, pending: Sequence[Pending] = ()) -> None:
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
        _add(slice_.total, delivered)


@dataclass(slots=True, kw_only=True)
class _Slice:
    """One call of `run`: what it was called with, and what it came to so far."""

    row: NodeRow
    sweep: bool
    has_news: Callable[[], bool]
    began: float
    cursors: Mapping[str, Cursor]
    record: Record
    noted_at: float = 0.0
    files: int = 0
    file_bytes: int = 0
    open: list[_Done] = field(default_factory=list)
    total: Delivered = field(default_factory=Delivered)

    def __post_init__(self) -> None:
        self.noted_at = self.began

    def may_be_owned(self, done: _Done) -> bool:
        """Whether a piece that was sent decides on that."""
        return self.row.owned is None and bool(done.delivered.shipped or done.delivered.failed)


def _ended(slice_: _Slice, rows: list[Work], total: Delivered, *, beyond: int) -> list[Work]:
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


def _piece(row: Work) -> Piece:
    return Piece(path=row.path, scope=row.scope, first=row.first, beyond=row.beyond)


def _add(total: Delivered, more: Delivered) -> None:
    total.shipped += more.shipped
    total.deleted += more.deleted
    total.bytes_sent += more.bytes_sent
    total.files += more.files
    total.file_bytes += more.file_bytes
    total.failed.update(more.failed)
    total.foreign += more.foreign
    total.unlisted += more.unlisted
    total.unresolved |= more.unresolved
