"""How many rsyncs may run at a time, over all Nodes: first come, first served."""

from __future__ import annotations

import asyncio

from shardsync.ship.observer import ShipObserver


class RsyncSlots:
    """`async with slots:` around each run. Tells the observer how many are taken."""

    def __init__(self, *, limit: int, observer: ShipObserver) -> None:
        self._limit = limit
        self._observer = observer
        self._free = asyncio.Semaphore(limit)
        self._running = 0

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self._count(1)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._count(-1)
        self._free.release()

    def _count(self, more: int) -> None:
        self._running += more
        self._observer.rsyncs_running(self._running, limit=self._limit)
