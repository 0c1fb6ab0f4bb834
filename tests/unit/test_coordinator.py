"""The Coordinator makes Plans, starts what they newly assign, and leaves the operator's stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.control.balance import Pace, Scales
from shardsync.control.coordinator import Coordinator, Tick
from shardsync.control.memory import MEMORY_FILE, read_memory
from shardsync.errors import StateUnusable
from shardsync.journal.plan import PlanState, read_plan
from shardsync.journal.progress import Progress
from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.model import ShardId, ShardState
from tests.support.clock import FakeClock
from tests.support.control import FakeJournals, FakeSlots, FakeSurvey, flat_counts, settings


class Bench:
    """A Coordinator on a real state directory, with fake Journals and slots."""

    def __init__(self, path: Path) -> None:
        self.state = StateDirectory(path=path / "state")
        self.state.make()
        self.clock = FakeClock()
        self.journals = FakeJournals()
        self.slots = FakeSlots()
        self.survey = FakeSurvey(flat_counts(8))

    def coordinator(self, shards: int = 2, **trees: str) -> Coordinator:
        return Coordinator(
            state=self.state,
            settings=settings(self.state.path, shards=shards, trees=trees or None),
            clock=self.clock,
            log=Log("test"),
            journals=self.journals,
            slots=self.slots,
            survey=self.survey,
            scales=Scales(pace=Pace()),
            processors=2,
        )

    def settle(self, coordinator: Coordinator) -> Tick:
        """Tick until nothing changes, every Shard following at once."""
        for _ in range(20):
            tick = coordinator.tick()
            self.journals.follow(*(shard.id for shard in tick.plan.observing()))
            if not tick.is_new and not tick.is_moving:
                return tick
        raise AssertionError("never at rest")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def names(tick: Tick, state: PlanState) -> list[str]:
    return [shard.id for shard in tick.plan.shards if shard.state is state]


def test_the_first_tick_plans_and_starts(bench: Bench) -> None:
    """Journals are made, the Plan is on disk, the cookie touched, the slots started."""
    tick = bench.coordinator().tick()
    assert (tick.is_new, tick.started, tick.plan.generation) == (True, (0, 1), 1)
    assert bench.journals.made == {s.id: s.journal_id for s in tick.plan.shards}
    assert read_plan(bench.state.plan) == tick.plan
    assert [path.name for path in bench.state.cookies.iterdir()] == ["plan-1"]


def test_nothing_more_happens_at_rest(bench: Bench) -> None:
    """Once the Plan fits, ticks change nothing and start nothing."""
    coordinator = bench.coordinator()
    bench.settle(coordinator)
    again = coordinator.tick()
    assert (again.is_new, again.started, again.plan.generation) == (False, (), 1)


def test_an_operators_stop_stays(bench: Bench) -> None:
    """A slot found stopped is not started, neither by the next tick nor by a new Coordinator."""
    bench.settle(bench.coordinator())
    bench.slots.running.clear()
    bench.settle(bench.coordinator())
    assert bench.slots.running == set()


def test_up_starts_all_slots_again(bench: Bench) -> None:
    """A new supervisord means that somebody said `up`: all assigned slots are started."""
    bench.settle(bench.coordinator())
    bench.slots.running.clear()
    bench.slots.name = "2@9"
    assert bench.coordinator().tick().started == (0, 1)


def test_a_supervisord_that_does_not_answer_is_asked_again(bench: Bench) -> None:
    """The Plan is made all the same; the slots start once supervisord is there."""
    coordinator = bench.coordinator()
    bench.slots.is_down = True
    assert coordinator.tick().started == ()
    bench.slots.is_down = False
    assert coordinator.tick().started == (0, 1)


def test_another_number_of_shards_is_a_replan(bench: Bench) -> None:
    """New Shards observe beside the old ones; when they follow, the old ones let go."""
    bench.settle(bench.coordinator())
    coordinator = bench.coordinator(shards=4)
    moving = coordinator.tick()
    assert names(moving, PlanState.ACTIVE) == ["main-00", "main-01"]
    assert names(moving, PlanState.NEW) == ["main-02", "main-03"]
    assert moving.started == (2, 3)
    done = bench.settle(coordinator)
    assert names(done, PlanState.ACTIVE) == ["main-00", "main-01", "main-02", "main-03"]
    fewer = bench.settle(bench.coordinator(shards=1))
    assert names(fewer, PlanState.ACTIVE) == ["main-04"]
    assert names(fewer, PlanState.RETIRED) == ["main-00", "main-01", "main-02", "main-03"]


def test_a_replan_waits_for_watchers_that_do_not_follow(bench: Bench) -> None:
    """Without a Watermark nothing could catch up, so the Plan stays and the reason is told."""
    bench.coordinator().tick()
    tick = bench.coordinator(shards=4).tick()
    assert (tick.is_new, [w.reason for w in tick.waiting]) == (
        False,
        ["not yet following: main-00, main-01"],
    )


def test_counts_that_drift_are_no_reason_to_replan(bench: Bench) -> None:
    """Folders come and go; the Plan is made anew only when the settings ask for another."""
    bench.settle(bench.coordinator())
    bench.survey.counts = flat_counts(3)
    assert not bench.coordinator().tick().is_new


def test_a_tree_that_changes_meanwhile_is_replanned_once(bench: Bench) -> None:
    """What was counted when the re-plan was made holds; later counts start no second one."""
    bench.settle(bench.coordinator())
    moving = bench.coordinator(shards=4).tick()
    bench.survey.counts = flat_counts(5)
    bench.clock.advance(100)
    done = bench.settle(bench.coordinator(shards=4))
    assert (moving.plan.generation, done.plan.generation) == (2, 3)


def test_a_new_tree_gets_its_shards_and_a_dropped_one_retires(bench: Bench) -> None:
    """Settings with other Trees lead to a Plan for exactly those."""
    bench.settle(bench.coordinator(a="/srv/a"))
    both = bench.settle(bench.coordinator(a="/srv/a", b="/srv/b"))
    assert {shard.tree for shard in both.plan.observing()} == {"a", "b"}
    one = bench.settle(bench.coordinator(b="/srv/b"))
    assert {shard.tree for shard in one.plan.observing()} == {"b"}


def test_another_root_means_new_journals(bench: Bench) -> None:
    """A Tree of the same name on another root is observed by new Shards that Nodes reconcile."""
    bench.settle(bench.coordinator(main="/srv/a"))
    tick = bench.settle(bench.coordinator(main="/srv/b"))
    assert names(tick, PlanState.ACTIVE) == ["main-02", "main-03"]
    assert names(tick, PlanState.RETIRED) == ["main-00", "main-01"]
    assert {shard.made_by.value for shard in tick.plan.observing()} == {"first"}


def grow(bench: Bench, folders: int = 8) -> dict[str, int]:
    """All of the Tree, which was empty when it was planned, lies with one Shard now."""
    bench.survey.counts = {b"": 1}
    bench.settle(bench.coordinator())
    bench.survey.counts = flat_counts(folders, each=20_000)
    figures = {"main-00": bench.survey.counts[b""]}
    bench.journals.follow(ShardId("main-00"), directories=figures)
    return figures


def test_a_shard_that_outgrew_the_others_is_split_while_it_goes_on(bench: Bench) -> None:
    """After ten seconds, from a thorough count; only what is too much moves, to a new Shard."""
    grow(bench)
    coordinator = bench.coordinator()
    bench.survey.patience = 2
    assert not coordinator.tick().is_new
    bench.clock.advance(11)
    waits = [coordinator.tick() for _ in range(2)]
    assert [(w.is_new, w.waiting[0].reason) for w in waits] == [
        (False, "counting directories")
    ] * 2
    moving = coordinator.tick()
    assert names(moving, PlanState.ACTIVE) == ["main-00"]
    assert names(moving, PlanState.NEW) == ["main-01"]
    assert moving.plan.observing()[1].directories == 80_000
    done = bench.settle(coordinator)
    assert names(done, PlanState.ACTIVE) == ["main-00", "main-01"]


def test_a_split_is_followed_by_ten_minutes_of_rest(bench: Bench) -> None:
    """Also in the next Coordinator's life."""
    grow(bench)
    coordinator = bench.coordinator()
    coordinator.tick()
    bench.clock.advance(11)
    new = bench.settle(coordinator).plan.observing()[1]
    lopsided = {"main-00": 10_000, "main-01": 160_000}
    grown = dict.fromkeys(new.prefixes, 40_000)
    bench.survey.counts = {b"": 10_000 + sum(grown.values()), **grown}
    later = bench.coordinator()
    moves = []
    for _ in range(13):
        bench.journals.follow(*map(ShardId, lopsided), directories=lopsided)
        moves.append(later.tick().is_new)
        bench.clock.advance(50)
    assert moves == [False] * 12 + [True]


