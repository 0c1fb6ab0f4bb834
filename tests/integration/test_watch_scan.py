"""The order of a scan's steps, on a real disk with watches that meddle."""

from __future__ import annotations

import os
from pathlib import Path

from shardsync.clock import SystemClock
from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.gathered import Gathered, NoFilter
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.scan import Rule, Scanner, Task


class Meddling:
    """Right before a directory gets its watch, somebody makes a file in it and leaves no event."""

    def __init__(self) -> None:
        self.watched: list[bytes] = []

    def add(self, path: bytes) -> int:
        with open(path + b"/late", "wb"):
            pass
        self.watched.append(path)
        return len(self.watched)


class NoMemory:
    """A Journal that remembers no directory."""

    def directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        return None

    def sub_root(self, path: bytes, identity: str) -> int:
        return 1


def scanner(root: Path, gathered: Gathered) -> Scanner:
    return Scanner(
        root=os.fsencode(root),
        watches=Meddling(),
        table=DirectoryTable(),
        memory=NoMemory(),
        gathered=gathered,
        excluded=NoFilter(),
        clock=SystemClock(),
        prefixes=Prefixes(mine=[b""], foreign=[]),
        identify=lambda device: "disk",
    )


def test_a_directory_is_watched_before_it_is_listed(tmp_path: Path) -> None:
    """A file made between two listings of its directory would otherwise never be seen."""
    (tmp_path / "a/b").mkdir(parents=True)
    gathered = Gathered()
    scan = scanner(tmp_path, gathered)
    scan.begin(Task(TOP, 0, b"", b"", Rule(unknown=True, whole=True, everything=True)))
    assert scan.step(60.0)
    assert sorted(scan.found.appeared) == [b"a/b/late", b"a/late", b"late"]


def test_a_directory_swapped_for_a_symlink_is_not_entered(tmp_path: Path) -> None:
    """A scan never leaves the tree."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "secret/deep").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "secret")
    gathered = Gathered()
    scan = scanner(tmp_path / "tree", gathered)
    scan.begin(Task(TOP, 0, b"", b"", Rule(unknown=True, whole=True, everything=True)))
    scan.begin(Task(1, 0, b"link", b"link", Rule(unknown=True, whole=True, everything=True)))
    assert scan.step(60.0)
    assert sorted(scan.found.appeared) == [b"late", b"link"]
    assert gathered.entries == {}


def test_a_scan_deeper_than_its_open_directories_goes_on(tmp_path: Path) -> None:
    """One open directory a level, up to a bound; what is deeper is taken up later."""
    deep = tmp_path.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    scan = scanner(tmp_path, Gathered())
    scan.begin(Task(TOP, 0, b"", b"", Rule(unknown=True, whole=True)))
    assert scan.step(60.0)
    assert scan.done == 201
