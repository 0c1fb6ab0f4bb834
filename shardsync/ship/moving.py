"""A renamed directory is made on a Node of what the Node has under the old name.

`--link-dest` only for names that are gone from the Tree and are deleted in the same
Batch: a file that two names share would let a later chmod of one leak to the other.
Until the deletion is seen done, a row of open work says that whatever stands at the
old name must be sent anew, so that no crash in between leaves such a pair.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from shardsync.clock import Clock
from shardsync.journal.records import BatchRecord, Compare, NodeKey, Work, WorkReason
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.command import Purpose
from shardsync.ship.messages import OutLine
from shardsync.ship.moves import Move, in_order
from shardsync.ship.outcome import Outcome, RunResult, Trouble

_LATER_US = 60_000_000
"""While the Batch lives it takes care itself; after a crash its Changes come first."""
_REFUSED = frozenset({Trouble.INVOCATION, Trouble.UNATTRIBUTED, Trouble.SOURCE})
"""A daemon may refuse --link-dest; the directory is then sent, or left out, as any other."""
_MOVED_ON_AT_MOST = 3
"""So often in a row is a Batch given up for a directory that was renamed on. What else is in it
waits no longer for somebody who renames all the time: until one of his is through, they are sent
as data."""


class Moving(Protocol):
    """What is asked of the transport to a Node: `ship.transport.NodeTransport`."""

    def can_move(self, path: bytes) -> bool:
        """Whether this Node can be told of an old name, and of this new one."""
        ...

    async def ship(
        self,
        paths: Sequence[bytes],
        *,
        purpose: Purpose,
        deadline_seconds: float,
        on_line: Callable[[OutLine], None],
    ) -> RunResult:
        """One run of rsync with this list."""
        ...

    async def ship_moved(
        self,
        path: bytes,
        *,
        origins: Sequence[bytes],
        link: bool,
        checksum: bool,
        filters: tuple[str, ...],
        deadline_seconds: float,
    ) -> RunResult:
        """One run for a directory that was renamed. Paths of the result are the Node's."""
        ...


