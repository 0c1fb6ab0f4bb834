"""How the SQLite files are opened, migrated, read and written, whatever they hold.

Migrations are sqlite-utils'; `PRAGMA user_version` holds how many were
applied, so that a process which finds the newest number need not import them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardsync.errors import MadeByNewer, StateDamaged, StateUnusable
from shardsync.journal.schema import JOURNAL_1, STATE_1

if TYPE_CHECKING:
    from sqlite_utils import Database

_CHECKPOINT_PAGES = 8000
"""32 MB. A checkpoint waits for the disk; at SQLite's 1,000 pages a first scan spent a sixth of
its time in them."""

_QUICK_CHECK_BYTES = 256 * 1024**2
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

JOURNAL_VERSION = 1
STATE_VERSION = 1


def connect_writer(path: Path, *, version: int) -> sqlite3.Connection:
    """Open for writing, make or migrate the tables up to `version`. Raises sqlite3.Error.

    WAL with synchronous=NORMAL: a killed process loses nothing; power loss may
    lose the last commits, which the Watermark's scan finds again. Raises
    MadeByNewer where a newer shardsync made the file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        found = _known_version(connection, path, version)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        # SQLite keeps the size that a reader which stood still made it grow to.
        connection.execute(f"PRAGMA journal_size_limit = {4096 * _CHECKPOINT_PAGES}")
        if found < version:
            _migrate(connection, is_journal=path.name.startswith("journal-"))
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open read-only; never checkpoints. Raises sqlite3.Error (also where there is no file).

    One connection at a time may be checkpointing (SQLite before 3.51.3 can
    lose pages otherwise), and that one is the writer's.
    """
    quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(
        f"file:{quoted}?mode=ro", uri=True, isolation_level=None, timeout=10,
        check_same_thread=False,
    )  # fmt: skip
    try:
        connection.execute("PRAGMA query_only = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _known_version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > newest:
        raise MadeByNewer(
            f"{path}: made by a newer shardsync (schema {found}, this one knows {newest})"
        )
    return found


def _migrate(connection: sqlite3.Connection, *, is_journal: bool) -> None:
    # Imported here: 150 ms and 10 MB that only the first opening needs to pay.
    from sqlite_utils import Database  # noqa: PLC0415 (start-up cost, see above)
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415 (as above)

    migrations = Migrations("journal" if is_journal else "state")
    first = JOURNAL_1 if is_journal else STATE_1

    @migrations(name="1")
    def _one(db: Database) -> None:
        for statement in first.split(";"):
            if statement.strip():
                db.conn.execute(statement)
        db.conn.execute("PRAGMA user_version = 1")

    migrations.apply(Database(connection))


Execute = Callable[..., sqlite3.Cursor]


def unusable(name: str, path: Path, error: Exception) -> StateUnusable:
    """What SQLite or the disk refused, in our words: StateDamaged where the file is to blame."""
    message = f"{name} {path}: {error}"
    return StateDamaged(message, path=path) if is_damage(error) else StateUnusable(message)


def is_damage(error: Exception) -> bool:
    """Whether SQLite found something on the disk that it would never have written."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE_CODES


def is_sound(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether a look at all of it finds no damage; it is not looked at where that takes long.

    Raises sqlite3.Error.
    """
    return os.stat(path).st_size > _QUICK_CHECK_BYTES or is_wholly_sound(connection)


def is_wholly_sound(connection: sqlite3.Connection) -> bool:
    """Whether a look at all of it finds no damage, however long it takes. Raises sqlite3.Error."""
    return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")


class Transaction:
    """BEGIN IMMEDIATE ... COMMIT; on any error a ROLLBACK, and StateUnusable for SQLite's own."""

    def __init__(self, connection: sqlite3.Connection, *, name: str, path: Path) -> None:
        self._connection = connection
        self._name = name
        self._path = path

    def __enter__(self) -> Execute:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise unusable(self._name, self._path, error) from error
        return self._connection.execute

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        try:
            if error is None:
                self._connection.execute("COMMIT")
                return
        except sqlite3.Error as commit_error:
            self._roll_back()
            raise unusable(self._name, self._path, commit_error) from commit_error
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            raise unusable(self._name, self._path, error) from error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class ReadOnly:
    """A database read in short transactions, opened when needed, anew where it was replaced.

    A reader that kept a transaction open would let the WAL grow without bound,
    so `rows` fetches everything and lets go.
    """

    def __init__(self, path: Path, *, name: str) -> None:
        self.path = path
        self._name = name
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def rows(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows. Raises StateUnusable."""
        try:
            return self.connection().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise unusable(self._name, self.path, error) from error

    def value(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 (a column of any type)
        """The first column of the only row. Raises StateUnusable, also where there is none."""
        return self.row(statement, values)[0]

    def row(self, statement: str, values: tuple[object, ...] = ()) -> tuple[Any, ...]:
        """The only row. Raises StateUnusable, also where there is none."""
        rows = self.rows(statement, values)
        if not rows:
            raise StateUnusable(f"{self._name} {self.path}: a row is missing")
        return rows[0]

    @contextlib.contextmanager
    def as_of_now(self) -> Iterator[Execute]:
        """Several questions to one and the same state of it. Raises StateUnusable."""
        try:
            connection = self.connection()
            connection.execute("BEGIN")
            try:
                yield connection.execute
            finally:
                # An error of the disk ends it by itself: that is told, not that it has ended.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except (sqlite3.Error, TypeError) as error:
            raise unusable(self._name, self.path, error) from error

    def connection(self) -> sqlite3.Connection:
        """The open connection. Raises StateUnusable where there is no file, or sqlite3.Error."""
        try:
            inode = os.stat(self.path).st_ino
        except OSError as error:
            self.close()
            raise unusable(self._name, self.path, error) from error
        if self._connection is not None and inode != self._inode:
            self.close()
        if self._connection is None:
            self._connection = connect_reader(self.path)
            self._inode = inode
        return self._connection

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
