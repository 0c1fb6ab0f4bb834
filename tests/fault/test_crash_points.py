"""Every program killed at every named step in the midst of its work, and some while they recover.

Each time: all that changed is on the Node, nothing that is in the Tree was ever
missing there, at most one Batch was sent twice, and nothing ends that was not killed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

import pytest

from shardsync.failpoints import Point
from tests.support.crash_site import BATCH_OF_ALL, CrashSite, crash_site
from tests.support.instances import eventually


class Work(enum.Enum):
    """In the midst of what a program is killed."""

    CHANGES = "changes"
    MOVE = "a full directory is renamed"
    BIG = "a big file is sent"
    NODE = "a Node is filled"
    REQUEST = "a flush waits"
    PLAN = "a re-plan"
    STOP = "a Watcher ends"
    PRUNE = "a Watcher prunes"
    FORGET = "a retired Journal is removed"


CASES: list[tuple[Work, tuple[Point, ...]]] = [
    (Work.CHANGES, (Point.SHIP_RUN,)),
    (Work.CHANGES, (Point.SHIP_SPAWN,)),
    (Work.CHANGES, (Point.SHIP_SPAWNED,)),
    (Work.CHANGES, (Point.SHIP_LIST,)),
    (Work.CHANGES, (Point.SHIP_OUTPUT, Point.SHIP_OUTPUT)),
    (Work.CHANGES, (Point.SHIP_ENDED,)),
    (Work.CHANGES, (Point.STATE_CURSORS, Point.STATE_CURSORS)),
    (Work.CHANGES, (Point.STATE_CURSORS_MOVED,)),
    (Work.MOVE, (Point.SHIP_MOVED,)),
    (Work.BIG, (Point.SHIP_BIG_FILE,)),
    (Work.NODE, (Point.SHIP_CONTACT,)),
    (Work.NODE, (Point.STATE_RESTART,)),
    (Work.NODE, (Point.SHIP_CONTACTED, Point.SHIP_PIECE)),
    (Work.NODE, (Point.STATE_WORK,)),
    (Work.NODE, (Point.STATE_WORK_DONE,)),
    (Work.REQUEST, (Point.SHIP_REQUEST,)),
    (Work.REQUEST, (Point.SHIP_REQUEST_TAKEN,)),
    (Work.REQUEST, (Point.SHIP_ANSWER,)),
    (Work.PLAN, (Point.CONTROL_DECIDED,)),
    (Work.PLAN, (Point.JOURNAL_MADE,)),
    (Work.PLAN, (Point.CONTROL_JOURNALS_MADE, Point.CONTROL_FILE)),
    (Work.PLAN, (Point.CONTROL_PLAN_WRITTEN,)),
    (Work.PLAN, (Point.CONTROL_COOKIE_PUT,)),
    (Work.PLAN, (Point.CONTROL_SLOT_STARTED,)),
    (Work.PLAN, (Point.CONTROL_SLOT_NOTED,)),
    (Work.PLAN, (Point.WATCH_PLAN_TAKEN,)),
    (Work.PLAN, (Point.WATCH_RETIRED,)),
    (Work.FORGET, (Point.CONTROL_PRUNED,)),
    (Work.FORGET, (Point.CONTROL_FORGOTTEN,)),
    (Work.FORGET, (Point.CONTROL_REMOVED,)),
    (Work.CHANGES, (Point.WATCH_READ,)),
    (Work.CHANGES, (Point.WATCH_ADDED,)),
    (Work.CHANGES, (Point.JOURNAL_COMMIT,)),
    (Work.CHANGES, (Point.JOURNAL_COMMITTED,)),
    (Work.CHANGES, (Point.WATCH_READ, Point.JOURNAL_EPOCH)),
    (Work.CHANGES, (Point.JOURNAL_COMMIT, Point.JOURNAL_EPOCH_BEGUN)),
    (Work.CHANGES, (Point.WATCH_READ, Point.WATCH_SCANNING)),
    (Work.CHANGES, (Point.JOURNAL_COMMITTED, Point.WATCH_SCANNED)),
    (Work.REQUEST, (Point.JOURNAL_WATERMARK,)),
    (Work.STOP, (Point.WATCH_STOPPING,)),
    (Work.PRUNE, (Point.JOURNAL_PRUNE,)),
    (Work.PRUNE, (Point.JOURNAL_PRUNED,)),
]
"""Several points: killed at the first, and at the next one while it recovers."""

RESTARTED = {Work.PRUNE, Work.FORGET}
"""A program is ended, as an operator would, and killed at its start."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashSite]:
    """One instance for all steps of a worker: each finds it healed from the one before."""
    with crash_site(tmp_path_factory.mktemp("c")) as made:
        yield made


DOING: dict[Work, Callable[[CrashSite], None]] = {
    Work.MOVE: CrashSite.move_much,
    Work.BIG: CrashSite.write_much,
    Work.NODE: CrashSite.add_node,
    Work.REQUEST: CrashSite.flush,
    Work.PLAN: CrashSite.plan_anew,
    Work.STOP: lambda site: site.restart(site.watcher()),
    Work.PRUNE: lambda site: site.prune(site.watcher()),
    Work.FORGET: lambda site: site.prune("coordinator"),
}
"""What is done once the tree has changed."""


@pytest.mark.fault(
    "watcher-killed", "sync-killed", "coordinator-killed", "recovery-killed", "flush-cut-off"
)
@pytest.mark.parametrize(
    ("work", "points"),
    CASES,
    ids=["-".join(point.value for point in points) for _, points in CASES],
)
def test_a_kill_at_this_step_loses_nothing(
    site: CrashSite, work: Work, points: tuple[Point, ...]
) -> None:
    """Whatever it was in the midst of, all is well after a restart."""
    site.begin(with_retired=work is Work.FORGET)
    site.failpoints.arm(*(f"{point.value}:1:kill" for point in points))
    site.change()
    if work in DOING:
        DOING[work](site)
    site.struck()
    site.change()
    site.flush()
    if work is Work.PLAN:
        site.handed_over()
    assert site.differences() == []
    ended = ["exit status 0"] * (work in RESTARTED)
    assert sorted(site.ended()) == ended + ["terminated by SIGKILL"] * len(points)
    came, went = site.arrivals.take()
    assert [path for path in went if "keep" in path] == []
    if work is not Work.PRUNE:  # which forgets what was journaled a second ago
        assert [path for path in came if "keep" in path] == []
    if work not in {Work.PRUNE, Work.PLAN}:  # in a hand-over both Shards journal what changes
        twice = sum(times - 1 for path, times in came.items() if "file" in path)
        assert twice <= BATCH_OF_ALL * len(points)
    eventually(lambda: site.orphans() == [])


def test_every_point_has_its_kill() -> None:
    """A step that is named later is killed at, too."""
    assert {point for _, points in CASES for point in points} == set(Point)
