"""File systems mounted and unmounted below the root, while a Watcher follows or is down."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardsync.config.patterns import PathFilter
from shardsync.watch.polling import POLL_SECONDS
from tests.support.watching import Watching, planned

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount"),
]


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A tmpfs (or what `options` say) at `place`, gone at the end if it is not before."""
    subprocess.run(["mount", *(options or ("-t", "tmpfs", "none")), place], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL, timeout=30)


def umount(place: Path, *options: str) -> None:
    subprocess.run(["umount", *options, place], check=True, timeout=30)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """A tree with the mount point `m/p`, which holds `below/old`."""
    watching = Watching(tmp_path)
    (watching.root / "m/p/below").mkdir(parents=True)
    (watching.root / "m/p/below/old").write_text("old")
    (watching.root / "a/deep").mkdir(parents=True)
    time.sleep(0.15)
    watching.start()
    watching.seen()
    yield watching
    watching.close()


def poll_now(watching: Watching) -> None:
    assert watching.watcher is not None
    watching.watcher._polling.last = -POLL_SECONDS


def test_what_is_mounted_is_journaled_and_watched(watching: Watching) -> None:
    """No event tells of a mount; mountinfo does, and what it holds is followed from then on."""
    point = watching.root / "m/p"
    with mounted(point):
        (point / "x").mkdir()
        (point / "x/f").write_text("f")
        assert ("tree", b"m/p") in watching.seen()
        (point / "x/g").write_text("g")
        assert watching.seen() == {("entry", b"m/p/x/g")}
        assert watching.watcher is not None
        watching.watcher._last_look = -1.0
        watching.quiet()
        # Those of what it covers are given back.
        assert len(watching.watcher._ledger._table) == 6


def test_a_mount_at_an_odd_name_is_followed(watching: Watching) -> None:
    """The kernel escapes in its table what separates its fields, and no carriage return."""
    name = "p \r\rq\x0b"
    point = watching.root / "m" / name
    point.mkdir()
    assert watching.paths() == {os.fsencode(f"m/{name}")}
    with mounted(point):
        assert ("tree", os.fsencode(f"m/{name}")) in watching.seen()
        (point / "g").write_text("g")
        assert watching.seen() == {("entry", os.fsencode(f"m/{name}/g"))}


def test_a_mount_is_known_before_a_flush_that_came_after_it(watching: Watching) -> None:
    """The flush is acknowledged at a Position that is not below the mount's Change."""
    with mounted(watching.root / "m/p"):
        watching.touch("flush-1")
        watching.quiet()
        told = [c.position for c in watching.changes() if c.path == b"m/p"]
        assert told
        assert watching.cookies()["flush-1"] >= told[0]


@pytest.mark.parametrize("options", [(), ("-l",)])
def test_what_lay_below_a_mount_is_watched_again_when_it_goes(
    watching: Watching, options: tuple[str, ...]
) -> None:
    """By a plain umount, and by a lazy one of a busy file system, which gives no event."""
    point = watching.root / "m/p"
    with mounted(point):
        (point / "x").mkdir()
        watching.seen()
        held = os.open(point / "x", os.O_RDONLY) if options else None
        umount(point, *options)
        assert ("tree", b"m/p") in watching.seen()
        (point / "below/new").write_text("n")
        assert watching.seen() == {("entry", b"m/p/below/new")}
        if held is not None:
            os.close(held)
    watching.quiet()
    assert watching.progress().watches == 6


def test_a_mount_over_another_is_noticed(watching: Watching) -> None:
    """The same place, the same kind of file system, the same inode numbers: another mount."""
    point = watching.root / "m/p"
    with mounted(point):
        (point / "x").mkdir()
        watching.seen()
        with mounted(point):
            (point / "x").mkdir()
            assert ("tree", b"m/p") in watching.seen()
            (point / "x/f").write_text("f")
            assert watching.seen() == {("entry", b"m/p/x/f")}
        assert ("tree", b"m/p") in watching.seen()


def test_a_mount_in_the_middle_of_a_scan_is_answered_after_it(watching: Watching) -> None:
    """The scan may have passed the place before it was mounted over."""
    for number in range(3000):
        (watching.root / f"many/{number}").mkdir(parents=True)
    watching.quiet()
    watching.stop()
    watching.begin()
    watching.tick(0)
    with mounted(watching.root / "m/p"):
        watching.touch("flush-1")
        watching.quiet()
        told = [c.position for c in watching.changes() if c.path == b"m/p"]
        assert told
        assert watching.cookies()["flush-1"] >= told[0]
        (watching.root / "m/p/f").write_text("f")
        assert watching.seen() == {("entry", b"m/p/f")}


