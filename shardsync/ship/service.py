"""The sync process: one Syncer per Node in one event loop, woken by what the Watchers commit.

It owns state.db. It never watches the Tree and never writes a Journal. Which
Nodes are served follows the settings while it runs: `take` has others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping

from shardsync.clock import Clock
from shardsync.config.settings import Settings
from shardsync.errors import ShardsyncError
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.log import Log
from shardsync.ship.adapting import Adapting
from shardsync.ship.agreement import Agreement
from shardsync.ship.assembly import Assembly
from shardsync.ship.housekeeping import Housekeeping
from shardsync.ship.observer import ShipObserver
from shardsync.ship.operator import Operator
from shardsync.ship.post import STOP_SECONDS, ServedTree
from shardsync.ship.served import Served
from shardsync.ship.wakeup import Wakeup

_BUSY_SECONDS = 0.05


class SyncService:
    """All Syncers, and what they share. `serve()` returns after `stop()`."""

    def __init__(
        self,
        *,
        settings: Settings,
        state: StateWriter,
        observer: ShipObserver,
        environment: Mapping[str, str],
        clock: Clock,
        log: Log,
    ) -> None:
        self._settings = settings
        self._state = state
        self._log = log
        self._stopping = asyncio.Event()
        self._request_news = asyncio.Event()
        self._state_dir = state_dir = StateDirectory(settings.state_dir)
        self._served = Served(state_dir=state_dir, log=log)
        self._operator = Operator(
            state_dir=state_dir,
            state=state,
            stations=self._served.stations,
            clock=clock,
            log=log,
        )
        self._adapting = Adapting(
            settings=settings,
            state=state,
            served=self._served,
            assembly=Assembly(
                state_dir=state_dir,
                state=state,
                observer=observer,
                environment=environment,
                clock=clock,
                log=log,
            ),
            agreement=Agreement(
                state_dir=state_dir, read=state.read, served=self._served, clock=clock, log=log
            ),
            operator=self._operator,
            observer=observer,
            begin=self._begin,
            stopping=self._stopping,
            clock=clock,
            log=log,
        )
        self._housekeeping = Housekeeping(
            state=state,
            served=self._served,
            retention_seconds=settings.retention_seconds,
            clock=clock,
            log=log,
        )

    def trees(self) -> tuple[ServedTree, ...]:
        """The Trees that are served."""
        return tuple(self._served.trees.values())

    def stop(self) -> None:
        """Finish the ticks under way, then return from `serve`."""
        self._stopping.set()
        self._request_news.set()
        self._adapting.stop()
        self._served.stop()

    def take(self, settings: Settings) -> None:
        """Serve what these ask for from now on; what they leave as it is goes on undisturbed.

        Returns at once; `StateReader.settings` has their mark when all of it is under way.
        """
        if settings != self._settings:
            self._settings = settings
            self._housekeeping.retention_seconds = settings.retention_seconds
            self._adapting.take(settings)

    async def serve(self) -> None:
        """Run until stopped. Raises StateUnusable where state.db cannot be written at first."""
        self._state.start(pid=os.getpid())
        # Before the first look at the Plan: one that is written meanwhile would be missed.
        wakeup = Wakeup(state_dir=self._state_dir, on_news=self._on_news, log=self._log)
        wakeup.start()
        try:
            self._served.follow_plan()
            await self._adapting.adapt()
            self._operator.recover()
            self._log.info(
                "sync.started", trees=len(self._served.trees), nodes=len(self._served.posts)
            )
            await self._work(wakeup)
        finally:
            wakeup.stop()

    async def _work(self, wakeup: Wakeup) -> None:
        tasks = [
            asyncio.create_task(self._guarded(what, work))
            for what, work in (
                ("operator", self._run_operator()),
                ("housekeeping", self._housekeeping.run(self._stopping)),
                ("settings", self._adapting.run()),
            )
        ]
        try:
            await self._stopping.wait()
            await asyncio.wait([*tasks, *self._served.tasks()], timeout=STOP_SECONDS)
        finally:
            wakeup.stop()
            await self._close([*tasks, *self._served.tasks()])

    async def _run_operator(self) -> None:
        while not self._stopping.is_set():
            self._request_news.clear()
            self._operator.tick()
            if self._operator.is_busy:
                await asyncio.sleep(_BUSY_SECONDS)
            else:
                await self._request_news.wait()

    def _on_news(self, kind: str, shard: str) -> None:
        if kind == "request":
            self._request_news.set()
        elif kind == "plan":
            self._served.follow_plan()
        else:
            self._served.has_news(shard)

    def _begin(self, what: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._guarded(what, work))

    async def _guarded(self, what: str, work: Coroutine[object, object, None]) -> None:
        """A bug in one part is logged and ends the process, for supervisord to start it anew."""
        try:
            await work
        except ShardsyncError as error:
            self._log.error("sync.failed", part=what, error=error, remedy=error.remedy)
            self.stop()
        except Exception:
            self._log.bug("sync.bug", part=what)
            self.stop()
            raise

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._served.close()
        self._state.close()
        self._log.info("sync.stopped")
