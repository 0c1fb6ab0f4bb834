"""A run of rsync started ahead, connected and waiting for its list: the warm start.

It saves what start and connection cost: list to visible went from 62 to 7 ms through a
daemon. It holds a descriptor of the Tree's root and a connection to the Node, so
it is let go when the Node pauses.

Crash safety: it reads an empty list when we die, and does nothing then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from shardsync.clock import Clock
from shardsync.ship.command import TIMEOUT_SECONDS
from shardsync.ship.rsync import RsyncRun

RENEW_SECONDS = TIMEOUT_SECONDS * 2 / 3
"""Older than that, its --timeout may strike before the list is through."""


class WarmRsync:
    """At most one waiting run. `begin` starts a run on a descriptor that it does not keep.

    `open_source` gives a fresh descriptor of the directory to ship from; the run waits in
    that directory, so `take` compares: a subtree that was replaced needs a new run.
    """

    def __init__(
        self,
        *,
        begin: Callable[[int], RsyncRun],
        open_source: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._begin = begin
        self._open_source = open_source
        self._clock = clock
        self._run: RsyncRun | None = None
        self._identity: tuple[int, int] | None = None
        self._discarding: set[asyncio.Task[None]] = set()

    @property
    def age_seconds(self) -> float | None:
        """For how long a run has been waiting, None where none is."""
        if self._run is None or not self._run.is_running:
            return None
        return self._clock.monotonic() - self._run.started_at

    @property
    def was_refused(self) -> bool:
        """Whether the one that should be waiting was turned away for want of a connection."""
        return self._run is not None and self._run.was_refused

    def start(self) -> None:
        """Start one unless one waits that is young enough. Raises OSError."""
        age = self.age_seconds
        if age is not None and age < RENEW_SECONDS:
            return
        self.drop()
        source = self._open_source()
        try:
            self._identity = identity(source)
            self._run = self._begin(source)
        finally:
            os.close(source)

    def take(self) -> RsyncRun | None:
        """The waiting run, now the caller's; None where none waits that can still be used.

        Raises OSError where the source cannot be opened.
        """
        age = self.age_seconds
        source = self._open_source()
        try:
            fits = identity(source) == self._identity
        finally:
            os.close(source)
        if age is None or age >= RENEW_SECONDS or not fits:
            self.drop()
            return None
        run, self._run = self._run, None
        return run

    def drop(self) -> None:
        """Let go of the waiting run without waiting for its end."""
        run, self._run = self._run, None
        if run is not None:
            task = asyncio.get_running_loop().create_task(run.discard())
            self._discarding.add(task)
            task.add_done_callback(self._discarding.discard)

    async def close(self) -> None:
        """End the waiting run, and all that were dropped; no descriptor is held afterwards."""
        self.drop()
        if self._discarding:
            await asyncio.wait(self._discarding)


def identity(descriptor: int) -> tuple[int, int]:
    """What tells one open directory from another while both are open."""
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino)
