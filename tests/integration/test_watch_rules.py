"""The rules of the Watermark: from when on a catch-up looks, and when times tell nothing.

Each test fails without its rule.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.model import JournalId, ShardState
from shardsync.watch import assemble, catching_up, ledger, watcher
from tests.support.clock import ShiftedClock
from tests.support.descriptors import descriptors_left
from tests.support.watching import Watching, planned

HOUR_US = 3_600_000_000


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """A tree of a few old directories and files, not watched yet."""
    watching = Watching(tmp_path, clock=ShiftedClock())
    for name in ("a/b", "c/d"):
        (watching.root / name).mkdir(parents=True)
        (watching.root / name / "old").write_text("old")
        (watching.root / name / "other").write_text("other")
    (tmp_path / "outside").mkdir()
    time.sleep(0.15)
    yield watching
    watching.close()


@pytest.fixture
def slow_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little in each tick, so that a test can come between."""
    monkeypatch.setattr(catching_up, "_STEP_SECONDS", 0.001)


def set_clock(watching: Watching, ahead_us: int) -> None:
    assert isinstance(watching.clock, ShiftedClock)
    watching.clock.ahead_us = ahead_us


def found(watching: Watching) -> set[tuple[str, bytes]]:
    """(scope, path) journaled since the last call, without waiting."""
    return {(c.scope.name.lower(), c.path) for c in watching.changes()}


def commit_now(watching: Watching) -> None:
    """A heartbeat, and the commit that goes with it."""
    assert watching.watcher is not None
    watching.watcher._last_heartbeat = -1000.0
    watching.tick()
    watching.quiet()


def edit_progress(watching: Watching, assignment: str) -> None:
    """Meddle with the Journal of a Watcher that is down."""
    connection = sqlite3.connect(watching.state.journal(watching.shard.id))
    with connection:
        connection.execute(f"UPDATE progress SET {assignment}")  # noqa: S608 (a test's own words)
    connection.close()


def watermark(watching: Watching) -> int:
    found = watching.progress().watermark_us
    assert found is not None
    return found


# What a catch-up finds.


def test_files_replaced_with_old_times_while_down_are_found(watching: Watching) -> None:
    """By `cp -p` over the file and by `mv` of another onto it: only ctime tells."""
    for name in ("one", "two"):
        path = watching.folder / "outside" / name
        path.write_text("OLD")
        os.utime(path, (1, 1))
    watching.start()
    watching.stop()
    watching.changes()
    time.sleep(0.02)
    shutil.copy2(watching.folder / "outside/one", watching.root / "a/b/old")
    os.rename(watching.folder / "outside/two", watching.root / "c/d/old")
    watching.start()
    assert {("entry", b"a/b/old"), ("entry", b"c/d/old")} <= found(watching)


def test_hard_links_made_while_down_are_found_under_both_names(watching: Watching) -> None:
    """The new name, and the old one, whose file has one more."""
    watching.start()
    watching.stop()
    watching.changes()
    os.link(watching.root / "a/b/old", watching.root / "c/link")
    watching.start()
    assert found(watching) == {
        ("entry", b"a/b/old"), ("entry", b"c/link"), ("entry", b"c"), ("listing", b"c"),
    }  # fmt: skip


def test_a_write_that_overlapped_the_watermark_is_found(watching: Watching) -> None:
    """A write of gigabytes has its ctime at its start: before the Watermark, by its length."""
    watching.start()
    watching.changes()
    watching.drop()
    (watching.root / "a/b/old").write_text("x")
    changed = (watching.root / "a/b/old").stat().st_ctime_ns // 1000
    edit_progress(watching, f"watermark_us = {changed + 400_000}")
    time.sleep(0.6)
    watching.start()
    assert ("entry", b"a/b/old") in found(watching)


# Up to where the Watermark goes.


def test_the_watermark_never_passes_a_file_that_is_still_written(watching: Watching) -> None:
    """Killed then, the next start must find what is in it."""
    watching.start()
    before = watching.clock.wall_us()
    with (watching.root / "a/b/long").open("w") as stream:
        stream.write("half")
        stream.flush()
        for _ in range(30):
            watching.tick()
        commit_now_pending(watching)
        assert watermark(watching) <= before + 500_000
        assert watching.changes() == []
        opened_at = before + 500_000
    watching.quiet()
    commit_now(watching)
    assert watermark(watching) > opened_at


