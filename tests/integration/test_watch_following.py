"""A Watcher on a real tree: what changes while it follows is in its Journal."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.config.patterns import PathFilter
from shardsync.model import Change, Kind
from tests.support.clock import ShiftedClock
from tests.support.watching import Watching

_PUNCH_HOLE_KEEP_SIZE = 3


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """Following a tree that holds the directory `a/b` and the file `a/b/old`."""
    watching = Watching(tmp_path)
    (watching.root / "a/b").mkdir(parents=True)
    (watching.root / "a/b/old").write_text("old")
    (tmp_path / "outside").mkdir()
    time.sleep(0.15)
    watching.start()
    yield watching
    watching.close()


def test_a_first_start_journals_nothing_that_was_there(watching: Watching) -> None:
    """The bootstrap of the Nodes covers the tree as it is."""
    assert watching.changes() == []


def test_a_written_file_is_journaled(watching: Watching) -> None:
    """Create, write, close: one Change of the path alone."""
    (watching.root / "a/new").write_text("x")
    assert watching.seen() == {("entry", b"a/new")}


@pytest.mark.fault("fresh-directories")
def test_what_happens_in_fresh_directories_is_journaled(watching: Watching) -> None:
    """A mkdir -p and a file deep below, all before the first event is read; then one more."""
    (watching.root / "x/y/z").mkdir(parents=True)
    (watching.root / "x/y/z/f").write_text("x")
    assert watching.paths() == {b"x", b"x/y", b"x/y/z", b"x/y/z/f"}
    (watching.root / "x/y/z/g").write_text("x")
    assert watching.seen() == {("entry", b"x/y/z/g")}


@pytest.mark.fault("removed-made-again")
def test_a_subtree_removed_and_made_again_is_watched_again(watching: Watching) -> None:
    """The old watches end, the directories of the same names get new ones."""
    shutil.rmtree(watching.root / "a")
    (watching.root / "a/b").mkdir(parents=True)
    assert {b"a", b"a/b", b"a/b/old"} <= watching.paths()
    (watching.root / "a/b/new").write_text("x")
    assert watching.seen() == {("entry", b"a/b/new")}


def test_a_directory_is_not_lost_when_one_above_it_is_renamed_before_its_own_event_is_read(
    watching: Watching,
) -> None:
    """`mv a/b a/c; mv a d`: when the second comes between the two looks at the first, `a/c` is
    not where it should be; it is found again below `d`, and what happens in it is journaled.
    """
    os.rename(watching.root / "a/b", watching.root / "a/c")
    watching.seen()
    assert watching.watcher is not None
    territory = watching.watcher._territory
    moved = territory._watches.add(os.fsencode(watching.root / "a/c"))
    os.rename(watching.root / "a", watching.root / "d")
    territory.directory_moved(moved)
    watching.seen()
    (watching.root / "d/c/new").write_text("x")
    assert watching.seen() == {("entry", b"d/c/new")}


@pytest.mark.fault("attributes")
def test_attributes_alone_are_told_from_content(watching: Watching) -> None:
    """A chmod need not send the bytes again."""
    (watching.root / "a/b/old").chmod(0o600)
    watching.quiet()
    assert [(c.path, c.kind) for c in watching.changes()] == [(b"a/b/old", Kind.ATTRIBUTES)]


@pytest.mark.fault("odd-names")
def test_names_of_any_bytes_are_journaled(watching: Watching) -> None:
    """Bytes in, the same bytes out: not UTF-8, control characters, leading dashes."""
    names = [b"\xff\xfe", b"a\nb", b"-rf", b"#a", b"\x1b[31m", b" ", b"n" * 255]
    for name in names:
        with open(os.fsencode(watching.root) + b"/a/" + name, "wb"):
            pass
    assert watching.paths() == {b"a/" + name for name in names}


def test_a_renamed_file_is_journaled_under_both_names(watching: Watching) -> None:
    """The old name to be found gone, the new one with a hint where it came from."""
    os.rename(watching.root / "a/b/old", watching.root / "a/new")
    watching.quiet()
    assert {(c.path, c.moved_from) for c in watching.changes()} == {
        (b"a/b/old", None),
        (b"a/new", b"a/b/old"),
    }


def test_a_directory_renamed_within_is_followed(watching: Watching) -> None:
    """Both names as `tree`; what changes below afterwards carries the new path."""
    os.rename(watching.root / "a", watching.root / "c")
    watching.quiet()
    assert {(c.scope.name, c.path, c.moved_from) for c in watching.changes()} == {
        ("TREE", b"a", None),
        ("TREE", b"c", b"a"),
    }
    (watching.root / "c/b/new").write_text("x")
    assert watching.seen() == {("entry", b"c/b/new")}


@pytest.mark.fault("renamed-twice")
def test_a_directory_renamed_twice_at_once_is_followed(watching: Watching) -> None:
    """Both renames are in the queue before the first is read; so is a write between them."""
    os.rename(watching.root / "a", watching.root / "b1")
    (watching.root / "b1/b/between").write_text("x")
    os.rename(watching.root / "b1", watching.root / "b2")
    assert ("tree", b"b2") in watching.seen()
    (watching.root / "b2/b/after").write_text("x")
    assert watching.seen() == {("entry", b"b2/b/after")}


def test_a_directory_made_below_one_that_is_renamed_at_once_is_watched(
    watching: Watching,
) -> None:
    """At the time its CREATE is read, its path leads nowhere, or elsewhere."""
    (watching.root / "a/fresh").mkdir()
    os.rename(watching.root / "a", watching.root / "c")
    (watching.root / "a/fresh").mkdir(parents=True)
    watching.seen()
    (watching.root / "c/fresh/f").write_text("x")
    (watching.root / "a/fresh/g").write_text("x")
    assert watching.paths() == {b"c/fresh/f", b"a/fresh/g"}


@pytest.mark.fault("names-swapped")
def test_two_directories_that_swap_names_are_told_apart(watching: Watching) -> None:
    """Three renames in one read; afterwards each path is that of the right inode."""
    (watching.root / "o/d").mkdir(parents=True)
    watching.seen()
    os.rename(watching.root / "a", watching.root / "t")
    os.rename(watching.root / "o", watching.root / "a")
    os.rename(watching.root / "t", watching.root / "o")
    watching.seen()
    (watching.root / "a/d/f").write_text("x")
    (watching.root / "o/b/g").write_text("x")
    assert watching.paths() == {b"a/d/f", b"o/b/g"}


def test_a_directory_moved_in_is_journaled_whole_and_watched(watching: Watching) -> None:
    """Its files are old; `tree` covers them, and what is written from then on is seen."""
    outside = watching.folder / "outside/d/e"
    outside.mkdir(parents=True)
    (outside / "f").write_text("x")
    os.rename(watching.folder / "outside/d", watching.root / "d")
    assert ("tree", b"d") in watching.seen()
    (watching.root / "d/e/g").write_text("x")
    assert watching.seen() == {("entry", b"d/e/g")}


@pytest.mark.fault("moved-out")
def test_a_directory_moved_out_is_journaled_once_and_watched_no_more(watching: Watching) -> None:
    """Gone at the old path; what happens to it outside is nobody's business."""
    os.rename(watching.root / "a", watching.folder / "outside/a")
    assert watching.seen() == {("tree", b"a")}
    (watching.folder / "outside/a/b/f").write_text("x")
    (watching.folder / "outside/a/b/new").mkdir()
    assert watching.seen() == set()
    time.sleep(1.1)
    watching.quiet()
    assert watching.watcher is not None
    assert len(watching.watcher._ledger._table) == 1


