"""What of a Journal concerns one path: for replays of it, and for what they would send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shardsync.journal.plan import covers
from shardsync.journal.reader import ChangeRow
from shardsync.model import Scope


def concerning(path: bytes, rows: Iterable[ChangeRow]) -> Iterator[ChangeRow]:
    """The Changes of `path` and below, and what those above it say of it."""
    for row in rows:
        position, changed, scope, kind, observed_at, _ = row
        if covers(path, changed):
            yield row
        elif scope == Scope.TREE and covers(changed, path):
            yield (position, path, Scope.TREE, kind, observed_at, None)
        elif scope == Scope.LISTING and path.rpartition(b"/")[0] == changed:
            yield (position, path, Scope.ENTRY, kind, observed_at, None)
