"""The Coordinator: keeps the Plan, has Watchers started, promotes, retires, removes.

It decides by calling the pure planner and acts here: Journals first, then
plan.json, then the cookie that tells the Watchers, then supervisord. It never
writes to a Journal that is being observed into and never touches a Tree.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shardsync.clock import Clock
from shardsync.config.settings import Settings
from shardsync.control.balance import Scales, is_better, shares_of
from shardsync.control.journals import Journals
from shardsync.control.memory import MEMORY_FILE, Memory, read_memory, write_memory
from shardsync.control.partition import allot
from shardsync.control.planner import (
    Fresh,
    Waiting,
    forget,
    is_blocked,
    next_generation,
    plan_first,
    promote,
    purpose,
    replan,
    replanned_loads,
    retire_trees,
    wanted_shards,
)
from shardsync.control.survey import Survey
from shardsync.errors import NotRunning, ShardsyncError, StateUnusable
from shardsync.journal.plan import Plan, PlanState, plan_mark, read_plan, write_plan
from shardsync.journal.progress import Progress
from shardsync.journal.writer import new_journal_id, set_aside
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.model import ShardId

_PRUNE_SECONDS = 600.0
_COUNTS_GOOD_SECONDS = 60.0
_COOKIE = "plan-"

Counts = Mapping[str, Mapping[bytes, int]]
"""Tree -> prefix -> directories."""


class Slots(Protocol):
    """Watcher slots, as far as the Coordinator drives them. Each raises NotRunning."""

    def life(self) -> str:
        """Which life of supervisord this is: another one means that somebody said `up`."""
        ...

    def start(self, slot: int) -> None:
        """Have a slot started where it is not."""
        ...

    def count(self) -> int:
        """How many slots there are."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one `tick` did. `waiting`: steps that are due and could not be made, and why."""

    plan: Plan
    is_new: bool
    started: tuple[int, ...]
    removed: tuple[ShardId, ...]
    waiting: tuple[Waiting, ...]

    @property
    def is_moving(self) -> bool:
        """Whether a re-plan is under way or wanted: the next tick is due soon."""
        return bool(self.waiting) or any(
            shard.state is PlanState.NEW for shard in self.plan.shards
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """The next Plan, the last one itself where nothing is to be done.

    `settles`: with it the settings are met, so they are no reason to re-plan again.
    `replanned`: Trees that are not to be looked at again for a while.
    """

    plan: Plan
    settles: bool = False
    replanned: tuple[str, ...] = ()
    waiting: tuple[Waiting, ...] = ()


class Coordinator:
    """One step of planning at a time; what must be known between two ticks is on disk."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        settings: Settings,
        clock: Clock,
        log: Log,
        journals: Journals,
        slots: Slots,
        survey: Survey,
        scales: Scales,
        processors: int,
    ) -> None:
        self.settings = settings
        self._state = state
        self._clock = clock
        self._log = log
        self._journals = journals
        self._slots = slots
        self._survey = survey
        self._scales = scales
        self._processors = processors
        self._memory_file = state.path / MEMORY_FILE
        self._trouble = ChangeOnly(clock=clock)
        self._counted: dict[str, tuple[float, Mapping[bytes, int]]] = {}
        self._plan = Plan()
        self._mark: tuple[int, int, int] | None = None
        self._pruned_at: float | None = None
        self._life = ""

    def tick(self) -> Tick:
        """Bring the Plan one step closer to what the settings ask for, and start its slots.

        Raises StateUnusable and OSError where the disk refuses; the next tick
        tries again.

        Crash safety: each step leaves a state that the next tick, of this
        process or of a new one, goes on from. Journals exist before a Plan
        names them; the cookie follows the Plan and is made again where it is
        missing; a slot is remembered as started only after it was.
        """
        last = self._read_plan()
        step = self._next(last)
        plan = last if step.plan == last else self._write(last, step.plan)
        if step.settles:
            # After the Plan: killed in between, the next tick counts once more.
            self._remember(made_for=self._made_for())
        for tree in step.replanned:
            self._remember_replan(tree)
        self._put_cookie(plan)
        started = self._start_slots(plan)
        removed = self._prune(plan)
        return Tick(
            plan=plan,
            is_new=plan is not last,
            started=started,
            removed=removed,
            waiting=step.waiting,
        )

    def _read_plan(self) -> Plan:
        mark = plan_mark(self._state.plan)
        if mark is not None and mark == self._mark:
            return self._plan
        self._mark = None
        try:
            found = read_plan(self._state.plan)
        except StateUnusable as error:
            if isinstance(error.__cause__, OSError):
                # The disk or a limit, not the Plan: it will be readable again.
                raise
            # Nodes answer the Journals of a Plan made anew with a reconcile: slow, and right.
            aside = set_aside(self._state.plan, self._clock)
            self._log.error("plan.unreadable", error=error, kept_as=aside)
            found = None
        if found is None and self._plan.shards:
            # Somebody removed or spoilt it: the Watchers go by it still, and so do the Cursors.
            self._log.warning("plan.lost", file=self._state.plan, generation=self._plan.generation)
            write_plan(self._state.plan, self._plan)
            return self._plan
        self._plan = found or self._no_plan()
        self._mark = mark
        return self._plan

    def _no_plan(self) -> Plan:
        """Its successor must have a generation that no Watcher was told of yet."""
        told = (path.name[len(_COOKIE) :] for path in self._state.cookies.glob(f"{_COOKIE}*"))
        return Plan(generation=max((int(text) for text in told if text.isdecimal()), default=0))

    # --- deciding ---------------------------------------------------------------------------

    def _next(self, last: Plan) -> _Step:
        progress = self._progress(last)
        plan = promote(retire_trees(last, self._kept_trees()), progress)
        if plan != last:
            return _Step(plan=plan)
        self._remember_roots()
        names = {tree.name for tree in self.settings.trees}
        if any(not last.observing(name) for name in names):
            # Where all Trees are new there is nothing left to even out afterwards.
            rough = {tree.name: self._survey.quick(tree) for tree in self.settings.trees}
            plan = plan_first(last, rough, self._wanted(), self._fresh())
            return _Step(plan=plan, settles=not last.observing())
        if self._memory().made_for == self._made_for():
            return self._even_out(last, progress)
        blocked = [is_blocked(last, name, progress) for name in sorted(names)]
        waiting = tuple(found for found in blocked if found is not None)
        if waiting:
            return _Step(plan=last, waiting=waiting)
        counts = self._counts(names)
        if counts.keys() < names:
            return _Step(plan=last, waiting=_counting(names - counts.keys()))
        return self._replan(last, progress, counts, _shares(counts, self._wanted()))

    def _even_out(self, last: Plan, progress: Mapping[ShardId, Progress]) -> _Step:
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
            self._complain("plan.cannot_be_evened_out", ValueError(tree))
        step = self._replan(last, progress, better, shares) if better else _Step(plan=last)
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
    ) -> _Step:
        plan, waiting = last, []
        for tree in sorted(counts):
            found = replan(
                plan,
                tree,
                counts[tree],
                shares[tree],
                progress=progress,
                pool=self._slots.count(),
                fresh=self._fresh(),
            )
            if isinstance(found, Waiting):
                waiting.append(found)
            else:
                plan = found
        return _Step(
            plan=plan,
            settles=not waiting,
            replanned=tuple(sorted(counts)),
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

    def _made_for(self) -> str:
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

    # --- acting -----------------------------------------------------------------------------

    def _write(self, last: Plan, plan: Plan) -> Plan:
        plan = next_generation(plan, last)
        known = {shard.id for shard in last.shards}
        made = [shard for shard in plan.shards if shard.id not in known]
        for shard in made:
            self._journals.create(shard)
        write_plan(self._state.plan, plan)
        self._plan = plan
        self._log.info(
            "plan.written",
            generation=plan.generation,
            active=_count(plan, PlanState.ACTIVE),
            new=_count(plan, PlanState.NEW),
            retired=_count(plan, PlanState.RETIRED),
        )
        return plan

    def _put_cookie(self, plan: Plan) -> None:
        cookie = self._state.cookies / f"{_COOKIE}{plan.generation}"
        if plan.generation == 0 or cookie.exists():
            return
        cookie.touch(mode=0o600)
        for old in self._state.cookies.glob(f"{_COOKIE}*"):
            if old != cookie:
                old.unlink(missing_ok=True)

    def _start_slots(self, plan: Plan) -> tuple[int, ...]:
        """Start the slots that a Plan newly assigns, or all of them after an `up`."""
        assigned = {shard.slot: shard.id for shard in plan.observing()}
        done: list[int] = []
        try:
            self._life = self._life or self._slots.life()
            memory = self._memory()
            started = dict(memory.started) if memory.supervisord == self._life else {}
            for slot in sorted(assigned):
                if started.get(slot) != assigned[slot]:
                    self._slots.start(slot)
                    started[slot] = assigned[slot]
                    self._remember(supervisord=self._life, started=started)
                    done.append(slot)
                    self._log.info("slot.started", slot=slot, shard=assigned[slot])
        except NotRunning as error:
            self._complain("slot.not_started", error)
        return tuple(done)

    def _prune(self, plan: Plan) -> tuple[ShardId, ...]:
        """Every ten minutes: prune retired Journals, remove those that nobody needs."""
        now = self._clock.monotonic()
        if self._pruned_at is not None and now - self._pruned_at < _PRUNE_SECONDS:
            return ()
        self._pruned_at = now
        before_us = self._clock.wall_us() - int(self.settings.retention_seconds * 1_000_000)
        removed = []
        for shard in plan.shards:
            if shard.state is not PlanState.RETIRED:
                continue
            try:
                if self._journals.outlive(
                    shard, before_us=before_us, max_bytes=self.settings.journal_max_bytes
                ):
                    # Out of the Plan first: a Journal that is named and gone means reconcile.
                    plan = self._write(plan, forget(plan, shard.id))
                    self._journals.remove(shard.id)
                    removed.append(shard.id)
            except ShardsyncError as error:
                self._complain("journal.not_pruned", error)
        self._put_cookie(plan)
        return tuple(removed)

    # --- remembering ------------------------------------------------------------------------

    def _memory(self) -> Memory:
        return read_memory(self._memory_file)

    def _remember(
        self,
        *,
        supervisord: str | None = None,
        started: Mapping[int, ShardId] | None = None,
        made_for: str | None = None,
        roots: Mapping[str, str] | None = None,
        replanned_at_us: Mapping[str, int] | None = None,
    ) -> None:
        memory = self._memory()
        write_memory(
            self._memory_file,
            replace(
                memory,
                supervisord=memory.supervisord if supervisord is None else supervisord,
                started=memory.started if started is None else started,
                made_for=memory.made_for if made_for is None else made_for,
                roots=memory.roots if roots is None else roots,
                replanned_at_us=(
                    memory.replanned_at_us if replanned_at_us is None else replanned_at_us
                ),
            ),
        )

    def _remember_replan(self, tree: str) -> None:
        self._counted.pop(tree, None)
        times = {**self._memory().replanned_at_us, tree: self._clock.wall_us()}
        self._remember(replanned_at_us=times)

    def _remember_roots(self) -> None:
        """Only once the Shards of a Tree whose root changed are retired."""
        roots = {tree.name: str(tree.root) for tree in self.settings.trees}
        if self._memory().roots != roots:
            self._remember(roots=roots)

    def _complain(self, event: str, error: Exception) -> None:
        if self._trouble.is_due(f"{event} {error}"):
            self._log.warning(event, error=error)


def _shares(counts: Counts, wanted: int) -> dict[str, int]:
    return allot({tree: found.get(b"", 1) for tree, found in counts.items()}, wanted)


def _counting(trees: Collection[str]) -> tuple[Waiting, ...]:
    return tuple(Waiting(tree=tree, reason="counting directories") for tree in sorted(trees))


def _count(plan: Plan, state: PlanState) -> int:
    return sum(shard.state is state for shard in plan.shards)


if __name__ == "__main__":
    # Imported here: the service imports this module.
    from shardsync.control.service import main

    sys.exit(main(sys.argv[1:]))
