"""One Batch on its way to one Node: the order of its steps.

Deletion is decided here and in the parts that this puts to work, and nowhere else: a path
goes only after ENOENT through the pinned root, by name, within `max_delete`. The Changes
name what is gone (`ship.batch`), and `ship.losses` counts it before anything is sent; old
names of renames go last (`ship.vacating`); what a comparison finds beside the Tree goes only
from a Node that is owned (`ship.clearing`). All else is sent (`ship.sending`).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from shardsync.config.settings import NodeSettings, SyncSettings
from shardsync.journal.records import Compare
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.batch import BatchPlan, IsExcluded, Planned, Plans, plan_batch, take_big
from shardsync.ship.clearing import Clearing
from shardsync.ship.command import Purpose
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.fold import Pending
from shardsync.ship.footing import Footing
from shardsync.ship.janitor import InFlight
from shardsync.ship.links import HardLinks
from shardsync.ship.losses import Losses
from shardsync.ship.moves import has_halves, is_half_told, is_moved_on, is_taken_again
from shardsync.ship.moving import Mover
from shardsync.ship.runs import Runs
from shardsync.ship.sending import Sending
from shardsync.ship.shipping import Delivered, Failed, RootLost, Shipping
from shardsync.ship.vacating import Vacated, Vacating
from shardsync.ship.view import NodeView


def _none(path: bytes) -> bool:
    del path
    return False


class Delivery:
    """Ships Batches to one Node; keeps no progress: the Syncer records that afterwards."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        transport: Shipping,
        view: NodeView,
        is_excluded: IsExcluded,
        excludes: tuple[str, ...],
        known_foreign: Callable[[], frozenset[bytes] | None],
        budget: DeletionBudget,
        limits: SyncSettings,
        slots: contextlib.AbstractAsyncContextManager[None],
        links: HardLinks,
        mover: Mover,
        log: Log,
        is_first: Callable[[bytes], bool] | None = None,
        in_flight: InFlight | None = None,
    ) -> None:
        self._node = node
        self._view = view
        self._is_excluded = is_excluded
        self._sees = (node.subtree, excludes)
        self._is_first = is_first
        self._links = links
        self._footing = Footing(key=node.key, view=view)
        self._runs = Runs(
            transport=transport,
            footing=self._footing,
            budget=budget,
            limits=limits,
            has_excludes=bool(excludes),
            slots=slots,
            log=log,
        )
        self._losses = Losses(runs=self._runs, budget=budget)
        self._vacating = Vacating(runs=self._runs, footing=self._footing, mover=mover)
        self._sending = Sending(
            runs=self._runs,
            footing=self._footing,
            is_excluded=is_excluded,
            is_first=is_first,
            batch_bytes=limits.batch_bytes,
        )
        self._clearing = Clearing(
            transport=transport,
            runs=self._runs,
            losses=self._losses,
            footing=self._footing,
            is_excluded=is_excluded,
            known_foreign=known_foreign,
            in_flight=in_flight or InFlight(),
            log=log,
        )

    async def deliver(
        self,
        pending: Iterable[Pending],
        *,
        owned: bool,
        plans: Plans | None = None,
        compare: Compare = Compare.CONTENT,
        allow_delete: bool = False,
        again: bool = False,
        live: bool = True,
        find_extraneous: bool = True,
        sweep: bool = False,
        big_bytes: float = math.inf,
        beyond: int = 0,
        room_first: bool = False,
    ) -> Delivered:
        """Bring everything pending onto the Node; what fails alone is returned, not raised.

        Order: renamed directories, trees, then what is flat with what is gone, then old names,
        then what comparisons find beside the Tree. May be done twice, and be cut off anywhere.
        `plans`: of the slice that is pending, for those who ship it, too.
        `find_extraneous`: look for what the Node has beside trees and listings.
        `again`: these paths failed before, so what they may replace is counted, too.
        `live`: Changes or their retries, which delete their own path on every Node.
        `sweep`: a run for these paths may have been killed, and have left a file of ours.
        `beyond`: so many entries more are to go after these, and count against `max_delete` now.
        `big_bytes`: files with more than that are set aside, not sent.
        `room_first`: what is gone is deleted first, for a Node that is too full for the rest.

        Raises RootLost, NodeTrouble, TooManyDeletions: nothing then counts as shipped.
        """
        self._footing.take()
        self._runs.begin()
        planned = self._planned(pending, {} if plans is None else plans)
        plan = planned.plan.copy()
        delivered = Delivered(unresolved=set(planned.unresolved))
        for path, reason in plan.unreadable.items():
            delivered.failed[path] = Failed(reason=reason, scope=Scope.TREE)
        self._spare(plan, delivered, owned=owned, live=live)
        delivered.set_aside = take_big(plan, big_bytes, keep=self._is_first or _none)
        if again or not live:
            plan.moves.clear()
        vacated = await self._vacating.begin(plan)
        if self._node.delete:
            await self._losses.check(plan, allow_delete=allow_delete, again=again, beyond=beyond)
        returning = {*plan.gone, *plan.replaced, *vacated.entries}
        left = plan
        if room_first:
            left = await self._sending.deletions(plan, delivered, compare)
        await self._send(left, vacated, delivered, compare)
        if self._node.delete:
            clearing = self._clearing
            await clearing.empty_returned(returning, delivered, allow_delete=allow_delete)
            if find_extraneous and (plan.trees or plan.listings):
                await clearing.remove(plan, delivered, owned=owned, allow_delete=allow_delete)
            if sweep or self._runs.was_cut_off:
                trees = () if owned and find_extraneous else plan.trees
                await clearing.sweep(
                    plan, trees, delivered, owned=owned, allow_delete=allow_delete
                )
        return delivered

    def _planned(self, pending: Iterable[Pending], plans: Plans) -> Planned:
        """One look at each path, unless another Node that sees the same has just taken it.

        Not before the root was away, or anything below it: what was seen missing then was not.
        """
        stand = self._footing.stand
        known = plans.get(self._sees)
        if known is not None and known.stand == stand:
            return known
        with self._footing.looking() as looker:
            plan = plan_batch(pending, look=looker.look, is_excluded=self._is_excluded)
        unresolved = self._add_siblings(plan) if plan.linked or plan.unlinked else set()
        made = Planned(plan=plan, stand=stand, unresolved=frozenset(unresolved))
        plans[self._sees] = made
        return made

    def is_half_told(self, pending: Mapping[bytes, Pending], *, in_several: bool = False) -> bool:
        """Whether a rename is pending, of paths of the Tree, of which more is to be told.

        `in_several`: Shards, which may have seen one half of it each. False where it cannot be
        seen.
        """
        if not in_several and all(item.moved_from is None for item in pending.values()):
            return False
        try:
            with self._view.root.looking() as looker:
                look = looker.look
                if is_moved_on(pending, look=look) or is_taken_again(pending, look=look):
                    return True
                return in_several and (
                    has_halves(pending.values(), look=look) or is_half_told(pending, look=look)
                )
        except OSError:
            return False

    async def ship_whole(
        self, paths: Sequence[bytes], purpose: Purpose, *, beside: bool
    ) -> Delivered:
        """Send these directories with what is in them, as TREE or LEVEL; deletes nothing there.

        `beside`: others may do the same meanwhile, with subtrees of their own; the directories
        above are theirs to set right who asked for that. Raises as `deliver` does.
        """
        self._footing.leave()
        delivered = Delivered()
        await self._sending.whole(paths, purpose, delivered, beside=beside)
        return delivered

    def _spare(self, plan: BatchPlan, delivered: Delivered, *, owned: bool, live: bool) -> None:
        """Leave on the Node what is gone from the Tree, where that is the rule."""
        if not self._node.delete:
            plan.gone.clear()
        if not (live or owned):
            delivered.foreign += plan.gone
            plan.gone.clear()

    async def _send(
        self, plan: BatchPlan, vacated: Vacated, delivered: Delivered, compare: Compare
    ) -> None:
        if plan.has_root_files:
            files = (await self._footing.names_in_root(self._is_excluded))[1]
            plan.content.update(dict.fromkeys(files, 0))
        await self._sending.first(plan, delivered, compare)
        await self._vacating.ship(plan, vacated, delivered)
        await self._sending.trees(plan, vacated.whole, delivered, compare)
        await self._sending.flat(plan, delivered, compare)
        await self._vacating.end(plan, vacated, delivered)

    def _add_siblings(self, plan: BatchPlan) -> set[bytes]:
        """Add the other names of linked files; returns the files that may have more.

        By checksum: a name whose file did not change, as after link(2), costs no data, and a
        write that kept size and time is found.
        """
        prefix = os.fsencode(self._node.subtree)
        prefix = prefix + b"/" if prefix else b""
        in_tree = {prefix + path: file for path, file in plan.linked.items()}
        try:
            with self._view.root.looking() as looker:
                found = self._links.siblings(
                    in_tree, (prefix + path for path in plan.unlinked), looker.look
                )
        except OSError as error:
            raise RootLost(f"tree {self._node.tree}: {error.strerror}") from error
        for name in found.names:
            path = name[len(prefix) :]
            if not name.startswith(prefix) or self._is_excluded(path, False):
                continue
            if path not in plan.content:
                plan.attributes.pop(path, None)
                plan.siblings.add(path)
        return {path[len(prefix) :] for path in found.unresolved}