def test_a_directory_moved_out_and_back_is_whole(watching: Watching) -> None:
    """Directories made in it outside are watched once it is back."""
    os.rename(watching.root / "a", watching.folder / "outside/a")
    watching.seen()
    (watching.folder / "outside/a/new").mkdir()
    watching.seen()
    os.rename(watching.folder / "outside/a", watching.root / "back")
    assert ("tree", b"back") in watching.seen()
    (watching.root / "back/new/f").write_text("x")
    (watching.root / "back/b/g").write_text("x")
    assert watching.paths() == {b"back/new/f", b"back/b/g"}


def test_symlinks_and_fifos_are_journaled_at_once(watching: Watching) -> None:
    """They never see a CLOSE_WRITE."""
    (watching.root / "a/link").symlink_to("b")
    os.mkfifo(watching.root / "a/fifo")
    watching.tick()
    assert {change.path for change in watching.changes()} == {b"a/link", b"a/fifo"}


@pytest.mark.fault("linked-in")
def test_a_hard_link_is_journaled_at_once(watching: Watching) -> None:
    """It is complete as it comes, and no close will tell. Its other names are the Syncer's."""
    os.link(watching.root / "a/b/old", watching.root / "a/second")
    watching.tick()
    assert {change.path for change in watching.changes()} == {b"a/second"}


