"""Open work as rows of state.db: what a path is open for already is joined, not told twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from shardsync.journal.records import Compare, NodeKey, Work

_WEAKEST_FIRST = (
    f"{Compare.EMPTY} {Compare.ATTRIBUTES} {Compare.CHECKSUM} {Compare.CONTENT} {Compare.ANEW}"
)
"""What is joined is compared as closely as either asked for: a later one may ask for less."""

_PUT = (
    "INSERT INTO work (tree, node, path, scope, compare, reason, since, request,"  # noqa: S608 (our own words)
    " attempts, not_before, last_error, first, beyond)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (tree, node, path, scope, reason, first) DO UPDATE SET"
    " since = min(since, excluded.since), attempts = excluded.attempts,"
    f" compare = CASE WHEN instr('{_WEAKEST_FIRST}', compare)"
    f" > instr('{_WEAKEST_FIRST}', excluded.compare) THEN compare ELSE excluded.compare END,"
    " not_before = excluded.not_before,"
    " last_error = excluded.last_error, beyond = CASE WHEN beyond = x''"
    " OR excluded.beyond = x'' THEN x'' ELSE max(beyond, excluded.beyond) END,"
    " request = CASE excluded.request WHEN '' THEN request ELSE excluded.request END"
)


def add_work(connection: sqlite3.Connection, key: NodeKey, work: Iterable[Work]) -> None:
    """Within the caller's transaction. Raises sqlite3.Error."""
    connection.executemany(
        _PUT,
        (
            (
                *key,
                item.path,
                item.scope.value,
                item.compare.value,
                item.reason.value,
                item.since,
                item.request,
                item.attempts,
                item.not_before,
                item.last_error,
                item.first,
                item.beyond,
            )
            for item in work
        ),
    )
