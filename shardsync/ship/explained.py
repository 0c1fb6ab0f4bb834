"""Which differences of a Node its own pending Changes explain. Pure but for the reading.

A Node that is compared while Changes are on their way differs, and nothing is wrong.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping

from shardsync.journal.records import COMPARING, Cursor, Work
from shardsync.model import Scope
from shardsync.ship.fold import Pending, Want, ancestors, fold, rebase
from shardsync.ship.journals import TreeJournals

_ROWS_AT_ONCE = 10_000
_MOST_ROWS = 500_000


class Explained:
    """Paths that differ for a reason: pending themselves, or with something pending around them.

    `is_cut`: more is pending than was read, and anything may be explained.
    """

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._trees: set[bytes] = set()
        self._listings: set[bytes] = set()
        self.is_cut = False

    def add(self, path: bytes, want: Want = Want.CONTENT) -> None:
        """Something is pending there; the times of all that is above it may differ, too."""
        self._paths.add(path)
        self._paths.update(ancestors(path))
        if want & Want.LISTING:
            self._listings.add(path)
        if want & Want.TREE:
            self._trees.add(path)

    def explains(self, path: bytes) -> bool:
        """Whether a difference at `path` is to be expected.

        Of a directory that is pending itself nothing is said about what lies in it: those
        names have Changes of their own, or its whole tree has one.
        """
        if self.is_cut or path in self._paths or b"" in self._trees:
            return True
        if path.rpartition(b"/")[0] in self._listings or path in self._trees:
            return True
        return any(above in self._trees for above in ancestors(path))


async def explained_after(
    journals: TreeJournals,
    cursors: Mapping[str, Cursor],
    *,
    subtree: str,
    work: Iterable[Work] = (),
) -> Explained:
    """What Changes after these Cursors explain, and `work` that is open.

    Take the Cursors before the comparison, and call this after it. Raises StateUnusable.
    """
    found = Explained()
    for row in work:
        found.add(row.path, _want(row))
    standing = dict(cursors)
    for _ in range(_MOST_ROWS // _ROWS_AT_ONCE):
        unread = journals.unread(standing, limit=_ROWS_AT_ONCE)
        if not unread.rows:
            return found
        into: dict[bytes, Pending] = {}
        fold(unread.rows, into)
        for item in into.values():
            inside = rebase(item.path, item.want, os.fsencode(subtree))
            if inside is not None:
                found.add(*inside)
        standing.update(unread.cursors)
        await asyncio.sleep(0)
    found.is_cut = True
    return found


def _want(row: Work) -> Want:
    if row.scope is Scope.TREE:
        return Want.TREE
    if row.scope is Scope.LISTING:
        return Want.LISTING
    # A directory above pieces: what is below it has rows of its own.
    return Want.ATTRIBUTES if row.reason in COMPARING else Want.CONTENT
