"""A Tree is cut so that every path has one owner and no Shard has much more than its share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardsync.control.partition import Region, allot, cut, gaining, loads, recut

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff", b"a b"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
OWN = st.dictionaries(PATHS, st.integers(min_value=0, max_value=50), max_size=25)


def totals(own: dict[bytes, int]) -> dict[bytes, int]:
    """Counts as the planner gets them: every ancestor known, each holding what is below."""
    found: dict[bytes, int] = {b"": 1}
    for path, weight in own.items():
        parts = path.split(b"/")
        for depth in range(len(parts) + 1):
            above = b"/".join(parts[:depth])
            found[above] = found.get(above, 0) + weight
    return found


def owners(regions: tuple[Region, ...], path: bytes) -> list[int]:
    """The Regions that list the longest prefix of `path`."""
    above = [path.split(b"/")[:depth] for depth in range(len(path.split(b"/")), -1, -1)]
    for parts in above:
        found = [n for n, region in enumerate(regions) if b"/".join(parts) in region]
        if found:
            return found
    return []


@given(own=OWN, shards=st.integers(min_value=1, max_value=9), path=PATHS)
def test_every_path_has_exactly_one_owner(own: dict[bytes, int], shards: int, path: bytes) -> None:
    """Whatever was counted, any path, counted or not, belongs to one Region."""
    assert len(owners(cut(totals(own), shards), path)) == 1


@given(own=OWN, shards=st.integers(min_value=1, max_value=9))
def test_the_first_region_owns_the_root_and_none_is_empty(
    own: dict[bytes, int], shards: int
) -> None:
    """There are at most as many Regions as wanted; b"" is in the first alone."""
    regions = cut(totals(own), shards)
    assert 1 <= len(regions) <= shards
    assert [b"" in region for region in regions] == [True] + [False] * (len(regions) - 1)
    assert all(regions)


@given(own=OWN, shards=st.integers(min_value=1, max_value=9))
def test_no_prefix_is_listed_twice_or_needlessly(own: dict[bytes, int], shards: int) -> None:
    """A prefix stands in one Region, and never where that Region owns the folder above it."""
    regions = cut(totals(own), shards)
    listed = [prefix for region in regions for prefix in region]
    assert len(listed) == len(set(listed))
    for number, region in enumerate(regions):
        for prefix in region:
            if prefix:
                assert owners(regions, prefix.rpartition(b"/")[0]) != [number]


@given(own=OWN, shards=st.integers(min_value=1, max_value=9))
def test_the_cut_depends_on_the_counts_alone(own: dict[bytes, int], shards: int) -> None:
    """The order in which directories were counted changes nothing."""
    counts = totals(own)
    backwards = dict(reversed(counts.items()))
    assert cut(counts, shards) == cut(backwards, shards)


def test_equal_folders_are_shared_out_evenly() -> None:
    """Eight equal folders on four Shards: two each."""
    counts = {b"": 81, **{b"d%d" % n: 10 for n in range(8)}}
    regions = cut(counts, 4)
    owned = [owners(regions, b"d%d" % n)[0] for n in range(8)]
    loads = [owned.count(number) for number in range(4)]
    assert loads == [2, 2, 2, 2]


def test_a_heavy_folder_is_split_further_down() -> None:
    """When one folder holds nearly all, its children are shared out."""
    counts = {b"": 102, b"big": 101, b"big/a": 50, b"big/b": 50}
    regions = cut(counts, 2)
    assert owners(regions, b"big/a/x") != owners(regions, b"big/b/x")


def test_a_tree_too_small_to_share_has_one_region() -> None:
    """A Shard that would own nothing is not made."""
    assert cut({b"": 1}, 4) == ((b"",),)


def test_a_flat_tree_of_many_folders_is_balanced() -> None:
    """2,000 equal folders on two Shards: neither has more than 60 percent."""
    counts = {b"": 2001, **{b"d%04d" % n: 1 for n in range(2000)}}
    second = cut(counts, 2)[1]
    assert 800 <= len(second) <= 1200


REPLAN = st.lists(st.integers(min_value=1, max_value=9), min_size=2, max_size=5)


def heaviest_piece(counts: dict[bytes, int]) -> int:
    """The most that one listed prefix weighs when all its counted children are listed too."""
    left = dict(counts)
    for path, weight in counts.items():
        if path:
            left[path.rpartition(b"/")[0]] -= weight
    return max(left.values())


@given(own=OWN, steps=REPLAN, path=PATHS)
def test_after_any_re_plans_every_path_has_exactly_one_owner(
    own: dict[bytes, int], steps: list[int], path: bytes
) -> None:
    """Also where Shards were dissolved, and none is left empty."""
    counts = totals(own)
    regions = cut(counts, steps[0])
    for shards in steps[1:]:
        regions = tuple(region for region in recut(counts, shards, regions) if region)
        assert len(owners(regions, path)) == 1
        assert 1 <= len(regions) <= shards
        listed = [prefix for region in regions for prefix in region]
        assert len(listed) == len(set(listed))
        assert sum(loads(counts, regions)) == counts[b""]


@given(own=OWN, steps=REPLAN)
def test_no_shard_is_heavier_than_balance_and_indivisible_prefixes_explain(
    own: dict[bytes, int], steps: list[int]
) -> None:
    """At most 1.15 shares and what the heaviest prefix weighs that cannot be split, twice."""
    counts = totals(own)
    regions: tuple[Region, ...] = ((b"",),)
    for shards in steps:
        regions = tuple(region for region in recut(counts, shards, regions) if region)
        share = counts[b""] / shards
        assert max(loads(counts, regions)) <= 1.15 * share + 2 * heaviest_piece(counts)


@given(own=OWN, shards=st.integers(min_value=1, max_value=9))
def test_planned_again_nothing_moves(own: dict[bytes, int], shards: int) -> None:
    """Where the Shards have about the same, a re-plan leaves them as they are."""
    counts = totals(own)
    regions = cut(counts, shards)
    share = counts[b""] / shards
    if max(loads(counts, regions)) <= 1.15 * share:
        assert recut(counts, shards, regions)[: len(regions)] == regions


@given(own=OWN, steps=REPLAN, path=PATHS)
def test_who_gains_is_told_exactly(own: dict[bytes, int], steps: list[int], path: bytes) -> None:
    """A path changes hands only to a Region that is said to gain."""
    counts = totals(own)
    before = cut(counts, steps[0])
    after = recut(counts, steps[1], before)
    old, new = owners(before, path), owners(after, path)
    assert old == new or new[0] in gaining(before, after)


def test_only_what_is_too_much_moves() -> None:
    """One of four Shards has 60 directories more than its share: 60 move, to as few as can be."""
    counts = {b"": 161, **{b"%c%d" % (s, n): 10 for s in b"abcd" for n in range(4)}}
    before = ((b"",), *(tuple(b"%c%d" % (s, n) for n in range(4)) for s in b"bcd"))
    for number in range(4):
        counts[b"a%d" % number] += 20
    counts[b""] += 80
    after = recut(counts, 4, before)
    assert loads(counts, before) == [121, 40, 40, 40]
    assert loads(counts, after) == [61, 70, 70, 40]
    assert gaining(before, after) == {1, 2}


def test_one_huge_flat_directory_is_shared_out() -> None:
    """100,000 directories in one, on two, four and eight Shards: within 1.05 of the mean."""
    counts = {b"": 100_001, **{b"f%06d" % number: 1 for number in range(100_000)}}
    for shards in (2, 4, 8):
        assert max(loads(counts, cut(counts, shards))) <= 1.05 * 100_001 / shards


def test_a_chain_is_cut_across() -> None:
    """A thousand directories one below the other: four pieces of about 250."""
    chain = [b"/".join([b"c"] * depth) for depth in range(1000)]
    counts = {path: 1000 - depth for depth, path in enumerate(chain)}
    assert max(loads(counts, cut(counts, 4))) <= 260


def test_a_heavy_subtree_deep_down_is_found_and_split() -> None:
    """Below 900 levels lie nearly all directories: the Shards share them."""
    chain = [b"/".join([b"c"] * depth) for depth in range(900)]
    counts = {path: 100_900 - depth for depth, path in enumerate(chain)}
    counts |= {chain[-1] + b"/x%03d" % number: 100 for number in range(1000)}
    assert max(loads(counts, cut(counts, 4))) <= 1.05 * 100_900 / 4


def test_trees_share_the_shards_by_weight_but_none_goes_without() -> None:
    """Each Tree has at least one Shard, the big one has the rest."""
    assert allot({"big": 900, "small": 1}, 4) == {"big": 3, "small": 1}
    assert allot({"a": 1, "b": 1, "c": 1}, 2) == {"a": 1, "b": 1, "c": 1}


@given(own=OWN, shards=st.integers(min_value=1, max_value=9))
def test_loads_add_up_to_the_tree(own: dict[bytes, int], shards: int) -> None:
    """Each counted directory is one Region's."""
    counts = totals(own)
    assert sum(loads(counts, cut(counts, shards))) == counts[b""]
