"""The Journal on real SQLite: what is committed is read, in order, by others, and survives."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from shardsync.errors import StateUnusable
from shardsync.journal.reader import JournalReader
from shardsync.journal.writer import JournalWriter, Opened, Row
from shardsync.model import Change, EpochReason, JournalId, Kind, Scope, ShardId, ShardState
from tests.support.clock import FakeClock

SHARD = ShardId("main-00")
START = 1_700_000_000_000_000


def _row(path: bytes, at: int = START) -> Row:
    return (path, Scope.ENTRY, Kind.CONTENT, at, None)


def _new(folder: Path, clock: FakeClock) -> JournalWriter:
    return JournalWriter.create(
        folder / "journal-main-00.db",
        shard=SHARD,
        tree="main",
        journal_id=JournalId("abc"),
        clock=clock,
    )


def test_changes_are_read_by_others_as_committed(tmp_path: Path) -> None:
    """A commit is seen by a read-only reader at once, names of any bytes included."""
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"a\xff\n"), (b"new", Scope.TREE, Kind.CONTENT, START + 1, b"old")])
    reader = JournalReader(writer.path)
    assert reader.journal_id() == "abc"
    assert reader.read(after=0, limit=10) == [
        Change(
            position=START,
            path=b"a\xff\n",
            scope=Scope.ENTRY,
            kind=Kind.CONTENT,
            observed_at=START,
        ),
        Change(
            position=START + 1,
            path=b"new",
            scope=Scope.TREE,
            kind=Kind.CONTENT,
            observed_at=START + 1,
            moved_from=b"old",
        ),
    ]
    assert reader.count(after=START) == 1
    assert reader.position_before(START + 1) == START
    writer.close()


def test_positions_never_come_again_after_pruning_everything(tmp_path: Path) -> None:
    """A pruned Journal goes on where it was: no Cursor can skip a Change by a reused Position."""
    clock = FakeClock()
    writer = _new(tmp_path, clock)
    writer.begin_epoch(EpochReason.FIRST_START)
    last = writer.commit([_row(b"a"), _row(b"b")])
    assert writer.prune(before_us=START + 1, max_bytes=1 << 40) == 2
    assert writer.progress().pruned_to == last
    writer.close()
    writer = JournalWriter.open(writer.path, shard=SHARD, tree="main", clock=clock)
    assert writer.opened is Opened.EXISTING
    assert writer.commit([_row(b"c")]) == last + 1
    writer.close()


@pytest.mark.fault("power-cut")
def test_an_epoch_starts_at_the_wall_clock(tmp_path: Path) -> None:
    """A Journal rolled back to an old copy hands out Positions beyond every old Cursor."""
    clock = FakeClock()
    writer = _new(tmp_path, clock)
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"a")])
    clock.advance(10)
    assert writer.begin_epoch(EpochReason.RESTART) == START + 10_000_000
    assert writer.commit([_row(b"b")]) == START + 10_000_000
    clock.set_wall(5)
    assert writer.begin_epoch(EpochReason.CLOCK_JUMP) == START + 10_000_001
    assert [epoch.reason for epoch in JournalReader(writer.path).epochs()] == [
        EpochReason.FIRST_START,
        EpochReason.RESTART,
        EpochReason.CLOCK_JUMP,
    ]
    writer.close()


def test_progress_and_cookies_are_committed_with_the_changes(tmp_path: Path) -> None:
    """Watermark, directories and acknowledged cookies come with the rows, or not at all."""
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    last = writer.commit(
        [_row(b"a")],
        progress={"watermark_us": 42, "state": ShardState.FOLLOWING.value},
        directories=[(0, 11, 1, b"d")],
        cookies=["flush-1"],
    )
    assert writer.directory(0, 11) == (1, b"d")
    writer.commit(directories_gone=[(0, 11)])
    assert writer.directory(0, 11) is None
    reader = JournalReader(writer.path)
    assert reader.progress().watermark_us == 42
    assert reader.progress().state is ShardState.FOLLOWING
    assert reader.progress().changes_total == 1
    assert reader.cookie("flush-1") == last
    assert reader.cookie("flush-2") is None
    with pytest.raises(sqlite3.Error):
        sqlite3.connect(f"file:{writer.path}?mode=ro", uri=True).execute("DELETE FROM changes")
    writer.close()


def test_a_failed_commit_leaves_nothing_behind(tmp_path: Path) -> None:
    """All of a commit or none: the next one takes the same Positions."""
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    with pytest.raises(StateUnusable, match="journal-main-00"):
        writer.commit(
            [_row(b"a"), (b"b", Scope.ENTRY, Kind.CONTENT, "no number", None)],  # type: ignore[list-item]
            progress={"watermark_us": START},
            directories=[(1, 2, 3, b"d")],
        )
    assert JournalReader(writer.path).read(after=0, limit=9) == []
    assert writer.progress().watermark_us is None  # or what is lost would never be looked for
    assert writer.directory(1, 2) is None
    assert writer.commit([_row(b"c")]) == START
    writer.close()


@pytest.mark.fault("journal-corrupt")
def test_a_corrupt_journal_is_set_aside_never_deleted(tmp_path: Path) -> None:
    """Damage leads to a new Journal with another id; the old file stays for the curious."""
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.close()
    content = writer.path.read_bytes()
    writer.path.write_bytes(b"garbage!" * (len(content) // 8))
    writer = JournalWriter.open(writer.path, shard=SHARD, tree="main", clock=FakeClock())
    assert writer.opened is Opened.REPLACED
    assert writer.journal_id != "abc"
    aside = tmp_path / "journal-main-00.db.corrupt-1700000000"
    assert aside.read_bytes()[:8] == b"garbage!"
    writer.close()


@pytest.mark.fault("journal-corrupt")
def test_damage_that_no_write_would_meet_is_found_at_the_start(tmp_path: Path) -> None:
    """SQLite writes on behind a damaged page; a reader would meet it one day."""
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"%d" % number * 40) for number in range(5000)])
    writer.close()
    with writer.path.open("r+b") as file:
        file.seek(4096 * 40)
        file.write(os.urandom(4096))
    writer = JournalWriter.open(writer.path, shard=SHARD, tree="main", clock=FakeClock())
    assert writer.opened is Opened.REPLACED
    writer.close()


def test_a_journal_deleted_under_its_writer_is_noticed(tmp_path: Path) -> None:
    """SQLite commits on into an unlinked file; the inode tells."""
    writer = _new(tmp_path, FakeClock())
    assert writer.is_in_place()
    os.unlink(writer.path)
    assert not writer.is_in_place()
    writer.close()
    with pytest.raises(StateUnusable, match="No such file"):
        JournalReader(writer.path).journal_id()


def test_a_disk_that_fails_in_a_read_is_told_and_read_again(tmp_path: Path) -> None:
    """In its own words, though SQLite ended the transaction by itself; and none is left open."""
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"%060d" % number) for number in range(1_000)])
    writer.close()
    reader = JournalReader(writer.path)
    span, rows = reader.stretch(after=0, limit=1)
    assert (span.last_position, len(rows)) == (START + 999, 1)
    (descriptor,) = _open_as(writer.path)
    saved, deaf = os.dup(descriptor), os.open(writer.path, os.O_WRONLY)
    # SQLite's own descriptor, behind its back: this one cannot be read from.
    os.dup2(deaf, descriptor, inheritable=False)
    for _ in range(2):
        with pytest.raises(StateUnusable, match="disk I/O error"):
            reader.stretch(after=0, limit=1_000)
    os.dup2(saved, descriptor, inheritable=False)
    assert len(reader.stretch(after=0, limit=1_000)[1]) == 1_000
    reader.close()
    os.close(saved)
    os.close(deaf)


def _open_as(path: Path) -> list[int]:
    """The descriptors of this process that are open on the file."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == str(path):
                found.append(int(name))
    return found


