"""Directories are counted cheaply, and never wrongly enough to matter."""

from __future__ import annotations

from pathlib import Path

from shardsync.control.counting import count_directories


def make(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)


def test_every_prefix_holds_what_is_below_it(tmp_path: Path) -> None:
    """A directory's count is its own and all below; files and symlinks do not count."""
    make(tmp_path, "a/b/c", "a/d", "e")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("a")
    assert count_directories(tmp_path) == {
        b"": 6, b"a": 4, b"a/b": 2, b"a/b/c": 1, b"a/d": 1, b"e": 1,
    }  # fmt: skip


def test_below_the_depth_link_counts_stand_in(tmp_path: Path) -> None:
    """What is deeper is estimated, not walked, and adds up to the root."""
    make(tmp_path, *(f"a/{n}/x" for n in range(20)))
    counts = count_directories(tmp_path, depth=1)
    assert counts.keys() == {b"", b"a"}
    assert counts[b""] == counts[b"a"] + 1
    # 21 where the file system counts subdirectories as links, 1 where it does not.
    assert counts[b"a"] in {1, 21}


def test_caps_bound_the_walk(tmp_path: Path) -> None:
    """However large the Tree, at most so many directories are opened and names read."""
    make(tmp_path, *(f"{n:02d}/x/y" for n in range(30)))
    few = count_directories(tmp_path, directories_max=3)
    assert sum(name.count(b"/") == 0 for name in few) == 31
    assert len(count_directories(tmp_path, entries_max=5)) == 6


def test_a_root_that_is_missing_counts_as_one(tmp_path: Path) -> None:
    """The Plan can be made; the Watcher reports the root."""
    assert count_directories(tmp_path / "none") == {b"": 1}


def test_names_of_any_bytes_are_counted(tmp_path: Path) -> None:
    """Prefixes are bytes as the kernel gives them."""
    make(tmp_path, "a\udcff/b")
    assert count_directories(tmp_path)[b"a\xff"] == 2
