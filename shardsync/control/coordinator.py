"""The Coordinator: keeps the Plan, has Watchers started, promotes, retires, removes.

`deciding` says what the next Plan is; it is carried out here: Journals first, then
plan.json, then the cookie that tells the Watchers, then supervisord. It never
writes to a Journal that is being observed into and never touches a Tree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from shardsync.clock import Clock
from shardsync.config.marks import settings_mark
from shardsync.config.settings import Settings
from shardsync.control.balance import Scales
from shardsync.control.deciding import Decider
from shardsync.control.journals import Journals
from shardsync.control.memory import MEMORY_FILE, Memory, read_memory, write_memory
from shardsync.control.planner import (
    Waiting,
    forget,
    next_generation,
)
from shardsync.control.survey import Survey
from shardsync.errors import NotRunning, ShardsyncError, StateUnusable
from shardsync.failpoints import Point, reach
from shardsync.journal.plan import Plan, PlanState, plan_mark, read_plan, write_plan
from shardsync.journal.writer import set_aside
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.model import ShardId

_PRUNE_SECONDS = 600.0
_COOKIE = "plan-"


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
        self._state = state
        self._clock = clock
        self._log = log
        self._journals = journals
        self._slots = slots
        self._decider = Decider(
            settings=settings,
            clock=clock,
            log=log,
            journals=journals,
            pool=slots,
            survey=survey,
            scales=scales,
            processors=processors,
            memory=self._memory,
        )
        self._memory_file = state.path / MEMORY_FILE
        self._trouble = ChangeOnly(clock=clock)
        self._plan = Plan()
        self._mark: tuple[int, int, int] | None = None
        self._pruned_at: float | None = None
        self._life = ""

    @property
    def settings(self) -> Settings:
        """What the Plan is brought to; may be changed between two ticks."""
        return self._decider.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._decider.settings = settings

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
        step = self._decider.next(last)
        if step.roots_hold:
            self._remember_roots()
        plan = last if step.plan == last else self._write(last, step.plan)
        if step.settles:
            # After the Plan: killed in between, the next tick counts once more.
            self._remember(made_for=self._decider.made_for())
        for tree in step.replanned:
            self._remember_replan(tree)
        self._put_cookie(plan)
        started = self._start_slots(plan)
        self._remember_stuck(step.waiting)
        self._note_settings()
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

    # --- acting -----------------------------------------------------------------------------

    def _write(self, last: Plan, plan: Plan) -> Plan:
        plan = next_generation(plan, last)
        known = {shard.id for shard in last.shards}
        made = [shard for shard in plan.shards if shard.id not in known]
        reach(Point.CONTROL_DECIDED)
        for shard in made:
            self._journals.create(shard)
        if made:
            reach(Point.CONTROL_JOURNALS_MADE)
        write_plan(self._state.plan, plan)
        reach(Point.CONTROL_PLAN_WRITTEN)
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
        reach(Point.CONTROL_COOKIE_PUT)
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
                    reach(Point.CONTROL_SLOT_STARTED)
                    started[slot] = assigned[slot]
                    self._remember(supervisord=self._life, started=started)
                    reach(Point.CONTROL_SLOT_NOTED)
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
                    reach(Point.CONTROL_PRUNED)
                    # Out of the Plan first: a Journal that is named and gone means reconcile.
                    plan = self._write(plan, forget(plan, shard.id))
                    reach(Point.CONTROL_FORGOTTEN)
                    self._journals.remove(shard.id)
                    reach(Point.CONTROL_REMOVED)
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
        settings: str | None = None,
        stuck: Mapping[str, str] | None = None,
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
                settings=memory.settings if settings is None else settings,
                stuck=memory.stuck if stuck is None else stuck,
            ),
        )

    def _note_settings(self) -> None:
        """Which settings it goes by, for `reload` to see."""
        mark = settings_mark(self.settings)
        if self._memory().settings != mark:
            self._remember(settings=mark)

    def _remember_stuck(self, waiting: Iterable[Waiting]) -> None:
        """What waits for an operator, for `reload` and `status` to tell."""
        stuck = {
            found.tree: f"{found.reason}: {found.remedy}" for found in waiting if found.remedy
        }
        if self._memory().stuck != stuck:
            self._remember(stuck=stuck)

    def _remember_replan(self, tree: str) -> None:
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


def _count(plan: Plan, state: PlanState) -> int:
    return sum(shard.state is state for shard in plan.shards)


if __name__ == "__main__":
    # Imported here: the service imports this module.
    from shardsync.control.service import main

    sys.exit(main(sys.argv[1:]))
