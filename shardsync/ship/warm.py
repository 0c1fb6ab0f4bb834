"""A run of rsync started ahead, connected and waiting for its list: the warm start.

It saves what start and connection cost: list to visible went from 62 to 7 ms through a
daemon. It holds a descriptor of the Tree's root and a connection to the Node, so
it is let go when the Node pauses.

Crash safety: it reads an empty list when we die, and does nothing then.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from shardsync.clock import Clock
from shardsync.ship.command import TIMEOUT_SECONDS
from shardsync.ship.rsync import RsyncRun

RENEW_SECONDS = TIMEOUT_SECONDS * 2 / 3
"""Older than that, its --timeout may strike before the list is through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """One run that waits, and the directory that it waits in."""

    run: RsyncRun
    place: object


class WarmRsync:
    """Waiting runs, as a rule one. `begin` starts a run on a descriptor that it does not keep.

    `open_source` gives a fresh descriptor of the directory to ship from; the run waits in
    that directory, so `take` compares what `find_place` tells: a subtree that was replaced,
    or in which something was mounted since, needs a new run. Both raise OSError.
    """

    def __init__(
        self,
        *,
        begin: Callable[[int], RsyncRun],
        open_source: Callable[[], int],
        find_place: Callable[[], object],
        clock: Clock,
    ) -> None:
        self._begin = begin
        self._open_source = open_source
        self._find_place = find_place
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._discarding: set[asyncio.Task[None]] = set()

    @property
    def age_seconds(self) -> float | None:
        """For how long the one that is next has been waiting, None where none is."""
        living = [self._age(item) for item in self._waiting if item.run.is_running]
        return living[0] if living else None

    @property
    def was_refused(self) -> bool:
        """Whether one that should be waiting was turned away for want of a connection."""
        return any(item.run.was_refused for item in self._waiting)

    def start(self, *, ahead: int = 1) -> None:
        """Start one unless `ahead` wait that are young enough. Raises OSError."""
        for item in tuple(self._waiting):
            if not item.run.is_running or self._age(item) >= RENEW_SECONDS:
                self._waiting.remove(item)
                self._discard(item.run)
        if len(self._waiting) >= ahead:
            return
        place = self._find_place()
        source = self._open_source()
        try:
            self._waiting.append(_Waiting(place=place, run=self._begin(source)))
        finally:
            os.close(source)

    def take(self) -> RsyncRun | None:
        """The run that has waited longest, now the caller's; None where none can be used.

        Raises OSError where the source cannot be opened.
        """
        place = self._find_place()
        while self._waiting:
            item = self._waiting.popleft()
            is_young = self._age(item) < RENEW_SECONDS
            if item.run.is_running and is_young and item.place == place:
                return item.run
            self._discard(item.run)
        return None

    def drop(self) -> None:
        """Let go of the waiting runs without waiting for their end."""
        while self._waiting:
            self._discard(self._waiting.popleft().run)

    async def close(self) -> None:
        """End the waiting runs, and all that were dropped; no descriptor is held afterwards."""
        self.drop()
        if self._discarding:
            await asyncio.wait(self._discarding)

    def _age(self, item: _Waiting) -> float:
        return self._clock.monotonic() - item.run.started_at

    def _discard(self, run: RsyncRun) -> None:
        task = asyncio.get_running_loop().create_task(run.discard())
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)
