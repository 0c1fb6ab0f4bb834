"""A Tree is cut so that every path has one owner and no Shard has much more than its share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardsync.control.partition import Region, allot, cut, holes, loads

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


def test_trees_share_the_shards_by_weight_but_none_goes_without() -> None:
    """Each Tree has at least one Shard, the big one has the rest."""
    assert allot({"big": 900, "small": 1}, 4) == {"big": 3, "small": 1}
    assert allot({"a": 1, "b": 1, "c": 1}, 2) == {"a": 1, "b": 1, "c": 1}


@given(own=OWN, shards=st.integers(min_value=1, max_value=9))
def test_loads_add_up_to_the_tree(own: dict[bytes, int], shards: int) -> None:
    """Each counted directory is one Region's."""
    counts = totals(own)
    assert sum(loads(counts, cut(counts, shards)).values()) == counts[b""]


def test_what_is_cut_out_of_a_region_counts_as_its_shape() -> None:
    """Two Plans in which a Region has the same prefixes but other holes differ for it."""
    assert holes((b"",), [(b"",), (b"a", b"b/c")]) == {b"a", b"b/c"}
    assert holes((b"",), [(b"",), (b"a",)]) == {b"a"}
    assert holes((b"a",), [(b"",), (b"a",), (b"a/x",)]) == {b"a/x"}
