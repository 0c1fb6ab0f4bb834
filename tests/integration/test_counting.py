"""Directories are counted cheaply, and rarely wrongly enough to matter."""

from __future__ import annotations

import os
from pathlib import Path

from shardsync.config.patterns import PathFilter
from shardsync.control.counting import QUICK, THOROUGH, Budget, count_directories
from shardsync.control.partition import cut, loads


def make(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)


def most_of_a_share(counts: dict[bytes, int], truth: dict[bytes, int], shards: int) -> float:
    """How many shares the heaviest Shard of a Plan made by `counts` really has."""
    return max(loads(truth, cut(counts, shards))) / (truth[b""] / shards)


def test_every_prefix_holds_what_is_below_it(tmp_path: Path) -> None:
    """A directory's count is its own and all below; files and symlinks do not count."""
    make(tmp_path, "a/b/c", "a/d", "e")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("a")
    assert count_directories(tmp_path) == {
        b"": 6, b"a": 4, b"a/b": 2, b"a/b/c": 1, b"a/d": 1, b"e": 1,
    }  # fmt: skip


def test_what_is_not_opened_is_taken_to_be_like_its_neighbours(tmp_path: Path) -> None:
    """A hundred folders alike, most of them never opened: the sum is right all the same."""
    make(tmp_path, *(f"{n:02d}/{m}/x" for n in range(100) for m in range(5)))
    budget = Budget(seconds=60, entries=1500, looks=40_000)
    counts = count_directories(tmp_path, budget=budget)
    assert counts[b""] == 1101
    assert {counts[b"%02d" % n] for n in range(100)} == {11}


def test_a_budget_bounds_the_walk(tmp_path: Path) -> None:
    """However large the Tree, what was read so far is what is known."""
    make(tmp_path, *(f"{n:02d}/x/y" for n in range(30)))
    few = count_directories(tmp_path, budget=Budget(seconds=60, entries=1, looks=0))
    assert len(few) == 31
    late = count_directories(tmp_path, budget=Budget(seconds=0, entries=10**6, looks=10**6))
    assert late == {b"": 1}


def test_a_heavy_subtree_below_a_long_chain_is_found(tmp_path: Path) -> None:
    """Among 200 small folders, 60 levels down: the quick count sees it."""
    make(tmp_path, *(f"small{n:03d}/x" for n in range(200)))
    chain = "/".join(["c"] * 60)
    make(tmp_path, *(f"{chain}/{n:03d}/{m}" for n in range(100) for m in range(20)))
    quick, thorough = count_directories(tmp_path), count_directories(tmp_path, budget=THOROUGH)
    assert thorough[b""] == 1 + 400 + 60 + 2100
    assert thorough[os.fsencode(chain)] == 2101
    for shards in (2, 4, 8):
        assert most_of_a_share(quick, thorough, shards) <= 1.15


def test_one_flat_directory_is_named_child_by_child(tmp_path: Path) -> None:
    """Else it could not be shared out."""
    make(tmp_path, *(f"{n:05d}" for n in range(6000)))
    counts = count_directories(tmp_path)
    assert (counts[b""], len(counts)) == (6001, 6001)
    assert most_of_a_share(counts, counts, 4) <= 1.05


def test_a_chain_longer_than_any_path_ends_the_count_not_the_program(tmp_path: Path) -> None:
    """Deeper than PATH_MAX lets anybody look, and than Python recurses."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        counts = count_directories(tmp_path)
        assert 700 < counts[b""] <= 1501
        assert most_of_a_share(counts, counts, 2) <= 1.15
    finally:
        os.system(f"rm -rf {tmp_path}/deep")  # noqa: S605 (shutil.rmtree recurses)


def test_many_files_hide_no_directory(tmp_path: Path) -> None:
    """Files cost names read, and no look; the link count tells when all directories are known."""
    make(tmp_path, *(f"d{n}/x" for n in range(5)))
    for number in range(3000):
        (tmp_path / f"f{number}").touch()
    assert count_directories(tmp_path)[b""] == 11


def test_what_is_excluded_is_not_counted(tmp_path: Path) -> None:
    """It is not watched either, and must never be a prefix of a Shard."""
    make(tmp_path, "cache/x/y", "site/cache", "site/a")
    excluded = PathFilter.compile(exclude=["/cache/"])
    counts = count_directories(tmp_path, excluded=excluded)
    assert counts == {b"": 4, b"site": 3, b"site/cache": 1, b"site/a": 1}


def test_a_root_that_is_missing_counts_as_one(tmp_path: Path) -> None:
    """The Plan can be made; the Watcher reports the root."""
    assert count_directories(tmp_path / "none") == {b"": 1}
    assert count_directories(tmp_path / "none", budget=QUICK) == {b"": 1}


def test_names_of_any_bytes_are_counted(tmp_path: Path) -> None:
    """Prefixes are bytes as the kernel gives them."""
    make(tmp_path, "a\udcff/b")
    assert count_directories(tmp_path)[b"a\xff"] == 2


class Swapping:
    """Excludes nothing; once asked, it puts a symlink to `outside` where a directory was."""

    def __init__(self, place: Path, outside: Path) -> None:
        self._place = place
        self._outside = outside

    def excludes(self, path: bytes, is_dir: bool) -> bool:  # noqa: FBT001 (as Excludes)
        if not self._place.is_symlink():
            self._place.rename(self._place.with_name("aside"))
            self._place.symlink_to(self._outside)
        return False


def test_a_directory_swapped_for_a_symlink_is_not_counted_through_it(tmp_path: Path) -> None:
    """Names from outside are no prefixes of a Plan."""
    make(tmp_path, "tree/d/x", "outside/canary/y")
    swapping = Swapping(tmp_path / "tree/d", tmp_path / "outside")
    assert count_directories(tmp_path / "tree", excluded=swapping) == {b"": 2, b"d": 1}
