"""The Journal of one Shard as its Watcher writes it: the only connection that ever writes one.

Nothing here waits on a Node or on the sync process. Positions are handed out
here: growing, never reused, in each Epoch beginning at the wall clock's
microseconds at the least, so that a Journal which was rolled back or replaced
never hides new Changes behind an old Cursor.
"""

from __future__ import annotations

import contextlib
import enum
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.failpoints import Point, reach
from shardsync.journal.database import (
    JOURNAL_VERSION,
    Transaction,
    connect_reader,
    connect_writer,
    is_damage,
    is_sound,
    is_wholly_sound,
    unusable,
)
from shardsync.journal.progress import PROGRESS_COLUMNS, Progress, read_progress
from shardsync.journal.recent import journaled_since
from shardsync.model import EpochReason, JournalId, ShardId

Row = tuple[bytes, int, int, int, bytes | None]
"""(path, Scope, Kind, observed_at, moved_from): a Change before it has a Position."""

DirectoryRow = tuple[int, int, int, bytes]
"""(number of the sub-root, inode, inode of the parent, name)."""

_PRUNE_ROWS = 50_000
_CLOSE_WAIT_MS = 500
"""For readers in the midst of a read, before what they need stays in the WAL."""

_INSERT = (
    "INSERT INTO changes (position, path, scope, kind, observed_at, moved_from)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_PUT_DIRECTORY = "INSERT OR REPLACE INTO dirs (sub_root, inode, parent, name) VALUES (?, ?, ?, ?)"
_DROP_DIRECTORY = "DELETE FROM dirs WHERE sub_root = ? AND inode = ?"
_SETTABLE = frozenset(PROGRESS_COLUMNS) - {
    "last_position", "changes_total", "pruned_to", "pruned_until_us",
}  # fmt: skip


class Opened(enum.Enum):
    """What `JournalWriter.open` found."""

    EXISTING = "existing"
    MADE = "made"
    """There was no file: a new Journal, which Nodes answer with a reconcile."""
    REPLACED = "replaced"
    """The file was corrupt and set aside: as MADE."""


class JournalWriter:
    """The write side of one Journal. Hold the Journal's flock before opening it.

    Every method raises StateUnusable where SQLite or the disk refuses; nothing
    is then half done, and the same call may be made again.
    """

    def __init__(
        self, *, path: Path, connection: sqlite3.Connection, clock: Clock, opened: Opened
    ) -> None:
        self.path = path
        self.opened = opened
        self._connection = connection
        self._clock = clock
        self._inode = os.stat(path).st_ino
        row = connection.execute("SELECT journal_id FROM meta").fetchone()
        self.journal_id = JournalId(row[0])
        self._last_position = read_progress(connection).last_position

    @classmethod
    def create(
        cls, path: Path, *, shard: ShardId, tree: str, journal_id: JournalId, clock: Clock
    ) -> JournalWriter:
        """Make a new, empty Journal of a given id. Raises StateUnusable (also where it exists)."""
        if path.exists():
            raise StateUnusable(f"journal {path}: exists already")
        return cls._make(path, shard, tree, journal_id, clock, Opened.MADE)

    @classmethod
    def open(cls, path: Path, *, shard: ShardId, tree: str, clock: Clock) -> JournalWriter:
        """Open the Journal, or make one with a random id where it is missing or corrupt.

        A corrupt file is kept under another name (`.corrupt-<Unix time>`).
        Raises StateUnusable where the disk refuses.
        """
        if not path.exists():
            return cls._make(path, shard, tree, new_journal_id(), clock, Opened.MADE)
        try:
            connection = connect_writer(path, version=JOURNAL_VERSION)
            if not _is_sound(connection, path):
                connection.close()
                raise sqlite3.DatabaseError("quick_check or meta says it is damaged")
            return cls(path=path, connection=connection, clock=clock, opened=Opened.EXISTING)
        except sqlite3.Error as error:
            if not _is_corruption(error):
                raise unusable("journal", path, error) from error
            set_aside(path, clock)
            return cls._make(path, shard, tree, new_journal_id(), clock, Opened.REPLACED)
        except OSError as error:
            raise unusable("journal", path, error) from error

    @classmethod
    def _make(
        cls,
        path: Path,
        shard: ShardId,
        tree: str,
        journal_id: JournalId,
        clock: Clock,
        opened: Opened,
    ) -> JournalWriter:
        """Crash safety: made under another name and renamed, so a Journal always has its id."""
        beside = path.with_name(path.name + ".new")
        try:
            _remove_database(beside)
            _remove_side_files(path)
            connection = connect_writer(beside, version=JOURNAL_VERSION)
            connection.execute(
                "INSERT INTO meta (journal_id, shard, tree, created_at) VALUES (?, ?, ?, ?)",
                (journal_id, shard, tree, clock.wall_us()),
            )
            connection.close()
            reach(Point.JOURNAL_MADE)
            os.rename(beside, path)
            connection = connect_writer(path, version=JOURNAL_VERSION)
            return cls(path=path, connection=connection, clock=clock, opened=opened)
        except (sqlite3.Error, OSError) as error:
            raise unusable("journal", path, error) from error

    @property
    def last_position(self) -> int:
        """The Position of the newest Change, or of the newest Epoch's start less one."""
        return self._last_position

    def progress(self) -> Progress:
        """The progress row as last committed."""
        try:
            return read_progress(self._connection)
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error

    def begin_epoch(self, reason: EpochReason) -> int:
        """End the open Epoch, if any, and start the next. Returns its first Position."""
        now = self._clock.wall_us()
        first = max(self._last_position + 1, now)
        with self._transaction() as execute:
            execute("UPDATE epochs SET ended_at = ? WHERE ended_at IS NULL", (now,))
            execute(
                "INSERT INTO epochs (reason, started_at, first_position) VALUES (?, ?, ?)",
                (reason.value, now, first),
            )
            execute("UPDATE progress SET last_position = ?, clean_stop = 0", (first - 1,))
            reach(Point.JOURNAL_EPOCH)
        reach(Point.JOURNAL_EPOCH_BEGUN)
        self._last_position = first - 1
        return first

    def end_epoch(self) -> None:
        """End the open Epoch: a clean stop. Idempotent."""
        with self._transaction() as execute:
            execute(
                "UPDATE epochs SET ended_at = ? WHERE ended_at IS NULL", (self._clock.wall_us(),)
            )

    def commit(
        self,
        rows: Sequence[Row] = (),
        *,
        progress: dict[str, object] | None = None,
        directories: Iterable[DirectoryRow] = (),
        directories_gone: Iterable[tuple[int, int]] = (),
        cookies: Iterable[str] = (),
    ) -> int:
        """Append Changes and record progress, all in one transaction; returns the last Position.

        `progress`: columns of Progress to set (not the Positions and totals,
        which are kept here). `cookies`: names of flush cookies read before
        these rows, acknowledged at the last Position.

        Crash safety: all of it is on disk or none; a crash before the commit
        leaves the Watermark where it was, so a scan finds the Changes again.
        """
        position = self._last_position
        first = position + 1
        with self._transaction() as execute:
            if rows:
                # 420,000 rows a second; a list of tuples costs less than a generator here.
                self._connection.executemany(
                    _INSERT, [(first + number, *row) for number, row in enumerate(rows)]
                )
                position += len(rows)
                execute(
                    "INSERT INTO commits (position, at) VALUES (?, ?)",
                    (position, self._clock.wall_us()),
                )
            self._connection.executemany(_DROP_DIRECTORY, directories_gone)
            self._connection.executemany(_PUT_DIRECTORY, directories)
            self._set_progress(progress or {}, position=position, added=len(rows))
            now = self._clock.wall_us()
            self._connection.executemany(
                "INSERT OR REPLACE INTO cookies (name, position, seen_at) VALUES (?, ?, ?)",
                ((name, position, now) for name in cookies),
            )
            reach(Point.JOURNAL_COMMIT if rows else Point.JOURNAL_WATERMARK)
        if rows:
            reach(Point.JOURNAL_COMMITTED)
        self._last_position = position
        return position

    def epoch_started_at(self) -> int:
        """When the newest Epoch began, Unix microseconds; 0 where there was none."""
        try:
            row = self._connection.execute("SELECT max(started_at) FROM epochs").fetchone()
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error
        return int(row[0] or 0)

    def directory(self, sub_root: int, inode: int) -> tuple[int, bytes] | None:
        """(inode of the parent, name) under which a directory was last seen, or None."""
        try:
            row: tuple[int, bytes] | None = self._connection.execute(
                "SELECT parent, name FROM dirs WHERE sub_root = ? AND inode = ?",
                (sub_root, inode),
            ).fetchone()
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error
        return row

    def directories(self, *, after: tuple[int, int], limit: int) -> list[DirectoryRow]:
        """At most `limit` of the directories remembered, in order, after a (sub-root, inode)."""
        try:
            return self._connection.execute(
                "SELECT sub_root, inode, parent, name FROM dirs WHERE (sub_root, inode) > (?, ?)"
                " ORDER BY sub_root, inode LIMIT ?",
                (*after, limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error

    def every_directory(self) -> Iterator[DirectoryRow]:
        """All that is remembered of directories, as it is read."""
        try:
            yield from self._connection.execute("SELECT sub_root, inode, parent, name FROM dirs")
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error

    def sub_root(self, path: bytes, identity: str) -> int:
        """The number of the sub-root at `path`; a new number where its identity has changed."""
        try:
            row = self._connection.execute(
                "SELECT number, identity FROM sub_roots WHERE path = ?", (path,)
            ).fetchone()
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error
        if row is not None and row[1] == identity:
            return int(row[0])
        with self._transaction() as execute:
            if row is not None:
                execute("DELETE FROM dirs WHERE sub_root = ?", (row[0],))
                execute("DELETE FROM sub_roots WHERE number = ?", (row[0],))
            execute("INSERT INTO sub_roots (path, identity) VALUES (?, ?)", (path, identity))
            number = self._connection.execute("SELECT last_insert_rowid()").fetchone()[0]
        return int(number)

    def journaled_since(self, since_us: int, *, watermark_us: int) -> dict[bytes, int]:
        """Path -> up to which ctime its changes are journaled, by Changes since `since_us`."""
        try:
            return journaled_since(
                self._connection,
                since_us,
                watermark_us=watermark_us,
                now_us=self._clock.wall_us(),
            )
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error

    def prune(self, *, before_us: int, max_bytes: int) -> int:
        """Drop Changes observed before `before_us`, and the oldest beyond `max_bytes`.

        Works in slices so that a commit of new Changes never waits long; call
        it again while it returns more than 0. Raises `pruned_to` in the same
        transaction: a Cursor below it is behind the retention.
        """
        limit = self._prune_limit(before_us, max_bytes)
        if limit is None:
            return 0
        with self._transaction() as execute:
            execute(
                "UPDATE progress SET pruned_until_us = max(pruned_until_us, coalesce("
                "(SELECT max(observed_at) FROM changes WHERE position <= ?), 0))",
                (limit,),
            )
            execute("DELETE FROM commits WHERE position <= ?", (limit,))
            execute("DELETE FROM changes WHERE position <= ?", (limit,))
            dropped = int(self._connection.execute("SELECT changes()").fetchone()[0])
            execute("UPDATE progress SET pruned_to = max(pruned_to, ?)", (limit,))
            execute("DELETE FROM cookies WHERE seen_at < ?", (before_us,))
            execute("DELETE FROM epochs WHERE ended_at IS NOT NULL AND ended_at < ?", (before_us,))
            reach(Point.JOURNAL_PRUNE)
        reach(Point.JOURNAL_PRUNED)
        return dropped

    def is_empty(self) -> bool:
        """Whether it holds no Change: none came, or all are pruned."""
        try:
            row = self._connection.execute("SELECT EXISTS (SELECT 1 FROM changes)").fetchone()
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error
        return not row[0]

    def size_bytes(self) -> int:
        """Bytes in use inside the database file (freed pages not counted)."""
        try:
            pages, free, size = (
                self._connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error
        return int((pages - free) * size)

    def is_in_place(self) -> bool:
        """Whether the file under the connection is still the one at the path.

        SQLite goes on committing happily into a file that was unlinked.
        """
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Checkpoint and close. Idempotent."""
        with contextlib.suppress(sqlite3.Error):
            # SQLite itself leaves it to the last that closes, and readers cannot: what is
            # retired would keep a WAL of up to 32 MB for as long as it is kept itself.
            self._connection.execute(f"PRAGMA busy_timeout = {_CLOSE_WAIT_MS}")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def set_aside(self) -> None:
        """Close it, and keep what is on the disk under another name. Idempotent."""
        self.close()
        try:
            set_aside(self.path, self._clock)
        except OSError as error:
            raise unusable("journal", self.path, error) from error

    def is_sound(self) -> bool:
        """Whether a look at all of it, as it is on the disk, finds no damage."""
        try:
            with contextlib.closing(connect_reader(self.path)) as fresh:  # without our cache
                return is_wholly_sound(fresh)
        except sqlite3.Error as error:
            return not is_damage(error)

    def _prune_limit(self, before_us: int, max_bytes: int) -> int | None:
        try:
            oldest = self._connection.execute(
                "SELECT position, observed_at FROM changes ORDER BY position LIMIT ?",
                (_PRUNE_ROWS,),
            )
            over = self.size_bytes() > max_bytes
            limit = None
            for position, observed_at in oldest:
                if not over and observed_at >= before_us:
                    break
                limit = position
        except sqlite3.Error as error:
            raise unusable("journal", self.path, error) from error
        return limit

    def _set_progress(self, values: dict[str, object], *, position: int, added: int) -> None:
        unknown = values.keys() - _SETTABLE
        if unknown:
            raise ValueError(f"not to be set from outside: {sorted(unknown)}")
        assignments = "".join(f", {name} = ?" for name in values)
        self._connection.execute(
            "UPDATE progress SET last_position = ?, changes_total = changes_total + ?"  # noqa: S608 (names checked above)
            + assignments,
            (position, added, *values.values()),
        )

    def _transaction(self) -> Transaction:
        return Transaction(self._connection, name="journal", path=self.path)


def new_journal_id() -> JournalId:
    """A random id for a new Journal."""
    return JournalId(secrets.token_hex(16))


def set_aside(path: Path, clock: Clock) -> Path:
    """Rename a damaged database and its side files; returns the new name. Raises OSError."""
    stamp = clock.wall_us() // 1_000_000
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    for suffix in ("-wal", "-shm", ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            os.rename(source, aside.with_name(aside.name + suffix))
    return aside


def _is_sound(connection: sqlite3.Connection, path: Path) -> bool:
    if connection.execute("SELECT count(*) FROM meta").fetchone()[0] != 1:
        return False
    return bool(read_progress(connection).clean_stop) or is_sound(connection, path)


def _is_corruption(error: sqlite3.Error) -> bool:
    # No code: the error is our own word that a check failed.
    return getattr(error, "sqlite_errorcode", None) is None or is_damage(error)


def _remove_side_files(path: Path) -> None:
    """A -wal left by a deleted Journal must not be played into a new one."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _remove_database(path: Path) -> None:
    _remove_side_files(path)
    path.unlink(missing_ok=True)
