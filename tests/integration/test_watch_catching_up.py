"""What a Watcher missed (stopped, killed, overflowed) is found by a scan, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.model import EpochReason, ShardState
from shardsync.watch.watcher import Watcher
from tests.support.queue import small_queue
from tests.support.watching import Watching, planned


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """A tree of a few old directories and files, not watched yet."""
    watching = Watching(tmp_path)
    for name in ("a/b", "c/d", "e"):
        (watching.root / name).mkdir(parents=True)
        (watching.root / name / "old").write_text("old")
    (tmp_path / "outside").mkdir()
    time.sleep(0.15)
    yield watching
    watching.close()


@pytest.fixture
def narrow(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Watcher's kernel queue is to hold 64 events."""
    begin = watching.begin

    def begin_with_a_small_queue() -> Watcher:
        with small_queue():
            return begin()

    monkeypatch.setattr(watching, "begin", begin_with_a_small_queue)


def test_a_restart_with_nothing_changed_journals_nothing(watching: Watching) -> None:
    """Not even what was written, made, renamed and removed right before the clean stop."""
    watching.start()
    (watching.root / "a/b/new").write_text("x")
    (watching.root / "n/m").mkdir(parents=True)
    (watching.root / "n/m/f").write_text("x")
    os.rename(watching.root / "e/old", watching.root / "e/renamed")
    (watching.root / "c/d/old").unlink()
    (watching.root / "c/d").chmod(0o700)
    assert watching.stop()
    watching.changes()
    watching.start()
    assert watching.changes() == []
    assert watching.epochs() == ["first_start", "restart"]


