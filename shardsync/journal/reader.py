"""A Journal as everybody but its Watcher sees it: read-only, in short transactions.

A reader that keeps a transaction open would let the WAL grow without bound,
so every method fetches what it promises and lets go.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shardsync.journal.database import ReadOnly, unusable
from shardsync.journal.progress import Progress, read_progress
from shardsync.journal.related import related
from shardsync.model import Change, EpochReason, JournalId, Kind, Scope

ChangeRow = tuple[int, bytes, int, int, int, bytes | None]
"""(position, path, Scope, Kind, observed_at, moved_from): a Change as the fold wants it."""

_READ = (
    "SELECT position, path, scope, kind, observed_at, moved_from FROM changes"
    " WHERE position > ? ORDER BY position LIMIT ?"
)

_SPAN = "SELECT journal_id, pruned_to, last_position FROM meta, progress"

_READ_NEWEST = (
    "SELECT position, path, observed_at FROM changes"
    " WHERE position < ? AND position > ? ORDER BY position DESC LIMIT ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One unbroken observation. `ended_at` None: still open. Times in Unix microseconds."""

    number: int
    reason: EpochReason
    started_at: int
    first_position: int
    ended_at: int | None


class Span(NamedTuple):
    """What a Journal holds: Changes above `pruned_to`, up to `last_position`."""

    journal_id: JournalId
    pruned_to: int
    last_position: int


class JournalReader:
    """The read side of one Journal. Every method raises StateUnusable where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = ReadOnly(path, name="journal")

    def journal_id(self) -> JournalId:
        """The random name of this Journal's life."""
        return JournalId(self._database.value("SELECT journal_id FROM meta"))

    def created_at(self) -> int:
        """When this Journal was made, Unix microseconds."""
        return int(self._database.value("SELECT created_at FROM meta"))

    def progress(self) -> Progress:
        """How its Watcher is doing."""
        try:
            return read_progress(self._database.connection())
        except (sqlite3.Error, TypeError) as error:
            raise unusable("journal", self.path, error) from error

    def span(self) -> Span:
        """Which Journal this is, and what it holds. Asked for each Batch: the whole progress
        costs five times as much.
        """
        return Span(*self._database.row(_SPAN))

    def stretch(self, *, after: int, limit: int) -> tuple[Span, list[ChangeRow]]:
        """The span with at most `limit` Changes above `after`, in order, all as of one moment."""
        with self._database.as_of_now() as execute:
            span = Span(*execute(_SPAN).fetchone())
            return span, execute(_READ, (after, limit)).fetchall()

    def read(self, *, after: int, limit: int) -> list[Change]:
        """At most `limit` Changes with a Position above `after`, in order."""
        return [_change(row) for row in self.read_rows(after=after, limit=limit)]

    def read_rows(self, *, after: int, limit: int) -> list[ChangeRow]:
        """As `read`, as plain tuples: what the fold wants of a backlog of a million."""
        return self._database.rows(_READ, (after, limit))

    def read_newest(self, *, before: int, after: int, limit: int) -> list[tuple[int, bytes, int]]:
        """(position, path, observed_at) of at most `limit` Changes between, the newest first."""
        return self._database.rows(_READ_NEWEST, (before, after, limit))

    def count(self, *, after: int, up_to: int | None = None) -> int:
        """How many Changes lie above `after` (and not above `up_to`): Positions are not counts."""
        statement = "SELECT count(*) FROM changes WHERE position > ?"
        if up_to is None:
            return int(self._database.value(statement, (after,)))
        return int(self._database.value(statement + " AND position <= ?", (after, up_to)))

    def oldest_observed(self, *, after: int) -> int | None:
        """observed_at of the first Change above `after`, or None."""
        rows = self._database.rows(
            "SELECT observed_at FROM changes WHERE position > ? ORDER BY position LIMIT 1",
            (after,),
        )
        return int(rows[0][0]) if rows else None

    def position_before(self, observed_us: int) -> int:
        """The Cursor from which all Changes observed at `observed_us` or later are seen."""
        first = self._database.value(
            "SELECT min(position) FROM changes WHERE observed_at >= ?", (observed_us,)
        )
        return int(first) - 1 if first is not None else self.progress().last_position

    def observed_at(self, position: int) -> int | None:
        """When the Change at exactly this Position was observed, or None."""
        rows = self._database.rows(
            "SELECT observed_at FROM changes WHERE position = ?", (position,)
        )
        return int(rows[0][0]) if rows else None

    def newest_covering(self, path: bytes) -> Change | None:
        """The newest Change that bids to look at `path`: its own, a tree above it, or the
        listing of its directory.
        """
        parts = path.split(b"/")
        above = [b"/".join(parts[:number]) for number in range(len(parts))] if path else []
        marks = ", ".join("?" * len(above))
        rows = self._database.rows(
            "SELECT position, path, scope, kind, observed_at, moved_from FROM changes"  # noqa: S608 (marks only)
            f" WHERE path = ? OR (scope = ? AND path IN ({marks})) OR (scope = ? AND path = ?)"
            " ORDER BY position DESC LIMIT 1",
            (path, Scope.TREE, *above, Scope.LISTING, above[-1] if above else path),
        )
        return _change(rows[0]) if rows else None

    def newest_related(self, path: bytes, *, after: int, up_to: int) -> int | None:
        """The Position of the last Change above `after`, at most `up_to`, that says something of
        `path`: of itself, of what is below, of what it lies in. None: there is none.
        """
        condition, values = related(path)
        found = self._database.value(
            f"SELECT max(position) FROM changes WHERE position > ? AND position <= ? AND {condition}",  # noqa: E501, S608 (marks only)
            (after, up_to, *values),
        )
        return None if found is None else int(found)

    def journaled_at(self, position: int) -> int | None:
        """When the Change at this Position was committed, Unix microseconds, or None."""
        rows = self._database.rows(
            "SELECT at FROM commits WHERE position >= ? ORDER BY position LIMIT 1", (position,)
        )
        return int(rows[0][0]) if rows else None

    def cookie(self, name: str) -> int | None:
        """The Position at which the Watcher acknowledged a flush cookie, or None: not yet."""
        rows = self._database.rows("SELECT position FROM cookies WHERE name = ?", (name,))
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
            for number, reason, started_at, first_position, ended_at in self._database.rows(
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
        self._database.close()


def _change(row: ChangeRow) -> Change:
    position, path, scope, kind, observed_at, moved_from = row
    return Change(
        position=position,
        path=path,
        scope=Scope(scope),
        kind=Kind(kind),
        observed_at=observed_at,
        moved_from=moved_from,
    )
