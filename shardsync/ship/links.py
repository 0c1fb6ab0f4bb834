"""Files with several names: a write through one of them is a change of all, and inotify tells one.

The names of such files are remembered per Tree in state.db as they are met.
Where a file has more names than are known, one search of the whole Tree by
inode number (which costs no stat) finds the others, in the background. A name
is looked at before it is believed, so a stale one does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from shardsync.clock import Clock
from shardsync.errors import StateUnusable
from shardsync.journal.records import Cursor, LinkedFile
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.model import Scope
from shardsync.ship.journals import TreeJournals
from shardsync.ship.look import Look, LookKind
from shardsync.ship.view import NodeView

_GATHER_SECONDS = 0.2
"""Links come in crowds (`cp -al`): one search for all of them."""
_HEED_SECONDS = 5.0
_NOTED_AT_ONCE = 1000
"""A look costs 8 us: more at once would keep the Nodes' Batches waiting."""
_REST = 5.0
"""After a search, that many times its length before the next."""


@dataclass(slots=True, kw_only=True)
class Siblings:
    """Other names of some files. `unresolved`: those of the files that may have more of them."""

    names: set[bytes] = field(default_factory=set)
    unresolved: set[bytes] = field(default_factory=set)


class HardLinks:
    """The files of one Tree that have several names. Paths are relative to the Tree's root."""

    def __init__(
        self, *, tree: str, view: NodeView, state: StateWriter, clock: Clock, log: Log
    ) -> None:
        self._tree = tree
        self._view = view
        self._state = state
        self._clock = clock
        self._log = log
        self._wanted: set[LinkedFile] = set()
        self._news = asyncio.Event()
        self._changes = asyncio.Event()
        self._is_searching = False
        self.searches = 0

    @property
    def is_searching(self) -> bool:
        """Whether names are being searched, or soon will be."""
        return self._is_searching or bool(self._wanted)

    def siblings(
        self,
        linked: Mapping[bytes, LinkedFile],
        others: Iterable[bytes],
        look: Callable[[bytes], Look],
    ) -> Siblings:
        """The other names of changed files, each looked at; what is unresolved is searched for.

        `linked`: the changed paths that have several names now. `others`: the rest; a file
        that had one of them as a name may have been written through it before it lost it.
        """
        found = Siblings()
        if self._state.read.has_links(self._tree):
            for path in (*others, *linked):
                for file in self._state.read.linked_files(self._tree, path):
                    if not _is_of(file, linked.get(path)):
                        self._add_names(path, file, look, found)
        if linked:
            self._state.links.note(self._tree, linked)
        for path, file in linked.items():
            self._add_names(path, file, look, found)
        return found

    def _add_names(
        self, path: bytes, file: LinkedFile, look: Callable[[bytes], Look], found: Siblings
    ) -> None:
        looks = {name: look(name) for name in self._state.read.link_names(self._tree, file)}
        known = looks.keys()
        names = {name for name, seen in looks.items() if _is_same(seen, file)}
        if file.links == 0 and names:
            # As whoever comes from one of the names says: searches are remembered by the number.
            file = replace(file, links=looks[min(names)].links)
        found.names |= names - {path}
        stale = known - names
        if stale:
            self._state.links.forget(self._tree, file, stale)
        is_searched = not stale and self._state.read.is_link_searched(self._tree, file)
        # A file of which only a lost name is known has an unknown number of others.
        if not is_searched and (file.links == 0 or len(names) < file.links):
            found.unresolved.add(path)
            self._wanted.add(file)
            self._news.set()

    def note(self, paths: Iterable[bytes]) -> None:
        """Meet changed paths as soon as they are journaled, however far behind the Nodes are.

        A name made, written through and removed again would otherwise be gone before
        anybody looked. Raises OSError where the root cannot be looked at.
        """
        with self._view.looking() as looker:
            linked = {}
            for path in paths:
                seen = looker.look(path)
                if seen.kind is LookKind.FILE and seen.links > 1:
                    linked[path] = LinkedFile(
                        device=seen.device, inode=seen.inode, links=seen.links
                    )
            if linked:
                self.siblings(linked, (), looker.look)

    def heed(self) -> None:
        """A Journal has grown."""
        self._changes.set()

    async def follow(self, journals: TreeJournals, stopping: asyncio.Event) -> None:
        """Note the names of linked files as their Changes are journaled, until told to stop.

        Starts at what is newest now: what came before waits for the Nodes' own looks.
        """
        cursors: dict[str, Cursor] | None = None
        while not stopping.is_set():
            self._changes.clear()
            try:
                cursors = self._next(journals, cursors)
            except (OSError, StateUnusable) as error:
                self._log.debug("links.not_noted", error=error)
            await _either(self._changes, stopping, _HEED_SECONDS)

    def _next(
        self, journals: TreeJournals, cursors: dict[str, Cursor] | None
    ) -> dict[str, Cursor]:
        if cursors is None:
            return journals.newest()
        standing = journals.standing(cursors)
        cursors = {**cursors, **standing.fresh}
        for shard in (*standing.lost, *standing.behind):
            cursors[shard] = journals.newest()[shard]
        unread = journals.unread(cursors, limit=_NOTED_AT_ONCE)
        self.note({row[1] for row in unread.rows if row[2] == Scope.ENTRY})
        if len(unread.rows) >= _NOTED_AT_ONCE:
            self._changes.set()
        return {**cursors, **unread.cursors}

    async def run(self, stopping: asyncio.Event) -> None:
        """Search whenever something is wanted, until told to stop."""
        while not stopping.is_set():
            await _either(self._news, stopping, None)
            if not self._wanted or await _either(stopping, stopping, _GATHER_SECONDS):
                continue
            self._news.clear()
            wanted, self._wanted, self._is_searching = self._wanted, set(), True
            began = self._clock.monotonic()
            try:
                await self._search(wanted)
            finally:
                self._is_searching = False
            await _either(stopping, stopping, _REST * (self._clock.monotonic() - began))

    async def _search(self, wanted: set[LinkedFile]) -> None:
        self.searches += 1
        by_inode = {file.inode: file for file in wanted}
        try:
            found = await asyncio.to_thread(self._view.find_inodes, frozenset(by_inode))
            # A number may have become that of a symlink since, which is nobody's other name.
            with self._view.looking() as looker:
                names = {
                    path: by_inode[inode]
                    for path, inode in found
                    if _is_same(looker.look(path), by_inode[inode])
                }
        except OSError as error:
            # Whoever waits for it asks again.
            self._log.warning("links.search_failed", error=error)
            return
        self._state.links.note(self._tree, names)
        self._state.links.note_search(self._tree, wanted)
        self._log.info("links.searched", files=len(wanted), names=len(names))


async def _either(one: asyncio.Event, other: asyncio.Event, seconds: float | None) -> bool:
    """Wait for one of two events, `seconds` at most; whether one came."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()
    return bool(done)


def _is_of(file: LinkedFile, now: LinkedFile | None) -> bool:
    return now is not None and (file.device, file.inode) == (now.device, now.inode)


def _is_same(found: Look, file: LinkedFile) -> bool:
    return found.kind is LookKind.FILE and (found.device, found.inode) == (file.device, file.inode)
