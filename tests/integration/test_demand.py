"""How many directories the limits are measured by: as observed, as planned, or counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.config.load import load_settings
from shardsync.control.demand import demand, need_of_roots
from shardsync.control.limits import Need, needed
from shardsync.journal.plan import Origin, Plan, PlanState, write_plan
from shardsync.model import ShardState
from tests.support.clock import FakeClock
from tests.support.instance import HandMade

SHARDS = "[shards]\ncount = 1\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HandMade]:
    """A Tree of 11 directories, 5 of them below `cache`."""
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    instance.write_settings(more=SHARDS)
    for number in range(5):
        (instance.root / f"d{number}").mkdir()
        (instance.root / f"cache/e{number}").mkdir(parents=True)
    (instance.root / "cache").rename(instance.root / "cache.tmp")
    yield instance
    instance.close()


def need(made: HandMade) -> Need:
    return demand(load_settings(made.folder / "shardsync.toml", {}, made.folder))


def plan(made: HandMade, *directories: int) -> None:
    """Write the Plan anew, its Shards thought to own so many directories."""
    shards = zip(made.planned, directories, strict=True)
    planned = tuple(replace(shard, directories=count) for shard, count in shards)
    write_plan(made.state.plan, Plan(generation=2, shards=planned))


def test_what_never_ran_is_counted(made: HandMade) -> None:
    """The root is one too."""
    assert need(made).directories == 12


def test_what_is_excluded_needs_no_watch(made: HandMade) -> None:
    """Nor does what lies below it."""
    file = made.folder / "shardsync.toml"
    file.write_text(file.read_text().replace("[state]", 'exclude = ["*.tmp"]\n[state]'))
    assert need(made).directories == 6


def test_what_a_watcher_knows_is_taken(made: HandMade) -> None:
    """What it polls for want of watches needs a watch all the same; so after a stop."""
    journal = made.add_shard()
    for state in (ShardState.POLLING, ShardState.STOPPED):
        journal.commit([], progress={"state": state, "directories": 750, "polled_directories": 50})
        assert need(made).directories == 750


def test_a_scan_that_is_open_knows_too_little(made: HandMade) -> None:
    """What it expects, or what was planned, is more."""
    journal = made.add_shard()
    journal.commit([], progress={"state": ShardState.SCANNING, "directories": 100})
    plan(made, 4000)
    assert need(made).directories == 4000
    journal.commit([], progress={"scan_total": 5000})
    assert need(made).directories == 5000
    journal.commit([], progress={"state": ShardState.FOLLOWING, "directories": 3900})
    assert need(made).directories == 3900


def test_a_replan_under_way_needs_watches_twice(made: HandMade) -> None:
    """For what moves; the Tree has not grown by it."""
    made.add_shard().commit([], progress={"state": ShardState.FOLLOWING, "directories": 1000})
    made.add_shard("main-01", made_by=Origin.REPLAN, plan_state=PlanState.NEW)
    plan(made, 0, 400)
    found = need(made)
    assert (found.directories, found.watches) == (1000, 1000 + 400 + 2 + 2 + 64)


def test_a_plan_that_cannot_be_read_is_none(made: HandMade) -> None:
    """The Tree is counted instead: `check` must be of use just then."""
    made.add_shard()
    made.state.plan.write_text("{")
    assert need(made).directories == 12


def test_refused_settings_still_name_roots(made: HandMade) -> None:
    """All of their directories together."""
    found = need_of_roots([made.root, made.root / "d0"], nodes=3)
    assert found.directories == 13
    assert found.open_files == needed(1, shards=1).open_files