@pytest.mark.fault("linked-in")
def test_a_file_linked_in_without_a_name_is_journaled(watching: Watching) -> None:
    """O_TMPFILE and linkat(2): a CREATE and nothing else."""
    descriptor = os.open(watching.root / "a", os.O_TMPFILE | os.O_RDWR)
    os.write(descriptor, b"x")
    folder = os.open(watching.root / "a", os.O_PATH)
    # With a src_dir_fd Python calls linkat(2), which alone follows the link in /proc.
    os.link(
        f"/proc/self/fd/{descriptor}", "tmpfile", src_dir_fd=folder, dst_dir_fd=folder,
        follow_symlinks=True,
    )  # fmt: skip
    os.close(folder)
    os.close(descriptor)
    assert watching.paths() == {b"a/tmpfile"}


@pytest.mark.fault("truncated")
def test_a_hole_that_is_punched_is_journaled(watching: Watching) -> None:
    """fallocate(2) by somebody who does not close the file: a MODIFY and nothing else."""
    with (watching.root / "a/b/old").open("r+b") as file:
        file.truncate(8192)
    watching.seen()
    with (watching.root / "a/b/old").open("r+b") as file:
        hole = ctypes.c_long(0), ctypes.c_long(4096)
        assert ctypes.CDLL(None).fallocate(file.fileno(), _PUNCH_HOLE_KEEP_SIZE, *hole) == 0
        watching.touch("flush-1")
        assert watching.seen() == {("entry", b"a/b/old")}


@pytest.mark.fault("truncated")
def test_a_truncated_file_is_journaled(watching: Watching) -> None:
    """truncate(2) by path: a MODIFY and nothing else."""
    os.truncate(watching.root / "a/b/old", 1)
    assert watching.paths() == {b"a/b/old"}


def test_a_file_held_open_waits_for_its_close(watching: Watching) -> None:
    """Half a file is not worth sending, until `max_open` has passed."""
    with (watching.root / "a/open").open("w") as stream:
        stream.write("x")
        stream.flush()
        assert watching.seen() == set()
        time.sleep(0.15)
        assert watching.seen() == set()
    assert watching.paths() == {b"a/open"}


@pytest.mark.fault("held-open")
def test_a_file_held_open_for_long_is_journaled_meanwhile(tmp_path: Path) -> None:
    """A log that is never closed reaches the Nodes after `max_open`."""
    watching = Watching(tmp_path, max_open_seconds=0.3).start()
    with (watching.root / "log").open("w") as stream:
        stream.write("x")
        stream.flush()
        deadline = time.monotonic() + 20
        while not watching.changes():
            watching.tick()
            assert time.monotonic() < deadline
        stream.write("y")
        stream.flush()
        while not watching.changes():
            watching.tick()
            assert time.monotonic() < deadline
    watching.close()


def test_a_flush_is_answered_after_all_that_came_before(watching: Watching) -> None:
    """At its Position all is journaled, files open for writing included."""
    with (watching.root / "a/open").open("w") as stream:
        stream.write("x")
        stream.flush()
        (watching.root / "x/y").mkdir(parents=True)
        (watching.root / "x/y/f").write_text("x")
        watching.touch("flush-1")
        watching.quiet()
        position = watching.cookies()["flush-1"]
        before = {c.path for c in watching.changes() if c.position <= position}
        assert before == {b"a/open", b"x", b"x/y", b"x/y/f"}


