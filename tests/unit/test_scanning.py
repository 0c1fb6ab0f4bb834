"""How far scans are, in figures and words."""

from __future__ import annotations

from shardsync.cli.scanning import Pace, scan_figures, scan_words
from shardsync.model import ShardState
from shardsync.observe.status import ShardStatus


def shard(
    name: str, state: ShardState, *, directories: int = 0, scan_done: int = 0, scan_total: int = 0
) -> ShardStatus:
    return ShardStatus(
        id=name,
        tree="main",
        program=name,
        state=state,
        directories=directories,
        scan_done=scan_done,
        scan_total=scan_total,
    )


FOLLOWING = shard("a-00", ShardState.FOLLOWING, directories=600, scan_done=600, scan_total=500)


def test_the_figures_of_all_shards_are_one() -> None:
    """One that follows has all it has; of one that scans, what it has done of its estimate."""
    scanning = shard("a-01", ShardState.SCANNING, directories=9, scan_done=100, scan_total=400)
    found = scan_figures([FOLLOWING, scanning])
    assert (found.done, found.total, found.scanning) == (700, 1000, ("a-01",))
    assert not found.is_over
    assert scan_figures([FOLLOWING]).is_over


def test_a_total_that_one_shard_does_not_know_is_no_total() -> None:
    """A bar that is full too early is worse than none."""
    starting = shard("a-01", ShardState.STARTING)
    found = scan_figures([FOLLOWING, starting])
    assert (found.done, found.total, found.scanning) == (600, 0, ("a-01",))


def test_an_estimate_that_was_too_low_gives_way() -> None:
    """More than all is never done."""
    found = scan_figures([shard("a-01", ShardState.SCANNING, scan_done=500, scan_total=400)])
    assert (found.done, found.total) == (500, 500)


def test_the_words_say_how_much_how_fast_and_how_long() -> None:
    """As far as that is known."""
    half = scan_figures([shard("a", ShardState.SCANNING, scan_done=5000, scan_total=10_000)])
    assert scan_words(half, 2500.0) == "5,000 of 10,000 directories, 2,500/s, 2.0s left"
    assert scan_words(half, 0.0) == "5,000 of 10,000 directories"
    unknown = scan_figures([shard("a", ShardState.SCANNING, scan_done=1)])
    assert scan_words(unknown, 10.0) == "1 directory, 10/s"


def test_the_pace_is_that_of_the_last_seconds() -> None:
    """A slow start is forgotten; a count that falls is another scan."""
    pace = Pace()
    pace.see(0.0, 0)
    assert pace.per_second() == 0.0
    pace.see(10.0, 10)
    assert pace.per_second() == 1.0
    for second in range(11, 31):
        pace.see(float(second), 10 + (second - 10) * 1000)
    assert pace.per_second() == 1000.0
    pace.see(31.0, 5)
    assert pace.per_second() == 0.0
