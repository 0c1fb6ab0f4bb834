"""What a Node has beside the Tree: found by comparing, and deleted only where it is owned.

rsync itself never deletes by comparing. What a dry run names is looked at through the
pinned root, and what the Tree really does not have goes by name, within `max_delete`;
from a Node that is not owned nothing goes but what killed runs of ours left there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.batch import BatchPlan, IsExcluded
from shardsync.ship.command import Purpose
from shardsync.ship.comparison import Difference, What
from shardsync.ship.findings import MOST_BESIDE, Beside, each_difference, find
from shardsync.ship.footing import Footing
from shardsync.ship.janitor import InFlight, Janitor, may_be_leftover
from shardsync.ship.losses import Losses
from shardsync.ship.runs import Runs
from shardsync.ship.shipping import Delivered, Failed, Shipping

_ROUNDS = 3
"""How often a directory that comes back is looked through before it is tried again later."""
_MORE = "the Node holds more beside the tree than can be deleted"
_SCOPE_OF = {Purpose.COMPARE: Scope.TREE, Purpose.COMPARE_LISTING: Scope.LISTING}


class Clearing:
    """Clears one Node of what the Tree does not have. Every method that sends raises RootLost,
    NodeTrouble, TooManyDeletions.
    """

    def __init__(
        self,
        *,
        transport: Shipping,
        runs: Runs,
        losses: Losses,
        footing: Footing,
        is_excluded: IsExcluded,
        known_foreign: Callable[[], frozenset[bytes] | None],
        in_flight: InFlight,
        log: Log,
    ) -> None:
        self._transport = transport
        self._runs = runs
        self._losses = losses
        self._footing = footing
        self._is_excluded = is_excluded
        self._known_foreign = known_foreign
        self._in_flight = in_flight
        self._log = log

    async def remove(
        self, plan: BatchPlan, delivered: Delivered, *, owned: bool, allow_delete: bool
    ) -> None:
        """Delete what the comparison names and the Tree does not have, or list it as foreign."""
        while True:
            before = delivered.deleted
            beside = await self._all_beside(plan, delivered)
            if not owned:
                delivered.foreign += sorted(beside.paths)
                delivered.unlisted += beside.beyond
                return
            if beside.paths:
                await self._delete(beside, delivered, allow_delete=allow_delete)
                await self.empty_returned(beside.paths, delivered, allow_delete=allow_delete)
            if not beside.beyond:
                return
            if delivered.deleted == before:
                break
        for path in (*plan.trees, *plan.listings):
            delivered.failed.setdefault(path, Failed(reason=_MORE, scope=Scope.TREE))

    async def _all_beside(self, plan: BatchPlan, delivered: Delivered) -> Beside:
        """As `_beside`, of all that is compared for a Batch."""
        found = Beside()
        for paths, purpose in (
            (plan.trees, Purpose.COMPARE),
            (plan.listings, Purpose.COMPARE_LISTING),
        ):
            if paths:
                found.join(await self._beside(list(paths), purpose, delivered))
        return found

    async def _beside(self, paths: list[bytes], purpose: Purpose, delivered: Delivered) -> Beside:
        found = await find(
            self._transport,
            self._footing,
            paths,
            purpose=purpose,
            most=None,
            in_flight=self._in_flight,
        )
        for path, reason in found.unreadable.items():
            delivered.failed[path] = Failed(reason=reason, scope=_SCOPE_OF[purpose])
        return found.beside

    async def _delete(self, beside: Beside, delivered: Delivered, *, allow_delete: bool) -> None:
        await self._losses.check_named(
            beside.paths, allow_delete=allow_delete, beyond=beside.beyond
        )
        for chunk in self._runs.chunks(sorted(beside.paths), {}):
            await self._runs.run((), chunk, Purpose.BATCH, delivered)

    async def empty_returned(
        self, gone: Iterable[bytes], delivered: Delivered, *, allow_delete: bool
    ) -> None:
        """Delete what directories held that were gone when looked at, and back when rsync looked.

        rsync sends such a directory as it is and deletes nothing in it; the Changes of what it
        held before were folded into its own, and those of its new contents do not name the old.
        """
        left = set(gone)
        if not left:
            return
        for _ in range(_ROUNDS):
            returned = self._footing.directories(left, self._is_excluded)
            if not returned:
                return
            beside = await self._beside(returned, Purpose.COMPARE, delivered)
            if not beside.paths:
                return
            await self._delete(beside, delivered, allow_delete=allow_delete)
            left = beside.paths
        for path in self._footing.directories(left, self._is_excluded):
            delivered.failed[path] = Failed(reason="comes and goes", scope=Scope.TREE)

    async def sweep(
        self,
        plan: BatchPlan,
        trees: Iterable[bytes],
        delivered: Delivered,
        *,
        owned: bool,
        allow_delete: bool,
    ) -> None:
        """Delete what killed runs of ours left beside these paths and below `trees`.

        On a Node that is not owned, not before all that is foreign there is known.
        """
        foreign = frozenset[bytes]() if owned else self._known_foreign()
        if foreign is None:
            return
        sent = {*plan.content, *plan.attributes, *plan.gone}
        beside = {path.rpartition(b"/")[0] for path in sent}
        folders = self._footing.directories(beside - {b""}, self._is_excluded)
        found: dict[Purpose, list[Difference]] = {}
        for paths, purpose in (
            (folders + sorted(beside & {b""}), Purpose.COMPARE_LISTING),
            (list(trees), Purpose.COMPARE),
        ):
            if paths:
                found[purpose] = await self._leftovers(paths, purpose)
        self._footing.check()
        with self._footing.looking() as looker:
            left = set()
            for purpose, extraneous in found.items():
                janitor = Janitor(
                    look=looker.look,
                    listed=sent,
                    foreign=foreign,
                    only_listed=not owned and purpose is Purpose.COMPARE_LISTING,
                    is_owned=owned,
                )
                left |= {item.path for item in extraneous if janitor.is_leftover(item)}
        delivered.foreign = [path for path in delivered.foreign if path not in left]
        if left:
            self._log.info("leftovers.swept", count=len(left), example=min(left))
            await self._delete(Beside(paths=left), delivered, allow_delete=allow_delete)

    async def _leftovers(self, paths: Sequence[bytes], purpose: Purpose) -> list[Difference]:
        """What may be one by its name; of very many the next sweep finds the rest."""
        found: list[Difference] = []

        def take(difference: Difference) -> bool:
            is_extraneous = difference.what is What.EXTRANEOUS
            if is_extraneous and may_be_leftover(difference) and len(found) < MOST_BESIDE:
                found.append(difference)
            return True

        await each_difference(
            self._transport, paths, purpose=purpose, in_flight=self._in_flight, take=take
        )
        return found