@pytest.mark.fault("recovery-killed")
@pytest.mark.parametrize("ticks", [0, 2])
def test_a_start_that_is_killed_leaves_the_watermark_where_it_was(
    watching: Watching, slow_scan: None, monkeypatch: pytest.MonkeyPatch, ticks: int
) -> None:
    """Before its scan or within it: what changed while nobody watched is found by the next."""
    monkeypatch.setattr(catching_up, "MARGIN_US", 0)
    for number in range(2000):
        (watching.root / f"many/{number}").mkdir(parents=True)
    watching.start()
    watching.stop()
    watching.changes()
    (watching.root / "a/b/old").write_text("x")
    time.sleep(0.2)
    watcher = watching.begin()
    for _ in range(ticks):
        watching.tick(0)
        watcher._committing._last = -1000.0
    assert watching.progress().state is ShardState.SCANNING
    watching.drop()
    watching.start()
    assert ("entry", b"a/b/old") in found(watching)


@pytest.mark.fault("descriptors-short")
def test_the_watermark_never_passes_what_cannot_be_entered_for_a_while(
    watching: Watching,
) -> None:
    """Killed then, or stopped, the next start must look at what changed in it."""
    watching.start()
    with descriptors_left(0):
        (watching.root / "new/deep").mkdir(parents=True)
        for _ in range(10):
            watching.tick(0)
    before = watching.clock.wall_us()
    time.sleep(0.02)
    watching.quiet()
    commit_now(watching)
    assert watermark(watching) <= before
    assert not watching.stop()
    assert watermark(watching) <= before
    watching.start()
    commit_now(watching)
    assert watermark(watching) > before


def test_what_the_retention_no_longer_wants_goes_slice_upon_slice(watching: Watching) -> None:
    """Faster than a busy Tree changes: not one slice a minute."""
    watching.start()
    assert watching.watcher is not None
    journal = watching.watcher._ledger.journal
    journal.commit([(b"%d" % number, 1, 1, 1, None) for number in range(120_000)])
    watching.watcher._last_prune = -1000.0
    deadline = watching.clock.monotonic() + 20
    while watching.progress().pruned_to < journal.last_position:
        watching.tick()
        assert watching.clock.monotonic() < deadline


def commit_now_pending(watching: Watching) -> None:
    """As commit_now, where the Watcher does not come to rest."""
    assert watching.watcher is not None
    time.sleep(0.6)
    watching.watcher._last_heartbeat = -1000.0
    for _ in range(5):
        watching.tick()


def test_the_watermark_never_passes_half_a_move(watching: Watching) -> None:
    """Until the other half came, or is given up."""
    watching.start()
    assert watching.watcher is not None
    commit_now(watching)
    os.rename(watching.root / "a/b/old", watching.folder / "outside/gone")
    watching.tick()
    (departure,) = watching.watcher._fold.unpaired.values()
    time.sleep(0.3)
    watching.watcher._last_heartbeat = -1000.0
    watching.tick()
    watching.tick()
    assert watermark(watching) <= departure.stamp[1]
    time.sleep(1.0)
    watching.quiet()
    commit_now(watching)
    assert watermark(watching) > departure.stamp[1]


