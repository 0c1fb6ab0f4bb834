"""What the next Plan is, and why not yet: the Coordinator's questions put together.

Asks the Journals, the survey and the clock, calls the pure planner, and
changes nothing on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shardsync.clock import Clock
from shardsync.config.settings import Settings
from shardsync.control.balance import Scales, is_better, shares_of
from shardsync.control.journals import Journals
from shardsync.control.memory import Memory
from shardsync.control.partition import allot
from shardsync.control.planner import (
    Fresh,
    Waiting,
    is_blocked,
    plan_first,
    promote,
    purpose,
    replan,
    replanned_loads,
    retire_trees,
    short_of_slots,
    wanted_shards,
)
from shardsync.control.survey import Survey
from shardsync.journal.plan import Plan
from shardsync.journal.progress import Progress
from shardsync.journal.writer import new_journal_id
from shardsync.log import ChangeOnly, Log
from shardsync.model import ShardId

_COUNTS_GOOD_SECONDS = 60.0

Counts = Mapping[str, Mapping[bytes, int]]
"""Tree -> prefix -> directories at and below it."""


class Pool(Protocol):
    """Watcher slots, as far as a Plan depends on them."""

    def count(self) -> int:
        """How many slots there are. Raises NotRunning."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next Plan, the last one itself where nothing is to be done.

    `settles`: with it the settings are met, so they are no reason to re-plan again.
    `roots_hold`: no Shard observes another root than the settings name.
    `replanned`: Trees that are not to be looked at again for a while.
    """

    plan: Plan
    roots_hold: bool = True
    settles: bool = False
    replanned: tuple[str, ...] = ()
    waiting: tuple[Waiting, ...] = ()


class Decider:
    """One step at a time. `settings` may be changed between two."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        log: Log,
        journals: Journals,
        pool: Pool,
        survey: Survey,
        scales: Scales,
        processors: int,
        memory: Callable[[], Memory],
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._log = log
        self._journals = journals
        self._pool = pool
        self._survey = survey
        self._scales = scales
        self._processors = processors
        self._memory = memory
        self._trouble = ChangeOnly(clock=clock)
        self._counted: dict[str, tuple[float, Mapping[bytes, int]]] = {}

    def next(self, last: Plan) -> Step:
        """The step that is due after `last`. Raises NotRunning."""
        progress = self._progress(last)
        plan = promote(retire_trees(last, self._kept_trees()), progress)
        if plan != last:
            return Step(plan=plan, roots_hold=False)
        names = {tree.name for tree in self.settings.trees}
        if any(not last.observing(name) for name in names):
            # Where all Trees are new there is nothing left to even out afterwards.
            rough = {tree.name: self._survey.quick(tree) for tree in self.settings.trees}
            plan = plan_first(last, rough, self._wanted(), self._fresh())
            return Step(plan=plan, settles=not last.observing())
        if self._memory().made_for == self.made_for():
            return self._even_out(last, progress)
        blocked = [is_blocked(last, name, progress) for name in sorted(names)]
        waiting = tuple(found for found in blocked if found is not None)
        waiting = waiting or self._surely_short(last)
        if waiting:
            return Step(plan=last, waiting=waiting)
        counts = self._counts(names)
        if counts.keys() < names:
            return Step(plan=last, waiting=_counting(names - counts.keys()))
        return self._replan(last, progress, counts, _shares(counts, self._wanted()))

    def _surely_short(self, last: Plan) -> tuple[Waiting, ...]:
        """Whether there are too few slots however the Shards are cut: known before a count."""
        observing = len(last.observing())
        needed, free = self._wanted() - observing, self._pool.count() - observing
        if needed <= free:
            return ()
        return tuple(
            short_of_slots(tree.name, needed=needed, free=free) for tree in self.settings.trees
        )

    def _even_out(self, last: Plan, progress: Mapping[ShardId, Progress]) -> Step:
        """A step towards Shards of about the same weight, where they grew apart."""
        loads = {tree.name: self._loads(last, tree.name, progress) for tree in self.settings.trees}
        totals = {tree: max(sum(figures), 1) for tree, figures in loads.items()}
        present = {tree: len(last.observing(tree)) for tree in loads}
        shares = shares_of(allot(totals, self._wanted()), present, self._wanted())
        due = {tree for tree in loads if self._is_due(tree, loads[tree], shares[tree])}
        counts = self._counts(due)
        better: dict[str, Mapping[bytes, int]] = {
            tree: found
            for tree, found in counts.items()
            if is_better(loads[tree], replanned_loads(last, tree, found, shares[tree]))
        }
        for tree in counts.keys() - better.keys():
            if self._trouble.is_due(tree):
                self._log.info("plan.as_even_as_can_be", tree=tree, directories=loads[tree])
        step = self._replan(last, progress, better, shares) if better else Step(plan=last)
        waiting = {found.tree for found in step.waiting}
        return replace(
            step,
            settles=False,
            replanned=tuple(sorted(counts.keys() - waiting)),
            waiting=(*step.waiting, *_counting(due - counts.keys())),
        )

    def _is_due(self, tree: str, loads: Sequence[int], shares: int) -> bool:
        if not loads:
            self._scales.forget(tree)
            return False
        last_us = self._memory().replanned_at_us.get(tree)
        since = math.inf if last_us is None else abs(self._clock.wall_us() - last_us) / 1e6
        return self._scales.is_due(
            tree, loads, shares, now=self._clock.monotonic(), since_replan=since
        )

    def _loads(
        self, plan: Plan, tree: str, progress: Mapping[ShardId, Progress]
    ) -> tuple[int, ...]:
        """Directories of each Shard as its Watcher has them; none while not all of them follow."""
        if is_blocked(plan, tree, progress) is not None:
            return ()
        return tuple(progress[shard.id].directories for shard in plan.observing(tree))

    def _replan(
        self,
        last: Plan,
        progress: Mapping[ShardId, Progress],
        counts: Counts,
        shares: Mapping[str, int],
    ) -> Step:
        plan, waiting = last, []
        for tree in sorted(counts):
            found = replan(
                plan,
                tree,
                counts[tree],
                shares[tree],
                progress=progress,
                pool=self._pool.count(),
                fresh=self._fresh(),
            )
            if isinstance(found, Waiting):
                waiting.append(found)
            else:
                plan = found
        return Step(
            plan=plan,
            settles=not waiting,
            replanned=tuple(sorted(counts.keys() - {found.tree for found in waiting})),
            waiting=tuple(waiting),
        )

    def _fresh(self) -> Fresh:
        return Fresh(taken=self._journals.ids(), journal_id=new_journal_id)

    def _progress(self, plan: Plan) -> dict[ShardId, Progress]:
        found = {shard.id: self._journals.progress(shard.id) for shard in plan.observing()}
        return {shard: progress for shard, progress in found.items() if progress is not None}

    def _kept_trees(self) -> frozenset[str]:
        """Trees whose Shards stay: in the settings, with the root that they observe."""
        roots = self._memory().roots
        return frozenset(
            tree.name
            for tree in self.settings.trees
            if roots.get(tree.name, str(tree.root)) == str(tree.root)
        )

    def _wanted(self) -> int:
        return wanted_shards(self.settings, processors=self._processors)

    def made_for(self) -> str:
        return purpose([tree.name for tree in self.settings.trees], self._wanted())

    def _counts(self, trees: Collection[str]) -> Counts:
        """Of those of the Trees whose count is done: good for a minute, for a re-plan may wait."""
        now = self._clock.monotonic()
        self._counted = {
            name: (at, counts)
            for name, (at, counts) in self._counted.items()
            if now - at < _COUNTS_GOOD_SECONDS
        }
        for tree in self.settings.trees:
            if tree.name in trees and tree.name not in self._counted:
                found = self._survey.thorough(tree)
                if found is not None:
                    self._counted[tree.name] = (now, found)
        return {name: counts for name, (_, counts) in self._counted.items() if name in trees}


def _shares(counts: Counts, wanted: int) -> dict[str, int]:
    return allot({tree: found.get(b"", 1) for tree, found in counts.items()}, wanted)


def _counting(trees: Collection[str]) -> tuple[Waiting, ...]:
    return tuple(Waiting(tree=tree, reason="counting directories") for tree in sorted(trees))