class Sharing:
    """The old names of one Node whose files are shared with new names for the moment.

    Kept in the work table, so that a crash does not forget them.
    """

    def __init__(self, *, key: NodeKey, state: StateWriter, clock: Clock) -> None:
        self._key = key
        self._state = state
        self._clock = clock

    def begin(self, origins: Sequence[bytes]) -> list[bytes]:
        """From now on what is at these places may be shared; returns what was not before."""
        fresh = [path for path in origins if not self._state.read.move_rows(self._key, [path])]
        self._note(origins, not_before=self._clock.wall_us() + _LATER_US)
        return fresh

    def end(self, origins: Iterable[bytes]) -> None:
        """Nothing is at these places on the Node any more, or nothing was shared after all."""
        ids = self._state.read.move_rows(self._key, origins)
        if ids:
            self._state.record(self._key, BatchRecord(work_done=ids))

    def leave(self, origins: Iterable[bytes]) -> None:
        """The Batch is over, and something is at these places, or may be: send it anew at once."""
        open_ = [path for path in origins if self._state.read.move_rows(self._key, [path])]
        self._note(open_, not_before=0)

    def _note(self, origins: Iterable[bytes], *, not_before: int) -> None:
        now = self._clock.wall_us()
        self._state.add_work(
            self._key,
            [
                Work(
                    path=path,
                    scope=Scope.TREE,
                    compare=Compare.ANEW,
                    reason=WorkReason.MOVE,
                    since=now,
                    not_before=not_before,
                )
                for path in origins
            ],
        )

    def is_settled(self, origins: Iterable[bytes]) -> bool:
        """Whether the Node has everything that the Cursors say it has at these places."""
        until_us = self._clock.wall_us() + _LATER_US
        return not any(
            self._state.read.has_work_at(self._key, path, until_us=until_us) for path in origins
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A renamed directory that is on the Node now. `is_fresh`: nothing was there before."""

    move: Move
    result: RunResult
    is_fresh: bool


class Mover:
    """Ships renamed directories to one Node."""

    def __init__(
        self,
        *,
        transport: Moving,
        sharing: Sharing,
        slots: contextlib.AbstractAsyncContextManager[None],
        filters_below: Callable[[bytes], tuple[str, ...]],
        first_below: Callable[[bytes], tuple[str, ...]],
        is_divided: Callable[[bytes], bool],
        may_link: bool,
        log: Log,
    ) -> None:
        self._is_divided = is_divided
        self._transport = transport
        self._slots = slots
        self._filters_below = filters_below
        self._first_below = first_below
        self.may_link = may_link
        self._log = log
        self.sharing = sharing
        self._moved_on = 0

    async def ship(
        self,
        moves: Iterable[Move],
        *,
        check_root: Callable[[], None],
        deadline_seconds: float,
    ) -> tuple[list[Moved], RunResult | None]:
        """(what was shipped, the run that failed for the whole Node or None).

        What is refused is left out, to be sent as any directory. For one that was renamed on
        meanwhile all of it fails, so that the old name is still there when the Changes tell of
        the next; but not for ever.
        """
        wanted = in_order(move for move in moves if self._transport.can_move(move.path))
        if not wanted:
            return [], None
        fresh, result = await self._make(wanted, check_root, deadline_seconds)
        shipped: list[Moved] = []
        known = self._moved_on
        if result.outcome is Outcome.NOTHING:
            return shipped, None if result.trouble in _REFUSED else result
        wanted = [move for move in wanted if move.path not in result.failed]
        quick = {move.path for move in wanted if self._is_quick(move, is_fresh=move.path in fresh)}
        first = {move.path: self._first_below(move.path) for move in wanted}
        passes = [(move, first[move.path]) for move in wanted if first[move.path]]
        for move, only in [*passes, *((move, ()) for move in wanted)]:
            run = await self._run(
                move, only, check_root, deadline_seconds, checksum=move.path not in quick
            )
            if run.outcome is Outcome.NOTHING and not self._is_left_out(run):
                return shipped, run
            if run.outcome is Outcome.NOTHING:
                self._log.warning("move.refused", path=move.path, error=run.message)
            elif not only:
                self._log.info(
                    "move.shipped",
                    path=move.path,
                    origin=move.origins[0],
                    bytes_sent=run.bytes_sent,
                    by="time" if move.path in quick else "checksum",
                    link=self._links(move),
                )
                shipped.append(Moved(move=move, result=run, is_fresh=move.path in fresh))
        if self._moved_on == known:
            self._moved_on = 0
        return shipped, None

    def _is_left_out(self, run: RunResult) -> bool:
        """Whether the Batch goes on without what this run was to move."""
        if run.trouble is not Trouble.MOVED_ON:
            return run.trouble in _REFUSED
        self._moved_on += 1
        return self._moved_on > _MOVED_ON_AT_MOST

    def _is_quick(self, move: Move, *, is_fresh: bool) -> bool:
        """Whether size and time tell enough of the basis; else bytes are compared.

        Only of what the Node holds by our own hand, all of it shipped, and where what changed
        since is shipped after: never of a guess.
        """
        return (
            is_fresh
            and self._links(move)
            and move.is_told
            and not move.guesses
            and self.sharing.is_settled([move.path, *move.origins])
            and not any(self._is_divided(path) for path in (move.path, *move.origins))
        )

    def _links(self, move: Move) -> bool:
        return self.may_link and move.is_gone

    async def _make(
        self, moves: Sequence[Move], check_root: Callable[[], None], deadline_seconds: float
    ) -> tuple[set[bytes], RunResult]:
        """Make the directories themselves, with those above them; which were not there before.

        It also turns into a directory whatever else the Node has at such a place or above.
        """
        fresh: set[bytes] = set()

        def note(line: OutLine) -> None:
            if "+" in line.item:
                fresh.add(line.path)

        async with self._slots:
            check_root()
            result = await self._transport.ship(
                [move.path for move in moves],
                purpose=Purpose.ATTRIBUTES,
                deadline_seconds=deadline_seconds,
                on_line=note,
            )
        return fresh, result

    async def _run(
        self,
        move: Move,
        only: tuple[str, ...],
        check_root: Callable[[], None],
        deadline_seconds: float,
        *,
        checksum: bool,
    ) -> RunResult:
        link = self._links(move)
        begun = self.sharing.begin(move.bases) if link else []
        async with self._slots:
            check_root()
            result = await self._transport.ship_moved(
                move.path,
                origins=move.bases,
                link=link,
                checksum=checksum,
                filters=(*self._filters_below(move.path), *only),
                deadline_seconds=deadline_seconds,
            )
        if result.exit_code is None and not result.cut_off:
            # No rsync was started. A row that stayed would have all bytes compared next time.
            self.sharing.end(begun)
        return result
