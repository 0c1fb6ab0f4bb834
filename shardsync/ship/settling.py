"""`delay`: a path is shipped once nothing changed it for so long, at the latest at `max_delay`.

Path by path, in memory that does not grow with what waits. Changes that are younger than
`delay` stay in the Journal, unread: each is old enough soon, as a Journal is in the order of
time. So what is read has waited; it has come to rest unless the young end of the
Journals, which is read backwards and never kept, names the path again. Such a path has a
later Change that will be read in its turn, with which it would be shipped; but of when it began
to change, and that it is behind, nothing would be left: so it becomes a work row, due at
its `max_delay`, which Lag and flush count, and the Cursor moves on over it. A file that
is written all the time thus holds back no other, and costs a row now and then; what rests
costs none. The row goes with the Batch that ships the path.

Only single entries are held. A directory that came as a whole is shipped after `delay`; one that
was renamed on within it, after the `delay` of its last rename, or twice its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from shardsync.clock import Clock
from shardsync.config.settings import SyncSettings
from shardsync.errors import StateUnusable
from shardsync.journal.plan import covers
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import Compare, Cursor, NodeKey, Work, WorkReason
from shardsync.journal.state_reader import StateReader
from shardsync.model import Scope
from shardsync.ship.backlog import Slice
from shardsync.ship.fold import Pending, Want
from shardsync.ship.journals import TreeJournals

_ROWS_AT_ONCE = 5_000
_LOOKS_PER_DELAY = 20
_LONGEST_PACE_SECONDS = 1.0
_AHEAD_US = 1_000_000
"""A Change from further in the future was stamped by a clock that was set back since."""
_SINGLE = Want.CONTENT | Want.ATTRIBUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a slice leaves for later. `added`: its rows; `done`: ids of rows that are over."""

    added: list[Work] = field(default_factory=list)
    done: list[int] = field(default_factory=list)


class Settling:
    """What of one Node's pending paths must wait. Used by its Syncer alone."""

    def __init__(
        self,
        *,
        key: NodeKey,
        subtree: bytes,
        journals: TreeJournals,
        state: StateReader,
        limits: SyncSettings,
        clock: Clock,
    ) -> None:
        self._key = key
        self._subtree = subtree
        self._journals = journals
        self._state = state
        self._delay_us = int(limits.delay_seconds * 1_000_000)
        self._max_delay_us = int(limits.max_delay_seconds * 1_000_000)
        self._clock = clock
        self._hurried: dict[str, int] = {}

    @property
    def pace_seconds(self) -> float:
        """How long to rest after each look: the young end is read at each."""
        return min(_LONGEST_PACE_SECONDS, self._delay_us / 1e6 / _LOOKS_PER_DELAY)

    @property
    def is_hurried(self) -> bool:
        """Whether something is waited for that nothing is held back from."""
        return bool(self._hurried)

    def hurry(self) -> None:
        """Hold nothing of what is journaled by now. Raises StateUnusable."""
        self._hurried = {
            shard: cursor.position for shard, cursor in self._journals.newest().items()
        }

    def young(self, cursors: Mapping[str, Cursor]) -> range | None:
        """The times (Unix microseconds) of Changes that are too young to be read, None for none.

        None where a Cursor has not come to what `hurry` found.
        """
        # A Shard that is gone from the Plan has no Cursor that could get there.
        self._hurried = {
            shard: position
            for shard, position in self._hurried.items()
            if shard in cursors and cursors[shard].position < position
        }
        if not self._delay_us or self._hurried:
            return None
        now = self._clock.wall_us()
        return range(now - self._delay_us + 1, now + _AHEAD_US)

    def tells_more(self, part: Slice) -> bool:
        """Whether what is too young to be read may tell more of `part`, and is soon old enough.

        Not for ever where there is always something young.
        """
        return (
            part.held_until is not None
            and self._clock.wall_us() - part.oldest < 2 * self._delay_us
        )

    def due_in_seconds(self, part: Slice) -> float | None:
        """When the first Change that is too young will be old enough."""
        if part.held_until is None:
            return None
        return (part.held_until + self._delay_us - self._clock.wall_us()) / 1e6

    async def hold(self, part: Slice, cursors: Mapping[str, Cursor], young: range) -> Held:
        """Take out of `part` what has not come to rest; `cursors`: where the Node stands.

        What had been held before is joined to what is pending of it now.
        """
        held = Held()
        known = self._state.settling(self._key)
        for path, row in known.items():
            item = part.pending.get(self._in_tree(path))
            if item is not None:
                held.done.append(row.id)
                item.since = min(item.since, row.since)
                item.want |= Want.ATTRIBUTES if row.compare is Compare.ATTRIBUTES else Want.CONTENT
        now = self._clock.wall_us()
        for path in await self._changed_again(part, {**cursors, **part.cursors}, young):
            item = part.pending[path]
            due = min(item.since, now) + self._max_delay_us
            if item.want & ~_SINGLE or due <= now or not self._is_inside(path):
                continue
            del part.pending[path]
            held.added.append(self._row(item, due))
        return held

    async def _changed_again(
        self, part: Slice, after: Mapping[str, Cursor], young: range
    ) -> set[bytes]:
        """The paths of `part` that a young Change names, too."""
        found: set[bytes] = set()
        for shard, cursor in after.items():
            reader = self._journals.reader(shard)
            if reader is not None:
                await _name_young(reader, cursor.position, young, part.pending, found)
        return found

    def _row(self, item: Pending, due: int) -> Work:
        path = item.path[len(self._subtree) + 1 :] if self._subtree else item.path
        return Work(
            path=path,
            scope=Scope.ENTRY,
            compare=Compare.CONTENT if item.want & Want.CONTENT else Compare.ATTRIBUTES,
            reason=WorkReason.SETTLING,
            since=item.since,
            not_before=due,
        )

    def _is_inside(self, path: bytes) -> bool:
        """Whether the Node takes this very path; the rest is not its business, or all of it is."""
        return bool(path) and (
            not self._subtree or (covers(self._subtree, path) and path != self._subtree)
        )

    def _in_tree(self, path: bytes) -> bytes:
        return self._subtree + b"/" + path if self._subtree else path


def due_now(rows: list[Work]) -> list[Work]:
    """The same rows, held no longer: somebody began to wait for them meanwhile."""
    return [replace(row, not_before=0) for row in rows]


async def _name_young(
    reader: JournalReader,
    after: int,
    young: range,
    wanted: Container[bytes],
    found: set[bytes],
) -> None:
    """Add to `found` what is wanted of the Changes above `after`.

    From the newest back to the first that is not young; holds no transaction open in between.
    """
    before = 2**63 - 1
    while True:
        try:
            rows = reader.read_newest(before=before, after=after, limit=_ROWS_AT_ONCE)
        except StateUnusable:
            # Shipped a little early, then: the Journal's Changes ship it again when it heals.
            return
        for _, path, observed_at in rows:
            if observed_at < young.start:
                return
            if path in wanted and observed_at in young:
                found.add(path)
        if len(rows) < _ROWS_AT_ONCE:
            return
        before = rows[-1][0]
        await asyncio.sleep(0)
