"""What the Shards knew from which this one takes prefixes over: asked in its first pass only.

Their Journals are theirs: here they are only read. Where one cannot be read
the answer is "unknown", and more is compared than must be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from shardsync.journal.database import connect_reader
from shardsync.journal.recent import told_since

_DIRECTORY = (
    "SELECT parent, name FROM dirs JOIN sub_roots ON number = sub_root"
    " WHERE identity = ? AND inode = ?"
)


class Elders:
    """The Journals of a re-plan's givers."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._paths = tuple(paths)
        self._opened: list[sqlite3.Connection] | None = None

    def directory(self, identity: str, inode: int) -> tuple[int, bytes] | None:
        """(inode of the parent, name) under which one of them last saw a directory."""
        for connection in self._connections():
            try:
                row: tuple[int, bytes] | None = connection.execute(
                    _DIRECTORY, (identity, inode)
                ).fetchone()
            except sqlite3.Error:
                continue
            if row is not None:
                return row
        return None

    def told_since(self, since_us: int, *, now_us: int) -> dict[bytes, int]:
        """Path -> newest observed_at of what they journaled: Nodes have it from there."""
        found: dict[bytes, int] = {}
        for connection in self._connections():
            try:
                told = told_since(connection, since_us, now_us=now_us)
            except sqlite3.Error:
                continue
            for path, observed_at in told.items():
                found[path] = max(found.get(path, 0), observed_at)
        return found

    def close(self) -> None:
        """Ask them nothing more. Idempotent."""
        for connection in self._opened or ():
            connection.close()
        self._opened = []

    def _connections(self) -> list[sqlite3.Connection]:
        if self._opened is None:
            self._opened = []
            for path in self._paths:
                try:
                    self._opened.append(connect_reader(path))
                except sqlite3.Error:
                    continue
        return self._opened
