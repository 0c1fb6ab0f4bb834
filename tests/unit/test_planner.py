"""The planner: pure steps from Plan to Plan, between which a path is never unobserved."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shardsync.control.planner import (
    Fresh,
    Waiting,
    forget,
    next_generation,
    plan_first,
    promote,
    replan,
    retire_trees,
    wanted_shards,
)
from shardsync.journal.plan import Origin, Plan, PlanState
from shardsync.journal.progress import Progress
from shardsync.model import JournalId, ShardId, ShardState
from tests.support.control import flat_counts, settings

COUNTS = flat_counts(8)
FOLLOWS = Progress(state=ShardState.FOLLOWING, watermark_us=77)


def fresh(*taken: str) -> Fresh:
    numbers = itertools.count()
    return Fresh(
        taken=frozenset(ShardId(name) for name in taken),
        journal_id=lambda: JournalId(f"j{next(numbers)}"),
    )


def first(shards: int = 2) -> Plan:
    return next_generation(plan_first(Plan(), {"main": COUNTS}, shards, fresh()), Plan())


def following(plan: Plan) -> dict[ShardId, Progress]:
    return {shard.id: FOLLOWS for shard in plan.shards}


def replanned(plan: Plan, shards: int, pool: int = 16) -> Plan | Waiting:
    return replan(
        plan,
        "main",
        COUNTS,
        shards,
        progress=following(plan),
        pool=pool,
        fresh=fresh(),
    )


def ids(plan: Plan, state: PlanState) -> list[str]:
    return [shard.id for shard in plan.shards if shard.state is state]


def test_the_first_plan_is_active_at_once() -> None:
    """Shards `main-00`, `main-01` in slots 0 and 1, made first, so that Nodes reconcile."""
    plan = first()
    assert [(s.id, s.slot, s.made_by, s.state, s.journal_id) for s in plan.shards] == [
        ("main-00", 0, Origin.FIRST, PlanState.ACTIVE, "j0"),
        ("main-01", 1, Origin.FIRST, PlanState.ACTIVE, "j1"),
    ]
    assert plan.generation == 1
    assert [shard.directories for shard in plan.shards] == [41, 40]


def test_a_second_first_plan_changes_nothing() -> None:
    """A Tree that is observed is left alone, whatever its counts are now."""
    plan = first()
    assert plan_first(plan, {"main": {b"": 1}}, 5, fresh()) is plan


def test_a_replan_makes_new_shards_and_keeps_the_old_observing() -> None:
    """New ids, new slots, the old ones' Watermark; nothing changes for the old ones yet."""
    plan = first()
    moving = replanned(plan, 4)
    assert isinstance(moving, Plan)
    new = [shard for shard in moving.shards if shard.state is PlanState.NEW]
    assert ids(moving, PlanState.ACTIVE) == ["main-00", "main-01"]
    assert [(s.id, s.slot, s.since_us, s.made_by) for s in new] == [
        ("main-02", 2, 77, Origin.REPLAN),
        ("main-03", 3, 77, Origin.REPLAN),
    ]
    assert [s.prefixes for s in moving.shards[:2]] == [s.prefixes for s in plan.shards]
    assert sorted(d for shard in moving.shards for d in [shard.directories]) == [20, 20, 20, 21]


def test_promotion_waits_for_every_new_shard() -> None:
    """While one new Shard does not follow, both sets observe; then all changes in one step."""
    plan = replanned(first(), 4)
    assert isinstance(plan, Plan)
    most = {s: p for s, p in following(plan).items() if s != "main-03"}
    assert promote(plan, most) is plan
    done = promote(plan, following(plan))
    assert ids(done, PlanState.ACTIVE) == ["main-00", "main-01", "main-02", "main-03"]
    assert [len(shard.prefixes) for shard in done.shards] == [1, 2, 2, 2]
    assert all(shard.becomes is None for shard in done.shards)


def test_fewer_shards_means_that_those_which_gain_are_replaced() -> None:
    """Two of four go; the two that take over are new, for they must catch up beforehand."""
    four = first(4)
    moving = replanned(four, 2)
    assert isinstance(moving, Plan)
    new = [shard for shard in moving.shards if shard.state is PlanState.NEW]
    assert {name for shard in new for name in shard.takes_from} == {s.id for s in four.shards}
    done = promote(moving, following(moving))
    assert ids(done, PlanState.RETIRED) == [shard.id for shard in four.shards]
    assert sorted(shard.directories for shard in done.observing()) == [40, 41]


