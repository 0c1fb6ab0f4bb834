"""The tables of a Journal and of the state database, and how they came to be.

Migrations are sqlite-utils'; `PRAGMA user_version` holds how many were
applied, so that a process which finds the newest number need not import them.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from shardsync.errors import StateUnusable

if TYPE_CHECKING:
    from sqlite_utils import Database

JOURNAL_VERSION = 1
STATE_VERSION = 1

_JOURNAL_1 = """
CREATE TABLE meta (
    journal_id TEXT NOT NULL, shard TEXT NOT NULL, tree TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE changes (
    position INTEGER PRIMARY KEY, path BLOB NOT NULL, scope INTEGER NOT NULL,
    kind INTEGER NOT NULL, observed_at INTEGER NOT NULL, moved_from BLOB
) STRICT;
CREATE TABLE epochs (
    number INTEGER PRIMARY KEY, reason TEXT NOT NULL, started_at INTEGER NOT NULL,
    first_position INTEGER NOT NULL, ended_at INTEGER
) STRICT;
CREATE TABLE cookies (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE dirs (
    sub_root INTEGER NOT NULL, inode INTEGER NOT NULL, parent INTEGER NOT NULL, name BLOB NOT NULL,
    PRIMARY KEY (sub_root, inode)
) STRICT, WITHOUT ROWID;
CREATE TABLE sub_roots (
    number INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, identity TEXT NOT NULL
) STRICT;
CREATE TABLE progress (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    state TEXT NOT NULL DEFAULT 'stopped', last_error TEXT NOT NULL DEFAULT '',
    last_position INTEGER NOT NULL DEFAULT 0, pruned_to INTEGER NOT NULL DEFAULT 0,
    watermark_us INTEGER, watches INTEGER NOT NULL DEFAULT 0,
    directories INTEGER NOT NULL DEFAULT 0, polled_directories INTEGER NOT NULL DEFAULT 0,
    overflows INTEGER NOT NULL DEFAULT 0, changes_total INTEGER NOT NULL DEFAULT 0,
    scan_done INTEGER NOT NULL DEFAULT 0, scan_total INTEGER NOT NULL DEFAULT 0,
    pid INTEGER NOT NULL DEFAULT 0, generation INTEGER NOT NULL DEFAULT 0,
    heartbeat_us INTEGER NOT NULL DEFAULT 0, clean_stop INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL DEFAULT '', clock_offset_us INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO progress (only) VALUES (1);
"""

_STATE_1 = """
CREATE TABLE nodes (
    tree TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, owned INTEGER,
    contacted INTEGER NOT NULL DEFAULT 0, last_success INTEGER,
    last_error TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    paused INTEGER NOT NULL DEFAULT 0, paused_until INTEGER, halted TEXT NOT NULL DEFAULT '',
    allow_delete INTEGER NOT NULL DEFAULT 0, fingerprint TEXT NOT NULL DEFAULT '',
    capabilities TEXT NOT NULL DEFAULT '', progress REAL NOT NULL DEFAULT 0,
    foreign_paths INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tree, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE trees (
    tree TEXT PRIMARY KEY, identity TEXT NOT NULL DEFAULT '', halted TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE TABLE cursors (
    tree TEXT NOT NULL, node TEXT NOT NULL, shard TEXT NOT NULL, journal_id TEXT NOT NULL,
    position INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (tree, node, shard)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor_history (
    tree TEXT NOT NULL, node TEXT NOT NULL, shard TEXT NOT NULL, at INTEGER NOT NULL,
    journal_id TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (tree, node, shard, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE batches (
    tree TEXT NOT NULL, node TEXT NOT NULL, shard TEXT NOT NULL, position INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (tree, node, shard, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE work (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tree TEXT NOT NULL, node TEXT NOT NULL,
    path BLOB NOT NULL, scope INTEGER NOT NULL, compare TEXT NOT NULL, reason TEXT NOT NULL,
    since INTEGER NOT NULL, request TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '',
    UNIQUE (tree, node, path, scope, reason)
) STRICT;
CREATE TABLE deletions (
    tree TEXT NOT NULL, node TEXT NOT NULL, at INTEGER NOT NULL, entries INTEGER NOT NULL
) STRICT;
CREATE TABLE foreign_paths (
    tree TEXT NOT NULL, node TEXT NOT NULL, path BLOB NOT NULL,
    PRIMARY KEY (tree, node, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL,
    exit_code INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sync_process (
    only INTEGER PRIMARY KEY CHECK (only = 1), pid INTEGER NOT NULL, started_at INTEGER NOT NULL,
    settings_fingerprint TEXT NOT NULL DEFAULT ''
) STRICT;
"""


def connect_writer(path: Path, *, version: int) -> sqlite3.Connection:
    """Open for writing, make or migrate the tables up to `version`. Raises sqlite3.Error.

    WAL with synchronous=NORMAL: a killed process loses nothing; power loss may
    lose the last commits, which the Watermark's scan finds again. Raises
    StateUnusable where a newer shardsync made the file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        found = _known_version(connection, path, version)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
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
        raise StateUnusable(
            f"{path}: made by a newer shardsync (schema {found}, this one knows {newest})",
            hint="run the newer version, or move the file away to start over",
        )
    return found


def _migrate(connection: sqlite3.Connection, *, is_journal: bool) -> None:
    # Imported here: 150 ms and 10 MB that only the first opening needs to pay.
    from sqlite_utils import Database  # noqa: PLC0415 (start-up cost, see above)
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415 (as above)

    migrations = Migrations("journal" if is_journal else "state")
    first = _JOURNAL_1 if is_journal else _STATE_1

    @migrations(name="1")
    def _one(db: Database) -> None:
        for statement in first.split(";"):
            if statement.strip():
                db.conn.execute(statement)
        db.conn.execute("PRAGMA user_version = 1")

    migrations.apply(Database(connection))
