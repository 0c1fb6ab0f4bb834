"""Runs of a comparison side by side: how many a Node takes, and how many pieces each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shardsync.clock import Clock
from shardsync.errors import ShardsyncError
from shardsync.journal.records import Work
from shardsync.log import Log
from shardsync.ship.outcome import Trouble
from shardsync.ship.shipping import NodeTrouble

_LANES = 4
_SHORT_SECONDS, _LONG_SECONDS = 1.0, 4.0
"""A run that is shorter takes more pieces the next time, one that is longer takes fewer."""
_FIRST_TOGETHER = 4


class Lanes:
    """Learns from each run what the Node bears."""

    def __init__(self, *, clock: Clock, log: Log) -> None:
        self._clock = clock
        self._log = log
        self._lanes = _LANES
        self._together = _FIRST_TOGETHER
        self._trouble: ShardsyncError | OSError | None = None

    async def go(
        self,
        queue: list[Work],
        do: Callable[[list[Work]], Awaitable[None]],
        *,
        is_over: Callable[[], bool],
    ) -> None:
        """Have each lane `do` the next pieces until none is left, or it `is_over`.

        Raises what ails the Node, once all that was begun has ended.
        """
        self._trouble = None
        async with asyncio.TaskGroup() as group:
            for _ in range(self._lanes):
                group.create_task(self._lane(queue, do, is_over))
        if self._trouble is not None:
            raise self._trouble

    async def _lane(
        self,
        queue: list[Work],
        do: Callable[[list[Work]], Awaitable[None]],
        is_over: Callable[[], bool],
    ) -> None:
        while queue and self._trouble is None and not is_over():
            rows = queue[: self._together]
            del queue[: self._together]
            began = self._clock.monotonic()
            try:
                await do(rows)
            except (ShardsyncError, OSError) as error:
                self._give_way(error)
                return
            self._pace(self._clock.monotonic() - began)

    def _pace(self, seconds: float) -> None:
        if seconds < _SHORT_SECONDS:
            self._together *= 2
        elif seconds > _LONG_SECONDS:
            self._together = max(1, self._together // 2)

    def _give_way(self, error: ShardsyncError | OSError) -> None:
        """A Node that takes fewer connections gets fewer; any other trouble is the Node's."""
        if isinstance(error, NodeTrouble) and error.trouble is Trouble.BUSY and self._lanes > 1:
            self._lanes = max(1, self._lanes // 2)
            self._log.info("node.fewer_lanes", lanes=self._lanes, reason=error)
            return
        self._trouble = self._trouble or error
