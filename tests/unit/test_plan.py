"""The Plan names an owner for every path and survives its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardsync.errors import StateUnusable
from shardsync.journal.plan import Origin, Plan, PlannedShard, PlanState, read_plan, write_plan
from shardsync.model import JournalId, ShardId


def _shard(
    number: int, *prefixes: bytes, state: PlanState = PlanState.ACTIVE, slot: int | None = None
) -> PlannedShard:
    return PlannedShard(
        id=ShardId(f"main-{number:02d}"),
        tree="main",
        slot=number if slot is None else slot,
        prefixes=prefixes,
        journal_id=JournalId(f"id{number}"),
        state=state,
    )


def test_the_longest_prefix_owns_a_path() -> None:
    """`news` owns all below it, but not its neighbour `newsletter`."""
    plan = Plan(shards=(_shard(0, b""), _shard(1, b"news", b"img/big")))
    assert [s.id for s in plan.owners("main", b"news/a")] == ["main-01"]
    assert [s.id for s in plan.owners("main", b"news")] == ["main-01"]
    assert [s.id for s in plan.owners("main", b"newsletter")] == ["main-00"]
    assert [s.id for s in plan.owners("main", b"img/small")] == ["main-00"]
    assert plan.owners("other", b"x") == ()


def test_a_path_that_changes_hands_has_two_observers() -> None:
    """While a re-plan is under way the old and the new Shard both observe."""
    new = _shard(2, b"news", state=PlanState.NEW)
    plan = Plan(shards=(_shard(0, b""), new, _shard(9, b"", state=PlanState.RETIRED)))
    assert [s.id for s in plan.owners("main", b"news/a")] == ["main-00", "main-02"]
    assert plan.in_slot(2) == new
    assert plan.in_slot(9) is None


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    """Prefixes of any bytes survive."""
    shard = PlannedShard(
        id=ShardId("main-00"),
        tree="main",
        slot=0,
        prefixes=(b"", b"a\xff/b"),
        journal_id=JournalId("j"),
        made_by=Origin.REPLAN,
        since_us=7,
        state=PlanState.NEW,
        takes_from=(ShardId("main-01"),),
        becomes=(b"\xfe",),
        directories=5,
    )
    plan = Plan(generation=3, shards=(shard,))
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    assert read_plan(tmp_path / "none.json") is None
    (tmp_path / "bad.json").write_text('{"format": 99}')
    with pytest.raises(StateUnusable, match=r"bad\.json"):
        read_plan(tmp_path / "bad.json")
