"""When Shards that grew apart are worth a re-plan: a decision from figures and times alone."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from shardsync.control.balance import Pace, Scales, is_better, is_lopsided, shares_of

PACE = Pace(floor_directories=100, hold_seconds=10.0, pause_seconds=600.0)
UNEVEN = (1000, 10)
EVEN = (500, 510)


def test_twice_its_share_is_lopsided_and_less_is_not() -> None:
    """Of four Shards; of two nobody can have more than two shares, so one and a half do."""
    assert is_lopsided((601, 200, 200, 100), 4, 100)
    assert not is_lopsided((540, 200, 200, 200), 4, 100)
    assert is_lopsided((760, 240), 2, 100)
    assert not is_lopsided((740, 260), 2, 100)


def test_one_shard_of_several_wanted_is_lopsided_once_it_is_large() -> None:
    """A Tree that was planned while empty."""
    assert is_lopsided((1000,), 2, 100)
    assert is_lopsided((1000,), 8, 100)
    assert not is_lopsided((150,), 2, 100)


@given(loads=st.lists(st.integers(min_value=0, max_value=10**7), min_size=1, max_size=8))
def test_small_differences_and_single_shards_are_left_alone(loads: list[int]) -> None:
    """Below the floor nothing is worth a scan; one Shard that is all that is wanted is even."""
    assert not is_lopsided(loads, len(loads), max(loads))
    assert not is_lopsided([sum(loads)], 1, 0)


def test_it_must_hold_for_a_while() -> None:
    """Ten seconds without a break: a scan or a move of folders under way is no imbalance."""
    scales = Scales(pace=PACE)

    def due(loads: tuple[int, ...], now: float) -> bool:
        return scales.is_due("main", loads, 2, now=now, since_replan=math.inf)

    assert [due(UNEVEN, 0), due(UNEVEN, 9), due(UNEVEN, 10)] == [False, False, True]
    assert [due(EVEN, 11), due(UNEVEN, 12), due(UNEVEN, 21)] == [False, False, False]
    assert due(UNEVEN, 22)
    scales.forget("main")
    assert [due(UNEVEN, 23), due(UNEVEN, 33)] == [False, True]


def test_there_is_a_pause_after_a_replan() -> None:
    """Ten minutes, however uneven."""
    scales = Scales(pace=PACE)
    for now, since, due in ((0, 500, False), (50, 550, False), (99, 599, False), (100, 600, True)):
        assert scales.is_due("main", UNEVEN, 2, now=now, since_replan=since) is due


def test_trees_do_not_mix() -> None:
    """One being uneven for long says nothing of another."""
    scales = Scales(pace=PACE)
    scales.is_due("a", UNEVEN, 2, now=0, since_replan=math.inf)
    assert not scales.is_due("b", UNEVEN, 2, now=10, since_replan=math.inf)
    assert scales.is_due("a", UNEVEN, 2, now=10, since_replan=math.inf)


def test_a_re_plan_must_take_a_fifth_off_the_heaviest() -> None:
    """Where the tree cannot be split, it is left as it is."""
    assert is_better((1000, 0), (500, 500))
    assert not is_better((1000, 0), (900, 100))


def test_a_tree_that_grows_takes_what_the_others_leave() -> None:
    """No Shard is taken from another Tree, and the number asked for is kept to."""
    assert shares_of({"a": 1, "b": 3}, {"a": 2, "b": 1}, 4) == {"a": 2, "b": 2}
    assert shares_of({"a": 1, "b": 3}, {"a": 1, "b": 1}, 4) == {"a": 1, "b": 3}
    assert shares_of({"a": 1, "b": 1}, {"a": 2, "b": 2}, 2) == {"a": 2, "b": 2}
