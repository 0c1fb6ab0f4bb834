"""A Journal as everybody but its Watcher sees it: read-only, in short transactions.

A reader that keeps a transaction open would let the WAL grow without bound,
so every method fetches what it promises and lets go.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardsync.errors import StateUnusable
from shardsync.journal.progress import Progress, read_progress
from shardsync.journal.schema import connect_reader
from shardsync.model import Change, EpochReason, JournalId, Kind, Scope

_READ = (
    "SELECT position, path, scope, kind, observed_at, moved_from FROM changes"
    " WHERE position > ? ORDER BY position LIMIT ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One unbroken observation. `ended_at` None: still open. Times in Unix microseconds."""

    number: int
    reason: EpochReason
    started_at: int
    first_position: int
    ended_at: int | None


class JournalReader:
    """The read side of one Journal. Every method raises StateUnusable where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def journal_id(self) -> JournalId:
        """The random name of this Journal's life."""
        return JournalId(self._one("SELECT journal_id FROM meta"))

    def created_at(self) -> int:
        """When this Journal was made, Unix microseconds."""
        return int(self._one("SELECT created_at FROM meta"))

    def progress(self) -> Progress:
        """How its Watcher is doing."""
        try:
            return read_progress(self._open())
        except (sqlite3.Error, TypeError) as error:
            raise self._unusable(error) from error

    def read(self, *, after: int, limit: int) -> list[Change]:
        """At most `limit` Changes with a Position above `after`, in order."""
        return [
            Change(
                position=position,
                path=path,
                scope=Scope(scope),
                kind=Kind(kind),
                observed_at=observed_at,
                moved_from=moved_from,
            )
            for position, path, scope, kind, observed_at, moved_from in self._all(
                _READ, (after, limit)
            )
        ]

    def read_rows(
        self, *, after: int, limit: int
    ) -> list[tuple[int, bytes, int, int, int, bytes | None]]:
        """As `read`, as plain tuples: what the fold wants of a backlog of a million."""
        return self._all(_READ, (after, limit))

    def count(self, *, after: int) -> int:
        """How many Changes lie above `after`: Positions are not counts."""
        return int(self._one("SELECT count(*) FROM changes WHERE position > ?", (after,)))

    def oldest_observed(self, *, after: int) -> int | None:
        """observed_at of the first Change above `after`, or None."""
        rows = self._all(
            "SELECT observed_at FROM changes WHERE position > ? ORDER BY position LIMIT 1",
            (after,),
        )
        return int(rows[0][0]) if rows else None

    def position_before(self, observed_us: int) -> int:
        """The Cursor from which all Changes observed at `observed_us` or later are seen."""
        first = self._one(
            "SELECT min(position) FROM changes WHERE observed_at >= ?", (observed_us,)
        )
        return int(first) - 1 if first is not None else self.progress().last_position

    def observed_at(self, position: int) -> int | None:
        """When the Change at exactly this Position was observed, or None."""
        rows = self._all("SELECT observed_at FROM changes WHERE position = ?", (position,))
        return int(rows[0][0]) if rows else None

    def newest_of(self, path: bytes) -> Change | None:
        """The newest Change of this very path, or None."""
        rows = self._all(
            "SELECT position, path, scope, kind, observed_at, moved_from FROM changes"
            " WHERE path = ? ORDER BY position DESC LIMIT 1",
            (path,),
        )
        if not rows:
            return None
        position, found, scope, kind, observed_at, moved_from = rows[0]
        return Change(
            position=position,
            path=found,
            scope=Scope(scope),
            kind=Kind(kind),
            observed_at=observed_at,
            moved_from=moved_from,
        )

    def cookie(self, name: str) -> int | None:
        """The Position at which the Watcher acknowledged a flush cookie, or None: not yet."""
        rows = self._all("SELECT position FROM cookies WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else None

    def epochs(self) -> list[Epoch]:
        """All Epochs that the retention still covers, oldest first."""
        return [
            Epoch(
                number=number,
                reason=EpochReason(reason),
                started_at=started_at,
                first_position=first_position,
                ended_at=ended_at,
            )
            for number, reason, started_at, first_position, ended_at in self._all(
                "SELECT number, reason, started_at, first_position, ended_at FROM epochs"
                " ORDER BY number"
            )
        ]

    def file_bytes(self) -> int:
        """Bytes on disk, the WAL included. 0 where there is no file."""
        total = 0
        for suffix in ("", "-wal"):
            try:
                total += os.stat(f"{self.path}{suffix}").st_size
            except FileNotFoundError:
                continue
        return total

    def close(self) -> None:
        """Let go of the file. Idempotent; the next call opens it anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        """The connection, renewed where another file has taken the place of the old one."""
        try:
            inode = os.stat(self.path).st_ino
        except OSError as error:
            self.close()
            raise self._unusable(error) from error
        if self._connection is not None and inode != self._inode:
            self.close()
        if self._connection is None:
            self._connection = connect_reader(self.path)
            self._inode = inode
        return self._connection

    def _all(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._open().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _one(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 (a column of any type)
        rows = self._all(statement, values)
        if not rows:
            raise self._unusable("a row is missing")
        return rows[0][0]

    def _unusable(self, error: object) -> StateUnusable:
        return StateUnusable(f"journal {self.path}: {error}")