def test_a_tree_that_cannot_be_split_is_not_counted_again_and_again(bench: Bench) -> None:
    """One count, then ten minutes of rest."""
    grow(bench)
    bench.survey.counts = {b"": 160_001}
    coordinator = bench.coordinator()
    for _ in range(60):
        assert not coordinator.tick().is_new
        bench.clock.advance(5)
    assert bench.survey.asked == 1


def test_a_re_plan_that_waits_for_slots_counts_once_a_minute(bench: Bench) -> None:
    """It is asked for every second."""
    bench.settle(bench.coordinator(shards=4))
    bench.slots.pool = 4
    coordinator = bench.coordinator(shards=2)
    for _ in range(50):
        (waiting,) = coordinator.tick().waiting
        assert waiting.reason == "needs 2 free Watcher slots, has 0"
        bench.clock.advance(1)
    assert bench.survey.asked == 1


def test_what_waits_for_an_operator_is_remembered_until_it_waits_no_more(bench: Bench) -> None:
    """`reload` and `status` tell it; that there are too few slots is known without a count."""
    bench.settle(bench.coordinator())
    bench.slots.pool = 2
    coordinator = bench.coordinator(shards=4)
    coordinator.tick()
    assert bench.survey.asked == 0
    assert read_memory(bench.state.path / MEMORY_FILE).stuck == {
        "main": "needs 2 free Watcher slots, has 0: "
        "`shardsync down`, then `shardsync up`, which makes more"
    }
    bench.slots.pool = 8
    coordinator.tick()
    assert read_memory(bench.state.path / MEMORY_FILE).stuck == {}