def test_a_stop_waits_for_what_is_told_a_moment_late(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal that asked for it wakes no tick any more: the last one has its time."""
    watching.wake_fd, write_fd = os.pipe()
    watcher = watching.start().watcher
    assert watcher is not None
    os.write(write_fd, b"x")
    poller, woken = watcher._poller, list[int]()

    class Recorded:
        unregister = poller.unregister

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            found = poller.poll(timeout)
            woken.extend(fd for fd, _ in found)
            return found

    monkeypatch.setattr(watcher, "_poller", Recorded())
    assert watching.stop()
    assert watching.wake_fd not in woken
    os.close(watching.wake_fd)
    os.close(write_fd)


def test_a_restart_finds_exactly_what_changed_meanwhile(watching: Watching) -> None:
    """Rewritten, deleted, renamed, moved in from outside with old times."""
    moved = watching.folder / "outside/m/n"
    moved.mkdir(parents=True)
    (moved / "f").write_text("x")
    os.utime(moved / "f", (1, 1))
    os.utime(moved, (1, 1))
    time.sleep(0.15)
    watching.start()
    assert watching.stop()
    watching.changes()
    (watching.root / "a/b/old").write_text("new")
    (watching.root / "c/d/old").unlink()
    os.rename(watching.root / "e", watching.root / "renamed")
    os.rename(watching.folder / "outside/m", watching.root / "a/m")
    watching.start()
    seen = watching.changes()
    assert {(c.scope.name, c.path, c.moved_from) for c in seen if c.scope.name == "TREE"} == {
        ("TREE", b"renamed", b"e"),
        ("TREE", b"e", None),
        ("TREE", b"a/m", None),
    }
    assert {c.path for c in seen if c.scope.name == "LISTING"} == {b"", b"a", b"c/d"}
    assert {c.path for c in seen if c.scope.name == "ENTRY"} == {
        b"a/b/old",
        # and the attributes of the directories that gained or lost an entry
        b"a",
        b"c/d",
    }


def test_what_may_have_gone_is_told_after_all_that_came(watching: Watching) -> None:
    """Else a renamed directory is deleted on the Nodes before they are told of its new name."""
    watching.start()
    assert watching.stop()
    watching.changes()
    os.rename(watching.root / "a/b", watching.root / "e/renamed")
    shutil.rmtree(watching.root / "c/d")
    watching.start()
    seen = [(c.scope.name, c.path) for c in watching.changes() if c.scope.name != "ENTRY"]
    assert seen[:2] == [("TREE", b"e/renamed"), ("TREE", b"a/b")]
    assert sorted(seen[2:]) == [
        ("LISTING", b"a"),
        ("LISTING", b"c"),
        ("LISTING", b"e"),
        ("TREE", b"c/d"),
    ]


def test_a_directory_that_went_while_down_is_journaled_whole(watching: Watching) -> None:
    """Another may be made in its place before that is shipped: it would inherit what was in it."""
    watching.start()
    assert watching.stop()
    watching.changes()
    shutil.rmtree(watching.root / "a")
    os.rename(watching.root / "c", watching.folder / "outside/c")
    os.rename(watching.root / "e", watching.root / "renamed")
    watching.start()
    gone = {c.path for c in watching.changes() if c.scope.name == "TREE"}
    assert gone == {b"a", b"c", b"e", b"renamed"}


def test_a_directory_replaced_before_a_catch_up_came_to_it_is_journaled_whole(
    watching: Watching,
) -> None:
    """No event told of what was in the old one; the new one may even have its inode number."""
    watching.start()
    assert watching.stop()
    watching.changes()
    watcher = watching.begin()
    table = watcher._ledger._table
    while not len(table):  # the root alone is watched yet
        watcher._catching_up._scanner.step(0.0)
    shutil.rmtree(watching.root / "a")
    (watching.root / "a").mkdir()
    watching.quiet()
    assert b"a" in {c.path for c in watching.changes() if c.scope.name == "TREE"}


def test_what_was_moved_in_is_watched_and_remembered(watching: Watching) -> None:
    """After the catch-up it is followed; the next restart knows it by its new place."""
    (watching.folder / "outside/m").mkdir()
    watching.start()
    watching.stop()
    os.rename(watching.folder / "outside/m", watching.root / "m")
    watching.start()
    watching.changes()
    (watching.root / "m/f").write_text("x")
    assert watching.seen() == {("entry", b"m/f")}
    watching.stop()
    os.rename(watching.root / "m", watching.root / "m2")
    watching.start()
    assert (b"m2", b"m") in {(c.path, c.moved_from) for c in watching.changes()}


def test_a_directory_renamed_while_following_is_remembered(watching: Watching) -> None:
    """The table of directories follows live renames, so a later gain of an entry is no `tree`."""
    watching.start()
    os.rename(watching.root / "a", watching.root / "a2")
    watching.quiet()
    watching.stop()
    watching.changes()
    (watching.root / "a2/new").write_text("x")
    watching.start()
    assert {(c.scope.name, c.path) for c in watching.changes()} == {
        ("LISTING", b"a2"),
        ("ENTRY", b"a2"),
        ("ENTRY", b"a2/new"),
    }


@pytest.mark.fault("watcher-killed")
def test_a_killed_watcher_loses_nothing(watching: Watching) -> None:
    """Events were queued and never read; the next start finds what they told."""
    watching.start()
    watching.changes()
    (watching.root / "a/b/unread").write_text("x")
    (watching.root / "e/old").unlink()
    watching.drop()
    (watching.root / "c/later").write_text("x")
    watching.start()
    changes = watching.changes()
    assert {b"a/b/unread", b"c/later"} <= {c.path for c in changes if c.scope.name == "ENTRY"}
    assert b"e" in {c.path for c in changes if c.scope.name == "LISTING"}
    assert watching.epochs() == ["first_start", "crash"]


@pytest.mark.fault("recovery-killed")
def test_a_watcher_killed_in_a_catch_up_loses_nothing(watching: Watching) -> None:
    """The Watermark is on disk before the scan, so what happens from then on is found."""
    watching.start()
    watching.stop()
    watching.begin()
    watching.drop()
    (watching.root / "a/b/meanwhile").write_text("x")
    time.sleep(0.2)
    watching.start()
    assert b"a/b/meanwhile" in {c.path for c in watching.changes()}


def test_a_shard_without_a_past_says_scanning_until_all_is_watched(watching: Watching) -> None:
    """Its first scan looks at no file, killed or not: Nodes are compared once it follows."""
    watching.begin()
    (watching.root / "a/b/early").write_text("x")
    assert (watching.progress().state, watching.progress().scanned) == (ShardState.SCANNING, False)
    watching.drop()
    watching.begin()
    assert (watching.progress().state, watching.progress().scanned) == (ShardState.SCANNING, False)
    watching.quiet()
    assert (watching.progress().state, watching.progress().scanned) == (ShardState.FOLLOWING, True)
    assert watching.remembered() == {b"", b"a", b"b", b"c", b"d", b"e"}


def test_files_of_one_directory_changed_while_scanning_are_found(watching: Watching) -> None:
    """Between the start and the scan's arrival nothing slips through."""
    watching.start()
    watching.stop()
    watching.begin()
    (watching.root / "a/b/early").write_text("x")
    (watching.root / "new/dir").mkdir(parents=True)
    (watching.root / "new/dir/f").write_text("x")
    watching.quiet()
    paths = {c.path for c in watching.changes()}
    assert b"a/b/early" in paths
    assert b"new/dir/f" in paths or b"new/dir" in paths or b"new" in paths
    (watching.root / "new/dir/g").write_text("x")
    assert b"new/dir/g" in watching.paths()


@pytest.mark.fault("queue-overflow")
@pytest.mark.root
def test_an_overflow_is_answered_by_a_catch_up(narrow: None, watching: Watching) -> None:
    """Creations, renames of directories and deletions that no event told are found."""
    watching.start()
    watching.changes()
    for number in range(100):
        (watching.root / f"a/b/{number}").write_text("x")
    os.rename(watching.root / "c", watching.root / "c2")
    shutil.rmtree(watching.root / "e")
    (watching.root / "n/m").mkdir(parents=True)
    (watching.root / "n/m/f").write_text("x")
    watching.quiet()
    changes = watching.changes()
    paths = {c.path for c in changes}
    assert {b"a/b/%d" % number for number in range(100)} <= paths
    assert b"c2" in {c.path for c in changes if c.scope.name == "TREE"}
    assert b"n" in {c.path for c in changes if c.scope.name == "TREE"}
    assert b"" in {c.path for c in changes if c.scope.name == "LISTING"}
    assert watching.epochs() == ["first_start", "overflow"]
    assert watching.progress().overflows == 1
    (watching.root / "c2/d/f").write_text("x")
    (watching.root / "n/m/g").write_text("x")
    assert watching.seen() == {("entry", b"c2/d/f"), ("entry", b"n/m/g")}


@pytest.mark.root
def test_overflows_while_catching_up_cost_one_more_pass(narrow: None, watching: Watching) -> None:
    """However many there are, they start one Epoch and lose nothing."""
    for number in range(300):
        (watching.root / f"many/{number}").mkdir(parents=True)
    time.sleep(0.15)
    watching.start()
    watching.changes()
    for burst in range(4):
        for number in range(100):
            (watching.root / f"many/{number}/{burst}").write_text("x")
        watching.tick()
    watching.quiet()
    assert {b"many/%d/%d" % (n, burst) for n in range(100) for burst in range(4)} <= {
        c.path for c in watching.changes()
    }
    assert watching.progress().watches == watching.progress().directories == 307


@pytest.mark.root
def test_a_flush_touched_during_a_gap_is_answered(narrow: None, watching: Watching) -> None:
    """Its event was lost with the others; after the scan the cookies are listed anew."""
    watching.start()
    for number in range(100):
        (watching.root / f"a/b/{number}").write_text("x")
    watching.touch("flush-lost")
    watching.quiet()
    watching.quiet()
    assert "flush-lost" in watching.cookies()


def test_a_flush_waits_for_an_open_scan(watching: Watching) -> None:
    """What came before it may lie in a directory that the scan has not come to."""
    for number in range(3000):
        (watching.root / f"many/{number}").mkdir(parents=True)
    watching.begin()
    watching.touch("flush-early")
    watching.tick(0)
    assert watching.progress().state is ShardState.SCANNING
    assert watching.cookies() == {}
    watching.quiet()
    assert list(watching.cookies()) == ["flush-early"]


def test_a_lost_root_halts_and_its_return_is_caught_up_with(watching: Watching) -> None:
    """Nothing below a missing root is journaled as gone; afterwards a new Epoch finds changes."""
    watching.start()
    watching.changes()
    os.rename(watching.root, watching.folder / "away")
    until(watching, ShardState.HALTED)
    assert watching.changes() == []
    (watching.folder / "away/a/b/meanwhile").write_text("x")
    os.rename(watching.folder / "away", watching.root)
    until(watching, ShardState.FOLLOWING)
    assert b"a/b/meanwhile" in watching.paths()
    assert watching.epochs() == ["first_start", "root_lost"]
    (watching.root / "c/new").write_text("x")
    assert watching.paths() == {b"c/new"}


@pytest.mark.root
def test_another_file_system_at_the_root_is_followed_once_accepted(watching: Watching) -> None:
    """An empty mount over the root halts; `resume --accept-root` makes it the root."""
    watching.start()
    watching.changes()
    subprocess.run(["mount", "-t", "tmpfs", "none", watching.root], check=True, timeout=30)
    try:
        until(watching, ShardState.HALTED)
        assert watching.changes() == []
        watching.touch(watching.state.accept_root("main").name)
        until(watching, ShardState.FOLLOWING)
        watching.seen()
        (watching.root / "new").write_text("x")
        assert watching.paths() == {b"new"}
    finally:
        watching.close()
        subprocess.run(["umount", watching.root], check=True, timeout=30)


def test_a_root_that_is_missing_at_the_start_is_waited_for(watching: Watching) -> None:
    """The Watcher stays up, halted, and begins when the root appears."""
    os.rename(watching.root, watching.folder / "away")
    os.symlink("nowhere", watching.root)
    watching.begin()
    until(watching, ShardState.HALTED)
    watching.root.unlink()
    os.rename(watching.folder / "away", watching.root)
    until(watching, ShardState.FOLLOWING)
    watching.seen()
    (watching.root / "a/f").write_text("x")
    assert watching.paths() == {b"a/f"}


@pytest.mark.fault("journal-unlinked")
def test_a_journal_deleted_under_its_writer_is_replaced(watching: Watching) -> None:
    """A new Journal with another id, which the Nodes answer by reconciling. A flush that was
    acknowledged in the old one, which nobody reads any more, is acknowledged anew.
    """
    watching.start()
    watching.state.journal(watching.shard.id).unlink()
    watching.touch("flush-1")
    watching.quiet()
    assert watching.watcher is not None
    watching.watcher._last_heartbeat = -1000.0
    watching._after = 0
    watching.quiet()
    assert watching.epochs() == [EpochReason.JOURNAL_LOST]
    assert watching.cookies().keys() == {"flush-1"}
    (watching.root / "a/f").write_text("x")
    assert watching.paths() == {b"a/f"}


@pytest.mark.fault("recovery-killed")
def test_a_watcher_killed_after_its_journal_was_replaced_scans_all_anew(
    watching: Watching,
) -> None:
    """What the first Journal remembered is not in the second: no Node is compared before."""
    watching.start()
    watching.state.journal(watching.shard.id).unlink()
    assert watching.watcher is not None
    watching.watcher._last_heartbeat = -1000.0
    watching.watcher._look_around(0.0)
    watching.watcher._ledger.commit(watching.watcher._committing._columns())
    assert (watching.progress().state, watching.progress().scanned) == (ShardState.SCANNING, False)
    watching.drop()
    watching.start()
    assert watching.progress().scanned
    assert watching.remembered() == {b"", b"a", b"b", b"c", b"d", b"e"}


def test_a_watcher_killed_while_it_forgets_has_not_caught_up(watching: Watching) -> None:
    """What went while it was down is forgotten before the Watermark passes: it may come back."""
    watching.start()
    watching.stop()
    away = watching.folder / "outside/away"
    os.rename(watching.root / "a/b", away)
    time.sleep(5.2)  # beyond the margin of a start after a kill
    watcher = watching.begin()
    while not watcher._forgetting.is_open:
        watching.tick()
    watching.drop()
    watching.start()
    watching.stop()
    watching.changes()
    os.rename(away, watching.root / "a/b")
    watching.start()
    assert ("tree", b"a/b") in watching.seen()


def test_a_prefix_that_was_away_and_is_back_is_sent_whole(tmp_path: Path) -> None:
    """The Nodes deleted all of it while it was away; nothing here remembers it either."""
    watching = Watching(tmp_path, shard=planned(1, (b"news",)), others=(planned(0),))
    (watching.root / "news/a/b").mkdir(parents=True)
    watching.start()
    watching.stop()
    os.rename(watching.root / "news", tmp_path / "away")
    watching.start()
    assert watching.remembered() == set()
    watching.stop()
    watching.changes()
    os.rename(tmp_path / "away", watching.root / "news")
    watching.start()
    assert ("tree", b"news") in watching.seen()
    watching.close()


def until(watching: Watching, state: ShardState) -> None:
    """Tick until the Watcher is in `state`."""
    assert watching.watcher is not None
    deadline = time.monotonic() + 30
    while watching.watcher.state is not state:
        watching.tick(0.1)
        assert time.monotonic() < deadline, watching.watcher.state