def test_size_bounds_prune_the_oldest_first(tmp_path: Path) -> None:
    """Beyond its size the Journal drops its oldest slice and says how far."""
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"%060d" % number) for number in range(120_000)])
    while writer.prune(before_us=0, max_bytes=4 * 1024**2):
        pass
    reader = JournalReader(writer.path)
    assert writer.size_bytes() <= 4 * 1024**2
    assert reader.count(after=0) == 20_000
    assert reader.progress().pruned_to == START + 100_000 - 1
    writer.close()


def test_what_is_closed_while_others_read_it_keeps_no_wal(tmp_path: Path) -> None:
    """All of it is in the database then, and readers go on; even one that stands still in the
    midst of a read keeps nobody from closing.
    """
    writer = _new(tmp_path, FakeClock())
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"%d" % number) for number in range(5_000)])
    wal = writer.path.with_name(writer.path.name + "-wal")
    reader = JournalReader(writer.path)
    assert reader.count(after=0) == 5_000
    assert wal.stat().st_size > 0
    writer.close()
    assert wal.stat().st_size == 0
    assert reader.count(after=0) == 5_000
    again = JournalWriter.open(writer.path, shard=SHARD, tree="main", clock=FakeClock())
    with contextlib.closing(sqlite3.connect(f"file:{writer.path}?mode=ro", uri=True)) as stuck:
        stuck.execute("BEGIN")
        stuck.execute("SELECT count(*) FROM changes").fetchone()
        again.commit([_row(b"one more")])
        again.close()
        again.close()
    assert reader.count(after=0) == 5_001
    reader.close()


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """An older program does not write what it does not know."""
    writer = _new(tmp_path, FakeClock())
    writer.close()
    connection = sqlite3.connect(writer.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateUnusable, match="newer shardsync"):
        JournalWriter.open(writer.path, shard=SHARD, tree="main", clock=FakeClock())