@pytest.mark.parametrize("end", [Watching.stop, Watching.drop])
def test_what_was_mounted_or_unmounted_while_down_is_found(
    watching: Watching, end: Callable[[Watching], object], tmp_path: Path
) -> None:
    """A bind mount brings a directory with old times: ctime tells nothing, mountinfo does."""
    other = tmp_path / "other/x"
    other.mkdir(parents=True)
    (other / "f").write_text("f")
    point = watching.root / "m/p"
    time.sleep(0.2)
    end(watching)
    with mounted(point, "--bind", str(other.parent)):
        watching.start()
        assert ("tree", b"m/p") in {(c.scope.name.lower(), c.path) for c in watching.changes()}
        (point / "x/g").write_text("g")
        assert watching.seen() == {("entry", b"m/p/x/g")}
        end(watching)
        watching.start()
        assert ("tree", b"m/p") not in {(c.scope.name.lower(), c.path) for c in watching.changes()}
        end(watching)
        umount(point)
        watching.start()
        assert ("tree", b"m/p") in {(c.scope.name.lower(), c.path) for c in watching.changes()}
        (point / "below/new").write_text("n")
        assert watching.seen() == {("entry", b"m/p/below/new")}


def test_a_bind_mount_of_a_directory_of_the_tree_is_polled(watching: Watching) -> None:
    """Both places share one watch: the real one keeps it, the other is looked at each minute."""
    real, point = watching.root / "a", watching.root / "m/p"
    with mounted(point, "--bind", str(real)):
        assert ("tree", b"m/p") in watching.seen()
        (real / "deep/f").write_text("f")
        assert watching.seen() == {("entry", b"a/deep/f")}
        watching.touch("flush-1")
        assert b"m/p/deep/f" in watching.paths()
        assert "flush-1" in watching.cookies()
        assert watching.progress().polled_directories == 2
        (point / "deep/g").write_text("g")
        poll_now(watching)
        assert {b"a/deep/g", b"m/p/deep/g"} <= watching.paths()
        watching.stop()
        (point / "deep/h").write_text("h")
        watching.start()
        assert {b"a/deep/h", b"m/p/deep/h"} <= {c.path for c in watching.changes()}
    assert ("tree", b"m/p") in watching.seen()
    assert watching.progress().polled_directories == 0
    (point / "below/new").write_text("n")
    (real / "deep/i").write_text("i")
    assert watching.seen() == {("entry", b"m/p/below/new"), ("entry", b"a/deep/i")}


@pytest.mark.parametrize("point", ["m", "m/p"])
def test_a_mount_at_an_excluded_directory_is_no_business_of_ours(
    point: str, tmp_path: Path
) -> None:
    """Neither is one below it."""
    watching = Watching(tmp_path, excluded=PathFilter.compile(exclude=["/m/"]))
    (watching.root / "m/p").mkdir(parents=True)
    watching.start()
    watching.seen()
    with mounted(watching.root / point):
        (watching.root / point / "f").write_text("f")
        assert watching.seen() == set()
        assert watching.watcher is not None
        assert len(watching.watcher._ledger._table) == 1
    assert watching.seen() == set()
    watching.close()


def test_a_mount_belongs_to_the_shard_that_owns_the_place(tmp_path: Path) -> None:
    """The other one is not disturbed; a mount above a prefix carries the prefix away."""
    all_, deep = planned(0, (b"",)), planned(1, (b"m/p", b"a/deep"))
    whole = Watching(tmp_path, shard=all_, others=(deep,))
    part = Watching(tmp_path, shard=deep, others=(all_,))
    for name in ("m/p", "a/deep", "a/b"):
        (whole.root / name).mkdir(parents=True)
    time.sleep(0.15)
    whole.start()
    part.start()
    with mounted(whole.root / "m/p"):
        (whole.root / "m/p/f").write_text("f")
        assert ("tree", b"m/p") in part.seen()
        assert whole.seen() == set()
        (whole.root / "m/p/g").write_text("g")
        assert part.seen() == {("entry", b"m/p/g")}
    part.seen()
    with mounted(whole.root / "a"):
        (whole.root / "a/deep").mkdir()
        assert ("tree", b"a") in whole.seen()
        assert ("tree", b"a/deep") in part.seen()
        (whole.root / "a/deep/f").write_text("f")
        (whole.root / "a/f").write_text("f")
        assert part.seen() == {("entry", b"a/deep/f")}
        assert whole.seen() == {("entry", b"a/f")}
    whole.close()
    part.close()


def test_a_directory_that_went_is_forgotten_though_its_number_lives_below_a_mount(
    tmp_path: Path,
) -> None:
    """Inodes repeat across file systems. Remembered, it would come back as one that never left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    watching = Watching(disk)
    with mounted(disk), mounted_below(watching.root / "m"):
        (watching.root / "x/deep").mkdir(parents=True)
        number = (watching.root / "x").stat().st_ino
        for each in range(2 * number):
            (watching.root / "m" / str(each)).mkdir()
        assert number in {entry.stat().st_ino for entry in (watching.root / "m").iterdir()}
        time.sleep(0.15)
        for move in (("tree/x", "x"), ("x", "tree/x")):
            watching.start()
            assert watching.stop()
            watching.changes()
            os.rename(disk / move[0], disk / move[1])
        watching.start()
        assert ("TREE", b"x") in {(c.scope.name, c.path) for c in watching.changes()}
        watching.close()


@contextmanager
def mounted_below(point: Path) -> Iterator[None]:
    point.mkdir(parents=True)
    with mounted(point):
        yield
