"""Who may write to one Node now: one run alone, or several whose subtrees are disjoint."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """`async with turns.alone()` or `turns.beside()`: one writer, or any number side by side.

    First come, first served: who wants to be alone waits for those before it alone.
    """

    def __init__(self) -> None:
        self._gate = asyncio.Lock()
        self._none_beside = asyncio.Event()
        self._none_beside.set()
        self._beside = 0

    def locked(self) -> bool:
        """Whether anything writes, or waits for those that do."""
        return self._gate.locked() or self._beside > 0

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nothing else writes meanwhile."""
        async with self._gate:
            await self._none_beside.wait()
            yield

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Only others that are `beside` write meanwhile."""
        async with self._gate:
            self._beside += 1
            self._none_beside.clear()
        try:
            yield
        finally:
            self._beside -= 1
            if not self._beside:
                self._none_beside.set()