def test_a_change_of_an_ancestor_covers_a_path(tmp_path: Path) -> None:
    """The newest Change that bids to look at a path is found, whoever names it; and its commit."""
    clock = FakeClock()
    writer = _new(tmp_path, clock)
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"a/b/c"), (b"a", Scope.TREE, Kind.CONTENT, START + 1, None)])
    clock.advance(2)
    writer.commit([(b"a/b", Scope.LISTING, Kind.CONTENT, START + 2, None), _row(b"a", START + 3)])
    reader = JournalReader(writer.path)

    def newest(path: bytes) -> tuple[int, bytes] | None:
        found = reader.newest_covering(path)
        return (found.position, found.path) if found else None

    assert newest(b"a/b/c") == (START + 2, b"a/b")
    assert newest(b"a/b/c/d") == (START + 1, b"a")
    assert newest(b"a/b") == (START + 2, b"a/b")
    assert newest(b"a") == (START + 3, b"a")
    assert newest(b"x") is None
    assert newest(b"") is None
    assert reader.journaled_at(START) == START
    assert reader.journaled_at(START + 2) == START + 2_000_000
    assert reader.journaled_at(START + 9) is None
    writer.close()


def test_pruning_remembers_up_to_when_it_forgot(tmp_path: Path) -> None:
    """A replay from before the newest pruned Change can be refused."""
    clock = FakeClock()
    writer = _new(tmp_path, clock)
    writer.begin_epoch(EpochReason.FIRST_START)
    writer.commit([_row(b"a", START + 5), _row(b"b", START + 2)])
    writer.commit([_row(b"c", START + 90)])
    assert JournalReader(writer.path).progress().pruned_until_us == 0
    assert writer.prune(before_us=START + 10, max_bytes=1 << 40) == 2
    assert JournalReader(writer.path).progress().pruned_until_us == START + 5
    writer.close()
