"""Runs of rsync begun from nothing: each is tried once more where its connection had bad luck."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from shardsync.ship.command import Purpose
from shardsync.ship.messages import OutLine
from shardsync.ship.outcome import RunResult, Trouble
from shardsync.ship.readiness import Readiness
from shardsync.ship.rsync import source_lost
from shardsync.ship.slots import Pulse
from shardsync.ship.starting import RunStarter

BUSY_PAUSES_SECONDS = (0.1, 0.3, 1.0, 3.0)
"""The connection that was let go of is free once the daemon has noticed."""
WARM_TROUBLES = frozenset(
    {
        Trouble.UNREACHABLE,
        Trouble.PROTOCOL,
        Trouble.SSH,
        Trouble.KILLED,
        Trouble.TIMEOUT,
        Trouble.BUSY,
    }
)
"""How one ends that died, or was turned away, while it waited: worth one cold try at once."""


class ColdRuns:
    """Those of one Node. `count_lost`: how many of its ssh connections were lost so far."""

    def __init__(
        self,
        *,
        starter: RunStarter,
        readiness: Readiness,
        is_daemon: bool,
        count_lost: Callable[[], int],
        new_pulse: Callable[[], Pulse],
    ) -> None:
        self._starter = starter
        self._readiness = readiness
        self._is_daemon = is_daemon
        self._count_lost = count_lost
        self._new_pulse = new_pulse

    async def run(
        self,
        purpose: Purpose,
        paths: Sequence[bytes],
        *,
        gone: Sequence[bytes] = (),
        entries: Sequence[bytes] | None = None,
        deadline_seconds: float,
        max_delete: int | None = None,
        on_line: Callable[[OutLine], None] | None = None,
        dry_run: bool = False,
    ) -> RunResult:
        """One cold run, or another where that had bad luck with its connection."""

        async def once() -> RunResult:
            try:
                run = self._starter.begin(
                    purpose, max_delete=max_delete, on_line=on_line, dry_run=dry_run
                )
            except OSError as error:
                return source_lost(error, listed=len(paths) + len(gone))
            return await run.finish(
                paths=paths,
                gone=gone,
                entries=entries,
                deadline_seconds=deadline_seconds,
                pulse=self._new_pulse() if purpose is not Purpose.BIG_FILE else Pulse(),
            )

        return await self.patiently(once)

    async def patiently(self, once: Callable[[], Awaitable[RunResult]]) -> RunResult:
        """`once()`, again after a daemon that has no connection left, or a lost ssh master."""
        pauses = iter(BUSY_PAUSES_SECONDS)
        lost: int | None = self._count_lost()
        while True:
            result = await once()
            if lost is None:
                result = replace(result, cut_off=True)
            if result.trouble is Trouble.BUSY and self._is_daemon:
                pause = next(pauses, None)
                if pause is None:
                    return result
                await self._readiness.make_room()
                await asyncio.sleep(pause)
            elif lost not in {None, self._count_lost()} and result.trouble in WARM_TROUBLES:
                lost = None
            else:
                return result

    async def elsewhere(
        self,
        folder: bytes,
        purpose: Purpose,
        paths: Sequence[bytes],
        *,
        gone: Sequence[bytes] = (),
        filters: tuple[str, ...] = (),
        deadline_seconds: float,
        on_line: Callable[[OutLine], None] | None = None,
    ) -> RunResult:
        """A dry run that takes `folder` for the tree: to ask a Node something."""

        async def once() -> RunResult:
            try:
                source = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    run = self._starter.begin_on(
                        source, purpose=purpose, filters=filters, on_line=on_line, dry_run=True
                    )
                finally:
                    os.close(source)
            except OSError as error:
                return source_lost(error, listed=len(paths) + len(gone))
            return await run.finish(paths=paths, gone=gone, deadline_seconds=deadline_seconds)

        return await self.patiently(once)
