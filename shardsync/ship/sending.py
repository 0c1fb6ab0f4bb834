"""What a Batch sends as it is: whole trees, then single paths, in an order that readers bear."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace

from shardsync.journal.records import Compare
from shardsync.ship.batch import BatchPlan, IsExcluded, small_first
from shardsync.ship.command import Purpose
from shardsync.ship.fold import ancestors
from shardsync.ship.footing import Footing
from shardsync.ship.runs import Runs
from shardsync.ship.shipping import Delivered

_TREE_PURPOSE = {
    Compare.CONTENT: Purpose.TREE_CHECKSUM,
    Compare.CHECKSUM: Purpose.TREE_CHECKSUM,
    Compare.ATTRIBUTES: Purpose.TREE,
    Compare.ANEW: Purpose.TREE_ANEW,
    Compare.EMPTY: Purpose.TREE,
}
_FLAT_PURPOSE = {
    Compare.CONTENT: Purpose.BATCH,
    Compare.CHECKSUM: Purpose.CHECKSUM,
    Compare.ATTRIBUTES: Purpose.ATTRIBUTES,
    Compare.ANEW: Purpose.BATCH,
    Compare.EMPTY: Purpose.ATTRIBUTES,
}
_FIRST_PURPOSE = {
    Purpose.TREE: Purpose.TREE_FIRST,
    Purpose.TREE_CHECKSUM: Purpose.TREE_FIRST_CHECKSUM,
}


class Sending:
    """Sends what a plan holds to one Node. Every method raises RootLost, NodeTrouble."""

    def __init__(
        self,
        *,
        runs: Runs,
        footing: Footing,
        is_excluded: IsExcluded,
        is_first: Callable[[bytes], bool] | None,
        batch_bytes: int,
    ) -> None:
        self._runs = runs
        self._footing = footing
        self._is_excluded = is_excluded
        self._is_first = is_first
        self._batch_bytes = batch_bytes

    async def whole(
        self, paths: Iterable[bytes], purpose: Purpose, delivered: Delivered, *, beside: bool
    ) -> None:
        """These directories with what is in them; what pages refer to comes before any page."""
        listed = list(paths)
        before = _FIRST_PURPOSE.get(purpose) if self._is_first is not None else None
        if before is not None:
            await self._runs.run(listed, (), before, Delivered(), beside=beside)
        await self._runs.run(listed, (), purpose, delivered, beside=beside)

    async def deletions(
        self, plan: BatchPlan, delivered: Delivered, compare: Compare
    ) -> BatchPlan:
        """Delete what is gone; returns what is left of the plan.

        Not yet what the Node may make a renamed directory of.
        """
        kept = {origin for move in plan.moves.values() for origin in move.bases}
        kept |= {above for origin in kept for above in ancestors(origin)}
        await self._list(
            plan, [path for path in plan.gone if path not in kept], delivered, compare
        )
        return replace(plan, gone={path: n for path, n in plan.gone.items() if path in kept})

    async def first(self, plan: BatchPlan, delivered: Delivered, compare: Compare) -> None:
        """Send what pages refer to, of all that is pending, before any page.

        It is taken out of what is flat. Trees are gone through once more afterwards, and what
        fails here fails there again. Renamed directories have a pass of their own.
        """
        is_first = self._is_first
        if is_first is None:
            return
        trees = plan.trees.keys() - plan.moves
        for paths, purpose in (
            (plan.content, _FLAT_PURPOSE[compare]),
            (plan.siblings, Purpose.CHECKSUM),
        ):
            first = sorted(path for path in paths if is_first(path))
            for chunk in self._runs.chunks(first, plan.sizes):
                await self._runs.run(chunk, (), purpose, delivered)
            for path in first:
                plan.forget(path)
        before = _FIRST_PURPOSE.get(_TREE_PURPOSE[compare])
        folders = await self._folders_in_root() if b"" in trees else sorted(trees)
        if folders and before is not None:
            await self._runs.run(folders, (), before, Delivered())

    async def trees(
        self, plan: BatchPlan, done: AbstractSet[bytes], delivered: Delivered, compare: Compare
    ) -> None:
        """The directories that are wanted whole, less those that are `done`."""
        trees = [path for path in plan.trees if path and path not in done]
        if b"" in plan.trees:
            trees = await self._folders_in_root()
        if trees:
            await self._runs.run(trees, (), _TREE_PURPOSE[compare], delivered)

    async def flat(self, plan: BatchPlan, delivered: Delivered, compare: Compare) -> None:
        """Single paths, with those that are gone."""
        if self._is_first is None:
            content = small_first(plan.content, plan.sizes, max_bytes=self._batch_bytes)
            await self._list(plan, [*content, *plan.gone], delivered, compare)
            await self._attributes(plan, delivered)
            return
        # No page may lead to what is deleted before the page that does not is there.
        await self._list(plan, list(plan.content), delivered, compare)
        await self._attributes(plan, delivered)
        await self._list(plan, list(plan.gone), delivered, compare)

    async def _list(
        self, plan: BatchPlan, paths: Iterable[bytes], delivered: Delivered, compare: Compare
    ) -> None:
        for chunk in self._runs.chunks(paths, plan.sizes):
            present = [path for path in chunk if path not in plan.gone]
            gone = [path for path in chunk if path in plan.gone]
            await self._runs.run(present, gone, _FLAT_PURPOSE[compare], delivered)

    async def _attributes(self, plan: BatchPlan, delivered: Delivered) -> None:
        for chunk in self._runs.chunks(plan.attributes, {}):
            await self._runs.run(chunk, (), Purpose.ATTRIBUTES, delivered)
        for chunk in self._runs.chunks(sorted(plan.siblings), {}):
            await self._runs.run(chunk, (), Purpose.CHECKSUM, delivered)

    async def _folders_in_root(self) -> list[bytes]:
        return (await self._footing.names_in_root(self._is_excluded))[0]