def test_the_heartbeat_moves_the_watermark_of_a_queue_that_is_never_empty(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it in the queue was read: the Watermark is when it was touched."""
    watching.start()
    commit_now(watching)
    monkeypatch.setattr(watcher, "emptied_the_queue", lambda buffer: False)
    time.sleep(0.2)
    assert watching.watcher is not None
    start = watermark(watching)
    watching.watcher._last_heartbeat = -1000.0
    touched = watching.clock.wall_us()
    for number in range(5):
        (watching.root / f"a/b/{number}").write_text("x")
        time.sleep(0.06)
        watching.tick(0)
    assert start < touched - 100_000 <= watermark(watching) <= watching.clock.wall_us()


# Times that tell nothing.


def restarted(watching: Watching) -> set[tuple[str, bytes]]:
    watching.start()
    return found(watching)


def test_a_clock_set_back_leads_to_a_comparison(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """A Watermark of the future: nothing has a ctime after it. Compared, with a warning."""
    set_clock(watching, HOUR_US)
    watching.start()
    watching.drop()
    watching.changes()
    set_clock(watching, 0)
    with caplog.at_level(logging.WARNING):
        assert ("tree", b"") in restarted(watching)
    assert 'tree.compared shard=main-00 why="the clock was set back"' in caplog.text
    assert watermark(watching) <= watching.clock.wall_us()


@pytest.mark.fault("clock-set")
def test_a_clock_that_jumped_while_down_leads_to_a_comparison(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """Wall clock less boot time is not what it was; a clean stop does not help."""
    set_clock(watching, -HOUR_US)
    watching.start()
    assert watching.stop()
    watching.changes()
    set_clock(watching, 0)
    with caplog.at_level(logging.WARNING):
        assert ("tree", b"") in restarted(watching)
    assert 'tree.compared shard=main-00 why="the clock was set"' in caplog.text
    watching.stop()
    assert ("tree", b"") not in restarted(watching)


@pytest.mark.fault("clock-set")
def test_the_watermark_follows_a_clock_set_back_at_once(
    watching: Watching, slow_scan: None
) -> None:
    """Even in the middle of a scan: what changes next has a ctime before the old Watermark."""
    for number in range(2000):
        (watching.root / f"many/{number}").mkdir(parents=True)
    set_clock(watching, HOUR_US)
    watching.begin()
    watching.tick(0)
    set_clock(watching, 0)
    assert watching.watcher is not None
    watching.watcher._last_heartbeat = -1000.0
    watching.tick(0)
    assert watching.progress().state is ShardState.SCANNING
    assert watermark(watching) <= watching.clock.wall_us()
    watching.quiet()
    commit_now(watching)
    assert watching.clock.wall_us() - 5_000_000 < watermark(watching) <= watching.clock.wall_us()


@pytest.mark.fault("clock-set")
def test_events_lost_while_the_clock_was_set_lead_to_a_comparison(watching: Watching) -> None:
    """The gap has ctimes by two clocks, so the catch-up alone would miss some."""
    set_clock(watching, HOUR_US)
    watching.start()
    commit_now(watching)
    watching.changes()
    assert watching.watcher is not None
    set_clock(watching, 0)
    watching.watcher._fold.overflowed = True
    watching.quiet()
    assert ("tree", b"") in found(watching)
    watching.watcher._fold.overflowed = True
    watching.quiet()
    assert ("tree", b"") not in found(watching)


@pytest.mark.fault("power-cut")
def test_a_boot_without_a_clean_stop_leads_to_a_comparison(
    watching: Watching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power went: the tree may have rolled back. After a clean stop nothing of the kind."""
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(assemble, "_BOOT_ID", str(boot))
    boot.write_text("first")
    watching.start()
    watching.drop()
    watching.changes()
    boot.write_text("second")
    assert ("tree", b"") in restarted(watching)
    assert watching.stop()
    watching.changes()
    boot.write_text("third")
    assert ("tree", b"") not in restarted(watching)


def test_a_comparison_is_not_forgotten_while_the_root_is_missing(
    watching: Watching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounted late after a power cut: the Watcher waits for the root, then all is compared."""
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(assemble, "_BOOT_ID", str(boot))
    boot.write_text("first")
    watching.start()
    watching.drop()
    watching.changes()
    boot.write_text("second")
    os.rename(watching.root, watching.folder / "away")
    watching.begin()
    watching.tick()
    assert watching.progress().state is ShardState.HALTED
    os.rename(watching.folder / "away", watching.root)
    deadline = time.monotonic() + 30
    while watching.progress().state is not ShardState.FOLLOWING:
        watching.tick(0.1)
        assert time.monotonic() < deadline
    assert ("tree", b"") in found(watching)


def test_a_lost_watermark_leads_to_a_comparison(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """The Nodes know the Journal and wait for no reconcile: it has to come from here."""
    watching.start()
    watching.drop()
    watching.changes()
    edit_progress(watching, "watermark_us = NULL")
    (watching.root / "a/b/old").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert ("tree", b"") in restarted(watching)
    assert 'tree.compared shard=main-00 why="the Watermark was lost"' in caplog.text


def test_a_lost_journal_is_made_anew_under_another_id(watching: Watching) -> None:
    """Which the Nodes answer by a reconcile; the Epoch says why."""
    watching.start()
    watching.stop()
    journal = watching.state.journal(watching.shard.id)
    known = sqlite3.connect(journal).execute("SELECT journal_id FROM meta").fetchone()[0]
    journal.unlink()
    watching.shard = replace(watching.shard, journal_id=JournalId(known))
    watching._after = 0
    watching.start()
    assert watching.epochs() == ["journal_lost"]
    connection = sqlite3.connect(journal)
    assert connection.execute("SELECT journal_id FROM meta").fetchone()[0] != known
    connection.close()


# Overflows.


def test_overflows_in_a_row_start_one_more_pass(
    watching: Watching, slow_scan: None, caplog: pytest.LogCaptureFixture
) -> None:
    """However many while one pass runs: one Epoch, and one more pass from where this one began."""
    for number in range(2000):
        (watching.root / f"many/{number}").mkdir(parents=True)
    watching.start()
    watching.changes()
    (watching.root / "many/7/before").write_text("x")
    assert watching.watcher is not None
    fold = watching.watcher._fold
    with caplog.at_level(logging.INFO):
        fold.overflowed = True
        watching.tick(0)
        pass_began = watching.watcher._catching_up._pass_started_us
        for _ in range(3):
            fold.overflowed = True
            watching.tick(0)
        assert watching.watcher._catching_up._again_since_us == pass_began
        watching.quiet()
    assert caplog.text.count("scan.done") == 2
    assert caplog.text.count("queue.overflowed") == 4
    assert watching.epochs() == ["first_start", "overflow"]
    assert watching.progress().overflows == 4
    assert ("entry", b"many/7/before") in found(watching)


def lose_events(watching: Watching) -> None:
    """What was queued is gone, as after an overflow."""
    assert watching.watcher is not None
    watching.watcher._inotify.read()
    watching.watcher._fold.overflowed = True


def test_what_left_the_tree_during_a_gap_is_watched_no_more(watching: Watching) -> None:
    """Its watches would tell of it under the path that it had."""
    watching.start()
    os.rename(watching.root / "a", watching.folder / "outside/a")
    lose_events(watching)
    watching.quiet()
    watching.changes()
    (watching.folder / "outside/a/b/f").write_text("x")
    assert watching.seen() == set()
    assert watching.watcher is not None
    assert len(watching.watcher._ledger._table) == 3


def test_what_was_renamed_during_a_gap_is_told_under_its_new_path(
    watching: Watching, slow_scan: None
) -> None:
    """Events that come before the scan does have a watch whose old path lies."""
    for number in range(500):
        (watching.root / f"many/{number}").mkdir(parents=True)
    watching.start()
    os.rename(watching.root / "a", watching.root / "z")
    lose_events(watching)
    watching.tick(0)
    (watching.root / "z/b/new/er").mkdir(parents=True)
    (watching.root / "z/b/new/er/f").write_text("x")
    (watching.root / "z/b/old").write_text("x")
    watching.quiet()
    seen = {c.path for c in watching.changes()}
    assert not any(path.startswith(b"a/") for path in seen)
    assert {b"z", b"z/b/old"} <= seen
    (watching.root / "z/b/new/er/g").write_text("x")
    assert watching.seen() == {("entry", b"z/b/new/er/g")}


# A disk that is full.


@pytest.mark.fault("state-full")
def test_what_a_full_disk_refuses_for_long_is_scanned_for_again(
    watching: Watching, slow_scan: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound the rows are let go of; the Watermark stays, and a catch-up finds them."""
    monkeypatch.setattr(ledger, "KEPT_ROWS", 50)
    watching.start()
    commit_now(watching)
    watching.changes()
    stayed = watermark(watching)
    assert watching.watcher is not None
    connection = watching.watcher._ledger.journal._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    for burst in range(4):
        for number in range(40):
            (watching.root / f"a/b/{'n' * 200}{burst}-{number}").write_text("x")
        connection.execute(f"PRAGMA max_page_count={pages}")
        watching.watcher._committing._last = -1000.0
        watching.tick()
        watching.tick()
    kept = watching.watcher._ledger
    assert troubled(watching)
    assert kept.must_rescan
    assert len(kept._rows) <= 50 + 40
    assert watermark(watching) == stayed
    connection.execute("PRAGMA max_page_count=1000000")
    deadline = time.monotonic() + 30
    while troubled(watching):
        watching.tick(0.1)
        assert time.monotonic() < deadline
    assert watermark(watching) == stayed  # killed now, the next one would look from there
    watching.quiet()
    names = {b"a/b/" + b"n" * 200 + b"%d-%d" % (b, n) for b in range(4) for n in range(40)}
    assert names <= {c.path for c in watching.changes()}
    assert set(watching.epochs()) == {"first_start", "crash"}
    commit_now(watching)
    assert watermark(watching) > stayed


def troubled(watching: Watching) -> bool:
    assert watching.watcher is not None
    return watching.watcher._ledger.is_troubled


# How far a pass is.


def test_a_pass_tells_how_far_it_is_and_how_far_it_goes(
    watching: Watching, slow_scan: None
) -> None:
    """By the directories of last time, or of the Plan; also after one that was cut off."""
    for number in range(3000):
        (watching.root / f"many/{number}").mkdir(parents=True)
    watching.shard = planned(directories=2500)
    watching.begin()
    watching.tick(0)
    assert watching.watcher is not None
    watching.watcher._committing._last = -1000.0
    watching.tick(0)
    progress = watching.progress()
    assert progress.state is ShardState.SCANNING
    assert progress.scan_total == 2500
    assert 0 < progress.scan_done < 2500
    watching.quiet()
    assert watching.progress().scan_done == watching.progress().scan_total == 3006
    assert watching.stop()
    for _ in range(2):
        watching.begin()
        watching.tick(0)
        watching.watcher._committing._last = -1000.0
        watching.tick(0)
        assert watching.progress().scan_total == 3006
        first = watching.progress().scan_done
        assert 0 < first < 3006
        watching.tick(0)
        watching.watcher._committing._last = -1000.0  # a second later
        watching.tick(0)
        assert first < watching.progress().scan_done < 3006
        watching.drop()
