"""The order of a scan's steps, on a real disk with watches that meddle."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from shardsync import beneath
from shardsync.clock import SystemClock
from shardsync.watch.assemble import scanner_of
from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.entering import Watches
from shardsync.watch.gathered import Gathered, NoFilter
from shardsync.watch.ground import Ground
from shardsync.watch.prefixes import Prefixes
from shardsync.watch.rule import Rule, Task
from shardsync.watch.scan import Scanner
from shardsync.watch.sub_roots import SubRoots


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

    def elders_directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        return None


def scanner(
    root: Path,
    gathered: Gathered,
    disk: str = "btrfs /dev/sda1",
    watches: Watches | None = None,
) -> Scanner:
    clock = SystemClock()
    return scanner_of(
        ground=Ground(root=os.fsencode(root)),
        watches=watches or Meddling(),
        table=DirectoryTable(),
        memory=NoMemory(),
        sub_roots=SubRoots(remember=lambda *_: 1, identify=lambda _: disk, clock=clock),
        gathered=gathered,
        excluded=NoFilter(),
        clock=clock,
        prefixes=Prefixes(mine=[b""], foreign=[]),
    )


@pytest.mark.fault("fresh-directories")
def test_a_directory_is_watched_before_it_is_listed(tmp_path: Path) -> None:
    """A file made between two listings of its directory would otherwise never be seen."""
    (tmp_path / "a/b").mkdir(parents=True)
    gathered = Gathered()
    scan = scanner(tmp_path, gathered)
    scan.agenda.begin(Task(TOP, 0, b"", b"", Rule(unknown=True, whole=True, everything=True)))
    assert scan.step(60.0)
    assert sorted(scan.found.appeared) == [b"a/b/late", b"a/late", b"late"]


def test_a_directory_swapped_for_a_symlink_is_not_entered(tmp_path: Path) -> None:
    """A scan never leaves the tree."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "secret/deep").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "secret")
    gathered = Gathered()
    scan = scanner(tmp_path / "tree", gathered)
    scan.agenda.begin(Task(TOP, 0, b"", b"", Rule(unknown=True, whole=True, everything=True)))
    scan.agenda.begin(
        Task(1, 0, b"link", b"link", Rule(unknown=True, whole=True, everything=True))
    )
    assert scan.step(60.0)
    assert sorted(scan.found.appeared) == [b"late", b"link"]
    assert gathered.entries == {}


def test_a_scan_deeper_than_its_open_directories_goes_on(tmp_path: Path) -> None:
    """One open directory a level, up to a bound; what is deeper is taken up later."""
    deep = tmp_path.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    scan = scanner(tmp_path, Gathered())
    scan.agenda.begin(Task(TOP, 0, b"", b"", Rule(unknown=True, whole=True)))
    assert scan.step(60.0)
    assert scan.done == 201


@pytest.mark.parametrize("disk", ["ext4 /dev/sda1", "btrfs /dev/sda1"])
def test_a_first_scan_finds_all_directories_and_looks_at_no_file(
    tmp_path: Path, disk: str
) -> None:
    """A directory without subdirectories is not even listed, where link counts tell."""
    for number in range(300):
        (tmp_path / f"d{number}/below/leaf").mkdir(parents=True)
    gathered = Gathered()
    scan = scanner(tmp_path, gathered, disk)
    later = 1 << 60
    rule = Rule(since_us=later, unknown=True, whole=True, only_directories=True)
    scan.agenda.begin(Task(TOP, 0, b"", b"", rule))
    assert scan.step(60.0)
    assert scan.done == 901
    assert len(scan.found.directories) == 901
    assert len(gathered) == 0


def test_a_scan_out_of_time_goes_on_where_it_was(tmp_path: Path) -> None:
    """Step by step, with no time at all, everything is found once, in wide and deep folders."""
    for number in range(500):
        (tmp_path / f"d{number % 50}").mkdir(exist_ok=True)
        (tmp_path / f"d{number % 50}/f{number}").touch()
        (tmp_path / f"file{number}").touch()
    (tmp_path.joinpath(*["deep"] * 90)).mkdir(parents=True)
    gathered = Gathered()
    scan = scanner(tmp_path, gathered)
    scan.agenda.begin(Task(TOP, 0, b"", b"", Rule(unknown=True, whole=True, since_us=1)))
    steps = 1
    while not scan.step(0.0):
        steps += 1
    assert steps > 10
    assert scan.done == 141
    late = 141
    assert sum(1 for path in gathered.entries if not path.endswith(b"late")) == 1000
    assert sum(1 for path in gathered.entries if path.endswith(b"late")) == late


def test_a_listing_that_breaks_off_ends_nothing_else(tmp_path: Path) -> None:
    """A directory that cannot be read to its end is named, to be tried again; the rest goes on."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "sound/below").mkdir(parents=True)
    scan = scanner(tmp_path, Gathered(), watches=Quiet())
    rule = Rule(unknown=True, whole=True)
    scan.agenda.begin(Task(TOP, 0, b"", b"", rule))
    scan.step(0.0)
    broken = os.open(tmp_path / "broken", os.O_PATH)
    scan.agenda.frames.append((Breaking(), 2, 7, b"broken/", rule, broken))
    assert scan.step(60.0)
    assert scan.found.refused[b"broken"].number == errno.EIO
    assert scan.done == 4


class Breaking:
    """The listing of a directory on a disk that dies."""

    def __iter__(self) -> Breaking:
        return self

    def __next__(self) -> os.DirEntry[str]:
        raise OSError(errno.EIO, "Input/output error")

    def close(self) -> None:
        """Nothing is open."""


class Quiet:
    """Watches that are never used up and meddle with nothing."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, path: bytes) -> int:
        self.count += 1
        return self.count


@pytest.mark.parametrize("kernel", ["present", "before 5.6"])
def test_no_symlink_on_the_way_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """Whether openat2(2) walks the path, or the scan does, name by name."""
    if kernel != "present":
        monkeypatch.setattr(beneath, "_SYS_OPENAT2", 100_000)
    (tmp_path / "tree/a/b/c").mkdir(parents=True)
    (tmp_path / "secret/deep/x").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "secret")
    scan = scanner(tmp_path / "tree", Gathered())
    for path in (b"a/b", b"link/deep"):
        folder, name = path.split(b"/")
        scan.agenda.begin(Task(len(folder), 0, name, path, Rule(unknown=True, whole=True)))
    assert scan.step(60.0)
    assert [row[3] for row in scan.found.directories] == [b"b", b"c"]
    assert scan.found.suspects == {len(b"link")}
    assert scan.ground.look(b"a/b/c") is not None
    assert scan.ground.look(b"link/deep") is None