def test_a_new_shard_minds_what_will_be_and_an_active_one_what_is() -> None:
    """So a promotion brings no new Shard anything to take up: nothing is looked at again."""
    moving = replanned(first(4), 2)
    assert isinstance(moving, Plan)
    done = promote(moving, following(moving))
    for shard in moving.observing():
        later = done.shard(shard.id)
        assert later is not None
        if shard.state is PlanState.NEW:
            assert moving.foreign_to(shard) == done.foreign_to(later)
        else:
            assert moving.foreign_to(shard) == first(4).foreign_to(shard)


def test_the_same_cut_changes_nothing() -> None:
    """A re-plan to what is already there is no re-plan."""
    plan = first()
    assert replanned(plan, 2) is plan


def test_a_replan_waits_for_its_preconditions() -> None:
    """One re-plan at a time; only from Shards that follow; only with free slots."""
    plan = first()
    moving = replanned(plan, 4)
    assert isinstance(moving, Plan)
    assert replanned(moving, 3) == Waiting(tree="main", reason="a re-plan is under way")
    assert replanned(plan, 4, pool=3) == Waiting(
        tree="main",
        reason="needs 2 free Watcher slots, has 1",
        remedy="`shardsync down`, then `shardsync up`, which makes more",
    )
    behind = replan(plan, "main", COUNTS, 4, progress={}, pool=16, fresh=fresh())
    assert behind == Waiting(tree="main", reason="not yet following: main-00, main-01")


def test_ids_are_never_used_again() -> None:
    """Numbers grow past the Plan's and past those of Journals on disk."""
    plan = plan_first(Plan(), {"main": COUNTS}, 2, fresh("main-07", "main-x", "other-09"))
    assert [shard.id for shard in plan.shards] == ["main-08", "main-09"]


def test_a_tree_that_is_gone_from_the_settings_retires() -> None:
    """Its Shards observe nothing any more; the other Tree is untouched; nothing is forgotten."""
    plan = plan_first(Plan(), {"a": COUNTS, "b": COUNTS}, 2, fresh())
    left = retire_trees(plan, frozenset({"b"}))
    assert (ids(left, PlanState.ACTIVE), ids(left, PlanState.RETIRED)) == (["b-00"], ["a-00"])
    assert ids(forget(left, ShardId("a-00")), PlanState.RETIRED) == []


def test_an_observing_shard_is_never_forgotten() -> None:
    """Only a retired Shard can leave the Plan."""
    plan = first()
    assert forget(plan, ShardId("main-00")) == plan


def test_wanted_is_at_least_one_for_each_tree() -> None:
    """Without a number the processors count; several Trees have at least one Shard each."""
    here = Path("/state")
    assert wanted_shards(settings(here, shards=None), processors=3) == 3
    two = settings(here, shards=1, trees={"a": "/a", "b": "/b"})
    assert wanted_shards(two, processors=8) == 2


PATHS = st.sampled_from([b"", b"d00", b"d03/x", b"d07", b"elsewhere/y"])


@given(counts=st.lists(st.integers(min_value=1, max_value=6), min_size=1, max_size=6), path=PATHS)
def test_a_path_is_observed_at_every_step(counts: list[int], path: bytes) -> None:
    """Through any series of re-plans a path has one active owner, and slots never clash.

    Nobody who goes on comes to own what was not its own: only a new Shard has caught up.
    """
    plan = first(counts[0])
    for shards in counts[1:]:
        moving = replanned(plan, shards)
        assert isinstance(moving, Plan)
        done = promote(moving, following(moving))
        for step in (moving, done):
            active = [s for s in step.owners("main", path) if s.state is PlanState.ACTIVE]
            assert len(active) == 1
            slots = [shard.slot for shard in step.observing()]
            assert len(slots) == len(set(slots))
            names = [shard.id for shard in step.shards]
            assert len(names) == len(set(names))
        (before,), (after,) = plan.owners("main", path), done.owners("main", path)
        assert after.id == before.id or moving.shard(after.id) not in plan.shards
        assert len(done.observing()) <= shards
        plan = done
        assert not ids(plan, PlanState.NEW)
