"""What a Journal has of the recent past, as a catch-up asks: which changes need no second row.

A row says that its path was told at `observed_at`, the end of the read that
brought it. The path may have changed again between that read and its end,
with an event that nobody came to read; so how far a row counts is reckoned
here, and not taken from `observed_at` alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

TICK_US = 20_000
"""A ctime is up to a tick of the kernel's coarse clock (10 ms at HZ=100) older than its change."""

_ROWS = "SELECT position, path, observed_at FROM changes ORDER BY position DESC"
_COMMITS = "SELECT position, at FROM commits ORDER BY position DESC"


def told_since(connection: sqlite3.Connection, since_us: int, *, now_us: int) -> dict[bytes, int]:
    """Path -> newest observed_at of the Changes observed at `since_us` or later.

    For a Journal whose Watcher still reads its queue: what it has not told yet
    it will. Raises sqlite3.Error.
    """
    found: dict[bytes, int] = {}
    for _, path, observed_at in _recent(connection, since_us, now_us):
        found.setdefault(path, observed_at)
    return found


def journaled_since(
    connection: sqlite3.Connection, since_us: int, *, watermark_us: int, now_us: int
) -> dict[bytes, int]:
    """Path -> up to which ctime its changes are journaled, by Changes since `since_us`.

    Before the Watermark nothing is missing, so there `observed_at` holds. What
    came later may have been followed by a change that was not read: a row
    covers only what was before the commit before its own, for all that a
    commit has was read after that. Raises sqlite3.Error.
    """
    found: dict[bytes, int] = {}
    commits = connection.execute(_COMMITS)
    before = (0, 0)  # (position, at) of the newest commit below the row
    for position, path, observed_at in _recent(connection, since_us, now_us):
        while before is not None and (before[0] >= position or not before[0]):
            before = commits.fetchone()
        if path not in found:
            surely = before[1] - TICK_US if before is not None else 0
            found[path] = max(surely, min(observed_at, watermark_us - TICK_US - 1))
    commits.close()
    return found


def _recent(
    connection: sqlite3.Connection, since_us: int, now_us: int
) -> Iterator[tuple[int, bytes, int]]:
    """(position, path, observed_at), the newest first, back to the first that is older.

    And no further: a Journal keeps days. A row that is younger than one after
    it, or than now, was observed by a clock that was set back since: its time
    says nothing of times of now.
    """
    rows = connection.execute(_ROWS)
    newest = now_us
    for row in rows:
        if not since_us <= row[2] <= newest:
            break
        newest = row[2]
        yield row
    rows.close()  # an open read would hold up the writer's checkpoint
