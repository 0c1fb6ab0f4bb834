"""What a Batch would have the Node lose: counted, and asked for, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable

from shardsync.ship.batch import BatchPlan
from shardsync.ship.deletions import DeletionBudget
from shardsync.ship.runs import Runs


class Losses:
    """Holds one Node's Batches against `max_delete`."""

    def __init__(self, *, runs: Runs, budget: DeletionBudget) -> None:
        self._runs = runs
        self._budget = budget

    async def check(
        self, plan: BatchPlan, *, allow_delete: bool, again: bool, beyond: int
    ) -> None:
        """Count what `plan` deletes. Raises TooManyDeletions, NodeTrouble.

        With a comparing deletion pending, below a directory that went as a whole, or where a
        file or symlink stands for a directory now, the Changes do not tell: a dry run does.
        So it does before a Node is halted, as much that is gone never was on the Node.
        """
        gone = list(plan.gone)
        if again:
            counted = await self._runs.count(list(plan.content), gone=gone)
        else:
            counted = sum(count for path, count in plan.gone.items() if path not in plan.uncounted)
            uncounted = [path for path in plan.gone if path in plan.uncounted]
            if uncounted or plan.replaced:
                counted += await self._runs.count(list(plan.replaced), gone=uncounted)
            if gone and not allow_delete and await self._budget.refuses(counted):
                counted = await self._runs.count(list(plan.replaced), gone=gone)
        self._runs.expect(counted)
        await self._budget.spend(counted + beyond, allow=allow_delete)

    async def check_named(self, gone: Iterable[bytes], *, allow_delete: bool, beyond: int) -> None:
        """As `check`, of paths that a comparison named, and `beyond` entries more."""
        entries = await self._runs.count((), gone=sorted(gone))
        await self._budget.spend(entries + beyond, allow=allow_delete)
