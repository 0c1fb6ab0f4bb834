"""The renames of one Batch: made on the Node of what it has, the old names deleted last.

A path that was renamed is not lost: what counts against `max_delete` is what was at the
old name beyond what is at the new one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from shardsync.failpoints import Point, reach
from shardsync.ship.batch import BatchPlan
from shardsync.ship.command import Purpose
from shardsync.ship.fold import ancestors
from shardsync.ship.footing import Footing
from shardsync.ship.look import GONE
from shardsync.ship.moves import Move
from shardsync.ship.moving import Mover
from shardsync.ship.runs import Runs
from shardsync.ship.shipping import DEADLINE_SECONDS, Delivered, NodeTrouble

_WORTH_ENTRIES, _WORTH_BYTES = 200, 1024**2
"""A rename costs three starts of rsync; what is smaller is sent as soon."""


@dataclass(slots=True, kw_only=True)
class Vacated:
    """What is left to do for the renames of one Batch.

    `entries`: old name -> how many entries of it the new one has now. `shared`: old names
    whose files new ones share. `whole`: new names that need no run of their own any more,
    `fresh`: those of them where nothing was before.
    """

    entries: dict[bytes, int] = field(default_factory=dict)
    shared: set[bytes] = field(default_factory=set)
    whole: set[bytes] = field(default_factory=set)
    fresh: set[bytes] = field(default_factory=set)


class Vacating:
    """Takes the renames of one Node's Batches from the old names to the new ones."""

    def __init__(self, *, runs: Runs, footing: Footing, mover: Mover) -> None:
        self._runs = runs
        self._footing = footing
        self._mover = mover

    async def begin(self, plan: BatchPlan) -> Vacated:
        """Take the old names of renames out of what is gone: they go last, and count by the rest.

        Raises OSError where the Tree cannot be read.
        """
        vacated = Vacated()
        for path, found in list(plan.moves.items()):
            if not self._is_worth_it(path):
                del plan.moves[path]
                continue
            move = plan.moves[path] = _as_deleted(found, plan)
            if move.is_gone and self._mover.may_link:
                vacated.shared.update(move.bases)
        for origin, path in plan.vacated.items():
            entries = await asyncio.to_thread(self._footing.view.count_entries, path)
            vacated.entries[origin] = 1 + entries
        for origin in vacated.entries:
            plan.gone.pop(origin, None)
        return vacated

    def _is_worth_it(self, path: bytes) -> bool:
        view = self._footing.view
        return view.is_at_least(path, entries=_WORTH_ENTRIES, size=_WORTH_BYTES)

    async def ship(self, plan: BatchPlan, vacated: Vacated, delivered: Delivered) -> None:
        """Make the new names of what is at the old ones. Raises RootLost, NodeTrouble."""
        shipped, trouble = await self._mover.ship(
            plan.moves.values(),
            check_root=self._footing.check,
            deadline_seconds=DEADLINE_SECONDS,
        )
        if trouble is not None:
            raise NodeTrouble(trouble)
        if shipped:
            reach(Point.SHIP_MOVED)
        for moved in shipped:
            path = moved.move.path
            delivered.shipped += 1
            delivered.bytes_sent += moved.result.bytes_sent
            for failed, failure in moved.result.failed.items():
                delivered.failed[failed] = self._runs.failed(failed, failure.reason, Purpose.TREE)
            vacated.whole.add(path)
            if moved.is_fresh:
                vacated.fresh.add(path)

    async def end(self, plan: BatchPlan, vacated: Vacated, delivered: Delivered) -> None:
        """Delete the old names, no more below them than the new ones have and is free beside.

        Then, and only where nothing stands there any more, are they no longer shared. Nothing
        need be compared where nothing was before. Raises RootLost, NodeTrouble.
        """
        if vacated.entries:
            entries = sum(vacated.entries.values())
            origins = sorted(vacated.entries)
            await self._runs.run((), origins, Purpose.BATCH, delivered, moved_entries=entries)
        with self._footing.looking() as looker:
            ended = {
                origin
                for origin in vacated.shared
                if looker.look(origin).kind in GONE
                and not any(above in delivered.failed for above in (origin, *ancestors(origin)))
            }
        self._mover.sharing.end(ended)
        self._mover.sharing.leave(vacated.shared - ended)
        for path in vacated.fresh:
            plan.trees.pop(path, None)


def _as_deleted(move: Move, plan: BatchPlan) -> Move:
    """The same, as far as its old names go with this Batch.

    One that is kept is copied from: two names would share its files for good.
    """
    if not all(plan.deletes(origin) for origin in move.origins):
        return replace(move, is_gone=False, guesses=())
    return replace(move, guesses=tuple(path for path in move.guesses if plan.deletes(path)))
