"""Files with several names: a write through one of them is a change of all, and inotify tells one.

The names of such files are remembered per Tree in state.db as they are met.
Where a file has more names than are known, one search of the whole Tree by
inode number (which costs no stat) finds the others, in the background. A name
is looked at before it is believed, so a stale one does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shardsync.clock import Clock
from shardsync.journal.records import LinkedFile
from shardsync.journal.state_writer import StateWriter
from shardsync.log import Log
from shardsync.ship.look import Look, LookKind
from shardsync.ship.view import NodeView

_GATHER_SECONDS = 0.2
"""Links come in crowds (`cp -al`): one search for all of them."""
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
        self._is_searching = False
        self.searches = 0

    @property
    def is_searching(self) -> bool:
        """Whether names are being searched, or soon will be."""
        return self._is_searching or bool(self._wanted)

    def siblings(
        self, linked: Mapping[bytes, LinkedFile], look: Callable[[bytes], Look]
    ) -> Siblings:
        """The other names of these files, each looked at; what is unresolved is searched for."""
        found = Siblings()
        self._state.note_links(self._tree, linked)
        for path, file in linked.items():
            known = self._state.read.link_names(self._tree, file)
            names = {name for name in known if _is_same(look(name), file)}
            found.names |= names - {path}
            stale = known - names
            if stale:
                self._state.forget_links(self._tree, file, stale)
            is_searched = not stale and self._state.read.is_link_searched(self._tree, file)
            if len(names) < file.links and not is_searched:
                found.unresolved.add(path)
                self._wanted.add(file)
                self._news.set()
        return found

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
        except OSError as error:
            # Whoever waits for it asks again.
            self._log.warning("links.search_failed", error=error)
            return
        names = {path: by_inode[inode] for path, inode in found}
        self._state.note_links(self._tree, names)
        self._state.note_link_search(self._tree, wanted)
        self._log.info("links.searched", files=len(wanted), names=len(names))


async def _either(one: asyncio.Event, other: asyncio.Event, seconds: float | None) -> bool:
    """Wait for one of two events, `seconds` at most; whether one came."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()
    return bool(done)


def _is_same(found: Look, file: LinkedFile) -> bool:
    return found.kind is LookKind.FILE and (found.device, found.inode) == (file.device, file.inode)
