"""A Coordinator killed at any step leaves a state from which the next one goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from shardsync.control.balance import Pace, Scales
from shardsync.control.coordinator import Coordinator
from shardsync.journal.plan import PlanState, read_plan
from shardsync.layout import StateDirectory
from shardsync.log import Log
from tests.support.clock import FakeClock
from tests.support.control import (
    FakeJournals,
    FakeSlots,
    FakeSurvey,
    Fuse,
    Killed,
    flat_counts,
    settings,
)

TRACED = ("control/coordinator.py", "control/memory.py", "journal/plan.py", "shardsync/files.py")


class World:
    """What outlives a Coordinator: its disk, the Journals, supervisord."""

    def __init__(self, path: Path) -> None:
        self.state = StateDirectory(path=path)
        self.state.make()
        self.journals = FakeJournals()
        self.slots = FakeSlots()
        self.clock = FakeClock()

    def coordinator(self, shards: int) -> Coordinator:
        return Coordinator(
            state=self.state,
            settings=settings(self.state.path, shards=shards),
            clock=self.clock,
            log=Log("test"),
            journals=self.journals,
            slots=self.slots,
            survey=FakeSurvey(flat_counts(4)),
            scales=Scales(pace=Pace()),
            processors=1,
        )

    def check(self) -> None:
        """What must hold on disk whenever a Coordinator has died."""
        plan = read_plan(self.state.plan)
        if plan is None:
            return
        active = [s for s in plan.owners("main", b"d01/x") if s.state is PlanState.ACTIVE]
        assert len(active) == 1
        for shard in plan.observing():
            assert self.journals.made[shard.id] == shard.journal_id

    def settle(self, coordinator: Coordinator) -> None:
        for _ in range(20):
            tick = coordinator.tick()
            self.journals.follow(*(shard.id for shard in tick.plan.observing()))
            if not tick.is_new and not tick.is_moving:
                return
        raise AssertionError("never at rest")


def traced(fuse: Fuse, work: Callable[[], None]) -> None:
    """Do `work`; the fuse may kill it at any call in the traced files, renames among them."""

    def step(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        # Inside a generator the interpreter would swallow it while closing.
        if not code.co_filename.endswith(TRACED) or code.co_name.startswith("<"):
            return
        if event == "call" or getattr(argument, "__name__", "") == "replace":
            fuse.step()

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        work()
    finally:
        sys.setprofile(before)


def live_through(world: World, fuse: Fuse) -> bool:
    """Two Shards, then four. Whether the fuse blew on the way (once, then it is a new process)."""
    blown = False
    for shards in (2, 4):
        try:
            traced(fuse, lambda: world.settle(world.coordinator(shards)))  # noqa: B023 (called at once)
        except Killed:
            blown = True
            world.check()
            world.settle(world.coordinator(shards))
        world.check()
    return blown


@pytest.mark.fault("coordinator-killed")
def test_killed_at_every_step(tmp_path: Path) -> None:
    """Wherever it dies, the next Coordinator ends at the same Plan, all its slots running."""
    at = 0
    blown = True
    while blown:
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World(folder)
        blown = live_through(world, Fuse(at=at))
        plan = read_plan(world.state.plan)
        assert plan is not None
        assert sorted(shard.prefixes for shard in plan.observing()) == [
            (b"",),
            (b"d00",),
            (b"d01",),
            (b"d02",),
        ], f"killed at step {at}"
        assert {shard.slot for shard in plan.observing()} <= world.slots.running
        assert [p.name for p in world.state.cookies.iterdir()] == [f"plan-{plan.generation}"]
        at += 1
    assert at > 100