def test_asked_how_far_it_is_a_watcher_commits_its_watermark(watching: Watching) -> None:
    """At once, and though the cookie that asked is gone by the time its event is read."""
    asked_us = watching.clock.wall_us()
    watching.quiet()
    before = watching.progress().watermark_us
    assert before is not None
    assert before < asked_us
    cookie = watching.state.progress_cookie("main")
    cookie.touch()
    cookie.unlink()
    watching.quiet()
    after = watching.progress().watermark_us
    assert after is not None
    assert after >= asked_us


def test_what_is_excluded_is_neither_journaled_nor_watched(tmp_path: Path) -> None:
    """Not its files, not its directories, and never as the origin of a rename."""
    watching = Watching(tmp_path, excluded=PathFilter.compile(exclude=["*.tmp", "cache/"]))
    (watching.root / "cache/x").mkdir(parents=True)
    watching.start()
    watching.changes()
    (watching.root / "cache/x/f").write_text("x")
    (watching.root / "a.tmp").write_text("x")
    assert watching.seen() == set()
    os.rename(watching.root / "a.tmp", watching.root / "a")
    watching.quiet()
    assert [(c.path, c.moved_from) for c in watching.changes()] == [(b"a", None)]
    assert watching.progress().watches == 1
    watching.close()


def test_the_time_of_a_directory_with_an_excluded_entry_is_journaled(tmp_path: Path) -> None:
    """Once it rests, or with a flush or a stop, and whether or not the entry is held open; not
    where something beside it is told of anyway, nor where the excluded file was only written.
    """
    clock = ShiftedClock()
    watching = Watching(tmp_path, excluded=PathFilter.compile(exclude=["*.tmp"]), clock=clock)
    for folder in ("rests", "held", "renamed", "written", "flushed", "stopped"):
        (watching.root / folder).mkdir(parents=True)
    (watching.root / "written/a.tmp").touch()
    clock.ahead_us = 60_000_000
    watching.start()
    watching.changes()
    (watching.root / "written/a.tmp").write_text("x")
    (watching.root / "top.tmp").touch()
    assert watching.seen() == set()
    clock.ahead_us = 0
    (watching.root / "rests/a.tmp").touch()
    (watching.root / "renamed/a.tmp").touch()
    held = (watching.root / "held/a.tmp").open("w")
    assert watching.seen() == set()
    os.rename(watching.root / "renamed/a.tmp", watching.root / "renamed/a")
    assert watching.seen() == {("entry", b"renamed/a")}
    deadline = time.monotonic() + 10
    told: list[Change] = []
    while len(told) < 2 and time.monotonic() < deadline:
        watching.tick()
        told += watching.changes()
    assert {(change.path, change.kind) for change in told} == {
        (b"rests", Kind.ATTRIBUTES),
        (b"held", Kind.ATTRIBUTES),
    }
    (watching.root / "flushed/a.tmp").touch()
    watching.touch("flush-1")
    assert watching.seen() == {("entry", b"flushed")}
    (watching.root / "stopped/a.tmp").touch()
    assert watching.stop()
    assert [change.path for change in watching.changes()] == [b"stopped"]
    held.close()


def test_a_directory_renamed_out_of_an_exclusion_is_journaled_whole(tmp_path: Path) -> None:
    """It was never watched, so it counts as moved in; the way back ends its watches."""
    watching = Watching(tmp_path, excluded=PathFilter.compile(exclude=["*.tmp"]))
    (watching.root / "d.tmp/e").mkdir(parents=True)
    (watching.root / "d.tmp/e/f").write_text("x")
    watching.start()
    os.rename(watching.root / "d.tmp", watching.root / "d")
    assert ("tree", b"d") in watching.seen()
    (watching.root / "d/e/g").write_text("x")
    assert watching.paths() == {b"d/e/g"}
    os.rename(watching.root / "d", watching.root / "d.tmp")
    assert watching.seen() == {("tree", b"d")}
    (watching.root / "d.tmp/e/h").write_text("x")
    assert watching.seen() == set()
    watching.close()
