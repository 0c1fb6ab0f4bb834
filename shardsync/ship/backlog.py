"""What is pending for a Node, cut into slices: one slice becomes one Batch.

Changes are read a little at a time, Shard by Shard in turn, and folded as they
come, until a slice holds enough distinct paths or enough Changes. So a backlog
costs what its distinct paths cost, in time that is linear in its Changes, and
memory does not grow with it: it stays on disk. A path that changed a thousand
times is shipped once per slice.

Nodes that stand at the same Cursor are given the same slice, where it is still what they
would read: sixteen Nodes in step cost one reading, and one look at each path.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from shardsync.clock import Clock
from shardsync.journal.records import Cursor
from shardsync.ship.batch import Plans
from shardsync.ship.fold import Pending, fold
from shardsync.ship.journals import TreeJournals

_ROWS_AT_ONCE = 2_000
"""Per Shard; 2,000 Changes are read and folded in some 5 ms, and others wait for no more."""
_FEW_ROWS = 200
_MOST_ROWS = 200_000
"""In one slice, however few paths they concern: a second of reading, 8 bytes each."""
_SLICE_SECONDS = 5.0
"""How long a Batch should take at most: what was observed meanwhile waits for its end."""
_FEWEST_PATHS = 50
_NEW_SECONDS = 0.1
"""A slice is shared for that long although there are newer Changes: they make the next one."""
_KNOWN_SECONDS = 5.0
"""And for that long where it could not be read otherwise: what was seen then is still news."""


@dataclass(slots=True, kw_only=True, weakref_slot=True)
class Slice:
    """Pending Changes as distinct paths. `cursors`: where they stand once these are shipped.

    `observed_at` of each Change, for the latency. `held_until`: observed_at of the first
    Change that is still settling, or None. `is_full`: it was ended by its size. `read_at`:
    monotonic seconds. `plans`: what was made of it, by whatever that depends on; what comes
    from a Backlog is everybody's, and only this may be added to.
    """

    pending: dict[bytes, Pending] = field(default_factory=dict)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    observed_at: array[int] = field(default_factory=lambda: array("q"))
    held_until: int | None = None
    is_full: bool = False
    read_at: float = 0.0
    plans: Plans = field(default_factory=dict)

    @property
    def oldest(self) -> int:
        """observed_at of the oldest Change in it. Raises ValueError where there is none."""
        return min(self.observed_at)

    @property
    def newest(self) -> int:
        """observed_at of the newest Change in it. Raises ValueError where there is none."""
        return max(self.observed_at)


async def read_slice(
    journals: TreeJournals,
    cursors: Mapping[str, Cursor],
    *,
    max_paths: int,
    young: range | None = None,
) -> Slice:
    """The next Changes after `cursors`, of all Shards in turn, folded.

    About `max_paths` distinct paths at most: a step of reading is finished. Those observed
    within `young` (Unix microseconds), and what comes after them, are left for later. Lets
    others run in between. A Journal that cannot be read keeps back only its own Changes.
    """
    found = Slice()
    at = dict(cursors)
    while True:
        room = max(max_paths - len(found.pending), min(_FEW_ROWS, max_paths))
        unread = journals.unread(at, limit=min(room, _ROWS_AT_ONCE), young=young)
        fold(unread.rows, found.pending)
        found.observed_at.extend(row[4] for row in unread.rows)
        found.cursors |= unread.cursors
        at |= unread.cursors
        if unread.held_until is not None:
            found.held_until = min(unread.held_until, found.held_until or unread.held_until)
        found.is_full = len(found.pending) >= max_paths or len(found.observed_at) >= _MOST_ROWS
        if found.is_full or not unread.is_cut:
            return found
        await asyncio.sleep(0)


class Backlog:
    """What is pending in one Tree. Shared by its Nodes."""

    def __init__(self, *, journals: TreeJournals, clock: Clock) -> None:
        self._journals = journals
        self._clock = clock
        # One for each place: who stands elsewhere waits for nobody's long reading.
        self._reading: WeakValueDictionary[_Place, asyncio.Lock] = WeakValueDictionary()
        # Held by those who are at work on them, and the newest for those who wait for a slot.
        self._slices: WeakValueDictionary[_Place, Slice] = WeakValueDictionary()
        self._newest: Slice | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    async def read(
        self,
        cursors: Mapping[str, Cursor],
        *,
        max_paths: int,
        young: range | None = None,
        anew: bool = False,
    ) -> Slice:
        """As `read_slice`; what another Node was given at the same Cursors, where that will do.

        What it was given a moment ago will, and what could not be read otherwise now; not with
        `anew`, nor where anything is `young`. Whatever is seen of a path is from after the
        Change that is read here, or there is a later one, which each Node reads in its turn.
        So no slice that came without `young` is to be changed, but for its `plans`.
        """
        if young is not None:
            return await read_slice(self._journals, cursors, max_paths=max_paths, young=young)
        place = (frozenset(cursors.items()), max_paths)
        lock = self._reading.get(place) or asyncio.Lock()
        self._reading[place] = lock
        async with lock:
            known = self._slices.get(place)
            if known is not None and not anew and self._will_do(known, cursors):
                return known
            found = await read_slice(self._journals, cursors, max_paths=max_paths)
            found.read_at = self._clock.monotonic()
            if found.pending:
                # Nothing is no news to keep: there may be some a moment later.
                self._slices[place] = found
                self._keep(found)
            return found

    def _keep(self, found: Slice) -> None:
        self._newest = found
        if self._forgetting is not None:
            self._forgetting.cancel()
        later = asyncio.get_running_loop().call_later
        self._forgetting = later(_KNOWN_SECONDS, setattr, self, "_newest", None)

    def _will_do(self, known: Slice, cursors: Mapping[str, Cursor]) -> bool:
        age = self._clock.monotonic() - known.read_at
        return age < _NEW_SECONDS or (
            age < _KNOWN_SECONDS
            and (known.is_full or not self._journals.has_after({**cursors, **known.cursors}))
        )


_Place = tuple[frozenset[tuple[str, Cursor]], int]


class SliceSize:
    """How many paths the next slice may hold, so that a Batch ends in some seconds.

    A slow Node gets smaller Batches, each of which moves its Cursor. Pure.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self.paths = most
        """At most that many."""

    def note(self, *, paths: int, seconds: float) -> None:
        """Learn from a Batch of so many paths that took so long."""
        if seconds > _SLICE_SECONDS and paths:
            fitting = int(paths * _SLICE_SECONDS / seconds)
            self.paths = max(min(self._most, _FEWEST_PATHS), min(self.paths, fitting))
        elif seconds < _SLICE_SECONDS / 2:
            self.paths = min(self._most, 2 * self.paths)
