"""The rolling audit of one Node: a little of it is compared all the time, and repaired.

It writes nothing to the Node. What it finds becomes open work, which the Syncer
delivers with all its guards. Its pieces and how far it is lie in state.db, so that a
restart goes on with the round.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings
from shardsync.errors import StateUnusable
from shardsync.journal.records import (
    COMPARING,
    AuditPiece,
    Compare,
    Gain,
    NodeRow,
    Round,
    RoundKind,
    Work,
    WorkReason,
)
from shardsync.journal.state_writer import StateWriter
from shardsync.log import ChangeOnly, Log
from shardsync.model import NodeState, Scope
from shardsync.ship.command import Purpose
from shardsync.ship.dividing import Dividing
from shardsync.ship.findings import Findings, find
from shardsync.ship.footing import Footing
from shardsync.ship.janitor import InFlight
from shardsync.ship.journals import TreeJournals
from shardsync.ship.shipping import NodeTrouble, RootLost, Shipping
from shardsync.ship.unexplained import Compared, Judge, Unexplained
from shardsync.ship.view import NodeView

_FIRST_SECONDS = 3600.0
"""After a Node was compared as a whole; sooner where a whole round is to take less."""
_LOOK_SECONDS = 5.0
_AWAY_SECONDS = 60.0
_REST_FACTOR = 4.0
"""A round that is late rests for so many times what its last piece took."""
_SETTLE_SECONDS = 1.0
"""From one look to the next whether what changed while a piece was compared is journaled, and
until the names of files that have several are noted."""
_JUDGED_WITHIN_SECONDS = 300.0
"""After that what was compared is old, and is compared again."""
_MANY = 2_000
"""More differences than that in one piece, and the piece is reconciled as a whole."""


class Auditor:
    """One per Node; `run` it beside the Syncer. Reads Tree and Node, writes to state.db alone."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        state: StateWriter,
        journals: TreeJournals,
        transport: Shipping,
        view: NodeView,
        dividing: Dividing,
        in_flight: InFlight,
        wake: Callable[[], None],
        clock: Clock,
        log: Log,
    ) -> None:
        self._node = node
        self._state = state
        self._journals = journals
        self._transport = transport
        self._footing = Footing(key=node.key, view=view)
        self._dividing = dividing
        self._in_flight = in_flight
        self._wake = wake
        self._clock = clock
        self._log = log
        self._began_us = clock.wall_us()
        self._rest_until = 0.0
        self._compared: Compared | None = None
        self._said = ChangeOnly(clock=clock)
        self._judge = Judge(node=node, state=state.read, journals=journals, view=view)

    async def run(self, stopping: asyncio.Event) -> None:
        """Audit until told to stop; a piece under way is cut off."""
        while not stopping.is_set():
            seconds = await self.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), seconds)

    async def tick(self) -> float:
        """Compare one piece, if one is due; returns after how many seconds to look again.

        Crash safety: a piece is done in the transaction that opens the work for what it
        found; a crash before compares it again.
        """
        try:
            row = self._state.know_node(self._node.key)
            if not self._may_audit(row):
                self._compared = None
                return _LOOK_SECONDS
            piece = self._state.read.audit_piece(self._node.key)
            if piece is None:
                return await self._begin(row)
            if self._compared is None or self._compared.piece != piece:
                wait = self._wait_seconds()
                if wait > 0:
                    return min(wait, _LOOK_SECONDS)
                self._compared = await self._compare(piece)
            return await self._conclude(row, self._compared)
        except (NodeTrouble, RootLost, StateUnusable, OSError) as error:
            self._compared = None
            # What it is the Syncer tells, which meets it too.
            self._say_waiting(error)
            return _AWAY_SECONDS

    def _may_audit(self, row: NodeRow) -> bool:
        """Not while the Node is away, or has so much before it that a difference says nothing."""
        if not self._node.audit_every_seconds or row.paused or row.halted or row.attempts:
            return False
        hours = self._node.audit_hours
        if hours is not None and hours.until_us(self._clock.wall_us()) is None:
            return False
        if not row.contacted or row.state is not NodeState.FOLLOWING:
            return False
        if not self._journals.are_observing():
            return False
        return not COMPARING & self._state.read.work_reasons(self._node.key).keys()

    async def _begin(self, row: NodeRow) -> float:
        """Open the next round, if it is time."""
        every = self._node.audit_every_seconds
        if row.audited_at is not None:
            due = row.audited_at + int(every * 1e6)
        else:
            since = self._began_us if row.verified_at is None else row.verified_at
            due = since + int(min(_FIRST_SECONDS, every) * 1e6)
        wait = (due - self._clock.wall_us()) / 1e6
        # A clock that was set back must not put it off for longer than a round.
        if 0 < wait <= every:
            return min(wait, _LOOK_SECONDS)
        pieces = await asyncio.to_thread(self._dividing.for_audit)
        self._state.rounds.begin_audit(self._node.key, pieces)
        self._log.info("audit.begun", pieces=len(pieces))
        return 0.0

    def _wait_seconds(self) -> float:
        """Pieces are spread over the round; where it is late, each is followed by a rest."""
        found = self._state.read.round(self._node.key, RoundKind.AUDIT)
        rest = self._rest_until - self._clock.monotonic()
        if found is None:
            return rest
        return max(rest, (self._due_us(found) - self._clock.wall_us()) / 1e6)

    def _due_us(self, found: Round) -> int:
        spread = self._node.audit_every_seconds * found.done / max(1, found.pieces)
        return found.began_at + int(spread * 1e6)

    async def _compare(self, piece: AuditPiece) -> Compared:
        began = self._clock.monotonic()
        cursors = self._state.read.cursors(self._node.key)
        work = tuple(self._state.read.work(self._node.key))
        found = await self._findings(piece)
        return Compared(
            piece=piece,
            found=found,
            cursors=cursors,
            work=work,
            seen_us=self._clock.wall_us(),
            seconds=self._clock.monotonic() - began,
        )

    async def _conclude(self, row: NodeRow, compared: Compared) -> float:
        """Record the piece, with the work that it opens; not before it is known what explains."""
        work: list[Work] = []
        if not compared.found.is_empty:
            age = (self._clock.wall_us() - compared.seen_us) / 1e6
            if not 0 <= age <= _JUDGED_WITHIN_SECONDS:
                self._compared = None
                self._say_waiting("changes of the tree are not journaled for long")
                return _AWAY_SECONDS
            if not self._judge.may_judge(compared) or age < _SETTLE_SECONDS:
                return _SETTLE_SECONDS
            work = self._work(compared, await self._judge.judge(compared))
        self._record(row, compared, work)
        return 0.0

    def _record(self, row: NodeRow, compared: Compared, work: list[Work]) -> None:
        self._compared = None
        gain = Gain(
            done=1,
            paths=compared.found.files,
            bytes=compared.found.file_bytes,
            differences=len(work),
            busy_us=int(compared.seconds * 1e6),
        )
        is_last = self._state.rounds.note_audited(
            self._node.key, compared.piece, found=work, gain=gain
        )
        self._rest_until = self._clock.monotonic() + _REST_FACTOR * compared.seconds
        if work:
            self._tell(row, work)
            self._wake()
        if is_last:
            self._log.info("audit.done")

    async def _findings(self, piece: AuditPiece) -> Findings:
        is_exact = self._node.audit_checksum
        if piece.scope is Scope.LISTING:
            purpose = Purpose.COMPARE_LEVEL_CHECKSUM if is_exact else Purpose.COMPARE_LEVEL
            paths, known = [piece.path], frozenset({piece.path})
            return await self._find(paths, purpose, known)
        paths = await asyncio.to_thread(self._dividing.paths_of, piece)
        if not paths:
            return Findings()
        purpose = Purpose.COMPARE_CHECKSUM if is_exact else Purpose.COMPARE
        return await self._find(paths, purpose, None)

    async def _find(
        self, paths: list[bytes], purpose: Purpose, known: frozenset[bytes] | None
    ) -> Findings:
        return await find(
            self._transport,
            self._footing,
            paths,
            purpose=purpose,
            most=_MANY,
            in_flight=self._in_flight,
            known=known,
        )

    def _work(self, compared: Compared, differing: Unexplained) -> list[Work]:
        """What differs though nothing is on its way there, as rows for the Syncer."""
        piece, found = compared.piece, compared.found
        if found.beside.beyond or (found.is_cut and differing.changed):
            above = piece.path if piece.first else piece.path.rpartition(b"/")[0]
            rows = [self._row(piece.path, WorkReason.RECONCILE, piece)]
            # Its times suffer where several such pieces are sent side by side.
            return [*rows, *([self._row(above, WorkReason.RECONCILE)] if above else [])]
        paths = [*differing.changed, *differing.others]
        return [self._row(path, WorkReason.AUDIT) for path in paths]

    def _row(self, path: bytes, reason: WorkReason, piece: AuditPiece | None = None) -> Work:
        is_exact = self._node.audit_checksum
        return Work(
            path=path,
            scope=Scope.ENTRY if piece is None else piece.scope,
            compare=Compare.CHECKSUM if is_exact else Compare.ATTRIBUTES,
            reason=reason,
            since=self._clock.wall_us(),
            first=b"" if piece is None else piece.first,
            beyond=b"" if piece is None else piece.beyond,
        )

    def _say_waiting(self, reason: object) -> None:
        if self._said.is_due(str(reason)):
            self._log.info("audit.waits", reason=reason)

    def _tell(self, row: NodeRow, work: Iterable[Work]) -> None:
        paths = sorted(item.path for item in work)
        known = set(self._state.read.foreign_paths(self._node.key))
        new = [path for path in paths if path not in known]
        if new:
            self._log.warning(
                "audit.differs", paths=len(new), example=new[0], owned=bool(row.owned)
            )
