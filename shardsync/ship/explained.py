"""Which differences of a Node its own pending Changes explain. Pure but for the reading.

A Node that is compared while Changes are on their way differs, and nothing is wrong.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Mapping

from shardsync.journal.records import COMPARING, Cursor, Work
from shardsync.model import Scope
from shardsync.ship.fold import Pending, Want, ancestors, fold, rebase
from shardsync.ship.journals import TreeJournals

_ROWS_AT_ONCE = 10_000
_MOST_ROWS = 500_000
_MOST_PATHS = 100_000
"""Some 15 MB."""


class Explained:
    """Paths that differ for a reason: pending themselves, or with something pending around them.

    `about`: the only paths that will be asked about, so that nothing else of a long backlog is
    kept; None: any may be. `is_cut`: more is pending than was read or can be kept, and anything
    may be explained.
    """

    def __init__(self, *, about: Collection[bytes] | None = None) -> None:
        self._about = None if about is None else frozenset(about)
        self._parents = {path.rpartition(b"/")[0] for path in about or ()}
        self._above = {b""}.union(about or (), *(ancestors(path) for path in about or ()))
        self._paths: set[bytes] = set()
        self._trees: set[bytes] = set()
        self._listings: set[bytes] = set()
        self._levels: set[bytes] = set()
        self.is_cut = False

    def add(self, path: bytes, want: Want = Want.CONTENT, *, is_compared: bool = False) -> None:
        """Something is pending there; the times of all that is above it may differ, too.

        `is_compared`: with its LISTING, all that lies directly in it is compared, and sent.
        """
        touched = (path, *ancestors(path))
        if self._about is None:
            self._paths.update(touched)
        else:
            self._paths.update(each for each in touched if each in self._about)
        if want & Want.LISTING and (self._about is None or path in self._parents):
            self._listings.add(path)
            if is_compared:
                self._levels.add(path)
        if want & Want.TREE and (self._about is None or path in self._above):
            self._trees.add(path)
        self.is_cut = self.is_cut or len(self._paths) > _MOST_PATHS

    def explains(self, path: bytes) -> bool:
        """Whether it is to be expected that the Node lacks `path`, or has it otherwise.

        Of a directory that is pending itself nothing is said about what lies in it: those
        names have Changes of their own, or its whole tree has one.
        """
        if self.is_cut or path in self._paths or b"" in self._trees:
            return True
        if path.rpartition(b"/")[0] in self._levels or path in self._trees:
            return True
        return any(above in self._trees for above in ancestors(path))

    def explains_extraneous(self, path: bytes) -> bool:
        """Whether it is to be expected that the Node has `path`, which the Tree has not.

        A listing that is pending takes away what is gone, and sends nothing.
        """
        return self.explains(path) or path.rpartition(b"/")[0] in self._listings


async def explained_after(
    journals: TreeJournals,
    cursors: Mapping[str, Cursor],
    *,
    subtree: str,
    work: Iterable[Work] = (),
    about: Collection[bytes] | None = None,
) -> Explained:
    """What Changes after these Cursors explain, and `work` that is open; of `about` alone.

    Take the Cursors before the comparison, and call this after it. Raises StateUnusable.
    """
    found = Explained(about=about)
    for row in work:
        found.add(row.path, _want(row), is_compared=row.reason in COMPARING)
    # A Shard of a re-plan since then has taken over paths, and no Cursor tells of it yet.
    standing = {**cursors, **journals.standing(cursors).fresh}
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
        if found.is_cut:
            return found
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