def test_no_split_while_a_watcher_does_not_follow(bench: Bench) -> None:
    """Its figures would be those of half a scan."""
    grow(bench)
    bench.journals.reports[ShardId("main-00")] = Progress(
        state=ShardState.SCANNING, watermark_us=5, directories=10**6, pid=1
    )
    coordinator = bench.coordinator()
    for _ in range(10):
        assert not coordinator.tick().is_new
        bench.clock.advance(5)


def test_a_plan_removed_while_running_is_put_back(bench: Bench) -> None:
    """The same Plan, so that nobody stops; a new Coordinator can only plan anew."""
    coordinator = bench.coordinator()
    before = bench.settle(coordinator).plan
    for spoil in (bench.state.plan.unlink, lambda: bench.state.plan.write_text("{")):
        spoil()
        assert coordinator.tick().plan == before
        assert read_plan(bench.state.plan) == before


def test_a_plan_lost_while_stopped_is_made_anew_and_told(bench: Bench) -> None:
    """Its number is one that no Watcher was told of: else they would stay with the old one."""
    bench.settle(bench.coordinator())
    bench.state.plan.unlink()
    tick = bench.coordinator().tick()
    assert names(tick, PlanState.ACTIVE) == ["main-02", "main-03"]
    assert tick.plan.generation == 2
    assert [path.name for path in bench.state.cookies.iterdir()] == ["plan-2"]


def test_a_retired_journal_goes_when_nobody_needs_it(bench: Bench) -> None:
    """It leaves the Plan, then the disk; the observing Shards stay."""
    bench.settle(bench.coordinator())
    coordinator = bench.coordinator(shards=1)
    bench.settle(coordinator)
    bench.journals.outlived = {ShardId("main-00"), ShardId("main-02")}
    bench.clock.advance(700)
    tick = coordinator.tick()
    assert tick.removed == (ShardId("main-00"),)
    last = read_plan(bench.state.plan)
    assert last is not None
    assert last.shard("main-00") is None
    assert last.shard("main-02") is not None
    assert ShardId("main-00") not in bench.journals.made


def test_an_unreadable_plan_is_kept_and_made_anew(bench: Bench) -> None:
    """New Shards with new Journals: Nodes reconcile, nothing is guessed."""
    bench.settle(bench.coordinator())
    bench.state.plan.write_text("{")
    tick = bench.coordinator().tick()
    assert names(tick, PlanState.ACTIVE) == ["main-02", "main-03"]
    assert any("corrupt" in path.name for path in bench.state.path.iterdir())


def test_a_plan_that_cannot_be_read_just_now_is_left_alone(bench: Bench) -> None:
    """Trouble with the disk is no reason to plan anew: the tick fails and is tried again."""
    bench.settle(bench.coordinator())
    bench.state.plan.rename(bench.state.path / "elsewhere")
    # A directory in its place: open(2) succeeds, read(2) says EISDIR.
    bench.state.plan.mkdir()
    with pytest.raises(StateUnusable):
        bench.coordinator().tick()
    bench.state.plan.rmdir()
    (bench.state.path / "elsewhere").rename(bench.state.plan)
    assert not bench.coordinator().tick().is_new


def test_a_disk_that_refuses_is_told_and_tried_again(bench: Bench) -> None:
    """A Journal that cannot be made means no Plan that names it."""

    class Refusing(FakeJournals):
        def create(self, shard: object) -> None:
            raise StateUnusable("disk full")

    works = bench.journals
    bench.journals = Refusing()
    with pytest.raises(StateUnusable):
        bench.coordinator().tick()
    assert read_plan(bench.state.plan) is None
    bench.journals = works
    assert bench.coordinator().tick().is_new
